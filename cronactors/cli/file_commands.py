"""The commands on whole files: ``import-crontab``, ``export``, ``backup`` and ``prune``. The modules of a command are imported when it runs."""

from __future__ import annotations

from datetime import timedelta

import click

from cronactors.cli.database import config_of, find_database
from cronactors.cli.options import Duration, config_option, database_options, db_option, decode


@click.command("import-crontab")
@click.argument("file", metavar="[FILE|-]", required=False)
@click.option("--system", is_flag=True, help="Each line names a user before the command, as in /etc/crontab and /etc/cron.d.")
@click.option(
    "--run-as", metavar="NAME", help="With --system: the user whose lines are translated. Default: the user of this process."
)
@click.option("--timezone", "zone", metavar="ZONE", help="The zone in which cron reads its times. Default: that of this machine.")
def import_crontab(file: str | None, *, system: bool, run_as: str | None, zone: str | None) -> None:
    """Print the crontab FILE as an agent.toml.

    Without FILE, or with -, standard input is read: crontab -l | cronactors import-crontab > agent.toml

    Lines that cannot be translated stay as comments with the reason.
    """
    from cronactors.cli.import_crontab import import_crontab as import_file

    import_file(file, system=system, run_as=run_as, zone=zone)


@click.command()
@click.option("--format", "output", type=click.Choice(["toml", "json"]), default="toml", show_default=True, help="What to print.")
@click.option(
    "--user", metavar="ID", callback=decode, help='Only the jobs of this user, "" for the agent\'s own. Default: all jobs.'
)
@click.option(
    "--executor",
    metavar="NAME",
    callback=decode,
    help="The executor that the file names. Default: the one in the agent.toml that names the database; or shell if a job has the option "
    "shell.",
)
@db_option
@config_option
def export(*, output: str, user: str | None, executor: str | None, db: str | None, config: str | None) -> None:
    """Print the jobs of a database as an agent.toml.

    A paused job has `enabled = false`.

    Exit status: 0 all jobs are printed; 1 some are left out, each with a line on standard error, or an error.
    """
    from cronactors.cli.export import export_jobs

    if not executor and (loaded := config_of(db, config)) is not None:
        executor = loaded.executor
    if export_jobs(find_database(db, config), as_json=output == "json", user_id=user, executor=executor):
        raise SystemExit(1)


@click.command()
@click.argument("file", metavar="FILE")
@database_options
def backup(file: str, *, db: str | None, config: str | None, as_json: bool) -> None:
    """Copy a database to the new file FILE, also while a scheduler has it open.

    The copy is checked. An existing FILE is never overwritten. A database on a server is refused: use pg_dump.
    """
    from cronactors.cli.backup import back_up_file

    back_up_file(find_database(db, config), file, as_json=as_json)


@click.command()
@click.option("--older-than", type=Duration(), metavar="TIME", help="Delete runs that finished so long ago, such as 90d.")
@click.option("--keep-last", type=click.IntRange(min=0), metavar="NUMBER", help="How many runs of each job stay, however old.")
@click.option("--dry-run", is_flag=True, help="Only count the runs that would be deleted.")
@click.option("--yes", is_flag=True, help="Do not ask for a confirmation.")
@database_options
def prune(
    *,
    older_than: timedelta | None,
    keep_last: int | None,
    dry_run: bool,
    yes: bool,
    db: str | None,
    config: str | None,
    as_json: bool,
) -> None:
    """Delete old runs from the history.

    A running scheduler does so by itself. The limits are those of the agent.toml that names the database, else 90 days, 100,000 runs of
    each job, and the last 100 stay. Jobs with a history of their own go by their own limits, also if these options are given.
    """
    from cronactors.cli.prune import limits_of, prune_history

    limits = limits_of(config_of(db, config), older_than, keep_last)
    prune_history(find_database(db, config), limits, dry_run=dry_run, yes=yes, as_json=as_json)


COMMANDS = (import_crontab, export, backup, prune)
