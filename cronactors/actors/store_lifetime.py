"""The lifetime of a store: open the file, start its thread and its actor, serve while a block runs, sign off, close.

Runs in the event loop, except for `_close`, which the storage thread calls.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager
from functools import partial
from typing import TypeAlias

import attrs
import trio

from cronactors.actors.actor_requests import Inspect, Recover, Register, Registered, SignOff, Snapshot
from cronactors.actors.exception_groups import single_exceptions
from cronactors.actors.leases import Heartbeats, LeaseTrust
from cronactors.actors.mailbox import Mailbox
from cronactors.actors.notification_requests import TakeOver
from cronactors.actors.stopping import mark_stopping
from cronactors.actors.storage_thread import Hop, in_place, storage_thread
from cronactors.actors.store import Failed, Locked, StoreActor, run_batch
from cronactors.checks import text
from cronactors.errors import CronError, SchedulerClosed, SchedulerCrashed, StoreUnavailable, shorten
from cronactors.instants import Millis
from cronactors.ledger.damage import find_damage
from cronactors.model import CronRun
from cronactors.owner import ProcessIdentity, identify_this_process
from cronactors.retention import History
from cronactors.settings import RetryPolicy
from cronactors.spec import MAX_PATH
from cronactors.storage.errors import FileLocked
from cronactors.storage.file_state import LogWatch, absolute
from cronactors.storage.sqlite import SqliteStorage
from cronactors.wallclock import VirtualTime, Wall, system_wall, virtual_time

logger = logging.getLogger("cronactors.store")

StrPath: TypeAlias = "str | os.PathLike[str]"

OPEN_TIMEOUT = 10.0
"""How long (s) opening waits for a file that another process has locked."""
TAKEN_OVER = 500
"""How many notifications of dead owners one transaction takes over at most."""
_OPEN_PAUSE = 0.02  # seconds between two attempts


@attrs.frozen(kw_only=True)
class StoreService:
    """An open store: its mailbox, its actor, and the owners that this process has registered in its file.

    Attributes:
        mailbox: Takes requests.
        actor: Carries them out, and calls its listeners after each commit.
        path: The file, absolute.
        watch: Makes a `LogWatch`, which notices that another process has written to the file.
        wall: The wall clock.
        virtual: The virtual clock that drives the trio run, if one does.
        process: This process, as owners see each other.
        owners: The owners registered through this service; it gives their heartbeats.
        not_signed_off: Owners that have closed but could not record it; they sign off with the next one, or when the store
            closes.
        lease_trust: Whether a lease that has run out means that its owner is dead.
    """

    mailbox: Mailbox
    actor: StoreActor
    path: str
    watch: Callable[[], LogWatch]
    wall: Wall
    virtual: VirtualTime | None
    process: ProcessIdentity
    owners: set[int]
    not_signed_off: set[int]
    lease_trust: LeaseTrust

    def seconds_until(self, instant: Millis) -> float:
        """Return how long (s) it is until the wall clock shows an instant; negative if it has passed.

        In real time it counts from within the current millisecond, so that a sleep does not last for the rest of it.
        """
        shown = (instant - self.wall()) / 1000
        return shown if self.virtual is not None else shown - time.time_ns() % 1_000_000 / 1e9

    async def register(self, receivers: tuple[str, ...] = (), limits: History | None = None) -> Registered:
        """Register an owner, and give its heartbeats from now on.

        Args:
            receivers: Its receivers of notifications.
            limits: How much history its scheduler keeps; None: it is not a scheduler.
        """
        registered = await self.mailbox.call(Register(self.process, receivers, limits))
        self.owners.add(registered.owner)
        return registered

    async def mark_stopping(self, owners: Collection[int]) -> None:
        """Mark beside the file that owners are stopping; see `stopping.mark_stopping`."""
        await mark_stopping(self.actor.storage, owners, in_place=self.virtual is not None)

    async def sign_off(self, owner: int, until: float) -> None:
        """Record that one owner has closed while the store stays open. The next owner recovers the runs that it could not finish.

        Args:
            owner: The owner.
            until: When to give up, on trio's clock. The owner then signs off when the store closes.
        """
        self.owners.discard(owner)
        self.not_signed_off.add(owner)
        closed = tuple(self.not_signed_off)  # including earlier ones, or the set would only grow
        with trio.move_on_at(until):
            try:
                await self.mailbox.call(SignOff(closed))
            except CronError as error:
                logger.debug("owner %s could not sign off: %s", owner, error)
            else:
                self.not_signed_off.difference_update(closed)

    async def inspect(self, owner: int) -> Snapshot:
        """Read a snapshot on behalf of an owner; 0 if there is none."""
        return await self.mailbox.call(Inspect(owner, self.process, self._trust_leases(), frozenset(self.owners)))

    async def recover(self, policy: RetryPolicy) -> list[CronRun]:
        """Interrupt the runs of dead owners, so that their moments run again, and return these runs."""
        own = frozenset(self.owners)
        return await self.mailbox.call(Recover(self.process, policy, self._trust_leases(), own, requested_at=self.wall()))

    async def take_over(self, owner: int, receivers: tuple[str, ...]) -> dict[str, int]:
        """Let an owner deliver notifications of dead owners: at most `TAKEN_OVER`, so that a million block nothing."""
        own = frozenset(self.owners)
        return await self.mailbox.call(TakeOver(receivers, owner, self.process, self._trust_leases(), own, TAKEN_OVER))

    def _trust_leases(self) -> bool:
        """Whether leases can be trusted: on virtual time never, since there are no heartbeats."""
        return self.virtual is None and self.lease_trust.trusted()


def check_path(value: object) -> str:
    """Check the path of a store, and return it as text.

    Raises:
        StoreUnavailable: It is no path.
    """
    path, cause = value, None
    try:
        if isinstance(value, os.PathLike):
            path = os.fspath(value)
    except Exception as problem:  # noqa: BLE001 - __fspath__ of a user's object may raise anything
        path, cause = None, problem
    if not isinstance(path, str):
        raise StoreUnavailable(f"store must be a path, not {shorten(value)}") from cause
    return text("store", path, StoreUnavailable, limit=MAX_PATH)


@asynccontextmanager
async def store_service(path: str, *, create: bool) -> AsyncIterator[StoreService]:
    """Open the file and run a store actor while the block runs; then reply to the requests in the mailbox, sign off, and close.

    Raises:
        StoreUnavailable: The file cannot be opened.
        StoreCorrupt: It is damaged, of another application or of a newer version.
    """
    try:
        path = absolute(path)
    except OSError as error:
        raise StoreUnavailable(f"{path} cannot be opened: the working directory is gone ({error.strerror})") from error
    virtual = virtual_time()
    if virtual is not None:
        async with _serving(in_place, path, virtual.wall, create=create, virtual=virtual) as service:
            yield service
    else:
        async with storage_thread() as thread, _serving(thread, path, system_wall, create=create, virtual=None) as service:
            thread.heartbeat = Heartbeats(service.actor.storage, service.owners)
            try:
                yield service
            finally:
                thread.heartbeat = None


async def _open(hop: Hop, path: str, wall: Wall, *, create: bool) -> SqliteStorage:
    """Open the file, trying for 10 s while another process has it locked. It can be cancelled between two attempts."""
    until = trio.current_time() + OPEN_TIMEOUT
    while True:
        try:
            return await hop(lambda: SqliteStorage(path, wall=wall, create=create))
        except FileLocked as error:
            if trio.current_time() >= until:
                raise StoreUnavailable(str(error)) from error.__cause__
        await trio.sleep(_OPEN_PAUSE)


@asynccontextmanager
async def _serving(hop: Hop, path: str, wall: Wall, *, create: bool, virtual: VirtualTime | None) -> AsyncIterator[StoreService]:
    storage = await _open(hop, path, wall, create=create)
    service = StoreService(
        mailbox=(mailbox := Mailbox()),
        actor=StoreActor(mailbox, storage, hop),
        path=path,
        watch=storage.watch,
        wall=wall,
        virtual=virtual,
        process=identify_this_process(),
        owners=set(),
        not_signed_off=set(),
        lease_trust=LeaseTrust(wall),
    )
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(service.actor.run)
            try:
                yield service
            finally:
                mailbox.close(SchedulerClosed(f"{path} has been closed"))
    except BaseException as error:
        if any(_may_be_damage(leaf) for leaf in single_exceptions(error)):
            damage = await hop(partial(find_damage, storage))
            if damage is not None:
                raise damage from error
        raise
    finally:
        await hop(partial(_close, storage, (*service.owners, *service.not_signed_off)))


def _may_be_damage(error: BaseException) -> bool:
    """Whether an error may come from a damaged file. Errors that we raise on purpose do not; an apparent bug may."""
    return isinstance(error, SchedulerCrashed) or (isinstance(error, Exception) and not isinstance(error, CronError))


def _close(storage: SqliteStorage, owners: tuple[int, ...]) -> None:
    """Sign off and close. If signing off fails, other owners have to wait until the leases run out, 30 s at most."""
    result = run_batch(storage, [SignOff(owners)]) if owners else None
    if isinstance(result, Failed | Locked):
        logger.debug("owners %s could not sign off: %s", owners, result)
    storage.close()
