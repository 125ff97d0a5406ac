"""Notifications: which receivers are notified of a finished run, and how the result of a call is stored. Runs on the storage thread.

A finish writes a row for each receiver, so that a crash between the commit and the call loses nothing. The rows are the truth of
order, also over several schedulers: of one job and receiver at most one is ready at a time, and the transaction that settles it
makes the next one ready.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple, Protocol

import attrs

from cronactors.alerts import Alert
from cronactors.errors import CronError, NotificationNotFound, shorten
from cronactors.instants import Millis
from cronactors.ledger import leases
from cronactors.ledger.finish import Finishes, RunnerReport
from cronactors.ledger.notification_columns import (
    alert_from_column,
    job_from_column,
    job_to_column,
    state_to_column,
    with_state,
)
from cronactors.ledger.recovery import living_owners
from cronactors.ledger.views import job_view, job_views
from cronactors.model import Cause, CronJob, RunStatus
from cronactors.notifications import NOTIFIER, ON_ALERT, ON_FINISH, NotificationStatus
from cronactors.owner import ProcessIdentity
from cronactors.storage.notifications import NotificationRow, Settlement
from cronactors.storage.protocol import Storage
from cronactors.storage.rows import RunRow


class Deliverable(NamedTuple):
    """A notification with the arguments for its receiver.

    Attributes:
        row: The notification.
        run: The finished run; None for an alert, and where it cannot be read.
        job: The job as the finish left it; None where the receiver gets none.
        alert: The alert, if it is about one.
        problem: Why the receiver cannot be called; None: it can.
    """

    row: NotificationRow
    run: RunRow | None = None
    job: CronJob | None = None
    alert: Alert | None = None
    problem: str | None = None


class FinishReport(RunnerReport, Protocol):
    """A report of a runner that may have been stored before."""

    @property
    def again(self) -> bool:
        """Whether it was sent before, and its reply may have been lost."""


def add_finished(
    storage: Storage,
    reports: Sequence[FinishReport],
    finished: Finishes,
    *,
    receivers: Collection[str],
    owner: int,
) -> dict[int, list[Deliverable]]:
    """Write the notifications of runs that have just been finished.

    Args:
        storage: Inside the transaction that has finished them.
        reports: The reports of the runners.
        finished: What became of them.
        receivers: The receivers that the scheduler has.
        owner: The scheduler, which delivers them.

    Returns:
        The new notifications of each run, with those that wait for an earlier one.
    """
    runs = {
        run.id: (report, run)
        for report, run in zip(reports, finished.runs, strict=True)
        if run is not None and _is_notified(report, run) and not (report.again and storage.notifications.find(f"run:{run.id}"))
    }
    names = [name for name in receivers if name != ON_ALERT]
    if not runs or not names:
        return {}
    now = storage.now()
    views: dict[str, CronJob] = {}
    if ON_FINISH in names:
        jobs = storage.jobs([run.job_id for _, run in runs.values()])
        views = {view.id: view for view in job_views(storage, jobs.values(), idle=finished.idle)}
    rows, shown = [], []
    for report, run in runs.values():
        for name in names:
            view, state, removed = None, None, None
            if name == ON_FINISH:
                view, removed = _job_of(report, run, views)
                state = None if view is None else state_to_column(view)
            rows.append(NotificationRow(0, None, run.id, name, run.job_id, now, owner=owner, job_state=state, job=removed))
            shown.append((run, view))
    written: dict[int, list[Deliverable]] = {}
    for row, (run, view) in zip(storage.notifications.insert(rows), shown, strict=True):
        written.setdefault(run.id, []).append(Deliverable(row, run, view))
    return written


def _is_notified(report: RunnerReport, run: RunRow) -> bool:
    """Return whether receivers are notified of a run: success, failure, and a cancellation after its start; no interruption."""
    return report.outcome.notify and run.status != RunStatus.SKIPPED and run.cause != Cause.INTERRUPTED


def _job_of(report: RunnerReport, run: RunRow, views: dict[str, CronJob]) -> tuple[CronJob | None, str | None]:
    """Return the job after the run, and its column if it has been removed."""
    view = views.get(run.job_id)
    if view is not None or report.claimed is None:
        return view, None
    removed = report.claimed.job_now
    return job_view(removed, ()), job_to_column(removed)


def deliverables(storage: Storage, rows: Sequence[NotificationRow]) -> list[Deliverable]:
    """Read the arguments for the receivers: one statement for all runs, and two for all jobs."""
    runs = storage.runs([row.run_id for row in rows if row.run_id is not None])
    wanted = {row.job_id for row in rows if row.receiver != NOTIFIER and row.job is None}
    views = {view.id: view for view in job_views(storage, storage.read_jobs(sorted(wanted)).values())} if wanted else {}
    return [_deliverable(row, runs, views) for row in rows]


def _deliverable(row: NotificationRow, runs: dict[int, RunRow], views: dict[str, CronJob]) -> Deliverable:
    run = None if row.run_id is None else runs.get(row.run_id)
    if row.run_id is not None and run is None:
        return Deliverable(row, problem="its run is not in the history")
    if row.receiver == NOTIFIER:
        return Deliverable(row, run)
    try:
        job = views.get(row.job_id) if row.job is None else job_view(job_from_column(row.job), ())
        if job is None:
            return Deliverable(row, run, problem="its job is not in the store")
        if row.job_state is not None:
            job = with_state(job, row.job_state)
        alert = None if row.alert is None else alert_from_column(row.alert)
    except CronError as error:
        return Deliverable(row, run, problem=str(error))
    return Deliverable(row, run, job, alert)


# After a call


class CallResult(NamedTuple):
    """The result of a call: how it changes the notification.

    Attributes:
        row: The notification.
        status: Its status from now on.
        attempts: How many calls have failed.
        retry_after: How long (ms) until the next call; None: there is none.
        error: Why the call failed.
    """

    row: NotificationRow
    status: NotificationStatus
    attempts: int
    retry_after: Millis | None = None
    error: str | None = None


def settle(storage: Storage, results: Sequence[CallResult], *, owner: int) -> list[Deliverable]:
    """Store the results of calls, and return the notifications that have become ready."""
    now = storage.now()
    settlements = [
        Settlement(
            row.id,
            status,
            attempts,
            None if retry_after is None else now + retry_after,
            error,
            row.receiver,
            row.job_id,
        )
        for row, status, attempts, retry_after, error in results
    ]
    released = storage.notifications.settle(settlements, owner=owner)
    return deliverables(storage, released) if released else []


@attrs.frozen
class ReadyPage:
    """Notifications that may be delivered now.

    Attributes:
        deliverables: The first of them that are not in hand.
        ready: The ids of these and of those in hand that may still be delivered; of all, unless it is full.
        is_full: Whether there may be more.
        next_retry: When the next one may be delivered that waits for its retry.
    """

    deliverables: list[Deliverable]
    ready: frozenset[int]
    is_full: bool
    next_retry: Millis | None


def ready_page(storage: Storage, receiver: str, *, owner: int, limit: int, in_hand: Collection[int] = frozenset()) -> ReadyPage:
    """Read notifications that an owner may deliver now to a receiver.

    The runs of a page may hold 64 KiB of data each. So of those that are in hand only the small rows are read again.
    """
    now = storage.now()
    rows = storage.notifications.ready(receiver, owner=owner, now=now, limit=limit + len(in_hand))
    new = [row for row in rows if row.id not in in_hand]
    return ReadyPage(
        deliverables(storage, new[:limit]),
        ready=frozenset(row.id for row in rows),
        is_full=len(rows) == limit + len(in_hand) or len(new) > limit,
        next_retry=storage.notifications.next_retry(receiver, owner=owner, now=now),
    )


# Notifications of owners that are gone


def orphaned(
    storage: Storage, this_process: ProcessIdentity, *, trust_leases: bool, mine: Collection[int]
) -> list[tuple[int, str]]:
    """Return the pairs of owner and receiver that have notifications which no living owner delivers; as `recovery.orphans`.

    An owner without open runs sends a heartbeat once a minute only, and goes on calling its receivers when its lease has run out. So
    it counts as dead only when it has missed such a heartbeat.
    """
    lines = storage.notifications.ready_lines()
    if all(owner in mine for owner, _ in lines):
        return []
    alive = living_owners(storage, this_process, trust_leases=trust_leases, mine=mine, overdue_for=leases.HEARTBEAT_WHEN_IDLE)
    return [(owner, receiver) for owner, receiver in lines if owner not in alive]


def take_over(
    storage: Storage,
    this_process: ProcessIdentity,
    *,
    receivers: Collection[str],
    owner: int,
    trust_leases: bool,
    mine: Collection[int],
    limit: int,
) -> dict[str, int]:
    """Let an owner deliver the notifications of owners that are gone, as far as it has their receivers.

    Returns:
        How many notifications it has taken over for each receiver; together at most ``limit``.
    """
    taken: dict[str, int] = {}
    for other, receiver in orphaned(storage, this_process, trust_leases=trust_leases, mine=mine):
        if receiver in receivers and limit > 0:
            moved = storage.notifications.take_over(receiver, owner=other, by=owner, limit=limit)
            taken[receiver] = taken.get(receiver, 0) + moved
            limit -= moved
    return taken


# For users


def retry(storage: Storage, key: str, receiver: str | None) -> list[NotificationRow]:
    """Make notifications that were given up pending again, and return them.

    Raises:
        NotificationNotFound: None of that key and receiver was given up.
    """
    found = [row for row in storage.notifications.find(key) if receiver in (None, row.receiver)]
    given_up = [row for row in found if row.status == NotificationStatus.GIVEN_UP]
    if not given_up:
        of_receiver = "" if receiver is None else f" of {shorten(receiver)}"
        raise NotificationNotFound(f"no notification{of_receiver} with the key {shorten(key)} was given up")
    return [storage.notifications.reopen(row) for row in given_up]
