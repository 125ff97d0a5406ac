"""Explains one moment of a job: from the history and, if that has no row for it, from the schedule. Runs on the storage thread."""

from __future__ import annotations

import attrs

from cronactors.errors import one_line
from cronactors.instants import Millis, from_millis, iso_utc
from cronactors.ledger.stored_values import timing_of
from cronactors.ledger.views import pause_view
from cronactors.model import MAX_COALESCED, Cause, Coalesce, Explanation, Fate, RunStatus
from cronactors.policy import Timing, misfire_from_text
from cronactors.storage.pauses import PauseRow
from cronactors.storage.protocol import Storage
from cronactors.storage.rows import JobRow, RunRow

_NOT_STARTED = "all slots are taken, or no scheduler is running"
_MOST_ROWS = 100
"""How many rows on either side are read: once the clock was set back other rows may lie between a moment and the row that stands for it."""


def _utc(instant: Millis) -> str:
    return iso_utc(instant, short=True)


def explain(storage: Storage, job: JobRow, at: Millis) -> Explanation:
    """Explain the moment ``at`` of a job: did it run, was it merged or skipped, does it wait, will it run.

    Rows know which moments they stand for, whatever schedule the job had then. Rows of an older release know only how many moments they
    stand for; for these we count moments of the present schedule.

    Raises:
        InvalidSchedule: The stored schedule cannot be read.
    """
    timing = timing_of(job)
    until, later = storage.runs_around(job.id, at=at)
    if until is not None and until.scheduled_at == at:
        return _of_run(job, until, at)
    undecided = job.enabled and job.next_run_at is not None and at >= job.next_run_at
    covering = None if undecided else _covering(storage, job, timing, (until, later), at)
    if covering is not None:
        return _merged(job, covering, at)
    return _without_row(storage, job, timing, at)


def _explanation(job: JobRow, fate: Fate, text: str, *, cause: str | None = None, run: RunRow | None = None) -> Explanation:
    return Explanation(
        outcome=fate,
        cause=None if cause is None else Cause(cause),
        run_id=None if run is None else str(run.id),
        next=None if job.next_run_at is None or not job.enabled else from_millis(job.next_run_at),
        text=text,
    )


def _of_run(job: JobRow, run: RunRow, at: Millis) -> Explanation:
    attempts = f", attempt {run.attempt}" if run.attempt > 1 else ""
    moments = f" It stands for {run.coalesced:,} moments." if run.coalesced > 1 else ""
    why = f" ({run.cause})" if run.cause else ""
    if run.status == RunStatus.SKIPPED:
        return _explanation(job, Fate.SKIPPED, f"{_utc(at)} was skipped{why}.{moments}", cause=run.cause, run=run)
    if run.status == RunStatus.PENDING:
        after = f", after {run.waits_for}" if run.waits_for else ""
        text = f"{_utc(at)} is to start at {_utc(run.ready_at)}{after}{attempts}.{moments}"
        return _explanation(job, Fate.WAITING, text, cause=run.cause, run=run)
    if run.started_at is None and run.attempt == 1:
        return _explanation(job, Fate.SKIPPED, f"{_utc(at)} did not start{why}.{moments}", cause=run.cause, run=run)
    if run.started_at is None:
        return _explanation(
            job, Fate.RUN, f"{_utc(at)} was run; attempt {run.attempt} did not start{why}.{moments}", cause=run.cause, run=run
        )
    status = "is running" if run.status == RunStatus.RUNNING else f"was run: {run.status}"
    return _explanation(job, Fate.RUN, f"{_utc(at)} {status}{why}{attempts}.{moments}", cause=run.cause, run=run)


def _merged(job: JobRow, run: RunRow, at: Millis) -> Explanation:
    many = "or more " if run.coalesced >= MAX_COALESCED else ""  # no more are counted
    unsure = ""
    if _is_older(job, at) and at != run.range_at:
        unsure = " The schedule was changed since: it is not known whether this was one of its moments."
    if run.started_at is None and run.attempt == 1 and run.status != RunStatus.PENDING:
        fate = f"was skipped ({run.cause})" if run.status == RunStatus.SKIPPED else f"did not start ({run.cause})"
        text = f"{_utc(at)} {fate}, with others from {_utc(run.span[0])} on.{unsure}"
        return _explanation(job, Fate.SKIPPED, text, cause=run.cause, run=run)
    text = f"{_utc(at)} was merged into the run of {_utc(run.scheduled_at)}, which stands for {run.coalesced:,} {many}moments."
    return _explanation(job, Fate.MERGED, text + unsure, run=run)


def _is_older(job: JobRow, at: Millis) -> bool:
    """Return whether a moment belongs to an earlier schedule of the job: the present one starts after its anchor."""
    return at <= job.anchor_at


