"""The protocol of a storage: runs and their queue. Run against SQLite and against the plain dicts."""

from __future__ import annotations

from itertools import permutations

import pytest

from cronactors.instants import LATEST
from cronactors.storage.protocol import Storage
from cronactors.storage.rows import PAUSE, Claimed, DueItem, JobRow, JobState, NextTimes, PlainFinish, job_key, session_key
from tests import storages
from tests.storages import NOT_UNIQUE, add_run, job, run, run_finish

storage, store = storages.storage, storages.store


# The queue


def test_jobs_and_runs_are_in_one_queue_in_order_of_time(store: Storage) -> None:
    store.insert_jobs([job("j3", next_run_at=3), job("j1", next_run_at=1), job("j5", next_run_at=5)])
    r4, r2 = add_run(store, job_id="j5", attempt=2, ready_at=4), add_run(store, job_id="gone", ready_at=2)
    queue = [DueItem(None, "j1", 1), DueItem(r2, "gone", 2), DueItem(None, "j3", 3), DueItem(r4, "j5", 4), DueItem(None, "j5", 5)]
    for now in range(7):
        for limit in range(7):
            assert store.due(now=now, limit=limit) == [item for item in queue if item.due_at <= now][:limit]
    assert store.next_times().due == 1


def test_a_commit_returns_the_next_times_as_it_leaves_them(storage: Storage) -> None:
    assert storage.begin(write=True)
    storage.insert_jobs([job("j3", next_run_at=3), job("j1", next_run_at=1)])
    assert storage.commit_writes() == NextTimes(1, None)
    assert storage.begin(write=True)
    storage.delete_jobs(["j1"])
    assert storage.commit_writes() == NextTimes(3, None)
    assert storage.begin(write=False)
    assert set(storage.jobs(["j1", "j3"])) == {"j3"}
    storage.rollback()


def test_everything_of_one_moment_is_in_the_queue(store: Storage) -> None:
    store.insert_jobs([job(name, next_run_at=5) for name in "cab"])
    runs = [add_run(store, job_id="r", attempt=n, ready_at=5) for n in (1, 2)]
    items = {(item.run_id, item.job_id) for item in store.due(now=5, limit=9)}
    assert items == {(None, "a"), (None, "b"), (None, "c"), (runs[0], "r"), (runs[1], "r")}
    assert len(store.due(now=5, limit=4)) == 4
    assert store.due(now=4, limit=9) == []


@pytest.mark.parametrize(
    "fields", [{"enabled": 0}, {"held_by": 1}, {"next_run_at": None}, {"enabled": 0, "held_by": 1}, {"held_by": 0}], ids=str
)
def test_a_job_that_cannot_start_is_not_in_the_queue(store: Storage, fields: dict[str, object]) -> None:
    store.insert_jobs([job("a", **{"next_run_at": 1, **fields})])
    assert store.due(now=LATEST, limit=9) == []
    assert store.next_times().due is None
    store.update_job_states([JobState.of(job("a", next_run_at=2))])
    assert store.due(now=LATEST, limit=9) == [DueItem(None, "a", 2)]
    assert store.next_times().due == 2


@pytest.mark.parametrize("key", [PAUSE, session_key("u"), session_key(""), job_key("a"), ""])
def test_a_waiting_run_is_not_in_the_queue(store: Storage, key: str) -> None:
    run_id = add_run(store, job_id="a", waits_for=key, ready_at=1)
    assert (store.due(now=LATEST, limit=9), store.next_times().due) == ([], None)
    store.set_waits_for([(run_id, None)])
    assert (store.due(now=LATEST, limit=9), store.next_times().due) == ([DueItem(run_id, "a", 1)], 1)
    store.set_waits_for([(run_id, key)])
    assert (store.due(now=LATEST, limit=9), store.next_times().due) == ([], None)


@pytest.mark.parametrize("status", ["running", "success", "failed", "cancelled", "skipped"])
def test_only_pending_runs_are_in_the_queue(store: Storage, status: str) -> None:
    add_run(store, status=status, ready_at=1)
    assert (store.due(now=LATEST, limit=9), store.next_times().due) == ([], None)


def test_the_first_of_the_queue_may_be_a_job_or_a_run_and_far_away(store: Storage) -> None:
    assert store.next_times().due is None
    store.insert_jobs([job("a", next_run_at=LATEST)])
    assert store.next_times().due == LATEST
    run_id = add_run(store, ready_at=7)
    assert store.next_times().due == 7
    store.start_pending_runs([run_id], owner=1, now=7)
    assert store.next_times().due == LATEST
    add_run(store, attempt=2, ready_at=0)
    assert store.next_times().due == 0


