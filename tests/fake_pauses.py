"""The table of pauses in a dict."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from cronactors.instants import Millis
from cronactors.storage.pauses import PauseRow


class FakePauses:
    """A `PauseTable` in memory."""

    def __init__(self, seen: Callable[[], dict[str, PauseRow]], changed: Callable[[], dict[str, PauseRow]]) -> None:
        self._seen = seen
        self._changed = changed

    def put(self, rows: Sequence[PauseRow]) -> None:
        self._changed().update((row.job_id, row) for row in rows)

    def of(self, job_ids: Sequence[str]) -> dict[str, PauseRow]:
        return {job_id: self._seen()[job_id] for job_id in job_ids if job_id in self._seen()}

    def lasting(self) -> list[tuple[Millis, str]]:
        return sorted((row.until_at, row.job_id) for row in self._seen().values() if None is row.resumed_at != row.until_at)

    def to_end(self, *, now: Millis, limit: int) -> list[PauseRow]:
        return [self._seen()[job_id] for until, job_id in self.lasting() if until <= now][:limit]
