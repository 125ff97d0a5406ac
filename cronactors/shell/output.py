"""The output of a command, of which the first and the last bytes are kept."""

from __future__ import annotations

import trio


class HeadAndTail:
    """Keeps the first and the last bytes of a stream, however much comes."""

    def __init__(self, head: int, tail: int) -> None:
        self._head, self._tail = bytearray(), bytearray()
        self._head_size, self._tail_size = head, tail
        self._lost = 0

    async def fill(self, stream: trio.abc.ReceiveStream) -> None:
        """Read a stream to its end and close it. Cancelled: what came so far stays."""
        async with stream:
            async for chunk in stream:
                self.add(chunk)

    def add(self, chunk: bytes | bytearray) -> None:
        """Take the next piece."""
        room = self._head_size - len(self._head)
        self._head += chunk[:room]
        self._tail += chunk[room:]
        if (excess := len(self._tail) - self._tail_size) > 0:
            del self._tail[:excess]
            self._lost += excess

    def text(self) -> str:
        """Answer what was kept as text without NUL and without the last line's end; what is no UTF-8 is replaced."""
        gap = f"\n… {self._lost:,} bytes left out …\n" if self._lost and self._head_size else ""
        pieces = [bytes(self._head), bytes(self._tail)] if gap else [bytes(self._head + self._tail)]
        return gap.join(piece.decode("utf-8", "replace") for piece in pieces).replace("\0", "").rstrip("\n")
