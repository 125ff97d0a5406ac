"""Random sequences of verbs: SQLite and the plain dicts return the same."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from hypothesis import settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from cronactors.storage.pauses import PauseRow
from cronactors.storage.protocol import Storage
from cronactors.storage.rows import (
    PAUSE,
    Claimed,
    DueItem,
    JobRow,
    JobState,
    PlainFinish,
    RunFinish,
    RunRow,
    job_key,
    session_key,
)
from cronactors.storage.run_requests import RunRequestRow
from cronactors.storage.sqlite import SqliteStorage
from tests.fake_storage import FakeStorage
from tests.storages import NOT_UNIQUE, job, owner, run

T = TypeVar("T")

# Few values, so that rows often have the same key.
JOB_IDS = st.sampled_from(["a", "b", "c", "d"])
USERS = st.sampled_from(["", "u"])
TIMES = st.integers(0, 6)
RUN_IDS = st.integers(1, 9)
STATUSES = st.sampled_from(["pending", "running", "success", "skipped"])
OWNERS = st.integers(1, 3)
KEYS = st.sampled_from([None, PAUSE, session_key(""), session_key("u"), job_key("a")])
TEXTS = st.none() | st.text(st.characters(exclude_categories=["Cs"]), max_size=5)


def many(kind: st.SearchStrategy[T]) -> st.SearchStrategy[list[T]]:
    return st.lists(kind, max_size=3)


@st.composite
def jobs(draw: st.DrawFn) -> JobRow:
    return job(
        draw(JOB_IDS),
        name=draw(st.sampled_from(["x", "y", "z"])),
        user_id=draw(USERS),
        enabled=draw(st.sampled_from([1, 1, 0])),
        origin=draw(st.sampled_from([None, "file", ""])),
        next_run_at=draw(st.none() | TIMES),
        held_by=draw(st.sampled_from([None, None, 1])),
        last_error=draw(TEXTS),
        tags=draw(st.sampled_from(["[]", '["t"]', '["t","u"]', "{"])),
    )


@st.composite
def new_runs(draw: st.DrawFn) -> RunRow:
    status = draw(STATUSES)
    return run(
        job_id=draw(JOB_IDS),
        manual=draw(st.integers(0, 1)),
        scheduled_at=draw(st.integers(0, 1)),
        attempt=draw(st.integers(1, 2)),
        status=status,
        ready_at=draw(TIMES),
        waits_for=draw(KEYS) if status == "pending" else None,
        session=draw(st.sampled_from([None, session_key(""), session_key("u")])),
        owner=draw(OWNERS) if status == "running" else None,
        started_at=draw(TIMES) if status == "running" else None,
        error=draw(TEXTS),
    )


FINISHES = st.builds(
    RunFinish,
    id=RUN_IDS,
    expected_status=STATUSES,
    status=st.sampled_from(["success", "failed"]),
    cause=st.sampled_from([None, "error"]),
    completed_at=TIMES,
    result=TEXTS,
)

REQUESTS = st.builds(
    RunRequestRow, st.sampled_from("ab"), st.integers(0, 2), st.sampled_from([None, "k", "l"]), st.sampled_from([None, "1"])
)

PAUSES = st.builds(PauseRow, JOB_IDS, TIMES, st.none() | TIMES, st.none() | TIMES, st.sampled_from(["", "n"]))

PLAIN_FINISHES = st.builds(PlainFinish, RUN_IDS, TIMES, st.sampled_from(["", "s"]), TEXTS, JOB_IDS, st.none() | TIMES)


def queue_order(due: DueItem) -> tuple[int, int, str]:
    return (due.due_at, due.run_id or 0, due.job_id)


def everything(storage: Storage) -> object:
    """Return all that the reading verbs return; where the protocol promises no order, sorted."""
    every_run, page = [], storage.list_runs(job_id=None, before=None, limit=4)
    while page:
        every_run += page
        page = storage.list_runs(job_id=None, before=page[-1], limit=4)
    due = storage.due(now=10, limit=99)
    assert [entry.due_at for entry in due] == sorted(entry.due_at for entry in due)
    return (
        [storage.list_jobs(after=0, limit=99, user_id=user_id) for user_id in (None, "", "u")],
        [storage.jobs_tagged(tag, after=after, limit=limit) for tag in "tu" for after in (0, 2) for limit in (1, 99)],
        [storage.run_requests.of_moment(job_id, at=at) for job_id in "ab" for at in range(3)],
        [storage.run_requests.of_key(job_id, key=key) for job_id in "ab" for key in "kl"],
        [storage.run_requests.last_run(job_id, at=at) for job_id in "ab" for at in range(3)],
        storage.pauses.of("abcd"),
        [sorted(storage.pauses.to_end(now=now, limit=9)) for now in (0, 5)],
        [sorted(storage.jobs_of_origin(origin), key=lambda row: row.id) for origin in ("file", "")],
        every_run,
        [storage.list_runs(job_id=job_id, before=None, limit=99) for job_id in "abcd"],
        storage.open_runs(list("dcba")),
        [sorted(storage.running(owner=number), key=lambda row: row.id) for number in (None, 1, 2)],
        storage.count_running(),
        storage.busy_sessions([session_key(user_id) for user_id in ("", "u")]),
        [storage.first_waiting_run(key) for key in (PAUSE, session_key(""), session_key("u"), job_key("a"))],
        sorted(due, key=queue_order),
        [[entry.due_at for entry in storage.due(now=now, limit=limit)] for now in (0, 3) for limit in (0, 1, 2)],
        [[entry.due_at for entry in storage.due(now=now, limit=limit, only_runs=True)] for now in (0, 3) for limit in (0, 1, 2)],
        storage.next_times(),
        sorted(storage.owners(), key=lambda row: row.id),
    )


class TwoStorages(RuleBasedStateMachine):
    """Carry out the same verbs on both, always inside a transaction that writes."""

    def __init__(self) -> None:
        super().__init__()
        self.sqlite = SqliteStorage(":memory:", wall=lambda: 0)
        self.fake = FakeStorage()
        self.marked = False
        self.begin()

    def teardown(self) -> None:
        self.sqlite.close()

    def begin(self) -> None:
        self.both(lambda storage: storage.begin(write=True))
        self.marked = False

    def both(self, verb: Callable[[Storage], object]) -> None:
        answers: list[object] = []
        for storage in (self.sqlite, self.fake):
            try:
                answers.append(verb(storage))
            except NOT_UNIQUE:
                answers.append("not unique")
        assert answers[0] == answers[1]
        if answers[0] == "not unique":
            self.end(lambda storage: storage.rollback())

    def end(self, verb: Callable[[Storage], object]) -> None:
        self.both(verb)
        self.begin()

    @rule()
    def commit(self) -> None:
        self.end(lambda storage: storage.commit())

    @rule()
    def rollback(self) -> None:
        self.end(lambda storage: storage.rollback())

    @precondition(lambda self: not self.marked)
    @rule()
    def savepoint(self) -> None:
        self.both(lambda storage: storage.savepoint())
        self.marked = True

    @precondition(lambda self: self.marked)
    @rule(keep=st.booleans())
    def leave_savepoint(self, keep: bool) -> None:
        self.both(lambda storage: storage.release() if keep else storage.undo())
        self.marked = False

    @rule(rows=many(REQUESTS))
    def insert_requests(self, rows: list[RunRequestRow]) -> None:
        for row in rows:
            self.both(lambda storage: storage.run_requests.insert(row))  # noqa: B023

    @rule(rows=many(REQUESTS))
    def delete_requests(self, rows: list[RunRequestRow]) -> None:
        self.both(lambda storage: storage.run_requests.delete([row[:2] for row in rows]))

    @rule(rows=many(PAUSES))
    def put_pauses(self, rows: list[PauseRow]) -> None:
        known = {job.id for _, job in self.fake.list_jobs(after=0, limit=99, user_id=None)}
        self.both(lambda storage: storage.pauses.put([row for row in rows if row.job_id in known]))

    @rule(rows=many(jobs()))
    def insert_jobs(self, rows: list[JobRow]) -> None:
        self.both(lambda storage: storage.insert_jobs(rows))

    @rule(rows=many(jobs()))
    def update_jobs(self, rows: list[JobRow]) -> None:
        self.both(lambda storage: storage.update_jobs(rows))

    @rule(rows=st.lists(jobs(), max_size=3, unique_by=lambda row: row.id))
    def update_job_states(self, rows: list[JobRow]) -> None:
        self.both(lambda storage: storage.update_job_states([JobState.of(row) for row in rows]))

    @rule(ids=many(JOB_IDS))
    def delete_jobs(self, ids: list[str]) -> None:
        self.both(lambda storage: storage.delete_jobs(ids))

    @rule(ids=many(JOB_IDS), names=many(st.tuples(USERS, st.sampled_from(["x", "y", "w"]))))
    def find_jobs(self, ids: list[str], names: list[tuple[str, str]]) -> None:
        self.both(lambda storage: (storage.jobs(ids), storage.idle_jobs(ids), storage.jobs_named(names), storage.open_runs(ids)))

    @rule(rows=many(new_runs()))
    def insert_runs(self, rows: list[RunRow]) -> None:
        self.both(lambda storage: storage.insert_runs(rows))

    @rule(
        keys=st.lists(st.tuples(JOB_IDS, st.integers(0, 3)), max_size=3, unique_by=lambda key: key[0]),
        states=st.lists(st.tuples(st.none() | TIMES, st.sampled_from([None, 1])), min_size=3, max_size=3),
        number=OWNERS,
        now=TIMES,
    )
    def insert_started_runs(
        self, keys: list[tuple[str, int]], states: list[tuple[int | None, int | None]], number: int, now: int
    ) -> None:
        started = [
            run(job_id=job_id, scheduled_at=at, ready_at=at, owner=number, started_at=now, status="running")
            for job_id, at in keys
        ]

        def start(storage: Storage) -> list[Claimed]:
            ids = storage.new_run_ids(len(started))
            return storage.insert_started_runs(
                [
                    Claimed(row.with_id(run_id), job(row.job_id), following, following, held_by and run_id)
                    for run_id, row, (following, held_by) in zip(ids, started, states, strict=False)
                ]
            )

        self.both(start)

    @rule(ids=many(RUN_IDS), number=OWNERS, now=TIMES)
    def start_pending_runs(self, ids: list[int], number: int, now: int) -> None:
        self.both(lambda storage: storage.start_pending_runs(ids, owner=number, now=now))

    @rule(waits=many(st.tuples(RUN_IDS, KEYS)))
    def set_waits_for(self, waits: list[tuple[int, str | None]]) -> None:
        self.both(lambda storage: storage.set_waits_for(waits))

    @rule(finishes=many(FINISHES))
    def store_finishes(self, finishes: list[RunFinish]) -> None:
        self.both(lambda storage: storage.store_finishes(finishes))

    @rule(finishes=st.lists(PLAIN_FINISHES, max_size=3, unique_by=lambda finish: finish.run_id), owner=OWNERS)
    def store_plain_finishes(self, finishes: list[PlainFinish], owner: int) -> None:
        self.both(lambda storage: storage.store_plain_finishes(finishes, owner=owner))

    @rule(ids=many(RUN_IDS), cause=st.sampled_from([None, "timeout"]), requested=st.booleans())
    def mark_runs(self, ids: list[int], cause: str | None, requested: bool) -> None:
        self.both(lambda storage: storage.mark_runs(ids, cause=cause, cancel_requested=requested))

    @rule(now=TIMES, by=TIMES)
    def advance_pending(self, now: int, by: int) -> None:
        self.both(lambda storage: storage.advance_pending(now=now, by=by))

    @rule(until=TIMES)
    def insert_owner(self, until: int) -> None:
        self.both(lambda storage: storage.insert_owner(owner(lease_until=until)))

    @rule(among=st.integers(1, 4))
    def latest_added_at(self, among: int) -> None:
        self.both(lambda storage: storage.latest_added_at(among=among))

    @rule(number=OWNERS, now=TIMES, until=TIMES, unless=TIMES)
    def renew_lease(self, number: int, now: int, until: int, unless: int) -> None:
        self.both(lambda storage: storage.renew_lease(number, now=now, until=until, unless_later_than=unless))

    @rule(numbers=many(OWNERS))
    def delete_owners(self, numbers: list[int]) -> None:
        self.both(lambda storage: storage.delete_owners(numbers))

    @invariant()
    def same(self) -> None:
        assert everything(self.sqlite) == everything(self.fake)


TestTwoStorages = TwoStorages.TestCase
TestTwoStorages.settings = settings(max_examples=50, stateful_step_count=40, deadline=None)
