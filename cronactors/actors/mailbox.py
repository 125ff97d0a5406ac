"""The mailbox of the store actor: callers send requests and wait for replies. Everything here runs in the event loop.

We promise callers that cancelled means that it did not happen. A memory channel alone cannot keep that promise: once the store
has received a request, a caller cancelled while it waits would not know whether its change was committed, and one that tried
again could add a job twice. So a request travels in an `Envelope`, whose state decides what a cancellation does. Until the store
starts a transaction for it, the caller withdraws the request, and it has no effect. From then on the caller waits for that one
commit, some 0.4 ms for a request alone and a few milliseconds in a full batch, and gets the reply. A batch that finds the file
locked has not started: its requests can be withdrawn again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from enum import Enum, auto
from typing import ClassVar, Generic, Self, TypeVar, cast, final

import attrs
import outcome
import trio

from cronactors.actors.forks import generation
from cronactors.errors import CronError, SchedulerClosed
from cronactors.instants import Millis
from cronactors.storage.protocol import Storage

R_co = TypeVar("R_co", covariant=True)
R = TypeVar("R")

EARLY: Millis = 2
"""How far ahead of its moment a request may be sent: the delay of trio's timers, and of the way to the storage thread."""
RETRY_PAUSES = (0.1, 1.0)
"""The first and the longest pause (s) of an actor between two tries while the store fails."""
CAPACITY = 1_000
"""How many requests a mailbox holds; when it is full, callers wait for room."""


class Request(Generic[R_co]):
    """A message to the store actor. A subclass is a frozen attrs class with its arguments as fields and the type of its reply.

    Use `ReadRequest` for one that changes nothing, and `BatchRequest` for one that never refuses. Any other runs inside a
    savepoint, so a `CronError` that it raises undoes this request alone, and not its neighbours in the batch.

    Attributes:
        alone: No other process may write while it is carried out. A request that is not alone holds all that it decides about: the jobs
            whose runs and notifications it changes, and the keys of what several jobs share (see `Storage.begin` and `Storage.hold`).
        waits_forever: Never times out while another process holds the lock.
        may_finish_runs: Committing it can finish a run or request a cancellation, so tasks that wait for a run check again.
        only_claims: It starts runs and does nothing else, so it frees nothing that a clock may wait for.
        not_before: The moment that it waits for; its transaction starts no earlier. The caller sends it up to `EARLY` ahead, and
            the storage thread sleeps for the rest: that thread wakes some 0.1 ms late, a timer of trio's one or two. 0: start at
            once.
    """

    alone: ClassVar[bool] = True
    waits_forever: ClassVar[bool] = False
    may_finish_runs: ClassVar[bool] = False
    only_claims: ClassVar[bool] = False
    not_before: Millis = 0

    def apply(self, storage: Storage) -> R_co:
        """Carry out the request inside the store's transaction.

        Raises:
            CronError: The request is refused; whatever it has changed is undone.
        """
        raise NotImplementedError


class ReadRequest(Request[R_co]):
    """A request that changes nothing. It needs no savepoint, and a batch of reads takes no write lock."""

    alone: ClassVar[bool] = False


class BatchRequest(Request[R_co]):
    """A request that never refuses after its first change. It needs no savepoint, and equal kinds can share their statements."""

    @classmethod
    def apply_all(cls, storage: Storage, requests: Sequence[Self]) -> list[R_co]:
        """Carry out requests of one kind that follow each other in a batch; return their replies in the same order."""
        raise NotImplementedError

    @final
    def apply(self, storage: Storage) -> R_co:
        """Carry out this request alone."""
        return self.apply_all(storage, [self])[0]


@attrs.frozen
class Refused:
    """The reply to a request that was refused or has failed; its caller raises the error."""

    error: CronError


class _State(Enum):
    WAITING = auto()  # in the mailbox, or for a locked file
    APPLYING = auto()  # in a transaction
    WITHDRAWN = auto()
    REPLIED = auto()


