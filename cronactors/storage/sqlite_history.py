"""The verbs of the storage in a SQLite file that read the history: `history` documents them, and `history_reader` how they read it."""

from __future__ import annotations

from cronactors.storage.execution import Execution
from cronactors.storage.history import Place, RunFigures, RunTimes
from cronactors.storage.history_reader import HistoryReader, Walk, Walks
from cronactors.storage.rows import RunRow
from cronactors.storage.values import Value, integer

_RUN = ", ".join(f'"{name}"' for name in RunRow._fields)
_FIGURES = ", ".join(RunFigures._fields)
_PLACE = ", ".join(Place._fields)

_TIME = "coalesce(started_at, completed_at, ready_at)"
_WANTED = f"""(:user_id IS NULL OR user_id = :user_id) AND (:status IS NULL OR status = :status)
 AND (:cause IS NULL OR cause = :cause) AND (:trigger IS NULL OR "trigger" = :trigger)
 AND (:since IS NULL OR {_TIME} >= :since) AND (:until IS NULL OR {_TIME} < :until)
 AND (:tag IS NULL OR EXISTS (SELECT 1 FROM jobs CROSS JOIN job_tags ON job_tags.number = jobs.number
  WHERE jobs.id = runs.job_id AND tag = :tag))"""

_IDS = "id >= :first AND id < :end"
_BY_ID = f"FROM runs WHERE {_IDS}"
_UNSUCCESSFUL = f"FROM runs WHERE status = :status AND status IN ('failed', 'cancelled', 'skipped') AND {_IDS}"
_RUNNING = f"FROM runs WHERE id IN (SELECT id FROM runs WHERE status = 'running') AND {_IDS}"
_OF_JOB = f"""FROM runs WHERE job_id = :job_id AND (scheduled_at, manual, attempt) < (:before_at, :before_manual, :before_attempt)
 AND (scheduled_at, manual, attempt) >= (:down_to_at, :down_to_manual, :down_to_attempt) AND {_IDS}"""
_ID_ORDER = "ORDER BY id DESC"
_MOMENT_ORDER = "ORDER BY scheduled_at DESC, manual DESC, attempt DESC"
_SKIP = "LIMIT 1 OFFSET :skipped"

WINDOW_BY_ID = f"SELECT {_PLACE} {_BY_ID} {_ID_ORDER} {_SKIP}"
WINDOW_UNSUCCESSFUL = f"SELECT {_PLACE} {_UNSUCCESSFUL} {_ID_ORDER} {_SKIP}"
WINDOW_RUNNING = f"SELECT {_PLACE} {_RUNNING} {_ID_ORDER} {_SKIP}"
WINDOW_OF_JOB = f"SELECT {_PLACE} {_OF_JOB} {_MOMENT_ORDER} {_SKIP}"
PAGE_BY_ID = f"SELECT {_RUN} {_BY_ID} AND {_WANTED} {_ID_ORDER} LIMIT :limit"
PAGE_UNSUCCESSFUL = f"SELECT {_RUN} {_UNSUCCESSFUL} AND {_WANTED} {_ID_ORDER} LIMIT :limit"
PAGE_RUNNING = f"SELECT {_RUN} {_RUNNING} AND {_WANTED} {_ID_ORDER} LIMIT :limit"
PAGE_OF_JOB = f"SELECT {_RUN} {_OF_JOB} AND {_WANTED} {_MOMENT_ORDER} LIMIT :limit"
COUNT_BY_ID = f"SELECT count(*) {_BY_ID} AND {_WANTED}"
COUNT_UNSUCCESSFUL = f"SELECT count(*) {_UNSUCCESSFUL} AND {_WANTED}"
COUNT_RUNNING_RUNS = f"SELECT count(*) {_RUNNING} AND {_WANTED}"
COUNT_OF_JOB = f"SELECT count(*) {_OF_JOB} AND {_WANTED}"
FIGURES_BY_ID = f"SELECT {_PLACE}, {_FIGURES} {_BY_ID} AND {_WANTED} {_ID_ORDER} LIMIT :limit"
FIGURES_OF_JOB = f"SELECT {_PLACE}, {_FIGURES} {_OF_JOB} AND {_WANTED} {_MOMENT_ORDER} LIMIT :limit"
PLACE_OF_RUN = f"SELECT {_PLACE} FROM runs WHERE id = ? AND job_id = ?"
TIMES_FROM = "SELECT id, scheduled_at, coalesce(started_at, completed_at) FROM runs WHERE id >= ? ORDER BY id LIMIT 1"


class SqliteHistory(HistoryReader[str], Execution):
    """Reads the table runs. It shares the connection of a `SqliteStorage`."""

    walks = Walks(
        by_id=Walk(WINDOW_BY_ID, PAGE_BY_ID, COUNT_BY_ID),
        unsuccessful=Walk(WINDOW_UNSUCCESSFUL, PAGE_UNSUCCESSFUL, COUNT_UNSUCCESSFUL),
        running=Walk(WINDOW_RUNNING, PAGE_RUNNING, COUNT_RUNNING_RUNS),
        of_job=Walk(WINDOW_OF_JOB, PAGE_OF_JOB, COUNT_OF_JOB),
        figures_by_id=FIGURES_BY_ID,
        figures_of_job=FIGURES_OF_JOB,
    )

    def _rows(self, statement: str, values: dict[str, Value]) -> list[tuple[Value, ...]]:
        return self._fetch(statement, values)

    def place(self, run_id: int, *, job_id: str) -> Place | None:
        """Return the place of a run of a job."""
        row = self._fetch_one(PLACE_OF_RUN, (run_id, job_id))
        return None if row is None else Place._make(map(integer, row))

    def times_from(self, run_id: int) -> RunTimes | None:
        """Return the times of the first run from an id on."""
        row = self._fetch_one(TIMES_FROM, (run_id,))
        return None if row is None else RunTimes._make(row)
