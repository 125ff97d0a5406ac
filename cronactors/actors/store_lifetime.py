"""A store actor with its storage and its thread, for the length of a block."""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager
from functools import partial

import attrs
import trio

from cronactors.actors.actor_requests import Inspect, OwnersBusy, Recover, Register, Registered, RenewLeases, SignOff, Snapshot
from cronactors.actors.mailbox import Mailbox
from cronactors.actors.stopping import mark_stopping
from cronactors.actors.storage_thread import Hop, in_place, storage_thread
from cronactors.actors.store import Done, Failed, Locked, StoreActor, run_batch
from cronactors.actors.user_code import leaves
from cronactors.errors import CronError, SchedulerClosed, SchedulerCrashed, StoreUnavailable
from cronactors.instants import Millis
from cronactors.ledger import leases
from cronactors.ledger.damage import find_damage
from cronactors.model import CronRun
from cronactors.owner import ProcessIdentity, identify_this_process
from cronactors.spec import RetryPolicy
from cronactors.storage.connection import FileLocked
from cronactors.storage.file_state import LogWatch, absolute
from cronactors.storage.sqlite import SqliteStorage
from cronactors.wallclock import VirtualTime, Wall, system_wall, virtual_time

logger = logging.getLogger("cronactors.store")

JUMP: Millis = 1_000
"""How far wall clock and trio's clock may drift apart between two looks before it counts as the clock having been set."""
OPEN_TIMEOUT = 10.0
"""Seconds that opening waits for a file that another process has locked."""
OPEN_AGAIN = 0.02
"""Seconds between two tries of it."""


class LeaseTrust:
    """Whether the end of a lease tells that its owner is dead: only after the clocks have gone evenly for the length of a lease.

    For as long nothing is known of what the wall clock did before, or while the machine was suspended; owners that live give a sign
    of life meanwhile.
    """

    def __init__(self, wall: Wall) -> None:
        self._wall = wall
        self._seen = wall(), trio.current_time()
        self._since = trio.current_time()

    def trusted(self) -> bool:
        """Compare the clocks with when they were last compared, and answer."""
        wall, mono = self._wall(), trio.current_time()
        if abs((wall - self._seen[0]) - (mono - self._seen[1]) * 1000) > JUMP:
            self._since = mono
        self._seen = wall, mono
        return mono - self._since >= leases.LEASE / 1000


@attrs.frozen(kw_only=True)
class StoreService:
    """What others need of a running store actor.

    Attributes:
        mailbox: Takes requests.
        actor: Tells of commits.
        path: The file, absolute.
        watch: Makes something to ask whether others have written to it.
        wall: The wall clock.
        virtual: The virtual clock that drives the run, if one does.
        me: This process, as owners see each other.
        owners: The owners registered through this service, whose leases it keeps.
        unsigned: Owners that could not sign off: they do so when the store is closed.
        leases: Whether the end of a lease tells anything.
    """

    mailbox: Mailbox
    actor: StoreActor
    path: str
    watch: Callable[[], LogWatch]
    wall: Wall
    virtual: VirtualTime | None
    this_process: ProcessIdentity
    owners: set[int]
    unsigned: set[int]
    leases: LeaseTrust

    def until(self, instant: Millis) -> float:
        """Seconds until the wall clock shows an instant, negative if it has passed; a sleep must not last for the rest of a millisecond."""
        shown = (instant - self.wall()) / 1000
        return shown if self.virtual is not None else shown - time.time_ns() % 1_000_000 / 1e9

    async def register(self) -> Registered:
        """Enter an owner, whose lease is kept from now on."""
        registered = await self.mailbox.call(Register(self.this_process))
        self.owners.add(registered.owner)
        return registered

    async def mark_stopping(self, owners: Collection[int]) -> None:
        """Mark beside the file that owners have been asked to stop."""
        await mark_stopping(self.actor.storage, owners, in_place=self.virtual is not None)

    async def sign_off(self, owner: int, until: float) -> None:
        """Note that one owner has closed, though the store stays open; what it could not record is run again by the next.

        Args:
            owner: Who.
            until: When to leave it to the end of the store, on trio's clock.
        """
        self.owners.discard(owner)
        self.unsigned.add(owner)
        leaving = tuple(self.unsigned)  # with those that could not before, or the set would only grow
        with trio.move_on_at(until):
            try:
                await self.mailbox.call(SignOff(leaving))
            except CronError as error:
                logger.debug("owner %s could not sign off: %s", owner, error)
            else:
                self.unsigned.difference_update(leaving)

    async def inspect(self, owner: int) -> Snapshot:
        """Look around on behalf of an owner; 0 for nobody."""
        return await self.mailbox.call(Inspect(owner, self.this_process, self._trust_leases(), frozenset(self.owners)))

    async def recover(self, policy: RetryPolicy) -> list[CronRun]:
        """Take back the runs of dead owners."""
        mine = frozenset(self.owners)
        return await self.mailbox.call(Recover(self.this_process, policy, self._trust_leases(), mine, requested_at=self.wall()))

    def _trust_leases(self) -> bool:
        """Nothing keeps a lease on virtual time, so that its end means nothing."""
        return self.virtual is None and self.leases.trusted()


