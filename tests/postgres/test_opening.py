"""Opening a store on PostgreSQL: creating, recognising, refusing and upgrading its schema, and servers that cannot be used."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from itertools import count

import psycopg
import pytest
import trio
from psycopg.conninfo import conninfo_to_dict

from cronactors import Interval, StoreCorrupt, StoreUnavailable, open_store
from cronactors.actors import store_lifetime
from cronactors.actors.store import Done, run_batch
from cronactors.storage.errors import Contended
from cronactors.storage.pauses import PauseRow
from cronactors.storage.postgres import connecting, migrations
from cronactors.storage.postgres.migrations import Step
from cronactors.storage.postgres.session import Session
from cronactors.storage.postgres.storage import PostgresStorage
from cronactors.storage.rows import NextTimes
from tests.postgres.roles import new_role, user_of, with_parameters
from tests.postgres_server import OwnServer, new_database, shared_server
from tests.postgres_store import worker_database
from tests.store_under_test import Names, Put

Connection = psycopg.Connection[tuple[object, ...]]

NOW = migrations.newest()
NEXT = NOW + 1

_numbers = count(1)


@pytest.fixture
def url() -> str:
    return worker_database()


@pytest.fixture
def admin(url: str) -> Iterator[Connection]:
    with psycopg.connect(url, autocommit=True) as connection:
        yield connection


@pytest.fixture
def schema(admin: Connection) -> Iterator[str]:
    """The name of a schema that does not exist."""
    name = f"opening_{next(_numbers)}"
    yield name
    admin.execute(f"DROP SCHEMA IF EXISTS {name} CASCADE".encode())


def opened(url: str, schema: str, *, create: bool = True) -> PostgresStorage:
    return PostgresStorage(url, schema=schema, create=create)


def patiently(url: str, schema: str) -> PostgresStorage:
    """Open as `open_store` does."""
    until = time.monotonic() + 30
    while True:
        try:
            return opened(url, schema)
        except Contended:
            assert time.monotonic() < until


def put(storage: PostgresStorage, name: str) -> None:
    assert isinstance(run_batch(storage, [Put(name)]), Done)


def names(storage: PostgresStorage) -> object:
    result = run_batch(storage, [Names()])
    assert isinstance(result, Done)
    return result.replies[0]


def relations(admin: Connection, schema: str) -> set[tuple[object, ...]]:
    """Everything in a schema, with its kind and columns."""
    text = """SELECT relname, relkind::text, (SELECT string_agg(attname, ',' ORDER BY attnum) FROM pg_attribute
     WHERE attrelid = c.oid AND attnum > 0) FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = relnamespace WHERE nspname = %s"""
    return set(admin.execute(text, [schema]).fetchall())


def version(admin: Connection, schema: str) -> list[tuple[object, ...]]:
    return admin.execute(f"SELECT version, min_reader FROM {schema}.version".encode()).fetchall()


# A schema that is missing


def test_a_missing_schema_is_created_once(url, schema, admin):
    with closing(opened(url, schema)) as storage:
        put(storage, "a")
    before = relations(admin, schema)
    with closing(opened(url, schema)) as storage:
        assert names(storage) == ["a"]
    assert relations(admin, schema) == before
    assert version(admin, schema) == [(NOW, 1)]


def test_an_empty_schema_that_somebody_has_created_is_filled(url, schema, admin):
    admin.execute(f"CREATE SCHEMA {schema}".encode())
    with new_role(admin, url, f"USAGE, CREATE ON SCHEMA {schema}") as of_role, closing(opened(of_role, schema)) as storage:
        put(storage, "a")


def test_a_missing_schema_is_not_created_where_it_is_not_to_be(url, schema, admin):
    with pytest.raises(StoreUnavailable, match=f"/{schema} does not exist"):
        opened(url, schema, create=False)
    with new_role(admin, url) as of_role, pytest.raises(StoreUnavailable, match=f"/{schema} does not exist"):
        opened(of_role, schema, create=False)
    assert relations(admin, schema) == set()


def test_who_has_no_right_to_create_the_schema_is_told_so(url, schema, admin):
    with new_role(admin, url) as of_role, pytest.raises(StoreUnavailable, match="42501: permission denied for database"):
        opened(of_role, schema)


def test_several_processes_create_a_schema_at_once(url, schema, admin):
    with ThreadPoolExecutor(6) as pool:
        storages = list(pool.map(lambda _: patiently(url, schema), range(6)))
    for number, storage in enumerate(storages):
        put(storage, str(number))
        storage.close()
    with closing(opened(url, schema)) as storage:
        assert names(storage) == list("012345")


def test_who_comes_while_another_process_creates_the_schema_waits(url, schema, admin):
    with closing(opened(url, schema)) as storage:
        guard = storage._session
        admin.execute(f"DROP SCHEMA {schema} CASCADE".encode())
        guard.script("BEGIN")
        assert guard.hold({migrations._GUARD}, wait=False)
        with pytest.raises(Contended, match="another process is changing the schema"):
            opened(url, schema)
        assert relations(admin, schema) == set()
        guard.rollback()
        opened(url, schema).close()


# A schema that is up to date


@pytest.mark.parametrize(
    "lock", ["ALL TABLES IN SHARE ROW EXCLUSIVE MODE", "jobs, runs, job_state, owners IN ACCESS EXCLUSIVE MODE"]
)
def test_an_up_to_date_schema_is_opened_without_a_lock(url, schema, admin, lock):
    opened(url, schema).close()
    tables = ", ".join(f"{schema}.{name}" for name, kind, _ in relations(admin, schema) if kind == "r")
    lock = lock.replace("ALL TABLES", tables).replace("jobs, runs, job_state, owners", f"{schema}.jobs, {schema}.owners")
    admin.execute("BEGIN")
    admin.execute(f"LOCK TABLE {lock}".encode())
    opened(url, schema).close()
    admin.execute("ROLLBACK")


def test_an_up_to_date_schema_is_opened_by_who_may_only_read(url, schema, admin):
    opened(url, schema).close()
    rights = [f"USAGE ON SCHEMA {schema}", f"SELECT ON ALL TABLES IN SCHEMA {schema}"]
    with new_role(admin, url, *rights) as of_role, closing(opened(of_role, schema, create=False)) as storage:
        assert names(storage) == []


# Schemas that are refused


@pytest.mark.parametrize(
    ("statement", "name"),
    [
        ("CREATE TABLE {}.jobs (x int)", "jobs"),
        ("CREATE VIEW {}.runs AS SELECT 1 AS x", "runs"),
        ("CREATE TABLE {}.version (number int)", "version"),
        ("CREATE TABLE {}.unrelated (x int); CREATE TABLE {}.owners (x int)", "owners"),
    ],
)
def test_a_schema_of_another_application_is_not_touched(url, schema, admin, statement, name):
    admin.execute(f"CREATE SCHEMA {schema}; {statement.replace('{}', schema)}".encode())
    before = relations(admin, schema)
    with pytest.raises(StoreCorrupt, match=f"of another application, not of cronactors \\(it has a table {name}\\)"):
        opened(url, schema)
    assert relations(admin, schema) == before


def test_a_sequence_of_another_application_is_not_touched(url, schema, admin):
    admin.execute(f"CREATE SCHEMA {schema}; CREATE SEQUENCE {schema}.run_ids".encode())
    before = relations(admin, schema)
    with pytest.raises(StoreCorrupt, match='of another application, not of cronactors \\(relation "run_ids" already exists\\)'):
        opened(url, schema)
    assert relations(admin, schema) == before


def test_tables_of_others_beside_ours_do_not_matter(url, schema, admin):
    admin.execute(f"CREATE SCHEMA {schema}; CREATE TABLE {schema}.customers (x int)".encode())
    opened(url, schema).close()


@pytest.mark.parametrize(
    ("statement", "reason"),
    [
        ("ALTER TABLE {}.jobs DROP COLUMN prompt", "the table jobs lacks prompt"),
        ("DROP TABLE {}.owners", "the table owners lacks id"),
        ("DELETE FROM {}.version", "the number of its schema is missing"),
        ("INSERT INTO {}.version VALUES (1, 1)", "the number of its schema is missing"),
    ],
)
def test_a_damaged_schema_is_refused(url, schema, admin, statement, reason):
    opened(url, schema).close()
    admin.execute(statement.format(schema).encode())
    before = relations(admin, schema)
    with pytest.raises(StoreCorrupt, match=f"is damaged \\({reason}\\)"):
        opened(url, schema)
    assert relations(admin, schema) == before


def test_a_newer_schema_is_used_as_far_as_it_allows(url, schema, admin):
    opened(url, schema).close()
    admin.execute(f"UPDATE {schema}.version SET version = 7; ALTER TABLE {schema}.jobs ADD COLUMN colour text".encode())
    with closing(opened(url, schema)) as storage:
        put(storage, "a")
    assert version(admin, schema) == [(7, 1)]
    admin.execute(f"UPDATE {schema}.version SET min_reader = {NOW + 1}".encode())
    with pytest.raises(StoreCorrupt, match=f"was written by a newer version \\(schema 7, this version knows {NOW}\\)"):
        opened(url, schema)


# Upgrades


def test_a_store_of_schema_1_keeps_its_jobs(url, schema, admin, monkeypatch):
    session = Session(url, schema)
    with monkeypatch.context() as patch, closing(session):
        patch.setattr(migrations, "STEPS", migrations.STEPS[:1])
        session.connect()
        migrations.migrate(session)
    admin.execute(
        f"""INSERT INTO {schema}.jobs (id, user_id, name, schedule, timezone, anchor_at, max_retries, timeout_secs, session_mode,
  misfire, created_at, rules, description, tags, history, executor_options, prompt)
 VALUES ('j', '', 'old', '{{"kind": "interval", "every_ms": 1000}}', 'UTC', 0, 0, 1, 'isolated', '{{}}', 0, '', '', '[]', '{{}}', '{{}}', 'p');
