"""The table run_requests in a SQLite file, with its statements; `run_requests` documents each verb."""

from __future__ import annotations

from collections.abc import Sequence

from cronactors.instants import Millis
from cronactors.storage.execution import Execution
from cronactors.storage.row_statement import RowStatement
from cronactors.storage.rows import RunRow
from cronactors.storage.run_requests import RunRequestRow
from cronactors.storage.statements import _RUNS

_REQUESTS = 'SELECT job_id, scheduled_at, "key", data FROM run_requests'

INSERT_REQUEST = 'INSERT OR REPLACE INTO run_requests (job_id, scheduled_at, "key", data) VALUES (?, ?, ?, ?)'
REQUEST_OF_MOMENT = f"{_REQUESTS} WHERE job_id = ? AND scheduled_at = ?"
REQUEST_OF_KEY = f'{_REQUESTS} WHERE job_id = ? AND "key" = ?'
LAST_REQUESTED_RUN = f"{_RUNS} WHERE job_id = ? AND scheduled_at = ? AND manual = 1 ORDER BY attempt DESC LIMIT 1"
DELETE_REQUEST = RowStatement("DELETE FROM run_requests WHERE job_id = :job_id AND scheduled_at = :scheduled_at")


class SqliteRunRequests(Execution):
    """A `RunRequestTable` on the connection of a `SqliteStorage`."""

    def insert(self, row: RunRequestRow) -> None:
        """Add a request."""
        self._execute(INSERT_REQUEST, row)

    def of_moment(self, job_id: str, *, at: Millis) -> RunRequestRow | None:
        """Return the request for a moment."""
        found = self._fetch_one(REQUEST_OF_MOMENT, (job_id, at))
        return None if found is None else RunRequestRow._make(found)

    def of_key(self, job_id: str, *, key: str) -> RunRequestRow | None:
        """Return the request that has a key."""
        found = self._fetch_one(REQUEST_OF_KEY, (job_id, key))
        return None if found is None else RunRequestRow._make(found)

    def last_run(self, job_id: str, *, at: Millis) -> RunRow | None:
        """Return the last attempt of a requested moment."""
        found = self._fetch_one(LAST_REQUESTED_RUN, (job_id, at))
        return None if found is None else RunRow._make(found)

    def delete(self, moments: Sequence[tuple[str, Millis]]) -> None:
        """Delete the requests for moments."""
        self._write(DELETE_REQUEST, moments)
