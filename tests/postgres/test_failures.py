"""What a batch becomes when the server fails, by errors that are made up and by the real thing."""

from __future__ import annotations

import logging
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import attrs
import psycopg
import pytest
from psycopg.pq import TransactionStatus

from cronactors.actors.mailbox import Request
from cronactors.actors.store import BatchResult, Done, Failed, Locked, run_batch
from cronactors.errors import StoreCorrupt, StoreUnavailable
from cronactors.storage.errors import Contended
from cronactors.storage.postgres import connecting, session
from cronactors.storage.postgres.storage import PostgresStorage
from cronactors.storage.protocol import Storage
from tests.postgres.injection import BEGIN, COMMIT, ROLLBACK, SAVEPOINT, STATEMENT, at_statement, made_up, raise_at
from tests.postgres.roles import RIGHTS, new_role, user_of
from tests.postgres_server import OwnServer, new_database, shared_server
from tests.store_under_test import Names, Put, serving, store_name

CONTENDED = ["55P03", "40P01", "40001"]
SPOILT = ["0A000", "26000", "42P05"]
CANNOT_NOW = ["57014", "53100", "53200", "53300", "53400", "25006", "57P03", "42501", "58030", "XX000", "54000", "55000", "55006"]
CANNOT_NOW += ["57000", "72000", "28000", "28P01", "3D000"]
LOST = ["25P03", "25P04", "57P01", "57P02", "57P04", "57P05", "08006", "08003", None]
NOT_OURS = ["42P01", "42703", "3F000", "XX001", "XX002"]
BUGS = ["22P02", "22003", "42601", "42883", "23502"]


@cache
def own_database() -> str:
    """A database in which no other test has connections."""
    return new_database(shared_server())


@pytest.fixture
def storage() -> Iterator[PostgresStorage]:
    """A storage without owners on the server of this process."""
    with closing(PostgresStorage(own_database(), schema="failing")) as opened:
        opened._execute("DELETE FROM @owners")
        yield opened


@pytest.fixture(scope="module")
def server() -> Iterator[OwnServer]:
    with OwnServer(max_connections="20") as started:
        yield started


@pytest.fixture
def database(server: OwnServer) -> str:
    """A database on a server that the test may stop."""
    return new_database(server)


@pytest.fixture
def away(database: str) -> Iterator[PostgresStorage]:
    """A storage in it."""
    with closing(PostgresStorage(database, schema="cronactors")) as opened:
        yield opened


@pytest.fixture
def admin(database: str) -> Iterator[psycopg.Connection[tuple[object, ...]]]:
    with psycopg.connect(database, autocommit=True) as connection:
        yield connection


def names(storage: PostgresStorage) -> list[str]:
    result = run_batch(storage, [Names()])
    assert isinstance(result, Done)
    (stored,) = result.replies
    assert isinstance(stored, list)
    return stored


def put(storage: PostgresStorage, name: str = "a") -> BatchResult:
    return run_batch(storage, [Put(name)])


def put_until_done(storage: PostgresStorage, name: str, within: float = 30) -> None:
    until = time.monotonic() + within
    while not isinstance(result := put(storage, name), Done):
        assert time.monotonic() < until, result
        time.sleep(0.02)


def sessions(storage: PostgresStorage) -> list[str]:
    """The states of the storage's connections, as the server shows them. It takes a moment to notice that one was closed."""
    name = storage._session._parameters["application_name"]
    with storage._session.connect_apart() as other:
        states = "SELECT state FROM pg_stat_activity WHERE application_name = %s AND pid <> %s AND datname = current_database()"
        until = time.monotonic() + 10
        while True:
            rows = other.execute(states, [name, other.info.backend_pid]).fetchall()
            if rows in ([], [("idle",)]) or time.monotonic() > until:
                return [str(state) for (state,) in rows]
            time.sleep(0.01)


def assert_usable(storage: PostgresStorage, *expected: str) -> None:
    """Nothing is left open, and the next batch works."""
    connection = storage._session._connection
    assert connection is not None
    assert connection.closed or connection.info.transaction_status == TransactionStatus.IDLE
    assert names(storage) == sorted(expected)
    assert isinstance(put(storage, "next"), Done)
    assert names(storage) == sorted([*expected, "next"])
    assert sessions(storage) == ["idle"]


