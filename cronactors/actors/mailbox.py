"""Requests and their answers: the one place that knows how a caller waits, is cancelled, and gets its answer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import Enum, auto
from typing import ClassVar, Generic, Self, TypeVar, cast

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
"""How far ahead a request may be handed in: what trio's timers, and the way to the storage, may take."""
CAPACITY = 1_000
"""How many requests wait in a mailbox before callers wait to hand theirs in."""


class Request(Generic[R_co]):
    """A message to the store actor. A subclass is a frozen attrs class; `apply` makes its decision on the storage.

    Attributes:
        reads: It changes nothing, and needs no write lock.
        certain: It never raises a `CronError` once it has changed something, so that it needs no savepoint.
        patient: It waits for a locked file as long as it takes.
        stirs: It may end runs, or ask for their end: whoever waits for one is to look at once.
        not_before: When it may be carried out, some `EARLY` ahead at most: the store waits for it, as exactly as a thread can.
    """

    reads: ClassVar[bool] = False
    certain: ClassVar[bool] = False
    waits_forever: ClassVar[bool] = False
    may_end_runs: ClassVar[bool] = False
    not_before: Millis = 0

    def apply(self, storage: Storage) -> R_co:
        """Carry the request out inside the store's transaction; a `CronError` refuses it and leaves no trace."""
        raise NotImplementedError

    @classmethod
    def apply_all(cls, storage: Storage, requests: Sequence[Self]) -> list[R_co]:
        """Carry out several that are `certain` and stand one behind the other in a batch."""
        return [request.apply(storage) for request in requests]


@attrs.frozen
class Refused:
    """The answer to a request that was refused, or could not be carried out."""

    error: CronError


class _State(Enum):
    OPEN = auto()
    TAKEN = auto()
    WITHDRAWN = auto()
    ANSWERED = auto()


class Envelope:
    """A request on its way, and the place where its answer arrives."""

    __slots__ = ("_answer", "_on_commit", "_raise_cancel", "_state", "_task", "held_at", "request")

    def __init__(self, request: Request[object], on_commit: Callable[[object], None] | None = None) -> None:
        self.request = request
        self._on_commit = on_commit
        self.held_at: float | None = None  # when the store found out that it cannot be carried out yet
        self._state = _State.OPEN
        self._task: trio.lowlevel.Task | None = None
        self._raise_cancel: trio.lowlevel.RaiseCancelT | None = None
        self._answer: object = None

    async def answer(self) -> object:
        """Wait for the answer. Cancelled before the store has taken the request it is withdrawn; from then on the answer comes."""
        if self._state is not _State.ANSWERED:
            self._task = trio.lowlevel.current_task()
            await trio.lowlevel.wait_task_rescheduled(self._abort)
        if isinstance(self._answer, Refused):
            raise self._answer.error
        return self._answer

    def _abort(self, raise_cancel: trio.lowlevel.RaiseCancelT) -> trio.lowlevel.Abort:
        if self._state is _State.OPEN:
            self._state = _State.WITHDRAWN
            return trio.lowlevel.Abort.SUCCEEDED
        self._raise_cancel = raise_cancel
        return trio.lowlevel.Abort.FAILED

    def take(self) -> bool:
        """Begin to carry it out; False if it has been withdrawn."""
        if self._state is _State.OPEN:
            self._state = _State.TAKEN
        return self._state is _State.TAKEN

    def put_back(self) -> bool:
        """Nothing was begun after all; a caller cancelled meanwhile is let go. Answers whether the request still stands."""
        if self._state is not _State.TAKEN:
            return False
        self._state = _State.OPEN
        if self._raise_cancel is not None and self._task is not None:
            self._state = _State.WITHDRAWN
            trio.lowlevel.reschedule(self._task, outcome.capture(self._raise_cancel))
        return self._state is _State.OPEN

    def settle(self, answer: object) -> None:
        """Give the answer, or `Refused`."""
        if self._state in (_State.WITHDRAWN, _State.ANSWERED):
            return
        self._state = _State.ANSWERED
        self._answer = answer
        if self._on_commit is not None and not isinstance(answer, Refused):
            self._on_commit(answer)
        if self._task is not None:
            trio.lowlevel.reschedule(self._task)

    def refuse(self, error: CronError) -> None:
        """Answer with an error of its own: one object raised in many tasks would collect their tracebacks."""
        fresh = type(error)(str(error))
        fresh.__cause__ = error.__cause__
        self.settle(Refused(fresh))


class Mailbox:
    """Where requests to the store actor wait; bounded, so that callers wait when the store falls behind."""

    def __init__(self) -> None:
        self._send, self._receive = trio.open_memory_channel[Envelope](CAPACITY)
        self._trio = trio.lowlevel.current_trio_token()
        self._generation = generation()
        self._closed_by: CronError = SchedulerClosed("the store is closed")
        self._closed = False

    async def call(self, request: Request[R], on_commit: Callable[[R], None] | None = None) -> R:
        """Hand a request in and wait for its answer, which means that it is durable.

        Cancelled before the transaction has begun, the request has no effect; from then on the caller gets the answer.

        Args:
            request: What is asked.
            on_commit: Called with the answer at once, in the order of the commits; tasks that wait go on in any order.

        Raises:
            CronError: The request was refused, the store failed, or the mailbox is closed.
        """
        if trio.lowlevel.current_trio_token() is not self._trio:
            raise CronError("the store belongs to another trio.run: from a thread call it through trio.from_thread.run")
        if generation() != self._generation:
            raise CronError("the store belongs to the process that opened it, of which this is a fork: it cannot be used here")
        envelope = Envelope(request, cast("Callable[[object], None] | None", on_commit))
        await trio.lowlevel.checkpoint_if_cancelled()
        try:
            self._send.send_nowait(envelope)  # where `send` would let other tasks go first: the answer is waited for anyway
        except trio.WouldBlock:
            await self._hand_in(envelope)
        except trio.ClosedResourceError:
            await trio.lowlevel.checkpoint()
            envelope.refuse(self._closed_by)
        return cast("R", await envelope.answer())

    async def _hand_in(self, envelope: Envelope) -> None:
        """Wait for a place."""
        try:
            await self._send.send(envelope)
        except trio.ClosedResourceError:
            envelope.refuse(self._closed_by)

    @property
    def waiting(self) -> int:
        """How many requests wait, and how many callers wait to hand one in."""
        statistics = self._receive.statistics()
        return statistics.current_buffer_used + statistics.tasks_waiting_send

    async def receive(self) -> Envelope:
        """Wait for a request.

        Raises:
            trio.EndOfChannel: The mailbox is closed and empty.
        """
        return await self._receive.receive()

    def receive_waiting(self, limit: int) -> list[Envelope]:
        """Take what is waiting already, up to ``limit``."""
        waiting: list[Envelope] = []
        while len(waiting) < limit:
            try:
                waiting.append(self._receive.receive_nowait())
            except (trio.WouldBlock, trio.EndOfChannel):
                break
        return waiting

    def close(self, reason: CronError) -> None:
        """Take no more requests: later ones raise ``reason``, those that wait are still answered."""
        if not self._closed:
            self._closed = True
            self._closed_by = reason
            self._send.close()