@asynccontextmanager
async def store_service(path: str, *, create: bool) -> AsyncIterator[StoreService]:
    """Open the file and run a store actor beside the block; afterwards answer what is asked already, and close.

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
            thread.keep = _Heart(service)
            try:
                yield service
            finally:
                thread.keep = None


class _Heart:
    """Gives the heartbeats of the owners of a service. Runs on the storage thread, also while the loop is blocked.

    It is called every `leases.KEEP_EVERY`. While an owner has open runs each call is a heartbeat; else one is enough every
    `leases.KEEP_IDLE`, so that an idle process commits once a minute.
    """

    def __init__(self, service: StoreService) -> None:
        self._service = service
        self._next_idle = self._after_idle()

    @staticmethod
    def _after_idle() -> float:
        # Half a beat early, or the call that is due would come a moment before and wait for the next one.
        return time.monotonic() + (leases.KEEP_IDLE - leases.KEEP_EVERY / 2) / 1000

    def __call__(self) -> bool:
        """Give a heartbeat if one is due; False if the file was locked or failed, so that the thread tries again soon."""
        storage, owners = self._service.actor.storage, tuple(self._service.owners)
        if not owners:
            return True
        match run_batch(storage, [OwnersBusy(owners)]):
            case Done([busy], _):
                if not busy and time.monotonic() < self._next_idle:
                    return True
            case _:
                return False
        if not isinstance(run_batch(storage, [RenewLeases(owners)]), Done):
            return False
        self._next_idle = self._after_idle()
        return True


async def _open(hop: Hop, path: str, wall: Wall, *, create: bool) -> SqliteStorage:
    """Open the file. While another process has it locked the waiting is trio's, and can be cancelled."""
    until = trio.current_time() + OPEN_TIMEOUT
    while True:
        try:
            return await hop(lambda: SqliteStorage(path, wall=wall, create=create))
        except FileLocked as error:
            if trio.current_time() >= until:
                raise StoreUnavailable(str(error)) from error.__cause__
        await trio.sleep(OPEN_AGAIN)


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
        this_process=identify_this_process(),
        owners=set(),
        unsigned=set(),
        leases=LeaseTrust(wall),
    )
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(service.actor.run)
            try:
                yield service
            finally:
                mailbox.close(SchedulerClosed(f"{path} has been closed"))
    except BaseException as error:
        if any(_may_be_damage(leaf) for leaf in leaves(error)):
            damage = await hop(partial(find_damage, storage))
            if damage is not None:
                raise damage from error
        raise
    finally:
        await hop(partial(_close, storage, (*service.owners, *service.unsigned)))


def _may_be_damage(error: BaseException) -> bool:
    """Whether an error may come of a damaged file, as a bug of ours may: it is none that we raise on purpose."""
    return isinstance(error, SchedulerCrashed) or (isinstance(error, Exception) and not isinstance(error, CronError))


def _close(storage: SqliteStorage, owners: tuple[int, ...]) -> None:
    """Sign off, in order or after a crash of the actor, and close. A store that fails now only makes others wait for the lease."""
    ending = run_batch(storage, [SignOff(owners)]) if owners else None
    if isinstance(ending, Failed | Locked):
        logger.debug("owners %s could not sign off: %s", owners, ending)
    storage.close()
