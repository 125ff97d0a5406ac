"""Addresses of stores on PostgreSQL, and that nothing shows the passwords in them."""

from __future__ import annotations

import gc
import logging
import traceback
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psycopg
import pytest
import trio

from cronactors import CronError, InvalidConfig, StoreUnavailable, open_scheduler, open_store
from cronactors.actors import store_lifetime
from cronactors.cli.database import find_database
from cronactors.storage.postgres.address import has_password, hides_user, is_postgres, refuse_password, split_schema, with_schema
from cronactors.storage.postgres.session import Session
from tests.postgres.roles import PASSWORD, new_role, user_of, with_parameters
from tests.postgres_server import OwnServer, new_database

HUSH = "hushhush"


@pytest.mark.parametrize("place", ["postgresql://h/d", "postgres://"])
def test_an_address_is_told_from_a_path(place):
    assert is_postgres(place)


@pytest.mark.parametrize(
    "place", ["postgresql", "postgresql:/h/d", "./postgresql://h/d", "agent.db", "", "host=h dbname=d", ":memory:"]
)
def test_a_path_is_told_from_an_address(place):
    assert not is_postgres(place)


# The schema

SPLIT = [
    ("postgresql://h/d", "postgresql://h/d", "given"),
    ("postgresql://h/d?schema=a", "postgresql://h/d", "a"),
    ("postgresql://h/d?schema=a&schema=b", "postgresql://h/d", "b"),
    ("postgresql://h/d?sslmode=require&schema=a&port=1", "postgresql://h/d?sslmode=require&port=1", "a"),
    ("postgresql://h/d?options=schema=x", "postgresql://h/d?options=schema=x", "given"),
    ("postgresql://u:p?schema=x@h/d?schema=a", "postgresql://u:p?schema=x@h/d", "a"),
    ("postgresql://u:p?&schema=x@h/d", "postgresql://u:p?&schema=x@h/d", "given"),
    ("postgresql://[::1]:5432,h:1/d?schema=a", "postgresql://[::1]:5432,h:1/d", "a"),
    ("postgresql://?schema=a", "postgresql://", "a"),
    ("postgresql:///?user=a@b&schema=a", "postgresql:///?user=a@b", "a"),
]


@pytest.mark.parametrize(("url", "rest", "schema"), SPLIT)
def test_the_schema_of_an_address(url, rest, schema):
    assert split_schema(url, "given") == (rest, schema)


@pytest.mark.parametrize("name", ["", "A", "1a", "a-b", "a.b", "a b", "ä", "a" * 64, 'a"', "%61"])
def test_a_name_that_is_no_schema_is_refused(name):
    with pytest.raises(InvalidConfig, match="schema must be at most 63 lower-case letters"):
        split_schema(f"postgresql://h/d?schema={name}", "given")


@pytest.mark.parametrize("url", [url for url, _, _ in SPLIT])
def test_an_address_is_given_a_schema_unless_it_names_one(url):
    rest, schema = split_schema(url, "given")
    assert split_schema(with_schema(url, "given"), "other") == (rest, schema)


# Passwords

