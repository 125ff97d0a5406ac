"""Notices of other schedulers, by LISTEN and NOTIFY: on a thread and a connection of its own.

Notices only make reactions faster. Whatever is not heard is found by the next tick: everything works without this thread.
"""

from __future__ import annotations

import logging
import os
import random
import socket
import threading
from collections.abc import Callable
from contextlib import suppress

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
        self._descriptor: int | None = None
        self._lock = threading.Lock()  # between the end of a connection and `stop`
        self._thread = threading.Thread(target=self._run, name="cronactors-listen", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Let the thread end. It does so at once, unless it is just connecting; then nobody waits for it."""
        self._stopping.set()
        with self._lock:
            connected = self._descriptor is not None
            if self._descriptor is not None:  # wakes the thread with an error
                with suppress(OSError), socket.socket(fileno=os.dup(self._descriptor)) as connection:
                    connection.shutdown(socket.SHUT_RDWR)
        if connected:
            self._thread.join()

    def _run(self) -> None:
        pauses, failing, unheard = backoff(*_PAUSES), False, 0
        while not self._stopping.is_set():
            try:
                with self._connect() as connection:
                    self._note_connection(connection.fileno())
                    try:
                        if self._test(connection):
                            if failing:
                                logger.info("%s: notices of other schedulers are heard again", self._name)
                            if unheard >= _DEAF_AFTER:
                                self._deaf(False)
                            pauses, failing, unheard = backoff(*_PAUSES), False, 0
                            self._listen(connection)
                    finally:
                        self._note_connection(None)
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

    def _note_connection(self, descriptor: int | None) -> None:
        with self._lock:
            self._descriptor = descriptor
        if descriptor is not None and self._stopping.is_set():
            raise OSError("stopping")

    def _test(self, connection: psycopg.Connection[tuple[object, ...]]) -> bool:
        """Listen, and return whether our own notice is heard."""
        connection.execute(sql.SQL("LISTEN {}").format(sql.Identifier(self._channel)))
        self._heard()
        test = f"{self._own}?"
        with self._connect() as other:
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
