"""Stopping a scheduler: how much time it has, and the mark beside the file that says that it is stopping.

A platform that stops a container grants a fixed time and then kills; Docker grants 10 s. Runs in their grace, recording,
notifying and signing off share 8 s of it. If the kill comes anyway, the next start finds the mark: the process was stopped and
did not crash, so its runs are run again at no cost of a retry.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Collection
from contextlib import suppress

import trio

from cronactors.storage.protocol import Storage

logger = logging.getLogger("cronactors.scheduler")

STOP_LIMIT = 8.0
"""How long (s) a stop may last until everything is recorded, notified and signed off: Docker kills after 10 s."""
AFTER_GRACE = 3.0
"""How long (s) a stop may last beyond the grace, if that is longer than 5 s: 2 s for a shell command to end, 1 s for the rest."""
LEAST_LEFT = 0.5
"""How much time (s) recording, notifying and signing off have at least, after the last executor has ended."""
SIGN_OFF_SHARE = 0.25
"""The end (s) of a stop, reserved for signing off: a store that has failed until then may work again."""
MARK_LIMIT = 0.5
"""How long (s) a stop waits for its mark. The thread that writes it may take longer if the disk stalls."""


class StopDeadline:
    """When each part of a stop ends, on trio's clock.

    Args:
        grace: How long (s) from now runs have to end by themselves.

    Attributes:
        grace_ends: When runs are cancelled.
        at: When recording and notifying end.
    """

    def __init__(self, grace: float) -> None:
        started = trio.current_time()
        self.grace_ends = started + grace
        self.at = started + max(STOP_LIMIT, grace + AFTER_GRACE) - SIGN_OFF_SHARE

    def extend(self) -> float:
        """Leave at least `LEAST_LEFT` from now, since an executor may have used up the time. Return the new `at`."""
        self.at = max(self.at, trio.current_time() + LEAST_LEFT - SIGN_OFF_SHARE)
        return self.at

    @property
    def sign_off_ends(self) -> float:
        """When signing off is left to the end of the store."""
        return self.at + SIGN_OFF_SHARE


async def mark_stopping(storage: Storage, owners: Collection[int], *, in_place: bool) -> None:
    """Mark beside the file that owners are stopping. Shielded; takes 0.2 ms usually, and `MARK_LIMIT` at most.

    The storage thread may be waiting for a locked file or a slow disk, and if the disk stalls, creating a file in the event loop
    would block it. So a thread of its own creates it, and we wait for that thread up to the limit. A mark that comes late still
    counts.

    Args:
        storage: Creates the marks.
        owners: The owners that are stopping.
        in_place: Create the marks in the event loop: on virtual time, which must not pass meanwhile.
    """
    if not owners:
        return
    marked, token = trio.Event(), trio.lowlevel.current_trio_token()

    def mark() -> None:
        _mark(storage, owners)
        with suppress(trio.RunFinishedError):
            token.run_sync_soon(marked.set)

    thread = threading.Thread(target=mark, name="cronactors-stopping", daemon=True)
    try:
        if not in_place:
            thread.start()
    except RuntimeError:  # the system allows no more threads
        in_place = True
    if in_place:
        _mark(storage, owners)
        return
    with trio.move_on_after(MARK_LIMIT, shield=True):
        await marked.wait()
        thread.join()  # at once: it only has to return


def _mark(storage: Storage, owners: Collection[int]) -> None:
    try:
        for owner in owners:
            storage.mark_stopping(owner)
    except OSError as error:
        logger.warning(
            "cannot mark beside %s that this process is stopping (%s): if it is killed now, that counts as a crash",
            storage.name,
            error,
        )
