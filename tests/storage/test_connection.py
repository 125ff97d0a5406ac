"""Opening a file: how it is created, and that a failed migration changes nothing."""

from __future__ import annotations

import os
import re
import signal
import sqlite3
import stat
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from cronactors.errors import StoreCorrupt, StoreUnavailable
from cronactors.storage import connection, migrations, schema
from cronactors.storage.connection import connect
from cronactors.storage.file_state import MEMORY
from cronactors.storage.schema import APPLICATION_ID, SCHEMA_VERSION
from tests import storages
from tests.storages import add, contents, filled, job, job_ids, opened, pragma

path = storages.path


# Creation


def test_a_new_file_is_private_whatever_the_umask(tmp_path: Path, path: str) -> None:
    before = os.umask(0)
    try:
        with closing(opened(path)) as storage:
            add(storage, "a")
            modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in tmp_path.iterdir()}
    finally:
        os.umask(before)
    assert modes == {"jobs.db": 0o600, "jobs.db-wal": 0o600, "jobs.db-shm": 0o600}


def test_a_missing_file_behind_a_link_is_created_private_too(tmp_path: Path, path: str) -> None:
    target = tmp_path / "target.db"
    Path(path).symlink_to(target)
    connect(path, create=True).close()
    assert stat.S_IMODE(target.stat().st_mode) == 0o600


def test_the_mode_of_an_existing_file_is_left_alone(path: str) -> None:
    filled(path)
    Path(path).chmod(0o640)
    connect(path, create=True).close()
    assert stat.S_IMODE(Path(path).stat().st_mode) == 0o640


@pytest.mark.parametrize("existing", [False, True])
def test_commits_survive_a_power_cut(path: str, existing: bool) -> None:
    if existing:
        filled(path)
    with closing(connect(path, create=True)) as db:
        assert pragma(db, "journal_mode") == "wal"
        assert pragma(db, "synchronous") == 2  # FULL
        assert pragma(db, "foreign_keys") == 1
        assert pragma(db, "application_id") == APPLICATION_ID
        assert pragma(db, "user_version") == SCHEMA_VERSION


def test_a_new_file_is_complete_and_has_no_other_file_beside_it(tmp_path: Path, path: str) -> None:
    connect(path, create=True).close()
    assert list(contents(tmp_path)) == ["jobs.db"]
    with closing(sqlite3.connect(f"file:{path}?immutable=1", uri=True)) as db:
        assert pragma(db, "user_version") == SCHEMA_VERSION


def no_links(*_: object, **__: object) -> None:
    """Refuse, as a file system without hard links does."""
    raise PermissionError


def test_a_file_system_without_links_gets_a_file_too(tmp_path: Path, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "link", no_links)
    filled(path)
    assert list(contents(tmp_path)) == ["jobs.db"]


KILLED = """
import os, signal, sys
from cronactors.storage import connection, creation

def kill(*args, **kwargs):
    os.kill(os.getpid(), signal.SIGKILL)

def kill_after(function):
    def carried_out(*args, **kwargs):
        function(*args, **kwargs)
        kill()
    return carried_out

where = sys.argv[2]
if where == "before the schema":
    connection.bring_up_to_date = kill
elif where == "after the schema":
    connection.bring_up_to_date = kill_after(connection.bring_up_to_date)
elif where == "after the file was synced":
    os.fsync = kill_after(os.fsync)
elif where == "before the name":
    os.link = kill
elif where == "after the name":
    os.link = kill_after(os.link)
elif where == "before the folder was synced":
    creation._sync_folder = kill
else:
    creation._sync_folder = kill_after(creation._sync_folder)
connection.connect(sys.argv[1], create=True)
"""


