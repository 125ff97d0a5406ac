"""The verbs of pruning in a SQLite file, with their statements; `pruning` documents the verbs."""

from __future__ import annotations

from collections.abc import Sequence

from cronactors.instants import Millis
from cronactors.storage.execution import Execution
from cronactors.storage.pruning import NEWEST, KeptRun, PassedNotification, PassedRun, PendingNotification, Position
from cronactors.storage.row_statement import RowStatement
from cronactors.storage.sqlite_run_output import DELETE_PROGRESS
from cronactors.storage.sqlite_run_requests import DELETE_REQUEST
from cronactors.storage.values import integer

SMALLEST_RUN = "SELECT min(id) FROM runs"
GREATEST_RUN = "SELECT max(id) FROM runs"
RUNS_AFTER = """SELECT id, job_id, coalesce(completed_at, started_at, ready_at),
 coalesce(started_at, completed_at, ready_at) FROM runs
 WHERE id > ? ORDER BY id LIMIT ?"""
NEXT_JOB = "SELECT job_id FROM runs WHERE job_id > ? ORDER BY job_id LIMIT 1"
POSITION = """SELECT scheduled_at, manual, attempt FROM runs
 WHERE job_id = ? AND (scheduled_at, manual, attempt) < (?, ?, ?)
 ORDER BY scheduled_at DESC, manual DESC, attempt DESC LIMIT 1 OFFSET ?"""
OLDEST_RUNS = f"""SELECT {", ".join(KeptRun._fields)} FROM runs
 WHERE job_id = ? AND scheduled_at > ? AND scheduled_at <= ? ORDER BY scheduled_at, manual, attempt LIMIT ?"""
PENDING_NOTIFICATIONS = RowStatement(
    "SELECT run_id, receiver, job_id, ready_at FROM notifications WHERE run_id IN (SELECT :id FROM new) AND status = 'pending'"
)
DELETE_RUNS = RowStatement("DELETE FROM runs WHERE id IN (SELECT :id FROM new)")
DELETE_OUTPUT = RowStatement("DELETE FROM run_output WHERE run_id IN (SELECT :id FROM new)")
DELETE_NOTIFICATIONS_OF_RUNS = RowStatement("DELETE FROM notifications WHERE run_id IN (SELECT :id FROM new)")
SET_PRUNED_UNTIL = "UPDATE jobs SET pruned_until = ? WHERE id = ?"
JOBS_WITH_HISTORY = """SELECT job_specs.number, jobs.id FROM job_specs CROSS JOIN jobs ON jobs.number = job_specs.number
 WHERE history <> '{}' AND job_specs.number > ? ORDER BY job_specs.number LIMIT ?"""
NOTIFICATIONS_AFTER = f"""SELECT {", ".join(PassedNotification._fields)} FROM notifications WHERE id > ? ORDER BY id LIMIT ?"""
DELETE_NOTIFICATIONS = RowStatement("DELETE FROM notifications WHERE id IN (SELECT :id FROM new)")
RELEASE_LINE = """UPDATE notifications SET ready_at = 0, owner = 0 WHERE ready_at IS NULL AND id = (SELECT id FROM notifications
 WHERE receiver = ? AND job_id = ? AND status = 'pending' ORDER BY id LIMIT 1)"""


class SqlitePruning(Execution):
    """Pruning of history."""

    def run_ids(self) -> tuple[int, int] | None:
        """Return the ends of the table: two queries, since SQLite would walk the table for both at once."""
        smallest, greatest = self._fetch(SMALLEST_RUN)[0][0], self._fetch(GREATEST_RUN)[0][0]
        return None if smallest is None or greatest is None else (integer(smallest), integer(greatest))

    def runs_after(self, run_id: int, *, limit: int) -> list[PassedRun]:
        """Return the next runs."""
        return list(map(PassedRun._make, self._fetch(RUNS_AFTER, (run_id, limit))))

    def next_job(self, job_id: str) -> str | None:
        """Return the next job with runs."""
        row = self._fetch_one(NEXT_JOB, (job_id,))
        return None if row is None else str(row[0])

    def position(self, job_id: str, *, before: Position | None, skip: int) -> Position | None:
        """Return the place of a run; passing over a row of the index costs some 0.03 us."""
        row = self._fetch_one(POSITION, (job_id, *(before or NEWEST), skip))
        return None if row is None else Position._make(row)

    def oldest_runs(self, job_id: str, *, after: Millis, until: Millis, limit: int) -> list[KeptRun]:
        """Return the oldest runs of a job."""
        return list(map(KeptRun._make, self._fetch(OLDEST_RUNS, (job_id, after, until, limit))))

    def pending(self, run_ids: Sequence[int]) -> list[PendingNotification]:
        """Return pending notifications of runs."""
        rows = self._read(PENDING_NOTIFICATIONS, [(run_id,) for run_id in run_ids])
        return list(map(PendingNotification._make, rows))

    def delete_runs(self, job_id: str, runs: Sequence[KeptRun]) -> None:
        """Delete runs, and their rows in other tables."""
        ids = [(run.id,) for run in runs]
        for statement in (DELETE_OUTPUT, DELETE_PROGRESS, DELETE_NOTIFICATIONS_OF_RUNS, DELETE_RUNS):
            self._write(statement, ids)
        self._write(DELETE_REQUEST, {(job_id, run.scheduled_at) for run in runs if run.manual})

    def set_pruned_until(self, job_id: str, until: Millis) -> None:
        """Write the column."""
        self._execute(SET_PRUNED_UNTIL, (until, job_id))

    def jobs_with_history(self, *, after: int, limit: int) -> list[tuple[int, str]]:
        """Return jobs with a history of their own."""
        return [(integer(number), str(job_id)) for number, job_id in self._fetch(JOBS_WITH_HISTORY, (after, limit))]

    def notifications_after(self, notification_id: int, *, limit: int) -> list[PassedNotification]:
        """Return the next notifications."""
        return list(map(PassedNotification._make, self._fetch(NOTIFICATIONS_AFTER, (notification_id, limit))))

    def delete_notifications(self, ids: Sequence[int]) -> None:
        """Delete notifications."""
        self._write(DELETE_NOTIFICATIONS, [(notification_id,) for notification_id in ids])

    def release_line(self, receiver: str, job_id: str) -> None:
        """Release the first of a line."""
        self._execute(RELEASE_LINE, (receiver, job_id))