# Errors that are made up


@pytest.mark.parametrize("at", [BEGIN, STATEMENT, SAVEPOINT, COMMIT])
@pytest.mark.parametrize("sqlstate", [*CONTENDED, *SPOILT])
def test_who_is_in_the_way_is_waited_for(storage, sqlstate, at):
    raise_at(storage, at, made_up(sqlstate))
    again_at_once = at == BEGIN and sqlstate in SPOILT
    assert isinstance(put(storage), Done if again_at_once else Locked)
    assert_usable(storage, *["a"] * again_at_once)


@pytest.mark.parametrize("constraint", ["jobs_user_id_name_key", "runs_session"])
def test_a_row_that_another_transaction_has_added_first_is_found_when_it_is_tried_again(storage, constraint):
    raise_at(storage, STATEMENT, made_up("23505", constraint))
    assert put(storage) == Locked()
    assert_usable(storage)


@pytest.mark.parametrize("at", [BEGIN, STATEMENT, SAVEPOINT, COMMIT])
@pytest.mark.parametrize("sqlstate", CANNOT_NOW)
def test_a_server_that_cannot_refuses_the_batch(storage, sqlstate, at):
    raise_at(storage, at, made_up(sqlstate))
    result = put(storage)
    assert isinstance(result, Failed)
    assert type(result.error) is StoreUnavailable
    assert f"({sqlstate}: made up)" in str(result.error)
    assert_usable(storage)


@pytest.mark.parametrize("sqlstate", LOST)
def test_a_connection_that_was_lost_while_idle_is_made_anew(storage, sqlstate):
    raise_at(storage, BEGIN, made_up(sqlstate))
    assert isinstance(put(storage), Done)
    assert_usable(storage, "a")


@pytest.mark.parametrize("at", [STATEMENT, SAVEPOINT, COMMIT])
@pytest.mark.parametrize("sqlstate", LOST)
def test_a_batch_whose_connection_was_lost_before_the_commit_is_carried_out_again(storage, sqlstate, at):
    raise_at(storage, at, made_up(sqlstate))
    assert put(storage) == Locked()
    assert_usable(storage)


@pytest.mark.parametrize("sqlstate", LOST)
def test_a_commit_whose_reply_was_lost_has_happened(storage, sqlstate):
    raise_at(storage, COMMIT, made_up(sqlstate), carry_out=True)
    result = put(storage)
    assert isinstance(result, Done)
    assert result.replies == ["A"]
    assert result.committed is not None
    assert result.committed.next_times.due is not None  # unknown, so the clock looks
    assert_usable(storage, "a")


@pytest.mark.parametrize("severity", ["FATAL", "PANIC"])
@pytest.mark.parametrize("sqlstate", ["53200", "XX000", "22P02"])
def test_an_error_that_ends_the_connection_is_a_lost_connection_whatever_it_says(storage, sqlstate, severity):
    raise_at(storage, STATEMENT, made_up(sqlstate, severity=severity))
    assert put(storage) == Locked()
    raise_at(storage, COMMIT, made_up(sqlstate, severity=severity), carry_out=True)
    assert isinstance(put(storage), Done)
    assert_usable(storage, "a")


@pytest.mark.parametrize("sqlstate", ["28P01", "3D000", "22023", "42704"])
def test_an_error_of_the_first_statements_on_a_connection_is_no_bug(storage, monkeypatch, sqlstate):
    """As a pooler gives, which accepts the user before it has a connection of its own."""

    def refuse(*_: object) -> None:
        raise made_up(sqlstate, severity="FATAL")

    storage._session.close()
    monkeypatch.setattr(session, "set_up", refuse)
    assert "made up" in refusal(put(storage))
    monkeypatch.undo()
    put_until_done(storage, "a")
    assert_usable(storage, "a")


@pytest.mark.parametrize("sqlstate", LOST)
def test_reads_whose_connection_was_lost_at_the_end_are_carried_out_again(storage, sqlstate):
    raise_at(storage, COMMIT, made_up(sqlstate))
    assert run_batch(storage, [Names()]) == Locked()
    assert_usable(storage)