@pytest.mark.parametrize(
    ("where", "created"),
    [
        ("before the schema", False),
        ("after the schema", False),
        ("after the file was synced", False),
        ("before the name", False),
        ("after the name", True),
        ("before the folder was synced", True),
        ("after the folder was synced", True),
    ],
)
def test_a_creator_that_is_killed_leaves_a_complete_file_or_none(tmp_path: Path, path: str, where: str, created: bool) -> None:
    ended = subprocess.run([sys.executable, "-c", KILLED, path, where], check=False)
    assert ended.returncode == -signal.SIGKILL
    left = {file.name for file in tmp_path.iterdir()}
    unfinished = {name for name in left if re.fullmatch(r"jobs\.db\.[0-9a-f]{16}\.part(-wal|-shm)?", name)}
    assert left - unfinished == ({"jobs.db"} if created else set())
    assert all(stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o600 for name in left)
    filled(path)
    assert {file.name for file in tmp_path.iterdir()} == unfinished | {"jobs.db"}, "a leftover stays, and does no harm"
    with closing(opened(path)) as storage:
        assert (storage.check(), job_ids(storage)) == (None, ["000", "001", "002"])


@pytest.mark.parametrize("has_links", [True, False])
def test_a_new_file_is_in_wal_mode_and_complete_when_it_gets_its_name(
    tmp_path: Path, path: str, monkeypatch: pytest.MonkeyPatch, has_links: bool
) -> None:
    if not has_links:
        monkeypatch.setattr(os, "link", no_links)
    contents_at_check: list[bytes] = []
    monkeypatch.setattr(connection, "check_file", lambda path, file, **_: contents_at_check.append(file.read_bytes()))
    connect(path, create=True).close()
    (content,) = contents_at_check
    assert content[:16] == b"SQLite format 3\0"
    assert content[18:20] == b"\2\2", "in WAL mode before anybody opens it (SQLite, Database File Format)"
    assert [*tmp_path.iterdir()] == [Path(path)]
    filled(path)
    with closing(opened(path)) as storage:
        assert storage.check() is None
    assert stat.S_IMODE(Path(path).stat().st_mode) == 0o600


@pytest.mark.parametrize("has_links", [True, False])
def test_a_creator_uses_the_file_of_another_process_that_was_faster(
    path: str, monkeypatch: pytest.MonkeyPatch, has_links: bool
) -> None:
    if not has_links:
        monkeypatch.setattr(os, "link", no_links)
    fill = connection._fill

    def fill_slowly(unfinished: Path, name: str) -> None:
        fill(unfinished, name)
        with monkeypatch.context() as patch:
            patch.setattr(connection, "_fill", fill)
            filled(path)

    monkeypatch.setattr(connection, "_fill", fill_slowly)
    connect(path, create=True).close()
    assert list(contents(Path(path).parent)) == ["jobs.db"]
    with closing(opened(path)) as storage:
        assert job_ids(storage) == ["000", "001", "002"]


