"""Options that several commands have in common."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TypeVar

import click

_F = TypeVar("_F", bound=Callable[..., None])

db_option = click.option(
    "--db",
    metavar="FILE|URL",
    help="The database. Default: the one that --config names, CRONACTORS_DB, or the one that ./agent.toml names.",
)
config_option = click.option("--config", metavar="FILE", help="An agent.toml that names the database.")
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, times in UTC.")


def decode(_ctx: click.Context, _param: click.Parameter, value: str | None) -> str | None:
    """Decode an argument as UTF-8, as stored names are, if the locale could not decode it (PEP 383)."""
    return os.fsencode(value).decode("utf-8", "replace") if value is not None and _is_undecoded(value) else value


def _is_undecoded(text: str) -> bool:
    return any("\udc80" <= character <= "\udcff" for character in text)


user_option = click.option(
    "--user",
    metavar="ID",
    callback=decode,
    help='The job of this user, "" for the agent\'s own. Default: whoever has a job of that name, if only one has.',
)


def database_options(function: _F) -> _F:
    """Add the options that a command finds its database by, and --json."""
    return db_option(config_option(json_option(function)))