@pytest.mark.parametrize("at", [BEGIN, STATEMENT, SAVEPOINT, COMMIT])
@pytest.mark.parametrize("sqlstate", NOT_OURS)
def test_a_schema_that_is_not_ours_any_more_is_damage(storage, sqlstate, at):
    raise_at(storage, at, made_up(sqlstate))
    result = put(storage)
    assert isinstance(result, Failed)
    assert type(result.error) is StoreCorrupt
    assert_usable(storage)


@pytest.mark.parametrize("at", [BEGIN, STATEMENT, SAVEPOINT, COMMIT])
@pytest.mark.parametrize("sqlstate", BUGS)
def test_any_other_error_is_a_bug(storage, sqlstate, at):
    raise_at(storage, at, error := made_up(sqlstate))
    with pytest.raises(psycopg.Error) as raised:
        put(storage)
    assert raised.value is error
    assert_usable(storage)


@pytest.mark.parametrize("sqlstate", [None, "57014", "08006", "XX000", "25P02"])
def test_a_rollback_that_fails_closes_the_connection(storage, sqlstate):
    raise_at(storage, ROLLBACK, made_up(sqlstate))
    assert storage.begin(write=True)
    store_name(storage, "a")
    storage.rollback()
    assert not storage._session.connected
    assert_usable(storage)


def test_a_transaction_that_the_server_has_aborted_is_not_taken_for_committed(storage):
    assert storage.begin(write=True)
    store_name(storage, "a")
    with pytest.raises(psycopg.errors.DivisionByZero):
        storage._session.script("SELECT 1 / 0")
    with pytest.raises(StoreUnavailable, match="was rolled back"):
        storage.commit()
    storage.rollback()
    assert_usable(storage)


def test_a_transaction_that_is_interrupted_between_two_statements_is_rolled_back(storage):
    def interrupt() -> None:
        raise KeyboardInterrupt

    at_statement(storage, STATEMENT, interrupt)
    with pytest.raises(KeyboardInterrupt):
        put(storage)
    assert_usable(storage)


@pytest.mark.parametrize("at", [BEGIN, STATEMENT, SAVEPOINT, COMMIT])
@pytest.mark.parametrize("sqlstate", [*CONTENDED, *SPOILT, "57P01", None])
async def test_callers_notice_nothing_of_a_batch_that_is_carried_out_again(storage, caplog, sqlstate, at):
    caplog.set_level(logging.WARNING)
    raise_at(storage, at, made_up(sqlstate))
    async with serving(storage) as (mailbox, actor):
        assert await mailbox.call(Put("a")) == "A"
        assert actor.last_error is None
    assert_usable(storage, "a")
    assert not caplog.records


def test_a_pooler_that_forgets_prepared_statements_is_used_without(storage):
    raise_at(storage, STATEMENT, made_up("26000"))
    assert put(storage) == Locked()
    assert isinstance(put(storage, "b"), Done)
    assert storage._fetch("SELECT count(*) FROM pg_prepared_statements") == [(0,)]


# The fate of a commit that was cut off, by what the server answers


@pytest.fixture
def fates(storage, monkeypatch) -> Callable[..., None]:
    """Set what the server says of the transaction, each time it is asked; an error is raised."""

    def set_fates(*answers: object) -> None:
        left = list(answers)

        def fate(_xid: str, _life: str | None) -> str:
            answer = left.pop(0)
            if isinstance(answer, Exception):
                raise answer
            return str(answer)

        monkeypatch.setattr(storage._session, "_fate", fate)

    return set_fates


def test_who_asks_for_the_fate_waits_for_the_end_of_the_transaction(storage, fates):
    fates("in progress", "in progress", "committed")
    raise_at(storage, COMMIT, made_up(None), carry_out=True)
    assert isinstance(put(storage), Done)


@pytest.mark.parametrize("sqlstate", ["22023", "22P02", "28P01", "XX001"])
def test_an_error_while_the_fate_is_asked_says_nothing_about_it(storage, monkeypatch, sqlstate):
    errors, really = [made_up(sqlstate)] * 2, session.set_up

    def set_up(*arguments: Any) -> object:
        if errors:
            raise errors.pop()
        return really(*arguments)

    monkeypatch.setattr(session, "set_up", set_up)
    raise_at(storage, COMMIT, made_up(None), carry_out=True)
    assert isinstance(put(storage), Done)
    assert not errors
    assert_usable(storage, "a")


