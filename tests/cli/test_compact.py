"""The verb ``compact``: the file becomes small, and nobody else may have it open."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from click.testing import CliRunner

from cronactors.cli.commands import cronactors
from cronactors.errors import StoreCorrupt, StoreUnavailable
from cronactors.storage.compaction import compact
from tests.cli_command import start
from tests.storages import add, filled, job_ids, opened, path

__all__ = ["path", "start"]


def make_large(path: str) -> int:
    """Fill a file and delete most of it; return its size."""
    with closing(opened(path)) as storage:
        add(storage, *(f"{n:04}" for n in range(3_000)))
        assert storage.begin(write=True)
        storage.delete_jobs([f"{n:04}" for n in range(5, 3_000)])
        storage.commit()
    return Path(path).stat().st_size


def test_the_space_of_deleted_rows_comes_back(path: str) -> None:
    size = make_large(path)
    mode = Path(path).stat().st_mode
    assert compact(path) == (size, Path(path).stat().st_size)
    assert Path(path).stat().st_size < size / 4
    assert Path(path).stat().st_mode == mode
    assert [file.name for file in Path(path).parent.iterdir()] == ["jobs.db"]
    with closing(opened(path)) as storage:
        assert job_ids(storage) == [f"{n:04}" for n in range(5)]
        assert storage.check() is None


def test_the_command_says_how_much(path: str) -> None:
    make_large(path)
    done = CliRunner().invoke(cronactors, ["compact", path])
    assert done.exit_code == 0, done.output
    assert done.output.startswith(f"compacted {path}: ")
    assert done.output.endswith(" kB given back\n")


def test_a_file_that_another_process_has_open_is_refused(path: str, start) -> None:
    filled(path)
    with closing(opened(path)):  # idle, without a lock
        code, text = start("compact", path).end()
    assert code == 1
    assert text == f"cronactors: {path} is open in another process: stop it, then compact the file"
    code, text = start("compact", path).end()
    assert code == 0, text


def test_a_file_that_this_process_has_open_is_refused(path: str) -> None:
    filled(path)
    with closing(opened(path)) as storage:
        with pytest.raises(StoreUnavailable, match="open in another process"):
            compact(path)
        add(storage, "later")
        assert "later" in job_ids(storage)


def test_commits_in_the_log_of_a_process_that_was_killed_are_kept(path: str, tmp_path: Path) -> None:
    with closing(opened(path)) as storage:
        add(storage, "a", "b")
        copy = tmp_path / "copy"
        copy.mkdir()
        for file in tmp_path.glob("jobs.db*"):
            (copy / file.name).write_bytes(file.read_bytes())
    killed = str(copy / "jobs.db")
    assert (copy / "jobs.db-wal").stat().st_size
    compact(killed)
    with closing(opened(killed)) as storage:
        assert job_ids(storage) == ["a", "b"]


def test_what_is_no_database_of_ours_is_refused_untouched(tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailable, match="does not exist"):
        compact(str(tmp_path / "absent.db"))
    with pytest.raises(StoreUnavailable, match="does not exist"):
        compact(":memory:")
    assert not list(tmp_path.iterdir())
    with closing(sqlite3.connect(tmp_path / "other.db")) as other:
        other.execute("CREATE TABLE t (x)")
    before = (tmp_path / "other.db").read_bytes()
    with pytest.raises(StoreCorrupt, match="another application"):
        compact(str(tmp_path / "other.db"))
    assert (tmp_path / "other.db").read_bytes() == before
    (tmp_path / "agent.toml").write_text("[cron]\n", encoding="utf-8")
    with pytest.raises(StoreCorrupt):
        compact(str(tmp_path / "agent.toml"))


def test_an_empty_file_and_a_folder_are_refused_untouched(tmp_path: Path) -> None:
    (tmp_path / "empty.db").touch()
    with pytest.raises(StoreCorrupt, match=r"empty\.db is empty: it is no database"):
        compact(str(tmp_path / "empty.db"))
    assert (tmp_path / "empty.db").stat().st_size == 0
    with pytest.raises(StoreUnavailable, match="is no file"):
        compact(str(tmp_path))
