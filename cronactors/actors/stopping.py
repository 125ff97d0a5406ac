"""The end of a scheduler: the time that it has, and the mark that it has been asked to stop."""

from __future__ import annotations

import logging
import threading
from collections.abc import Collection
from contextlib import suppress

import trio

from cronactors.storage.protocol import Storage

logger = logging.getLogger("cronactors.scheduler")

STOP_LIMIT = 8.0
"""Seconds from the beginning of a stop within which all is recorded, notified and signed off: Docker kills after 10 s."""
AFTER_GRACE = 3.0
"""Seconds that a stop lasts at least beyond a grace that a user has made longer: 2 s for a shell command, 1 s for the rest."""
LEAST_LEFT = 0.5
"""Seconds that are left at least for recording, notifying and signing off, after the last executor has ended."""
SIGN_OFF_SHARE = 0.25
"""Seconds at the end of both that are kept for signing off: a store that failed for all of the rest may work again."""
MARK_LIMIT = 0.5
"""Seconds that a stop waits for its mark beside the database; a disk that stalls may keep the thread that writes it for longer."""


class StopDeadline:
    """When a stop is over. Recording, notifying and signing off share what is left of it.

    Args:
        grace: Seconds from now that runs have to end by themselves.

    Attributes:
        grace_ends: When runs are cancelled, on trio's clock.
        at: When nothing more is recorded or notified, on trio's clock.
    """

    def __init__(self, grace: float) -> None:
        began = trio.current_time()
        self.grace_ends = began + grace
        self.at = began + max(STOP_LIMIT, grace + AFTER_GRACE) - SIGN_OFF_SHARE

    def extend(self) -> float:
        """Leave at least `LEAST_LEFT` from now, as an executor that shielded itself may have used up the time; answer the end."""
        self.at = max(self.at, trio.current_time() + LEAST_LEFT - SIGN_OFF_SHARE)
        return self.at

    @property
    def sign_off_ends(self) -> float:
        """When signing off is left to the end of the store, on trio's clock."""
        return self.at + SIGN_OFF_SHARE


async def mark_stopping(storage: Storage, owners: Collection[int], *, in_place: bool) -> None:
    """Mark beside the database that owners have been asked to stop. Shielded; takes `MARK_LIMIT` at most, usually 0.2 ms.

    The storage thread may be waiting for a locked file or a slow disk, and creating a file in the loop would block it where the disk
    stalls. So a thread of its own does it, for which we wait only so long. A mark that comes late is still of use.

    Args:
        storage: Not used but for the marks.
        owners: Who stops.
        in_place: Do it in the loop: for virtual time, which must not pass meanwhile.
    """
    if not owners:
        return
    marked, token = trio.Event(), trio.lowlevel.current_trio_token()

    def act() -> None:
        _mark(storage, owners)
        with suppress(trio.RunFinishedError):
            token.run_sync_soon(marked.set)

    thread = threading.Thread(target=act, name="cronactors-stopping", daemon=True)
    try:
        if not in_place:
            thread.start()
    except RuntimeError:  # no more threads
        in_place = True
    if in_place:
        _mark(storage, owners)
        return
    with trio.move_on_after(MARK_LIMIT, shield=True):
        await marked.wait()
        thread.join()  # it has nothing left to do but return


def _mark(storage: Storage, owners: Collection[int]) -> None:
    try:
        for owner in owners:
            storage.mark_stopping(owner)
    except OSError as error:
        logger.warning(
            "cannot mark beside %s that this process is stopping (%s): killed now, it would count as a crash", storage.name, error
        )
