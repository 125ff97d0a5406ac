"""One name, one file: SQLite, the system, the shell and we read every path alike."""

from __future__ import annotations

import os
import sqlite3
import stat
from contextlib import closing
from pathlib import Path

import pytest

from cronactors import Interval, StoreUnavailable, open_store
from cronactors.actors import store_lifetime
from cronactors.cli.database import find_database
from cronactors.config_file import load_config
from cronactors.storage import migrations, schema
from cronactors.storage.connection import connect
from cronactors.storage.errors import Contended
from cronactors.storage.file_state import MEMORY, absolute, locate
from cronactors.storage.sqlite import SqliteStorage
from tests.cli_command import start, write
from tests.storages import contents, filled

__all__ = ["start", "write"]

HOURLY = Interval.every(hours=1)
NAMES = [
    "file:a.db",
    "file:a.db?mode=memory",
    "file:a.db?mode=memory&cache=shared",
    "file:a.db#x",
    "FILE:a.db",
    ":memory: ",
    " :memory:",
    ":MEMORY:",
    "-a.db",
    "--db",
    "~",
    "~root",
    "a.db?vfs=unix-none",
    "a b ",
    "100%41",
]


@pytest.fixture(autouse=True)
def in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", NAMES)
async def test_every_name_is_that_of_a_private_file(in_folder: Path, name: str) -> None:
    async with open_store(name) as store:
        await store.add_job("kept", "p", HOURLY)
        assert store.path == f"{in_folder}/{name}"
        assert {file.name for file in in_folder.iterdir()} == {name, f"{name}-wal", f"{name}-shm"}
    async with open_store(in_folder / name, create=False) as store:
        assert [job.name for job in await store.list_jobs()] == ["kept"]
    assert list(contents(in_folder)) == [name]
    assert stat.S_IMODE((in_folder / name).stat().st_mode) == 0o600


async def test_one_name_alone_means_a_store_in_memory(in_folder: Path) -> None:
    async with open_store(MEMORY) as store:
        await store.add_job("job", "p", HOURLY)
        assert store.path == MEMORY
    async with open_store("./:memory:") as store:
        assert await store.list_jobs() == []
    assert list(contents(in_folder)) == [MEMORY]


@pytest.mark.parametrize("command", ["list", "runs"])
@pytest.mark.parametrize("name", ["file:a.db?mode=memory", "-a.db", "~"])
def test_the_command_line_reads_a_name_as_the_library_does(start, in_folder: Path, name: str, command: str) -> None:
    filled(f"{in_folder}/{name}")
    code, text = start(command, *(["001"] if command == "runs" else []), "--db", name).end()
    assert code == 0, text
    assert "no runs of 001 yet" in text if command == "runs" else "3 jobs" in text
    assert list(contents(in_folder)) == [name]


def test_the_file_names_a_database_as_the_library_does(in_folder: Path) -> None:
    for name in NAMES:
        (in_folder / "agent.toml").write_text(f"[cron]\ndatabase = '{name}'")
        assert load_config("agent.toml").database == f"{in_folder}/{name}"


# Names of no file


@pytest.mark.parametrize("create", [True, False])
@pytest.mark.parametrize("there", ["nothing", "file", "folder"])
@pytest.mark.parametrize("name", ["a.db/", "a.db//", "a.db/.", "a.db/..", "link"])
def test_a_name_that_ends_with_a_slash_names_no_file_and_creates_none(
    in_folder: Path, name: str, there: str, create: bool
) -> None:
    (in_folder / "link").symlink_to("a.db/")
    if there == "file":
        filled(f"{in_folder}/a.db")
    elif there == "folder":
        (in_folder / "a.db").mkdir()
    before = sorted(in_folder.rglob("*"))
    with pytest.raises(StoreUnavailable, match=r"cannot be opened: (it names a folder|the folder .* does not exist)"):
        connect(name, create=create)
    assert sorted(in_folder.rglob("*")) == before


def test_an_empty_name_on_the_command_line_is_refused_and_means_no_other_database(start, write, in_folder: Path) -> None:
    write("")
    code, text = start("list", "--db", "").end()
    assert (code, text) == (1, "cronactors: store must not be empty")
    assert find_database("", None) == ""
    code, text = start("run", "--db", "").end()
    assert (code, text) == (1, "cronactors: store must not be empty")


@pytest.mark.parametrize("through", ["a file", "nothing"])
def test_two_dots_behind_a_missing_folder_are_refused(in_folder: Path, through: str) -> None:
    if through == "a file":
        (in_folder / "sub").write_text("")
    before = sorted(in_folder.iterdir())
    with pytest.raises(StoreUnavailable, match="the folder sub/.. does not exist|the folder .*/sub/.. does not exist"):
        connect("sub/../a.db", create=True)
    assert sorted(in_folder.iterdir()) == before


