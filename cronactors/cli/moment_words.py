"""The outcome of a moment, as a sentence. Pure."""

from __future__ import annotations

from typing import Final

from cronactors.cli import describe
from cronactors.cli.amounts import count, span
from cronactors.cli.run_words import why
from cronactors.cli.why import Moment, local, run_name
from cronactors.instants import Millis
from cronactors.model import MAX_COALESCED, Cause, Fate, Overlap, RunStatus
from cronactors.policy import FREE_CRASHES
from cronactors.storage.rows import JobRow, RunRow

_ON_TIME: Final[Millis] = 1_000


def sentence(moment: Moment, job: JobRow | None, now: Millis) -> str:
    """Describe the fate of a moment, without the moment itself: "ran: run 12, ...". Without the job, which was removed, times are in UTC."""
    run, zone = moment.run, "UTC" if job is None else job.timezone
    waits = "".join(f"; {reason.text}" for reason in moment.reasons)
    match moment.fate.outcome:
        case Fate.RUN if run is not None:
            requested = "was requested, and " if run.manual else ""
            text = f"{requested}{_story(run, zone, now)}{waits}{_span_of(run, zone)}"
        case Fate.MERGED if run is not None:
            unsure = "; the schedule was changed since" if "changed since" in moment.fate.text else ""
            many = f"{count(run.coalesced, 'moment')}{' or more' if run.coalesced >= MAX_COALESCED else ''}"
            into = f"was merged into the run of {local(run.scheduled_at, zone)}, which stands for {many}"
            text = f"{into}: that {_story(run, zone, now)}{waits}{unsure}"
        case Fate.SKIPPED:
            text = f"{_why_skipped(moment, zone)}{'' if run is None else _span_of(run, zone)}"
        case Fate.WAITING:
            text = f"{_how_it_waits(moment, job, now)}: {waits.removeprefix('; ')}"
        case Fate.WILL_RUN:
            unless = ", unless a run of the job is still running then" if job is not None and job.overlap == Overlap.SKIP else ""
            ends = moment.fate.pause.until if moment.fate.pause is not None else None
            paused = (
                "" if job is None or ends is None else f": the pause of the job ends at {describe.local_time(ends, job.timezone)}"
            )
            text = f"will run, in {span(moment.at - now)}{paused or unless}"
        case Fate.NOT_PLANNED if job is not None:
            text = _why_not_planned(moment, job)
        case Fate.PRUNED:
            text = "was decided, and its history deleted since: it is older than the history that is kept"
        case Fate.NO_MOMENT if job is not None:
            is_older = job.created_at <= moment.at <= job.anchor_at
            changed = f" as it is scheduled since {local(job.anchor_at, job.timezone)}" if is_older else ""
            text = f"is no moment of the job{changed}"
        case Fate.NO_MOMENT:
            text = "has no run of the job, whose schedule is not known any more"
        case _:  # its row was deleted meanwhile
            text = moment.fate.text
    return text


def _how_it_waits(moment: Moment, job: JobRow | None, now: Millis) -> str:
    run = moment.run
    if run is not None and run.attempt > 1:
        error = f" ({describe.first_line(job.last_error)})" if job is not None and job.last_error else ""
        requested = "was requested, and " if run.manual else ""
        return f"{requested}has not succeeded in {count(run.attempt - 1, 'attempt')}{error}"
    if run is not None and run.manual:
        return f"was requested {span(now - moment.at)} ago (run {run.id}) and has not started"
    return f"is due{f' for {span(now - moment.at)}' if now > moment.at else ''} and has not started"


def _story(run: RunRow, zone: str, now: Millis) -> str:
    """Say how a run went."""
    cause = f" ({run.cause})" if run.cause else ""
    if run.status == RunStatus.PENDING:
        return f"has not started yet ({run_name(run).removesuffix(',')}, which may start at {local(run.ready_at, zone)})"
    if run.started_at is None:
        return f"{'did' if run.attempt == 1 else f'ran, but attempt {run.attempt:,} did'} not start: {run.status}{cause}"
    late = run.started_at - run.scheduled_at
    lateness = "" if run.attempt > 1 else f", {span(late)} late" if late >= _ON_TIME else ", on time"
    started = f"{run_name(run).removesuffix(',')} started at {local(run.started_at, zone)}{lateness}"
    if run.status == RunStatus.RUNNING:
        stopping = f"; it is being stopped{cause}" if run.cause else ""
        return f"is running: {started}, {span(now - run.started_at)} ago{stopping}"
    took = "" if run.completed_at is None else f" after {span(run.completed_at - run.started_at)}"
    error = f": {describe.first_line(run.error)}" if run.error else ""
    return f"ran: {started}; {run.status}{cause}{took}{error}"


def _span_of(run: RunRow, zone: str) -> str:
    if run.coalesced <= 1:
        return ""
    first, last = run.span
    ends = f", from {local(first, zone)} to {local(last, zone)}" if first != last else ""
    return f"; the row stands for {count(run.coalesced, 'moment', most=MAX_COALESCED)}{ends}"


def _why_skipped(moment: Moment, zone: str) -> str:
    """Say why a moment was skipped, or a requested run did not start."""
    cause, run, other = moment.fate.cause, moment.run, moment.overlapped
    requested = "was requested, and " if run is not None and run.manual else ""
    if cause is Cause.OVERLAP and other is not None and other.started_at is not None:
        end = "is still running" if other.completed_at is None else f"finished at {local(other.completed_at, zone)}"
        started = local(other.started_at, zone)
        return f"{requested}was skipped: run {other.id} of the job was still running (overlap): it started at {started} and {end}"
    if run is not None and run.status == RunStatus.CANCELLED and cause is not None:
        return f"{requested}was cancelled before it started: {why(RunStatus.CANCELLED, cause)}"
    return f"{requested}was skipped: {moment.fate.text if cause is None else why(RunStatus.SKIPPED, cause)}"


def _why_not_planned(moment: Moment, job: JobRow) -> str:
    zone = job.timezone
    if moment.at < job.created_at:
        return f"was not planned: the job was added later, at {local(job.created_at, zone)}"
    if (pause := moment.fate.pause) is not None:
        since, note = describe.local_time(pause.since, zone), describe.note(pause)
        if pause.ended is not None:
            return f"was not planned: the job was paused from {since} to {describe.local_time(pause.ended, zone)}{note}"
        return f"is not planned: the job is paused since {since}{describe.until(pause, zone)}{note}"
    if not job.enabled:
        if job.crashes > FREE_CRASHES:
            return f"is not planned: the job is paused, because its last {job.crashes:,} runs crashed"
        return f"is not planned: the job is {'paused' if job.next_run_at is not None else 'done'}"
    return "was not planned: the job was resumed or changed after it"