def test_a_fate_that_nobody_knows_is_said(storage, fates):
    fates("in progress", "unknown")
    raise_at(storage, COMMIT, made_up(None))
    result = put(storage)
    assert isinstance(result, Failed)
    assert type(result.error) is StoreUnavailable
    assert "which may have been carried out" in str(result.error)


# The real thing


def administrator(storage: PostgresStorage) -> psycopg.Connection[tuple[object, ...]]:
    connection = storage._session.connect_apart()
    connection.execute("SET application_name = 'administrator'")
    return connection


def terminate(storage: PostgresStorage) -> None:
    """End the server's process for the connection of a storage, and wait until it is gone."""
    assert storage._session._connection is not None
    pid = storage._session._connection.info.backend_pid
    with administrator(storage) as admin:
        admin.execute("SELECT pg_terminate_backend(%s)", [pid])
        wait_until(lambda: not admin.execute("SELECT 1 FROM pg_stat_activity WHERE pid = %s", [pid]).fetchall())


def wait_until(condition: Callable[[], object], within: float = 30) -> None:
    until = time.monotonic() + within
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.01)


@attrs.frozen
class Calls(Request[str]):
    """Adds a name and then calls a function, inside its transaction."""

    name: str
    function: Callable[[Storage], object]

    def apply(self, storage: Storage) -> str:
        store_name(storage, self.name)
        self.function(storage)
        storage.owners()
        return self.name


def test_a_process_of_the_server_that_is_terminated_while_idle_is_replaced(storage):
    terminate(storage)
    assert isinstance(put(storage), Done)
    assert_usable(storage, "a")


def test_a_process_of_the_server_that_is_terminated_inside_the_transaction_undoes_it(storage):
    assert run_batch(storage, [Put("a"), Calls("b", lambda _: terminate(storage))]) == Locked()
    assert_usable(storage)


def test_a_process_of_the_server_that_is_terminated_before_the_commit_undoes_it(storage):
    at_statement(storage, COMMIT, lambda: terminate(storage))
    assert put(storage) == Locked()
    assert_usable(storage)


def test_who_was_stopped_inside_a_transaction_for_too_long_has_not_changed_anything(storage):
    def stop(_: Storage) -> None:
        storage._session.script("SET LOCAL idle_in_transaction_session_timeout = '10ms'")
        with administrator(storage) as admin:
            pid = storage._session._connection.info.backend_pid  # type: ignore[union-attr]  # it is connected
            wait_until(lambda: not admin.execute("SELECT 1 FROM pg_stat_activity WHERE pid = %s", [pid]).fetchall())

    assert run_batch(storage, [Calls("a", stop)]) == Locked()
    assert_usable(storage)


@pytest.mark.parametrize(
    ("setting", "sqlstate"), [("statement_timeout", "57014"), ("lock_timeout", "55P03"), ("transaction_timeout", "25P04")]
)
def test_the_limits_of_a_connection(storage, setting, sqlstate):
    """Each ends the wait for a row that another transaction holds."""
    own = storage._session
    own.connect()
    if setting == "transaction_timeout" and own._connection.info.server_version < 170_000:
        pytest.skip("since PostgreSQL 17")
    assert isinstance(put(storage, "held"), Done)
    own.script("SET lock_timeout = 0; SET statement_timeout = 0")
    own.script(f"SET {setting} = '100ms'")

    def wait(_: Storage) -> None:
        own.script("UPDATE @owners SET pid = 2")

    with administrator(storage) as other:
        other.execute("BEGIN")
        other.execute('UPDATE "failing".owners SET pid = 1')
        result = run_batch(storage, [Calls("a", wait)])
        other.execute("ROLLBACK")
    if sqlstate == "57014":
        assert isinstance(result, Failed)
        assert type(result.error) is StoreUnavailable
        assert "57014" in str(result.error)
    else:
        assert result == Locked()
    own.close()
    assert_usable(storage, "held")


def test_the_settings_that_bound_waits_are_in_force(storage):
    settings = {"lock_timeout": "200ms", "statement_timeout": "10s", "idle_in_transaction_session_timeout": "2s"}
    for name, value in settings.items():
        assert storage._session.script(f"SHOW {name}") == [(value,)]


