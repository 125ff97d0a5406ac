"""The verbs of pruning on PostgreSQL, with their statements; `storage.pruning` documents the verbs."""

from __future__ import annotations

from collections.abc import Sequence

from cronactors.instants import Millis
from cronactors.storage.postgres.columns import quoted
from cronactors.storage.postgres.execution import Execution
from cronactors.storage.postgres.run_output import DELETE_PROGRESS
from cronactors.storage.postgres.run_requests import DELETE_REQUESTS
from cronactors.storage.pruning import NEWEST, KeptRun, PassedNotification, PassedRun, PendingNotification, Position
from cronactors.storage.values import integer

RUN_IDS = "SELECT (SELECT min(id) FROM @runs), (SELECT max(id) FROM @runs)"
RUNS_AFTER = """SELECT id, job_id, coalesce(completed_at, started_at, ready_at), coalesce(started_at, completed_at, ready_at)
 FROM @runs WHERE id > $1 ORDER BY id LIMIT $2"""
NEXT_JOB = "SELECT job_id FROM @runs WHERE job_id > $1 ORDER BY job_id LIMIT 1"
POSITION = """SELECT scheduled_at, manual, attempt FROM @runs WHERE job_id = $1 AND (scheduled_at, manual, attempt) < ($2, $3, $4)
 ORDER BY scheduled_at DESC, manual DESC, attempt DESC LIMIT 1 OFFSET $5"""
OLDEST_RUNS = f"""SELECT {quoted(KeptRun._fields)} FROM @runs WHERE job_id = $1 AND scheduled_at > $2 AND scheduled_at <= $3
 ORDER BY scheduled_at, manual, attempt LIMIT $4"""
PENDING_NOTIFICATIONS = """SELECT run_id, receiver, job_id, ready_at
 FROM (SELECT run_id, receiver, job_id, ready_at, status FROM @notifications WHERE run_id = ANY($1) OFFSET 0) AS n
 WHERE status = 'pending'"""
DELETE_RUNS = f"""WITH output AS (DELETE FROM @run_output WHERE run_id = ANY($1)), progress AS ({DELETE_PROGRESS}),
 notifications AS (DELETE FROM @notifications WHERE run_id = ANY($1)) DELETE FROM @runs WHERE id = ANY($1)"""
SET_PRUNED_UNTIL = "UPDATE @job_state SET pruned_until = $1 WHERE id = $2"
JOBS_WITH_HISTORY = "SELECT number, id FROM @jobs WHERE history <> '{}' AND number > $1 ORDER BY number LIMIT $2"
NOTIFICATIONS_AFTER = f"SELECT {quoted(PassedNotification._fields)} FROM @notifications WHERE id > $1 ORDER BY id LIMIT $2"
DELETE_NOTIFICATIONS = "DELETE FROM @notifications WHERE id = ANY($1)"
RELEASE_LINE = """UPDATE @notifications SET ready_at = 0, owner = 0 WHERE ready_at IS NULL AND id = (SELECT id FROM @notifications
 WHERE receiver = $1 AND job_id = $2 AND status = 'pending' ORDER BY id LIMIT 1)"""


class PostgresPruning(Execution):
    """Pruning of history."""

    def run_ids(self) -> tuple[int, int] | None:
        """Return the ends of the table."""
        ((smallest, greatest),) = self._fetch(RUN_IDS)
        return None if smallest is None or greatest is None else (integer(smallest), integer(greatest))

    def runs_after(self, run_id: int, *, limit: int) -> list[PassedRun]:
        """Return the next runs."""
        return list(map(PassedRun._make, self._fetch(RUNS_AFTER, [run_id, limit])))

    def next_job(self, job_id: str) -> str | None:
        """Return the next job with runs."""
        row = self._fetch_one(NEXT_JOB, [job_id])
        return None if row is None else str(row[0])

    def position(self, job_id: str, *, before: Position | None, skip: int) -> Position | None:
        """Return the place of a run."""
        row = self._fetch_one(POSITION, [job_id, *(before or NEWEST), skip])
        return None if row is None else Position._make(row)

    def oldest_runs(self, job_id: str, *, after: Millis, until: Millis, limit: int) -> list[KeptRun]:
        """Return the oldest runs of a job."""
        return list(map(KeptRun._make, self._fetch(OLDEST_RUNS, [job_id, after, until, limit])))

    def pending(self, run_ids: Sequence[int]) -> list[PendingNotification]:
        """Return pending notifications of runs."""
        rows = self._fetch(PENDING_NOTIFICATIONS, [list(run_ids)]) if run_ids else []
        return list(map(PendingNotification._make, rows))

    def delete_runs(self, job_id: str, runs: Sequence[KeptRun]) -> None:
        """Delete runs, and their rows in other tables."""
        if runs:
            self._execute(DELETE_RUNS, [[run.id for run in runs]])
        self._write(DELETE_REQUESTS, {(job_id, run.scheduled_at) for run in runs if run.manual})

    def set_pruned_until(self, job_id: str, until: Millis) -> None:
        """Write the column."""
        self._execute(SET_PRUNED_UNTIL, [until, job_id])

    def jobs_with_history(self, *, after: int, limit: int) -> list[tuple[int, str]]:
        """Return jobs with a history of their own."""
        return [(integer(number), str(job_id)) for number, job_id in self._fetch(JOBS_WITH_HISTORY, [after, limit])]

    def notifications_after(self, notification_id: int, *, limit: int) -> list[PassedNotification]:
        """Return the next notifications."""
        return list(map(PassedNotification._make, self._fetch(NOTIFICATIONS_AFTER, [notification_id, limit])))

    def delete_notifications(self, ids: Sequence[int]) -> None:
        """Delete notifications."""
        if ids:
            self._execute(DELETE_NOTIFICATIONS, [list(ids)])

    def release_line(self, receiver: str, job_id: str) -> None:
        """Release the first of a line."""
        self._execute(RELEASE_LINE, [receiver, job_id])
