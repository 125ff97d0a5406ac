"""The verbs of pruning on the plain dicts of `tests.fake_storage`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from cronactors.instants import Millis
from cronactors.storage.pruning import KeptRun, PassedNotification, PassedRun, PendingNotification, Position, PruningTable
from cronactors.storage.rows import RunRow

if TYPE_CHECKING:
    from tests.fake_storage import Rows


def _place(run: RunRow) -> Position:
    return Position(run.scheduled_at, run.manual, run.attempt)


class FakePruning:
    """A `PruningTable` in memory.

    Args:
        seen: Returns the rows of the open transaction.
        changed: Returns them if it may write.
    """

    def __init__(self, seen: Callable[[], Rows], changed: Callable[[], Rows]) -> None:
        self._seen = seen
        self._changed = changed

    def run_ids(self) -> tuple[int, int] | None:
        ids = self._seen().runs.keys()
        return (min(ids), max(ids)) if ids else None

    def runs_after(self, run_id: int, *, limit: int) -> list[PassedRun]:
        runs = [run for _, run in sorted(self._seen().runs.items()) if run.id > run_id]
        return [
            PassedRun(
                run.id,
                run.job_id,
                run.completed_at or run.started_at or run.ready_at,
                run.started_at or run.completed_at or run.ready_at,
            )
            for run in runs[:limit]
        ]

    def next_job(self, job_id: str) -> str | None:
        return min((run.job_id for run in self._seen().runs.values() if run.job_id > job_id), default=None)

    def _of_job(self, job_id: str) -> list[RunRow]:
        return sorted((run for run in self._seen().runs.values() if run.job_id == job_id), key=_place)

    def position(self, job_id: str, *, before: Position | None, skip: int) -> Position | None:
        places = [_place(run) for run in reversed(self._of_job(job_id)) if before is None or _place(run) < before]
        return places[skip] if skip < len(places) else None

    def oldest_runs(self, job_id: str, *, after: Millis, until: Millis, limit: int) -> list[KeptRun]:
        runs = [run for run in self._of_job(job_id) if after < run.scheduled_at <= until]
        return [KeptRun._make(getattr(run, name) for name in KeptRun._fields) for run in runs[:limit]]

    def pending(self, run_ids: Sequence[int]) -> list[PendingNotification]:
        return [
            PendingNotification(row.run_id, row.receiver, row.job_id, row.ready_at)
            for row in self._seen().news.notifications.values()
            if row.run_id is not None and row.run_id in run_ids and row.status == "pending"
        ]

    def delete_runs(self, job_id: str, runs: Sequence[KeptRun]) -> None:
        rows = self._changed()
        gone = {run.id for run in runs}
        for run in runs:
            rows.keys.discard((job_id, run.scheduled_at, run.manual, run.attempt))
            rows.runs.pop(run.id, None)
        self.delete_notifications([row.id for row in rows.news.notifications.values() if row.run_id in gone])

    def set_pruned_until(self, job_id: str, until: Millis) -> None:
        if job_id in self._changed().jobs:
            number, job = self._changed().jobs[job_id]
            self._changed().jobs[job_id] = (number, job._replace(pruned_until=until))

    def jobs_with_history(self, *, after: int, limit: int) -> list[tuple[int, str]]:
        found = [(number, job.id) for number, job in self._seen().jobs.values() if job.history != "{}" and number > after]
        return sorted(found)[:limit]

    def notifications_after(self, notification_id: int, *, limit: int) -> list[PassedNotification]:
        rows = [row for _, row in sorted(self._seen().news.notifications.items()) if row.id > notification_id]
        return [PassedNotification._make(getattr(row, name) for name in PassedNotification._fields) for row in rows[:limit]]

    def delete_notifications(self, ids: Sequence[int]) -> None:
        for notification_id in ids:
            self._changed().news.notifications.pop(notification_id, None)

    def release_line(self, receiver: str, job_id: str) -> None:
        line = [
            row
            for _, row in sorted(self._changed().news.notifications.items())
            if (row.receiver, row.job_id, row.status) == (receiver, job_id, "pending")
        ]
        if line and line[0].ready_at is None:
            self._changed().news.notifications[line[0].id] = line[0]._replace(ready_at=0, owner=0)


_: type[PruningTable] = FakePruning