def test_overdue_moments_are_read_in_pages_and_only_those_in_the_queue(store: Storage) -> None:
    store.insert_jobs([job("b", next_run_at=5), job("a", next_run_at=5), job("c", next_run_at=5), job("first", next_run_at=-7)])
    store.insert_jobs([job("later", next_run_at=6), job("off", enabled=0), job("held", held_by=1), job("done", next_run_at=None)])
    add_run(store, job_id="b", attempt=2, ready_at=1)
    first = store.overdue(until=5, after=None, limit=2)
    assert [(moment.at, moment.job_id) for moment in first] == [(-7, "first"), (5, "b")]
    rest = store.overdue(until=5, after=first[-1], limit=9)
    assert [(moment.at, moment.job_id) for moment in rest] == [(5, "a"), (5, "c")]
    assert store.overdue(until=5, after=rest[-1], limit=9) == []
    assert store.overdue(until=-8, after=None, limit=9) == []


# Runs


def test_a_run_comes_back_as_it_was(store: Storage) -> None:
    full = run(
        job_id="a",
        user_id="u",
        trigger="retry",
        manual=1,
        status="running",
        failures=2,
        coalesced=1000,
        cause="timeout",
        waits_for="job:a",
        session="session:u",
        owner=4,
        cancel_requested=1,
        started_at=5,
        completed_at=6,
        session_id="s",
        result="r",
        error="e",
    )
    bare = run(job_id="b")
    first, second = store.insert_runs([full, bare])
    assert first is not None
    assert second is not None
    assert store.runs([second, first]) == {first: full._replace(id=first), second: bare._replace(id=second)}


def test_a_moment_is_inserted_once(store: Storage) -> None:
    key = {"job_id": "a", "scheduled_at": 5, "manual": 0, "attempt": 1}
    first = add_run(store, **key)
    others: list[dict[str, object]] = [{"job_id": "b"}, {"scheduled_at": 6}, {"manual": 1}, {"attempt": 2}]
    again = [run(**{**key, **change}) for change in ({}, *others, {"status": "running", "owner": 3})]
    ids = store.insert_runs(again)
    assert [run_id is None for run_id in ids] == [True, False, False, False, False, True]
    assert store.runs([first])[first] == run(**key, id=first)
    assert len(store.list_runs(job_id=None, before=None, limit=99)) == 5


def claimed(run_id: int, job_id: str, **fields: object) -> Claimed:
    """A started run of the moment 1; its id shows in all that it changes in its job."""
    row = run(id=run_id, job_id=job_id, status="running", owner=3, started_at=9, scheduled_at=1, ready_at=1, **fields)
    return Claimed(row, job(job_id), next_run_at=run_id + 100, decided_local=run_id + 200, held_by=run_id)


@pytest.mark.parametrize("count", [0, 1, 2, 15, 16, 17, 128, 200])
def test_runs_that_start_together_are_stored_and_change_their_jobs(store: Storage, count: int) -> None:
    add_run(store)
    store.insert_jobs([job(f"j{n}", last_error="of old") for n in range(count + 1)])
    ids = store.new_run_ids(count)
    claims = [claimed(run_id, f"j{n}", job_name="n", user_id="u", coalesced=2) for n, run_id in enumerate(ids)]
    assert store.insert_started_runs(claims) == claims
    assert store.runs(ids) == {each.run.id: each.run for each in claims}
    after = store.jobs([f"j{n}" for n in range(count + 1)])
    assert after.pop(f"j{count}") == job(f"j{count}", last_error="of old")
    expected = {"next_run_at": 101, "last_run_at": 9, "last_error": "of old"}
    assert [row._replace(next_run_at=101, decided_local=None, held_by=None) for row in after.values()] == [
        job(job_id, **expected) for job_id in after
    ]
    assert [(after[f"j{n}"].next_run_at, after[f"j{n}"].held_by) for n in range(count)] == [(i + 100, i) for i in ids]


