"""Options that several commands have in common."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from datetime import timedelta
from typing import TypeVar

import click

from cronactors import checks
from cronactors.errors import InvalidConfig, InvalidJob
from cronactors.json_value import Json

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


class Duration(click.ParamType[timedelta]):
    """A length of time, such as 90s or 2h."""

    name = "duration"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> timedelta:
        """Convert an argument, or fail with a usage error."""
        from cronactors.cli.times import parse_duration

        try:
            return parse_duration(str(value))
        except ValueError as problem:
            self.fail(str(problem), param, ctx)


class Seconds(click.ParamType[float]):
    """A number of seconds within limits."""

    name = "seconds"

    def __init__(self, *, least: float, most: float) -> None:
        self._least, self._most = least, most

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Convert an argument, or fail with a usage error."""
        try:
            return checks.number("SECONDS", float(str(value)), InvalidConfig, least=self._least, most=self._most)
        except ValueError as problem:
            self.fail(str(problem) if isinstance(problem, InvalidConfig) else f"{value!r} is not a number", param, ctx)


SECONDS = Seconds(least=0, most=1e9)
"""How long something takes, 0 or more."""


def read_json(text: str) -> Json:
    """Read the value of ``--data``. The error does not show it, since it may hold a secret.

    Raises:
        InvalidJob: It is not JSON.
    """
    try:
        value: Json = json.loads(text)
    except ValueError as problem:
        raise InvalidJob(f"data must be JSON ({problem})") from None
    return value


def database_options(function: _F) -> _F:
    """Add the options that a command finds its database by, and --json."""
    return db_option(config_option(json_option(function)))
