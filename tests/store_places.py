"""A new store for a test, in both places: a file, or a schema on the PostgreSQL server of the tests."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from pathlib import Path

import psycopg
import pytest

from cronactors.storage.postgres.address import with_schema
from tests.postgres_store import worker_database

_schemas = count(1)


@pytest.fixture
def server() -> Iterator[str]:
    """The address of a schema that does not exist."""
    schema = f"place_{next(_schemas)}"
    yield with_schema(worker_database(), schema)
    with psycopg.connect(worker_database(), autocommit=True) as connection:
        connection.execute(f"DROP SCHEMA IF EXISTS {schema} CASCADE".encode())


@pytest.fixture(params=["file", "server"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The path of a file, or an address."""
    return request.getfixturevalue("server") if request.param == "server" else str(tmp_path / "agent.db")
