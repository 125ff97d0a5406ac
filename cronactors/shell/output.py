"""The output of a command, of which we keep the first and the last bytes."""

from __future__ import annotations

import trio

from cronactors.shell.live_lines import LiveLines


class HeadAndTail:
    """The first and the last bytes of a stream. Its memory is bounded, however much the stream holds.

    Args:
        head: How many bytes to keep from the beginning.
        tail: How many bytes to keep from the end.
    """

    def __init__(self, head: int, tail: int) -> None:
        self._head, self._tail = bytearray(), bytearray()
        self._head_size, self._tail_size = head, tail
        self._dropped = 0

    async def fill(self, stream: trio.abc.ReceiveStream, live: LiveLines) -> None:
        """Read a stream to its end and close it. If it is cancelled, the bytes read so far are kept.

        Args:
            stream: The stream.
            live: Gets the same bytes, as they come.
        """
        try:
            async with stream:
                async for chunk in stream:
                    self.add(chunk)
                    live.add(chunk)
        finally:
            live.add(b"", last=True)

    def add(self, chunk: bytes | bytearray) -> None:
        """Add the next bytes."""
        room = self._head_size - len(self._head)
        self._head += chunk[:room]
        self._tail += chunk[room:]
        if (excess := len(self._tail) - self._tail_size) > 0:
            del self._tail[:excess]
            self._dropped += excess

    def text(self) -> str:
        """Return the kept bytes as text, without NULs and trailing newlines. Bytes that are not UTF-8 are replaced."""
        gap = f"\n… {self._dropped:,} bytes left out …\n" if self._dropped and self._head_size else ""
        pieces = [bytes(self._head), bytes(self._tail)] if gap else [bytes(self._head + self._tail)]
        return gap.join(piece.decode("utf-8", "replace") for piece in pieces).replace("\0", "").rstrip("\n")
