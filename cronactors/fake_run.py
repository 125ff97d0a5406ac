"""A current run for tests of executors, without a scheduler. `cronactors.testing` exports it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from cronactors.model import CronRun, JobContext
from cronactors.run_context import CurrentRun, current
from cronactors.run_output import Progress, encode_lines


class FakeRun(CurrentRun):
    """A current run that collects the reports of an executor.

    Attributes:
        lines: The lines that were logged, without line breaks.
        progress: Fraction and note of each report.
    """

    def __init__(self, context: JobContext | None, previous: CronRun | None) -> None:
        self.lines: list[str] = []
        self.progress: list[tuple[float | None, str]] = []
        self._context = context
        self._previous = previous

    @property
    def run_id(self) -> str:
        """The id in the context."""
        return "1" if self._context is None else self._context.run_id

    @property
    def job_id(self) -> str:
        """The job's id in the context."""
        return "job-1" if self._context is None else self._context.job_id

    @property
    def job_name(self) -> str:
        """The job's name in the context."""
        return "job" if self._context is None else self._context.job_name

    @property
    def attempt(self) -> int:
        """The attempt in the context."""
        return 1 if self._context is None else self._context.attempt

    async def previous(self) -> CronRun | None:
        """Return the run that the test has given."""
        return self._previous

    def _log(self, text: str) -> None:
        self.lines += encode_lines(text).decode().split("\n")[:-1]

    def _report_progress(self, progress: Progress) -> None:
        self.progress.append((progress.fraction, progress.note))


@contextmanager
def fake_run(context: JobContext | None = None, *, previous: CronRun | None = None) -> Iterator[FakeRun]:
    """Let `cronactors.current_run` return a run that collects reports, while the block runs.

    Args:
        context: The context that the executor is called with; None: the one that `make_context` makes by default.
        previous: The run that `CurrentRun.previous` returns.
    """
    run = FakeRun(context, previous)
    token = current.set(run)
    try:
        yield run
    finally:
        current.reset(token)
