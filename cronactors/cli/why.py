"""Reads the fates of a job's moments, and the reasons why they wait. Requests run on the storage thread."""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from cronactors.actors.mailbox import ReadRequest
from cronactors.cli import describe
from cronactors.cli.amounts import count
from cronactors.cli.living import living
from cronactors.cli.moments import Asked, When
from cronactors.errors import one_line
from cronactors.instants import Millis, from_millis, to_millis
from cronactors.ledger import explain as ledger, jobs, stored_values
from cronactors.ledger.totals import total_of_all
from cronactors.ledger.views import read_job_view
from cronactors.model import Cause, CronJob, Explanation, Fate, RunStatus
from cronactors.owner import ProcessIdentity
from cronactors.policy import Timing, in_crash_loop
from cronactors.schedules.preview import preview
from cronactors.storage.history import Place, RunFilter, Span
from cronactors.storage.protocol import Storage
from cronactors.storage.rows import CRASH_LOOP, PAUSE, JobRow, RunRow

_ANY_NUMBER = 1_000_000
_MOST_REQUESTED = 100
"""The number of rows that are read at most to find requested runs."""
_CLAIMED_WITHIN: Millis = 2_000
"""The time (ms) that a scheduler with a free slot takes at most until it has started what is due."""


@attrs.frozen
class Reason:
    """A reason why a moment has not started: ``retry``, ``pause``, ``crash_loop``, ``session``, ``job``, ``scheduler``, ``total`` or ``slot``."""

    kind: str
    text: str


@attrs.frozen
class Moment:
    """One moment, and all that is known of it.

    Attributes:
        at: The moment.
        fate: Its fate.
        run: The row that stands for it.
        overlapped: The run that was running then, if it was skipped because of one.
        reasons: Why it has not started, if it is due; or that its scheduler is gone, if it is running.
        note: How a clock change affects it.
    """

    at: Millis
    fate: Explanation
    run: RunRow | None = None
    overlapped: RunRow | None = None
    reasons: tuple[Reason, ...] = ()
    note: str | None = None


@attrs.frozen
class Answer:
    """An answer.

    Attributes:
        job: The job.
        row: The same, as it is stored.
        now: The time of the answer.
        moments: The moments that it is about, in their order.
        note: How a clock change affects the time that was asked for.
        is_new: The job has had no moment yet.
        is_before: The time that is asked about is before the job was added, and no run of it is for an earlier moment.
    """

    job: CronJob
    row: JobRow
    now: Millis
    moments: tuple[Moment, ...]
    note: str | None = None
    is_new: bool = False
    is_before: bool = False


@attrs.frozen
class Why(ReadRequest[Answer]):
    """Read all that explains a moment of a job, in one transaction.

    Attributes:
        job_id: The job.
        when: Finds the time that is asked about; None: the last moment and the next one.
        process: This process, by which is decided which schedulers are alive.
    """

    job_id: str
    when: When | None
    process: ProcessIdentity

    def apply(self, storage: Storage) -> Answer:
        """Read it. Runs on the storage thread."""
        row, now = jobs.find_job(storage, self.job_id), storage.now()
        stored_values.check_policies(row)
        timing = stored_values.timing_of(row)
        asked = None if self.when is None else self.when(row.timezone, now)
        found = _last_and_next(storage, row, timing, now) if asked is None else _wanted(storage, row, timing, asked)
        moments = [self._explain(storage, row, timing, at, now) for at in dict.fromkeys(found) if at is not None]
        note = None if asked is None else asked.note
        is_new = asked is None and all(moment.at > now for moment in moments)
        for run in requested_runs(storage, row.id, asked):
            reasons = _reasons(storage, row, run, self.process, now) if run.status == RunStatus.PENDING else None
            moments.append(moment_of_run(storage, run, run.scheduled_at, self.process, now, reasons=reasons))
        moments.sort(key=lambda moment: moment.at)
        is_before = asked is not None and asked.at < row.created_at
        is_before = is_before and not any(moment.run is not None and moment.at < row.created_at for moment in moments)
        return Answer(read_job_view(storage, row), row, now, tuple(moments), note, is_new, is_before)

    def _explain(self, storage: Storage, job: JobRow, timing: Timing, at: Millis, now: Millis) -> Moment:
        fate = ledger.explain(storage, job, at)
        run = None if fate.run_id is None else storage.runs([int(fate.run_id)]).get(int(fate.run_id))
        reasons: list[Reason] = []
        if fate.outcome is Fate.WAITING or (run is not None and run.status == RunStatus.PENDING):
            reasons = _reasons(storage, job, run, self.process, now)
        elif run is not None:
            reasons = _of_its_scheduler(storage, run, self.process, now)
        return Moment(at, fate, run, _overlapped(storage, fate, run), tuple(reasons), _note(timing, at))


