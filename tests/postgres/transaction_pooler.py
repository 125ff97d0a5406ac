"""A pooler in transaction mode, as pgbouncer is: each transaction of a client gets another connection to the server."""

from __future__ import annotations

import select
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from itertools import cycle
from pathlib import Path

SOCKET = ".s.PGSQL.5432"
KEY = b"K"  # the number of the server's process, and a secret to cancel by
READY = b"Z"


class _Stream:
    """One side of the protocol: messages with a type and a length."""

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection
        self._read = b""

    def startup(self) -> bytes:
        """Read the first message of a client, which has no type."""
        (length,) = struct.unpack("!I", header := self._exactly(4))
        return header + self._exactly(length - 4)

    def message(self) -> tuple[bytes, bytes]:
        """Read a message, and return its type and all of it."""
        header = self._exactly(5)
        (length,) = struct.unpack("!I", header[1:])
        return header[:1], header + self._exactly(length - 4)

    def _exactly(self, count: int) -> bytes:
        while len(self._read) < count:
            received = self.socket.recv(65_536)
            if not received:
                raise ConnectionError
            self._read += received
        taken, self._read = self._read[:count], self._read[count:]
        return taken

    @property
    def has_more(self) -> bool:
        return bool(self._read)


def _serve(connection: socket.socket, server: str) -> None:
    with ExitStack() as stack, suppress(ConnectionError, OSError):
        client = _Stream(stack.enter_context(connection))
        startup = client.startup()
        servers = []
        for number in range(2):
            other = _Stream(stack.enter_context(socket.socket(socket.AF_UNIX)))
            other.socket.connect(server)
            other.socket.sendall(startup)
            kind = b""
            while kind != READY:
                kind, message = other.message()
                if kind == KEY:
                    message = message[:5] + struct.pack("!II", 4711, 4711)
                if number == 0:
                    client.socket.sendall(message)
            servers.append(other)
        for chosen in cycle(servers):
            _transaction(client, chosen)


def _transaction(client: _Stream, server: _Stream) -> None:
    """Pass messages on until the server is ready outside of a transaction."""
    unanswered = 0
    while True:
        readable = [each for each in (client, server) if each.has_more]
        if not readable:
            sockets, _, _ = select.select([client.socket, server.socket], [], [])
            readable = [each for each in (client, server) if each.socket in sockets]
        for each in readable:
            kind, message = each.message()
            if each is client:
                unanswered += kind in (b"Q", b"S")
                server.socket.sendall(message)
                if kind == b"X":
                    raise ConnectionError
            else:
                client.socket.sendall(message)
                if kind == READY:
                    unanswered -= 1
                    if not unanswered and message[5:] == b"I":
                        return


@contextmanager
def transaction_pooler(folder: Path, server: str) -> Iterator[None]:
    """Run a pooler in front of a server.

    Args:
        folder: Where its socket is.
        server: The path of the server's socket.
    """
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(folder / SOCKET))
        listening.listen()

        def accept() -> None:
            with suppress(OSError):
                while True:
                    connection, _ = listening.accept()
                    threading.Thread(target=_serve, args=[connection, server], daemon=True).start()

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        try:
            yield
        finally:
            listening.shutdown(socket.SHUT_RDWR)
            thread.join()
