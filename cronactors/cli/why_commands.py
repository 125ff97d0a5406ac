"""The commands on the state of a store: ``explain`` and ``doctor``. The modules of a command are imported when it runs."""

from __future__ import annotations

from collections.abc import Sequence

import click

from cronactors.cli.database import find_database
from cronactors.cli.options import config_option, database_options, decode, json_option, user_option
from cronactors.errors import CronError

_UNKNOWN = 3


@click.command()
@click.argument("name", callback=decode)
@click.argument("when", nargs=-1)
@user_option
@database_options
def explain(name: str, *, when: tuple[str, ...], user: str | None, db: str | None, config: str | None, as_json: bool) -> None:
    """Explain a moment of the job NAME: whether it ran, and why not.

    WHEN is a time in the zone of the job: 02:30 (the last one that has passed), 2026-03-29 02:30, with an offset, 2h (ago), or a day
    (its first moment). Default: the last moment and the next one. A job that was removed is explained by the runs that are left.
    """
    from cronactors.cli import explain as command

    command.explain(find_database(db, config), name, " ".join(when), user=user, as_json=as_json)


class _WrongUsage(click.UsageError):
    exit_code = _UNKNOWN


class _Plugin(click.Command):
    """A command with the exit statuses of a monitoring plugin: whatever keeps it from looking is a 3."""

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: object
    ) -> click.Context:
        try:
            return super().make_context(info_name, args, parent, **extra)
        except click.UsageError as error:
            raise _WrongUsage(error.format_message(), error.ctx) from None

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except click.UsageError as error:
            raise _WrongUsage(error.format_message(), error.ctx) from None
        except (CronError, OSError) as error:
            click.echo(f"cronactors: {error}", err=True)
            raise SystemExit(_UNKNOWN) from None


@click.command(cls=_Plugin)
@click.argument("file", metavar="[FILE|URL]", required=False)
@click.option("--deep", is_flag=True, help="Also read the whole file for damage, which takes a while for a large one.")
@click.option("--db", metavar="FILE|URL", help="The same as FILE or URL.")
@config_option
@json_option
def doctor(file: str | None, *, deep: bool, db: str | None, config: str | None, as_json: bool) -> None:
    """Look for trouble in a database, without changing it, and print the worst first.

    Default: the database that --config names, CRONACTORS_DB, or the one that ./agent.toml names. Exit status: 0 fine, 1 warning,
    2 critical, 3 it could not look.
    """
    from cronactors.cli import doctor as command

    if file is not None and db is not None:
        raise click.UsageError("give FILE or --db")
    status = command.doctor(find_database(file or db, config, option="FILE"), as_json=as_json, deep=deep)
    if status:
        raise SystemExit(status)


COMMANDS: Sequence[click.Command] = (explain, doctor)
"""The commands of this module."""
