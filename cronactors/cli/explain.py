"""The verb ``explain``: say in sentences what became of a moment of a job, or why it waits."""

from __future__ import annotations

import trio

from cronactors import open_store
from cronactors.cli import describe
from cronactors.cli.amounts import count
from cronactors.cli.find import find_job
from cronactors.cli.listing import job_as_json, run_as_json
from cronactors.cli.living import span
from cronactors.cli.moments import When, read_when
from cronactors.cli.stdout import print_json, print_line
from cronactors.cli.why import Answer, Moment, Why, local, run_name
from cronactors.errors import one_line
from cronactors.instants import Millis, iso_utc
from cronactors.ledger.views import run_view
from cronactors.model import MAX_COALESCED, Cause, Fate, Overlap, RunStatus
from cronactors.owner import identify_this_process
from cronactors.policy import FREE_CRASHES
from cronactors.schedules.schedule import OneShot
from cronactors.schedules.words import schedule_in_words
from cronactors.storage.rows import JobRow, RunRow
from cronactors.store import CronStore

_ON_TIME: Millis = 1_000
_WHY_SKIPPED = {
    Cause.OVERLAP: "a run of the job was still running (overlap)",
    Cause.MISFIRE: "nothing could start it in time, and the misfire policy of the job does not make up for it (misfire)",
    Cause.CANCELLED: "it had not started when the job was paused (cancelled)",
    Cause.REPLACED: "it had not started when a newer moment or another schedule took its place (replaced)",
    Cause.REMOVED: "it had not started when the job was removed or done (removed)",
    Cause.INTERRUPTED: "it had not started when the job was paused because its runs crashed (interrupted)",
}


def sentence(moment: Moment, job: JobRow, now: Millis) -> str:
    """Say what became of a moment, without the moment itself: "ran: run 12, ..."."""
    run, zone = moment.run, job.timezone
    waits = "".join(f"; {reason.text}" for reason in moment.reasons)
    match moment.fate.outcome:
        case Fate.RUN if run is not None:
            text = f"{_story(run, zone, now)}{waits}{_span_of(run, zone)}"
        case Fate.MERGED if run is not None:
            unsure = "; the schedule was changed since" if "changed since" in moment.fate.text else ""
            many = f"{count(run.coalesced, 'moment')}{' or more' if run.coalesced >= MAX_COALESCED else ''}"
            into = f"was merged into the run of {local(run.scheduled_at, zone)}, which stands for {many}"
            text = f"{into}: that {_story(run, zone, now)}{waits}{unsure}"
        case Fate.SKIPPED:
            text = f"was skipped: {_why_skipped(moment, job)}{'' if run is None else _span_of(run, zone)}"
        case Fate.WAITING:
            text = f"{_how_it_waits(moment, job, now)}: {waits.removeprefix('; ')}"
        case Fate.WILL_RUN:
            unless = ", unless a run of the job is still running then" if job.overlap == Overlap.SKIP else ""
            text = f"will run, in {span(moment.at - now)}{unless}"
        case Fate.NOT_PLANNED:
            text = _why_not_planned(moment, job)
        case Fate.PRUNED:
            text = "was decided, and its history deleted since: it is older than the history that is kept"
        case Fate.NO_MOMENT:
            text = "is no moment of the job"
        case _:  # its row was deleted meanwhile
            text = moment.fate.text
    return text


def _how_it_waits(moment: Moment, job: JobRow, now: Millis) -> str:
    if moment.run is None or moment.run.attempt == 1:
        return f"is due{f' for {span(now - moment.at)}' if now > moment.at else ''} and has not started"
    error = f" ({describe.first_line(job.last_error)})" if job.last_error else ""
    return f"has not succeeded in {count(moment.run.attempt - 1, 'attempt')}{error}"


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
    many = " or more" if run.coalesced >= MAX_COALESCED else ""
    first, last = run.span
    ends = f", from {local(first, zone)} to {local(last, zone)}" if first != last else ""
    return f"; the row stands for {run.coalesced:,}{many} moments{ends}"


def _why_skipped(moment: Moment, job: JobRow) -> str:
    cause, other = moment.fate.cause, moment.overlapped
    if cause is Cause.OVERLAP and other is not None and other.started_at is not None:
        end = "is still running" if other.completed_at is None else f"finished at {local(other.completed_at, job.timezone)}"
        started = local(other.started_at, job.timezone)
        return f"run {other.id} of the job was still running (overlap): it started at {started} and {end}"
    if cause is Cause.CANCELLED and moment.run is not None and moment.run.status == RunStatus.CANCELLED:
        return "it was cancelled before it started (cancelled)"
    return moment.fate.text if cause is None else _WHY_SKIPPED.get(cause, f"({cause})")


