"""The table of requests in a dict."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import TypeAlias

from cronactors.instants import Millis
from cronactors.storage.rows import RunRow
from cronactors.storage.run_requests import RunRequestRow

Requests: TypeAlias = dict[tuple[str, Millis], RunRequestRow]


class FakeRunRequests:
    """A `RunRequestTable` in memory."""

    def __init__(
        self, seen: Callable[[], Requests], changed: Callable[[], Requests], runs: Callable[[], dict[int, RunRow]]
    ) -> None:
        self._seen = seen
        self._changed = changed
        self._runs = runs

    def insert(self, row: RunRequestRow) -> None:
        same_key = None if row.key is None else self.of_key(row.job_id, key=row.key)
        self.delete([] if same_key is None else [(same_key.job_id, same_key.scheduled_at)])
        self._changed()[row.job_id, row.scheduled_at] = row

    def of_moment(self, job_id: str, *, at: Millis) -> RunRequestRow | None:
        return self._seen().get((job_id, at))

    def of_key(self, job_id: str, *, key: str) -> RunRequestRow | None:
        return next((row for row in self._seen().values() if (row.job_id, row.key) == (job_id, key)), None)

    def last_run(self, job_id: str, *, at: Millis) -> RunRow | None:
        runs = [run for run in self._runs().values() if (run.job_id, run.scheduled_at, run.manual) == (job_id, at, 1)]
        return max(runs, key=attrgetter("attempt"), default=None)

    def delete(self, moments: Sequence[tuple[str, Millis]]) -> None:
        for moment in moments:
            self._changed().pop(moment, None)
