"""Finds the events of a transaction. Runs on the storage thread, and only while a stream of events is open.

The ledger does not know of events: it would have to collect them at each of its decisions, whether or not they are read. Each decision
ends in a verb of the storage, so we find events there, in the order in which they are written. `ObservedStorage` takes the place of the
storage for one transaction; without a stream the store uses the storage itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import assert_never

import attrs

from cronactors.events import (
    Event,
    JobAdded,
    JobChanged,
    JobRemoved,
    MomentSkipped,
    RetryScheduled,
    RunFinished,
    RunInterrupted,
    RunRequested,
    RunStarted,
    RunWaiting,
)
from cronactors.instants import Millis
from cronactors.ledger.stored_values import read_time
from cronactors.ledger.views import run_view
from cronactors.model import Cause, RunStatus, Trigger
from cronactors.storage.protocol import Storage
from cronactors.storage.rows import Claimed, JobRow, JobState, PlainFinish, RunFinish, RunRow

_COMPUTED = frozenset(JobState._fields) - {"enabled"} | {"pruned_until", "anchor_at", "created_at", "rules"}
"""Columns of a job that change without an edit."""


class ObservedStorage:
    """A `Storage` for one transaction that collects the events of its writes.

    Args:
        storage: The storage. Verbs that make no event go straight to it.

    Attributes:
        events: The events of the writes so far; they are true once the transaction is committed.
    """

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self.events: list[Event] = []
        self._at_savepoint = 0

    def __getattr__(self, name: str) -> object:
        """Return a verb of the storage that makes no event."""
        return getattr(self._storage, name)

    # Transactions

    def savepoint(self) -> None:
        """Remember the events until here."""
        self._storage.savepoint()
        self._at_savepoint = len(self.events)

    def undo(self) -> None:
        """Drop the events since `savepoint`."""
        self._storage.undo()
        del self.events[self._at_savepoint :]

    # Jobs

    def insert_jobs(self, rows: Sequence[JobRow]) -> None:
        """Note `JobAdded`."""
        self._storage.insert_jobs(rows)
        self.events += [JobAdded(job_id=job.id, job_name=job.name, user_id=job.user_id or None) for job in rows]

    def update_jobs(self, rows: Sequence[JobRow]) -> None:
        """Note `JobChanged` of jobs that were edited."""
        before = self._storage.jobs([job.id for job in rows])
        self._storage.update_jobs(rows)
        self.events += [_changed(job) for job in rows if job.id in before and _is_edited(before[job.id], job)]

    def update_job_states(self, states: Sequence[JobState]) -> None:
        """Note `JobChanged` of jobs that were paused or resumed, or are done."""
        before = self._storage.jobs([state.id for state in states])
        self._storage.update_job_states(states)
        for state in states:
            job = before.get(state.id)
            if job is not None and job.enabled != state.enabled:
                self.events.append(_changed(job.with_state(state)))

    def delete_jobs(self, ids: Sequence[str]) -> None:
        """Note `JobRemoved`."""
        before = self._storage.jobs(ids)
        self._storage.delete_jobs(ids)
        self.events += [JobRemoved(job_id=job.id, job_name=job.name, user_id=job.user_id or None) for job in before.values()]

    # Runs

    def insert_runs(self, rows: Sequence[RunRow]) -> list[int | None]:
        """Note the events of runs that are pending, have started or were skipped."""
        ids = self._storage.insert_runs(rows)
        self.events += [_inserted(row.with_id(run_id)) for run_id, row in zip(ids, rows, strict=True) if run_id is not None]
        return ids

    def insert_started_runs(self, claims: Sequence[Claimed]) -> list[Claimed]:
        """Note `RunStarted`."""
        started = self._storage.insert_started_runs(claims)
        self.events += [RunStarted.of(run_view(claimed.run)) for claimed in started]
        return started

    def start_pending_runs(self, ids: Sequence[int], *, owner: int, now: Millis) -> None:
        """Note `RunStarted`."""
        self._storage.start_pending_runs(ids, owner=owner, now=now)
        self.events += [RunStarted.of(run_view(run)) for run in self._stored(ids) if run.status == RunStatus.RUNNING]

    def store_finishes(self, finishes: Sequence[RunFinish]) -> list[bool]:
        """Note `RunFinished` and `RunInterrupted`."""
        took_effect = self._storage.store_finishes(finishes)
        self._add_finished([finish.id for finish, done in zip(finishes, took_effect, strict=True) if done])
        return took_effect

    def store_plain_finishes(self, finishes: Sequence[PlainFinish], *, owner: int) -> bool:
        """Note `RunFinished`, and `JobChanged` of jobs that are done."""
        stored = self._storage.store_plain_finishes(finishes, owner=owner)
        if stored:
            self._add_finished([finish.run_id for finish in finishes])
            done = self._storage.jobs([finish.job_id for finish in finishes if finish.next_run_at is None])
            self.events += map(_changed, done.values())
        return stored

    def _add_finished(self, ids: Sequence[int]) -> None:
        for run in map(run_view, self._stored(ids)):
            self.events.append((RunInterrupted if run.cause is Cause.INTERRUPTED else RunFinished).of(run))

    def _stored(self, ids: Sequence[int]) -> list[RunRow]:
        found = self._storage.runs(ids)
        return [found[run_id] for run_id in ids if run_id in found]


def _is_edited(old: JobRow, new: JobRow) -> bool:
    return any(getattr(old, name) != value for name, value in new._asdict().items() if name not in _COMPUTED)


def _changed(job: JobRow) -> JobChanged:
    return JobChanged(job_id=job.id, job_name=job.name, user_id=job.user_id or None, enabled=bool(job.enabled))


def _inserted(row: RunRow) -> Event:
    """Make the event of a run that was added."""
    run = run_view(row)
    if run.status is RunStatus.SKIPPED:
        return MomentSkipped.of(run)
    if run.status is RunStatus.RUNNING:
        return RunStarted.of(run)
    match run.trigger:
        case Trigger.SCHEDULE:
            return RunWaiting.of(run)
        case Trigger.MANUAL:
            return RunRequested.of(run)
        case Trigger.RETRY | Trigger.RECOVERY:
            retry = RetryScheduled.of(run)
            return attrs.evolve(retry, retry_at=read_time(row.ready_at))
        case _:
            assert_never(run.trigger)
