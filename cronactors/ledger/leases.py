"""Leases: how long an owner counts as alive after its last heartbeat, and how often it sends one. Runs on the storage thread.

A process may be stopped for 19 s at any time and still own its runs, as its last heartbeat is then at most
``HEARTBEAT_EVERY + HEARTBEAT_WITH_CLAIM`` (11 s) old. The docs give these constants as numbers.
"""

from __future__ import annotations

from collections.abc import Iterable

from cronactors.instants import Millis
from cronactors.storage.protocol import Storage
from cronactors.storage.rows import OwnerRow

LEASE: Millis = 30_000
"""How long (ms) an owner counts as alive after its last heartbeat."""
HEARTBEAT_EVERY: Millis = 10_000
"""Interval (ms) of heartbeats while an owner has open runs, however long its lease still lasts."""
HEARTBEAT_WHEN_IDLE: Millis = 60_000
"""Interval (ms) of heartbeats of an owner without open runs: others see that it is alive, and the disk wakes up once a minute."""
HEARTBEAT_WITH_CLAIM: Millis = 1_000
"""A claim sends a heartbeat too, unless the last one is younger (ms): under load that is one write a second, not one for each claim."""

_ANY_LEASE: Millis = 2**62


def renew(storage: Storage, owner: int) -> None:
    """Send a heartbeat with a claim, so that its runs start with a whole lease, less `HEARTBEAT_WITH_CLAIM` at most."""
    now = storage.now()
    storage.renew_lease(owner, now=now, until=now + LEASE, unless_later_than=now + LEASE - HEARTBEAT_WITH_CLAIM)


def renew_leases(storage: Storage, owners: Iterable[int]) -> None:
    """Send a heartbeat of owners, however long their leases still last."""
    now = storage.now()
    for owner in owners:
        storage.renew_lease(owner, now=now, until=now + LEASE, unless_later_than=_ANY_LEASE)


def shorten(storage: Storage, row: OwnerRow) -> None:
    """Shorten a lease to that of a heartbeat sent now, after the clock was set back."""
    now = storage.now()
    storage.renew_lease(row.id, now=now, until=min(row.lease_until, now + LEASE), unless_later_than=_ANY_LEASE)


def end_lease(storage: Storage, owner: int) -> None:
    """End an owner's lease at once."""
    storage.renew_lease(owner, now=storage.now(), until=0, unless_later_than=_ANY_LEASE)