def test_a_server_without_a_new_life_is_in_the_same(storage):
    life = storage._session._life
    assert life is not None
    terminate(storage)
    assert isinstance(put(storage), Done)
    assert storage._session._life == life


@contextmanager
def no_standby(server: OwnServer, storage: PostgresStorage) -> Iterator[psycopg.Connection[tuple[object, ...]]]:
    """Let each commit wait for a standby that is not there."""
    with administrator(storage) as admin:
        admin.execute("ALTER SYSTEM SET synchronous_standby_names = 'nobody'")
        admin.execute("SELECT pg_reload_conf()")
        wait_until(lambda: admin.execute("SHOW synchronous_standby_names").fetchall() == [("nobody",)])

        def probe() -> None:
            with pytest.raises(psycopg.Error), administrator(storage) as other:
                other.execute("CREATE TABLE IF NOT EXISTS public.probe (x int)")
                while True:
                    other.execute("INSERT INTO public.probe VALUES (1)")

        with thread(probe):
            wait_until(lambda: waiting_for_standby(admin, "administrator"))
            assert terminate_waiting(admin, "administrator")
        try:
            yield admin
        finally:
            server.settings["synchronous_standby_names"] = ""
            if not admin.closed:
                admin.execute("ALTER SYSTEM RESET synchronous_standby_names")
                admin.execute("SELECT pg_reload_conf()")
                wait_until(lambda: admin.execute("SHOW synchronous_standby_names").fetchall() == [("",)])


def waiting_for_standby(admin: psycopg.Connection[tuple[object, ...]], application: object) -> list[tuple[object, ...]]:
    text = "SELECT pid FROM pg_stat_activity WHERE wait_event = 'SyncRep' AND application_name = %s AND pid <> pg_backend_pid()"
    return admin.execute(text, [application]).fetchall()


def terminate_waiting(admin: psycopg.Connection[tuple[object, ...]], application: object) -> bool:
    pids = waiting_for_standby(admin, application)
    return bool(pids) and all(admin.execute("SELECT pg_terminate_backend(%s)", [pid]).fetchall() == [(True,)] for (pid,) in pids)


@contextmanager
def thread(function: Callable[[], None]) -> Iterator[None]:
    """Run a function on another thread meanwhile; raise its exception."""
    errors: list[BaseException] = []

    def run() -> None:
        try:
            function()
        except BaseException as error:
            errors.append(error)

    started = threading.Thread(target=run)
    started.start()
    try:
        yield
    finally:
        started.join(60)
        assert not started.is_alive()
    if errors:
        raise errors[0]


def test_a_commit_that_is_cut_off_after_it_has_happened(server, away):
    results: list[BatchResult] = []
    name = away._session._parameters["application_name"]
    with no_standby(server, away) as admin, thread(lambda: results.append(put(away))):
        wait_until(lambda: waiting_for_standby(admin, name))
        assert terminate_waiting(admin, name)
    (result,) = results
    assert isinstance(result, Done)
    assert_usable(away, "a")


@pytest.mark.slow
def test_a_commit_that_is_cut_off_by_a_crash_of_the_server_may_have_happened(server, away):
    results: list[BatchResult] = []
    name = away._session._parameters["application_name"]
    with no_standby(server, away) as admin, thread(lambda: results.append(put(away))):
        wait_until(lambda: waiting_for_standby(admin, name))
        server.kill()
        admin.close()
        server.settings["synchronous_standby_names"] = ""
        server.start()
    with psycopg.connect(server.url(), autocommit=True) as admin:
        admin.execute("ALTER SYSTEM RESET synchronous_standby_names")
    (result,) = results
    assert isinstance(result, Failed)
    assert "which may have been carried out" in str(result.error)
    assert_usable(away, "a")


def begin_transactions(connection: psycopg.Connection[tuple[object, ...]], until: str) -> bool:
    """Begin one transaction after the other; return whether one of them got a number. That one stays open."""
    while True:
        connection.execute("BEGIN")
        ((number,),) = connection.execute("SELECT pg_current_xact_id()::text").fetchall()
        if int(str(number)) >= int(until):
            return number == until
        connection.execute("ROLLBACK")


