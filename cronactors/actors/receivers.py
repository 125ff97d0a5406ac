"""The receivers of one scheduler: an inbox and deliverers for each, and one task that stores the results of all their calls.

A result can wait for a moment, since a notification that is delivered twice does no harm: it shares the commit of the next
finished runs, and under load costs none of its own. If the store fails, results are kept and sent again.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from typing import TypeAlias

import trio

from cronactors.actors.async_value import AsyncValue
from cronactors.actors.deliverer import Bind, Deliverer
from cronactors.actors.exits import actor
from cronactors.actors.inbox import Inbox
from cronactors.actors.mailbox import RETRY_PAUSES, Mailbox
from cronactors.actors.notification_requests import Settle
from cronactors.actors.store import Committed
from cronactors.actors.store_lifetime import StoreService
from cronactors.backoff import backoff
from cronactors.errors import CronError, StoreUnavailable
from cronactors.ledger.notifications import CallResult, Deliverable
from cronactors.ledger.views import run_view
from cronactors.model import NotificationSender, RunObserver, RunStatus
from cronactors.notifications import NOTIFIER, ON_ALERT, ON_FINISH, AlertObserver, NotificationStatus, Receiver
from cronactors.storage.rows import RunRow

logger = logging.getLogger("cronactors.notifier")

SETTLE_WITHIN = 0.05
"""How long (s) the results of calls wait for a commit that they can share."""
TEXT_LIMIT = 500
"""How many characters of a result a ``notifier`` gets."""

AnyReceiver: TypeAlias = "Receiver[Callable[..., Awaitable[None]]]"


class Receivers:
    """Calls the receivers of a scheduler.

    Args:
        notifier: Called with job name, session id, text and success.
        on_finish: Called with the job and the run.
        on_alert: Called with the job and the alert.
        escape: Called with a KeyboardInterrupt or SystemExit that one of them raised: it ends the program.

    Attributes:
        names: The names of the receivers.
        pending: How many notifications are pending, as far as this scheduler knows: those in the file at the last inspection, counted
            to 10,000, plus the changes by its own commits since.
        is_idle: Whether no call is running, and none can be made now.
    """

    def __init__(
        self,
        notifier: Receiver[NotificationSender] | None,
        on_finish: Receiver[RunObserver] | None,
        on_alert: Receiver[AlertObserver] | None,
        escape: Callable[[BaseException], None],
    ) -> None:
        self._inboxes: dict[str, Inbox] = {}
        self._deliverers: list[Deliverer] = []
        self._escape = escape
        self._results: list[tuple[Inbox, CallResult]] = []
        self._has_results = trio.lowlevel.ParkingLot()
        self._drains = False
        self._holds_back = False  # the next notification of a job waits for the result of the one before
        self._scope = trio.CancelScope()
        self._ended = trio.Event()
        self.pending = 0
        self.is_idle = AsyncValue(True)
        if notifier is not None:
            self._add(NOTIFIER, notifier, partial(_bind_notifier, notifier.function))
        if on_finish is not None:
            self._add(ON_FINISH, on_finish, partial(_bind_on_finish, on_finish.function))
        if on_alert is not None:
            self._add(ON_ALERT, on_alert, partial(_bind_on_alert, on_alert.function))
        self.names = tuple(self._inboxes)

    def _add(self, name: str, receiver: AnyReceiver, bind: Bind) -> None:
        inbox = Inbox(name, receiver, on_result=self._put_result, on_change=self._update_idle)
        self._inboxes[name] = inbox
        self._deliverers += [Deliverer(inbox, bind, self._escape) for _ in range(receiver.concurrency)]

    def _update_idle(self) -> None:
        self.is_idle.value = all(inbox.is_idle for inbox in self._inboxes.values())

    # Called by the store, in the order of commits

    def written(self, deliverables: list[Deliverable]) -> None:
        """Take the notifications that a finish has written; those that wait for an earlier one are only counted."""
        self.pending += len(deliverables)
        ready = [deliverable for deliverable in deliverables if deliverable.row.ready_at is not None]
        self._holds_back |= len(ready) < len(deliverables)
        self._put(ready)

    def _put(self, deliverables: Iterable[Deliverable]) -> None:
        for deliverable in deliverables:
            self._inboxes[deliverable.row.receiver].put(deliverable)
            self.is_idle.value = False

    def taken_over(self, receivers: Iterable[str]) -> None:
        """Deliver notifications that were taken over."""
        for name in receivers:
            self._inboxes[name].check_store()

    def commit_failed(self) -> None:
        """Read the store again: a commit that failed may have taken effect, and then no reply shows the notifications it made ready."""
        self.taken_over(self._inboxes)

    def committed(self, commit: Committed) -> None:
        """Deliver notifications that a commit made ready and no reply shows, such as alerts."""
        self.taken_over(commit.woken & self._inboxes.keys())

    def _settled(self, results: list[tuple[Inbox, CallResult]], released: list[Deliverable]) -> None:
        for inbox, result in results:
            inbox.settled(result)
            if result.status is not NotificationStatus.PENDING and self.pending:  # 0 after a commit whose reply was lost
                self.pending -= 1
        self._holds_back = bool(released)
        self._put(released)
        self._update_idle()

    # Results of calls

    def _put_result(self, inbox: Inbox, result: CallResult) -> None:
        self._results.append((inbox, result))
        if self._has_results:
            self._has_results.unpark_all()

    @actor
    async def _store_results(self, mailbox: Mailbox, owner: int, within: float) -> None:
        """Store results until cancelled. Those whose request has not been carried out are kept."""
        pauses = backoff(*RETRY_PAUSES)
        while True:
            while not self._results:
                await self._has_results.park()
            try:
                await self._store(mailbox, owner, 0 if self._drains or self._holds_back else within)
                pauses = backoff(*RETRY_PAUSES)
            except StoreUnavailable as error:  # which the store has logged
                logger.debug("results of notifications will be stored later: %s", error)
                await trio.sleep(next(pauses))

    async def _store(self, mailbox: Mailbox, owner: int, within: float) -> None:
        results, self._results = self._results, []
        request = Settle(tuple(result for _, result in results), owner)
        try:
            await mailbox.share_commit(request, partial(self._settled, results), within=within)
        except BaseException:
            self._results = results + self._results  # withdrawn or rolled back: it has had no effect
            raise

    # Stopping

    async def drain(self, until: float) -> None:
        """Let the calls that can be made now return, until a time of trio's clock at most."""
        self._drains = True
        with trio.move_on_at(until):
            await self.is_idle.wait_value(lambda idle: idle)
        self.close()
        with trio.move_on_at(until):
            await self._ended.wait()

    def close(self) -> None:
        """End at once: cancel the calls. Notifications that are not delivered stay pending in the store."""
        self._scope.cancel()
        for deliverer in self._deliverers:
            deliverer.close()

    async def finish(self, mailbox: Mailbox, owner: int, until: float) -> None:
        """Store the last results, and log how many notifications are left to the next start. The caller shields it."""
        with trio.move_on_at(until):
            try:
                if self._results:
                    await self._store(mailbox, owner, 0)
            except CronError as error:
                logger.debug("results of %d notifications could not be stored: %s", len(self._results), error)
        if self.pending and self._inboxes:
            logger.info("%d notifications are pending; the next scheduler with their receivers delivers them", self.pending)

    # The actor

    @actor
    async def run(self, service: StoreService, owner: int) -> None:
        """Call until closed. Shielded: runs that finish while everything is being cancelled are still notified."""
        within = SETTLE_WITHIN if service.virtual is None else 0
        try:
            with trio.CancelScope(shield=True):
                async with trio.open_nursery() as nursery:
                    for deliverer in self._deliverers:
                        nursery.start_soon(deliverer.run)
                    with self._scope:
                        async with trio.open_nursery() as background:
                            background.start_soon(self._store_results, service.mailbox, owner, within)
                            for inbox in self._inboxes.values():
                                background.start_soon(inbox.feed, service.mailbox, owner, service.seconds_until)
        finally:
            self._ended.set()


def notification(run: RunRow) -> tuple[str, str, str, bool]:
    """Return the arguments of a ``notifier``: job name, session id ("" on failure), text of at most 500 characters, success."""
    if run.status == RunStatus.SUCCESS:
        return run.job_name, run.session_id, (run.result or "")[:TEXT_LIMIT], True
    return run.job_name, "", (run.error or run.cause or "")[:TEXT_LIMIT], False


def _bind_notifier(function: NotificationSender, deliverable: Deliverable) -> Callable[[], Awaitable[None]]:
    assert deliverable.run is not None
    return partial(function, *notification(deliverable.run))


def _bind_on_finish(function: RunObserver, deliverable: Deliverable) -> Callable[[], Awaitable[None]]:
    assert deliverable.run is not None
    assert deliverable.job is not None
    return partial(function, deliverable.job, run_view(deliverable.run))


def _bind_on_alert(function: AlertObserver, deliverable: Deliverable) -> Callable[[], Awaitable[None]]:
    assert deliverable.job is not None
    assert deliverable.alert is not None
    return partial(function, deliverable.job, deliverable.alert)