def _covering(
    storage: Storage, job: JobRow, timing: Timing, around: tuple[RunRow | None, RunRow | None], at: Millis
) -> RunRow | None:
    """Return the row that stands for the moment ``at`` and has another time; None if there is none, or ``at`` is no moment."""
    of_now = timing.until(at) == at and not _is_older(job, at)
    earlier, later = around
    for _ in range(_MOST_ROWS):
        for run in (earlier, later):
            if run is not None and run.span[0] <= at <= run.span[1]:
                between = _is_older(job, at) and run.coalesced > len(run.span)  # else its moments are the ends of its range
                return run if of_now or between or at == run.range_at else None
        if earlier is None and later is None:
            break
        earlier = None if earlier is None else storage.runs_around(job.id, at=earlier.scheduled_at - 1)[0]
        later = None if later is None else storage.runs_around(job.id, at=later.scheduled_at)[1]
    return _counted(job, timing, around, at) if of_now else None


def _counted(job: JobRow, timing: Timing, around: tuple[RunRow | None, RunRow | None], at: Millis) -> RunRow | None:
    """Do the same for rows that know only how many moments they stand for.

    It is a later or an earlier run, as the job's present misfire policy merges, or a skipped row, which has the time of its first moment.
    """
    earlier, later = around
    forward = misfire_from_text(job.misfire).coalesce is Coalesce.EARLIEST
    if later is not None and later.status != RunStatus.SKIPPED and not forward and _counts(timing, at, later.scheduled_at, later):
        return later
    if earlier is not None and (forward or earlier.status == RunStatus.SKIPPED):
        return earlier if _counts(timing, earlier.scheduled_at, at, earlier) else None
    return None


def _counts(timing: Timing, first: Millis, last: Millis, run: RunRow) -> bool:
    return run.range_at is None and timing.count(first, last) <= run.coalesced


def _of_pause(job: JobRow, paused: PauseRow, at: Millis, now: Millis) -> Explanation | None:
    """Explain a moment that lies in the last pause of the job, or after its end if that is to come; None for any other."""
    lasts = paused.resumed_at is None and not job.enabled
    if lasts and paused.until_at is not None and at >= paused.until_at:
        if at > now:
            text = f"{_utc(at)} will run: the pause of the job ends at {_utc(paused.until_at)}."
            return attrs.evolve(_explanation(job, Fate.WILL_RUN, text), pause=pause_view(paused))
        waits = f"{_NOT_STARTED}; the pause of the job was to end at {_utc(paused.until_at)}"
        return attrs.evolve(
            _explanation(job, Fate.WAITING, f"{_utc(at)} is due and not decided yet: {waits}."), pause=pause_view(paused)
        )
    if at < paused.paused_at or not (lasts or (paused.resumed_at is not None and at < paused.resumed_at)):
        return None
    text = f"{_utc(at)} {_in_pause(paused)}."
    return attrs.evolve(_explanation(job, Fate.NOT_PLANNED, text), pause=pause_view(paused))


def _in_pause(paused: PauseRow) -> str:
    note = f" ({one_line(paused.note, 200)})" if paused.note else ""
    if paused.resumed_at is not None:
        return f"was not planned: the job was paused from {_utc(paused.paused_at)} to {_utc(paused.resumed_at)}{note}"
    until = "" if paused.until_at is None else f", until {_utc(paused.until_at)}"
    return f"is not planned: the job is paused since {_utc(paused.paused_at)}{until}{note}"


def _without_row(storage: Storage, job: JobRow, timing: Timing, at: Millis) -> Explanation:
    is_pruned = job.pruned_until is not None and job.created_at <= at <= job.pruned_until
    if is_pruned and (timing.until(at) == at or _is_older(job, at)):
        return _explanation(
            job, Fate.PRUNED, f"{_utc(at)} is before the history that is kept: it was decided, and its runs deleted."
        )
    is_moment = timing.until(at) == at
    if (is_moment or _is_older(job, at)) and (paused := storage.pauses.of([job.id]).get(job.id)) is not None:
        found = _of_pause(job, paused, at, storage.now())
        if found is not None:
            return found
    return _of_state(storage, job, at) if is_moment else _of_no_moment(job, timing, at)


def _of_no_moment(job: JobRow, timing: Timing, at: Millis) -> Explanation:
    near = [("before", timing.until(at)), ("after", timing.after(at))]
    named = " and ".join(f"the nearest {side} is {_utc(moment)}" for side, moment in near if moment is not None)
    changed = f" Its schedule was changed at {_utc(job.anchor_at)}." if job.created_at <= at <= job.anchor_at else ""
    return _explanation(job, Fate.NO_MOMENT, f"{_utc(at)} is no moment of this job; {named or 'it has none'}.{changed}")


def _of_state(storage: Storage, job: JobRow, at: Millis) -> Explanation:
    """Explain a moment of the schedule that has no row, from the state of the job."""
    if not job.enabled:
        return _explanation(job, Fate.NOT_PLANNED, f"{_utc(at)} is not planned: the job is paused or done.")
    if job.next_run_at is None or at < job.next_run_at:
        return _explanation(job, Fate.NOT_PLANNED, f"{_utc(at)} was not planned: the job was added, resumed or changed after it.")
    if at > storage.now():
        return _explanation(job, Fate.WILL_RUN, f"{_utc(at)} will run, unless a run of the job is still running then.")
    waits = f"run {job.held_by} of the job is open" if job.held_by is not None else _NOT_STARTED
    return _explanation(job, Fate.WAITING, f"{_utc(at)} is due and not decided yet: {waits}.")
