"""The lines of a run that are not stored yet: bounded, however much a run logs while the store is slow."""

from __future__ import annotations

from cronactors.run_output import OUTPUT_HEAD, OUTPUT_TAIL, Piece, whole_characters


class OutputBuffer:
    """Keeps the head of the output, and the last 64 KiB of the rest. Not safe for threads.

    Attributes:
        end: The position after all lines.
    """

    def __init__(self) -> None:
        self.end = 0
        self._stored = 0  # the position up to which the store has them
        self._first = bytearray()  # from _stored on, up to the end of the head: nothing in it is ever left out
        self._last = bytearray()  # up to the end

    def add(self, content: bytes) -> None:
        """Add lines."""
        room = max(OUTPUT_HEAD - self.end, 0)
        self._first += content[:room]
        self._last += content[max(room, len(content) - OUTPUT_TAIL) :]
        if (excess := len(self._last) - OUTPUT_TAIL) > 0:
            del self._last[:excess]
        self.end += len(content)

    def pieces(self) -> tuple[Piece, ...]:
        """Return the lines that are kept and not stored: one piece, or two if lines between them were left out."""
        last_start = self.end - len(self._last)
        if not self._first:
            found = [whole_characters(last_start, self._last)]
        elif self._stored + len(self._first) == last_start:
            found = [whole_characters(self._stored, self._first + self._last)]
        else:
            found = [whole_characters(self._stored, self._first), whole_characters(last_start, self._last)]
        return tuple(piece for piece in found if piece.content)

    def stored(self, end: int) -> None:
        """Forget the lines that the store has: all before a position, at which a line ended."""
        del self._first[: end - self._stored]
        del self._last[: max(0, end - (self.end - len(self._last)))]
        self._stored = end
