"""A storage as the store actor has opened it: beside its verbs, its clock, its lease, and what it shows of other processes."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Protocol

from cronactors.instants import Millis
from cronactors.storage.protocol import Storage


class Watch(Protocol):
    """Notices from outside whether other processes have written to a storage."""

    def unchanged(self) -> bool:
        """Return whether certainly nothing was written since the last call."""
        ...


class OpenedStorage(Storage, Protocol):
    """A storage as the store actor has opened it."""

    @property
    def wall(self) -> Callable[[], Millis]:
        """The clock that it decides by; any thread may call it, at any time."""
        ...

    def seconds(self) -> float:
        """Return the time of `wall` (s), as exactly as it can be read: a sleep is not to last for the rest of a millisecond."""
        ...

    def lease_ends(self, owner: int) -> float | None:
        """Return when the lease that this process has last renewed ends at the earliest, on the monotonic clock (s); any thread may ask.

        None: it has renewed none; or no other process can write while this one cannot.
        """
        ...

    def listen(self, heard: Callable[[], None], deaf: Callable[[bool], None]) -> AbstractContextManager[None]:
        """Call ``heard`` while the block runs, on any thread, when another process has done what cannot wait for the next tick.

        That may be missed. ``deaf`` is called with True once it is known that nothing can be heard, and with False when that is over.
        """
        ...

    def give_up_at(self, until: Callable[[], float]) -> None:
        """Let calls end with an error at a time of the monotonic clock (s) that ``until`` returns; any thread may say so, also meanwhile.

        A server may not answer for as long as a standby is away. A file is not waited for so long, or nothing can end it.
        """
        ...

    def watch(self) -> Watch:
        """Return a watch that notices writes of other processes."""
        ...

    def close(self) -> None:
        """Close it; a second time does nothing."""
        ...
