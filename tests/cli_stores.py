"""A store for tests of the command: a file, or a schema on the PostgreSQL server of the tests."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from tests.cli_command import FILE
from tests.postgres_store import worker_database

_numbers = count(1)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of a database with a schema that does not exist, without a password: that is in the environment."""
    yield from _schema(monkeypatch)


def _schema(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    url, schema = worker_database(), f"cli_{next(_numbers)}"
    given = conninfo_to_dict(url)
    if password := given.get("password"):
        monkeypatch.setenv("PGPASSWORD", str(password))
        url = url.replace(f":{password}@", "@")
    yield f"{url}{'&' if '?' in url else '?'}schema={schema}"
    with psycopg.connect(worker_database(), autocommit=True) as connection:
        connection.execute(f"DROP SCHEMA IF EXISTS {schema} CASCADE".encode())


@pytest.fixture
def with_ctrl_c() -> Iterator[None]:
    """Let SIGINT do what it does in a terminal, in this process and in those that it starts: in the background it is ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(params=["file", "server"])
def write_on_each(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[str], Path]]:
    """Write an agent.toml whose database is a file, or on the server."""
    schemas = _schema(monkeypatch) if request.param == "server" else iter(())
    url = next(schemas, None)
    named = 'database = "jobs.db"' if url is None else f'database = "{url}"\norigin = "the tests"'

    def write(text: str) -> Path:
        file = tmp_path / "agent.toml"
        file.write_text(FILE.replace('database = "jobs.db"', named) + text)
        return file

    yield write
    next(schemas, None)
