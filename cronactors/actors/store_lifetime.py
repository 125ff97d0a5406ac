"""The lifetime of a store: open the file, start its thread and its actor, serve while a block runs, sign off, close.

Runs in the event loop, except for `_close`, which the storage thread calls.
"""

from __future__ import annotations

import logging
import math
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
from cronactors.actors.stopping import StopDeadline, mark_stopping
from cronactors.actors.storage_thread import Hop, in_place, storage_thread
from cronactors.actors.store import Failed, Locked, StoreActor, run_batch
from cronactors.backoff import backoff
from cronactors.checks import text
from cronactors.errors import CronError, InvalidConfig, SchedulerClosed, SchedulerCrashed, StoreUnavailable, shorten
from cronactors.instants import Millis
from cronactors.ledger.damage import find_damage
from cronactors.model import CronRun
from cronactors.owner import ProcessIdentity, identify_this_process
from cronactors.retention import History
from cronactors.settings import RetryPolicy
from cronactors.spec import MAX_PATH
from cronactors.storage.errors import Contended
from cronactors.storage.file_state import absolute
from cronactors.storage.opened import OpenedStorage, Watch
from cronactors.storage.postgres.address import MISSING_EXTRA, is_postgres, split_schema
from cronactors.storage.sqlite import SqliteStorage
from cronactors.wallclock import VirtualTime, Wall, system_wall, virtual_time

logger = logging.getLogger("cronactors.store")

StrPath: TypeAlias = "str | os.PathLike[str]"

OPEN_TIMEOUT = 10.0
"""How long (s) opening waits for a file that another process has locked."""
TAKEN_OVER = 500
"""How many notifications of dead owners one transaction takes over at most."""
_OPEN_PAUSES = (0.02, 0.5)  # seconds between two attempts, the first and the longest


@attrs.frozen(kw_only=True)
class StoreService:
    """An open store: its mailbox, its actor, and the owners that this process has registered in its file.

    Attributes:
        mailbox: Takes requests.
        actor: Carries them out, and calls its listeners after each commit.
        storage: The storage that it uses.
        path: The file, absolute; or the address of the server, without user and password.
        watch: Makes a `Watch`, which notices that another process has written to the store.
        wall: The wall clock by which the store decides: the system's, a virtual one, or that of the server.
        seconds: The same (s), as exactly as it can be read.
        virtual: The virtual clock that drives the trio run, if one does.
        process: This process, as owners see each other.
        owners: The owners registered through this service; it gives their heartbeats.
        not_signed_off: Owners that have closed but could not record it; they sign off with the next one, or when the store
            closes.
        lease_trust: Whether a lease that has run out means that its owner is dead.
    """

    mailbox: Mailbox
    actor: StoreActor
    storage: OpenedStorage
    path: str
    watch: Callable[[], Watch]
    wall: Wall
    seconds: Callable[[], float]
    virtual: VirtualTime | None
    process: ProcessIdentity
    owners: set[int]
    not_signed_off: set[int]
    lease_trust: LeaseTrust

    def seconds_until(self, instant: Millis) -> float:
        """Return how long (s) it is until the wall clock shows an instant; negative if it has passed."""
        return instant / 1000 - self.seconds()

    async def register(
        self, receivers: tuple[str, ...] = (), limits: History | None = None, total: int | None = None
    ) -> Registered:
        """Register an owner, and give its heartbeats from now on.

        Args:
            receivers: Its receivers of notifications.
            limits: How much history its scheduler keeps; None: it is not a scheduler.
            total: How many runs may be running at a time over all schedulers; None: any number.
        """
        registered = await self.mailbox.call(Register(self.process, receivers, limits, total))
        self.owners.add(registered.owner)
        return registered

    async def mark_stopping(self, owners: Collection[int]) -> None:
        """Mark beside the file that owners are stopping; see `stopping.mark_stopping`."""
        await mark_stopping(self.storage, owners, in_place=self.virtual is not None)

    def limit(self, stop: StopDeadline) -> None:
        """Wait for no answer of a server beyond the time when recording ends in a stop. The next stop replaces it."""
        ahead = time.monotonic() - trio.current_time()
        self.storage.give_up_at(lambda: stop.at + ahead)

    def unlimit(self) -> None:
        """Undo `limit`: the stop has ended, and the store stays open."""
        self.storage.give_up_at(lambda: math.inf)

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
        """Interrupt the runs of dead owners, so that their moments run again, and return these runs.

        Some are recovered with each transaction. If it is cancelled, the next inspection finds the others.
        """
        recovered: list[CronRun] = []
        more = True
        while more:
            own = frozenset(self.owners)
            request = Recover(self.process, policy, self._trust_leases(), own, requested_at=self.wall())
            runs, more = await self.mailbox.call(request)
            recovered += runs
        return recovered

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
async def store_service(path: str, *, schema: str, create: bool) -> AsyncIterator[StoreService]:
    """Open the store and run a store actor while the block runs; then reply to the requests in the mailbox, sign off, and close.

    Raises:
        InvalidConfig: It is on a server, and time is virtual.
        CronError: It is on a server, and psycopg is not installed.
        StoreUnavailable: It cannot be opened.
        StoreCorrupt: It is damaged, of another application or of a newer version.
    """
    virtual = virtual_time()
    opener = _opener(path, system_wall if virtual is None else virtual.wall, schema=schema, create=create)
    if virtual is not None:
        if is_postgres(path):
            raise InvalidConfig("store must be a file while time is virtual: a server has a clock of its own")
        async with _serving(in_place, opener, virtual) as service:
            yield service
    else:
        async with storage_thread() as thread, _serving(thread, opener, None) as service:
            thread.heartbeat = Heartbeats(service.storage, service.owners)
            try:
                yield service
            finally:
                thread.heartbeat = None


