"""Addresses of PostgreSQL stores. Here is what is known of them without psycopg."""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import unquote

from cronactors.errors import InvalidConfig, shorten

PREFIXES: Final = ("postgresql://", "postgres://")
DEFAULT_SCHEMA: Final = "cronactors"

MISSING_EXTRA: Final = 'a store on PostgreSQL needs psycopg: pip install "cronactors[postgres]"'
"""The error where psycopg is not installed."""

_SCHEMA = "schema="
_IDENTIFIER = re.compile(r"[a-z_][a-z0-9_]{0,62}")


def is_postgres(place: str) -> bool:
    """Return whether a store is on a PostgreSQL server."""
    return place.startswith(PREFIXES)


def hides_user(url: str) -> bool:
    """Return whether libpq takes a part of the user or of the password for something else, which messages would then show.

    It takes everything before the first ``@`` for user and password, if that is before the first ``/``.
    """
    _, rest = _split_user(url)
    return "@" in rest.partition("?")[0]


def has_password(url: str) -> bool:
    """Return whether an address names a password, as another user of the machine could see it in the list of processes.

    libpq decodes the names of parameters. An address that it cannot read may have a password too.
    """
    user, rest = _split_user(url)
    before_at = rest.partition("?")[0].rpartition("@")[0]
    in_parameters = re.search(r"[?&](?:ssl)?password=", unquote(url), re.IGNORECASE)
    return ":" in user or ":" in before_at or in_parameters is not None


def _split_user(url: str) -> tuple[str, str]:
    """Split what follows the scheme of an address into user and password, which may contain a ``?``, and the rest."""
    place = url.partition("://")[2]
    user, at, _ = place.partition("/")[0].partition("@")
    return (user, place[len(user) + 1 :]) if at else ("", place)


def split_schema(url: str, default: str) -> tuple[str, str]:
    """Split an address into that of the database, as libpq reads it, and the name of the schema: its parameter ``schema``, if it has one.

    Raises:
        InvalidConfig: The name is no name of a schema.
    """
    _, rest = _split_user(url)
    base, mark, query = rest.partition("?")
    base = url.removesuffix(rest) + base
    parameters = query.split("&") if mark else []
    named = [each.removeprefix(_SCHEMA) for each in parameters if each.startswith(_SCHEMA)]
    others = "&".join(each for each in parameters if not each.startswith(_SCHEMA))
    return f"{base}?{others}" if others else base, check_schema(named[-1]) if named else default


def with_schema(url: str, schema: str) -> str:
    """Return an address that names a schema: its own, if it has one, or the one that is given."""
    base, named = split_schema(url, schema)
    return f"{base}{'&' if '?' in _split_user(base)[1] else '?'}{_SCHEMA}{named}"


def refuse_password(url: str, field: str) -> str:
    """Return an address that names no password.

    Raises:
        InvalidConfig: It names one, where others may read it: in a file, or in the list of processes.
    """
    if has_password(url):
        elsewhere = "put the address into the variable CRONACTORS_DB, or the password into a PGPASSFILE or PGSERVICEFILE"
        raise InvalidConfig(f"{field} must not name a password: {elsewhere}")
    return url


def check_schema(schema: object) -> str:
    """Return the name of a schema.

    Raises:
        InvalidConfig: It is no name of 1 to 63 lower-case letters, digits and underscores.
    """
    if not isinstance(schema, str) or not _IDENTIFIER.fullmatch(schema):
        allowed = "at most 63 lower-case letters, digits and underscores, no digit first"
        raise InvalidConfig(f"schema must be {allowed}, not {shorten(schema)}")
    return schema
