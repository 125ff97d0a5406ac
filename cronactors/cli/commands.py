"""The verbs and their options. The modules of a command are imported when it runs."""

from __future__ import annotations

from pathlib import Path

import click

from cronactors import __version__
from cronactors.cli import file_commands, history_commands, job_commands, why_commands
from cronactors.cli.database import DEFAULT_FILE, find_database
from cronactors.cli.options import SECONDS, config_option, database_options, db_option, decode, json_option, user_option


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, message="%(prog)s %(version)s")
def cronactors() -> None:
    """Run scheduled jobs that are stored in one SQLite file, or on a PostgreSQL server.

    A database is a FILE or a URL such as postgresql://HOST/DATABASE, without a password.
    """


@cronactors.command()
@click.argument("file", required=False)
@click.option(
    "--db",
    metavar="FILE|URL",
    help="The database. Default: the one that FILE names, CRONACTORS_DB, or agent.db in the folder of FILE.",
)
@click.option("--executor", metavar="NAME", help='"shell" or "package.module:function". Default: the one that FILE names.')
@click.option("--for", "seconds", type=SECONDS, metavar="SECONDS", help="Stop after this many seconds.")
@click.option(
    "--shutdown-grace",
    "grace",
    type=SECONDS,
    metavar="SECONDS",
    help="How long runs may continue after a signal. Default: shutdown_grace of FILE, or 5.",
)
@click.option("--adopt", metavar="ORIGIN", help="First take over the jobs of another list, such as a file that was renamed.")
@click.option("--watch", is_flag=True, help="Read FILE again when it has changed, as SIGHUP does.")
@click.option(
    "--log-format",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    help="json: a JSON object on each line, for all output.",
)
def run(
    file: str | None,
    *,
    db: str | None,
    executor: str | None,
    seconds: float | None,
    grace: float | None,
    adopt: str | None,
    watch: bool,
    log_format: str,
) -> None:
    """Run the jobs of FILE (default: agent.toml).

    \b
      [cron]
      executor = "shell"
      [[cron.jobs]]
      name = "disk"
      prompt = "df -h . | tail -n 1"
      cron = "*/5 * * * *"

    `import-crontab` and `export` print such a FILE. Jobs that were added with `cronactors add` need none, but
    `cronactors run --db agent.db --executor shell`.

    Ctrl-C or SIGTERM stops it in order, a second one at once. SIGHUP reads FILE again; a FILE with a mistake changes nothing.
    """  # noqa: D301 - click wants the character itself
    from cronactors.cli.reload import Source
    from cronactors.cli.run import RunOptions, run_file

    if file is None and db is not None and executor is None and not Path(DEFAULT_FILE).exists():
        raise click.UsageError(f"there is no {DEFAULT_FILE} here: give FILE, or --executor shell for jobs of `cronactors add`")
    source = Source(
        file=Path(file or DEFAULT_FILE),
        needed=file is not None or db is None or executor is None,
        db=db,
        executor=executor,
        shutdown_grace=grace,
    )
    status = run_file(source, RunOptions(seconds=seconds, adopt=adopt, watch=watch, as_json=log_format == "json"))
    if status:
        raise SystemExit(status)


@cronactors.command("list")
@database_options
def list_jobs(db: str | None, config: str | None, *, as_json: bool) -> None:
    """List the jobs and when each starts next."""
    from cronactors.cli import listing

    listing.list_jobs(find_database(db, config), as_json=as_json)


