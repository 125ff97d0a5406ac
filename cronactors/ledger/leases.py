"""Leases: how long an owner counts as alive after its last heartbeat, and how often it gives one. Runs on the storage thread.

A process may be stopped for 19 s, at any point of its rhythm, and keeps its runs: its last heartbeat is then at most
``KEEP_EVERY + CLAIM_KEEPS`` (11 s) old. Every number of the docs is one of these.
"""

from __future__ import annotations

from collections.abc import Iterable

from cronactors.instants import Millis
from cronactors.storage.protocol import Storage
from cronactors.storage.rows import OwnerRow

LEASE: Millis = 30_000
"""How long an owner counts as alive after its last heartbeat."""
KEEP_EVERY: Millis = 10_000
"""Between two heartbeats while an owner has open runs, whatever is left of its lease."""
KEEP_IDLE: Millis = 60_000
"""Between two heartbeats of an owner without open runs: others see that it is alive, and the disk wakes up once a minute."""
CLAIM_KEEPS: Millis = 1_000
"""A claim gives a heartbeat too, unless the last one is younger: under load that is one write a second, not one for each claim."""

_ANY_LEASE: Millis = 2**62


def renew(storage: Storage, owner: int) -> None:
    """Give a heartbeat with a claim, so that what it starts has a whole lease, give or take `CLAIM_KEEPS`."""
    now = storage.now()
    storage.renew_lease(owner, now=now, until=now + LEASE, unless_later_than=now + LEASE - CLAIM_KEEPS)


def renew_leases(storage: Storage, owners: Iterable[int]) -> None:
    """Give a heartbeat of owners, whatever is left of their leases."""
    now = storage.now()
    for owner in owners:
        storage.renew_lease(owner, now=now, until=now + LEASE, unless_later_than=_ANY_LEASE)


def shorten(storage: Storage, row: OwnerRow) -> None:
    """After the clock was set back: let a lease last no longer than one that is renewed now."""
    now = storage.now()
    storage.renew_lease(row.id, now=now, until=min(row.lease_until, now + LEASE), unless_later_than=_ANY_LEASE)


def end_lease(storage: Storage, owner: int) -> None:
    """End an owner's lease at once."""
    storage.renew_lease(owner, now=storage.now(), until=0, unless_later_than=_ANY_LEASE)
