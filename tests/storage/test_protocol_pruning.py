"""The verbs of pruning, on every storage."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import pytest

from cronactors.storage.notifications import NotificationRow
from cronactors.storage.protocol import Storage
from cronactors.storage.pruning import KeptRun, PassedNotification, PassedRun, PendingNotification, Position
from tests import storages
from tests.storages import add_run, job, opened, run, run_finish

storage = storages.storage
store = storages.store
path = storages.path


def notification(**fields: object) -> NotificationRow:
    values = {"id": 0, "key": None, "run_id": 1, "receiver": "mail", "job_id": "a", "created_at": 5, **fields}
    return NotificationRow(**values)  # type: ignore[arg-type]


def ids(store: Storage) -> list[int]:
    return [row.id for row in store.pruning.runs_after(0, limit=100)]


def test_the_ends_of_the_runs(store: Storage) -> None:
    assert store.pruning.run_ids() is None
    first = add_run(store)
    assert store.pruning.run_ids() == (first, first)
    last = [add_run(store, scheduled_at=at) for at in (3_000, 4_000)][-1]
    assert store.pruning.run_ids() == (first, last)


def test_runs_are_passed_in_order_of_id_with_the_time_that_they_have(store: Storage) -> None:
    pending = add_run(store, scheduled_at=9_000, ready_at=9_500)
    running = add_run(store, scheduled_at=3_000, job_id="b")
    finished = add_run(store, scheduled_at=4_000)
    store.start_pending_runs([running, finished], owner=1, now=7)
    store.store_finishes([run_finish(finished, "running", completed_at=8)])
    passed = [PassedRun(pending, "a", 9_500, 9_500), PassedRun(running, "b", 7, 7), PassedRun(finished, "a", 8, 7)]
    assert store.pruning.runs_after(0, limit=9) == passed
    assert store.pruning.runs_after(pending, limit=1) == passed[1:2]
    assert store.pruning.runs_after(finished, limit=9) == []


def test_a_place_is_counted_from_the_newest_moment(store: Storage) -> None:
    for at, manual, attempt in [(1_000, 0, 1), (2_000, 0, 1), (2_000, 0, 2), (2_000, 1, 1), (3_000, 0, 1)]:
        add_run(store, scheduled_at=at, manual=manual, attempt=attempt)
    add_run(store, job_id="b", scheduled_at=9_000)
    places = [store.pruning.position("a", before=None, skip=skip) for skip in range(6)]
    assert places == [
        Position(3_000, 0, 1), Position(2_000, 1, 1), Position(2_000, 0, 2), Position(2_000, 0, 1), Position(1_000, 0, 1), None,
    ]  # fmt: skip
    assert store.pruning.position("a", before=places[1], skip=1) == places[3]
    assert store.pruning.position("c", before=None, skip=0) is None


def test_the_oldest_runs_of_a_job(store: Storage) -> None:
    stored = [add_run(store, scheduled_at=at, range_at=at - 500) for at in (3_000, 1_000, 2_000)]
    add_run(store, job_id="b", scheduled_at=1_500)
    store.start_pending_runs(stored[1:2], owner=1, now=7)
    store.store_finishes([run_finish(stored[1], "running", completed_at=8)])
    rows = store.pruning.oldest_runs("a", after=-1, until=9_000, limit=9)
    assert [row.id for row in rows] == [stored[1], stored[2], stored[0]]
    assert rows[0] == KeptRun(stored[1], 1_000, 0, 1, "success", 7, 8, 500)
    assert [row.last_moment for row in rows] == [1_000, 2_000, 3_000]
    assert store.pruning.oldest_runs("a", after=1_000, until=2_000, limit=9) == rows[1:2]
    assert store.pruning.oldest_runs("a", after=-1, until=9_000, limit=2) == rows[:2]


@pytest.mark.parametrize("count", [1, 3, 40])
def test_deleted_runs_take_their_notifications_with_them(store: Storage, count: int) -> None:
    runs = [add_run(store, scheduled_at=at) for at in range(count)]
    kept = add_run(store, scheduled_at=9_000)
    store.notifications.insert([notification(run_id=run_id) for run_id in (*runs, kept)])
    store.pruning.delete_runs("a", store.pruning.oldest_runs("a", after=-1, until=count, limit=count))
    assert ids(store) == [kept]
    assert [row.run_id for row in store.pruning.notifications_after(0, limit=99)] == [kept]
    assert store.insert_runs([run(scheduled_at=0)]) != [None], "its key is free"


def test_the_pending_notifications_of_runs(store: Storage) -> None:
    first, second = (add_run(store, scheduled_at=at) for at in (1_000, 2_000))
    store.notifications.insert(
        [notification(run_id=first), notification(run_id=first, receiver="on_finish"), notification(run_id=second)]
    )
    store.notifications.insert([notification(run_id=None, key="overdue:a:1")])
    assert set(store.pruning.pending([first])) == {PendingNotification(first, name, "a", 0) for name in ("mail", "on_finish")}
    assert len(store.pruning.pending([first, second, 99])) == 3
    assert store.pruning.pending([99]) == []


def test_notifications_are_passed_and_deleted_and_the_next_of_a_line_is_released(store: Storage) -> None:
    rows = store.notifications.insert([notification(run_id=None, key=f"overdue:{n}", created_at=n) for n in range(3)])
    passed = store.pruning.notifications_after(0, limit=2)
    assert passed[0] == PassedNotification(rows[0].id, None, "mail", "a", "pending", 0, 0)
    assert [row.id for row in passed] == [row.id for row in rows[:2]]
    assert [row.id for row in store.pruning.notifications_after(passed[1].id, limit=2)] == [rows[2].id]
    store.pruning.delete_notifications([rows[0].id])
    store.pruning.release_line("mail", "a")
    store.pruning.release_line("mail", "b")
    left = store.notifications.page(before=None, status=None, receiver=None, limit=9)[0]
    assert [(row.id, row.ready_at) for row in left] == [(rows[2].id, None), (rows[1].id, 0)]


def test_the_latest_pruned_moment_of_a_job(store: Storage) -> None:
    store.insert_jobs([job("a"), job("b")])
    store.pruning.set_pruned_until("a", 5)
    store.pruning.set_pruned_until("c", 5)
    assert [store.jobs(["a", "b"])[job_id].pruned_until for job_id in ("a", "b")] == [5, None]


def test_jobs_with_a_history_of_their_own_are_listed_in_pages(store: Storage) -> None:
    store.insert_jobs([job("a"), job("b", history='{"days": 1}'), job("c", history='{"days": 2}'), job("d")])
    assert store.pruning.jobs_with_history(after=0, limit=9) == [(2, "b"), (3, "c")]
    assert store.pruning.jobs_with_history(after=0, limit=1) == [(2, "b")]
    assert store.pruning.jobs_with_history(after=2, limit=9) == [(3, "c")]


def test_all_that_a_file_holds_of_a_run_goes_with_it(path: str) -> None:
    with closing(opened(path)) as storage, closing(sqlite3.connect(path, isolation_level=None)) as db:
        assert storage.begin(write=True)
        first = add_run(storage, scheduled_at=1_000, manual=1)
        second = add_run(storage, scheduled_at=2_000, manual=1)
        storage.commit()
        for run_id, at in ((first, 1_000), (second, 2_000)):
            db.execute(
                "INSERT INTO run_output (run_id, start, at, size, text) VALUES (?, 0, 0, 1, 'x'), (?, 1, 1, 1, 'y')",
                (run_id, run_id),
            )
            db.execute("INSERT INTO run_progress (run_id, at, note) VALUES (?, 0, '')", (run_id,))
            db.execute("INSERT INTO run_requests (job_id, scheduled_at, data) VALUES ('a', ?, '{}')", (at,))
        assert storage.begin(write=True)
        storage.pruning.delete_runs("a", storage.pruning.oldest_runs("a", after=-1, until=1_000, limit=9))
        storage.commit()
        counts = [
            db.execute(f"SELECT count(*) FROM {name}").fetchone()[0] for name in ("run_output", "run_progress", "run_requests")
        ]
        assert counts == [2, 1, 1]


def test_jobs_with_runs_follow_each_other_each_once(store: Storage) -> None:
    assert store.pruning.next_job("") is None
    for job_id, at in [("b", 1), ("a", 1), ("b", 2), ("c", 1)]:
        add_run(store, job_id=job_id, scheduled_at=at * 1_000)
    found = [""]
    while (following := store.pruning.next_job(found[-1])) is not None:
        found.append(following)
    assert found == ["", "a", "b", "c"]
