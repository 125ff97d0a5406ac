"""Tables on standard output: drawn by rich if it is installed (the extra ``cli``), else aligned here."""

from __future__ import annotations

import sys
import unicodedata
from collections.abc import Sequence

import attrs

from cronactors.cli.stdout import print_line, printable

MOST_DRAWN = 500
"""How many rows rich draws: it takes half a millisecond for each, and 10,000 jobs would take 5 s."""


@attrs.frozen
class Cell:
    """The text of a cell, and its colour on a terminal (rich only)."""

    text: str
    colour: str = ""


def print_table(columns: Sequence[str], rows: Sequence[Sequence[Cell]]) -> None:
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
        table.add_row(*(Text(printable(cell.text), cell.colour) for cell in row))
    Console().print(table)


def _print_aligned(columns: Sequence[str], rows: Sequence[Sequence[Cell]]) -> None:
    lines = [list(columns), *([printable(cell.text) for cell in row] for row in rows)]
    widths = [max(map(text_width, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        print_line("  ".join(text + " " * (width - text_width(text)) for text, width in zip(line, widths, strict=True)).rstrip())


def text_width(text: str) -> int:
    """Return how many columns of a terminal a text takes."""
    return sum(
        0 if unicodedata.combining(character) else 2 if unicodedata.east_asian_width(character) in "FW" else 1
        for character in text
    )