def _opener(path: str, wall: Wall, *, schema: str, create: bool) -> Callable[[], OpenedStorage]:
    """Return a function that opens the store, on the storage thread."""
    if is_postgres(path):
        try:
            from cronactors.storage.postgres.storage import PostgresStorage  # noqa: PLC0415 - an extra, and a heavy one
        except ImportError as error:
            raise CronError(MISSING_EXTRA) from error
        url, schema = split_schema(path, schema)
        return lambda: PostgresStorage(url, schema=schema, create=create)
    try:
        file = absolute(path)
    except OSError as error:
        raise StoreUnavailable(f"{path} cannot be opened: the working directory is gone ({error.strerror})") from error
    return lambda: SqliteStorage(file, wall=wall, create=create)


async def _open(hop: Hop, opener: Callable[[], OpenedStorage]) -> OpenedStorage:
    """Open the store, trying for 10 s while another process is in the way. It can be cancelled between two attempts."""
    until = trio.current_time() + OPEN_TIMEOUT
    for pause in backoff(*_OPEN_PAUSES):
        try:
            return await hop(opener)
        except Contended as error:
            if trio.current_time() >= until:
                raise StoreUnavailable(str(error)) from error.__cause__
        await trio.sleep(min(pause, max(0.0, until - trio.current_time())))
    raise AssertionError("backoff has no end")


@asynccontextmanager
async def _serving(hop: Hop, opener: Callable[[], OpenedStorage], virtual: VirtualTime | None) -> AsyncIterator[StoreService]:
    storage = await _open(hop, opener)
    service = StoreService(
        mailbox=(mailbox := Mailbox()),
        actor=StoreActor(mailbox, storage, hop),
        storage=storage,
        path=storage.name,
        watch=storage.watch,
        wall=storage.wall,
        seconds=storage.seconds,
        virtual=virtual,
        process=identify_this_process(),
        owners=set(),
        not_signed_off=set(),
        lease_trust=LeaseTrust(storage.wall),
    )
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(service.actor.run)
            try:
                yield service
            finally:
                mailbox.close(SchedulerClosed(f"{storage.name} has been closed"))
    except BaseException as error:
        if any(_may_be_damage(leaf) for leaf in single_exceptions(error)):
            damage = await hop(partial(find_damage, storage))
            if damage is not None:
                raise damage from error
        raise
    finally:
        # A store that has failed until now may let us wait until we are killed.
        owners = (*service.owners, *service.not_signed_off) if service.actor.last_error is None else ()
        await hop(partial(_close, storage, owners))


def _may_be_damage(error: BaseException) -> bool:
    """Whether an error may come from a damaged file. Errors that we raise on purpose do not; an apparent bug may."""
    return isinstance(error, SchedulerCrashed) or (isinstance(error, Exception) and not isinstance(error, CronError))


def _close(storage: OpenedStorage, owners: tuple[int, ...]) -> None:
    """Sign off and close. Without it, or if it fails, other owners have to wait until the leases run out, 30 s at most."""
    result = run_batch(storage, [SignOff(owners)]) if owners else None
    if isinstance(result, Failed | Locked):
        logger.debug("owners %s could not sign off: %s", owners, result)
    storage.close()
