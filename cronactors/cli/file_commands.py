"""The commands on whole files: ``import-crontab``, ``export`` and ``backup``. Each imports what it needs when it runs."""

from __future__ import annotations

import click

from cronactors.cli.database import find_database
from cronactors.cli.options import config_option, database_options, db_option, decode


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
    help="The executor that the file names. Default: the one in the agent.toml that names the database; or shell if a job has the option shell.",
)
@db_option
@config_option
def export(*, output: str, user: str | None, executor: str | None, db: str | None, config: str | None) -> None:
    """Print the jobs of a database as an agent.toml.

    A comment marks paused jobs, which a file cannot express.

    Exit status: 0 all jobs are printed; 1 some are left out, each with a line on standard error, or an error.
    """
    from cronactors.cli.export import executor_of_file, export_jobs

    executor = executor or executor_of_file(db, config)
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


COMMANDS = (import_crontab, export, backup)