@pytest.mark.slow
@pytest.mark.parametrize("other", ["nothing", "in progress", "aborted", "committed"])
def test_the_number_of_a_transaction_that_a_crash_has_undone_may_be_given_again(other):
    """Its fate is not that of the transaction that had the number before the crash."""
    with (
        OwnServer(wal_level="minimal", max_wal_senders="0", wal_writer_delay="10s") as server,
        closing(PostgresStorage(new_database(server), schema="cronactors")) as storage,
    ):
        assert storage.begin(write=True)
        store_name(storage, "a")
        server.kill()
        server.start()
        with psycopg.connect(server.url("postgres"), autocommit=True) as connection:
            if other != "nothing":
                assert begin_transactions(connection, storage._session._xid), "it is not given again"
                if other != "in progress":
                    connection.execute("CREATE TABLE public.others (x int)")
                    connection.execute("COMMIT" if other == "committed" else "ROLLBACK")
            with pytest.raises(StoreUnavailable) as raised:
                storage.commit()
        storage.rollback()
        assert isinstance(raised.value, Contended) == (other != "committed")
        assert_usable(storage)


def set_for_all(admin: psycopg.Connection[tuple[object, ...]], name: str, value: str) -> None:
    """Set a setting of the server, and wait until it is in force."""
    admin.execute(f"ALTER SYSTEM SET {name} = {value}".encode())
    admin.execute("SELECT pg_reload_conf()")
    wait_until(lambda: admin.execute(f"SHOW {name}".encode()).fetchall() == [(value,)])


def refusal(result: BatchResult) -> str:
    assert isinstance(result, Failed)
    assert type(result.error) is StoreUnavailable
    return str(result.error)


def test_a_server_that_has_become_read_only(away, admin):
    assert isinstance(put(away, "a"), Done)
    set_for_all(admin, "default_transaction_read_only", "on")
    try:
        assert "(25006: cannot execute INSERT in a read-only transaction)" in refusal(put(away, "b"))
        assert "session is read-only" in refusal(put(away, "b"))
    finally:
        admin.execute("SET default_transaction_read_only = off")
        set_for_all(admin, "default_transaction_read_only", "off")
    put_until_done(away, "c")
    assert_usable(away, "a", "c")


def test_a_privilege_that_is_missing(away, admin, database):
    away.close()
    with new_role(admin, database, *RIGHTS) as url, closing(PostgresStorage(url, schema="cronactors")) as storage:
        assert isinstance(put(storage, "a"), Done)
        admin.execute(f"REVOKE INSERT ON cronactors.owners FROM {user_of(url)}".encode())
        assert "(42501: permission denied for table owners)" in refusal(put(storage, "b"))
        admin.execute(f"GRANT INSERT ON cronactors.owners TO {user_of(url)}".encode())
        assert_usable(storage, "a")


def test_all_connections_used_up(away, admin, database):
    away.close()
    with new_role(admin, database, *RIGHTS) as url, closing(PostgresStorage(url, schema="cronactors")) as storage:
        assert storage._session._connection is not None
        admin.execute("SELECT pg_terminate_backend(%s, 10000)", [storage._session._connection.info.backend_pid])
        others = []
        try:
            with pytest.raises(psycopg.OperationalError):
                while True:
                    others.append(psycopg.connect(url))
            assert "too many clients" in refusal(put(storage, "a")) or "connection slots" in refusal(put(storage, "a"))
            assert isinstance(run_batch(storage, [Names()]), Failed)
        finally:
            for other in others:
                other.close()
        put_until_done(storage, "b")
        assert names(storage) == ["b"]


@pytest.fixture
def small_disk() -> Iterator[tuple[OwnServer, Path]]:
    """A server, and a folder on a small disk of its own, which only root can make."""
    with OwnServer() as server:
        folder = server.folder / "small"
        folder.mkdir()
        mount = ["mount", "-t", "tmpfs", "-o", "size=24m,mode=0777", "none", str(folder)]
        if subprocess.run(mount, capture_output=True, check=False).returncode:
            pytest.skip("only root can mount a small disk")
        try:
            yield server, folder
        finally:
            server.stop("immediate")
            subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.slow