INSERT INTO {schema}.job_state SELECT id, number, 'skip', 0, 0, 0, 5, NULL, NULL, NULL, NULL, 0, NULL FROM {schema}.jobs""".encode()
    )
    with closing(opened(url, schema)) as storage:
        assert storage.begin(write=True)
        (job,) = storage.jobs(["j"]).values()
        assert (job.name, job.enabled, job.listed_enabled) == ("old", 0, None)
        storage.pauses.put([PauseRow("j", 1, 2, None, "")])
        assert storage.next_times() == NextTimes(None, 2)
        storage.commit()
    assert version(admin, schema) == [(NOW, 1)]


COLOUR = "ALTER TABLE @jobs ADD COLUMN colour text; CREATE TABLE @colours (name text NOT NULL);"


@pytest.fixture
def next_release(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(migrations, "LOCK_LIMIT", 0.3)
    monkeypatch.setattr(migrations, "PAUSE", 0.1)
    add_step(monkeypatch)


def add_step(monkeypatch: pytest.MonkeyPatch, script: str = COLOUR, *, min_reader: int = 1) -> None:
    monkeypatch.setattr(migrations, "STEPS", (*migrations.STEPS[:NOW], Step(NEXT, script, min_reader=min_reader)))


@pytest.fixture
def older(url: str, schema: str) -> Iterator[PostgresStorage]:
    """A store of this release, which is open."""
    with closing(opened(url, schema)) as storage:
        put(storage, "before")
        yield storage


def test_a_new_schema_takes_all_steps(url, schema, admin, next_release):
    opened(url, schema).close()
    assert ("colours", "r", "name") in relations(admin, schema)
    assert version(admin, schema) == [(NEXT, 1)]


def test_an_older_schema_is_upgraded_while_the_release_before_goes_on(older, url, schema, admin, next_release, caplog):
    caplog.set_level("INFO")
    with closing(opened(url, schema)) as newer:
        put(older, "older")
        put(newer, "newer")
        assert names(older) == names(newer) == ["before", "newer", "older"]
    assert version(admin, schema) == [(NEXT, 1)]
    assert f"{older.name} was brought from schema {NOW} to {NEXT}" in caplog.text


def test_the_release_before_does_not_open_what_it_cannot_use(older, url, schema, monkeypatch):
    with monkeypatch.context() as patch:
        add_step(patch, min_reader=NEXT)
        opened(url, schema).close()
    with pytest.raises(StoreCorrupt, match=f"schema {NEXT}, this version knows {NOW}"):
        opened(url, schema)


def test_an_older_schema_is_not_upgraded_where_it_is_only_to_be_read(older, url, schema, admin, next_release):
    before = relations(admin, schema)
    remedy = "start this version once as a user who may change it, such as its owner"
    with pytest.raises(
        StoreUnavailable, match=f"has schema {NOW}, this version needs {NEXT}, and it is only to be read: {remedy}"
    ):
        opened(url, schema, create=False)
    assert relations(admin, schema) == before


def test_who_may_not_upgrade_is_told_what_to_do(older, url, schema, admin, next_release):
    before = relations(admin, schema)
    rights = [f"USAGE ON SCHEMA {schema}", f"SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA {schema}"]
    with new_role(admin, url, *rights) as of_role, pytest.raises(StoreUnavailable) as raised:
        opened(of_role, schema)
    assert f"needs {NEXT}, and this user may not change it (must be owner of table jobs): start this version once" in str(
        raised.value
    )
    assert relations(admin, schema) == before


def test_several_processes_upgrade_at_once(older, url, schema, admin, next_release):
    with ThreadPoolExecutor(6) as pool:
        for storage in pool.map(lambda _: patiently(url, schema), range(6)):
            storage.close()
    assert version(admin, schema) == [(NEXT, 1)]
    put(older, "a")


def test_a_step_that_is_cut_off_changes_nothing(older, url, schema, admin, next_release, monkeypatch):
    before = relations(admin, schema)
    with monkeypatch.context() as patch:
        add_step(patch, f"{COLOUR} SELECT pg_terminate_backend(pg_backend_pid());")
        with pytest.raises(Contended, match="the connection was lost"):
            opened(url, schema)
    assert relations(admin, schema) == before
    assert version(admin, schema) == [(NOW, 1)]
    opened(url, schema).close()
    assert version(admin, schema) == [(NEXT, 1)]


def test_a_table_that_is_in_use_is_not_waited_for_without_end(older, url, schema, admin, next_release):
    """As while pg_dump reads it. Who reads behind the upgrade waits for as long as that waits; then it comes before the next attempt."""
    before = relations(admin, schema)
    admin.execute("BEGIN")
    admin.execute(f"SELECT count(*) FROM {schema}.jobs".encode())
    with pytest.raises(Contended, match="55P03"):
        opened(url, schema)
    with ThreadPoolExecutor(1) as pool, psycopg.connect(url, autocommit=True) as reader:
        upgrade = pool.submit(opened, url, schema)
        while not upgrade.done() and not admin.execute("SELECT 1 FROM pg_locks WHERE NOT granted").fetchall():
            time.sleep(0.01)
        started = time.monotonic()
        reader.execute(f"SELECT count(*) FROM {schema}.jobs".encode())
        assert time.monotonic() - started < 3 * (migrations.LOCK_LIMIT + migrations.PAUSE)
        with pytest.raises(Contended, match="55P03"):
            upgrade.result()
    assert relations(admin, schema) == before
    assert version(admin, schema) == [(NOW, 1)]
    admin.execute("COMMIT")
    patiently(url, schema).close()
    assert version(admin, schema) == [(NEXT, 1)]


async def test_opening_tries_an_upgrade_again_until_the_table_is_free(older, url, schema, admin, next_release):
    admin.execute("BEGIN")
    admin.execute(f"SELECT count(*) FROM {schema}.jobs".encode())
    async with trio.open_nursery() as nursery:

        async def commit() -> None:
            await trio.sleep(1)
            admin.execute("COMMIT")

        nursery.start_soon(commit)
        async with open_store(f"{url}&schema={schema}"):
            assert version(admin, schema) == [(NEXT, 1)]


# Servers that cannot be used


@pytest.mark.parametrize(
    ("text", "product"),
    [
        ("CockroachDB CCL v25.2.1 (x86_64-pc-linux-gnu, built 2025/06/17, go1.23)", "CockroachDB"),
        ("PostgreSQL 15.2-YB-2025.1.0.0-b0 on x86_64-pc-linux-gnu, compiled by clang", "YugabyteDB"),
        ("PostgreSQL 8.0.2 on i686-pc-linux-gnu, compiled by GCC, Redshift 1.0.12103", "Redshift"),
        ("PostgreSQL 9.5.0 on x86_64-unknown-linux-gnu (Materialize v0.130.0)", "Materialize"),
    ],
)
def test_other_products_are_refused_by_name(url, schema, admin, text, product):
    fake = f"{schema}_fake"
    admin.execute(f"CREATE SCHEMA {fake}".encode())
    admin.execute(f"CREATE FUNCTION {fake}.version() RETURNS text LANGUAGE sql AS $$ SELECT '{text}' $$".encode())
    try:
        with new_role(admin, url, f"USAGE ON SCHEMA {fake}") as of_role:
            admin.execute(f"ALTER ROLE {user_of(of_role)} SET search_path = {fake}, pg_catalog".encode())
            with pytest.raises(StoreUnavailable, match=f"is {product}, not PostgreSQL"):
                opened(of_role, schema)
    finally:
        admin.execute(f"DROP SCHEMA {fake} CASCADE".encode())


def test_an_old_server_is_refused(url, schema, monkeypatch):
    monkeypatch.setattr(connecting, "OLDEST_SERVER", 990_000)
    with pytest.raises(StoreUnavailable, match=r"is PostgreSQL \d\d: 14 or newer is needed"):
        opened(url, schema)


@pytest.mark.parametrize("encoding", ["LATIN1", "SQL_ASCII"])
def test_a_database_that_cannot_store_all_text_is_refused(admin, encoding):
    name = f"encoded_{uuid.uuid4().hex}"
    admin.execute(f"CREATE DATABASE {name} ENCODING '{encoding}' LOCALE 'C' TEMPLATE template0".encode())
    try:
        with pytest.raises(StoreUnavailable, match=f"has the encoding {encoding}, which cannot store all text"):
            opened(shared_server().url(name), "cronactors")
    finally:
        admin.execute(f"DROP DATABASE {name}".encode())


def test_text_is_stored_whatever_the_encoding_of_this_process(url, schema, monkeypatch):
    monkeypatch.setenv("PGCLIENTENCODING", "LATIN1")
    with closing(opened(url, schema)) as storage:
        put(storage, "日本語 €")
        assert names(storage) == ["日本語 €"]


async def test_a_database_that_is_missing(url):
    with pytest.raises(StoreUnavailable, match='/nowhere/cronactors cannot be reached: .*database "nowhere" does not exist'):
        async with open_store(shared_server().url("nowhere")):
            pass


async def test_a_server_that_is_missing_is_waited_for(tmp_path, monkeypatch):
    monkeypatch.setattr(store_lifetime, "OPEN_TIMEOUT", 0.3)
    started = time.monotonic()
    with pytest.raises(StoreUnavailable, match="cannot be reached: .*No such file or directory"):
        async with open_store(f"postgresql:///agents?host={tmp_path}"):
            pass
    assert time.monotonic() - started >= 0.3


async def test_a_host_that_is_missing_is_not_waited_for():
    with pytest.raises(StoreUnavailable, match="postgresql://nowhere.invalid/agents/cronactors cannot be reached"):
        async with open_store("postgresql://nowhere.invalid/agents"):
            pass


@pytest.mark.slow
async def test_a_server_that_is_being_started_is_waited_for():
    with OwnServer() as server:
        url = new_database(server)
        server.stop()
        starting = threading.Timer(0.5, server.start)
        starting.start()
        async with open_store(url) as store:
            await store.add_job("job", "it", Interval(60_000))
        starting.join()


async def test_the_first_host_that_can_be_reached_is_used(url, schema, tmp_path):
    given = conninfo_to_dict(url)
    hosts = with_parameters(url, host=f"{tmp_path},{given['host']}", port=f"1,{given.get('port') or 5432}")
    async with open_store(f"{hosts}&schema={schema}") as store:
        await store.add_job("job", "it", Interval(60_000))


async def test_an_address_may_name_the_schema(url, schema):
    async with open_store(f"{url}&schema={schema}") as store:
        assert store.path.endswith(f"/{schema}")
        await store.add_job("job", "it", Interval(60_000))
    with closing(opened(url, schema, create=False)) as storage:
        assert storage.begin(write=False)
        assert [row.name for _, row in storage.list_jobs(after=0, limit=10, user_id=None)] == ["job"]
        storage.rollback()