WITH_PASSWORD = [
    f"postgresql://u:{HUSH}@h/d",
    f"postgresql://:{HUSH}@h/d",
    f"postgresql://u:{HUSH}@/d?host=/tmp",
    f"postgresql://u:a?{HUSH}@h/d",
    f"postgresql://u:a@{HUSH}@h/d",
    f"postgresql://u:a/{HUSH}@h/d",
    f"postgresql://u:1/{HUSH}@h/d",
    f"postgresql://u:a#{HUSH}@h/d",
    f"postgresql://h/d?password={HUSH}",
    f"postgresql://h/d?sslmode=require&sslpassword={HUSH}",
    f"postgresql://h/d?PASSWORD={HUSH}",
    f"postgresql://h/d?pass%77ord={HUSH}",
    f"postgresql://h/d?password=a@{HUSH}",
]
WITHOUT = [
    "postgresql://h/d",
    "postgresql://u@h:5432/d?sslmode=require",
    "postgresql://u@[::1]:5432/d",
    "postgresql://h:5432,i:5433/d",
    "postgresql:///d?passfile=/etc/pgpass&user=a@b",
]
UNREADABLE = [
    f"postgresql://u:%zz{HUSH}@h/d",
    f"postgresql://u:{HUSH}@h/d?nonsense=1",
    f"postgresql://u:{HUSH}@[::1/d",
    f"postgresql://u:a@{HUSH}@h/d",
    f"postgresql://u:a/{HUSH}@h/d",
    f"postgresql://u:1/{HUSH}@h/d",
    f"postgresql://u:a?/{HUSH}@h/d",
    f"postgresql://u:a?b/{HUSH}=@h/d",
    f"postgresql://u:{HUSH}/b@h/d",
    f"postgresql://u:{HUSH}/b?c@h/d",
    f"postgresql://u:{HUSH}@h:port/d",
    f"postgresql://h/d?password={HUSH}%zz",
    f"postgresql://h/d?password={HUSH}&nonsense",
    f"postgresql://h/d?password=a@{HUSH}&nonsense=1",
]


@pytest.mark.parametrize("url", WITH_PASSWORD)
def test_a_password_is_refused_where_others_may_read_it(url):
    assert has_password(url)
    with pytest.raises(InvalidConfig) as raised:
        refuse_password(url, "--db")
    assert HUSH not in str(raised.value)
    with pytest.raises(InvalidConfig):
        find_database(url, None)


@pytest.mark.parametrize("url", WITHOUT)
def test_an_address_without_a_password_is_not_refused(url):
    assert refuse_password(url, "--db") == url
    assert not hides_user(url)


class Seen(logging.Handler):
    """Keeps the text of every record, with its traceback."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.setFormatter(logging.Formatter("%(name)s %(message)s %(args)s"))
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        record.args = record.args or ()
        self.lines.append(self.format(record) + repr(record.args))


@pytest.fixture
def seen() -> Iterator[list[str]]:
    """What any logger says, psycopg's too."""
    handler, root = Seen(), logging.getLogger()
    level = root.level
    root.setLevel(logging.DEBUG)
    root.addHandler(handler)
    yield handler.lines
    root.removeHandler(handler)
    root.setLevel(level)


def shown(error: BaseException) -> str:
    """All that an error may show: itself, its causes and what it was raised in the place of."""
    texts = ["".join(traceback.format_exception(error))]
    chain: list[BaseException | None] = [error]
    while chain:
        each = chain.pop()
        if each is not None:
            texts += [str(each), repr(each), repr(each.args), *getattr(each, "__notes__", ())]
            chain += [each.__cause__, each.__context__]
    return "\n".join(texts)


@pytest.mark.parametrize("url", UNREADABLE)
async def test_an_address_that_cannot_be_read_is_not_shown(url, seen):
    with pytest.raises(CronError) as raised:
        async with open_store(url):
            pass
    text = shown(raised.value)
    assert "is not one of a PostgreSQL server that libpq can read" in text
    assert "%2F for /" in text
    assert HUSH not in "\n".join([text, *seen])


@pytest.mark.parametrize(
    "url",
    [
        f"postgresql://u:{HUSH}@nowhere.invalid/d",
        f"postgresql://u:{HUSH}@127.0.0.1:1/d",
        f"postgresql://u:{HUSH}@127.0.0.1:1,127.0.0.1:2/d?sslpassword={HUSH}",
        f"postgresql:///d?host=/nowhere&password={HUSH}",
        f"postgresql://u:{HUSH}@h/d?connect_timeout=soon",
        f"postgresql://u:{HUSH}@127.0.0.1:1/d?sslmode=nonsense",
        f"postgresql://u:{HUSH}@127.0.0.1:1/d?service=nowhere",
    ],
)
async def test_a_server_out_of_reach_shows_no_password(url, seen, monkeypatch):
    monkeypatch.setattr(store_lifetime, "OPEN_TIMEOUT", 0.1)
    with pytest.raises(StoreUnavailable) as raised:
        async with open_store(url):
            pass
    assert "cannot be reached" in str(raised.value)
    assert HUSH not in "\n".join([shown(raised.value), *seen])


