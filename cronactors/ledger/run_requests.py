"""Requests of runs: data of their own, and a key that makes a second request return the first one's run.

Runs on the storage thread. Most runs are requested with neither, or not requested at all: they have no row, and nothing is read.
"""

from __future__ import annotations

from cronactors.errors import InvalidJob, shorten
from cronactors.storage.protocol import Storage
from cronactors.storage.rows import RunRow
from cronactors.storage.run_requests import RunRequestRow


def find_requested(storage: Storage, job_id: str, *, key: str, data: str | None) -> RunRow | None:
    """Return the last attempt of the run that was requested with a key before.

    The job may have been removed since.

    Args:
        storage: Inside a transaction.
        job_id: The job.
        key: The key.
        data: The data of this request: JSON. None: that of the job.

    Returns:
        None if there was no such request, or its run is no longer in the history.

    Raises:
        InvalidJob: That request had other data.
    """
    found = storage.run_requests.of_key(job_id, key=key)
    run = None if found is None else storage.run_requests.last_run(job_id, at=found.scheduled_at)
    if found is None or run is None:
        return None
    if found.data != data:
        raise InvalidJob(f"key {shorten(key)} of job {shorten(run.job_name)} was used with other data, for run {run.id}")
    return run


def store_request(storage: Storage, run: RunRow, *, key: str | None, data: str | None) -> None:
    """Store the key and the data of a request, if it has any."""
    if key is not None or data is not None:
        storage.run_requests.insert(RunRequestRow(run.job_id, run.scheduled_at, key, data))


def requested_data(storage: Storage, run: RunRow) -> str | None:
    """Return the data that a run was requested with: JSON; None if it has the data of its job."""
    if not run.manual:
        return None
    found = storage.run_requests.of_moment(run.job_id, at=run.scheduled_at)
    return None if found is None else found.data
