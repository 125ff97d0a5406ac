"""The table run_requests on PostgreSQL, with its statements; `storage.run_requests` documents each verb."""

from __future__ import annotations

from collections.abc import Sequence

from cronactors.instants import Millis
from cronactors.storage.postgres.columns import quoted
from cronactors.storage.postgres.execution import Execution, Rows
from cronactors.storage.rows import RunRow
from cronactors.storage.run_requests import RunRequestRow

_REQUESTS = 'SELECT job_id, scheduled_at, "key", data FROM @run_requests'

DELETE_OTHER_OF_KEY = 'DELETE FROM @run_requests WHERE job_id = $1 AND "key" = $2 AND scheduled_at <> $3'
SET_REQUEST = """INSERT INTO @run_requests (job_id, scheduled_at, "key", data) VALUES ($1, $2, $3, $4)
 ON CONFLICT (job_id, scheduled_at) DO UPDATE SET "key" = excluded."key", data = excluded.data"""
REQUEST_OF_MOMENT = f"{_REQUESTS} WHERE job_id = $1 AND scheduled_at = $2"
REQUEST_OF_KEY = f'{_REQUESTS} WHERE job_id = $1 AND "key" = $2'
LAST_REQUESTED_RUN = f"""SELECT {quoted(RunRow._fields)} FROM @runs
 WHERE job_id = $1 AND scheduled_at = $2 AND manual = 1 ORDER BY attempt DESC LIMIT 1"""
DELETE_REQUESTS = Rows(
    "DELETE FROM @run_requests WHERE (job_id, scheduled_at) IN (SELECT job_id, scheduled_at FROM new)",
    job_id="text",
    scheduled_at="bigint",
)


class PostgresRunRequests(Execution):
    """A `RunRequestTable` on the connection of a `PostgresStorage`."""

    def insert(self, row: RunRequestRow) -> None:
        """Add a request."""
        if row.key is not None:
            self._execute(DELETE_OTHER_OF_KEY, [row.job_id, row.key, row.scheduled_at])
        self._execute(SET_REQUEST, row)

    def of_moment(self, job_id: str, *, at: Millis) -> RunRequestRow | None:
        """Return the request for a moment."""
        found = self._fetch_one(REQUEST_OF_MOMENT, [job_id, at])
        return None if found is None else RunRequestRow._make(found)

    def of_key(self, job_id: str, *, key: str) -> RunRequestRow | None:
        """Return the request that has a key."""
        found = self._fetch_one(REQUEST_OF_KEY, [job_id, key])
        return None if found is None else RunRequestRow._make(found)

    def last_run(self, job_id: str, *, at: Millis) -> RunRow | None:
        """Return the last attempt of a requested moment."""
        found = self._fetch_one(LAST_REQUESTED_RUN, [job_id, at])
        return None if found is None else RunRow._make(found)

    def delete(self, moments: Sequence[tuple[str, Millis]]) -> None:
        """Delete the requests for moments."""
        self._write(DELETE_REQUESTS, moments)
