"""The verbs on jobs: ``add``, ``pause``, ``resume``, ``remove``, ``run-now`` and ``cancel``."""

from __future__ import annotations

import json
import sys

import click
import trio

from cronactors import open_store
from cronactors.actors.user_requests import ListOrigins
from cronactors.cli import describe
from cronactors.cli.find import find_job
from cronactors.cli.listing import job_as_json, run_as_json
from cronactors.cli.stdout import print_json, print_line
from cronactors.errors import InvalidJob, one_line, shorten
from cronactors.job_data import FROM_JOB, FromJob
from cronactors.json_value import Json
from cronactors.model import ALL, CronJob, CronRun, RunStatus
from cronactors.schedules.schedule import Schedule
from cronactors.schedules.words import schedule_in_words
from cronactors.spec import JobOptions
from cronactors.store import CronStore
from cronactors.wallclock import now

_ENDED = (RunStatus.SUCCESS, RunStatus.FAILED, RunStatus.CANCELLED, RunStatus.SKIPPED)
_POLL_EVERY = 0.2  # seconds


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


def pause_jobs(database: str, name: str | None, user: str | None, *, resume: bool, as_json: bool) -> None:
    """Pause a job or resume it; without a name all jobs of the user, or of all users.

    Raises:
        CronError: There is no such job, it cannot be resumed, or the database cannot be used.
    """

    async def change() -> list[CronJob]:
        async with open_store(database, create=False) as store:
            if name is not None:
                jobs = [await find_job(store, name, user)]
            else:
                jobs = await store.list_jobs(user_id=ALL if user is None else user or None)
                jobs = [job for job in jobs if describe.state(job) in (("paused",) if resume else ("enabled", "retrying"))]
            verb = store.resume_job if resume else store.pause_job
            return [await verb(job.id) for job in jobs]

    jobs = trio.run(change)
    if as_json:
        print_json([job_as_json(job) for job in jobs] if name is None else job_as_json(jobs[0]))
    elif name is None:
        print_line(f"{'resumed' if resume else 'paused'} {len(jobs):,} {'job' if len(jobs) == 1 else 'jobs'}")
    elif resume:
        print_line(f"resumed {one_line(name, 60)}: {describe.next_start(jobs[0], now())}")
    else:
        print_line(f"paused {one_line(name, 60)}: nothing starts until `cronactors resume`, and moments that pass are not run")


def remove_job(database: str, name: str, user: str | None, *, yes: bool) -> None:
    """Remove a job, after a confirmation on the terminal unless ``yes``.

    Raises:
        click.UsageError: There is no terminal to confirm on.
        click.Abort: The user did not confirm.
        CronError: There is no such job, a list names it, or the database cannot be used.
    """
    if not yes and not sys.stdin.isatty():
        raise click.UsageError("there is no terminal to confirm on: give --yes")

    async def find() -> CronJob:
        async with open_store(database, create=False) as store:
            job = await find_job(store, name, user)
            await refuse_listed(store, job, "removed")
            return job

    async def remove(job: CronJob) -> None:
        async with open_store(database, create=False) as store:
            await store.remove_job(job.id)

    job = trio.run(find)
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
    value: Json | FromJob = FROM_JOB if data is None else _read_json(data)

    async def request() -> CronRun:
        async with open_store(database, create=False) as store:
            job = await find_job(store, name, user)
            run_id = await store.request_run(job.id, data=value, key=key)
            run = await store.get_run(run_id)
            if not as_json:
                print_line(f"run {run_id} of {one_line(name, 60)} is requested: a scheduler of the database starts it")
            while wait and run.status not in _ENDED:
                await trio.sleep(_POLL_EVERY)
                run = await store.get_run(run_id)
            return run

    run = trio.run(request)
    if as_json:
        print_json(run_as_json(run))
    elif wait:
        print_line(f"run {run.id}: {_outcome(run)}")
    return int(wait and run.status is not RunStatus.SUCCESS)


def _outcome(run: CronRun) -> str:
    cause = "" if run.cause is None else f"/{run.cause}"
    return f"{run.status}{cause} after {describe.duration(run)}  {describe.result(run)}".rstrip()


def _read_json(text: str) -> Json:
    try:
        value: Json = json.loads(text)
    except ValueError as problem:
        raise InvalidJob(f"data must be JSON ({problem})") from None
    return value


def cancel_run(database: str, run_id: str, *, as_json: bool) -> None:
    """Cancel a run, and print what becomes of it.

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
        print_line(f"run {run.id} of {one_line(run.job_name, 60)} is running: its scheduler cancels it within a second")
    else:
        print_line(f"run {run.id} of {one_line(run.job_name, 60)} is cancelled, and did not start")


async def refuse_listed(store: CronStore, job: CronJob, done: str) -> None:
    """Refuse to change a job that a list names, since the next start of the list would undo that.

    Raises:
        InvalidJob: A list names it; the message says which file to edit.
    """
    if job.origin is None:
        return
    rows = await store._service.mailbox.call(ListOrigins(None))
    file = next((row.file for row, _ in rows if row.name == job.origin), None)
    where = f"edit {one_line(file)}" if file is not None else f"edit the list {one_line(job.origin)} in the program that has it"
    raise InvalidJob(
        f"job {shorten(job.name)} is listed, so it cannot be {done} here, since the next start would undo that: {where}"
    )
