"""Deletes the old runs of one job after another at a user's request, or counts them. Runs on the storage thread.

A scheduler goes by stored cursors, announces the first deletion a day ahead, and believes no clock that has jumped (`ledger.pruning`):
nobody watches it. Here the caller was shown the time and the limits. So every job that has runs is pruned once, removed jobs too, and no
cursor is read or moved. The same steps decide, whether runs are deleted or counted. Alerts are left to the schedulers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import attrs

from cronactors.instants import Millis
from cronactors.ledger.pruning import WINDOW, Round
from cronactors.retention import History
from cronactors.storage.protocol import Storage
from cronactors.storage.pruning import KeptRun
from cronactors.storage.rows import JobRow


@attrs.frozen(kw_only=True)
class SweptJob:
    """How many runs of a job are deleted.

    Attributes:
        job_id: The job; it may have been removed.
        name: Its name; of a removed job the one that its newest run has.
        user_id: Whose job it is; None for the agent's own.
        runs: How many runs.
    """

    job_id: str
    name: str
    user_id: str | None
    runs: int


@attrs.frozen(kw_only=True)
class SweepReport:
    """The result of one piece of a sweep.

    Attributes:
        jobs: The jobs of which it deleted runs; a job can be in several pieces.
        after: The last job that is done: the next piece continues behind it.
        ended: Whether no job is left.
    """

    jobs: list[SweptJob]
    after: str
    ended: bool


@attrs.define(eq=False)
class _Sweep(Round):
    """A piece of a sweep: jobs in the order of their ids. It is thrown away with its transaction."""

    after: str = ""
    time: Millis = 0
    swept: list[SweptJob] = attrs.field(factory=list)

    def _search(self, storage: Storage) -> Iterator[None]:
        while (job_id := storage.pruning.next_job(self.after)) is not None:
            for _ in self._prune_job(storage, job_id, self.time, counts=True):
                # The next piece begins the job again, so this one has to come further first. One that only counts finishes the job.
                if self.deleted and not self.only_counts:
                    yield
            self.after = job_id
            yield

    def _delete(self, storage: Storage, job_id: str, job: JobRow | None, candidates: Sequence[KeptRun]) -> None:
        named = job or next(iter(storage.list_runs(job_id=job_id, before=None, limit=1) if candidates else ()), None)
        before = self.deleted
        super()._delete(storage, job_id, job, candidates)
        if named is not None and self.deleted > before:
            name = named.name if isinstance(named, JobRow) else named.job_name
            self.swept.append(SweptJob(job_id=job_id, name=name, user_id=named.user_id or None, runs=self.deleted - before))


def sweep(
    storage: Storage, limits: History, *, time: Millis, after: str, only_count: bool, enough: Callable[[], bool]
) -> SweepReport:
    """Delete runs beyond the limits until it is enough, or count them.

    Args:
        storage: Inside a transaction.
        limits: The limits of jobs without a `History` of their own.
        time: The time from which ages count: no run from after it is deleted.
        after: The last job that is done; "" at the beginning.
        only_count: Whether nothing is deleted.
        enough: Called now and then.
    """
    piece = _Sweep(limits, (), 0, only_counts=only_count, window=WINDOW, after=after, time=time)
    ended = piece.carry_out(storage, enough)
    return SweepReport(jobs=piece.swept, after=piece.after, ended=ended)
