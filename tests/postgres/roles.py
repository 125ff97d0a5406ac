"""Users of a PostgreSQL server that have few rights."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import quote

import psycopg
from psycopg.conninfo import conninfo_to_dict

PASSWORD = "hush-hush-4711"
RIGHTS = (
    "USAGE ON SCHEMA cronactors",
    "SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA cronactors",
    "USAGE ON ALL SEQUENCES IN SCHEMA cronactors",
)
"""What a scheduler needs whose schema another user has created."""


def with_parameters(url: str, **changed: str) -> str:
    """Return an address with other parameters."""
    parameters = {name: str(value) for name, value in conninfo_to_dict(url).items() if value is not None} | changed
    return "postgresql:///?" + "&".join(f"{name}={quote(value, safe='')}" for name, value in parameters.items())


@contextmanager
def new_role(admin: psycopg.Connection[tuple[object, ...]], url: str, *grants: str) -> Iterator[str]:
    """Create a user who has these rights and no others; return the URL for that user.

    Args:
        admin: A connection to the database, of somebody who may create users.
        url: The URL of the database.
        grants: Such as ``USAGE ON SCHEMA cronactors``.
    """
    name = f"role_{uuid.uuid4().hex[:12]}"
    admin.execute(f"CREATE ROLE {name} LOGIN PASSWORD '{PASSWORD}'".encode())
    try:
        for grant in grants:
            admin.execute(f"GRANT {grant} TO {name}".encode())
        yield with_parameters(url, user=name, password=PASSWORD)
    finally:
        admin.execute(f"DROP OWNED BY {name} CASCADE".encode())
        admin.execute(f"DROP ROLE {name}".encode())


def user_of(url: str) -> str:
    """Return the user that an address names."""
    return str(conninfo_to_dict(url)["user"])
