"""The verbs on the output of runs."""

from __future__ import annotations

from typing import Final

from cronactors.actors import output_requests
from cronactors.checks import whole
from cronactors.errors import InvalidJob
from cronactors.run_output import RunOutput, RunProgress
from cronactors.spec import check_id
from cronactors.verbs.base import Verbs

_LAST_POSITION: Final = 2**62


class OutputVerbs(Verbs):
    """Reading what runs report, from any process."""

    async def get_run_output(self, run_id: str, *, since: int = 0) -> RunOutput:
        """Read the lines of a run, also while it is running; those of the last second may not be stored yet.

        To follow a run, call it with ``since=output.cursor`` until ``output.finished``.

        Args:
            run_id: The run.
            since: The position (bytes) from which on to read: 0, or the cursor of an earlier call.

        Raises:
            RunNotFound: There is no run with that id.
        """
        position = whole("since", since, InvalidJob, least=0, most=_LAST_POSITION)
        return await self._mailbox.call(output_requests.ReadOutput(check_id("run_id", run_id), position))

    async def get_progress(self, run_id: str) -> RunProgress | None:
        """Read the progress of a running run; None if it has reported none, or has finished.

        Raises:
            RunNotFound: There is no run with that id.
        """
        return await self._mailbox.call(output_requests.ReadProgress(check_id("run_id", run_id)))
