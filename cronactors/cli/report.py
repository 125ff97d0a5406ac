"""The interface of the reports of ``run``, with the counts that all of them have."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

from cronactors.cli.amounts import count
from cronactors.errors import CronError, one_line
from cronactors.model import CronJob, CronRun, JobContext, RunStatus
from cronactors.origins import StartReport, first_of
from cronactors.settings import CronConfig

NO_FIELDS: Mapping[str, object] = {}


class Report(ABC):
    """Reports the start, the runs and the stop of ``run``.

    Attributes:
        config: The settings in force.
        running: The runs that are running, by id.
    """

    def __init__(self, config: CronConfig) -> None:
        self.config = config
        self.running: dict[str, JobContext] = {}
        self._counts: Counter[RunStatus] = Counter()

    @abstractmethod
    def header(self, start: StartReport, database: str) -> None:
        """Report the version, the database and the settings, and the changes of the start in lists of jobs."""

    @abstractmethod
    def jobs(self, jobs: Iterable[CronJob]) -> None:
        """Report the jobs at the start."""

    @abstractmethod
    def end_of_header(self, recovered: Iterable[CronRun]) -> None:
        """Report the runs that a crash interrupted; the start is complete."""

    def run_started(self, context: JobContext) -> None:
        """Report that a run starts."""
        self.running[context.run_id] = context
        self._started(context)

    def run_finished(self, job: CronJob | None, run: CronRun) -> None:
        """Report the outcome of a run that is on disk, and when it is retried; the job is None if it was removed."""
        context = self.running.pop(run.id, None)
        self._counts[run.status] += 1
        self._finished(context, job, run)

    @abstractmethod
    def _started(self, context: JobContext) -> None: ...

    @abstractmethod
    def _finished(self, context: JobContext | None, job: CronJob | None, run: CronRun) -> None: ...

    def file_read(self, applied: CronConfig, report: StartReport, at_start: list[str]) -> None:
        """Report that the file was read again.

        Args:
            applied: The settings in force now.
            report: The changes in lists of jobs.
            at_start: The settings that change at the next start only.
        """
        self.config = applied
        for line in report.lines:
            self.note(line, event="file_read")
        self.lost(report)
        self.note(f"read {self.file} again: {changes_in_words(report)}", event="file_read", fields=changes(report))
        if at_start:
            them = " and ".join(filter(None, [", ".join(at_start[:-1]), at_start[-1]]))
            self.note(f"{them} {'change' if len(at_start) > 1 else 'changes'} at the next start", event="file_read")

    def file_refused(self, problem: CronError) -> None:
        """Report that the file has a mistake."""
        self.note(f"{self.file} is not applied, and nothing has changed: {problem}", is_problem=True, event="file_refused")

    def file_waits(self, problem: CronError) -> None:
        """Report that the jobs of the file cannot be stored yet."""
        self.note(f"{self.file} is not applied yet, and is tried again: {problem}", is_problem=True, event="file_waits")

    def file_gone(self) -> None:
        """Report that the file is missing."""
        text = f"{self.file} is gone or out of reach: its jobs keep running, and it is read when it is back"
        self.note(text, is_problem=True, event="file_gone")

    @property
    def file(self) -> str:
        """The name of the file, on one line."""
        return "the file" if self.config.file is None else one_line(Path(self.config.file).name, 60)

    @abstractmethod
    def note(
        self, text: str, *, event: str, timed: bool = True, is_problem: bool = False, fields: Mapping[str, object] = NO_FIELDS
    ) -> None:
        """Report something.

        Args:
            text: The text.
            event: Its kind, for programs.
            timed: Whether people need its time; programs get it always.
            is_problem: Whether somebody should do something about it.
            fields: Values for programs.
        """

    @abstractmethod
    def lost(self, start: StartReport) -> None:
        """Report the lists whose jobs keep running without a file."""

    @abstractmethod
    def stopping(self) -> None:
        """Report how many runs are still running, and for how long they are waited for."""

    def counts(self) -> list[tuple[str, int]]:
        """Count the runs by outcome; those that are still running are interrupted."""
        counted = [(str(status), self._counts[status]) for status in RunStatus if self._counts[status]]
        return [*counted, *([("interrupted", len(self.running))] if self.running else [])]

    @abstractmethod
    def summary(self) -> None:
        """Report the runs that were interrupted, and count all of them."""


def changes(report: StartReport) -> dict[str, object]:
    """Return the numbers of jobs that were changed, for programs."""
    return {
        "added": len(report.added),
        "changed": len(report.changed),
        "removed": len(report.removed),
        "unchanged": report.unchanged,
    }


def changes_in_words(report: StartReport) -> str:
    """Say which jobs were added, changed and removed."""
    parts = [
        f"{len(names):,} {verb} ({first_of(names)})"
        for verb, names in (("added", report.added), ("changed", report.changed), ("removed", report.removed))
        if names
    ]
    if report.unchanged or not parts:
        parts.append(f"{count(report.unchanged, 'job')} unchanged")
    return "; ".join(parts)
