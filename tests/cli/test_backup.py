"""The command ``backup``: a complete copy, or none."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import sqlite3
import stat
from contextlib import closing
from pathlib import Path

import pytest
import trio
from click.testing import CliRunner, Result

from cronactors import Cron, JobSpec, open_store
from cronactors.cli.file_commands import backup
from cronactors.errors import CronError, InvalidConfig, StoreCorrupt, StoreUnavailable
from cronactors.storage import backup as module
from cronactors.storage.backup import back_up
from cronactors.storage.moved import FileMoved, Move
from cronactors.storage.sqlite_copying import SourceFile
from tests.cli_command import QUICK, lines_of, start, write
from tests.storages import contents, filled

__all__ = ["start", "write"]


def call(*args: str) -> Result:
    result = CliRunner().invoke(backup, args)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def names_in(target: Path) -> list[str]:
    return [file.name for file in target.parent.iterdir()]


async def names(path: Path) -> list[str]:
    async with open_store(path, create=False) as store:
        return [name for _, name in await store.job_names()]


@pytest.fixture
def store(tmp_path: Path) -> Path:
    file = tmp_path / "a.db"
    filled(str(file))
    return file


@pytest.fixture
def target(tmp_path: Path) -> Path:
    folder = tmp_path / "backups"
    folder.mkdir()
    return folder / "b.db"


def test_a_backup_is_a_store(store: Path, target: Path) -> None:
    result = call(str(target), "--db", str(store))
    assert result.exit_code == 0
    assert re.fullmatch(rf"backed up {store} to {target}: 3 jobs and 0 runs, 0\.\d MB\n", result.output)
    assert names_in(target) == ["b.db"]
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    assert trio.run(names, target) == ["000", "001", "002"]


def test_json(store: Path, target: Path) -> None:
    assert json.loads(call(str(target), "--db", str(store), "--json").output) == {
        "database": str(store), "path": str(target), "jobs": 3, "runs": 0, "size": target.stat().st_size,
    }  # fmt: skip


async def test_while_the_store_is_open_and_written_to(store: Path, target: Path) -> None:
    async with open_store(store) as handle:
        await handle.add_job("only in the log", "x", Cron("@daily"))
        await trio.to_thread.run_sync(back_up, str(store), str(target))
        await handle.add_job("later", "x", Cron("@daily"))
    assert await names(target) == ["000", "001", "002", "only in the log"]
    assert await names(store) == ["000", "001", "002", "later", "only in the log"]


@pytest.mark.slow
def test_while_a_scheduler_runs_its_jobs(start, write, tmp_path: Path, target: Path) -> None:
    write(QUICK)
    running = start("run")
    running.wait_for("every .*success")
    for number in range(5):
        done = back_up(str(tmp_path / "jobs.db"), str(target.with_name(f"{number}.db")))
        assert (done.jobs, done.runs > 0) == (4, True)
    running.process.send_signal(signal.SIGINT)
    code, text = running.end()
    assert (code, lines_of(text, "WARNING|ERROR")) == (0, [])
    assert trio.run(names, target.with_name("4.db")) == ["every", "fails", "once", "seconds"]


def test_the_copy_is_of_one_moment(store: Path, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another connection writes between any two steps. SQLite would begin anew each time, and never end."""
    steps = 0

    def write() -> None:
        nonlocal steps
        steps += 1
        assert steps < 1_000, "it has begun anew"
        db.execute("INSERT OR REPLACE INTO meta VALUES ('test', ?)", (str(steps),))

    monkeypatch.setattr(module, "_PAGES", 1)
    monkeypatch.setattr(module, "_between_steps", write)
    with closing(sqlite3.connect(store, isolation_level=None)) as db:
        db.execute("INSERT INTO meta VALUES ('test', 'before')")
        back_up(str(store), str(target))
    assert steps > 10
    with closing(sqlite3.connect(target)) as db:
        assert db.execute("SELECT value FROM meta WHERE key = 'test'").fetchone() == ("before",)


def test_ctrl_c_ends_it(store: Path, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "_PAGES", 1)
    monkeypatch.setattr(module, "_between_steps", interrupt)
    with pytest.raises(KeyboardInterrupt):
        back_up(str(store), str(target))
    assert names_in(target) == []


def test_an_existing_file_is_never_overwritten(store: Path, target: Path) -> None:
    target.write_text("precious")
    with pytest.raises(InvalidConfig, match=r"b\.db exists already, and a backup never overwrites a file: choose another name"):
        call(str(target), "--db", str(store))
    assert contents(target.parent) == {"b.db": b"precious"}
    with pytest.raises(InvalidConfig, match="exists already"):
        call(str(store), "--db", str(store))
    assert trio.run(names, store) == ["000", "001", "002"]


@pytest.mark.parametrize("links", [True, False])
def test_a_file_that_appears_meanwhile_is_not_overwritten(
    store: Path, target: Path, monkeypatch: pytest.MonkeyPatch, links: bool
) -> None:
    def check(*args: object) -> object:
        target.write_text("precious")
        return found(*args)

    def no_links(*_: object) -> None:
        raise OSError(1, "no links here")

    found = module._check
    monkeypatch.setattr(module, "_check", check)
    if not links:
        monkeypatch.setattr(os, "link", no_links)
    with pytest.raises(InvalidConfig, match="exists already"):
        back_up(str(store), str(target))
    assert contents(target.parent) == {"b.db": b"precious"}


