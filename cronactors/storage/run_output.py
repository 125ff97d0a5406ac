"""Rows of the tables run_output and run_progress, and the verbs of a storage on them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from cronactors.instants import Millis


class PieceRow(NamedTuple):
    """A part of the lines of a run. Statements name the columns in the order of these fields.

    Attributes:
        id: 0 in a row that is not stored yet.
        start: How many bytes of the run's lines are before it. No two pieces of a run overlap; bytes that none covers were left out.
        size: The bytes of its text, in UTF-8.
        at: When it was written last.
    """

    id: int
    run_id: int
    start: int
    size: int
    at: Millis
    text: str

    def __repr__(self) -> str:
        """Leave out the text."""
        return f"PieceRow(id={self.id}, run_id={self.run_id}, start={self.start}, size={self.size}, at={self.at})"


class LastPiece(NamedTuple):
    """The last piece of a run, without its text."""

    id: int
    run_id: int
    start: int
    size: int

    @property
    def end(self) -> int:
        """Where it ends in the run's lines (bytes)."""
        return self.start + self.size


class ProgressRow(NamedTuple):
    """The progress of a running run."""

    run_id: int
    at: Millis
    fraction: float | None
    note: str

    def __repr__(self) -> str:
        """Leave out the note."""
        return f"ProgressRow(run_id={self.run_id}, at={self.at}, fraction={self.fraction})"


class OutputTable(Protocol):
    """The verbs on the output of runs. They belong inside a transaction, as all verbs of a `Storage`."""

    def last_pieces(self, run_ids: Sequence[int]) -> dict[int, LastPiece]:
        """Return the last piece of each of these runs that has one."""
        ...

    def insert_pieces(self, rows: Sequence[PieceRow]) -> None:
        """Add pieces; each begins at or after the end of its run's last one."""
        ...

    def extend_pieces(self, ends: Sequence[PieceRow]) -> None:
        """Append text and size to existing pieces with these ids, and set their time."""
        ...

    def delete_pieces(self, run_id: int, *, start: int, end: int) -> None:
        """Delete the pieces of a run that lie between two positions (bytes)."""
        ...

    def pieces(self, run_id: int, *, since: int) -> list[PieceRow]:
        """Return the pieces of a run that end after a position (bytes), in order."""
        ...

    def set_progress(self, rows: Sequence[ProgressRow]) -> None:
        """Write the progress of runs, one row for each."""
        ...

    def progress(self, run_id: int) -> ProgressRow | None:
        """Return the progress of a run."""
        ...

    def delete_progress(self, run_ids: Sequence[int]) -> None:
        """Delete the progress of runs."""
        ...
