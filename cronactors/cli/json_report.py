"""The lines that ``run`` prints with ``--log-format json``: one JSON object for each event, like those of the log."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from cronactors import __version__, log_fields
from cronactors.actors.failure_log import without_prompt
from cronactors.cli import describe
from cronactors.cli.amounts import count
from cronactors.cli.log_format import ids_of, json_line
from cronactors.cli.report import NO_FIELDS, Report, changes, changes_in_words
from cronactors.errors import one_line
from cronactors.instants import iso_utc, to_millis
from cronactors.model import CronJob, CronRun, JobContext, RunStatus
from cronactors.origins import StartReport
from cronactors.settings import CronConfig

_LOGGER = "cronactors.run"
_FINE, _BAD = "INFO", "WARNING"


class JsonReport(Report):
    """Prints the report of ``run`` for programs. No line has a prompt or data in it.

    Args:
        config: The file.
        print_line: Prints a line.
    """

    def __init__(self, config: CronConfig, print_line: Callable[[str], None]) -> None:
        super().__init__(config)
        self._print_line = print_line

    def header(self, start: StartReport, database: str) -> None:
        """Print one line with all of it, and one for each fact about lists."""
        facts: dict[str, object] = {
            "version": __version__,
            "file": self.config.file,
            "database": database,
            "timezone": self.config.timezone,
            "max_concurrent_runs": self.config.max_concurrent_runs,
            **changes(start),
        }
        whose = "the database" if self.config.file is None else self.file
        self._print(_FINE, f"cronactors {__version__} runs the jobs of {whose}: {changes_in_words(start)}", "start", facts)
        for line in start.lines:
            self.note(line, event="start")
        self.lost(start)

    def lost(self, start: StartReport) -> None:
        """Print a line for each list."""
        for lost in start.lost:
            self._print(_BAD, lost.line(), "lost_list", {"origin": lost.name, "jobs": lost.jobs})

    def jobs(self, jobs: Iterable[CronJob]) -> None:
        """Print nothing: ``cronactors list --json`` has them."""

    def end_of_header(self, recovered: Iterable[CronRun]) -> None:
        """Print a line for each run that a crash interrupted."""
        for run in recovered:
            self._print_run(_BAD, "run_interrupted", log_fields.of_run(run), run.job_name, "interrupted by a crash, runs again")

    def _started(self, context: JobContext) -> None:
        moment = {"scheduled_at": iso_utc(to_millis(context.scheduled_at))}
        self._print_run(_FINE, "run_started", {**ids_of(context), **moment}, context.job_name, "started")

    def _finished(self, context: JobContext | None, job: CronJob | None, run: CronRun) -> None:
        """Print a line with the outcome and the next retry.

        The job may have been removed, or have another prompt by now. So the prompt that must not be in the line is that of the context;
        where no prompt is known, the result is left out.
        """
        result = describe.result(run)
        fields: dict[str, object] = {**log_fields.of_run(run), "status": str(run.status)}
        if run.cause is not None:
            fields["cause"] = str(run.cause)
        if run.started_at is not None and run.completed_at is not None:
            fields["duration_secs"] = (run.completed_at - run.started_at).total_seconds()
        ran = context or job
        fields["result"] = None if ran is None else without_prompt(result, ran.prompt)
        if job is not None and job.retry_at is not None and run.status is RunStatus.FAILED:
            fields["retry_at"] = iso_utc(to_millis(job.retry_at))
        level = _FINE if run.status is RunStatus.SUCCESS else _BAD
        took = f" after {describe.duration(run)}" if run.started_at is not None else ""
        self._print_run(level, "run_finished", fields, run.job_name, f"{describe.status(run)}{took}")

    def note(
        self,
        text: str,
        *,
        event: str,
        timed: bool = True,  # noqa: ARG002 - for people
        is_problem: bool = False,
        fields: Mapping[str, object] = NO_FIELDS,
    ) -> None:
        """Print a line."""
        self._print(_BAD if is_problem else _FINE, text, event, fields)

    def stopping(self) -> None:
        """Print how many runs are waited for."""
        fields: dict[str, object] = {"running": len(self.running), "shutdown_grace": self.config.shutdown_grace}
        self._print(_FINE, f"stopping; {count(len(self.running), 'run')} running", "stopping", fields)

    def summary(self) -> None:
        """Print a line for each interrupted run, and the numbers."""
        for context in self.running.values():
            self._print_run(
                _BAD, "run_interrupted", ids_of(context), context.job_name, "interrupted, runs again at the next start"
            )
        counts = dict(self.counts())
        self._print(_FINE, f"ended: {count(sum(counts.values()), 'run')}", "end", {"runs": counts})

    def _print_run(self, level: str, event: str, ids: dict[str, object], name: str, text: str) -> None:
        self._print(level, f"{one_line(name, 60)}: attempt {ids['cron_attempt']} {text}", event, {"job": name, **ids})

    def _print(self, level: str, text: str, event: str, fields: Mapping[str, object]) -> None:
        self._print_line(json_line(level, _LOGGER, text, {"event": event, **fields}))


def left_out_line(text: str) -> str:
    """Write the line about lines that a slow reader has missed."""
    return json_line(_BAD, _LOGGER, text, {"event": "lines_left_out"})
