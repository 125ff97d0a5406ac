"""The verbs on jobs: ``add``, ``pause``, ``resume``, ``remove``, ``run-now`` and ``cancel``."""

from __future__ import annotations

import math
import shlex
import sys
from pathlib import Path

import click
import trio

from cronactors import open_store
from cronactors.actors.user_requests import ListOrigins
from cronactors.cli import describe
from cronactors.cli.amounts import count
from cronactors.cli.find import find_job
from cronactors.cli.listed_line import line_in_file
from cronactors.cli.listing import job_as_json, run_as_json
from cronactors.cli.living import count_living
from cronactors.cli.options import read_json
from cronactors.cli.stdout import print_json, print_line
from cronactors.cli.times import parse_coming_time
from cronactors.errors import InvalidJob, InvalidSchedule, JobNotFound, one_line, shorten
from cronactors.job_data import FROM_JOB, FromJob
from cronactors.json_value import Json
from cronactors.model import ALL, CronJob, CronRun, RunStatus
from cronactors.schedules.schedule import Schedule
from cronactors.schedules.words import schedule_in_words
from cronactors.schedules.zones import is_zone
from cronactors.spec import JobOptions
from cronactors.storage.postgres.address import is_postgres
from cronactors.store import CronStore
from cronactors.wallclock import now

_POLL_EVERY = 0.2  # seconds
_ALONE_EVERY = 5.0
"""How often (s) `run-now --wait` checks that a scheduler is running."""


def add_job(database: str, name: str, prompt: str, schedule: Schedule, options: JobOptions, *, as_json: bool) -> None:
    """Add a job, and print when it runs. A missing database is created.

    Raises:
        CronError: The job is refused, or the database cannot be used.
    """

    async def add() -> CronJob:
        async with open_store(database) as store:
            return await store.get_job(await store.add_job(name, prompt, schedule, **options))

    job = trio.run(add)
    if as_json:
        print_json(job_as_json(job))
    else:
        print_line(f"added {one_line(job.name, 60)}: {schedule_in_words(job.schedule)}; {describe.next_start(job, now())}")


def pause_job(database: str, name: str, user: str | None, *, until: str | None, note: str, as_json: bool) -> None:
    """Pause a job, or change until when and why it is paused.

    Args:
        database: The path or the address of the database.
        name: The job.
        user: Its user, see `find_job`.
        until: When it resumes by itself, text for `parse_coming_time`; None: when it is resumed.
        note: Why.
        as_json: Whether to print the job as JSON.

    Raises:
        CronError: There is no such job, the pause is refused, or the database cannot be used.
    """

    async def pause() -> tuple[CronJob, CronJob]:
        async with open_store(database, create=False) as store:
            job = await find_job(store, name, user)
            return job, await _pause(store, job, until, note)

    before, job = trio.run(pause)
    if as_json:
        print_json(job_as_json(job))
    elif job.pause is None or (before.pause is not None and before.pause == job.pause):
        print_line(f"{one_line(name, 60)} was {describe.state(job)} already{describe.pause(job)}")
    elif job.pause.until is not None:
        print_line(f"paused {one_line(name, 60)}{describe.pause(job)}: its moments before that are not run, also not later")
    else:
        then = f"`cronactors resume {shlex.quote(name)}` lets it continue"
        print_line(f"paused {one_line(name, 60)}: its moments are not run, also not later; {then}")


async def _pause(store: CronStore, job: CronJob, until: str | None, note: str) -> CronJob:
    """Pause a job until a time in its zone."""
    if until is None:
        return await store.pause_job(job.id, note=note)
    zone = job.timezone if is_zone(job.timezone) else "UTC"
    try:
        ends = parse_coming_time(until, zone=zone, now=now())
    except ValueError as problem:
        raise InvalidJob(f"--until: {problem}") from None
    return await store.pause_job(job.id, until=ends, note=note)


