"""The commands on jobs and their options. The modules of a command are imported when it runs."""

from __future__ import annotations

import sys
from collections.abc import Callable
from datetime import timedelta
from typing import Any, TypeVar, cast

import click

from cronactors.cli.database import find_database
from cronactors.cli.options import Duration, database_options, decode, read_json, user_option
from cronactors.spec import JobChanges, JobOptions

_F = TypeVar("_F", bound=Callable[..., None])

_name = click.argument("name", callback=decode)
_yes = click.option("--yes", is_flag=True, help="Do not ask for a confirmation.")
_schedule = (
    click.option("--cron", metavar="EXPR", help="Run at the times of a cron expression, in quotes."),
    click.option("--every", type=Duration(), metavar="DURATION", help="Run at this distance, such as 90s, 5m, 2h or 1d."),
    click.option("--at", metavar="TIME", help='Run once, such as "2030-01-01 09:00" in the zone of the job.'),
    click.option("--in", "after", type=Duration(), metavar="DURATION", help="Run once, this long from now."),
)
_fields = (
    click.option("--timezone", metavar="ZONE", help="The zone in which its times are meant."),
    click.option("--retries", "max_retries", type=int, metavar="N", help="How often a failure is retried."),
    click.option("--timeout", type=Duration(), metavar="DURATION", help="How long a run may take."),
    click.option(
        "--overlap",
        type=click.Choice(["skip", "buffer_one", "buffer_all", "cancel_other", "allow_all"]),
        help="What happens to a moment during a run of the job.",
    ),
    click.option("--session", "session_mode", type=click.Choice(["isolated", "main"]), help="The session of its runs."),
    click.option("--description", metavar="TEXT", callback=decode, help="What it is for."),
    click.option(
        "--tag",
        "tags",
        multiple=True,
        metavar="TAG",
        callback=lambda ctx, param, value: tuple(decode(ctx, param, each) or "" for each in value),
        help="A word by which it is found; may be given several times.",
    ),
    click.option("--data", metavar="JSON", help="A JSON value for its runs."),
    click.option("--shell", metavar="PATH", help="The shell that carries out its command, for the executor shell."),
)


def _with(*options: Callable[[_F], _F]) -> Callable[[_F], _F]:
    def add(function: _F) -> _F:
        for option in reversed(options):
            function = option(function)
        return function

    return add


@click.command()
@_name
@click.argument("prompt", callback=decode)
@_with(*_schedule, *_fields)
@user_option
@database_options
def add(
    name: str,
    prompt: str,
    *,
    cron: str | None,
    every: timedelta | None,
    at: str | None,
    after: timedelta | None,
    user: str | None,
    db: str | None,
    config: str | None,
    as_json: bool,
    **fields: object,
) -> None:
    """Add a job.

    PROMPT is the text for the executor of the scheduler, such as a command for the shell; "-" reads it from standard input. A scheduler
    that has the database open runs it (`cronactors run`).
    """
    from cronactors.cli.jobs import add_job
    from cronactors.cli.schedule_options import need_schedule, read_schedule

    zone = fields["timezone"]
    schedule = need_schedule(read_schedule(cron, every, at, after, zone=zone if isinstance(zone, str) else "UTC"))
    text = sys.stdin.read() if prompt == "-" else prompt
    options = _changes(fields)
    spec = cast(JobOptions, {**options, "user_id": user or None})
    add_job(find_database(db, config), name, text, schedule, spec, as_json=as_json)


def _changes(fields: dict[str, Any]) -> JobChanges:
    """Return the fields that were given."""
    given = {name: value for name, value in fields.items() if value not in (None, ())}
    if "timeout" in given:
        given["timeout_secs"] = given.pop("timeout").total_seconds()
    if "shell" in given:
        given["executor_options"] = {"shell": given.pop("shell")}
    if "data" in given:
        given["data"] = read_json(str(given["data"]))
    if given.get("tags") == ("",):
        given["tags"] = ()
    return given  # type: ignore[return-value]  # the options have the names of the fields


