"""The tables notifications and alert_episodes of the storage in plain dicts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from operator import attrgetter

import attrs

from cronactors.instants import Millis
from cronactors.storage.notifications import AT_ONCE, EpisodeRow, NotificationRow, NotificationTable, Settlement


@attrs.define
class NotificationRows:
    """All rows of both tables."""

    notifications: dict[int, NotificationRow] = attrs.field(factory=dict)
    episodes: dict[tuple[str, str], EpisodeRow] = attrs.field(factory=dict)

    def copy(self) -> NotificationRows:
        return NotificationRows(dict(self.notifications), dict(self.episodes))


class FakeNotifications:
    """A `NotificationTable` in memory.

    Args:
        seen: Returns the rows that the open transaction sees.
        changed: The same, for a transaction that may write.
    """

    def __init__(self, seen: Callable[[], NotificationRows], changed: Callable[[], NotificationRows]) -> None:
        self._seen = seen
        self._changed = changed
        self._woken: set[str] = set()

    def _pending(self) -> list[NotificationRow]:
        return sorted(row for row in self._seen().notifications.values() if row.status == "pending")

    def _line(self, line: tuple[str, str]) -> list[NotificationRow]:
        return [row for row in self._pending() if row.line == line]

    def _put(self, row: NotificationRow) -> NotificationRow:
        self._changed().notifications[row.id] = row
        return row

    def insert(self, rows: Sequence[NotificationRow]) -> list[NotificationRow]:
        stored = []
        for row in rows:
            if row.key is not None:
                if any(known.receiver == row.receiver for known in self.find(row.key)):
                    continue
                self._woken.add(row.receiver)
            number = max(self._seen().notifications, default=0) + 1
            stored.append(self._put(row._replace(id=number, ready_at=None if self._line(row.line) else AT_ONCE)))
        return stored

    def settle(self, settlements: Sequence[Settlement], *, owner: int) -> list[NotificationRow]:
        for settled in settlements:
            row = self._seen().notifications.get(settled.id)
            if row is not None and row.status == "pending" and row.ready_at is not None:
                self._put(NotificationRow(**{**row._asdict(), **settled._asdict()}))
        ended = {(settled.receiver, settled.job_id) for settled in settlements if settled.status != "pending"}
        lines = [self._line(line) for line in ended]
        first = [line[0] for line in lines if line and all(row.ready_at is None for row in line)]
        return [self._put(row._replace(ready_at=AT_ONCE, owner=owner)) for row in sorted(first)]

    def reopen(self, row: NotificationRow) -> NotificationRow:
        self._woken.add(row.receiver)
        ready_at = None if self._line(row.line) else AT_ONCE
        return self._put(row._replace(status="pending", attempts=0, ready_at=ready_at, owner=0))

    def ready(self, receiver: str, *, owner: int, now: Millis, limit: int) -> list[NotificationRow]:
        mine = [row for row in self._pending() if (row.owner, row.receiver) == (owner, receiver)]
        again = [row for row in mine if row.ready_at and row.ready_at <= now]
        at_once = [row for row in mine if row.ready_at == AT_ONCE]
        return (sorted(again, key=attrgetter("ready_at", "id")) + at_once)[:limit]

    def next_retry(self, receiver: str, *, owner: int, now: Millis) -> Millis | None:
        mine = [row for row in self._pending() if (row.owner, row.receiver) == (owner, receiver)]
        return min((row.ready_at for row in mine if row.ready_at and row.ready_at > now), default=None)

    def ready_lines(self) -> list[tuple[int, str]]:
        return sorted({(row.owner, row.receiver) for row in self._pending() if row.ready_at is not None})

    def take_over(self, receiver: str, *, owner: int, by: int, limit: int) -> int:
        theirs = [row for row in self._pending() if (row.owner, row.receiver) == (owner, receiver) and row.ready_at is not None]
        moved = sorted(theirs, key=attrgetter("ready_at", "id"))[:limit]
        for row in moved:
            self._put(row._replace(owner=by))
        return len(moved)

    def advance_retries(self, *, now: Millis, by: Millis) -> None:
        for row in self._pending():
            self._woken.add(row.receiver)
            if row.ready_at is not None and row.ready_at > now:
                self._put(row._replace(ready_at=max(now, row.ready_at - by)))

    def keep_jobs(self, jobs: Mapping[str, str], *, without: str) -> None:
        for row in list(self._seen().notifications.values()):
            if row.status != "delivered" and row.job_id in jobs and row.job is None and row.receiver != without:
                self._put(row._replace(job=jobs[row.job_id]))

    def count_pending(self, *, most: int) -> int:
        return min(len(self._pending()), most)

    def find(self, event_key: str) -> list[NotificationRow]:
        return sorted(row for row in self._seen().notifications.values() if row.event_key == event_key)

    def page(
        self, *, before: int | None, status: str | None, receiver: str | None, limit: int
    ) -> tuple[list[NotificationRow], int | None]:
        older = [row for row in self._seen().notifications.values() if before is None or row.id < before]
        rows = [row for row in older if status in (None, row.status) and receiver in (None, row.receiver)]
        rows = sorted(rows, key=attrgetter("id"), reverse=True)[:limit]
        return rows, rows[-1].id if len(rows) == limit else None

    def take_woken(self) -> frozenset[str]:
        woken, self._woken = frozenset(self._woken), set()
        return woken

    def episodes(self, job_ids: Sequence[str], kind: str) -> dict[str, EpisodeRow]:
        stored = self._seen().episodes
        return {job_id: stored[job_id, kind] for job_id in job_ids if (job_id, kind) in stored}

    def store_episodes(self, rows: Sequence[EpisodeRow]) -> None:
        for row in rows:
            self._changed().episodes[row.job_id, row.kind] = row

    def end_episodes(self, job_ids: Sequence[str], kind: str | None = None) -> None:
        stored = self._changed().episodes
        for key in [key for key in stored if key[0] in job_ids and kind in (None, key[1])]:
            del stored[key]


_: type[NotificationTable] = FakeNotifications
