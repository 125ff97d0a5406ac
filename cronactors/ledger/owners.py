"""Owners: their registration, and that they have closed."""

from __future__ import annotations

from collections.abc import Collection

from cronactors.instants import Millis
from cronactors.ledger import leases
from cronactors.owner import ProcessIdentity, certainly_dead
from cronactors.storage.protocol import Storage
from cronactors.storage.rows import OwnerRow

_DAY: Millis = 86_400_000


def register(storage: Storage, this_process: ProcessIdentity) -> int:
    """Enter an owner, with a lease from now; owners that have closed or died and own nothing are forgotten.

    Not if their last sign of life lies ahead: it tells that the clock was set back, until a scheduler heeds that by `recompute_page`.
    """
    now = storage.now()
    busy = {run.owner for run in storage.running()}
    idle = [row for row in storage.owners() if row.id not in busy and row.heartbeat_at <= now]
    gone = [
        row.id
        for row in idle
        if row.lease_until == 0 or certainly_dead(ProcessIdentity(row.machine, row.pid, row.process_start), this_process)
    ]
    storage.delete_owners(gone)
    lease_until = now + leases.LEASE
    number = storage.insert_owner(
        OwnerRow(
            0,
            this_process.machine,
            this_process.pid,
            this_process.process_start,
            heartbeat_at=now,
            lease_until=lease_until,
        )
    )
    _forget_stale_marks(storage, number, busy)
    return number


def _forget_stale_marks(storage: Storage, registered: int, busy: Collection[int | None]) -> None:
    """Remove marks that stand for nobody: of an earlier file of this name, or of a process that was killed before it removed them.

    Whether a process of another container has died nobody can tell; a mark is of no use once its owner has no runs and its lease ended
    a day ago.
    """
    marked = storage.stopping_owners()
    if not marked:
        return
    recent = storage.now() - _DAY
    known = {row.id for row in storage.owners() if row.id in busy or row.lease_until > recent} - {registered}
    for owner in marked - known:
        storage.unmark_stopping(owner)


def sign_off(storage: Storage, owner: int) -> None:
    """Note that an owner has closed: what it still runs, if anything, is run by nobody."""
    leases.end_lease(storage, owner)
    storage.unmark_stopping(owner)


def last_seen(storage: Storage) -> Millis | None:
    """The latest sign of life of any owner."""
    return max((row.heartbeat_at for row in storage.owners()), default=None)
