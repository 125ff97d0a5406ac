"""Notices that the wall clock was set, and has next moments computed again after it was set back. Part of the clock actor."""

from __future__ import annotations

import logging

import attrs
import trio

from cronactors.actors.actor_requests import RecomputeAfterSetBack, Registered
from cronactors.actors.leases import JUMP
from cronactors.actors.mailbox import Mailbox
from cronactors.actors.store import StoreActor
from cronactors.instants import Millis, iso_utc
from cronactors.wallclock import Wall

logger = logging.getLogger("cronactors.clock")

PAGE = 100
"""How many jobs one request computes again."""


class WallClockWatch:
    """Compares the wall clock with trio's, which cannot be set.

    While the wall clock was ahead, moments of that time may have been decided; set back, it shows these times again. So next
    moments are computed again, from the earliest time to which the clock can have been set: a moment that has passed since then
    has no row yet. What the store claims before we notice takes the time of its own transaction, and leaves no moment out.

    Args:
        mailbox: The mailbox of the store.
        wall: The wall clock.
        registered: The owner, and the latest times in the store. Times ahead of the wall clock show that it was set back while no
            scheduler was running.
        store: The store, whose observer notices jumps.
    """

    def __init__(self, mailbox: Mailbox, wall: Wall, registered: Registered, store: StoreActor) -> None:
        self._mailbox = mailbox
        self._store = store
        self._wall = wall
        self._owner = registered.owner
        now = wall()
        # The times that both clocks showed at the last tick, so that small steps between two ticks add up.
        self._at_tick = max(now, registered.last_seen or 0), trio.current_time()
        self._compared_at = trio.current_time()
        self._virtual_set_to: Millis | None = None
        self._unfinished: RecomputeAfterSetBack | None = None
        if registered.latest_added_at is not None and registered.latest_added_at > now + JUMP:
            added_at = iso_utc(registered.latest_added_at)
            logger.warning("the wall clock was ahead when jobs or runs were added, at %s", added_at)
            if self._at_tick[0] <= now + JUMP:  # else the first comparison notices it, and by how much the clock was set
                self._unfinished = RecomputeAfterSetBack(0, PAGE, self._owner, by=0, since=now, earliest=now)

    @property
    def must_compare(self) -> bool:
        """Whether the virtual wall clock was set since the last comparison."""
        return self._virtual_set_to is not None

    def virtual_clock_was_set(self) -> None:
        """Note that the user has set the virtual wall clock."""
        now = self._wall()
        self._virtual_set_to = now if self._virtual_set_to is None else min(self._virtual_set_to, now)

    async def compare(self, *, tick: bool) -> None:
        """Compare the clocks. If the wall clock was set back, have next moments computed again, page by page.

        Args:
            tick: Whether the next comparison counts the drift from here; always so after a jump.

        Raises:
            StoreUnavailable: The store failed; the next call continues with the page that is missing.
        """
        tick |= self.must_compare
        now_wall, now_mono = self._wall(), trio.current_time()
        wall, mono = self._at_tick
        since = now_wall - round((now_mono - mono) * 1000)  # the last tick, in the time that the clock shows now
        drift = since - wall
        earliest = self._virtual_set_to
        if earliest is None:
            earliest = now_wall - round((now_mono - self._compared_at) * 1000)
        self._compared_at, self._virtual_set_to = now_mono, None
        if tick or abs(drift) > JUMP:
            self._at_tick = now_wall, now_mono
        if abs(drift) > JUMP:
            logger.warning("the wall clock was set by %+.1f s, to %s", drift / 1000, iso_utc(now_wall))
            if self._store.observer is not None:
                self._store.observer.clock_jumped(drift, now_wall)
        if drift < -JUMP:
            new = RecomputeAfterSetBack(0, PAGE, self._owner, by=-drift, since=since - JUMP, earliest=earliest)
            self._unfinished = new if self._unfinished is None else _merge(self._unfinished, new)
        while self._unfinished is not None:  # page by page, so that the store serves others in between
            next_page = await self._mailbox.call(self._unfinished)
            self._unfinished = None if next_page is None else attrs.evolve(self._unfinished, after=next_page)


def _merge(old: RecomputeAfterSetBack, new: RecomputeAfterSetBack) -> RecomputeAfterSetBack:
    """Add what the store's failure left undone after the last jump; its times are earlier now, by the new jump."""
    return attrs.evolve(
        new,
        by=new.by + (old.by if old.after == 0 else 0),
        since=min(new.since, old.since - new.by),
        earliest=min(new.earliest, old.earliest - new.by),
    )
