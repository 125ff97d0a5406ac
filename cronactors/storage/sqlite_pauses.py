"""The table pauses in a SQLite file, with its statements; `pauses` documents each verb."""

from __future__ import annotations

from collections.abc import Sequence

from cronactors.instants import Millis
from cronactors.storage.execution import Execution
from cronactors.storage.pauses import PauseRow
from cronactors.storage.row_statement import RowStatement
from cronactors.storage.statements import _parameters, _quoted

_PAUSES = f"SELECT {_quoted(PauseRow._fields)} FROM pauses"

PUT_PAUSE = RowStatement(f"INSERT OR REPLACE INTO pauses ({_quoted(PauseRow._fields)}) VALUES ({_parameters(PauseRow._fields)})")
PAUSES = RowStatement(f"{_PAUSES} WHERE pauses.job_id IN (SELECT :job_id FROM new)")
PAUSES_TO_END = f"{_PAUSES} WHERE resumed_at IS NULL AND until_at <= ? ORDER BY until_at LIMIT ?"


class SqlitePauses(Execution):
    """A `PauseTable` on the connection of a `SqliteStorage`."""

    def put(self, rows: Sequence[PauseRow]) -> None:
        """Store pauses."""
        self._write(PUT_PAUSE, rows)

    def of(self, job_ids: Sequence[str]) -> dict[str, PauseRow]:
        """Return the pauses of jobs."""
        return {row.job_id: row for row in map(PauseRow._make, self._read(PAUSES, [(job_id,) for job_id in job_ids]))}

    def to_end(self, *, now: Millis, limit: int) -> list[PauseRow]:
        """Return pauses that were to end by now."""
        return list(map(PauseRow._make, self._fetch(PAUSES_TO_END, (now, limit))))
