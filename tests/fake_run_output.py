"""The output of runs in plain dicts, as part of the fake storage."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import attrs

from cronactors.storage.run_output import LastPiece, OutputTable, PieceRow, ProgressRow


@attrs.define
class OutputRows:
    """All rows: pieces by id, in order of insertion, and progress by run."""

    pieces: dict[int, PieceRow] = attrs.field(factory=dict)
    progress: dict[int, ProgressRow] = attrs.field(factory=dict)

    def copy(self) -> OutputRows:
        return OutputRows(dict(self.pieces), dict(self.progress))


class FakeOutput:
    """An `OutputTable` in memory.

    Args:
        seen: Returns the rows of the open transaction, to read.
        changed: Returns them, to write.
    """

    def __init__(self, seen: Callable[[], OutputRows], changed: Callable[[], OutputRows]) -> None:
        self._seen = seen
        self._changed = changed

    def last_pieces(self, run_ids: Sequence[int]) -> dict[int, LastPiece]:
        wanted = sorted((row for row in self._seen().pieces.values() if row.run_id in run_ids), key=lambda row: row.start)
        return {row.run_id: LastPiece(row.id, row.run_id, row.start, row.size) for row in wanted}

    def insert_pieces(self, rows: Sequence[PieceRow]) -> None:
        pieces = self._changed().pieces
        for row in rows:
            number = max(pieces, default=0) + 1
            pieces[number] = row._replace(id=number)

    def extend_pieces(self, ends: Sequence[PieceRow]) -> None:
        pieces = self._changed().pieces
        for end in ends:
            if row := pieces.get(end.id):
                pieces[end.id] = row._replace(size=row.size + end.size, at=end.at, text=row.text + end.text)

    def delete_pieces(self, run_id: int, *, start: int, end: int) -> None:
        pieces = self._changed().pieces
        for row in list(pieces.values()):
            if row.run_id == run_id and row.start >= start and row.start + row.size <= end:
                del pieces[row.id]

    def pieces(self, run_id: int, *, since: int) -> list[PieceRow]:
        rows = [row for row in self._seen().pieces.values() if row.run_id == run_id and row.start + row.size > since]
        return sorted(rows, key=lambda row: row.start)

    def set_progress(self, rows: Sequence[ProgressRow]) -> None:
        self._changed().progress.update({row.run_id: row for row in rows})

    def progress(self, run_id: int) -> ProgressRow | None:
        return self._seen().progress.get(run_id)

    def delete_progress(self, run_ids: Sequence[int]) -> None:
        for run_id in run_ids:
            self._changed().progress.pop(run_id, None)


_: type[OutputTable] = FakeOutput