class Envelope:
    """A request on its way to the store, and the reply on its way back.

    The caller waits in `wait`. The store calls `start` before a transaction, then either `reply`, `refuse`, or `postpone`.
    """

    __slots__ = ("_on_commit", "_raise_cancel", "_reply", "_state", "_task", "postponed_at", "request")

    def __init__(self, request: Request[object], on_commit: Callable[[object], None] | None = None) -> None:
        self.request = request
        self._on_commit = on_commit
        self.postponed_at: float | None = None  # when the store first found the file locked, on trio's clock
        self._state = _State.WAITING
        self._task: trio.lowlevel.Task | None = None
        self._raise_cancel: trio.lowlevel.RaiseCancelT | None = None
        self._reply: object = None

    async def wait(self) -> object:
        """Wait for the reply. If it is cancelled before a transaction has started for it, the request is withdrawn.

        After that it cannot be cancelled, and waits for the commit.
        """
        if self._state is not _State.REPLIED:
            self._task = trio.lowlevel.current_task()
            await trio.lowlevel.wait_task_rescheduled(self._abort)
        if isinstance(self._reply, Refused):
            raise self._reply.error
        return self._reply

    def _abort(self, raise_cancel: trio.lowlevel.RaiseCancelT) -> trio.lowlevel.Abort:
        if self._state is _State.WAITING:
            self._state = _State.WITHDRAWN
            return trio.lowlevel.Abort.SUCCEEDED
        self._raise_cancel = raise_cancel
        return trio.lowlevel.Abort.FAILED

    def start(self) -> bool:
        """Mark the request as part of a transaction that is about to start; return False if the caller has withdrawn it."""
        if self._state is _State.WAITING:
            self._state = _State.APPLYING
        return self._state is _State.APPLYING

    def postpone(self) -> bool:
        """Undo `start` after a transaction that never started; return False if the caller was cancelled meanwhile."""
        if self._state is not _State.APPLYING:
            return False
        self._state = _State.WAITING
        if self._raise_cancel is not None and self._task is not None:
            self._state = _State.WITHDRAWN
            trio.lowlevel.reschedule(self._task, outcome.capture(self._raise_cancel))
        return self._state is _State.WAITING

    def reply(self, value: object) -> None:
        """Send the reply, or a `Refused`, and call ``on_commit``. A second reply is ignored, and so is one that was withdrawn."""
        if self._state in (_State.WITHDRAWN, _State.REPLIED):
            return
        self._state = _State.REPLIED
        self._reply = value
        if self._on_commit is not None and not isinstance(value, Refused):
            self._on_commit(value)
        if self._task is not None:
            trio.lowlevel.reschedule(self._task)

    def refuse(self, error: CronError) -> None:
        """Reply with a copy of an error: one object raised in many tasks would collect all their tracebacks."""
        fresh = type(error)(str(error))
        fresh.__cause__ = error.__cause__
        self.reply(Refused(fresh))


def _envelope(request: Request[R], on_commit: Callable[[R], None] | None) -> Envelope:
    return Envelope(request, cast("Callable[[object], None] | None", on_commit))


class Mailbox:
    """Requests that wait for the store actor. It is bounded, so that callers wait when the store falls behind."""

    def __init__(self) -> None:
        self._send, self._receive = trio.open_memory_channel[Envelope](CAPACITY)
        self._sharing: deque[Envelope] = deque()
        self._trio = trio.lowlevel.current_trio_token()
        self._generation = generation()
        self._closed_by: CronError = SchedulerClosed("the store is closed")
        self._closed = False

    async def call(self, request: Request[R], on_commit: Callable[[R], None] | None = None) -> R:
        """Send a request and wait for its reply. A reply means that the change is durable.

        Cancelled before its transaction has started, the request has no effect. From then on the caller waits for the commit and
        gets the reply.

        Args:
            request: The request.
            on_commit: Called by the store with the reply, right after the commit and in the order of commits; trio wakes waiting
                tasks in any order.

        Raises:
            CronError: The request was refused, the store failed, or the mailbox is closed.
        """
        if trio.lowlevel.current_trio_token() is not self._trio:
            raise CronError("the store belongs to another trio.run: from a thread call it through trio.from_thread.run")
        if generation() != self._generation:
            raise CronError("the store belongs to the process that opened it, of which this is a fork: it cannot be used here")
        envelope = _envelope(request, on_commit)
        await trio.lowlevel.checkpoint_if_cancelled()
        try:
            self._send.send_nowait(envelope)  # `send` would yield to other tasks first, and we wait for the reply anyway
        except trio.WouldBlock:
            await self._send_when_there_is_room(envelope)
        except trio.ClosedResourceError:
            await trio.lowlevel.checkpoint()
            envelope.refuse(self._closed_by)
        return cast("R", await envelope.wait())

    async def share_commit(self, request: Request[R], on_commit: Callable[[R], None] | None = None, *, within: float) -> R:
        """Send a request that can wait, and wait for its reply: it joins the next commit of others, in front of them.

        Under load it costs no commit of its own. Cancellation and errors are as in `call`.

        Args:
            request: The request.
            on_commit: As in `call`.
            within: After how long (s) without such a commit it is sent as any other.
        """
        if within > 0:
            envelope = _envelope(request, on_commit)
            self._sharing.append(envelope)
            with trio.move_on_after(within):
                return cast("R", await envelope.wait())
        return await self.call(request, on_commit)

    def receive_sharing(self) -> list[Envelope]:
        """Take out the requests that share the next commit."""
        sharing = list(self._sharing)
        self._sharing.clear()
        return sharing

    async def _send_when_there_is_room(self, envelope: Envelope) -> None:
        try:
            await self._send.send(envelope)
        except trio.ClosedResourceError:
            envelope.refuse(self._closed_by)

    @property
    def waiting(self) -> int:
        """How many requests are in the mailbox, and how many callers wait for room in it."""
        statistics = self._receive.statistics()
        return statistics.current_buffer_used + statistics.tasks_waiting_send

    async def receive(self) -> Envelope:
        """Wait for a request and take it out.

        Raises:
            trio.EndOfChannel: The mailbox is closed and empty.
        """
        return await self._receive.receive()

    def receive_waiting(self, limit: int) -> list[Envelope]:
        """Take out at most ``limit`` requests without waiting."""
        waiting: list[Envelope] = []
        while len(waiting) < limit:
            try:
                waiting.append(self._receive.receive_nowait())
            except (trio.WouldBlock, trio.EndOfChannel):
                break
        return waiting

    def close(self, reason: CronError) -> None:
        """Refuse later requests with a copy of ``reason``; those in the mailbox still get their replies.

        Only the first call counts.
        """
        if not self._closed:
            self._closed = True
            self._closed_by = reason
            self._send.close()