@pytest.mark.parametrize("count", [4, 40])
def test_of_runs_that_start_together_those_whose_moment_has_a_run_change_nothing(store: Storage, count: int) -> None:
    store.insert_jobs([job(f"j{n}") for n in range(count)])
    add_run(store, job_id="j1", scheduled_at=1)
    claims = [claimed(run_id, f"j{n}") for n, run_id in enumerate(store.new_run_ids(count))]
    assert store.insert_started_runs(claims) == [claims[0], *claims[2:]]
    assert {row.job_id for row in store.running()} == {f"j{n}" for n in range(count)} - {"j1"}
    assert store.jobs(["j1"])["j1"] == job("j1")
    assert add_run(store, job_id="later") > claims[-1].run.id


@pytest.mark.parametrize("count", [0, 1, 2, 15, 16, 17, 129])
@pytest.mark.parametrize("changed", [False, True])
def test_plain_finishes_are_stored_all_or_none(store: Storage, count: int, changed: bool) -> None:
    store.insert_jobs([job(f"j{n}", next_run_at=n, last_error="of old") for n in range(count)])
    rows = [run(job_id=f"j{n}", status="running", owner=3, started_at=9) for n in range(count)]
    ids = [run_id for run_id in store.insert_runs(rows) if run_id is not None]
    store.update_job_states(
        [JobState.of(row)._replace(held_by=i) for i, row in zip(ids, jobs_in_order(store, count), strict=True)]
    )
    if changed and count:
        store.mark_runs(ids[-1:], cancel_requested=True)
    before = (store.runs(ids), jobs_in_order(store, count))
    finishes = [PlainFinish(i, 20 + n, f"s{n}", f"r{n}", f"j{n}", n) for n, i in enumerate(ids)]
    assert store.store_plain_finishes(finishes, owner=3) is not (changed and count > 0)
    if changed:
        assert (store.runs(ids), jobs_in_order(store, count)) == before
        return
    finished = {"status": "success", "owner": 3, "started_at": 9}
    assert store.runs(ids) == {
        i: run(id=i, job_id=f"j{n}", completed_at=20 + n, session_id=f"s{n}", result=f"r{n}", **finished)
        for n, i in enumerate(ids)
    }
    assert jobs_in_order(store, count) == [job(f"j{n}", next_run_at=n) for n in range(count)]


def jobs_in_order(store: Storage, count: int) -> list[JobRow]:
    jobs = store.jobs([f"j{n}" for n in range(count)])
    return [jobs[f"j{n}"] for n in range(count)]


def test_ids_of_runs_grow(store: Storage) -> None:
    first = add_run(store, attempt=1)
    (none,) = store.insert_runs([run(attempt=1)])
    second, third = add_run(store, attempt=2), add_run(store, job_id="0", attempt=3)
    assert none is None
    assert 0 < first < second < third


def test_pending_runs_start_and_others_stay(store: Storage) -> None:
    pending = add_run(store, attempt=1)
    others = [
        add_run(store, attempt=n, status=status)
        for n, status in enumerate(("running", "success", "failed", "cancelled", "skipped"), 2)
    ]
    before = store.runs(others)
    store.start_pending_runs([*others, pending], owner=3, now=50)
    assert store.runs(others) == before
    assert store.runs([pending])[pending] == run(id=pending, attempt=1, status="running", owner=3, started_at=50)


def test_only_pending_runs_can_wait(store: Storage) -> None:
    running, pending = add_run(store, attempt=1, status="running"), add_run(store, attempt=2)
    store.set_waits_for([(running, PAUSE), (pending, PAUSE)])
    assert store.runs([running])[running].waits_for is None
    assert store.runs([pending])[pending].waits_for == PAUSE


def test_only_running_runs_are_marked_and_marks_stay(store: Storage) -> None:
    running, pending = add_run(store, attempt=1, status="running"), add_run(store, attempt=2)

    def marks() -> tuple[str | None, int]:
        row = store.runs([running])[running]
        return row.cause, row.cancel_requested

    store.mark_runs([pending, running])
    assert marks() == (None, 0)
    store.mark_runs([pending, running], cancel_requested=True)
    assert marks() == (None, 1)
    store.mark_runs([pending, running], cause="timeout")
    assert marks() == ("timeout", 1)
    store.mark_runs([pending, running], cause="cancelled")
    store.mark_runs([pending, running])
    assert marks() == ("cancelled", 1)
    assert store.runs([pending])[pending] == run(id=pending, attempt=2)


