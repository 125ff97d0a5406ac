"""The requests about the output of runs. `apply` runs on the storage thread."""

from __future__ import annotations

from typing import ClassVar

import attrs

from cronactors.actors.mailbox import ReadRequest, Request
from cronactors.ledger import run_output, runs, views
from cronactors.ledger.run_output import NewOutput
from cronactors.model import CronRun
from cronactors.run_output import RunOutput, RunProgress
from cronactors.storage.protocol import Storage


@attrs.frozen
class StoreOutput(Request[None]):
    """Store output of running runs."""

    alone: ClassVar[bool] = False
    waits_forever: ClassVar[bool] = True
    outputs: tuple[NewOutput, ...]

    def apply(self, storage: Storage) -> None:
        run_output.store_output(storage, self.outputs)


@attrs.frozen
class ReadOutput(ReadRequest[RunOutput]):
    """Read the lines of a run after a position."""

    run_id: str
    since: int

    def apply(self, storage: Storage) -> RunOutput:
        return run_output.read_output(storage, self.run_id, since=self.since)


@attrs.frozen
class ReadProgress(ReadRequest[RunProgress | None]):
    """Read the progress of a run."""

    run_id: str

    def apply(self, storage: Storage) -> RunProgress | None:
        return run_output.read_progress(storage, self.run_id)


@attrs.frozen
class LastFinishedRun(ReadRequest[CronRun | None]):
    """Read the run of a job that finished last, besides one."""

    job_id: str
    besides: int

    def apply(self, storage: Storage) -> CronRun | None:
        run = runs.last_finished_run(storage, self.job_id, besides=self.besides)
        return None if run is None else views.run_view(run)