# Links


def test_two_dots_behind_a_link_mean_the_folder_of_its_target(in_folder: Path) -> None:
    (in_folder / "elsewhere/deep").mkdir(parents=True)
    (in_folder / "here").mkdir()
    (in_folder / "here/link").symlink_to(in_folder / "elsewhere/deep")
    connect("here/link/../a.db", create=True).close()
    assert list(contents(in_folder)) == ["elsewhere/a.db"]
    assert locate("here/link/../a.db") == f"{in_folder}/elsewhere/a.db"
    (in_folder / "here/agent.toml").write_text("[cron]\ndatabase = 'link/../a.db'")
    found = load_config("here/agent.toml").database
    assert found is not None
    assert locate(found) == f"{in_folder}/elsewhere/a.db"
    (in_folder / "elsewhere/agent.toml").write_text("[cron]\nexecutor = 'mine'")
    assert load_config("here/link/../agent.toml").executor == "mine"


def test_two_dots_without_a_link_are_not_shown(in_folder: Path) -> None:
    (in_folder / "here").mkdir()
    (in_folder / "here/agent.toml").write_text("[cron]\ndatabase = '../a.db'")
    config = load_config("here/../here/agent.toml")
    assert (config.file, config.database) == (f"{in_folder}/here/agent.toml", f"{in_folder}/a.db")


def test_a_link_and_its_target_are_one_file_with_one_log(in_folder: Path) -> None:
    (in_folder / "sub").mkdir()
    (in_folder / "first").symlink_to("second")
    (in_folder / "second").symlink_to("sub/a.db")
    with closing(connect("first", create=True)) as one, closing(connect("sub/a.db", create=False)) as other:
        one.execute("BEGIN IMMEDIATE")
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            other.execute("BEGIN IMMEDIATE")
        one.execute("ROLLBACK")
        assert {file.name for file in (in_folder / "sub").iterdir()} == {"a.db", "a.db-wal", "a.db-shm"}
    assert sorted(file.name for file in in_folder.iterdir()) == ["first", "second", "sub"]


def test_links_that_lead_round_in_a_circle_are_refused(in_folder: Path) -> None:
    (in_folder / "one").symlink_to("two")
    (in_folder / "two").symlink_to("one")
    for name in ("one", "one/a.db"):
        with pytest.raises(
            StoreUnavailable, match="cannot be opened: (Too many levels of symbolic links|the folder .* does not)"
        ):
            connect(name, create=True)


# The working directory


async def test_a_relative_path_means_what_it_meant_when_the_call_was_made(
    in_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Opening is retried while the file is locked; another task may have changed the directory meanwhile."""
    (in_folder / "other").mkdir()
    tries: list[str] = []

    def storage(path: str, **_: object) -> SqliteStorage:
        tries.append(path)
        os.chdir("/")
        if len(tries) < 3:
            raise Contended("locked")
        return SqliteStorage(path, wall=lambda: 0)

    monkeypatch.setattr(store_lifetime, "SqliteStorage", storage)
    async with open_store("a.db") as store:
        assert store.path == f"{in_folder}/a.db"
        assert await store.list_jobs() == []
    assert tries == [f"{in_folder}/a.db"] * 3


async def test_where_the_working_directory_is_gone_a_relative_path_is_refused(in_folder: Path) -> None:
    gone = in_folder / "gone"
    gone.mkdir()
    os.chdir(gone)
    gone.rmdir()
    with pytest.raises(StoreUnavailable, match="a.db cannot be opened: the working directory is gone"):
        async with open_store("a.db"):
            pytest.fail("there is no such place")
    with pytest.raises(StoreUnavailable, match="a.db cannot be opened"):
        connect("a.db", create=True)
    async with open_store(in_folder / "a.db") as store:
        assert await store.list_jobs() == []


def test_a_located_path_is_absolute_and_stays_the_same(in_folder: Path) -> None:
    for name in NAMES:
        place = locate(name)
        assert place == f"{in_folder}/{name}" == locate(place) == absolute(place)
    assert absolute(MEMORY) == MEMORY


def test_the_copy_before_a_migration_is_in_the_folder_of_the_file(in_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = "file:a.db?mode=memory"
    filled(f"{in_folder}/{name}")
    monkeypatch.setattr(migrations, "destroys", lambda version: True)
    schema.copy_before_upgrade(name, 1)
    assert sorted(contents(in_folder)) == [name, f"{name}.schema-1.bak"]
    with closing(sqlite3.connect(f"{in_folder}/{name}.schema-1.bak")) as copy:
        assert copy.execute("SELECT count(*) FROM jobs").fetchone() == (3,)
