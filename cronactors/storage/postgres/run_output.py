"""The tables run_output and run_progress on PostgreSQL; `storage.run_output` documents the verbs."""

from __future__ import annotations

from collections.abc import Sequence

from cronactors.storage.postgres.execution import Execution, Rows
from cronactors.storage.run_output import LastPiece, PieceRow, ProgressRow

_PIECE = {"run_id": "bigint", "start": "bigint", "size": "bigint", "at": "bigint", "text": "text"}

LAST_PIECES = Rows(
    """SELECT last.id, last.run_id, last.start, last.size FROM new CROSS JOIN LATERAL (SELECT id, run_id, start, size
 FROM @run_output AS p WHERE p.run_id = new.run_id ORDER BY p.start DESC, p.size DESC LIMIT 1) AS last""",
    run_id="bigint",
)
INSERT_PIECES = Rows(
    "INSERT INTO @run_output (run_id, start, size, at, text) SELECT run_id, start, size, at, text FROM new", **_PIECE
)
EXTEND_PIECES = Rows(
    "UPDATE @run_output AS p SET size = p.size + new.size, at = new.at, text = p.text || new.text FROM new WHERE p.id = new.id",
    id="bigint",
    **_PIECE,
)
DELETE_PIECES = "DELETE FROM @run_output WHERE run_id = $1 AND start >= $2 AND start + size <= $3"
PIECES = "SELECT id, run_id, start, size, at, text FROM @run_output WHERE run_id = $1 AND start + size > $2 ORDER BY start"
SET_PROGRESS = Rows(
    """INSERT INTO @run_progress (run_id, at, fraction, note) SELECT run_id, at, fraction, note FROM new
 ON CONFLICT (run_id) DO UPDATE SET at = excluded.at, fraction = excluded.fraction, note = excluded.note""",
    run_id="bigint",
    at="bigint",
    fraction="float8",
    note="text",
)
PROGRESS = "SELECT run_id, at, fraction, note FROM @run_progress WHERE run_id = $1"
DELETE_PROGRESS = "DELETE FROM @run_progress WHERE run_id = ANY($1)"


class PostgresOutput(Execution):
    """An `OutputTable` on the connection of a `PostgresStorage`."""

    def last_pieces(self, run_ids: Sequence[int]) -> dict[int, LastPiece]:
        """Return the last piece of each run."""
        rows = self._read(LAST_PIECES, [(run_id,) for run_id in run_ids])
        return {piece.run_id: piece for piece in map(LastPiece._make, rows)}

    def insert_pieces(self, rows: Sequence[PieceRow]) -> None:
        """Add pieces."""
        self._write(INSERT_PIECES, [row[1:] for row in rows])

    def extend_pieces(self, ends: Sequence[PieceRow]) -> None:
        """Append to pieces, once to each."""
        self._write(EXTEND_PIECES, ends)

    def delete_pieces(self, run_id: int, *, start: int, end: int) -> None:
        """Delete pieces between two positions."""
        self._execute(DELETE_PIECES, [run_id, start, end])

    def pieces(self, run_id: int, *, since: int) -> list[PieceRow]:
        """Return the pieces after a position."""
        return list(map(PieceRow._make, self._fetch(PIECES, [run_id, since])))

    def set_progress(self, rows: Sequence[ProgressRow]) -> None:
        """Write progress."""
        self._write(SET_PROGRESS, rows)

    def progress(self, run_id: int) -> ProgressRow | None:
        """Return the progress of a run."""
        found = self._fetch_one(PROGRESS, [run_id])
        return None if found is None else ProgressRow._make(found)

    def delete_progress(self, run_ids: Sequence[int]) -> None:
        """Delete progress."""
        if run_ids:
            self._execute(DELETE_PROGRESS, [list(run_ids)])
