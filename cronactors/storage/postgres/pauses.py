"""The table pauses on PostgreSQL, with its statements; `storage.pauses` documents each verb."""

from __future__ import annotations

from collections.abc import Sequence

from cronactors.instants import Millis
from cronactors.storage.pauses import PauseRow
from cronactors.storage.postgres.columns import quoted
from cronactors.storage.postgres.execution import Execution, Rows

_PAUSES = f"SELECT {quoted(PauseRow._fields)} FROM @pauses"

PUT_PAUSES = Rows(
    f"""INSERT INTO @pauses ({quoted(PauseRow._fields)}) SELECT {quoted(PauseRow._fields)} FROM new
 ON CONFLICT (job_id) DO UPDATE SET paused_at = excluded.paused_at, until_at = excluded.until_at,
  resumed_at = excluded.resumed_at, note = excluded.note""",
    job_id="text",
    paused_at="bigint",
    until_at="bigint",
    resumed_at="bigint",
    note="text",
)
PAUSES = f"{_PAUSES} WHERE job_id = ANY($1)"
PAUSES_TO_END = f"{_PAUSES} WHERE resumed_at IS NULL AND until_at <= $1 ORDER BY until_at LIMIT $2"


class PostgresPauses(Execution):
    """A `PauseTable` on the connection of a `PostgresStorage`."""

    def put(self, rows: Sequence[PauseRow]) -> None:
        """Store pauses; of two rows of one job the last counts."""
        self._write(PUT_PAUSES, list({row.job_id: row for row in rows}.values()))

    def of(self, job_ids: Sequence[str]) -> dict[str, PauseRow]:
        """Return the pauses of jobs."""
        found = map(PauseRow._make, self._fetch(PAUSES, [list(job_ids)])) if job_ids else ()
        return {row.job_id: row for row in found}

    def to_end(self, *, now: Millis, limit: int) -> list[PauseRow]:
        """Return pauses that were to end by now."""
        return list(map(PauseRow._make, self._fetch(PAUSES_TO_END, [now, limit])))
