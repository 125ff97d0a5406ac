"""The run that this task or thread executes: `current_run`, and the reports that a run can make while it is running.

A context variable holds the run. A runner sets it around the call of the executor, and trio copies it into the tasks that the
executor starts and into the threads of `trio.to_thread`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextvars import ContextVar
from typing import Final, TypeVar, overload

from cronactors.checks import number, text as check_text
from cronactors.errors import CronError, shorten
from cronactors.model import CronRun
from cronactors.run_output import MAX_NOTE, Progress

_D = TypeVar("_D")


class CurrentRun(ABC):
    """A run that is being executed, as its executor sees it. `current_run` returns it.

    `log` and `report_progress` are plain calls: from the event loop or from any thread, and they never wait for the store.
    Reports are stored about once a second, and with the finish of the run. A call after the run has finished, or in a process
    that the executor forked, is ignored.
    """

    @property
    @abstractmethod
    def run_id(self) -> str:
        """The id of this attempt in the history."""

    @property
    @abstractmethod
    def job_id(self) -> str:
        """The job's id."""

    @property
    @abstractmethod
    def job_name(self) -> str:
        """The job's name."""

    @property
    @abstractmethod
    def attempt(self) -> int:
        """1 for the first start of the moment; interruptions count."""

    def log(self, line: str) -> None:
        """Add a line to the output of the run, or several if the text has line breaks.

        Of the lines of a run the first 64 KiB and the last 64 KiB are kept. A NUL and a lone surrogate become U+FFFD.

        Raises:
            CronError: It is no text.
        """
        if not isinstance(line, str):
            raise CronError(f"line must be text, not {type(line).__name__} ({shorten(line)})")
        self._log(line)

    def report_progress(self, fraction: float | None, note: str = "") -> None:
        """Report how far the run is. Other processes see the newest report, until the run finishes.

        Args:
            fraction: From 0 to 1; None: unknown.
            note: What the run is doing, at most 200 characters.

        Raises:
            CronError: An argument is wrong.
        """
        if fraction is not None:
            fraction = float(number("fraction", fraction, CronError, least=0, most=1))
        self._report_progress(Progress(fraction, check_text("note", note, CronError, limit=MAX_NOTE, empty=True)))

    @abstractmethod
    async def previous(self) -> CronRun | None:
        """Read the run of this job that finished last; None if none has finished yet.

        Only runs that had started count, retries and manual ones too, whatever their outcome.

        Raises:
            CronError: The store failed, or has been closed.
        """

    @abstractmethod
    def _log(self, text: str) -> None: ...

    @abstractmethod
    def _report_progress(self, progress: Progress) -> None: ...


current: Final[ContextVar[CurrentRun | None]] = ContextVar("cronactors_current_run", default=None)
"""The run that this task or thread executes."""

_REQUIRED: Final = object()


@overload
def current_run() -> CurrentRun: ...


@overload
def current_run(*, default: _D) -> CurrentRun | _D: ...


def current_run(*, default: object = _REQUIRED) -> object:
    """Return the run that is being executed here: in an executor, in the tasks that it starts, and in their trio threads.

    Args:
        default: Returned where there is no run.

    Raises:
        LookupError: There is no run here, and no default.
    """
    run = current.get()
    if run is not None:
        return run
    if default is _REQUIRED:
        raise LookupError(
            "there is no current run here: only an executor that a scheduler calls has one, with the tasks that it starts and "
            "the threads of trio.to_thread; in tests use cronactors.testing.fake_run()"
        )
    return default
