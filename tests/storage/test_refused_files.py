"""Files that are refused when they are opened, and stay as they are: missing, foreign, newer, damaged, not permitted."""

from __future__ import annotations

import os
import random
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from cronactors.actors.actor_requests import ClaimDue
from cronactors.actors.store import Failed, run_batch
from cronactors.errors import StoreCorrupt, StoreUnavailable
from cronactors.storage import connection
from cronactors.storage.connection import connect
from cronactors.storage.file_state import MEMORY
from cronactors.storage.schema import APPLICATION_ID, SCHEMA_VERSION
from tests import storages
from tests.storages import add, contents, filled, job_ids, opened, owner

path = storages.path


def test_a_missing_file_is_created_only_on_request(tmp_path: Path, path: str) -> None:
    with pytest.raises(StoreUnavailable, match=r"jobs\.db does not exist"):
        connect(path, create=False)
    assert list(tmp_path.iterdir()) == []


def test_a_missing_folder_is_named_and_not_created(tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailable, match=r"the folder .*missing does not exist"):
        connect(str(tmp_path / "missing" / "jobs.db"), create=True)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_or_a_device_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe", Path(os.devnull)):
        with pytest.raises(StoreUnavailable, match="not a file"):
            connect(str(path), create=True)
    (tmp_path / "pipe").unlink()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["a\0b", "\ud800"])
@pytest.mark.parametrize("create", [True, False])
def test_a_text_that_can_be_no_path_is_refused(tmp_path: Path, name: str, create: bool) -> None:
    with pytest.raises(StoreUnavailable):
        connect(str(tmp_path / name), create=create)
    assert list(tmp_path.iterdir()) == []


def script(*statements: str) -> list[str]:
    return ["CREATE TABLE t (x)", "INSERT INTO t VALUES (1)", *statements]


