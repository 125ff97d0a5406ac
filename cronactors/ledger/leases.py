"""Leases: how long an owner counts as alive after its last heartbeat, and how often it sends one. Runs on the storage thread.

A process may be stopped for 19 s at any time and still own its runs, as its last heartbeat is then at most
``HEARTBEAT_EVERY + HEARTBEAT_WITH_CLAIM`` (11 s) old. The docs give these constants as numbers.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable

from cronactors.instants import Millis
from cronactors.owner import ProcessIdentity
from cronactors.storage.protocol import Storage
from cronactors.storage.rows import DECLARED_DEAD, OwnerRow

LEASE: Millis = 30_000
"""How long (ms) an owner counts as alive after its last heartbeat."""
HEARTBEAT_EVERY: Millis = 10_000
"""Interval (ms) of heartbeats while an owner has open runs, however long its lease still lasts."""
HEARTBEAT_WHEN_IDLE: Millis = 60_000
"""Interval (ms) of heartbeats of an owner without open runs: others see that it is alive, and the disk wakes up once a minute."""
HEARTBEAT_WITH_CLAIM: Millis = 1_000
"""A claim sends a heartbeat too, unless the last one is younger (ms): under load that is one write a second, not one for each claim."""

_ANY_LEASE: Millis = 2**62


def add_owner(storage: Storage, this_process: ProcessIdentity, receivers: Collection[str], *, number: int = 0) -> int:
    """Add an owner with a lease from now, and return its number: a new one, unless one is given."""
    now = storage.now()
    return storage.insert_owner(
        OwnerRow(
            number,
            this_process.machine,
            this_process.pid,
            this_process.process_start,
            heartbeat_at=now,
            lease_until=now + LEASE,
            receivers=json.dumps(sorted(receivers)),
        )
    )


def renew(storage: Storage, owner: int) -> bool:
    """Send a heartbeat with a claim, so that its runs start with a whole lease, less `HEARTBEAT_WITH_CLAIM` at most.

    Returns:
        Whether the owner may start runs: it may not once it was declared dead.
    """
    now = storage.now()
    row = storage.owner(owner)
    if row is None or row.lease_until == DECLARED_DEAD:
        return False
    unless_later_than = now + LEASE - HEARTBEAT_WITH_CLAIM
    if row.lease_until < unless_later_than or row.heartbeat_at > now:
        storage.renew_lease(owner, now=now, until=now + LEASE, unless_later_than=unless_later_than)
    return True


def renew_leases(storage: Storage, owners: Iterable[int]) -> None:
    """Send a heartbeat of owners, however long their leases still last; those that were declared dead stay so."""
    now = storage.now()
    dead = {row.id for row in storage.owners() if row.lease_until == DECLARED_DEAD}
    for owner in owners:
        if owner not in dead:
            storage.renew_lease(owner, now=now, until=now + LEASE, unless_later_than=_ANY_LEASE)


def declare_dead(storage: Storage, owner: int) -> None:
    """Store that an owner is dead, since its runs are taken over: should it still be running, it learns of it before it starts another."""
    row = storage.owner(owner)
    if row is not None and row.lease_until > 0:
        storage.renew_lease(owner, now=row.heartbeat_at, until=DECLARED_DEAD, unless_later_than=_ANY_LEASE)


def was_declared_dead(storage: Storage, owner: int) -> bool:
    """Return whether another owner has taken over what this one was running; its row may have been deleted since."""
    return all(row.id != owner or row.lease_until == DECLARED_DEAD for row in storage.owners())


def revive(storage: Storage, owner: int, this_process: ProcessIdentity, receivers: Collection[str] = ()) -> None:
    """Give an owner that was declared dead a lease again, and its row if that was deleted; all its runs were taken over."""
    now = storage.now()
    if storage.owner(owner) is None:
        add_owner(storage, this_process, receivers, number=owner)
    else:
        storage.renew_lease(owner, now=now, until=now + LEASE, unless_later_than=now)


def shorten(storage: Storage, row: OwnerRow) -> None:
    """Shorten a lease to that of a heartbeat sent now, after the clock was set back."""
    now = storage.now()
    storage.renew_lease(row.id, now=now, until=min(row.lease_until, now + LEASE), unless_later_than=_ANY_LEASE)


def end_lease(storage: Storage, owner: int) -> None:
    """End an owner's lease at once."""
    storage.renew_lease(owner, now=storage.now(), until=0, unless_later_than=_ANY_LEASE)