@pytest.mark.parametrize("is_now", ["pending", "running", "success", "failed", "cancelled", "skipped"])
@pytest.mark.parametrize("expected_status", ["pending", "running"])
def test_a_run_finishes_only_with_its_expected_status(store: Storage, expected_status: str, is_now: str) -> None:
    started = None if is_now == "pending" else 5
    run_id = add_run(store, status=is_now, waits_for="pause" if is_now == "pending" else None, owner=2, started_at=started)
    before = store.runs([run_id])[run_id]
    finish = run_finish(
        run_id, expected_status, status="failed", cause="error", completed_at=9, session_id="s", result="r", error="e"
    )
    assert store.store_finishes([finish]) == [expected_status == is_now]
    ended = before._replace(status="failed", cause="error", completed_at=9, session_id="s", result="r", error="e", waits_for=None)
    assert store.runs([run_id])[run_id] == (ended if expected_status == is_now else before)
    assert store.store_finishes([finish]) == [False]


def test_each_finish_returns_whether_it_was_stored(store: Storage) -> None:
    one, two = add_run(store, attempt=1), add_run(store, attempt=2, status="running")
    finishes = [run_finish(n, "running", completed_at=1) for n in (one, two, two, 999)]
    assert store.store_finishes(finishes) == [False, True, False, False]


def test_no_run_finishes_before_it_started(store: Storage) -> None:
    run_id = add_run(store, status="running", started_at=50)
    store.store_finishes([run_finish(run_id, "running", completed_at=49)])
    assert store.runs([run_id])[run_id].completed_at == 50


def test_open_runs_in_order_of_time(store: Storage) -> None:
    late = add_run(store, job_id="a", attempt=1, ready_at=9)
    early = add_run(store, job_id="a", attempt=2, ready_at=1, waits_for=PAUSE)
    going = add_run(store, job_id="b", attempt=3, ready_at=5, status="running")
    tied = add_run(store, job_id="a", attempt=4, ready_at=9)
    add_run(store, job_id="a", attempt=5, ready_at=2, status="success")
    add_run(store, job_id="c", attempt=6, ready_at=2)
    assert [row.id for row in store.open_runs(["b", "a", "a", "no"])] == [early, going, late, tied]
    assert [row.id for row in store.open_runs(["b"])] == [going]


def test_running_runs_of_one_owner_or_of_all(store: Storage) -> None:
    mine = [add_run(store, attempt=n, status="running", owner=1) for n in (1, 2)]
    theirs = add_run(store, attempt=3, status="running", owner=2)
    nobodys = add_run(store, attempt=4, status="running", owner=None)
    add_run(store, attempt=5, owner=1)
    add_run(store, attempt=6, owner=1, status="success")
    assert sorted(row.id for row in store.running(owner=1)) == mine
    assert [row.id for row in store.running(owner=2)] == [theirs]
    assert store.running(owner=3) == []
    assert sorted(row.id for row in store.running()) == [*mine, theirs, nobodys]
    assert store.count_running() == 4


def test_a_session_is_busy_while_a_run_uses_it(store: Storage) -> None:
    me = session_key("u")
    waiting = add_run(store, attempt=1, session=me)
    assert store.busy_sessions([me]) == set()
    store.start_pending_runs([waiting], owner=1, now=1)
    assert store.busy_sessions([me, session_key("")]) == {me}
    assert store.busy_sessions([session_key("")]) == store.busy_sessions([]) == set()
    store.store_finishes([run_finish(waiting, "running", completed_at=2)])
    assert store.busy_sessions([me]) == set()


def test_two_runs_never_use_one_session(store: Storage) -> None:
    me = session_key("u")
    add_run(store, attempt=1, session=me, status="running")
    waiting = add_run(store, attempt=2, session=me)
    add_run(store, attempt=3, session=session_key(""), status="running")
    for change in (
        lambda: store.insert_runs([run(attempt=4, session=me, status="running")]),
        lambda: store.start_pending_runs([waiting], owner=1, now=1),
    ):
        store.savepoint()
        with pytest.raises(NOT_UNIQUE):
            change()
        store.undo()
    assert store.runs([waiting])[waiting].status == "pending"
    assert store.insert_runs([run(attempt=n, status="running") for n in (5, 6)]) != [None, None]


@pytest.mark.parametrize("order", list(permutations([3, 1, 2])))
def test_the_run_that_has_waited_longest_is_first(store: Storage, order: tuple[int, ...]) -> None:
    ids = {ready: add_run(store, attempt=ready, ready_at=ready, waits_for="session:u") for ready in order}
    add_run(store, attempt=7, ready_at=0, waits_for="session:v")
    add_run(store, attempt=8, ready_at=0)
    add_run(store, attempt=9, ready_at=0, waits_for="session:u", status="running")
    for ready in (1, 2, 3):
        assert store.first_waiting_run("session:u") == ids[ready]
        store.set_waits_for([(ids[ready], None)])
    assert store.first_waiting_run("session:u") is None
    assert store.first_waiting_run("session:") is None