def test_a_file_system_without_links(store: Path, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_links(*_: object) -> None:
        raise OSError(1, "no links here")

    monkeypatch.setattr(os, "link", no_links)
    back_up(str(store), str(target))
    assert names_in(target) == ["b.db"]
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    assert trio.run(names, target) == ["000", "001", "002"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, sqlite3.OperationalError])
def test_interrupted_it_leaves_nothing(
    store: Path, target: Path, monkeypatch: pytest.MonkeyPatch, error: type[BaseException]
) -> None:
    def copy(source: Path, unfinished: Path) -> None:
        real(source, unfinished)
        raise error

    real = module._copy
    monkeypatch.setattr(module, "_copy", copy)
    with pytest.raises((KeyboardInterrupt, StoreUnavailable)):
        back_up(str(store), str(target))
    assert names_in(target) == []


def test_a_full_disk_is_that_of_the_target(store: Path, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def copy(source: Path, unfinished: Path) -> None:
        with closing(sqlite3.connect(unfinished)) as db:
            db.execute("PRAGMA max_page_count = 2")
            db.execute("CREATE TABLE a (b)")
            db.execute("INSERT INTO a VALUES (zeroblob(100000))")

    monkeypatch.setattr(module, "_copy", copy)
    with pytest.raises(StoreUnavailable, match=r"b\.db cannot be written: its disk is full"):
        back_up(str(store), str(target))
    assert names_in(target) == []


def test_a_damaged_store_has_no_backup(store: Path, target: Path) -> None:
    with closing(sqlite3.connect(store)) as db:
        (page,) = db.execute("SELECT rootpage FROM sqlite_master WHERE name = 'job_specs'").fetchone()
        (size,) = db.execute("PRAGMA page_size").fetchone()
    with store.open("r+b") as file:
        file.seek((page - 1) * size)
        file.write(b"\xff" * 200)
    before = store.read_bytes()
    with pytest.raises(StoreCorrupt, match=r"a\.db is damaged"):
        back_up(str(store), str(target))
    assert names_in(target) == []
    assert store.read_bytes() == before


def test_a_database_of_another_application(tmp_path: Path, target: Path) -> None:
    other = tmp_path / "other.db"
    with closing(sqlite3.connect(other)) as db, db:
        db.execute("CREATE TABLE a (b)")
    with pytest.raises(StoreCorrupt, match="is a database of another application"):
        back_up(str(other), str(target))
    assert names_in(target) == []


def test_a_store_that_was_moved_to_a_server(store: Path, target: Path) -> None:
    with closing(SourceFile(str(store))) as file:
        assert file.begin(write=True)
        file.mark(Move(id="1", to="postgresql://h/d", at=1, user_id=None, done=True))
        file.commit()
    with pytest.raises(FileMoved, match="was moved to postgresql://h/d"):
        back_up(str(store), str(target))


def test_an_older_schema_is_kept(tmp_path: Path, target: Path) -> None:
    old = tmp_path / "old.db"
    shutil.copy(Path(__file__).parents[1] / "schema_files" / "schema-1.sqlite", old)
    back_up(str(old), str(target))
    with closing(sqlite3.connect(target)) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (1,)


@pytest.mark.parametrize(
    ("database", "file", "message"),
    [
        ("postgresql://h/d", "b.db", "backup is for a file: back up a PostgreSQL database with pg_dump"),
        ("a.db", "postgresql://h/d", "FILE must be a file; to move jobs to a server use cronactors copy"),
        ("a.db", ":memory:", "FILE must be a file, not :memory:"),
        (":memory:", "b.db", ":memory: does not exist"),
        ("absent.db", "b.db", "absent.db does not exist"),
        (".", "b.db", r"\. cannot be opened"),
        ("empty.db", "b.db", "empty.db is empty"),
        ("a.db", "no/b.db", "no/b.db cannot be opened: the folder .*/no does not exist"),
        ("a.db", "folder/", "folder/ cannot be opened: it names a folder, not a file"),
        ("a.db", "folder", "folder exists already"),
        ("a.db", "dangling", "dangling cannot be opened"),
    ],
)
def test_what_is_refused(store: Path, monkeypatch: pytest.MonkeyPatch, database: str, file: str, message: str) -> None:
    folder = store.parent
    monkeypatch.chdir(folder)
    (folder / "folder").mkdir()
    (folder / "empty.db").touch()
    (folder / "dangling").symlink_to("nowhere/b.db")
    before = contents(folder)
    with pytest.raises(CronError, match=message):
        call(file, "--db", database)
    assert contents(folder) == before


def test_wrong_usage() -> None:
    assert call("--db", "a.db").exit_code == 2


async def test_jobs_of_a_backup_run_as_before(store: Path, target: Path) -> None:
    async with open_store(store) as handle:
        await handle.upsert_jobs([JobSpec("mine", "x", Cron("@daily"))], origin="o")
        before = await handle.list_jobs()
    back_up(str(store), str(target))
    async with open_store(target, create=False) as handle:
        assert await handle.list_jobs() == before