def resume_job(database: str, name: str, user: str | None, *, as_json: bool) -> None:
    """Resume a job.

    Raises:
        CronError: There is no such job, its moment has passed, or the database cannot be used.
    """

    async def resume() -> tuple[bool, CronJob]:
        async with open_store(database, create=False) as store:
            job = await find_job(store, name, user)
            return job.enabled, await store.resume_job(job.id)

    was_enabled, job = trio.run(resume)
    if as_json:
        print_json(job_as_json(job))
    else:
        before = f"{one_line(name, 60)} was not paused" if was_enabled else f"resumed {one_line(name, 60)}"
        print_line(f"{before}: {describe.next_start(job, now())}")


def change_all(database: str, user: str | None, *, resume: bool, as_json: bool, until: str | None = None, note: str = "") -> int:
    """Pause all jobs of a user or of all users that are not paused, or resume those that are, one after the other.

    Returns:
        The exit status: 1 if some could not be paused or resumed; each is named on standard error.

    Raises:
        CronError: The database cannot be used.
    """
    wanted = ("paused",) if resume else ("enabled", "retrying")
    problems: list[str] = []

    async def change() -> list[CronJob]:
        changed = []
        async with open_store(database, create=False) as store:
            for job in await store.list_jobs(user_id=ALL if user is None else user or None):
                if describe.state(job) not in wanted:
                    continue
                try:
                    changed.append(await (store.resume_job(job.id) if resume else _pause(store, job, until, note)))
                except JobNotFound:
                    pass  # it was removed meanwhile
                except (InvalidJob, InvalidSchedule) as problem:
                    problems.append(str(problem))
        return changed

    jobs = trio.run(change)
    for problem in problems:
        click.echo(f"cronactors: {problem}", err=True)
    if as_json:
        print_json([job_as_json(job) for job in jobs])
    else:
        print_line(f"{'resumed' if resume else 'paused'} {count(len(jobs), 'job')}")
    return int(bool(problems))


def remove_job(database: str, name: str, user: str | None, *, yes: bool) -> None:
    """Remove a job, after a confirmation on the terminal unless ``yes``.

    Raises:
        click.UsageError: There is no terminal to confirm on.
        click.Abort: The user did not confirm.
        CronError: There is no such job, a list names it, or the database cannot be used.
    """

    async def find() -> CronJob:
        async with open_store(database, create=False) as store:
            job = await find_job(store, name, user)
            await refuse_listed(store, job, "removed")
            return job

    async def remove(job: CronJob) -> None:
        async with open_store(database, create=False) as store:
            await store.remove_job(job.id)

    job = trio.run(find)
    if not yes and not sys.stdin.isatty():
        raise click.UsageError("there is no terminal to confirm on: give --yes")
    if not yes:
        click.confirm(f"Remove {one_line(job.name, 60)} ({schedule_in_words(job.schedule)})?", abort=True)
    trio.run(remove, job)
    print_line(f"removed {one_line(job.name, 60)}; its history stays")


def run_now(database: str, name: str, user: str | None, *, wait: bool, data: str | None, key: str | None, as_json: bool) -> int:
    """Request a run, and print its id; with ``wait`` its outcome.

    Returns:
        The exit status: 1 if the run was waited for and did not succeed.

    Raises:
        CronError: There is no such job, it is busy, the data is no JSON, or the database cannot be used.
    """
    value: Json | FromJob = FROM_JOB if data is None else read_json(data)

    async def request() -> CronRun:
        async with open_store(database, create=False) as store:
            job = await find_job(store, name, user)
            run = await store.get_run(await store.request_run(job.id, data=value, key=key))
            if not as_json:
                print_line(await _requested(store, run))
            alone = _AloneNotice(store)
            while wait and not run.status.ended:
                await trio.sleep(_POLL_EVERY)
                await alone.check()
                run = await store.get_run(run.id)
                if run.status.ended and (retry := await _retry_of(store, run)) is not None:
                    if not as_json:
                        print_line(f"run {run.id}: {_outcome(run)}; run {retry.id} is its retry")
                    run = retry
            return run

    run = trio.run(request)
    if as_json:
        print_json(run_as_json(run))
    elif wait:
        print_line(f"run {run.id}: {_outcome(run)}")
    return int(wait and run.status is not RunStatus.SUCCESS)