def test_of_two_runs_that_have_waited_as_long_the_older_is_first(store: Storage) -> None:
    ids = [add_run(store, job_id=name, ready_at=5, waits_for="job:x") for name in "ba"]
    assert store.first_waiting_run("job:x") == ids[0]


def test_pending_runs_of_the_future_move_earlier(store: Storage) -> None:
    ready = [5, 10, 11, 15, 100]
    ids = [add_run(store, attempt=n, ready_at=at, waits_for=PAUSE if n == 2 else None) for n, at in enumerate(ready)]
    others = [
        add_run(store, attempt=9, ready_at=100, status="running"),
        add_run(store, attempt=10, ready_at=100, status="success"),
    ]
    store.advance_pending(now=10, by=20)
    assert [store.runs([n])[n].ready_at for n in ids] == [5, 10, 10, 10, 80]
    assert [store.runs([n])[n].ready_at for n in others] == [100, 100]


def test_first_attempts_are_ready_at_once_after_the_clock_was_set_back(store: Storage) -> None:
    first, again = add_run(store, ready_at=100), add_run(store, attempt=2, ready_at=100)
    store.advance_pending(now=10, by=0)
    assert [store.runs([n])[n].ready_at for n in (first, again)] == [10, 100]


def test_the_latest_time_of_adding_is_that_of_the_newest_rows(store: Storage) -> None:
    def latest(among: int) -> int | None:
        return store.latest_added_at(among=among)

    assert latest(5) is None
    store.insert_jobs(
        [job("a", created_at=9, anchor_at=9), job("b", created_at=2, anchor_at=4), job("c", created_at=3, anchor_at=1)]
    )
    assert [latest(among) for among in (1, 2, 3, 9)] == [3, 4, 9, 9]
    add_run(store, ready_at=20)
    add_run(store, attempt=2, ready_at=30)  # a retry may be ready in the future
    add_run(store, attempt=3, ready_at=40, status="success")
    assert [latest(among) for among in (1, 2, 3)] == [3, 4, 20]


def test_history_newest_first_in_pages(store: Storage) -> None:
    ids = [add_run(store, job_id="ab"[n % 2], scheduled_at=100 - n) for n in range(7)]
    for limit in (1, 2, 3, 7, 8):
        found: list[int] = []
        before = None
        while page := store.list_runs(job_id=None, before=before, limit=limit):
            assert len(page) <= limit
            assert before not in page
            found += [row.id for row in page]
            before = page[-1]
        assert found == ids[::-1]


def test_history_of_a_job_is_in_order_of_its_moments(store: Storage) -> None:
    keys = [(5, 0, 1), (5, 0, 2), (5, 1, 1), (3, 0, 1), (9, 0, 1), (5, 1, 2), (0, 0, 1), (LATEST, 1, 1)]
    for at, manual, attempt in keys:
        add_run(store, job_id="a", scheduled_at=at, manual=manual, attempt=attempt)
        add_run(store, job_id="b", scheduled_at=at, manual=manual, attempt=attempt)
    for limit in (1, 3, 9):
        found: list[tuple[int, int, int]] = []
        before = None
        while page := store.list_runs(job_id="a", before=before, limit=limit):
            assert {row.job_id for row in page} == {"a"}
            assert before not in page
            found += [(row.scheduled_at, row.manual, row.attempt) for row in page]
            before = page[-1]
        assert found == sorted(keys, reverse=True)
    assert store.list_runs(job_id="no", before=None, limit=9) == []


def test_the_runs_around_a_moment_are_none_that_users_requested(store: Storage) -> None:
    add_run(store, job_id="other", scheduled_at=5)
    first, retry = (add_run(store, job_id="a", scheduled_at=2, attempt=n) for n in (1, 2))
    for n in range(3, 8):
        add_run(store, job_id="a", scheduled_at=n, manual=1)
    last = add_run(store, job_id="a", scheduled_at=9)
    around = {at: tuple(found and found.id for found in store.runs_around("a", at=at)) for at in (1, 2, 5, 8, 9, 10)}
    assert around == {1: (None, first), 2: (retry, last), 5: (retry, last), 8: (retry, last), 9: (last, None), 10: (last, None)}