FOREIGN = {
    "tables": script(),
    "wal": ["PRAGMA journal_mode = WAL", *script()],
    "user_version": ["PRAGMA user_version = 7"],
    "our number": script(f"PRAGMA user_version = {SCHEMA_VERSION}"),
    "application_id": ["PRAGMA application_id = 7"],
    "newer": [f"PRAGMA application_id = {APPLICATION_ID}", *script(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")],
    "newer, wal": [
        "PRAGMA journal_mode = WAL",
        f"PRAGMA application_id = {APPLICATION_ID}",
        f"PRAGMA user_version = {SCHEMA_VERSION + 1}",
    ],
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_a_database_of_another_application_is_refused_and_nothing_in_its_folder_changes(
    tmp_path: Path, path: str, kind: str
) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        for statement in FOREIGN[kind]:
            db.execute(statement)
    before = contents(tmp_path)
    for create in (True, False):
        with pytest.raises(StoreCorrupt, match="newer version" if "newer" in kind else "another application") as caught:
            connect(path, create=create)
        assert path in str(caught.value)
    assert contents(tmp_path) == before


@pytest.mark.parametrize("index", [True, False])
@pytest.mark.parametrize("kind", ["tables", "newer"])
def test_a_log_of_another_application_that_crashed_is_neither_copied_nor_given_an_index(
    tmp_path: Path, path: str, kind: str, index: bool
) -> None:
    other = tmp_path / "other.db"
    with closing(sqlite3.connect(other, isolation_level=None)) as db:
        db.execute("PRAGMA journal_mode = WAL")
        for statement in FOREIGN[kind]:
            db.execute(statement)
        if kind == "newer":  # else all of it is in the log
            db.execute("PRAGMA wal_checkpoint")
            db.execute("CREATE TABLE more (x)")
        for suffix in ("", "-wal", "-shm")[: 2 + index]:
            Path(path + suffix).write_bytes(Path(f"{other}{suffix}").read_bytes())
    before = contents(tmp_path)
    for create in (True, False):
        with pytest.raises(StoreCorrupt, match="newer version" if kind == "newer" else "another application"):
            connect(path, create=create)
    assert contents(tmp_path) == before


def test_a_file_whose_log_was_being_copied_into_it_in_a_crash_is_opened(tmp_path: Path, path: str) -> None:
    """The first page has been copied, and refers to pages that only the log has."""
    other = str(tmp_path / "other.db")
    connect(other, create=True).close()
    before = Path(other).read_bytes()
    with closing(opened(other)) as storage:
        for number in range(60):
            add(storage, f"{number:03}")
        log = Path(f"{other}-wal").read_bytes()
    after = Path(other).read_bytes()
    assert len(after) > len(before)
    Path(path).write_bytes(after[:4096] + before[4096:])
    Path(f"{path}-wal").write_bytes(log)
    with closing(opened(path)) as storage:
        assert len(job_ids(storage)) == 60


def test_a_file_that_changes_after_the_check_is_refused_too(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def becomes_newer(path: str, file: Path, *, busy_timeout: float, marked: bool) -> None:
        with closing(sqlite3.connect(path, isolation_level=None)) as db:
            for statement in FOREIGN["newer"]:
                db.execute(statement)

    connect(path, create=True).close()
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("PRAGMA user_version = 0")
    monkeypatch.setattr(connection, "check_file", becomes_newer)
    with pytest.raises(StoreCorrupt, match="newer version"):
        connect(path, create=True)


JUNK = random.Random(1).randbytes(20_000)


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "text": lambda data: b"[cron]\ndatabase = 'agent.db'\n",
    "two bytes": lambda data: b"\0\0",  # SQLite takes a file of one byte for an empty one
    "zeros": lambda data: bytes(len(data)),
    "junk": lambda data: JUNK,
    "junk after the magic": lambda data: data[:16] + JUNK,
    "half": lambda data: data[: len(data) // 2],
    "first page": lambda data: data[:4096],
    "half a page": lambda data: data[:2048],
    "header": lambda data: data[:100],
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_file_is_refused_and_left_as_it_is(tmp_path: Path, path: str, kind: str) -> None:
    filled(path, count=200)
    Path(path).write_bytes(DAMAGE[kind](Path(path).read_bytes()))
    before = contents(tmp_path)
    with pytest.raises(StoreCorrupt, match=r"jobs\.db is damaged or not a database"):
        connect(path, create=True)
    assert contents(tmp_path) == before


BROKEN = {
    "no number": "PRAGMA user_version = 0",
    "a number below zero": "PRAGMA user_version = -1",
    "no jobs": "DROP TABLE jobs",
    "no runs": "DROP TABLE runs",
    "no owners": "DROP TABLE owners",
    "no facts": "DROP TABLE meta",
    "no origins": "DROP TABLE origins",
    "no prompt": "ALTER TABLE job_specs DROP COLUMN prompt",
    "another name": "ALTER TABLE runs RENAME COLUMN scheduled_at TO at",
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_file_without_one_of_our_tables_or_columns_is_damaged_and_left_as_it_is(tmp_path: Path, path: str, kind: str) -> None:
    filled(path)
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute(BROKEN[kind])
    before = contents(tmp_path)
    for create in (True, False):
        with pytest.raises(StoreCorrupt, match=r"jobs\.db is damaged \("):
            connect(path, create=create)
    assert contents(tmp_path) == before


@pytest.mark.parametrize("statement", ["DROP TABLE jobs", "ALTER TABLE job_specs RENAME COLUMN prompt TO text"])
def test_a_table_or_column_that_disappears_while_the_file_is_open_is_reported_as_damage(path: str, statement: str) -> None:
    with closing(opened(path)) as storage:
        add(storage, "a")
        with closing(sqlite3.connect(path, isolation_level=None)) as db:
            db.execute(statement)
        with pytest.raises(StoreCorrupt, match=r"jobs\.db is damaged"):
            add(storage, "b")


def test_a_job_of_which_half_is_missing_is_reported_when_it_is_due(path: str) -> None:
    with closing(opened(path)) as storage:
        add(storage, "a", "b")
        assert storage.begin(write=True)
        assert storage.insert_owner(owner(lease_until=2**50)) == 1
        storage.commit()
        with closing(sqlite3.connect(path, isolation_level=None)) as db:
            db.execute("DELETE FROM job_specs WHERE number = 2")
        storage.wall = lambda: 10_000
        match run_batch(storage, [ClaimDue(1, 9, None, 0)]):
            case Failed(error):
                assert "half of job 2 is missing" in str(error)
            case other:
                pytest.fail(f"{other}")


@pytest.fixture
def without_root() -> Iterator[Path]:
    """A folder; until the test ends this process has no rights of root."""
    with tempfile.TemporaryDirectory() as name:
        root = os.geteuid() == 0
        connect(MEMORY, create=True).close()  # imports what creating a file needs: another user may have no right to read it
        if root:
            os.chown(name, 65534, -1)
            os.seteuid(65534)
        try:
            yield Path(name)
        finally:
            Path(name).chmod(0o700)
            if root:
                os.seteuid(0)


def test_a_read_only_file_is_refused_and_nothing_is_left_beside_it(without_root: Path) -> None:
    path = without_root / "jobs.db"
    filled(str(path))
    before = contents(without_root)
    path.chmod(0o400)
    with pytest.raises(StoreUnavailable, match=r"jobs\.db .*read-only"):
        connect(str(path), create=True)
    assert contents(without_root) == before
    path.chmod(0)
    with pytest.raises(StoreUnavailable, match=r"jobs\.db .*permission denied"):
        connect(str(path), create=True)
    path.chmod(0o600)
    with closing(opened(str(path))) as storage:
        add(storage, "more")


def test_a_read_only_folder_is_refused(without_root: Path) -> None:
    path = without_root / "jobs.db"
    filled(str(path))
    without_root.chmod(0o500)
    for name in ("jobs.db", "new.db"):
        with pytest.raises(StoreUnavailable, match=name.replace(".", r"\.")):
            connect(str(without_root / name), create=True)
    assert list(contents(without_root)) == ["jobs.db"]
    without_root.chmod(0)
    with pytest.raises(StoreUnavailable, match=r"jobs\.db cannot be opened: Permission denied"):
        connect(str(path), create=True)


def test_an_sqlite_that_is_too_old_is_named(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite3, "sqlite_version_info", (3, 36, 9))
    with pytest.raises(StoreUnavailable, match=r"too old: 3\.37"):
        connect(path, create=True)
    assert not Path(path).exists()
