"""The commands on the history: ``runs``, ``show-run``, ``watch``, ``stats`` and ``notifications``. The modules of a command are imported when it runs."""

from __future__ import annotations

import math
from datetime import UTC, datetime

import click

from cronactors.cli.database import find_database
from cronactors.cli.options import SECONDS, Seconds, database_options, decode


class _Time(click.ParamType[str]):
    """A time for `parse_time`. It stays text: the zone of the job is known only once the job has been read."""

    name = "time"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Check an argument, or fail with a usage error."""
        from cronactors.cli.times import parse_time

        try:
            parse_time(str(value), zone="UTC", now=datetime.now(UTC))
        except ValueError as problem:
            self.fail(str(problem), param, ctx)
        return str(value)


_TIMES = "2026-03-28, 2026-03-28T14:30, 2h, 3d, yesterday"
_STATUSES = ("pending", "running", "success", "failed", "cancelled", "skipped")
_CAUSES = ("error", "timeout", "interrupted", "cancelled", "replaced", "removed", "overlap", "misfire", "gave_up")
_TRIGGERS = ("schedule", "retry", "manual", "recovery")
_DELIVERIES = ("pending", "delivered", "given_up")

_name = click.argument("name", required=False, callback=decode)
_user = click.option(
    "--user",
    metavar="ID",
    callback=decode,
    help='Of this user; "" is the agent itself. Default: whoever has the job, or all users without NAME.',
)
_tag = click.option("--tag", metavar="TAG", callback=decode, help="Only of jobs that have this tag now.")
_since = click.option("--since", type=_Time(), metavar="TIME", help=f"Only runs that started then or later: {_TIMES}.")
_until = click.option("--until", type=_Time(), metavar="TIME", help="Only runs that started before then.")


@click.command()
@_name
@_user
@click.option("--status", type=click.Choice(_STATUSES), help="Only runs with this status.")
@click.option("--cause", type=click.Choice(_CAUSES), help="Only runs with this cause.")
@click.option("--trigger", type=click.Choice(_TRIGGERS), help="Only runs with this trigger.")
@_tag
@_since
@_until
@click.option("--limit", type=click.IntRange(1, 1000), default=10, show_default=True, help="How many runs, newest first.")
@click.option("--follow", is_flag=True, help="Then print a line when a run starts or finishes, until Ctrl-C.")
@database_options
def runs(
    name: str | None,
    *,
    user: str | None,
    status: str | None,
    cause: str | None,
    trigger: str | None,
    tag: str | None,
    since: str | None,
    until: str | None,
    limit: int,
    follow: bool,
    db: str | None,
    config: str | None,
    as_json: bool,
) -> None:
    """List the last runs of the job NAME, or of all jobs.

    A TIME without an offset is in the zone of the job, without NAME in UTC.
    """
    if follow and until is not None:
        raise click.UsageError("--follow prints what comes, so it takes no --until")
    database = find_database(db, config)

    from cronactors.cli.run_query import RunQuery
    from cronactors.model import Cause, RunStatus, Trigger

    query = RunQuery(
        name=name,
        user=user,
        status=None if status is None else RunStatus(status),
        cause=None if cause is None else Cause(cause),
        trigger=None if trigger is None else Trigger(trigger),
        tag=tag,
        since=since,
        until=until,
        limit=limit,
    )
    if follow:
        from cronactors.cli.watch import WatchOptions, watch_store

        if code := watch_store(database, query, WatchOptions(as_json=as_json, follow=True)):
            raise SystemExit(code)
    else:
        from cronactors.cli.listing import list_history

        list_history(database, query, as_json=as_json)


@click.command("show-run")
@click.argument("run_id", metavar="ID", callback=decode)
@click.option("--data", "with_data", is_flag=True, help="Print the data of its result, which may hold a secret.")
@click.option("--output", "whole_output", is_flag=True, help="Print all of its output that is stored, not the last 20 lines.")
@database_options
def show_run(run_id: str, *, with_data: bool, whole_output: bool, db: str | None, config: str | None, as_json: bool) -> None:
    """Show the run ID: its times, its outcome, its other attempts, its error, result, output and notifications."""
    database = find_database(db, config)

    from cronactors.cli import show_run as verb

    verb.show_run(database, run_id, with_data=with_data, whole_output=whole_output, as_json=as_json)


@click.command()
@_name
@_user
@_tag
@click.option(
    "--interval",
    type=Seconds(least=0.1, most=86_400),
    metavar="SECONDS",
    default=1,
    show_default=True,
    help="How often to read the store.",
)
@click.option("--for", "seconds", type=SECONDS, metavar="SECONDS", help="Stop after this many seconds.")
@database_options
def watch(
    name: str | None,
    *,
    user: str | None,
    tag: str | None,
    interval: float,
    seconds: float | None,
    db: str | None,
    config: str | None,
    as_json: bool,
) -> None:
    """Show the running, the next and the last runs of the job NAME, or of all jobs, until q or Ctrl-C.

    On a terminal it is a live view, which needs the extra cli. Elsewhere, and with --json, it prints a line for each event: a run
    started, reported progress, finished or is to be retried.
    """
    database = find_database(db, config)

    from cronactors.cli.run_query import RunQuery
    from cronactors.cli.watch import WatchOptions, watch_store

    options = WatchOptions(as_json=as_json, interval=interval, seconds=math.inf if seconds is None else seconds)
    if status := watch_store(database, RunQuery(name=name, user=user, tag=tag, limit=200), options):
        raise SystemExit(status)


@click.command()
@_name
@_user
@_tag
@_since
@_until
@database_options
def stats(
    name: str | None,
    *,
    user: str | None,
    tag: str | None,
    since: str | None,
    until: str | None,
    db: str | None,
    config: str | None,
    as_json: bool,
) -> None:
    """Count the runs of the job NAME, or of all jobs, by outcome; and show how long they took and how late they started.

    The figures are about the newest 10,000 runs that match.
    """
    database = find_database(db, config)

    from cronactors.cli.run_query import RunQuery
    from cronactors.cli.stats import show_stats

    show_stats(database, RunQuery(name=name, user=user, tag=tag, since=since, until=until), as_json=as_json)


@click.command()
@click.option("--status", type=click.Choice(_DELIVERIES), help="Only notifications with this status.")
@click.option("--receiver", metavar="NAME", callback=decode, help="Only those of notifier, on_finish or on_alert.")
@click.option("--limit", type=click.IntRange(1, 1000), metavar="N", help="How many, newest first.  [default: 10]")
@click.option("--retry", metavar="KEY", callback=decode, help="Deliver those of this event again that were given up: run:ID.")
@database_options
def notifications(
    *,
    status: str | None,
    receiver: str | None,
    limit: int | None,
    retry: str | None,
    db: str | None,
    config: str | None,
    as_json: bool,
) -> None:
    """List notifications and whether they were delivered, or retry those that were given up."""
    if retry is not None and (status is not None or limit is not None):
        raise click.UsageError("--retry takes --receiver, and neither --status nor --limit")
    database = find_database(db, config)

    from cronactors.cli.notifications import list_notifications, retry_notifications
    from cronactors.notifications import NotificationStatus

    if retry is not None:
        retry_notifications(database, retry, receiver=receiver, as_json=as_json)
    else:
        wanted = None if status is None else NotificationStatus(status)
        list_notifications(database, status=wanted, receiver=receiver, limit=limit or 10, as_json=as_json)


COMMANDS = (runs, show_run, watch, stats, notifications)
"""The commands that are added to the group."""
