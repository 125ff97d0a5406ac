"""Inspects a store for ``watch`` and ``runs --follow``: one request, and so one transaction, a second. `apply` runs on the storage thread.

An inspection follows indexes and reads a bounded number of rows, however many jobs and runs there are: the runs that are running, those
that have changed, the front of the queue, and the jobs at it.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

import attrs

from cronactors.actors.mailbox import ReadRequest
from cronactors.cli import describe
from cronactors.cli.living import living
from cronactors.cli.run_changes import Known, read_changes
from cronactors.cli.run_query import RunQuery, Subject
from cronactors.instants import LATEST, Millis, from_millis
from cronactors.ledger.stored_values import read_time
from cronactors.ledger.views import job_view, job_views, run_view
from cronactors.model import ALL, CronRun
from cronactors.owner import ProcessIdentity
from cronactors.run_output import RunProgress
from cronactors.storage.protocol import Storage
from cronactors.storage.rows import RunRow

MOST_COUNTED = 1_000
"""How far starts that are due, and retries, are counted."""
MOST_RUNNING = 50
"""Of how many running runs the progress is read at most: those that have been running for longest."""
MOST_CANDIDATES = 50
"""How many jobs are read to find the next starts, at most."""
MOST_NEXT = 10
"""How many next starts are shown at most."""


@attrs.frozen
class Filter:
    """Whose runs are wanted, and which of them.

    Attributes:
        query: The user, the tag, the status, the cause and the trigger; its times are ignored.
        subject: The job of its name.
    """

    query: RunQuery
    subject: Subject

    @property
    def is_everything(self) -> bool:
        """Whether nothing is filtered out."""
        return self.subject.job_ids is None and not self.query.filtered

    def of(self, storage: Storage, runs: Sequence[RunRow]) -> list[RunRow]:
        """Return those of these runs that are wanted. By tag, of jobs that have it now."""
        query, job_ids = self.query, self.subject.job_ids
        found = [
            run
            for run in runs
            if (run.job_id in job_ids if job_ids is not None else query.user_id in (ALL, run.user_id or None))
            and query.status in (None, run.status)
            and query.cause in (None, run.cause)
            and query.trigger in (None, run.trigger)
        ]
        if query.tag is None or not found:
            return found
        jobs = storage.read_jobs(list({run.job_id for run in found}))
        tagged = {job.id for job in jobs.values() if query.tag in job_view(job, ()).tags}
        return [run for run in found if run.job_id in tagged]


class Change(NamedTuple):
    """A run with a new status, or a new run, and from when on it may start; None: the stored value cannot be read."""

    run: CronRun
    ready_at: datetime | None


@attrs.frozen(kw_only=True)
class RunningRun:
    """A run that is running.

    Attributes:
        run: The run.
        progress: The progress that it has reported last; None: none.
        is_orphan: Whether its scheduler is gone.
    """

    run: CronRun
    progress: RunProgress | None = None
    is_orphan: bool = False


@attrs.frozen(kw_only=True)
class NextRun:
    """The next start of a job.

    Attributes:
        name: The name of the job.
        user_id: Whose it is.
        at: When it starts.
        is_retry: Whether that is a retry.
        is_busy: Whether the job has a running run.
    """

    name: str
    user_id: str | None = None
    at: datetime
    is_retry: bool = False
    is_busy: bool = False


@attrs.frozen(kw_only=True)
class Snapshot:
    """A store at one time.

    Attributes:
        now: The time of the store.
        known: The runs that are known now, for the next inspection.
        changes: The changes since the inspection before, in order of time.
        schedulers: How many are alive.
        last_seen: When the last one was seen; None: there has been none.
        running: The runs that are running, the one that started first at the front.
        running_count: How many there are; there may be more than are listed.
        due: How many starts are due and have not started, counted up to `MOST_COUNTED`; None: unknown, as are ``retries``.
        retries: How many retries are waiting for their time.
        next: The next starts, the first one first.
    """

    now: datetime
    known: Known = attrs.field(factory=Known)
    changes: Sequence[Change] = ()
    schedulers: int
    last_seen: datetime | None = None
    running: Sequence[RunningRun] = ()
    running_count: int = 0
    due: int | None = None
    retries: int | None = None
    next: Sequence[NextRun] = ()


@attrs.frozen(kw_only=True)
class Inspect(ReadRequest[Snapshot]):
    """Inspect a store.

    Attributes:
        filter: Which runs are wanted.
        known: As the inspection before has returned it; None: this is the first one.
        candidates: Jobs among which the next ones to start are; None: all, of whom the queue says which are next.
        for_view: Whether to read the next starts, and to count those that are due and the retries.
        process: By which is decided which schedulers are alive.
    """

    filter: Filter
    known: Known | None = None
    candidates: Sequence[str] | None
    for_view: bool
    process: ProcessIdentity

    def apply(self, storage: Storage) -> Snapshot:
        """Read it all."""
        now, owners = storage.now(), storage.owners()
        known, all_running, all_changed = read_changes(storage, self.known)
        alive = living(owners, self.process, now)
        ids = {row.id for row in alive}
        running = sorted(self.filter.of(storage, all_running), key=lambda run: (run.started_at or 0, run.id))
        changed = self.filter.of(storage, all_changed)
        changed.sort(key=lambda row: (row.completed_at or row.started_at or row.ready_at, row.id))
        due, retries = _counts(storage, now) if self.for_view and self.filter.is_everything else (None, None)
        return Snapshot(
            now=from_millis(now),
            known=known,
            changes=[Change(run_view(row), read_time(row.ready_at)) for row in changed],
            schedulers=len(alive),
            last_seen=read_time(max((row.heartbeat_at for row in owners), default=None)),
            running=[
                RunningRun(run=run_view(run), progress=_progress(storage, run.id), is_orphan=run.owner not in ids)
                for run in running[:MOST_RUNNING]
            ],
            running_count=len(running),
            due=due,
            retries=retries,
            next=self._next(storage, running) if self.for_view else (),
        )

    def _next(self, storage: Storage, running: Sequence[RunRow]) -> list[NextRun]:
        """Return the next starts. A job that a run holds is not in the queue, so we add those that are running."""
        busy = dict.fromkeys(run.job_id for run in running)
        if self.candidates is None:
            queued = dict.fromkeys(item.job_id for item in storage.due(now=LATEST, limit=MOST_NEXT * 2))
            wanted = [*queued, *list(busy)[: MOST_CANDIDATES - len(queued)]]
        else:
            wanted = list(self.candidates)
        rows = storage.read_jobs(list(dict.fromkeys(wanted)))
        found = [
            NextRun(name=job.name, user_id=job.user_id, at=at, is_retry=at == job.retry_at, is_busy=job.id in busy)
            for job in job_views(storage, rows.values())
            if job.enabled and (at := describe.next_time(job)) is not None
        ]
        return sorted(found, key=lambda start: (start.at, start.name))[:MOST_NEXT]


def _progress(storage: Storage, run_id: int) -> RunProgress | None:
    row = storage.output.progress(run_id)
    at = None if row is None else read_time(row.at)
    return None if row is None or at is None else RunProgress(fraction=row.fraction, note=row.note, at=at)


def _counts(storage: Storage, now: Millis) -> tuple[int, int]:
    """Count the starts that are due, and the retries that wait for their time."""
    due = len(storage.due(now=now, limit=MOST_COUNTED))
    return due, sum(item.due_at > now for item in storage.due(now=LATEST, limit=MOST_COUNTED, only_runs=True))
