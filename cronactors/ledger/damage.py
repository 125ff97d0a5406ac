"""Finds out whether the file is damaged, or there is a bug, after an error that should never occur. Runs on the storage thread."""

from __future__ import annotations

from collections.abc import Iterable

from cronactors.errors import CronError, StoreCorrupt
from cronactors.ledger.views import faults_of_job, faults_of_run
from cronactors.storage.protocol import Storage
from cronactors.storage.rows import RunRow

MOST_PAGES = 200
"""How many pages of jobs, and of runs, are read: that takes some seconds."""
_PAGE = 500


def find_damage(storage: Storage) -> StoreCorrupt | None:
    """Read the storage for damage, outside of a transaction.

    Returns:
        The damage; None if every value can be read, so that there is a bug, or if the storage cannot be read now.
    """
    try:
        damage = storage.check()
        if damage is not None:
            return StoreCorrupt(f"{storage.name} is damaged ({damage})")
        if storage.begin(write=False):
            try:
                _read_all(storage)
            finally:
                storage.rollback()
    except StoreCorrupt as found:
        return found
    except CronError:
        return None
    return None


def _read_all(storage: Storage) -> None:
    """Read every value as users see it.

    Raises:
        StoreCorrupt: One cannot be read.
    """
    number: int = 0
    for _ in range(MOST_PAGES):
        jobs = storage.list_jobs(after=number, limit=_PAGE, user_id=None)
        if not jobs:
            break
        number = jobs[-1][0]
        _refuse(storage.name, "jobs", (fault for _, job in jobs for fault in faults_of_job(job)))
    last: RunRow | None = None
    for _ in range(MOST_PAGES):
        runs = storage.list_runs(job_id=None, before=last, limit=_PAGE)
        if not runs:
            break
        last = runs[-1]
        _refuse(storage.name, "runs", (fault for run in runs for fault in faults_of_run(run)))


def _refuse(name: str, kind: str, faults: Iterable[CronError]) -> None:
    for fault in faults:
        raise StoreCorrupt(f"{name} is damaged (there are {kind} that cannot be read: {fault})")
