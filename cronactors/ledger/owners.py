"""Owners: each scheduler, and each handle with a loop of its own, registers as the owner of its runs. Runs on the storage thread."""

from __future__ import annotations

import json
from collections.abc import Collection

from cronactors.instants import DAY, Millis
from cronactors.ledger import leases
from cronactors.owner import ProcessIdentity, certainly_dead
from cronactors.storage.protocol import Storage
from cronactors.storage.rows import OwnerRow

_WEEK: Millis = 7 * DAY
_RUNNING_SINCE = "running_since"
"""The fact (`Storage.meta`) that says since when at least one owner has been running without a gap."""


def register(storage: Storage, this_process: ProcessIdentity, receivers: Collection[str] = ()) -> int:
    """Register an owner, with a lease from now, and delete owners that own no runs and have closed or died, or were not seen for a week.

    Owners whose last heartbeat lies ahead of now stay: they show that the clock was set back, until `clock_set_back.recompute_page` has
    moved them.

    Args:
        storage: Inside a transaction.
        this_process: The identity of this process.
        receivers: The receivers of notifications that the owner has.

    Returns:
        The number of the owner.
    """
    now = storage.now()
    busy = {run.owner for run in storage.running()}
    rows = storage.owners()
    if not any(_seems_alive(row, this_process, now) for row in rows):
        storage.set_meta(_RUNNING_SINCE, json.dumps(now))
    idle = [row for row in rows if row.id not in busy and row.heartbeat_at <= now]
    unseen = now - _WEEK
    storage.delete_owners([row.id for row in idle if _is_gone(row, this_process) or row.heartbeat_at < unseen])
    number = leases.add_owner(storage, this_process, receivers)
    _forget_stale_marks(storage, number, busy)
    return number


def _seems_alive(row: OwnerRow, this_process: ProcessIdentity, now: Millis) -> bool:
    """Return whether an owner is probably running: it is of this process, or has sent a heartbeat when it was to send the last one."""
    if _is_gone(row, this_process):
        return False
    return row.process == this_process or row.lease_until > now - leases.HEARTBEAT_WHEN_IDLE


def _is_gone(row: OwnerRow, this_process: ProcessIdentity) -> bool:
    """Return whether an owner has closed, or has certainly died."""
    return row.lease_until == 0 or certainly_dead(row.process, this_process)


def running_since(storage: Storage) -> Millis | None:
    """Return since when at least one owner has been running without a gap; None if that is not known."""
    try:
        return int(json.loads(storage.meta(_RUNNING_SINCE) or "null"))
    except (TypeError, ValueError, OverflowError, RecursionError):  # damaged, or of an owner of an older version
        return None


def _forget_stale_marks(storage: Storage, registered: int, busy: Collection[int | None]) -> None:
    """Remove stop marks that no recovery needs: of an earlier file of this name, or of a process that was killed before it removed them.

    We cannot see whether a process of another container has died. But once an owner has no runs, and its lease ended a day ago, its mark
    changes nothing.
    """
    marked = storage.stopping_owners()
    if not marked:
        return
    recent = storage.now() - DAY
    known = {row.id for row in storage.owners() if row.id in busy or row.lease_until > recent} - {registered}
    for owner in marked - known:
        storage.unmark_stopping(owner)


def sign_off(storage: Storage, owner: int) -> None:
    """Store that an owner has closed: runs that it left open are recovered by another owner at once."""
    leases.end_lease(storage, owner)
    storage.unmark_stopping(owner)


def last_seen(storage: Storage) -> Millis | None:
    """Return the time of the latest heartbeat of any owner."""
    return max((row.heartbeat_at for row in storage.owners()), default=None)


def receivers(storage: Storage, own: Collection[int]) -> dict[str, set[int]]:
    """Return the receivers that exist, each with the owners that have it.

    An owner counts until it closes. One that was killed counts for a week, since its program may start again: alerts are still written
    for it, and its pending notifications are not pruned.

    Args:
        storage: Inside a transaction.
        own: The owners of this process, which are alive, also on virtual time, where nothing renews their leases.
    """
    recent = max(0, storage.now() - _WEEK)
    found: dict[str, set[int]] = {}
    for row in storage.owners():
        if row.id in own or (row.lease_until != 0 and row.heartbeat_at > recent):
            for name in receivers_of(row):
                found.setdefault(name, set()).add(row.id)
    return found


def receivers_of(row: OwnerRow) -> set[str]:
    """Return the names of the receivers that an owner has; none if the column is damaged."""
    try:
        names = json.loads(row.receivers)
    except (ValueError, TypeError, RecursionError):
        return set()
    return set(map(str, names)) if isinstance(names, list) else set()
