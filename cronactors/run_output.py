"""The output of a run, its lines and its progress: the values that users read, and the pieces in which lines are kept.

A position in the output is the number of bytes before it, in UTF-8. It never changes, also when the middle is left out.
"""

from __future__ import annotations

import re
from datetime import datetime
from typing import Final

import attrs

from cronactors.model import show_length

OUTPUT_HEAD: Final = 64 * 1024
"""How many bytes are kept from the beginning of the lines of a run, at least."""
OUTPUT_TAIL: Final = 64 * 1024
"""How many bytes are kept from their end, at least."""
MAX_NOTE: Final = 200
"""Longest note of a progress (characters)."""

_SURROGATE = re.compile("[\ud800-\udfff]")
_REPLACEMENT: Final = "\ufffd".encode()


@attrs.frozen(kw_only=True)
class RunOutput:
    """The lines of a run, from a position on.

    Attributes:
        text: The lines, each with a line break at its end. Where some were left out, a line says how many bytes.
        cursor: The position after them. As ``since`` of the next call it continues there.
        left_out: How many bytes between ``since`` and ``cursor`` are not kept.
        finished: Whether the run has finished, so that no more lines follow.
    """

    text: str = attrs.field(repr=show_length)
    cursor: int
    left_out: int
    finished: bool


@attrs.frozen(kw_only=True)
class RunProgress:
    """How far a run is, as it reported last.

    Attributes:
        fraction: From 0 to 1; None: unknown.
        note: What it is doing; "" if it gave none.
        at: When that was stored, UTC: at most about a second after the report.
    """

    fraction: float | None
    note: str = attrs.field(repr=show_length)
    at: datetime


@attrs.frozen
class Progress:
    """A report of progress that is not stored yet."""

    fraction: float | None
    note: str = attrs.field(repr=False)


@attrs.frozen
class Piece:
    """A part of the lines of a run, of whole characters.

    Attributes:
        start: Its position.
        content: UTF-8.
    """

    start: int
    content: bytes = attrs.field(repr=False)

    @property
    def end(self) -> int:
        """The position after it."""
        return self.start + len(self.content)


def encode_lines(text: str) -> bytes:
    r"""Return text as lines in UTF-8, each with ``\n`` at its end. A NUL or a lone surrogate becomes U+FFFD.

    ``\r\n`` and ``\r`` are line breaks too. One at the end of the text adds no empty line.
    """
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    if not text.endswith("\n"):
        text += "\n"
    try:
        content = text.encode()
    except UnicodeEncodeError:
        content = _SURROGATE.sub("\ufffd", text).encode()
    return content.replace(b"\0", _REPLACEMENT)  # a command may flood us with NULs: a pattern would take a hundred times as long


def cut(content: bytes | bytearray, most: int) -> int:
    """Return how many bytes are whole characters of UTF-8, at most ``most``."""
    if most >= len(content):
        return len(content)
    while most > 0 and _continues(content[most]):
        most -= 1
    return most


def whole_characters(start: int, content: bytes | bytearray) -> Piece:
    """Make a piece of bytes that may begin and end in the middle of a character."""
    begin = 0
    while begin < len(content) and _continues(content[begin]):
        begin += 1
    text = content[begin:].decode("utf-8", "ignore")  # all but the end is valid
    return Piece(start + begin, text.encode())


def _continues(byte: int) -> bool:
    """Whether a byte of UTF-8 is not the first of its character."""
    return 0x80 <= byte < 0xC0  # noqa: PLR2004 - 0b10xxxxxx


def describe_gap(size: int) -> str:
    """Return the line that is shown instead of bytes that were left out."""
    return f"… {size:,} {'byte' if size == 1 else 'bytes'} left out …"