@cronactors.command()
@click.argument("name", required=False, callback=decode)
@click.option("--origin", metavar="ORIGIN", help="Remove the jobs of this list, by the name that cronactors run prints.")
@click.option("--yes", is_flag=True, help="Remove without confirmation.")
@user_option
@db_option
@config_option
def remove(name: str | None, *, origin: str | None, yes: bool, user: str | None, db: str | None, config: str | None) -> None:
    """Remove a job, or a list of jobs.

    A list is that of a file, such as one that is gone. A job that a list names is refused: remove it there. The history stays.
    """
    if (name is None) is (origin is None):
        raise click.UsageError("give NAME or --origin")
    if origin is not None and user is not None:
        raise click.UsageError("--user is for NAME: a list is removed with the jobs of all users")
    database = find_database(db, config)
    if name is not None:
        from cronactors.cli.jobs import remove_job

        remove_job(database, name, user, yes=yes)
    elif origin is not None:
        from cronactors.cli.remove import remove_list

        remove_list(database, origin, yes=yes)


@cronactors.command()
@click.argument("file", required=False)
@config_option
def compact(file: str | None, *, config: str | None) -> None:
    """Make the database FILE as small as its content.

    No other process may have it open. Default: the database that --config names, CRONACTORS_DB, or the one that ./agent.toml names.
    A database on a server is refused, since it uses free space again by itself.
    """
    from cronactors.cli.compact import compact_file

    compact_file(find_database(file, config, option="FILE"))


@cronactors.command()
@click.argument("source", metavar="SOURCE")
@click.argument("target", metavar="[TARGET]", required=False)
@click.option("--user", metavar="ID", callback=decode, help='Move the jobs of this user only, "" for the agent\'s own.')
@click.option("--unmark", is_flag=True, help="Let a file that was moved be used again. It takes no TARGET.")
@config_option
def copy(source: str, target: str | None, *, user: str | None, unmark: bool, config: str | None) -> None:
    """Move a file to a PostgreSQL server.

    All jobs of SOURCE, with their history. TARGET is a URL without a password. Default: the database that --config names,
    CRONACTORS_DB, or the one that ./agent.toml names. No scheduler may be running on SOURCE, and TARGET must have no jobs, or with --user
    none of that user.

    SOURCE is marked, so that no scheduler runs its jobs a second time: opening it is an error that names the server. With --user the jobs
    are deleted from SOURCE instead.
    """
    from cronactors.cli.copy import copy_file, unmark_file

    if not unmark:
        copy_file(source, find_database(target, config, option="TARGET"), user_id=user)
    elif target is not None or user is not None or config is not None:
        raise click.UsageError("--unmark takes a file and nothing else")
    else:
        unmark_file(source)


@cronactors.command("next")
@click.argument("expr")
@click.option("--timezone", "zone", metavar="ZONE", default="UTC", show_default=True, help="The time zone of EXPR.")
@click.option("-n", "count", type=click.IntRange(1, 1000), default=5, show_default=True, help="How many moments.")
@click.option(
    "--after",
    metavar="TIME",
    help="Print moments after this date or time, which is in the zone of EXPR unless it has an offset. Default: now.",
)
@json_option
def next_moments(expr: str, *, zone: str, count: int, after: str | None, as_json: bool) -> None:
    """Print the next moments of EXPR.

    EXPR is a cron expression in quotes. A note says how a clock change affects a moment.
    """
    from cronactors.cli.schedules import show_next

    show_next(expr, zone=zone, count=count, after=after, as_json=as_json)


@cronactors.command()
@click.argument("source", metavar="EXPR|FILE")
@click.option("--timezone", "zone", metavar="ZONE", help="The time zone of EXPR.  [default: UTC]")
@json_option
def lint(source: str, *, zone: str | None, as_json: bool) -> None:
    """Find likely mistakes in an expression or a file.

    EXPR is a cron expression in quotes, FILE an agent.toml.

    Exit status: 0 no findings; 1 findings, or EXPR or FILE is refused; 2 wrong usage.
    """
    from cronactors.cli.schedules import show_findings

    if show_findings(source, zone=zone, as_json=as_json):
        raise SystemExit(1)


for _command in (*job_commands.COMMANDS, *history_commands.COMMANDS, *why_commands.COMMANDS, *file_commands.COMMANDS):
    cronactors.add_command(_command)
