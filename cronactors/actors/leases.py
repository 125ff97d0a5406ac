"""Leases: whether the end of another owner's lease can be trusted, and the heartbeats that keep our own.

Trust is checked in the event loop; heartbeats are given on the storage thread.
"""

from __future__ import annotations

import time

import trio

from cronactors.actors.actor_requests import OwnersBusy, RenewLeases
from cronactors.actors.store import Done, run_batch
from cronactors.instants import Millis
from cronactors.ledger import leases
from cronactors.storage.protocol import Storage
from cronactors.wallclock import Wall

JUMP: Millis = 1_000
"""How far the wall clock and trio's clock may drift apart between two comparisons before the wall clock counts as set."""


class LeaseTrust:
    """Whether a lease that has run out means that its owner is dead.

    A lease is a time of the wall clock. If that was set ahead, or the machine was suspended, a lease can have run out although
    its owner lives and had no chance to renew it. So we trust leases only once the wall clock and trio's have gone evenly for the
    length of one: by then each living owner has given a heartbeat.
    """

    def __init__(self, wall: Wall) -> None:
        self._wall = wall
        self._compared = wall(), trio.current_time()
        self._even_since = trio.current_time()

    def trusted(self) -> bool:
        """Compare the clocks with the last comparison, and return whether leases can be trusted."""
        wall, mono = self._wall(), trio.current_time()
        if abs((wall - self._compared[0]) - (mono - self._compared[1]) * 1000) > JUMP:
            self._even_since = mono
        self._compared = wall, mono
        return mono - self._even_since >= leases.LEASE / 1000


class Heartbeats:
    """Gives the heartbeats of some owners. The storage thread calls it every `leases.HEARTBEAT_EVERY`, also while the loop is blocked.

    While an owner has open runs, each call is a heartbeat. Else one every `leases.HEARTBEAT_WHEN_IDLE` is enough, so that an idle
    process commits once a minute.

    Args:
        storage: Where the leases are.
        owners: The owners; the set may change.
    """

    def __init__(self, storage: Storage, owners: set[int]) -> None:
        self._storage = storage
        self._owners = owners
        self._next_idle = self._after_idle()

    @staticmethod
    def _after_idle() -> float:
        # Half a beat early: else the call that is due could come just too soon, and the heartbeat would wait for the next one.
        return time.monotonic() + (leases.HEARTBEAT_WHEN_IDLE - leases.HEARTBEAT_EVERY / 2) / 1000

    def __call__(self) -> bool:
        """Give a heartbeat if one is due; return False if the file was locked or failed, so that the thread soon tries again."""
        owners = tuple(self._owners)
        if not owners:
            return True
        match run_batch(self._storage, [OwnersBusy(owners)]):
            case Done([busy], _):
                if not busy and time.monotonic() < self._next_idle:
                    return True
            case _:
                return False
        if not isinstance(run_batch(self._storage, [RenewLeases(owners)]), Done):
            return False
        self._next_idle = self._after_idle()
        return True
