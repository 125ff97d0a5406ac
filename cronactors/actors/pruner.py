"""The pruner actor: deletes the history that `History` does not keep, in pieces between the claims.

A deletion can wait and a claim cannot. So a round is cut into pieces: each is a request of its own that ends after 2 ms on the storage
thread, none is sent within 20 ms of the next due moment, and while runs are in flight the pieces take at most 2 % of the time. A round
begins ten minutes after the last one if anything was committed since, and else once an hour. If there is nothing to prune it is one
piece that reads a few rows. Schedulers of one store prune in turns.
"""

from __future__ import annotations

import logging
import time
from typing import Final

import attrs
import trio

from cronactors.actors.clock import Clock
from cronactors.actors.exits import actor
from cronactors.actors.mailbox import RETRY_PAUSES, Request
from cronactors.actors.pool import RunnerPool
from cronactors.actors.store import Committed
from cronactors.actors.store_lifetime import StoreService
from cronactors.backoff import backoff
from cronactors.errors import StoreUnavailable
from cronactors.instants import Millis, iso_utc
from cronactors.ledger.pruning import Round, note_turn, turn_of_other
from cronactors.retention import History
from cronactors.storage.protocol import Storage

logger = logging.getLogger("cronactors.store")

FIRST_LOOK: Final = 10.0
"""How long (s) after a start the first round begins: a program that runs once an hour, for a minute, has to prune too."""
LOOK_EVERY: Final = 600.0
"""How long (s) after a round the next one begins, if anything was committed meanwhile."""
LOOK_WHEN_IDLE: Final = 3600.0
"""How long (s) after a round the next one begins at the latest. On virtual time there is none without a commit."""
PIECE_LENGTH: Final = 0.002
"""After how long (s) on the storage thread a piece ends. Its last step and the commit add some 2 ms; up to 20 ms where
each run has 100 kB of output."""
CLEAR: Final = 0.02
"""How long (s) before a due moment no piece is sent."""
SHARE: Final = 0.02
"""The greatest share of the time that pieces take while runs are in flight, or requests wait."""
SHARE_WHEN_IDLE: Final = 0.2
"""Likewise while no run is in flight."""


@attrs.frozen(kw_only=True)
class PieceReport:
    """The reply to `PrunePiece`.

    Attributes:
        ended: Whether the round has ended.
        seconds: How long (s) the piece took on the storage thread, without the commit.
        wait: How long (ms) it is still the turn of another scheduler; then nothing was carried out.
    """

    ended: bool
    seconds: float
    wait: Millis = 0


@attrs.frozen
class PrunePiece(Request[PieceReport]):
    """Carry out a piece of a round, unless it is the turn of another scheduler than ``owner``."""

    round: Round
    owner: int

    def apply(self, storage: Storage) -> PieceReport:
        started = time.perf_counter()
        wait = turn_of_other(storage, self.owner)
        if wait:
            return PieceReport(ended=False, seconds=0, wait=wait)
        ended = self.round.carry_out(storage, lambda: time.perf_counter() - started >= PIECE_LENGTH)
        note_turn(storage, self.owner, ended=ended)
        return PieceReport(ended=ended, seconds=time.perf_counter() - started)


def announce_deletion(limits: History, begins: Millis) -> None:
    """Log that history will be deleted."""
    text = str(limits) if limits.deletes else "runs of jobs with a History of their own"
    logger.warning(
        "from %s on history will be deleted: %s (CronConfig.history; None keeps all of it)", iso_utc(begins, short=True), text
    )


class Pruner:
    """Prunes the history of a store.

    Args:
        service: The store.
        pool: Whether its runners are busy decides how much time the pieces may take.
        clock: It has the time of the next due moment.
        limits: How much history is kept of jobs without a `History` of their own.
        announced: From when on history is deleted, if the start has announced it.

    Attributes:
        deleted: How many runs it has deleted.
    """

    def __init__(
        self, service: StoreService, pool: RunnerPool, clock: Clock, limits: History, *, announced: Millis | None
    ) -> None:
        self._service = service
        self._pool = pool
        self._clock = clock
        self._limits = limits
        self._announced = announced
        self._in_real_time = service.virtual is None
        self._next_look = trio.current_time() + (FIRST_LOOK if self._in_real_time else LOOK_EVERY)
        self._last_round = trio.current_time()
        self._changed = trio.Event()
        self.deleted = 0

    def committed(self, _commit: Committed) -> None:
        """Note a commit, which may have added history. Called in the loop."""
        if not self._changed.is_set() and (self._in_real_time or trio.current_time() >= self._next_look):
            self._changed.set()

    # The actor

    @actor
    async def run(self) -> None:
        """Prune until cancelled."""
        pauses = backoff(*RETRY_PAUSES)
        while True:
            await self._until_next_round()
            try:
                pause = await self._carry_out_round()
                pauses = backoff(*RETRY_PAUSES)
            except StoreUnavailable as error:  # which the store has logged; the next round begins at the stored cursors
                pause = next(pauses)
                logger.debug("pruning again in %.1f s: %s", pause, error)
            if pause:
                await trio.sleep(pause)
                continue
            self._next_look = trio.current_time() + LOOK_EVERY
            self._changed = trio.Event()

    async def _until_next_round(self) -> None:
        """Sleep until the next look; then until something is committed, but not for longer than an hour.

        On virtual time we don't sleep: a deadline of ours would let time pass where a test waits for something else.
        """
        if self._in_real_time:
            await trio.sleep_until(self._next_look)
            with trio.move_on_at(self._next_look + LOOK_WHEN_IDLE - LOOK_EVERY):
                await self._changed.wait()
        else:
            await self._changed.wait()

    async def _carry_out_round(self) -> float:
        """Carry out a round.

        Returns:
            How long (s) to wait before another one, because it is the turn of another scheduler; 0: it has ended. On virtual time we
            don't wait: the next look is soon enough.
        """
        now = trio.current_time()
        search = Round(self._limits, self._service.owners, round((now - self._last_round) * 1000))
        ended, wait = False, 0
        while not ended:
            await self._until_clear()
            piece = await self._service.mailbox.call(PrunePiece(search, self._pool.settings.owner))
            wait = piece.wait
            if wait:
                break
            self._last_round, ended = now, piece.ended
            if search.deletes_from not in (None, self._announced):
                self._announced = search.deletes_from
                announce_deletion(self._limits, search.deletes_from)
            if not ended:
                await self._rest(max(piece.seconds, self._service.actor.latency or 0.0))
        self.deleted += search.deleted
        if search.deleted:
            logger.debug("deleted %d runs beyond the limits of the history", search.deleted)
        return wait / 1000 if self._in_real_time else 0

    async def _until_clear(self) -> None:
        """Wait while a moment is about to come due, so that its claim does not find a piece before it."""
        while self._in_real_time and (due := self._clock.queue.value.due) is not None:
            wait = self._service.seconds_until(due)
            if not 0 <= wait < CLEAR:
                break
            await trio.sleep(wait + CLEAR / 4)

    async def _rest(self, seconds: float) -> None:
        """Leave the store to others after a piece that took so long, with its commit. On virtual time pruning takes no time."""
        if self._in_real_time:
            busy = self._pool.slots.taken or self._service.mailbox.waiting
            share = SHARE if busy else SHARE_WHEN_IDLE
            await trio.sleep(max(seconds, PIECE_LENGTH) * (1 / share - 1))