@click.command()
@_name
@_with(*_schedule, *_fields)
@click.option("--prompt", metavar="TEXT", callback=decode, help="The text for the executor.")
@click.option("--rename", "new_name", metavar="NAME", callback=decode, help="Its new name.")
@click.option("--dry-run", is_flag=True, help="Only print which of its times would change.")
@user_option
@database_options
def update(
    name: str,
    *,
    cron: str | None,
    every: timedelta | None,
    at: str | None,
    after: timedelta | None,
    prompt: str | None,
    new_name: str | None,
    dry_run: bool,
    user: str | None,
    db: str | None,
    config: str | None,
    as_json: bool,
    **fields: object,
) -> None:
    """Change a job.

    Prints which of its times in the next year are gone and which are new. What is not given stays. A job that a file or a program
    lists is refused: edit it there.
    """
    from cronactors.cli.schedule_options import read_schedule
    from cronactors.cli.update import update_job

    changes = _changes({**fields, "prompt": prompt, "name": new_name, "schedule": read_schedule(cron, every, at, after)})
    if not changes:
        raise click.UsageError("what is to change? Give at least one option, such as --cron or --timeout")
    update_job(find_database(db, config), name, user, changes, dry_run=dry_run, as_json=as_json)


@click.command()
@_name
@user_option
@database_options
def show(name: str, *, user: str | None, db: str | None, config: str | None, as_json: bool) -> None:
    """Show one job.

    Its schedule in words, its next times with the effects of clock changes, its policies and its last runs.
    """
    from cronactors.cli.show import show_job

    show_job(find_database(db, config), name, user, as_json=as_json)


@click.command()
@click.argument("name", required=False, callback=decode)
@click.option("--all", "all_jobs", is_flag=True, help="All jobs that are not paused; with --user those of that user.")
@click.option(
    "--until",
    metavar="TIME",
    help='Resume by itself at this time, in the zone of the job: 2h, 09:00, "tomorrow 09:00", 2026-12-24T18:00.',
)
@click.option("--note", metavar="TEXT", default="", callback=decode, help="Why, for those who look later.")
@user_option
@database_options
def pause(
    name: str | None,
    *,
    all_jobs: bool,
    until: str | None,
    note: str,
    user: str | None,
    db: str | None,
    config: str | None,
    as_json: bool,
) -> None:
    """Pause a job, or all.

    It starts none of its moments, and none of those that pass meanwhile later. A running run continues.

    A job that is paused already is paused until the other time, with the other note.
    """
    from cronactors.cli import jobs

    _refuse_both(name, all_jobs=all_jobs)
    database = find_database(db, config)
    if name is not None:
        jobs.pause_job(database, name, user, until=until, note=note, as_json=as_json)
    elif jobs.change_all(database, user, resume=False, as_json=as_json, until=until, note=note):
        raise SystemExit(1)


@click.command()
@click.argument("name", required=False, callback=decode)
@click.option("--all", "all_jobs", is_flag=True, help="All jobs that are paused; with --user those of that user.")
@user_option
@database_options
def resume(name: str | None, *, all_jobs: bool, user: str | None, db: str | None, config: str | None, as_json: bool) -> None:
    """Resume a job, or all.

    It continues with its first moment from now on.
    """
    from cronactors.cli import jobs

    _refuse_both(name, all_jobs=all_jobs)
    database = find_database(db, config)
    if name is not None:
        jobs.resume_job(database, name, user, as_json=as_json)
    elif jobs.change_all(database, user, resume=True, as_json=as_json):
        raise SystemExit(1)


def _refuse_both(name: str | None, *, all_jobs: bool) -> None:
    if (name is None) is not all_jobs:
        raise click.UsageError("give NAME or --all")


@click.command("run-now")
@_name
@click.option("--wait", is_flag=True, help="Wait for its end. Exit status: 1 if it did not succeed.")
@click.option("--data", metavar="JSON", help="A JSON value for this run, instead of that of the job.")
@click.option("--key", metavar="KEY", help="A name for the request: a second one with the same name adds no run.")
@user_option
@database_options
def run_now(
    name: str,
    *,
    wait: bool,
    data: str | None,
    key: str | None,
    user: str | None,
    db: str | None,
    config: str | None,
    as_json: bool,
) -> None:
    """Run a job now.

    Also if it is paused. A scheduler that has the database open starts it.
    """
    from cronactors.cli import jobs

    status = jobs.run_now(find_database(db, config), name, user, wait=wait, data=data, key=key, as_json=as_json)
    if status:
        raise SystemExit(status)


@click.command()
@click.argument("run_id", metavar="RUN")
@database_options
def cancel(run_id: str, *, db: str | None, config: str | None, as_json: bool) -> None:
    """Cancel a run, by its id.

    A pending run does not start, a running one is cancelled by its scheduler.
    """
    from cronactors.cli.jobs import cancel_run

    cancel_run(find_database(db, config), run_id, as_json=as_json)


COMMANDS = (add, update, show, pause, resume, run_now, cancel)
