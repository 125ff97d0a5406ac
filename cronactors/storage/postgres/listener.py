"""Notices of other schedulers, by LISTEN and NOTIFY: on a thread and a connection of its own.

Notices only make reactions faster. Whatever is not heard is found by the next tick: everything works without this thread.
"""

from __future__ import annotations

import logging
import random
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import psycopg
from psycopg import sql

from cronactors.backoff import backoff
from cronactors.storage.postgres.errors import first_line

logger = logging.getLogger("cronactors.store")

PING_EVERY = 5.0
"""After how long (s) of silence the connection is checked."""
_TEST_LIMIT = 1.0  # (s) for our own notice to come back
_DEAF_AFTER = 3
TEST_AGAIN = 60.0
"""How long (s) one that counts as deaf waits before it tests that again."""
_PAUSES = (0.1, 5.0)  # (s) between attempts to connect
_ANY_FAMILY = socket.AF_INET  # only `connect` and the like need the right one
_JOIN_LIMIT = 0.05
"""How long (s) `Listener.stop` waits for the thread, once its connections are shut down: it is called in the event loop."""


class Listener:
    """Calls a function whenever another process has notified the channel, and once after each connection: what came before it was lost.

    Behind a pooler in transaction mode a LISTEN is forgotten. So we first notify it on another connection; what we sent on its own would
    often come back even there. If it does not hear that three times in a row, it counts as deaf until it does: one such test could also
    fail because this process was stopped.

    Args:
        connect: Makes a connection.
        channel: The name of the channel.
        own: What this process sends, and need not hear.
        name: The store, as messages name it.
        heard: Called on the thread.
        deaf: Called on the thread with True when it counts as deaf, and with False when it hears again.
    """

    def __init__(
        self,
        connect: Callable[[], psycopg.Connection[tuple[object, ...]]],
        channel: str,
        *,
        own: str,
        name: str,
        heard: Callable[[], None],
        deaf: Callable[[bool], None],
    ) -> None:
        self._connect = connect
        self._channel = channel
        self._own = own
        self._name = name
        self._heard = heard
        self._deaf = deaf
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self._sockets: list[socket.socket] = []
        self._is_connecting = False
        self._thread = threading.Thread(target=self._run, name="cronactors-listen", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Let the thread end. It does so at once, unless it is just connecting; then nobody waits for it. Never blocks for long."""
        with self._lock:
            self._stopping.set()
            wakes = bool(self._sockets) and not self._is_connecting
            for each in self._sockets:  # wakes the thread with an error
                with suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)
        if wakes:
            self._thread.join(_JOIN_LIMIT)

    def _run(self) -> None:
        pauses, failing, unheard = backoff(*_PAUSES), False, 0
        while not self._stopping.is_set():
            try:
                with self._connected() as connection:
                    if self._test(connection):
                        if failing:
                            logger.info("%s: notices of other schedulers are heard again", self._name)
                        if unheard >= _DEAF_AFTER:
                            self._deaf(False)
                        pauses, failing, unheard = backoff(*_PAUSES), False, 0
                        self._listen(connection)
                unheard += 1
                if unheard == _DEAF_AFTER and not self._stopping.is_set():
                    failing = True
                    reason = "as behind a pooler in transaction mode: the store is read more often"
                    logger.warning("%s: no notices of other schedulers are heard, %s", self._name, reason)
                    self._deaf(True)
                self._stopping.wait(0 if unheard < _DEAF_AFTER else TEST_AGAIN)
            except (psycopg.Error, OSError) as error:
                if not failing and not self._stopping.is_set():
                    failing = True
                    reason = first_line(error) if isinstance(error, psycopg.Error) else str(error)
                    logger.info(
                        "%s: notices of other schedulers are not heard now (%s); the tick finds what they say", self._name, reason
                    )
                self._stopping.wait(next(pauses) * random.uniform(0.5, 1))  # noqa: S311 - schedulers must not come back together

    @contextmanager
    def _connected(self) -> Iterator[psycopg.Connection[tuple[object, ...]]]:
        """Make a connection that `stop` can shut down.

        It does so by a duplicate: libpq closes the socket of a lost connection, and its number may be that of another one then.
        """
        self._is_connecting = True
        try:
            made = self._connect()
        finally:
            self._is_connecting = False
        with made as connection, socket.fromfd(connection.fileno(), _ANY_FAMILY, socket.SOCK_STREAM) as duplicate:
            with self._lock:
                if self._stopping.is_set():
                    raise OSError("stopping")
                self._sockets.append(duplicate)
            try:
                yield connection
            finally:
                with self._lock:
                    self._sockets.remove(duplicate)

    def _test(self, connection: psycopg.Connection[tuple[object, ...]]) -> bool:
        """Listen, and return whether our own notice is heard."""
        connection.execute(sql.SQL("LISTEN {}").format(sql.Identifier(self._channel)))
        self._heard()
        test = f"{self._own}?"
        with self._connected() as other:
            other.execute("SELECT pg_notify(%s, %s)", [self._channel, test])
        return any(notice.payload == test for notice in connection.notifies(timeout=_TEST_LIMIT, stop_after=1))

    def _listen(self, connection: psycopg.Connection[tuple[object, ...]]) -> None:
        while not self._stopping.is_set():
            silent = True
            for notice in connection.notifies(timeout=PING_EVERY):
                silent = False
                if self._own not in notice.payload:
                    self._heard()
            if silent:
                connection.execute("SELECT 1")