@pytest.fixture(scope="module")
def strict_server() -> Iterator[str]:
    """The URL of a database that asks for passwords, for its administrator."""
    with OwnServer() as server:
        url = new_database(server)
        hba = server.data / "pg_hba.conf"
        hba.write_text("local all postgres trust\nlocal all all scram-sha-256\n")
        with psycopg.connect(url, autocommit=True) as admin:
            admin.execute("SELECT pg_reload_conf()")
        yield url


@pytest.fixture
def with_password(strict_server: str) -> Iterator[str]:
    with psycopg.connect(strict_server, autocommit=True) as admin:
        database = f'"{admin.info.dbname}"'
        with new_role(admin, strict_server, f"CREATE ON DATABASE {database}") as url:
            while True:  # until the server has read its file again
                with suppress(psycopg.OperationalError):
                    psycopg.connect(with_parameters(url, password="wrong")).close()
                    continue
                break
            yield url


async def test_a_wrong_password_is_not_shown(with_password, seen):
    with pytest.raises(StoreUnavailable, match=f'password authentication failed for user "{user_of(with_password)}"') as raised:
        async with open_store(with_parameters(with_password, password=HUSH)):
            pass
    assert HUSH not in "\n".join([shown(raised.value), *seen])


async def test_a_password_that_is_missing(with_password):
    with pytest.raises(StoreUnavailable, match="no password supplied"):
        async with open_store(with_parameters(with_password, password="")):
            pass


async def test_nothing_shows_the_password_of_a_store_that_works_and_then_fails(with_password, strict_server, seen):
    async def executor(_: object) -> None: ...

    failures: list[BaseException] = []
    with trio.fail_after(60):
        async with open_scheduler(with_password, executor) as scheduler:
            texts = [repr(scheduler), repr(scheduler.store), scheduler.store.path, repr(scheduler.health())]
            with psycopg.connect(strict_server, autocommit=True) as admin:
                shown_there = admin.execute("SELECT application_name, query FROM pg_stat_activity").fetchall()
                admin.execute(f"ALTER ROLE {user_of(with_password)} PASSWORD 'another'".encode())
                terminate = "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE usename = %s"
                admin.execute(terminate, [user_of(with_password)])
                try:
                    await scheduler.store.list_jobs()
                except StoreUnavailable as error:
                    failures.append(error)
                texts += [repr(scheduler.health()), repr(scheduler.health().last_store_error)]
                admin.execute(f"ALTER ROLE {user_of(with_password)} PASSWORD '{PASSWORD}'".encode())
    assert "password authentication failed" in shown(failures[0])
    assert PASSWORD not in "\n".join([*texts, repr(shown_there), *map(shown, failures), *seen])


def test_the_objects_of_a_store_do_not_show_its_password():
    session = Session(f"postgresql://u:{HUSH}@127.0.0.1:1/d?sslpassword={HUSH}", "cronactors")
    with pytest.raises(StoreUnavailable) as raised:
        session.connect()
    assert HUSH not in "\n".join([repr(session), str(session), session.name, repr(session.errors), shown(raised.value)])
    assert HUSH not in session._parameters["application_name"]


def descriptors() -> int:
    return sum(1 for _ in Path("/dev/fd").iterdir())


@pytest.mark.slow
def test_a_connection_that_was_not_made_in_time_is_closed():
    """psycopg keeps it in frames that hold each other, so it would stay until the next collection of garbage."""
    with OwnServer() as server:
        session = Session(f"{server.url()}&connect_timeout=2", "cronactors")
        server.pause()
        gc.collect()
        gc.disable()
        try:
            before = descriptors()
            with pytest.raises(StoreUnavailable, match="timeout expired"):
                session.connect()
            assert descriptors() == before
        finally:
            gc.enable()
            server.resume()
