"""The verb ``show``: one job, in words."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

import trio

from cronactors import open_store
from cronactors.cli import describe
from cronactors.cli.listing import job_as_json, print_runs, run_as_json
from cronactors.cli.removed import RemovedJob, find_job_or_removed
from cronactors.cli.stdout import print_json, print_line
from cronactors.errors import one_line
from cronactors.instants import iso_utc, to_millis
from cronactors.model import CronJob, CronRun, Overlap, RunStatus, SessionMode
from cronactors.schedules.preview import Preview, preview
from cronactors.schedules.schedule import Cron, Interval
from cronactors.schedules.words import schedule_in_words

_RUNS = 5
_JUST_BEFORE = timedelta(milliseconds=1)
_MOMENTS = 5
_OVERLAPS = {
    Overlap.SKIP: "a moment during a run is skipped",
    Overlap.BUFFER_ONE: "the newest moment during a run runs after it",
    Overlap.BUFFER_ALL: "moments during a run run after it, one by one",
    Overlap.CANCEL_OTHER: "a moment during a run cancels that run and takes its place",
    Overlap.ALLOW_ALL: "runs may overlap",
}


def show_job(database: str, name: str, user: str | None, *, as_json: bool) -> None:
    """Print a job: its schedule in words, its next moments, its policies, and its last runs; of one that was removed when, and these runs.

    Raises:
        CronError: There is no such job, and no run of one; or the database cannot be read.
    """

    async def read() -> tuple[CronJob | RemovedJob, list[CronRun]]:
        async with open_store(database, create=False) as store:
            job = await find_job_or_removed(store, name, user)
            return job, await store.list_runs(job.id, _RUNS)

    job, runs = trio.run(read)
    if isinstance(job, RemovedJob):
        _print_removed(job, runs, as_json=as_json)
        return
    moments = _next_moments(job)
    if as_json:
        next_moments = [{"at": iso_utc(to_millis(each.at)), "note": each.note} for each in moments]
        print_json({"job": job_as_json(job), "next": next_moments, "runs": [run_as_json(run) for run in runs]})
        return
    for label, text in _facts(job, runs, moments):
        print_line(f"{label:<12}{text}")
    print_line()
    print_runs(job.name, job.timezone, runs)


def _print_removed(job: RemovedJob, runs: Sequence[CronRun], *, as_json: bool) -> None:
    if as_json:
        print_json({"job": None, "removed": job.as_json(), "next": [], "runs": [run_as_json(run) for run in runs]})
        return
    print_line(job.sentences())
    print_line()
    print_runs(job.name, "UTC", runs)


def _next_moments(job: CronJob) -> list[Preview]:
    """Return the next moments; an interval counts from its next one."""
    if job.next_run_at is None:
        return []
    before = job.next_run_at - _JUST_BEFORE
    anchor = None
    if isinstance(job.schedule, Interval):
        anchor = job.next_run_at - timedelta(milliseconds=job.schedule.every_ms)
    return preview(job.schedule, after=before, timezone=job.timezone, anchor=anchor, count=_MOMENTS)


def _facts(job: CronJob, runs: Sequence[CronRun], moments: Sequence[Preview]) -> list[tuple[str, str]]:
    facts = [
        ("name", one_line(job.name, 200)),
        ("user", one_line(job.user_id, 60) if job.user_id is not None else ""),
        ("about", describe.first_line(job.description)),
        ("schedule", schedule_in_words(job.schedule) + (f"  ({job.schedule.expr})" if isinstance(job.schedule, Cron) else "")),
        ("zone", job.timezone),
        ("state", _state(job, runs)),
        ("next", _moment(moments[0]) if moments else _next_start(job)),
        *(("", _moment(each)) for each in moments[1:]),
        ("overlap", _OVERLAPS[job.overlap]),
        ("retries", _retries(job)),
        ("timeout", f"{job.timeout_secs:,g} s"),
        ("session", "the main session of its user" if job.session_mode is SessionMode.MAIN else ""),
        ("tags", ", ".join(job.tags)),
        ("listed in", one_line(job.origin, 100) if job.origin is not None else ""),
        ("prompt", _prompt(job.prompt)),
        ("last error", describe.first_line(job.last_error)),
    ]
    return [(label, text) for label, text in facts if text]


def _prompt(prompt: str) -> str:
    first, lines = describe.first_line(prompt), len(prompt.strip().splitlines())
    return first if lines <= 1 else f"{first} … ({lines:,} lines, all with --json)"


def _next_start(job: CronJob) -> str:
    """Describe when the job starts next if that is no moment of its schedule, such as a retry."""
    at = describe.next_time(job)
    return "-" if at is None else describe.local_time(at, job.timezone)


def _moment(each: Preview) -> str:
    return f"{each.local:%a %Y-%m-%d %H:%M:%S %Z}{f'  {each.note}' if each.note else ''}"


def _state(job: CronJob, runs: Sequence[CronRun]) -> str:
    state = f"{describe.state(job)}{describe.pause(job)}"
    if job.pause is not None:
        state += f", since {describe.local_time(job.pause.since, job.timezone)}"
    running = [run for run in runs if run.status is RunStatus.RUNNING]
    if running:
        return f"{state}; run {running[0].id} is running since {describe.local_time(running[0].started_at, job.timezone)}"
    if any(run.status is RunStatus.PENDING for run in runs):
        waiting = next(run for run in runs if run.status is RunStatus.PENDING)
        return f"{state}; run {waiting.id} has not started yet"
    return state


def _retries(job: CronJob) -> str:
    if job.retry_at is not None:
        retry = f", the next at {describe.local_time(job.retry_at, job.timezone)}"
        return f"{job.retry_count} of {job.max_retries} used{retry}"
    return f"{job.max_retries:,} after a failure"