def test_a_disk_that_is_full(small_disk):
    server, folder = small_disk
    (folder / "data").mkdir()
    shutil.chown(folder / "data", server.data.stat().st_uid, server.data.stat().st_gid)
    with psycopg.connect(server.url(), autocommit=True) as admin:
        admin.execute(f"CREATE TABLESPACE small LOCATION '{folder / 'data'}'".encode())
        admin.execute("CREATE DATABASE small TEMPLATE template0 TABLESPACE small")
    with closing(PostgresStorage(server.url("small"), schema="cronactors")) as storage:
        assert isinstance(put(storage, "a"), Done)
        filler = folder / "filler"
        with suppress(OSError), filler.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))
        random = Random(0)
        many = [Put(random.randbytes(100_000).hex()) for _ in range(20)]
        assert "53100" in refusal(run_batch(storage, many))
        assert names(storage) == ["a"]
        filler.unlink()
        assert_usable(storage, "a")


@pytest.mark.slow
def test_a_server_that_is_stopped_for_a_moment_delays_a_batch(server, away):
    server.pause()
    resume = threading.Timer(1, server.resume)
    resume.start()
    started = time.monotonic()
    assert isinstance(put(away), Done)
    assert time.monotonic() - started > 0.5
    resume.join()
    assert_usable(away, "a")


@pytest.mark.slow
def test_a_server_that_does_not_answer_is_given_up(server, database, monkeypatch):
    with closing(PostgresStorage(f"{database}&connect_timeout=2", schema="cronactors")) as storage:
        monkeypatch.setattr(connecting, "ANSWER_LIMIT", 0.5)
        server.pause()
        try:
            assert "cannot be reached" in refusal(put(storage, "a"))
            started = time.monotonic()
            assert "cannot be reached" in refusal(put(storage, "b"))
            assert time.monotonic() - started < 1  # without trying
        finally:
            server.resume()
        monkeypatch.undo()
        put_until_done(storage, "c")
        assert_usable(storage, "c")


@pytest.mark.slow
def test_a_commit_that_is_not_answered_may_have_happened(server, database, monkeypatch):
    with closing(PostgresStorage(f"{database}&connect_timeout=2", schema="cronactors")) as storage:

        def pause() -> None:
            storage._session.script("SET LOCAL idle_in_transaction_session_timeout = 0")
            monkeypatch.setattr(connecting, "ANSWER_LIMIT", 0.5)
            monkeypatch.setattr(session, "FATE_WITHIN", 0.5)
            server.pause()

        at_statement(storage, COMMIT, pause)
        try:
            assert "which may have been carried out" in refusal(put(storage, "a"))
        finally:
            server.resume()
        monkeypatch.undo()
        put_until_done(storage, "b")
        wait_until(lambda: names(storage) == ["a", "b"])  # the server carries out what it had received


@pytest.mark.slow
@pytest.mark.parametrize("how", ["kill", "immediate", "fast"])
def test_a_server_that_ends_and_comes_back(server, away, how):
    assert isinstance(put(away, "a"), Done)
    assert away.begin(write=True)
    store_name(away, "lost")
    server.kill() if how == "kill" else server.stop(how)
    with pytest.raises(Contended):
        wait_until(lambda: store_name(away, "lost too"))  # the processes of a server that was killed take a moment to exit
    away.rollback()
    assert "cannot be reached" in refusal(put(away, "b"))
    server.start()
    put_until_done(away, "c")
    assert_usable(away, "a", "c")


@pytest.mark.slow
def test_a_server_that_is_away_is_not_stormed(server, away, monkeypatch):
    attempts: list[float] = []
    make = session.new_connection

    def counted(parameters: dict[str, str], name: str) -> connecting.ServerConnection:
        attempts.append(time.monotonic())
        return make(parameters, name)

    monkeypatch.setattr(session, "new_connection", counted)
    server.stop("immediate")
    until, batches = time.monotonic() + 3, 0
    while time.monotonic() < until:
        refusal(put(away, "a"))
        batches += 1
        time.sleep(0.001)
    assert len(attempts) <= 10  # pauses of 0.05 to 0.1 s, 0.1 to 0.2, 0.2 to 0.4, 0.4 to 0.8, 0.8 to 1.6
    assert batches > 10 * len(attempts)
    server.start()
    put_until_done(away, "b", within=30)