def moment_of_run(
    storage: Storage, run: RunRow, at: Millis, process: ProcessIdentity, now: Millis, *, reasons: Sequence[Reason] | None = None
) -> Moment:
    """Explain a moment by the run that stands for it alone, without its job.

    Args:
        storage: The storage.
        run: The run.
        at: The moment.
        process: This process.
        now: The present time.
        reasons: Why it has not started. None: it is not pending.
    """
    if run.status == RunStatus.PENDING:
        outcome = Fate.WAITING
    elif run.started_at is None and (run.attempt == 1 or run.status == RunStatus.SKIPPED):
        outcome = Fate.SKIPPED
    else:
        outcome = Fate.RUN if at == run.scheduled_at else Fate.MERGED
    cause = None if run.cause is None else Cause(run.cause)
    fate = Explanation(outcome=outcome, cause=cause, run_id=str(run.id), next=None, text="")
    if reasons is None:
        reasons = _of_its_scheduler(storage, run, process, now)
    return Moment(at, fate, run, _overlapped(storage, fate, run), tuple(reasons))


def requested_runs(storage: Storage, job_id: str, asked: Asked | None) -> list[RunRow]:
    """Return the runs that users requested in the time that is asked about, the first one first; None: those that have not finished."""
    if asked is None:
        return [run for run in storage.open_runs([job_id]) if run.manual]
    ids = storage.pruning.run_ids()
    if ids is None:
        return []
    before, down_to = (Place(0, at, 0, 0) for at in (asked.at + asked.within, asked.at))
    span = Span(0, ids[1] + 1, before=before, down_to=down_to)
    page = storage.history.page(RunFilter(job_id=job_id), span, limit=_MOST_REQUESTED, read=_MOST_REQUESTED)
    last_attempts: dict[Millis, RunRow] = {}
    for run in page.rows:
        if run.manual:
            last_attempts.setdefault(run.scheduled_at, run)
    return list(reversed(last_attempts.values()))


def _overlapped(storage: Storage, fate: Explanation, run: RunRow | None) -> RunRow | None:
    """Return the run because of which a moment was skipped."""
    if fate.cause is not Cause.OVERLAP or run is None:
        return None
    before, _ = storage.runs_around(run.job_id, at=run.span[0] - 1)
    return before if before is not None and before.started_at is not None else None


def _of_its_scheduler(storage: Storage, run: RunRow, process: ProcessIdentity, now: Millis) -> list[Reason]:
    """Say that the scheduler of a run that should be running is gone."""
    if run.status != RunStatus.RUNNING or run.owner in {owner.id for owner in living(storage.owners(), process, now)}:
        return []
    return [Reason("scheduler", "its scheduler is gone: the next start runs it again")]


def _last_and_next(storage: Storage, job: JobRow, timing: Timing, now: Millis) -> list[Millis | None]:
    """Return the last moment and the next one. If the last was not planned, the last one that has a row comes before it."""
    following = job.next_run_at if job.enabled else _after_pause(storage, job, timing, now)
    if following is not None and following <= now:
        following = timing.after(now)
    last = timing.until(now)
    if last is not None and ledger.explain(storage, job, last).outcome is not Fate.NOT_PLANNED:
        return [last, following]
    row, _ = storage.runs_around(job.id, at=now)
    return [None if row is None else row.scheduled_at, None if last is None or last < job.created_at else last, following]


def _after_pause(storage: Storage, job: JobRow, timing: Timing, now: Millis) -> Millis | None:
    """Return the first moment after the pause of a job; None if it does not end by itself."""
    pause = storage.pauses.of([job.id]).get(job.id)
    if pause is None or pause.resumed_at is not None or pause.until_at is None:
        return None
    return timing.after(max(now, pause.until_at - 1))


