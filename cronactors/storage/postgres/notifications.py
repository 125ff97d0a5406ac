"""The tables notifications and alert_episodes on PostgreSQL; `storage.notifications` documents the verbs.

A line is changed by who holds the row of its job: so no notification is added behind one that is being settled meanwhile, and would
wait for it for ever. Ids are drawn by the INSERT itself, so for one job and receiver they are in the order of the transactions.

`execution` explains ``status || ''`` and ``OFFSET 0``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from cronactors.instants import Millis
from cronactors.notifications import NotificationStatus
from cronactors.storage.notifications import AT_ONCE, PAGE_OF_IDS, EpisodeRow, NotificationRow, Settlement, run_of_key
from cronactors.storage.postgres.columns import quoted
from cronactors.storage.postgres.execution import Execution, Named, Rows
from cronactors.storage.values import Value, integer

_NEVER: Final = 2**63 - 1

_COLUMNS = quoted(NotificationRow._fields)
_FROM = f"SELECT {_COLUMNS} FROM @notifications"
_READY = "status = 'pending' AND owner = $1 AND receiver = $2"
_FIRST_ID = """(SELECT min(line.id) FROM @notifications AS line
 WHERE line.status = 'pending' AND line.receiver = {0}.receiver AND line.job_id = {0}.job_id)"""
# Each receiver is one step in the index; SELECT DISTINCT would walk all of it.
_PENDING_RECEIVERS = """RECURSIVE receivers AS (
 (SELECT receiver FROM @notifications WHERE status = 'pending' ORDER BY receiver LIMIT 1)
 UNION ALL SELECT following.receiver FROM receivers CROSS JOIN LATERAL (SELECT n.receiver FROM @notifications AS n
  WHERE n.status = 'pending' AND n.receiver > receivers.receiver ORDER BY n.receiver LIMIT 1) AS following)"""

INSERT_NOTIFICATIONS = Rows(
    f"""INSERT INTO @notifications ("key", run_id, receiver, job_id, created_at, status, attempts, ready_at,
  owner, job_state, job, alert)
 SELECT new."key", new.run_id, new.receiver, new.job_id, new.created_at, 'pending', 0,
  CASE WHEN new.is_first = 1 AND {_FIRST_ID.format("new")} IS NULL THEN 0 END,
  new.owner, new.job_state, new.job, new.alert FROM new ORDER BY new.position RETURNING id, ready_at""",
    position="bigint",
    is_first="bigint",
    key="text",
    run_id="bigint",
    receiver="text",
    job_id="text",
    created_at="bigint",
    owner="bigint",
    job_state="text",
    job="text",
    alert="text",
)
KNOWN_ALERTS = 'SELECT "key", receiver FROM @notifications WHERE "key" = ANY($1)'
SETTLE_NOTIFICATIONS = Rows(
    """UPDATE @notifications AS n SET status = new.status, attempts = new.attempts, ready_at = new.ready_at, error = new.error
 FROM new WHERE n.id = new.id AND n.status || '' = 'pending' AND n.ready_at IS NOT NULL""",
    id="bigint",
    status="text",
    attempts="bigint",
    ready_at="bigint",
    error="text",
)
LINES_WITH_READY = Rows(
    """SELECT new.receiver, new.job_id FROM new CROSS JOIN LATERAL (SELECT 1 FROM (SELECT n.ready_at FROM @notifications AS n
 WHERE n.status = 'pending' AND n.receiver = new.receiver AND n.job_id = new.job_id OFFSET 0) AS line
 WHERE line.ready_at IS NOT NULL LIMIT 1) AS ready""",
    receiver="text",
    job_id="text",
)
RELEASE_LINES = Rows(
    f"""UPDATE @notifications AS n SET ready_at = 0, owner = first.owner FROM
 (SELECT new.owner, {_FIRST_ID.format("new")} AS id FROM new OFFSET 0) AS first
 WHERE n.id = first.id AND n.status || '' = 'pending' AND n.ready_at IS NULL RETURNING {quoted(NotificationRow._fields, "n")}""",
    owner="bigint",
    receiver="text",
    job_id="text",
)
REOPEN_NOTIFICATION = f"""UPDATE @notifications AS n SET status = 'pending', attempts = 0, owner = 0,
 ready_at = CASE WHEN {_FIRST_ID.format("n")} IS NULL THEN 0 END
 WHERE n.id = $1 AND n.status <> 'pending' RETURNING n.ready_at"""
READY = f"""SELECT {_COLUMNS} FROM (
 ({_FROM} WHERE {_READY} AND ready_at BETWEEN 1 AND $3 ORDER BY ready_at, id LIMIT $4)
 UNION ALL ({_FROM} WHERE {_READY} AND ready_at = 0 ORDER BY id LIMIT $4)) AS ready
 ORDER BY ready_at = 0, ready_at, id LIMIT $4"""
NEXT_RETRY = f"SELECT min(ready_at) FROM @notifications WHERE {_READY} AND ready_at > $3"
READY_LINES = """WITH RECURSIVE lines AS (
 (SELECT owner, receiver FROM @notifications WHERE status = 'pending' AND ready_at IS NOT NULL ORDER BY owner, receiver LIMIT 1)
 UNION ALL SELECT following.owner, following.receiver FROM lines CROSS JOIN LATERAL (SELECT n.owner, n.receiver
  FROM @notifications AS n WHERE n.status = 'pending' AND n.ready_at IS NOT NULL
  AND (n.owner, n.receiver) > (lines.owner, lines.receiver) ORDER BY n.owner, n.receiver LIMIT 1) AS following)
 SELECT owner, receiver FROM lines ORDER BY owner, receiver"""
# Another scheduler may be taking over the same ones.
TAKE_OVER = f"""WITH taken AS MATERIALIZED (SELECT id FROM @notifications WHERE {_READY} AND ready_at IS NOT NULL
  ORDER BY ready_at, id LIMIT $4 FOR NO KEY UPDATE SKIP LOCKED)
 UPDATE @notifications AS n SET owner = $3 FROM taken WHERE n.id = taken.id"""
ADVANCE_RETRIES = """UPDATE @notifications SET ready_at = greatest($1, ready_at - $2)
 WHERE status = 'pending' AND ready_at > $1"""
PENDING_RECEIVERS = f"WITH {_PENDING_RECEIVERS} SELECT receiver FROM receivers"
_ITS_JOB = "(SELECT new.job FROM new WHERE new.id = n.job_id)"
KEEP_JOBS = Rows(
    f"""WITH {_PENDING_RECEIVERS} UPDATE @notifications AS n SET job = {_ITS_JOB}
 WHERE n.status = 'pending' AND n.receiver = ANY(ARRAY(SELECT receiver FROM receivers)) AND n.job_id = ANY($1)
 AND n.job IS NULL AND n.receiver <> ($3::text[])[1]""",
    id="text",
    job="text",
    without="text",
)
KEEP_JOBS_OF_GIVEN_UP = Rows(
    f"""UPDATE @notifications AS n SET job = {_ITS_JOB}
 WHERE n.status = 'given_up' AND n.job_id = ANY($1) AND n.job IS NULL AND n.receiver <> ($3::text[])[1]""",
    id="text",
    job="text",
    without="text",
)
COUNT_PENDING = "SELECT count(*) FROM (SELECT 1 FROM @notifications WHERE status = 'pending' ORDER BY receiver LIMIT $1) AS n"
OF_RUN = f"{_FROM} WHERE run_id = $1 ORDER BY id"
OF_ALERT = f'{_FROM} WHERE "key" = $1 ORDER BY id'
LAST_BEFORE = "SELECT max(id) FROM @notifications WHERE id < $1"
PAGE = Named(f"""{_FROM} WHERE id BETWEEN :first AND :last AND (:status::text IS NULL OR status = :status)
 AND (:receiver::text IS NULL OR receiver = :receiver) ORDER BY id DESC LIMIT :limit""")

EPISODES = f"SELECT {quoted(EpisodeRow._fields)} FROM @alert_episodes WHERE job_id = ANY($1) AND kind = $2"
STORE_EPISODES = Rows(
    f"""INSERT INTO @alert_episodes ({quoted(EpisodeRow._fields)}) SELECT {quoted(EpisodeRow._fields)} FROM new
 ON CONFLICT (job_id, kind) DO UPDATE
 SET since = excluded.since, alerted_at = excluded.alerted_at, alerted_count = excluded.alerted_count""",
    job_id="text",
    kind="text",
    since="bigint",
    alerted_at="bigint",
    alerted_count="bigint",
)
END_EPISODES = "DELETE FROM @alert_episodes WHERE job_id = ANY($1) AND kind = $2"
END_EPISODES_OF_JOBS = "DELETE FROM @alert_episodes WHERE job_id = ANY($1)"


class PostgresNotifications(Execution):
    """A `NotificationTable` on the connection of a `PostgresStorage`."""

    _woken: frozenset[str] = frozenset()

    def insert(self, rows: Sequence[NotificationRow]) -> list[NotificationRow]:
        """Add notifications, in one statement. It sees which lines are busy, but not which of its own rows are in one line.

        Who adds them holds the rows of their jobs already, but for a job that was removed.
        """
        self._db.lock_jobs({row.job_id for row in rows})
        rows = self._without_known_alerts(rows)
        lines = set[tuple[str, str]]()
        new = list[list[Value]]()
        for position, row in enumerate(rows):
            is_first = row.line not in lines
            new.append([position, int(is_first), *row[1:6], *row[9:13]])
            lines.add(row.line)
        # Ids grow with the position, so they tell which row is which.
        stored = sorted(self._rows_of(INSERT_NOTIFICATIONS, new))
        return [row.stored(integer(number), _time(ready_at)) for row, (number, ready_at) in zip(rows, stored, strict=True)]

    def _without_known_alerts(self, rows: Sequence[NotificationRow]) -> list[NotificationRow]:
        """Leave out alerts that are stored, or that occur twice."""
        keys = [row.key for row in rows if row.key is not None]
        known = set(self._fetch(KNOWN_ALERTS, [keys])) if keys else set()
        found: list[NotificationRow] = []
        for row in rows:
            if row.key is not None:
                if (row.key, row.receiver) in known:
                    continue
                known.add((row.key, row.receiver))
                self._woken |= {row.receiver}
            found.append(row)
        return found

    def settle(self, settlements: Sequence[Settlement], *, owner: int) -> list[NotificationRow]:
        """Store the results of calls, and release the next ones.

        A settlement that has taken effect leaves no ready one in its line. Only of one that was sent again has the line to be
        searched: the first one may wait for a later one, since it was given up and reopened.
        """
        self._db.lock_jobs({row.job_id for row in settlements})
        changed = self._write(SETTLE_NOTIFICATIONS, [row[:5] for row in settlements])
        ended = {(row.receiver, row.job_id) for row in settlements if row.status != NotificationStatus.PENDING}
        if changed < len(settlements):
            ended.difference_update(map(_line, self._read(LINES_WITH_READY, ended)))
        released = self._rows_of(RELEASE_LINES, [(owner, *line) for line in ended])
        return sorted(map(NotificationRow._make, released))

    def reopen(self, row: NotificationRow) -> NotificationRow:
        """Make a notification pending again, unless another transaction has done so meanwhile."""
        self._db.lock_jobs({row.job_id})
        reopened = self._fetch_one(REOPEN_NOTIFICATION, [row.id])
        self._woken |= {row.receiver}
        ready_at = None if reopened is None else _time(reopened[0])
        return row._replace(status=NotificationStatus.PENDING, attempts=0, ready_at=ready_at, owner=0)

    def ready(self, receiver: str, *, owner: int, now: Millis, limit: int) -> list[NotificationRow]:
        """Return notifications that may be delivered: two walks, so that retries do not wait behind all others."""
        return list(map(NotificationRow._make, self._fetch(READY, [owner, receiver, now, limit])))

    def next_retry(self, receiver: str, *, owner: int, now: Millis) -> Millis | None:
        """Return the earliest time later than now."""
        return _time(self._fetch(NEXT_RETRY, [owner, receiver, max(now, AT_ONCE)])[0][0])

    def ready_lines(self) -> list[tuple[int, str]]:
        """Return pairs of owner and receiver."""
        return [(integer(owner), str(receiver)) for owner, receiver in self._fetch(READY_LINES)]

    def take_over(self, receiver: str, *, owner: int, by: int, limit: int) -> int:
        """Move notifications to another owner, but for those that another transaction is changing."""
        return self._execute(TAKE_OVER, [owner, receiver, by, limit])

    def advance_retries(self, *, now: Millis, by: Millis) -> None:
        """Let notifications be tried again earlier."""
        self._execute(ADVANCE_RETRIES, [now, by])
        self._woken |= {str(receiver) for (receiver,) in self._fetch(PENDING_RECEIVERS)}

    def keep_jobs(self, jobs: Mapping[str, str], *, without: str) -> None:
        """Store jobs in their notifications: one statement for those that are pending, and one for those that were given up."""
        rows = [(job_id, job, without) for job_id, job in jobs.items()]
        self._write(KEEP_JOBS, rows)
        self._write(KEEP_JOBS_OF_GIVEN_UP, rows)

    def count_pending(self, *, most: int) -> int:
        """Count pending notifications."""
        return integer(self._fetch(COUNT_PENDING, [most])[0][0])

    def find(self, event_key: str) -> list[NotificationRow]:
        """Return the notifications of an event."""
        run_id = run_of_key(event_key)
        rows = self._fetch(OF_ALERT, [event_key]) if run_id is None else self._fetch(OF_RUN, [run_id])
        return list(map(NotificationRow._make, rows))

    def page(
        self, *, before: int | None, status: str | None, receiver: str | None, limit: int
    ) -> tuple[list[NotificationRow], int | None]:
        """Return notifications: of at most `PAGE_OF_IDS` ids, which begin at one that exists."""
        last = self._fetch(LAST_BEFORE, [_NEVER if before is None else before])[0][0]
        if last is None:
            return [], None
        first = integer(last) - PAGE_OF_IDS + 1
        values: dict[str, Value] = {"first": first, "last": last, "status": status, "receiver": receiver, "limit": limit}
        rows = list(map(NotificationRow._make, self._fetch_named(PAGE, values)))
        return rows, rows[-1].id if len(rows) == limit else first

    def take_woken(self) -> frozenset[str]:
        """Return receivers, and forget them."""
        woken, self._woken = self._woken, frozenset()
        return woken

    # Episodes of alerts

    def episodes(self, job_ids: Sequence[str], kind: str) -> dict[str, EpisodeRow]:
        """Return episodes."""
        rows = self._fetch(EPISODES, [list(job_ids), kind]) if job_ids else []
        return {row.job_id: row for row in map(EpisodeRow._make, rows)}

    def store_episodes(self, rows: Sequence[EpisodeRow]) -> None:
        """Insert episodes, or replace them; of two for one job and kind the last counts."""
        self._write(STORE_EPISODES, {(row.job_id, row.kind): row for row in rows}.values())

    def end_episodes(self, job_ids: Sequence[str], kind: str | None = None) -> None:
        """Delete episodes."""
        if not job_ids:
            return
        if kind is None:
            self._execute(END_EPISODES_OF_JOBS, [list(job_ids)])
        else:
            self._execute(END_EPISODES, [list(job_ids), kind])


def _line(row: tuple[Value, ...]) -> tuple[str, str]:
    receiver, job_id = row
    return str(receiver), str(job_id)


def _time(value: Value) -> Millis | None:
    return None if value is None else integer(value)
