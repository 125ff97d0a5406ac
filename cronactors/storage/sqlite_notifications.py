"""The tables notifications and alert_episodes in a SQLite file; `notifications` documents the verbs.

Under load each finished run adds a notification and settles another one. So the three statements of that are for many rows, and
the rows that are not pending are in no index but that of their run.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from cronactors.instants import Millis
from cronactors.notifications import NotificationStatus
from cronactors.storage.execution import Execution
from cronactors.storage.notifications import AT_ONCE, PAGE_OF_IDS, EpisodeRow, NotificationRow, Settlement, run_of_key
from cronactors.storage.row_statement import RowStatement
from cronactors.storage.statements import last_number
from cronactors.storage.values import Value, integer

_NEVER: Final = 2**63 - 1

_COLUMNS = ", ".join(f'"{name}"' for name in NotificationRow._fields)
_FROM = f"SELECT {_COLUMNS} FROM notifications"
_READY = "status = 'pending' AND owner = ? AND receiver = ?"

LAST_NOTIFICATION = last_number("notifications", "id")
INSERT_NOTIFICATION = RowStatement("""INSERT INTO notifications (id, "key", run_id, receiver, job_id, created_at, status, attempts,
  ready_at, owner, job_state, job, alert)
 SELECT :id, :key, :run_id, :receiver, :job_id, :created_at, 'pending', 0, :ready_at, :owner, :job_state, :job, :alert FROM new""")
INSERT_FINISHED = RowStatement("""INSERT INTO notifications (id, run_id, receiver, job_id, created_at, status, attempts,
  ready_at, owner, job_state)
 SELECT :id, :run_id, :receiver, :job_id, :created_at, 'pending', 0, :ready_at, :owner, :job_state FROM new""")
SETTLE_NOTIFICATION = RowStatement("""UPDATE notifications SET status = :status, attempts = :attempts, ready_at = :ready_at,
 error = :error FROM new WHERE notifications.id = :id AND notifications.status = 'pending' AND notifications.ready_at IS NOT NULL""")
FIRST_OF_LINES = RowStatement(f"""{_FROM} WHERE notifications.id IN (SELECT (SELECT min(line.id) FROM notifications AS line
 WHERE line.status = 'pending' AND line.receiver = :receiver AND line.job_id = :job_id) FROM new)""")
RELEASE_NOTIFICATION = RowStatement(
    "UPDATE notifications SET ready_at = 0, owner = :owner WHERE id = :id AND status = 'pending' AND ready_at IS NULL"
)
READY_OF_LINE = (
    "SELECT 1 FROM notifications WHERE status = 'pending' AND receiver = ? AND job_id = ? AND ready_at IS NOT NULL LIMIT 1"
)
REOPEN_NOTIFICATION = "UPDATE notifications SET status = 'pending', attempts = 0, ready_at = ?, owner = 0 WHERE id = ?"
READY_AT_ONCE = f"{_FROM} WHERE {_READY} AND ready_at = 0 ORDER BY id LIMIT ?"
READY_AGAIN = f"{_FROM} WHERE {_READY} AND ready_at BETWEEN 1 AND ? ORDER BY ready_at, id LIMIT ?"
NEXT_RETRY = f"SELECT min(ready_at) FROM notifications WHERE {_READY} AND ready_at > ?"
# Each pair is one step in the index; SELECT DISTINCT would walk all of it.
NEXT_READY_LINE = """SELECT owner, receiver FROM notifications WHERE status = 'pending' AND ready_at IS NOT NULL
 AND (owner, receiver) > (?, ?) ORDER BY owner, receiver LIMIT 1"""
TAKE_OVER = f"""UPDATE notifications SET owner = ? WHERE id IN
 (SELECT id FROM notifications WHERE {_READY} AND ready_at IS NOT NULL ORDER BY ready_at, id LIMIT ?)"""
ADVANCE_RETRIES = "UPDATE notifications SET ready_at = max(:now, ready_at - :by) WHERE status = 'pending' AND ready_at > :now"
NEXT_RECEIVER = "SELECT receiver FROM notifications WHERE status = 'pending' AND receiver > ? ORDER BY receiver LIMIT 1"
KEEP_JOB = "UPDATE notifications SET job = ? WHERE status = 'pending' AND receiver = ? AND job_id = ? AND job IS NULL"
KEEP_JOB_OF_GIVEN_UP = (
    "UPDATE notifications SET job = ? WHERE status = 'given_up' AND receiver <> ? AND job_id = ? AND job IS NULL"
)
COUNT_PENDING = "SELECT count(*) FROM (SELECT 1 FROM notifications WHERE status = 'pending' LIMIT ?)"
OF_RUN = f"{_FROM} WHERE run_id = ?"
OF_ALERT = f'{_FROM} WHERE "key" = ?'
LAST_BEFORE = "SELECT max(id) FROM notifications WHERE id < ?"
PAGE = f"""{_FROM} WHERE id BETWEEN :first AND :last AND status = coalesce(:status, status)
 AND receiver = coalesce(:receiver, receiver) ORDER BY id DESC LIMIT :limit"""

EPISODES = RowStatement(
    """SELECT job_id, "kind", since, alerted_at, alerted_count FROM alert_episodes
 WHERE (job_id, "kind") IN (SELECT :job_id, :kind FROM new)"""
)
STORE_EPISODE = RowStatement(
    """INSERT INTO alert_episodes (job_id, "kind", since, alerted_at, alerted_count)
 VALUES (:job_id, :kind, :since, :alerted_at, :alerted_count)
 ON CONFLICT (job_id, "kind") DO UPDATE
 SET since = excluded.since, alerted_at = excluded.alerted_at, alerted_count = excluded.alerted_count"""
)
END_EPISODE = RowStatement('DELETE FROM alert_episodes WHERE job_id = :job_id AND "kind" = :kind')
END_EPISODES_OF_JOB = RowStatement("DELETE FROM alert_episodes WHERE job_id = :job_id")

_inserted = INSERT_NOTIFICATION.row_maker()
_finished = INSERT_FINISHED.row_maker()
_settled = SETTLE_NOTIFICATION.row_maker()


class SqliteNotifications(Execution):
    """A `NotificationTable` on the connection of a `SqliteStorage`."""

    _woken: frozenset[str] = frozenset()

    def insert(self, rows: Sequence[NotificationRow]) -> list[NotificationRow]:
        """Add notifications: one query finds the lines that have pending ones. Most rows need few columns, which is faster."""
        rows = self._without_known_alerts(rows)
        if not rows:
            return []
        busy = {first.line for first in self._first_of_lines(rows)}
        stored = []
        for number, row in zip(self._new_numbers(LAST_NOTIFICATION, len(rows)), rows, strict=True):
            line = (row.receiver, row.job_id)
            stored.append(row.stored(number, None if line in busy else AT_ONCE))
            busy.add(line)
        self._write(INSERT_FINISHED, [_finished(row) for row in stored if row.key is None and row.job is None])
        self._write(INSERT_NOTIFICATION, [_inserted(row) for row in stored if row.key is not None or row.job is not None])
        return stored

    def _without_known_alerts(self, rows: Sequence[NotificationRow]) -> list[NotificationRow]:
        """Leave out alerts that are stored, or that occur twice."""
        found: dict[object, NotificationRow] = {}
        for index, row in enumerate(rows):
            if row.key is None:
                found[index] = row
            elif row.receiver not in {known.receiver for known in self.find(row.key)}:
                found.setdefault((row.key, row.receiver), row)
                self._woken |= {row.receiver}
        return list(found.values())

    def _first_of_lines(self, rows: Sequence[NotificationRow | Settlement]) -> list[NotificationRow]:
        """Return the first pending notification of each line that has one."""
        return list(map(NotificationRow._make, self._read(FIRST_OF_LINES, [(row.receiver, row.job_id) for row in rows])))

    def settle(self, settlements: Sequence[Settlement], *, owner: int) -> list[NotificationRow]:
        """Store the results of calls, and release the next ones.

        A settlement that has taken effect leaves no ready one in its line. Only of one that was sent again has the line to be
        searched: the first one may wait for a later one, since it was given up and reopened.
        """
        changed = self._write(SETTLE_NOTIFICATION, map(_settled, settlements))
        ended = [row for row in settlements if row.status != NotificationStatus.PENDING]
        held = [row for row in self._first_of_lines(ended) if row.ready_at is None] if ended else []
        if changed < len(settlements):
            held = [row for row in held if not self._fetch(READY_OF_LINE, row.line)]
        self._write(RELEASE_NOTIFICATION, ((owner, row.id) for row in held))
        return [row._replace(ready_at=AT_ONCE, owner=owner) for row in held]

    def reopen(self, row: NotificationRow) -> NotificationRow:
        """Make a notification pending again."""
        ready_at = None if self._first_of_lines([row]) else AT_ONCE
        self._execute(REOPEN_NOTIFICATION, (ready_at, row.id))
        self._woken |= {row.receiver}
        return row._replace(status=NotificationStatus.PENDING, attempts=0, ready_at=ready_at, owner=0)

    def ready(self, receiver: str, *, owner: int, now: Millis, limit: int) -> list[NotificationRow]:
        """Return notifications that may be delivered: two queries, so that retries do not wait behind all others."""
        again = self._fetch(READY_AGAIN, (owner, receiver, now, limit))
        at_once = self._fetch(READY_AT_ONCE, (owner, receiver, limit - len(again)))
        return list(map(NotificationRow._make, again + at_once))

    def next_retry(self, receiver: str, *, owner: int, now: Millis) -> Millis | None:
        """Return the earliest time later than now."""
        at = self._fetch(NEXT_RETRY, (owner, receiver, max(now, AT_ONCE)))[0][0]
        return None if at is None else integer(at)

    def ready_lines(self) -> list[tuple[int, str]]:
        """Return pairs of owner and receiver, one query each."""
        found: list[tuple[int, str]] = []
        last: tuple[int, str] = (-1, "")
        while row := self._fetch_one(NEXT_READY_LINE, last):
            last = integer(row[0]), str(row[1])
            found.append(last)
        return found

    def take_over(self, receiver: str, *, owner: int, by: int, limit: int) -> int:
        """Move notifications to another owner."""
        return self._execute(TAKE_OVER, (by, owner, receiver, limit)).rowcount

    def advance_retries(self, *, now: Millis, by: Millis) -> None:
        """Let notifications be tried again earlier."""
        self._execute(ADVANCE_RETRIES, {"now": now, "by": by})
        self._woken |= frozenset(self._pending_receivers())

    def _pending_receivers(self) -> Iterator[str]:
        """Yield the receivers that have pending notifications, one query each."""
        last = ""
        while row := self._fetch_one(NEXT_RECEIVER, (last,)):
            last = str(row[0])
            yield last

    def keep_jobs(self, jobs: Mapping[str, str], *, without: str) -> None:
        """Store jobs in their notifications: a statement for each receiver that has pending ones, and one for all that were given up."""
        receivers = [receiver for receiver in self._pending_receivers() if receiver != without]
        for job_id, job in jobs.items():
            for receiver in receivers:
                self._execute(KEEP_JOB, (job, receiver, job_id))
            self._execute(KEEP_JOB_OF_GIVEN_UP, (job, without, job_id))

    def count_pending(self, *, most: int) -> int:
        """Count pending notifications."""
        return integer(self._fetch(COUNT_PENDING, (most,))[0][0])

    def find(self, event_key: str) -> list[NotificationRow]:
        """Return the notifications of an event."""
        run_id = run_of_key(event_key)
        rows = self._fetch(OF_ALERT, (event_key,)) if run_id is None else self._fetch(OF_RUN, (run_id,))
        return sorted(map(NotificationRow._make, rows))

    def page(
        self, *, before: int | None, status: str | None, receiver: str | None, limit: int
    ) -> tuple[list[NotificationRow], int | None]:
        """Return notifications: of at most `PAGE_OF_IDS` ids, which begin at one that exists."""
        last = self._fetch(LAST_BEFORE, (_NEVER if before is None else before,))[0][0]
        if last is None:
            return [], None
        first = integer(last) - PAGE_OF_IDS + 1
        values: dict[str, Value] = {"first": first, "last": last, "status": status, "receiver": receiver, "limit": limit}
        rows = list(map(NotificationRow._make, self._fetch(PAGE, values)))
        return rows, rows[-1].id if len(rows) == limit else first

    def take_woken(self) -> frozenset[str]:
        """Return receivers, and forget them."""
        woken, self._woken = self._woken, frozenset()
        return woken

    # Episodes of alerts

    def episodes(self, job_ids: Sequence[str], kind: str) -> dict[str, EpisodeRow]:
        """Return episodes."""
        rows = self._read(EPISODES, [(job_id, kind) for job_id in job_ids])
        return {row.job_id: row for row in map(EpisodeRow._make, rows)}

    def store_episodes(self, rows: Sequence[EpisodeRow]) -> None:
        """Insert episodes, or replace them."""
        self._write(STORE_EPISODE, rows)

    def end_episodes(self, job_ids: Sequence[str], kind: str | None = None) -> None:
        """Delete episodes."""
        if kind is None:
            self._write(END_EPISODES_OF_JOB, ((job_id,) for job_id in job_ids))
        else:
            self._write(END_EPISODE, ((job_id, kind) for job_id in job_ids))