def test_a_file_whose_content_is_still_in_its_log_never_gets_its_name(
    tmp_path: Path, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reader keeps the content in the log; so does a disk that fills up at the wrong moment, and closing reports neither."""
    readers: list[sqlite3.Connection] = []
    bring_up_to_date = connection.bring_up_to_date

    def with_a_reader(db: sqlite3.Connection, name: str) -> None:
        (unfinished,) = [file for file in tmp_path.iterdir() if file.name.endswith(".part")]
        readers.append(sqlite3.connect(unfinished, isolation_level=None))
        readers[0].execute("BEGIN")
        readers[0].execute("SELECT * FROM sqlite_master").fetchall()
        bring_up_to_date(db, name)

    with monkeypatch.context() as patch:
        patch.setattr(connection, "bring_up_to_date", with_a_reader)
        with pytest.raises(StoreUnavailable, match=r"jobs\.db cannot be created"):
            connect(path, create=True)
    assert list(tmp_path.iterdir()) == []
    readers[0].close()
    filled(path)
    with closing(opened(path)) as storage:
        assert (storage.check(), job_ids(storage)) == (None, ["000", "001", "002"])


def test_a_storage_in_memory_is_private_and_creates_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with closing(opened(MEMORY)) as one, closing(opened(MEMORY)) as other:
        add(one, "a")
        assert (job_ids(one), job_ids(other)) == (["a"], [])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "name", ["a b", "a?mode=memory", "a#b", "100%41", "%00", "file:a", "ü 🕘", "'\"", ":memory: ", "a&b=c", "a\\b"]
)
def test_any_name_of_a_file_and_its_folder_is_taken_literally(tmp_path: Path, name: str) -> None:
    folder = tmp_path / name
    folder.mkdir()
    filled(str(folder / name))
    assert list(contents(tmp_path)) == [f"{name}/{name}"]
    with closing(opened(str(folder / name))) as storage:
        assert job_ids(storage) == ["000", "001", "002"]
    with closing(sqlite3.connect(str(folder / name))) as db:
        db.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    with pytest.raises(StoreCorrupt, match="newer version"):
        connect(str(folder / name), create=True)


def test_a_relative_path_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    filled("jobs.db")
    with closing(opened("./jobs.db")) as storage:
        assert job_ids(storage) == ["000", "001", "002"]
    assert list(contents(tmp_path)) == ["jobs.db"]


def test_two_connections_see_the_commits_of_each_other(path: str) -> None:
    with closing(opened(path)) as one, closing(opened(path)) as other:
        add(one, "a")
        assert job_ids(other) == ["a"]
        assert one.begin(write=True)
        one.insert_jobs([job("b")])
        assert job_ids(other) == ["a"]
        one.commit()
        add(other, "c")
        assert job_ids(one) == ["a", "b", "c"]


# Migrations


def numbers_and_tables(path: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(path)) as db:
        numbers = [(pragma(db, "application_id"), pragma(db, "user_version"))]
        return numbers + db.execute("SELECT name, sql FROM sqlite_master ORDER BY name").fetchall()


def test_migrations_are_applied_once(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    migrate = migrations.migrate

    def counted(db: sqlite3.Connection, version: int) -> None:
        calls.append(version)
        migrate(db, version)

    monkeypatch.setattr(migrations, "migrate", counted)
    connect(path, create=True).close()
    before = numbers_and_tables(path)
    for _ in range(2):
        connect(path, create=True).close()
    assert calls == [0]
    assert numbers_and_tables(path) == before


class Bug(Exception):
    pass


@pytest.mark.parametrize(
    ("error", "raised"),
    [(Bug(), Bug), (sqlite3.OperationalError("no"), StoreUnavailable), (KeyboardInterrupt(), KeyboardInterrupt)],
    ids=["bug", "sqlite", "interrupt"],
)
@pytest.mark.parametrize("existing", [False, True])
def test_a_migration_that_fails_leaves_the_file_as_it_was(
    path: str, monkeypatch: pytest.MonkeyPatch, existing: bool, error: BaseException, raised: type[BaseException]
) -> None:
    if existing:
        filled(path)
    before = numbers_and_tables(path) if existing else None
    migrate = migrations.migrate
    calls = []

    def half_way(db: sqlite3.Connection, version: int) -> None:
        calls.append(db)
        migrate(db, version)
        db.execute("ALTER TABLE jobs ADD COLUMN new TEXT")
        db.execute("UPDATE jobs SET new = name")
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(migrations, "migrate", half_way)
        patch.setattr(schema, "SCHEMA_VERSION", SCHEMA_VERSION + 1)
        with pytest.raises(raised):
            connect(path, create=True)
    assert len(calls) == 1, "only a lock is worth a retry"
    assert (numbers_and_tables(path) if existing else None) == before
    assert list(contents(Path(path).parent)) == (["jobs.db"] if existing else [])
    with closing(opened(path)) as storage:
        assert job_ids(storage) == (["000", "001", "002"] if existing else [])
        add(storage, "works")


def test_opening_a_file_imports_nothing(path: str) -> None:
    """An import would fail where no descriptor is free, or the process has given up the right to read the library."""
    filled(path)
    code = (
        "import sys; from cronactors.storage.sqlite import SqliteStorage; before = set(sys.modules);"
        "SqliteStorage(sys.argv[1], wall=lambda: 0).close(); print(sorted(set(sys.modules) - before))"
    )
    done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