class _AloneNotice:
    """Says once, on standard error, that no scheduler is running any more: a run that is waited for cannot finish then."""

    def __init__(self, store: CronStore) -> None:
        self._store = store
        self._check_at = trio.current_time() + _ALONE_EVERY

    async def check(self) -> None:
        """Look for a living scheduler now and then, until none is found."""
        if trio.current_time() < self._check_at:
            return
        self._check_at += _ALONE_EVERY
        if not await count_living(self._store):
            click.echo("cronactors: no scheduler is running now: the run waits for one, and so does this command", err=True)
            self._check_at = math.inf


async def _requested(store: CronStore, run: CronRun) -> str:
    """Describe the state of a run that was requested, now or before with the same key."""
    known = f"run {run.id} of {one_line(run.job_name, 60)}"
    if run.status is not RunStatus.PENDING:
        return f"{known} was requested before: {_outcome(run) if run.status.ended else run.status}"
    if await count_living(store):
        return f"{known} is requested"
    return f"{known} is requested, but no scheduler is running: it starts when one does, unless `cronactors cancel {run.id}`"


async def _retry_of(store: CronStore, run: CronRun) -> CronRun | None:
    """Return the next attempt of the moment of a run, if there is one."""
    later = await store.list_runs(run.job_id, 100)
    return next((each for each in later if each.scheduled_at == run.scheduled_at and each.attempt == run.attempt + 1), None)


def _outcome(run: CronRun) -> str:
    cause = "" if run.cause is None or run.cause.value == run.status.value else f"/{run.cause}"
    took = f" after {describe.duration(run)}" if run.started_at is not None else ""
    return f"{run.status}{cause}{took}  {describe.result(run)}".rstrip()


def cancel_run(database: str, run_id: str, *, as_json: bool) -> None:
    """Cancel a run, and print how it ends.

    Raises:
        CronError: There is no such run, it has ended, or the database cannot be used.
    """

    async def cancel() -> CronRun:
        async with open_store(database, create=False) as store:
            return await store.request_cancel(run_id)

    run = trio.run(cancel)
    if as_json:
        print_json(run_as_json(run))
    elif run.status is RunStatus.RUNNING:
        print_line(f"run {run.id} of {one_line(run.job_name, 60)} is running: its scheduler cancels it")
    else:
        print_line(f"run {run.id} of {one_line(run.job_name, 60)} is cancelled, and did not start")


async def refuse_listed(store: CronStore, job: CronJob, done: str) -> None:
    """Refuse to change a job that a list names, since the next start of the list would undo that.

    Raises:
        InvalidJob: A list names it; the message says which file to edit, and which line if it is certain.
    """
    if job.origin is None:
        return
    folder = None if is_postgres(store.path) else str(Path(store.path).parent)
    rows = await store._service.mailbox.call(ListOrigins(folder))
    file, is_gone = next(((row.file, gone) for row, gone in rows if row.name == job.origin), (None, False))
    line = None
    if file is not None and folder is not None:
        file = str(Path(folder) / file)
        if is_gone:
            remedy = f"its file {one_line(file)} is gone: `cronactors remove --origin {shlex.quote(job.origin)}` removes its jobs"
            raise InvalidJob(f"job {shorten(job.name)} is listed, so it cannot be {done} here: {remedy}")
        line = line_in_file(Path(file), job.name, job.user_id)
    place = "" if line is None else f", line {line}"
    where = (
        f"edit {one_line(file)}{place}"
        if file is not None
        else f"edit the list {one_line(job.origin)} in the program that has it"
    )
    raise InvalidJob(
        f"job {shorten(job.name)} is listed, so it cannot be {done} here, since the next start would undo that: {where}"
    )
