"""A storage in plain dicts. It shows that the ledger needs nothing but the protocol, and what each verb does in a few lines."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from operator import attrgetter

import attrs

from cronactors.instants import Millis
from cronactors.storage.pauses import PauseRow
from cronactors.storage.protocol import Storage
from cronactors.storage.rows import (
    Claimed,
    DueItem,
    JobRow,
    JobState,
    NextTimes,
    OriginRow,
    OverdueMoment,
    OwnerRow,
    PlainFinish,
    RunFinish,
    RunRow,
)
from cronactors.storage.run_requests import RunRequestRow
from cronactors.tags import tags_to_find
from cronactors.wallclock import sleep_until
from tests.fake_history import FakeHistory
from tests.fake_notifications import FakeNotifications, NotificationRows
from tests.fake_pauses import FakePauses
from tests.fake_pruning import FakePruning
from tests.fake_run_output import FakeOutput, OutputRows
from tests.fake_run_requests import FakeRunRequests


class NotUnique(Exception):
    """A row that would break a unique key: a bug of the caller, as sqlite3.IntegrityError is."""


@attrs.define
class Rows:
    """All rows. They are immutable, so copies of the dicts are a snapshot; dicts keep the order of insertion."""

    jobs: dict[str, tuple[int, JobRow]] = attrs.field(factory=dict)
    runs: dict[int, RunRow] = attrs.field(factory=dict)
    keys: set[tuple[str, Millis, int, int]] = attrs.field(factory=set)
    owners: dict[int, OwnerRow] = attrs.field(factory=dict)
    meta: dict[str, str] = attrs.field(factory=dict)
    origins: dict[str, str] = attrs.field(factory=dict)
    requests: dict[tuple[str, Millis], RunRequestRow] = attrs.field(factory=dict)
    pauses: dict[str, PauseRow] = attrs.field(factory=dict)
    last_job: int = 0
    last_run: int = 0
    news: NotificationRows = attrs.field(factory=NotificationRows)
    last_owner: int = 0
    output: OutputRows = attrs.field(factory=OutputRows)

    def copy(self) -> Rows:
        """Copy the dicts and sets; all else cannot change."""
        values = {field.name: getattr(self, field.name) for field in attrs.fields(Rows)}
        return Rows(**{name: value if isinstance(value, int) else value.copy() for name, value in values.items()})


class FakeStorage:
    """A `Storage` in memory.

    Args:
        wall: The wall clock.
    """

    def __init__(self, *, wall: Callable[[], Millis] = lambda: 0) -> None:
        self.locked = False  # set by a test: another process holds the write lock
        self._wall = wall
        self._durable = Rows()
        self._current: Rows | None = None
        self._writes = False
        self._point: Rows | None = None
        self._stopping: set[int] = set()
        self._to_forget: set[int] = set()
        self.run_requests = FakeRunRequests(lambda: self._seen.requests, lambda: self._changed.requests, lambda: self._seen.runs)
        self.pauses = FakePauses(lambda: self._seen.pauses, lambda: self._changed.pauses)
        self.output = FakeOutput(lambda: self._seen.output, lambda: self._changed.output)
        self.notifications = FakeNotifications(lambda: self._seen.news, lambda: self._changed.news)
        self.history = FakeHistory(lambda: self._seen.jobs, lambda: self._seen.runs)
        self.pruning = FakePruning(lambda: self._seen, lambda: self._changed)

    name = "fake"

    def check(self) -> None:
        return None

    def now(self) -> Millis:
        return self._wall()

    # Transactions: the durable rows, those that the open transaction sees, and those to which `undo` returns

    @property
    def _seen(self) -> Rows:
        assert self._current is not None, "verbs belong inside a transaction"
        return self._current

    @property
    def _changed(self) -> Rows:
        assert self._writes, "this transaction only reads"
        return self._seen

    left_out = False
    writes_side_by_side = False

    def hold(self, *keys: str, wait: bool = True) -> bool:
        return True

    def wait_until(self, instant: Millis, *, longest: Millis) -> None:
        sleep_until(instant, longest=longest)

    def begin(self, *, write: bool, alone: bool = True) -> bool:
        assert self._current is None, "a transaction is open already"
        if write and self.locked:
            return False
        self._current, self._writes = self._durable.copy(), write
        return True

    def commit_writes(self) -> NextTimes:
        next_times = self.next_times()
        self.commit()
        return next_times

    def commit(self) -> None:
        self._durable = self._seen
        self._stopping -= self._to_forget
        self.rollback()

    def rollback(self) -> None:
        self._current, self._writes, self._point = None, False, None
        self._to_forget.clear()

    def savepoint(self) -> None:
        assert self._point is None, "savepoints are not nested"
        self._point = self._seen.copy()

    def release(self) -> None:
        assert self._point is not None, "there is no savepoint"
        self._point = None

    def undo(self) -> None:
        assert self._point is not None, "there is no savepoint"
        self._current, self._point = self._point, None

    # Jobs

    def insert_jobs(self, rows: Sequence[JobRow]) -> None:
        for row in rows:
            if row.id in self._changed.jobs:
                raise NotUnique(row.id)
            self._changed.last_job += 1
            self._put_job(self._changed.last_job, row)

    def update_jobs(self, rows: Sequence[JobRow]) -> None:
        for row in rows:
            if row.id in self._changed.jobs:
                self._put_job(self._changed.jobs[row.id][0], row)

    def _put_job(self, number: int, row: JobRow) -> None:
        if any((job.user_id, job.name) == (row.user_id, row.name) and job.id != row.id for _, job in self._seen.jobs.values()):
            raise NotUnique(row.name)
        self._changed.jobs[row.id] = (number, row)

    def update_job_states(self, states: Sequence[JobState]) -> None:
        for state in states:
            if state.id in self._changed.jobs:
                number, job = self._changed.jobs[state.id]
                self._changed.jobs[state.id] = (number, job._replace(**state._asdict()))

    def set_rules(self, ids: Sequence[str], *, rules: str) -> None:
        for job_id in ids:
            if job_id in self._changed.jobs:
                number, job = self._changed.jobs[job_id]
                self._changed.jobs[job_id] = (number, job._replace(rules=rules))

    def delete_jobs(self, ids: Sequence[str]) -> None:
        for job_id in ids:
            self._changed.jobs.pop(job_id, None)
            self._changed.pauses.pop(job_id, None)

    def jobs(self, ids: Sequence[str]) -> dict[str, JobRow]:
        return {job_id: self._seen.jobs[job_id][1] for job_id in ids if job_id in self._seen.jobs}

    read_jobs = jobs

    def idle_jobs(self, ids: Sequence[str]) -> dict[str, JobRow]:
        return {job_id: job for job_id, job in self.jobs(ids).items() if not self.open_runs([job_id])}

    def jobs_named(self, names: Sequence[tuple[str, str]]) -> dict[tuple[str, str], JobRow]:
        named = {(job.user_id, job.name): job for _, job in self._seen.jobs.values()}
        return {name: named[name] for name in names if name in named}

    def job_names(self, *, after: tuple[str, str], limit: int) -> list[tuple[str, str]]:
        names = sorted((job.user_id, job.name) for _, job in self._seen.jobs.values())
        return [name for name in names if name > after][:limit]

    def jobs_of_origin(self, origin: str) -> list[JobRow]:
        return [job for _, job in self._seen.jobs.values() if job.origin == origin]

    def list_jobs(self, *, after: int, limit: int, user_id: str | None) -> list[tuple[int, JobRow]]:
        rows = [(number, job) for number, job in self._seen.jobs.values() if number > after and user_id in (None, job.user_id)]
        return rows[:limit]

    def latest_added_at(self, *, among: int) -> Millis | None:
        jobs, runs = list(self._seen.jobs.values())[-among:], sorted(self._seen.runs.items())[-among:]
        added = [at for _, job in jobs for at in (job.created_at, job.anchor_at)]
        return max(added + [run.ready_at for _, run in runs if (run.status, run.attempt) == ("pending", 1)], default=None)

    def jobs_tagged(self, tag: str, *, after: int, limit: int) -> list[tuple[int, JobRow]]:
        rows = [(number, job) for number, job in self._seen.jobs.values() if number > after and tag in tags_to_find(job.tags)]
        return rows[:limit]

    # The queue

    def _queue(self) -> list[DueItem]:
        jobs = [
            DueItem(None, job.id, job.next_run_at)
            for _, job in self._seen.jobs.values()
            if job.enabled == 1 and job.held_by is None and job.next_run_at is not None
        ]
        runs = [
            DueItem(run.id, run.job_id, run.ready_at)
            for run in self._seen.runs.values()
            if run.status == "pending" and run.waits_for is None
        ]
        return sorted(jobs + runs, key=attrgetter("due_at"))

    def due(self, *, now: Millis, limit: int, only_runs: bool = False) -> list[DueItem]:
        return [item for item in self._queue() if item.due_at <= now and (item.run_id is not None or not only_runs)][:limit]

    def overdue(self, *, until: Millis, after: OverdueMoment | None, limit: int) -> list[OverdueMoment]:
        found = sorted(
            OverdueMoment(job.next_run_at, number, job.id)
            for number, job in self._seen.jobs.values()
            if job.enabled == 1 and job.held_by is None and job.next_run_at is not None and job.next_run_at <= until
        )
        return [moment for moment in found if after is None or moment > after][:limit]

    def next_times(self) -> NextTimes:
        due = min((item.due_at for item in self._queue()), default=None)
        return NextTimes(due, min((at for at, _ in self._cancelling() + self.pauses.lasting()), default=None))

    def _cancelling(self) -> list[tuple[Millis, str]]:
        return sorted(
            (job.next_run_at, job.id)
            for _, job in self._seen.jobs.values()
            if job.overlap == "cancel_other" and job.enabled == 1 and job.held_by is not None and job.next_run_at is not None
        )

    def jobs_to_cancel(self, *, now: Millis, limit: int) -> list[str]:
        return [job_id for due_at, job_id in self._cancelling() if due_at <= now][:limit]

    # Runs

    def insert_runs(self, rows: Sequence[RunRow]) -> list[int | None]:
        return [self._insert_run(row) for row in rows]

    def _insert_run(self, row: RunRow) -> int | None:
        self._changed.last_run += 1  # a refused row uses up an id, as SQLite's AUTOINCREMENT does
        key = (row.job_id, row.scheduled_at, row.manual, row.attempt)
        if key in self._changed.keys:
            return None
        self._changed.keys.add(key)
        self._put_run(row.with_id(self._changed.last_run))
        return self._changed.last_run

    def new_run_ids(self, count: int) -> range:
        return range(self._seen.last_run + 1, self._seen.last_run + 1 + count)

    def insert_started_runs(self, claims: Sequence[Claimed]) -> list[Claimed]:
        started = []
        for claimed in claims:
            assert claimed.run.id > self._changed.last_run
            self._changed.last_run = claimed.run.id - 1
            if self._insert_run(claimed.run) is not None:
                started.append(claimed)
                for job in self.jobs([claimed.job.id]).values():
                    state = JobState.of(job)._replace(next_run_at=claimed.next_run_at, decided_local=claimed.decided_local)
                    self.update_job_states([state._replace(held_by=claimed.held_by, last_run_at=claimed.run.started_at)])
        return started

    def _put_run(self, row: RunRow) -> None:
        if row.status == "running" and any(row.session == run.session is not None and run.id != row.id for run in self.running()):
            raise NotUnique(row.session)
        self._changed.runs[row.id] = row

    def _with_status(self, run_id: int, status: str) -> RunRow | None:
        run = self._changed.runs.get(run_id)
        return run if run is not None and run.status == status else None

    def start_pending_runs(self, ids: Sequence[int], *, owner: int, now: Millis) -> None:
        for run_id in ids:
            if run := self._with_status(run_id, "pending"):
                self._put_run(run._replace(status="running", owner=owner, started_at=now))

    def set_waits_for(self, waits: Sequence[tuple[int, str | None]]) -> int:
        changed = 0
        for run_id, key in waits:
            if run := self._with_status(run_id, "pending"):
                self._put_run(run._replace(waits_for=key))
                changed += 1
        return changed

    def store_finishes(self, finishes: Sequence[RunFinish]) -> list[bool]:
        return [self._finish_run(finish) for finish in finishes]

    def _finish_run(self, finish: RunFinish) -> bool:
        run = self._with_status(finish.id, finish.expected_status)
        if run is None:
            return False
        completed_at = max(finish.completed_at, run.started_at or 0)
        self._put_run(run.finished(finish)._replace(completed_at=completed_at))
        return True

    def store_plain_finishes(self, finishes: Sequence[PlainFinish], *, owner: int) -> bool:
        before = self._changed.copy()
        if all(self._finish_plainly(plain, owner) for plain in finishes):
            return True
        self._current = before
        return False

    def _finish_plainly(self, plain: PlainFinish, owner: int) -> bool:
        run, job = self._seen.runs.get(plain.run_id), self.jobs([plain.job_id]).get(plain.job_id)
        finish = RunFinish(
            id=plain.run_id,
            expected_status="running",
            status="success",
            cause=None,
            completed_at=plain.completed_at,
            session_id=plain.session_id,
            result=plain.result,
            result_data=plain.result_data,
            error=None,
        )
        if run is None or job is None or run.owner != owner or run.cancel_requested or not self._finish_run(finish):
            return False
        if (
            (job.held_by, job.next_run_at, job.enabled) != (run.id, plain.next_run_at, 1)
            or job.crashes
            or job.delete_after_run
            or job.consecutive_failures
        ):
            return False
        if self.open_runs([job.id]):
            return False
        state = JobState.of(job)._replace(held_by=None, last_error=None, enabled=int(plain.next_run_at is not None))
        self.update_job_states([state])
        return True

    def mark_runs(self, ids: Sequence[int], *, cause: str | None = None, cancel_requested: bool = False) -> None:
        for run_id in ids:
            if run := self._with_status(run_id, "running"):
                requested = int(run.cancel_requested or cancel_requested)
                self._put_run(run._replace(cause=run.cause if cause is None else cause, cancel_requested=requested))

    def advance_pending(self, *, now: Millis, by: Millis) -> None:
        for run in list(self._changed.runs.values()):
            if run.status == "pending" and run.ready_at > now:
                self._put_run(run._replace(ready_at=now if run.attempt == 1 else max(now, run.ready_at - by)))

    def runs(self, ids: Sequence[int]) -> dict[int, RunRow]:
        return {run_id: self._seen.runs[run_id] for run_id in ids if run_id in self._seen.runs}

    def open_runs(self, job_ids: Sequence[str]) -> list[RunRow]:
        open_runs = [run for run in self._seen.runs.values() if run.job_id in job_ids and run.status in ("pending", "running")]
        return sorted(open_runs, key=attrgetter("ready_at", "id"))

    def running(self, *, owner: int | None = None) -> list[RunRow]:
        return [run for run in self._seen.runs.values() if run.status == "running" and owner in (None, run.owner)]

    def any_running(self, *, besides: Collection[int] = ()) -> bool:
        return any(run.owner not in besides for run in self.running())

    def count_running(self) -> int:
        return len(self.running())

    def busy_sessions(self, sessions: Collection[str]) -> set[str]:
        return {run.session for run in self.running() if run.session is not None and run.session in sessions}

    def first_waiting_run(self, key: str) -> int | None:
        waiting = [run for run in self._seen.runs.values() if run.status == "pending" and run.waits_for == key]
        return min(waiting, key=attrgetter("ready_at", "id")).id if waiting else None

    def list_runs(self, *, job_id: str | None, before: RunRow | None, limit: int) -> list[RunRow]:
        position = attrgetter("id") if job_id is None else attrgetter("scheduled_at", "manual", "attempt")
        rows = [run for run in self._seen.runs.values() if job_id in (None, run.job_id)]
        rows = [run for run in rows if before is None or position(run) < position(before)]
        return sorted(rows, key=position, reverse=True)[:limit]

    def runs_around(self, job_id: str, *, at: Millis) -> tuple[RunRow | None, RunRow | None]:
        rows = [run for run in self._seen.runs.values() if run.job_id == job_id and not run.manual]
        position = attrgetter("scheduled_at", "attempt")
        until = max((run for run in rows if run.scheduled_at <= at), key=position, default=None)
        return until, min((run for run in rows if run.scheduled_at > at), key=position, default=None)

    # Owners

    def insert_owner(self, row: OwnerRow) -> int:
        number = row.id or self._changed.last_owner + 1
        self._changed.last_owner = max(self._changed.last_owner, number)
        self._changed.owners[number] = row._replace(id=number)
        return number

    def owners(self) -> list[OwnerRow]:
        return list(self._seen.owners.values())

    def owner(self, number: int) -> OwnerRow | None:
        return next((row for row in self.owners() if row.id == number), None)

    def renew_lease(self, owner: int, *, now: Millis, until: Millis, unless_later_than: Millis) -> None:
        row = self._changed.owners.get(owner)
        if row is not None and (row.lease_until < unless_later_than or row.heartbeat_at > now):
            self._changed.owners[owner] = row._replace(heartbeat_at=now, lease_until=until)

    def delete_owners(self, ids: Sequence[int]) -> None:
        for owner in ids:
            self._changed.owners.pop(owner, None)

    # Facts, and where lists of jobs come from

    def meta(self, key: str) -> str | None:
        return self._seen.meta.get(key)

    def set_meta(self, key: str, value: str | None) -> None:
        self._changed.meta.pop(key, None)
        if value is not None:
            self._changed.meta[key] = value

    def origins(self) -> list[OriginRow]:
        counted = Counter(job.origin for _, job in self._seen.jobs.values() if job.origin is not None)
        return [OriginRow(name, self._seen.origins.get(name), jobs) for name, jobs in sorted(counted.items())]

    def set_origin(self, name: str, file: str | None) -> None:
        self._changed.origins.pop(name, None)
        if file is not None:
            self._changed.origins[name] = file

    # Stop marks, which need no transaction

    def mark_stopping(self, owner: int) -> None:
        self._stopping.add(owner)

    def stopping_owners(self) -> set[int]:
        return set(self._stopping)

    def unmark_stopping(self, owner: int) -> None:
        self._to_forget.add(owner)


_: type[Storage] = FakeStorage