def _wanted(storage: Storage, job: JobRow, timing: Timing, asked: Asked) -> list[Millis | None]:
    """Return the moment that is asked about; if there is none, that time, and the moments before and after it."""
    end = asked.at + asked.within
    first = timing.after(asked.at - 1)
    if first is not None and first < end:
        return [first]
    before, _ = storage.runs_around(job.id, at=end - 1)
    if before is not None and asked.at <= before.scheduled_at:
        return [before.scheduled_at]
    return [timing.until(asked.at), asked.at, first]


def _note(timing: Timing, at: Millis) -> str | None:
    """Return the effect of a clock change on a moment of the schedule."""
    before = timing.until(at - 1)
    found = preview(
        timing.schedule,
        after=from_millis(max(0, at - 1) if before is None else before),
        timezone=timing.zone,
        anchor=from_millis(timing.anchor),
        count=1,
    )
    return found[0].note if found and to_millis(found[0].at) == at else None


def _reasons(storage: Storage, job: JobRow, run: RunRow | None, process: ProcessIdentity, now: Millis) -> list[Reason]:
    """Return the reasons why a moment has not started."""
    running = storage.running()
    owners = storage.owners()
    alive = living(owners, process, now)
    found = _own_reason(storage, job, run, running, now)
    due_since = job.next_run_at if run is None else run.ready_at
    if not alive:
        seen = max((owner.heartbeat_at for owner in owners), default=None)
        text = "no scheduler is running" if seen is None else f"no scheduler has been running since {local(seen, job.timezone)}"
        found.append(Reason("scheduler", text))
    elif not found:
        total = total_of_all(storage, _ANY_NUMBER)
        if len(running) >= total:
            limit = "as many as are allowed (max_concurrent_runs_total)"
            found.append(Reason("total", f"{count(len(running), 'run')} of all jobs running, {limit}"))
        elif not running:
            found.append(Reason("slot", "a scheduler is alive and is about to start it"))
        else:
            waits = f"it waits for a free slot: {count(len(running), 'run')} of all jobs running"
            is_late = due_since is not None and due_since < now - _CLAIMED_WITHIN
            found.append(Reason("slot", waits if is_late else f"it is about to start, or {waits}"))
    return found


def _own_reason(storage: Storage, job: JobRow, run: RunRow | None, running: Sequence[RunRow], now: Millis) -> list[Reason]:
    """Return the reason that its own row and that of its job give."""
    key = None if run is None else run.waits_for
    if key == PAUSE:
        return [Reason("pause", "the job is paused")]
    if key == CRASH_LOOP:
        known = storage.read_jobs([other.job_id for other in running if other.job_id != job.id])
        others = [other for other in running if other.job_id in known and in_crash_loop(known[other.job_id].crashes)]
        which = f"; {run_name(others[0])} of {one_line(others[0].job_name, 60)} is running" if others else ""
        return [Reason("crash_loop", f"its last {job.crashes:,} runs crashed, and such jobs start one at a time{which}")]
    if key is not None and key.startswith("session:"):
        user = one_line(key.removeprefix("session:") or "the agent", 60)
        holder = next((other for other in running if other.session == key), None)
        who = "" if holder is None else f", which {run_name(holder)} of {one_line(holder.job_name, 60)} uses"
        return [Reason("session", f"it waits for the session of {user}{who}")]
    if run is not None and run.ready_at > now and key is None:
        return [Reason("retry", f"attempt {run.attempt:,} may start at {local(run.ready_at, job.timezone)}")]
    if job.held_by is not None and (run is None or run.id != job.held_by):
        holder = storage.runs([job.held_by]).get(job.held_by)
        state = ""
        if holder is not None and holder.started_at is not None and holder.status == RunStatus.RUNNING:
            state = f", which is running since {local(holder.started_at, job.timezone)}"
        elif holder is not None and holder.status == RunStatus.PENDING and holder.ready_at > now:
            state = f", whose attempt {holder.attempt:,} may start at {local(holder.ready_at, job.timezone)}"
        return [Reason("job", f"it waits for run {job.held_by} of the job{state}")]
    return []


def local(at: Millis, zone: str) -> str:
    """Write an instant as the clocks of a zone show it."""
    return describe.local_time(from_millis(at), zone)


def run_name(run: RunRow) -> str:
    """Write the id of a run, and which attempt it is unless it is the first."""
    return f"run {run.id}" + (f", attempt {run.attempt:,}," if run.attempt > 1 else "")
