"""The pool of runners: the slots, the claimed runs that wait for a runner, and how all of it stops."""

from __future__ import annotations

import attrs
import trio

from cronactors.actors.async_value import AsyncValue
from cronactors.actors.finisher import Finisher
from cronactors.actors.mailbox import Mailbox
from cronactors.actors.outcomes import INTERRUPTED
from cronactors.actors.output import OutputWriter
from cronactors.actors.receivers import Receivers
from cronactors.actors.run_in_hand import RunInHand, RunsInFlight
from cronactors.actors.stopping import StopDeadline
from cronactors.model import JobExecutor
from cronactors.settings import RetryPolicy
from cronactors.storage.rows import Claimed


@attrs.frozen(kw_only=True)
class RunnerSettings:
    """The settings that all runners of a scheduler share.

    Attributes:
        owner: The scheduler's number in the store.
        executor: The user's function that executes runs.
        policy: The delays of retries.
        slots: How many runs may run at a time in this scheduler.
        total: How many runs may be running at a time over all owners of the file; None: no limit.
        cancel_grace: How long (s) a cancelled run may still be running before it is reported as stuck.
    """

    owner: int
    executor: JobExecutor
    policy: RetryPolicy
    slots: int
    total: int | None
    cancel_grace: float


class Slots:
    """How many more runs may start. The clock takes slots before it claims, and each is released when it is no longer needed.

    Attributes:
        count: How many there are.
        free: How many the clock can take: no run has them, and no claim.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self.free = AsyncValue(count)

    @property
    def taken(self) -> int:
        """How many are not free."""
        return self.count - self.free.value

    def take(self, most: int) -> int:
        """Take the free slots, at most so many, and return how many were taken."""
        taken = min(self.free.value, most)
        self.free.value -= taken
        return taken

    def release(self, slots: int = 1) -> None:
        """Give slots back."""
        self.free.value += slots

    async def wait_all_free(self) -> None:
        """Wait until nothing runs."""
        await self.free.wait_value(lambda free: free == self.count)


class RunnerPool:
    """Shared by the clock, the runners and the supervisor.

    Args:
        mailbox: The mailbox of the store.
        receivers: Notified of finished runs.
        settings: Shared by all runners.
        output: Stores the output of the runs.

    Attributes:
        output: Stores the output of the runs.
        slots: One for each run that may run at a time.
        in_flight: The runs that are being carried out.
        finisher: Makes outcomes durable.
        closed: Set when no runs are left.
        is_interrupted: All runs have been cancelled; those that still start are cancelled at once.
    """

    def __init__(self, mailbox: Mailbox, receivers: Receivers, settings: RunnerSettings, output: OutputWriter) -> None:
        self.settings = settings
        self.output = output
        self.slots = Slots(settings.slots)
        self.in_flight = RunsInFlight(mailbox, settings.cancel_grace)
        self.finisher = Finisher(
            mailbox, receivers, owner=settings.owner, policy=settings.policy, total=settings.total, may_claim=self.may_claim
        )
        self.closed = trio.Event()
        self.is_interrupted = False
        self._stop: StopDeadline | None = None
        self._send, self._receive = trio.open_memory_channel[Claimed](settings.slots)

    def may_claim(self) -> bool:
        """Whether runs may be claimed now: not once the scheduler is stopping.

        The one place that decides this, for the clock's claims and for those that come with a finish.
        """
        return self._stop is None

    # Claimed runs

    def hand_over(self, claimed: Claimed) -> None:
        """Give a claimed run to an idle runner. The slot for it has been taken."""
        self._send.send_nowait(claimed)

    async def receive(self) -> Claimed:
        """Wait for a claimed run.

        Raises:
            trio.EndOfChannel: The pool is closed.
        """
        return await self._receive.receive()

    def end_run(self, run: RunInHand) -> None:
        """Take a run that has ended out of the runs in flight, and release its slot unless another run follows in it."""
        self.in_flight.remove(run)
        if run.next_claimed is None:
            self.slots.release()

    # Stopping

    def stop(self, grace: float) -> StopDeadline:
        """Claim no more runs. Return the deadline of the stop, which the grace (s) of the first call decides."""
        if self._stop is None:
            self._stop = StopDeadline(grace)
        return self._stop

    def interrupt(self) -> None:
        """After `stop`: cancel all runs; their moments will run again."""
        assert self._stop is not None
        self.is_interrupted = True
        self.finisher.limit(self._stop)
        self.in_flight.cancel_all()

    def interrupt_if_stopping(self) -> None:
        """End the grace of a stop, if there is one: an executor raised KeyboardInterrupt or SystemExit."""
        if self._stop is not None:
            self.interrupt()

    async def end(self) -> None:
        """After `interrupt`: wait until all runs have ended, however long that takes, and close the pool. The caller shields it."""
        while self._receive.statistics().current_buffer_used:  # left there by runners that were cancelled
            with self.finisher.limited():
                await self.finisher.finish(self._receive.receive_nowait(), INTERRUPTED)
            self.slots.release()
        while self.slots.taken:
            with trio.move_on_after(max(self.settings.cancel_grace, 0.1)):
                await self.slots.wait_all_free()
            await self.in_flight.report_stuck()
        self.close()

    def close(self) -> None:
        """Let idle runners end, and the writer of output: the rest of the output is stored with the finishes."""
        self._send.close()
        self.output.close()
        self.closed.set()
