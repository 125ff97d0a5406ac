"""The verbs and their options."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import click

from cronactors import __version__, checks
from cronactors.cli.database import find_database
from cronactors.errors import InvalidConfig

_F = TypeVar("_F", bound=Callable[..., None])

_db = click.option(
    "--db", metavar="FILE", help="The database. Default: what --config names, CRONACTORS_DB, or what ./agent.toml names."
)
_config = click.option("--config", metavar="FILE", help="An agent.toml that names the database.")
_json = click.option("--json", "as_json", is_flag=True, help="Print JSON, times in UTC.")


def _as_text(_ctx: click.Context, _param: click.Parameter, value: str | None) -> str | None:
    """Read an argument that the locale could not decode (PEP 383) as UTF-8, which names are stored in."""
    return None if value is None else os.fsencode(value).decode("utf-8", "replace") if _undecoded(value) else value


def _undecoded(text: str) -> bool:
    return any("\udc80" <= character <= "\udcff" for character in text)


_user = click.option("--user", metavar="ID", callback=_as_text, help="The job of this user, not of the agent itself.")


def _where(function: _F) -> _F:
    """Add the options by which a verb finds its database."""
    return _db(_config(_json(function)))


class _Seconds(click.ParamType[float]):
    """A number of seconds, 0 or more."""

    name = "seconds"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Check a number."""
        try:
            return checks.number("SECONDS", float(str(value)), InvalidConfig, least=0, most=1e9)
        except ValueError as problem:
            self.fail(str(problem) if isinstance(problem, InvalidConfig) else f"{value!r} is not a number", param, ctx)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, message="%(prog)s %(version)s")
def cronactors() -> None:
    """Durable scheduled jobs, kept in one SQLite file."""


@cronactors.command()
@click.argument("file", default="agent.toml")
@click.option("--db", metavar="FILE", help="The database. Default: what FILE names, CRONACTORS_DB, or agent.db beside FILE.")
@click.option("--executor", metavar="NAME", help='"shell" or "package.module:function". Default: what FILE names.')
@click.option("--for", "seconds", type=_Seconds(), metavar="SECONDS", help="End by itself after so many seconds.")
@click.option(
    "--shutdown-grace",
    "grace",
    type=_Seconds(),
    metavar="SECONDS",
    help="How long runs may go on after a signal. Default: what FILE says, or 5.",
)
@click.option("--adopt", metavar="ORIGIN", help="First take over the jobs of another list, such as of a file that was renamed.")
def run(
    file: str, *, db: str | None, executor: str | None, seconds: float | None, grace: float | None, adopt: str | None
) -> None:
    """Run the jobs of FILE (default: agent.toml) until Ctrl-C or SIGTERM; a second one ends at once."""
    from cronactors.cli.run import run_file

    status = run_file(Path(file), db=db, executor_name=executor, seconds=seconds, shutdown_grace=grace, adopt=adopt)
    if status:
        raise SystemExit(status)


@cronactors.command("list")
@_where
def list_jobs(db: str | None, config: str | None, *, as_json: bool) -> None:
    """List the jobs and when they run next."""
    from cronactors.cli import listing

    listing.list_jobs(find_database(db, config), as_json=as_json)


@cronactors.command()
@click.argument("name", callback=_as_text)
@click.option("--limit", type=click.IntRange(1, 1000), default=10, show_default=True, help="How many, newest first.")
@_user
@_where
def runs(name: str, *, limit: int, user: str | None, db: str | None, config: str | None, as_json: bool) -> None:
    """List the last runs of the job NAME."""
    from cronactors.cli import listing

    listing.list_runs(find_database(db, config), name, user_id=user, limit=limit, as_json=as_json)


@cronactors.command()
@click.option("--origin", metavar="ORIGIN", required=True, help="The list whose jobs are removed, as cronactors run names it.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@_db
@_config
def remove(origin: str, *, yes: bool, db: str | None, config: str | None) -> None:
    """Remove the jobs of a list that no file keeps any more. Their history stays."""
    from cronactors.cli.remove import remove_list

    remove_list(find_database(db, config), origin, yes=yes)


@cronactors.command("next")
@click.argument("expr")
@click.option("--timezone", "zone", metavar="ZONE", default="UTC", show_default=True, help="The zone in which EXPR is meant.")
@click.option("-n", "count", type=click.IntRange(1, 1000), default=5, show_default=True, help="How many moments.")
@click.option("--after", metavar="TIME", help="Moments after this date or time, in the zone if it has no offset. Default: now.")
@_json
def next_moments(expr: str, *, zone: str, count: int, after: str | None, as_json: bool) -> None:
    """Print the next moments of EXPR, a cron expression in quotes, and what clock changes do to them."""
    from cronactors.cli.schedules import show_next

    show_next(expr, zone=zone, count=count, after=after, as_json=as_json)


@cronactors.command()
@click.argument("what", metavar="EXPR|FILE")
@click.option("--timezone", "zone", metavar="ZONE", help="The zone in which EXPR is meant.  [default: UTC]")
@_json
def lint(what: str, *, zone: str | None, as_json: bool) -> None:
    """Look for mistakes in EXPR, a cron expression in quotes, or in the jobs of FILE, an agent.toml.

    Exit status: 0 nothing found; 1 something found, or refused; 2 wrong usage.
    """
    from cronactors.cli.schedules import show_findings

    if show_findings(what, zone=zone, as_json=as_json):
        raise SystemExit(1)
