"""The verb ``explain``: say in sentences how a moment of a job ended, or why it waits."""

from __future__ import annotations

from collections.abc import Iterable

import trio

from cronactors import open_store
from cronactors.cli import describe
from cronactors.cli.listing import job_as_json, run_as_json
from cronactors.cli.moment_words import sentence
from cronactors.cli.moments import When, read_when
from cronactors.cli.removed import RemovedJob, find_job_or_removed, find_predecessor
from cronactors.cli.stdout import print_json, print_line
from cronactors.cli.why import Answer, Moment, Why, local
from cronactors.cli.why_removed import RemovedAnswer, WhyRemoved
from cronactors.errors import one_line
from cronactors.instants import Millis, iso_utc
from cronactors.ledger.views import run_view
from cronactors.model import Fate
from cronactors.owner import identify_this_process
from cronactors.policy import FREE_CRASHES
from cronactors.schedules.schedule import OneShot
from cronactors.schedules.words import schedule_in_words
from cronactors.storage.rows import JobRow
from cronactors.store import CronStore


async def read_answer(store: CronStore, name: str, *, user: str | None, when: When | None) -> Answer | RemovedAnswer:
    """Find the job, also one that was removed, and read the explanation of the moment.

    A time before a job was added is explained by the runs of one that had its name before and was removed, if there are any.

    Raises:
        JobNotFound: There is no such job, and no run of one; or several users have or had one.
        CronError: Its stored schedule cannot be read.
    """
    mailbox, process = store._service.mailbox, identify_this_process()
    job = await find_job_or_removed(store, name, user)
    if isinstance(job, RemovedJob):
        return await mailbox.call(WhyRemoved(job, when, process))
    answer = await mailbox.call(Why(job.id, when, process))
    if when is None or not answer.is_before or (earlier := await find_predecessor(store, job)) is None:
        return answer
    # The time is meant in the zone of the present job: of a job that was removed none is known.
    return await mailbox.call(WhyRemoved(earlier, lambda _zone, now: when(job.timezone, now), process))


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


async def _read(database: str, name: str, user: str | None, when: When | None) -> Answer | RemovedAnswer:
    async with open_store(database, create=False) as store:
        return await read_answer(store, name, user=user, when=when)


def lines(answer: Answer | RemovedAnswer) -> list[str]:
    """Return the answer in lines: the job, then each moment with its notes, then its state and the next moment."""
    if isinstance(answer, RemovedAnswer):
        return [answer.job.sentences(), *_moment_lines(answer.moments, None, answer.now)]
    job, row = answer.job, answer.row
    whose = "" if job.user_id is None else f" (user {one_line(job.user_id, 30)})"
    paused = "" if job.enabled else f", {describe.state(job)}"
    found = [f"{one_line(job.name, 60)}{whose}: {schedule_in_words(job.schedule)}, {job.timezone}{paused}"]
    found += _moment_lines(answer.moments, row, answer.now)
    if answer.note is not None:
        noted = [number for number, line in enumerate(found) if line.startswith("  ") and "does not exist" in line]
        if noted:  # the note on the moment says what is done about the change, that on the time which change it is
            found[noted[0]] += f" ({answer.note.rpartition(': ')[2]})"
        else:
            found.append(f"  {answer.note}")
    if answer.is_new:
        found.insert(1, f"It has had no moment yet: it was added at {describe.local_time(job.created_at, job.timezone)}.")
    is_ahead = job.enabled and row.next_run_at is not None and row.next_run_at > answer.now
    if is_ahead and not any(moment.at == row.next_run_at for moment in answer.moments):
        found.append(f"Next: {describe.local_time(job.next_run_at, job.timezone)}.")
    if not job.enabled and not isinstance(job.schedule, OneShot):
        why = f": {describe.first_line(job.last_error)}" if row.crashes > FREE_CRASHES and job.last_error else ""
        found.append(f"The job is paused{describe.pause(job)}{why}. `cronactors resume` lets it continue.")
    return found


def _moment_lines(moments: Iterable[Moment], row: JobRow | None, now: Millis) -> list[str]:
    found = []
    for moment in moments:
        found.append(_line(moment, row, now))
        if moment.note is not None:
            found.append(f"  {moment.note}")
    return found


def _line(moment: Moment, row: JobRow | None, now: Millis) -> str:
    return f"{local(moment.at, 'UTC' if row is None else row.timezone)} {sentence(moment, row, now)}."


def answer_as_json(answer: Answer | RemovedAnswer) -> dict[str, object]:
    """Convert an answer to values of JSON, times in UTC."""
    if isinstance(answer, RemovedAnswer):
        return {
            "job": None,
            "words": None,
            "removed": answer.job.as_json(),
            "now": iso_utc(answer.now),
            "note": None,
            "moments": [_moment_as_json(moment, None, answer.now) for moment in answer.moments],
        }
    return {
        "job": job_as_json(answer.job),
        "words": schedule_in_words(answer.job.schedule),
        "removed": None,
        "now": iso_utc(answer.now),
        "note": answer.note,
        "moments": [_moment_as_json(moment, answer.row, answer.now) for moment in answer.moments],
    }


def _moment_as_json(moment: Moment, row: JobRow | None, now: Millis) -> dict[str, object]:
    is_unknown = row is None and moment.fate.outcome is Fate.NO_MOMENT
    return {
        "at": iso_utc(moment.at),
        "outcome": None if is_unknown else str(moment.fate.outcome),
        "cause": None if moment.fate.cause is None else str(moment.fate.cause),
        "run": None if moment.run is None else run_as_json(run_view(moment.run)),
        "waits_for": [{"kind": reason.kind, "text": reason.text} for reason in moment.reasons],
        "note": moment.note,
        "text": _line(moment, row, now),
    }
