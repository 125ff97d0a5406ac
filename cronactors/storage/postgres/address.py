"""Addresses of PostgreSQL stores. Here is what is known of them without psycopg."""

from __future__ import annotations

import re
from typing import Final

from cronactors.errors import InvalidConfig, shorten

PREFIXES: Final = ("postgresql://", "postgres://")
DEFAULT_SCHEMA: Final = "cronactors"

_SCHEMA = "schema="
_IDENTIFIER = re.compile(r"[a-z_][a-z0-9_]{0,62}")


def is_postgres(place: str) -> bool:
    """Return whether a store is on a PostgreSQL server."""
    return place.startswith(PREFIXES)


def without_password(url: str) -> str:
    """Return an address without what may be secret: the part before the last ``@`` of the host, and the parameters."""
    scheme, _, rest = url.partition("://")
    authority, slash, path = rest.partition("/")
    return f"{scheme}://{authority.rpartition('@')[2]}{slash}{path.partition('?')[0]}".partition("?")[0]


def has_password(url: str) -> bool:
    """Return whether an address names a password, as another user of the machine could see it in the list of processes."""
    authority = url.partition("://")[2].partition("/")[0].partition("?")[0]
    user, at, _ = authority.rpartition("@")
    return bool(at and ":" in user) or re.search(r"[?&](?:ssl)?password=", url, re.IGNORECASE) is not None


def split_schema(url: str, default: str) -> tuple[str, str]:
    """Split an address into that of the database, as libpq reads it, and the name of the schema: its parameter ``schema``, if it has one.

    Raises:
        InvalidConfig: The name is no name of a schema.
    """
    base, mark, query = url.partition("?")
    parameters = query.split("&") if mark else []
    named = [each.removeprefix(_SCHEMA) for each in parameters if each.startswith(_SCHEMA)]
    others = "&".join(each for each in parameters if not each.startswith(_SCHEMA))
    return f"{base}?{others}" if others else base, check_schema(named[-1]) if named else default


def with_schema(url: str, schema: str) -> str:
    """Return an address that names a schema: its own, if it has one, or the one that is given."""
    base, named = split_schema(url, schema)
    return f"{base}{'&' if '?' in base else '?'}{_SCHEMA}{named}"


def refuse_password(url: str, field: str) -> str:
    """Return an address that names no password.

    Raises:
        InvalidConfig: It names one, where others may read it: in a file, or in the list of processes.
    """
    if has_password(url):
        elsewhere = "put the address into the variable CRONACTORS_DB, or the password into a PGPASSFILE"
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
