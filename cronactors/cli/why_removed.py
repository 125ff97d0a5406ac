"""Reads the fates of a removed job's moments, from the runs that are left. Requests run on the storage thread."""

from __future__ import annotations

import attrs

from cronactors.actors.mailbox import ReadRequest
from cronactors.cli.moments import Asked, When
from cronactors.cli.removed import RemovedJob
from cronactors.cli.why import Moment, moment_of_run, requested_runs
from cronactors.instants import Millis
from cronactors.model import Explanation, Fate
from cronactors.owner import ProcessIdentity
from cronactors.storage.protocol import Storage
from cronactors.storage.rows import RunRow


@attrs.frozen
class RemovedAnswer:
    """An answer about a job that was removed.

    Attributes:
        job: The job.
        now: The time of the answer.
        moments: The moments that it is about, in their order.
    """

    job: RemovedJob
    now: Millis
    moments: tuple[Moment, ...]


@attrs.frozen
class WhyRemoved(ReadRequest[RemovedAnswer]):
    """Read all that explains a moment of a job that was removed, in one transaction.

    Attributes:
        job: The job.
        when: Finds the time that is asked about; None: the last run.
        process: This process, by which is decided which schedulers are alive.
    """

    job: RemovedJob
    when: When | None
    process: ProcessIdentity

    def apply(self, storage: Storage) -> RemovedAnswer:
        """Read it."""
        now = storage.now()
        if self.when is None:
            moments = [self._of_run(storage, self.job.last, self.job.last.scheduled_at, now)]
        else:
            moments = self._moments(storage, self.when("UTC", now), now)
        return RemovedAnswer(self.job, now, tuple(moments))

    def _moments(self, storage: Storage, asked: Asked, now: Millis) -> list[Moment]:
        """Return the moments of that time; if no row stands for one, the moments before and after it."""
        for job_id in self.job.job_ids:
            found = [self._of_run(storage, run, at, now) for run, at in _rows(storage, job_id, asked)]
            found += [self._of_run(storage, run, run.scheduled_at, now) for run in requested_runs(storage, job_id, asked)]
            if found:
                return sorted(found, key=lambda moment: moment.at)
        before, after = storage.runs_around(self.job.job_ids[0], at=asked.at)
        nothing = Moment(asked.at, Explanation(outcome=Fate.NO_MOMENT, cause=None, run_id=None, next=None, text=""))
        return [
            *([] if before is None else [self._of_run(storage, before, before.scheduled_at, now)]),
            nothing,
            *([] if after is None else [self._of_run(storage, after, after.scheduled_at, now)]),
        ]

    def _of_run(self, storage: Storage, run: RunRow, at: Millis, now: Millis) -> Moment:
        return moment_of_run(storage, run, at, self.process, now)


def _rows(storage: Storage, job_id: str, asked: Asked) -> list[tuple[RunRow, Millis]]:
    """Return the first run of the time that is asked about; or one that stands for moments around it, and the time itself."""
    before, after = storage.runs_around(job_id, at=asked.at - 1)
    if after is not None and after.scheduled_at < asked.at + asked.within:
        last_attempt, _ = storage.runs_around(job_id, at=after.scheduled_at)
        return [] if last_attempt is None else [(last_attempt, after.scheduled_at)]
    return [(run, asked.at) for run in (before, after) if run is not None and run.span[0] <= asked.at <= run.span[1]][:1]
