"""The work of a runner in one task, and what user code may leave behind in the nursery around it."""

from __future__ import annotations

import attrs
import trio

from cronactors.actors.notifier import RunFinished
from cronactors.actors.running import Running
from cronactors.model import JobExecutor
from cronactors.policy import Outcome
from cronactors.spec import RetryPolicy
from cronactors.storage.rows import Claimed


@attrs.frozen(kw_only=True)
class RunnerSettings:
    """What all runners of a scheduler share."""

    owner: int
    executor: JobExecutor
    policy: RetryPolicy
    slots: int
    total: int | None
    cancel_grace: float


@attrs.define(eq=False)
class Shift:
    """A runner's work in one task, and the nursery which that task is in.

    An executor can reach the nursery through `trio.lowlevel`, and start tasks in it. They end with the run: it is concluded by the
    runner, once the nursery has closed, and an exception of theirs is a failure of the run.

    Attributes:
        claimed: The run to begin with; None: one that is handed over.
        nursery: The one that the task is in.
        spoilt: A run whose executor has left nurseries or tasks, or cancelled the nursery, and how it ended.
        abandoned: The nurseries that it left open.
        torn: The nursery had been cancelled before the executor ended.
        bug: What ended the task, if it was no cancellation.
        untold: An end for which the notifier has no place; another runner has taken over the slot.
        done: There is nothing more to do for this runner.
    """

    claimed: Claimed | None
    nursery: trio.Nursery
    spoilt: tuple[Running, Outcome] | None = None
    abandoned: list[trio.Nursery] = attrs.field(factory=list)
    torn: bool = False
    bug: BaseException | None = None
    untold: list[RunFinished] = attrs.field(factory=list)
    done: bool = False

    def is_cancelled(self) -> bool:
        """Whether an executor has cancelled the nursery, or an exception of a task in it has."""
        return self.nursery.cancel_scope.cancel_called

    def spoil(self, running: Running, ending: Outcome) -> None:
        """Let everything that the executor has left in the nursery end."""
        self.spoilt = running, ending
        self.abandoned = list(running.task.child_nurseries)
        self.torn = self.is_cancelled()
        self.nursery.cancel_scope.cancel()
        if not self.abandoned:
            running.task = self.nursery.parent_task  # whose stack shows the tasks that are left
