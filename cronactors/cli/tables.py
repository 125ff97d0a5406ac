"""Tables on standard output: drawn by rich if it is installed (the extra ``cli``), else aligned here."""

from __future__ import annotations

import sys
import unicodedata
from collections.abc import Sequence

import attrs

from cronactors.cli.stdout import print_lines, printable

MOST_DRAWN = 500
"""How many rows rich draws: it takes half a millisecond for each, and 10,000 jobs would take 5 s."""


@attrs.frozen
class Cell:
    """The text of a cell, and its colour on a terminal (rich only). A cell without a colour can be its text alone."""

    text: str
    colour: str = ""

    def __str__(self) -> str:
        """Return the text."""
        return self.text


def print_table(columns: Sequence[str], rows: Sequence[Sequence[Cell | str]]) -> None:
    """Print a table; nothing if there are no rows. In a pipe or a file each row is one line, however long."""
    if not rows:
        return
    if len(rows) > MOST_DRAWN or not sys.stdout.isatty():
        _print_aligned(columns, rows)
        return
    try:
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text
    except ImportError:
        _print_aligned(columns, rows)
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(Text(printable(str(cell)), cell.colour if isinstance(cell, Cell) else "") for cell in row))
    Console().print(table)


def _print_aligned(columns: Sequence[str], rows: Sequence[Sequence[Cell | str]]) -> None:
    texts = zip(columns, *(map(str, row) for row in rows), strict=True)
    padded = [_to_one_width(column) for column in texts]
    print_lines("  ".join(line).rstrip() for line in zip(*padded, strict=True))


def _to_one_width(texts: Sequence[str]) -> list[str]:
    """Fill texts up with spaces to the width of the widest."""
    if all(map(str.isascii, texts)):  # without this, a table of 10,000 jobs takes 0.07 s longer
        widest = max(map(len, texts))
        return [text.ljust(widest) for text in texts]
    shown = list(map(printable, texts))
    widths = list(map(text_width, shown))
    widest = max(widths)
    return [text + " " * (widest - width) for text, width in zip(shown, widths, strict=True)]


def text_width(text: str) -> int:
    """Return how many columns of a terminal a text takes."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(character) else 2 if unicodedata.east_asian_width(character) in "FW" else 1
        for character in text
    )
