"""Stop marks: files beside the database for owners that were asked to stop."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from cronactors.storage.stop_marks import StopMarks
from tests.storages import opened, path, storage

__all__ = ["path", "storage"]


def test_marks_need_no_transaction_and_are_removed_by_a_commit(storage):
    storage.mark_stopping(3)
    storage.mark_stopping(3)
    assert storage.begin(write=True)
    storage.mark_stopping(5)
    storage.unmark_stopping(3)
    storage.rollback()
    marked = storage.stopping_owners()
    assert storage.begin(write=True)
    storage.unmark_stopping(3)
    storage.unmark_stopping(4)
    assert storage.stopping_owners() == marked
    storage.commit()
    left = storage.stopping_owners()
    assert (marked, left) == ({3, 5}, {5})


def test_a_mark_is_an_empty_private_file_beside_the_database(path, tmp_path):
    store = opened(path)
    store.mark_stopping(12)
    mark = tmp_path / "jobs.db-stopping-12"
    assert mark.read_bytes() == b""
    assert stat.S_IMODE(mark.stat().st_mode) == 0o600
    other = opened(path)
    assert other.stopping_owners() == {12}
    store.close()
    other.close()


def test_marks_are_beside_the_file_whatever_link_or_working_directory_is_used(tmp_path, monkeypatch):
    (tmp_path / "real").mkdir()
    (tmp_path / "links").mkdir()
    opened(str(tmp_path / "real" / "a.db")).close()
    (tmp_path / "links" / "b.db").symlink_to(tmp_path / "real" / "a.db")
    monkeypatch.chdir(tmp_path / "links")
    store = opened("b.db")
    monkeypatch.chdir(tmp_path)
    store.mark_stopping(1)
    assert (tmp_path / "real" / "a.db-stopping-1").exists()
    assert store.stopping_owners() == {1}
    store.close()


def test_other_files_are_no_marks_and_are_left_alone(path, tmp_path):
    store = opened(path)
    names = ["jobs.db-stopping-", "jobs.db-stopping-x", "jobs.db-stopping-1.bak", "jobs.db-stopping-٣", "other.db-stopping-4"]
    names.append("jobs.db-stopping-" + "9" * 30)
    for name in names:
        (tmp_path / name).write_text("mine")
    assert store.stopping_owners() == set()
    store.close()
    assert all((tmp_path / name).exists() for name in names)


def test_a_file_that_has_the_name_of_a_mark_is_not_opened(path, tmp_path):
    os.mkfifo(tmp_path / "jobs.db-stopping-1")  # opening it would wait for ever
    precious = tmp_path / "precious"
    precious.write_text("mine")
    (tmp_path / "jobs.db-stopping-2").symlink_to(precious)
    store = opened(path)
    store.mark_stopping(1)
    store.mark_stopping(2)
    assert store.stopping_owners() == {1, 2}
    assert store.begin(write=True)
    store.unmark_stopping(2)
    store.commit()
    assert precious.read_text() == "mine"
    store.close()


def test_a_missing_folder_is_an_error_of_the_system_and_holds_no_marks(tmp_path: Path) -> None:
    marks = StopMarks(str(tmp_path / "gone" / "a.db"))
    with pytest.raises(OSError, match="No such file"):
        marks.note(1)
    assert marks.owners() == set()
    marks.forget(1)
    marks.committed()


def test_the_marks_of_a_database_in_memory_create_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    store = opened(":memory:")
    store.mark_stopping(1)
    assert store.stopping_owners() == {1}
    store.close()
    assert list(tmp_path.iterdir()) == []
