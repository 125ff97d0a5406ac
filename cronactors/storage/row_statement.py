"""Statements for many rows at once: the fast path of this package.

Under load one transaction writes up to a hundred runs and their jobs. A statement for each row costs some 2 us of Python and
SQLite, and SQLite releases the GIL each time, which the event loop then holds until it sleeps. In one statement for all rows each
value costs 0.07 us (docs/performance.md). ``UPDATE ... FROM`` first copies its rows into a temporary table, which takes some 30
us, so fewer than `MANY` rows are written one by one.

SQLite has to prepare each text that is new to it, so there are texts for `WIDTHS` rows only. A statement for fewer rows is filled
up with NULLs, and a LIMIT leaves them out.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from operator import attrgetter
from typing import Final

from cronactors.storage.values import Row, Value

WIDTHS: Final = (16, 32, 64, 128)
"""The numbers of rows for which a statement has a text."""
MANY: Final = WIDTHS[0]
"""From how many rows on one statement for all of them is faster."""

_NAME = re.compile(r":(\w+)")
_ROWS = "FROM new"


class RowStatement:
    """A statement that is carried out for rows of values.

    Args:
        text: The statement for one row, with a parameter ``:name`` for each value. If it holds ``FROM new``, it can also be
            carried out for many rows at once: for one row these words are left out, for many rows ``new`` is a table of them.

    Attributes:
        columns: The names of the parameters, in the order in which a row holds their values.
        for_one: The text for one row.
        takes_many: Whether there are texts for many rows.
    """

    def __init__(self, text: str) -> None:
        self._text = text
        self._texts: dict[int, str] = {}
        self.columns: Final[tuple[str, ...]] = tuple(_NAME.findall(text))
        assert len(set(self.columns)) == len(self.columns), f"a parameter occurs twice in {text}"
        self.for_one: Final = _NAME.sub("?", text).replace(_ROWS, "")
        self.takes_many: Final = _ROWS in text

    def row_maker(self, **renamed: str) -> Callable[[object], tuple[Value, ...]]:
        """Return a function that makes a row from the attributes of an object.

        Args:
            **renamed: For a column whose attribute has another name, that name; it may have dots.
        """
        assert len(self.columns) > 1, "attrgetter returns no tuple for one name"
        return attrgetter(*(renamed.get(name, name) for name in self.columns))

    def for_many(self, width: int) -> str:
        """Return the text for ``width`` rows. It takes the values of one row after the other, then the number of rows to use."""
        text = self._texts.get(width)
        if text is None:
            row = f"({', '.join('?' * len(self.columns))})"
            # The WITH is inside: Python's sqlite3 counts changed rows only for texts that begin with INSERT, UPDATE or DELETE.
            table = f"WITH new ({', '.join(self.columns)}) AS (VALUES {', '.join([row] * width)}) SELECT * FROM new LIMIT ?"
            text = self._texts[width] = _NAME.sub(r"new.\1", self._text).replace(_ROWS, f"FROM ({table}) AS new")
        return text

    def calls(self, rows: Sequence[Row]) -> Iterator[tuple[str, list[Value]]]:
        """Yield the calls that carry it out for many rows: texts, each with its values."""
        for first in range(0, len(rows), WIDTHS[-1]):
            part = rows[first : first + WIDTHS[-1]]
            width = next(width for width in WIDTHS if width >= len(part))
            padding = [None] * ((width - len(part)) * len(self.columns))
            yield self.for_many(width), [*chain.from_iterable(part), *padding, len(part)]