def _why_not_planned(moment: Moment, job: JobRow) -> str:
    zone = job.timezone
    if moment.at < job.created_at:
        return f"was not planned: the job was added later, at {local(job.created_at, zone)}"
    if not job.enabled:
        if job.crashes > FREE_CRASHES:
            return f"is not planned: the job is paused, because its last {job.crashes:,} runs crashed"
        return f"is not planned: the job is {'paused' if job.next_run_at is not None else 'done'}"
    return "was not planned: the job was resumed or changed after it"


async def read_answer(store: CronStore, name: str, *, user: str | None, when: When | None) -> Answer:
    """Find the job, and read what explains the moment.

    Raises:
        JobNotFound: Nobody has such a job, or several users have one.
        CronError: Its stored schedule cannot be read.
    """
    job = await find_job(store, name, user)
    return await store._service.mailbox.call(Why(job.id, when, identify_this_process()))


def explain(database: str, name: str, when: str, *, user: str | None, as_json: bool) -> None:
    """Explain a moment of a job.

    Args:
        database: The path or address of the database.
        name: The name of the job.
        when: The time, see `read_when`; "" is "now".
        user: The value of ``--user``.
        as_json: Whether to print JSON.

    Raises:
        click.BadParameter: ``when`` is not a time.
        CronError: There is no such job, or the database cannot be read.
    """
    asked = read_when(when or "now")
    answer = trio.run(_read, database, name, user, asked)
    if as_json:
        print_json(answer_as_json(answer))
    else:
        for line in lines(answer):
            print_line(line)


async def _read(database: str, name: str, user: str | None, when: When | None) -> Answer:
    async with open_store(database, create=False) as store:
        return await read_answer(store, name, user=user, when=when)


def lines(answer: Answer) -> list[str]:
    """Return the answer in lines: the job, then each moment with its notes, then its state and the next moment."""
    job, row = answer.job, answer.row
    whose = "" if job.user_id is None else f" (user {one_line(job.user_id, 30)})"
    paused = "" if job.enabled else f", {describe.state(job)}"
    found = [f"{one_line(job.name, 60)}{whose}: {schedule_in_words(job.schedule)}, {job.timezone}{paused}"]
    for moment in answer.moments:
        found.append(f"{local(moment.at, row.timezone)} {sentence(moment, row, answer.now)}.")
        if moment.note is not None:
            found.append(f"  {moment.note}")
    if answer.note is not None and not any(moment.note and "does not exist" in moment.note for moment in answer.moments):
        found.append(f"  {answer.note}")
    if answer.is_new:
        found.insert(1, f"It has had no moment yet: it was added at {describe.local_time(job.created_at, job.timezone)}.")
    is_ahead = job.enabled and row.next_run_at is not None and row.next_run_at > answer.now
    if is_ahead and not any(moment.at == row.next_run_at for moment in answer.moments):
        found.append(f"Next: {describe.local_time(job.next_run_at, job.timezone)}.")
    if not job.enabled and not isinstance(job.schedule, OneShot):
        why = f": {describe.first_line(job.last_error)}" if row.crashes > FREE_CRASHES and job.last_error else ""
        found.append(f"The job is paused{why}. `cronactors resume` lets it continue.")
    return found


def answer_as_json(answer: Answer) -> dict[str, object]:
    """Convert an answer to values of JSON, times in UTC."""
    return {
        "job": job_as_json(answer.job),
        "words": schedule_in_words(answer.job.schedule),
        "now": iso_utc(answer.now),
        "note": answer.note,
        "moments": [
            {
                "at": iso_utc(moment.at),
                "outcome": str(moment.fate.outcome),
                "cause": None if moment.fate.cause is None else str(moment.fate.cause),
                "run": None if moment.run is None else run_as_json(run_view(moment.run)),
                "waits_for": [{"kind": reason.kind, "text": reason.text} for reason in moment.reasons],
                "note": moment.note,
                "text": f"{local(moment.at, answer.row.timezone)} {sentence(moment, answer.row, answer.now)}.",
            }
            for moment in answer.moments
        ],
    }
