"""Streams of events: bounded channels from the store actor to readers. Runs in the event loop.

The store never waits for a reader. When a channel is full the oldest event is dropped, and the reader gets an `EventsLost` in its
place. So a reader that is slow, or has stopped reading, costs its own events and nothing else.

This module and `cronactors.events` are imported when the first stream is opened: the classes of events take a tenth of the time that the
import of trio takes, and most programs read none.
"""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Final, Self, cast

import trio

from cronactors.actors.observed_storage import ObservedStorage
from cronactors.actors.store import StoreActor
from cronactors.errors import CronError
from cronactors.events import ClockJumped, Event, EventsLost, StoreFailed, StoreWorking
from cronactors.instants import Millis, from_millis
from cronactors.storage.protocol import Storage

MOST_EVENTS: Final = 1_000_000
"""How many events a stream holds at most until its reader takes them."""


class EventSource:
    """The observer of a store while streams are open. It makes events, and puts them into each stream."""

    def __init__(self) -> None:
        self.streams: list[EventStream] = []

    def observed(self, storage: Storage) -> Storage:
        """Return a storage for one transaction that collects its events."""
        return cast("Storage", ObservedStorage(storage))  # it delegates most verbs

    def committed(self, storage: Storage) -> None:
        """Publish the events of a transaction."""
        if isinstance(storage, ObservedStorage):
            for event in storage.events:
                self._publish(event)

    def store_failed(self, reason: str) -> None:
        """Publish that the store has failed."""
        self._publish(StoreFailed(reason=reason))

    def store_working(self) -> None:
        """Publish that it works again."""
        self._publish(StoreWorking())

    def clock_jumped(self, by: Millis, now: Millis) -> None:
        """Publish that the wall clock was set."""
        self._publish(ClockJumped(seconds=by / 1000, now=from_millis(now)))

    def _publish(self, event: Event) -> None:
        for stream in self.streams:
            stream.put(event)


class EventStream:
    """Events as they are committed, from the beginning of its block on. `CronScheduler.events` makes it.

    Use it as ``async with``, and iterate over it with ``async for``. The iteration ends when the scheduler has closed, after the last
    event, or when the block is left. A cancelled iteration loses no event.

    Args:
        store: The store whose commits it shows.
        of_scheduler: The open streams of a scheduler, which closes them.
        check_open: Raises SchedulerClosed once that scheduler has closed.
        capacity: How many events it holds.
    """

    def __init__(
        self, store: StoreActor, of_scheduler: set[EventStream], check_open: Callable[[], None], *, capacity: int
    ) -> None:
        self._store = store
        self._of_scheduler = of_scheduler
        self._check_open = check_open
        self._send, self._receive = trio.open_memory_channel[Event](capacity)
        self._lost = 0
        self._source: EventSource | None = None

    async def __aenter__(self) -> Self:
        """Begin to collect events."""
        await trio.lowlevel.checkpoint_if_cancelled()
        if self._source is not None:
            raise CronError("a stream of events can be entered once: call events() again")
        self._check_open()
        observer = self._store.observer
        self._source = observer if isinstance(observer, EventSource) else EventSource()
        self._source.streams.append(self)
        self._store.observer = self._source
        self._of_scheduler.add(self)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop collecting events, and drop those that were not read."""
        self.close()
        self._receive.close()

    def close(self) -> None:
        """Let the iteration end after the events that it has."""
        if self._source is not None and self in self._source.streams:
            self._source.streams.remove(self)
            self._of_scheduler.remove(self)
            if not self._source.streams:
                self._store.observer = None
        self._send.close()

    def put(self, event: Event) -> None:
        """Add an event; if there is no room, drop the oldest."""
        try:
            self._send.send_nowait(event)
        except trio.WouldBlock:
            self._receive.receive_nowait()
            self._lost += 1
            self._send.send_nowait(event)

    def __aiter__(self) -> Self:
        """Iterate over the events."""
        return self

    async def __anext__(self) -> Event:
        """Wait for the next event."""
        if self._source is None:
            raise CronError("a stream of events must be entered: async with scheduler.events() as stream")
        if self._lost:
            await trio.lowlevel.checkpoint()
            count, self._lost = self._lost, 0
            return EventsLost(count=count)
        try:
            return await self._receive.receive()
        except (trio.EndOfChannel, trio.ClosedResourceError):
            raise StopAsyncIteration from None
