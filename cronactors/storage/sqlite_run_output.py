"""The tables run_output and run_progress in a SQLite file; `run_output` documents the verbs."""

from __future__ import annotations

from collections.abc import Sequence

from cronactors.storage.execution import Execution
from cronactors.storage.row_statement import RowStatement
from cronactors.storage.run_output import LastPiece, PieceRow, ProgressRow

# SQLite takes the other columns from the row of the maximum.
LAST_PIECES = RowStatement(
    "SELECT id, run_id, max(start), size FROM run_output WHERE run_output.run_id IN (SELECT :run_id FROM new) GROUP BY run_id"
)
INSERT_PIECE = RowStatement("""INSERT INTO run_output (run_id, start, size, at, text)
 SELECT :run_id, :start, :size, :at, :text FROM new""")
EXTEND_PIECE = RowStatement("UPDATE run_output SET size = size + :size, at = :at, text = text || :text WHERE id = :id")
DELETE_PIECES = "DELETE FROM run_output WHERE run_id = ? AND start >= ? AND start + size <= ?"
PIECES = "SELECT id, run_id, start, size, at, text FROM run_output WHERE run_id = ? AND start + size > ? ORDER BY start"
INSERT_PROGRESS = RowStatement("""INSERT INTO run_progress (run_id, at, fraction, note) VALUES (:run_id, :at, :fraction, :note)
 ON CONFLICT (run_id) DO UPDATE SET at = excluded.at, fraction = excluded.fraction, note = excluded.note""")
PROGRESS = "SELECT run_id, at, fraction, note FROM run_progress WHERE run_id = ?"
DELETE_PROGRESS = RowStatement("DELETE FROM run_progress WHERE run_id = :run_id")

_inserted = INSERT_PIECE.row_maker()
_extended = EXTEND_PIECE.row_maker()


class SqliteOutput(Execution):
    """An `OutputTable` on the connection of a `SqliteStorage`."""

    def last_pieces(self, run_ids: Sequence[int]) -> dict[int, LastPiece]:
        """Return the last piece of each run."""
        rows = self._read(LAST_PIECES, [(run_id,) for run_id in run_ids])
        return {piece.run_id: piece for piece in map(LastPiece._make, rows)}

    def insert_pieces(self, rows: Sequence[PieceRow]) -> None:
        """Add pieces."""
        self._write(INSERT_PIECE, map(_inserted, rows))

    def extend_pieces(self, ends: Sequence[PieceRow]) -> None:
        """Append to pieces."""
        self._write(EXTEND_PIECE, map(_extended, ends))

    def delete_pieces(self, run_id: int, *, start: int, end: int) -> None:
        """Delete pieces between two positions."""
        self._execute(DELETE_PIECES, (run_id, start, end))

    def pieces(self, run_id: int, *, since: int) -> list[PieceRow]:
        """Return the pieces after a position."""
        return list(map(PieceRow._make, self._fetch(PIECES, (run_id, since))))

    def set_progress(self, rows: Sequence[ProgressRow]) -> None:
        """Write progress."""
        self._write(INSERT_PROGRESS, rows)

    def progress(self, run_id: int) -> ProgressRow | None:
        """Return the progress of a run."""
        found = self._fetch_one(PROGRESS, (run_id,))
        return None if found is None else ProgressRow._make(found)

    def delete_progress(self, run_ids: Sequence[int]) -> None:
        """Delete progress."""
        self._write(DELETE_PROGRESS, ((run_id,) for run_id in run_ids))
