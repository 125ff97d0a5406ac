"""The status of a run in a sentence, and its cause in words. Pure; the causes are those of docs/promise.md."""

from __future__ import annotations

from typing import Final

from cronactors.model import Cause, CronRun, RunStatus
from cronactors.storage.rows import CRASH_LOOP, PAUSE

_FAILED: Final = {
    Cause.ERROR: "the executor raised an error",
    Cause.TIMEOUT: "it ran for longer than the timeout of the job",
    Cause.GAVE_UP: "it gave up, and is not retried",
    Cause.INTERRUPTED: "a crash or a shutdown ended it, and it is run again",
}
_CANCELLED: Final = {
    Cause.CANCELLED: "its cancellation was requested",
    Cause.REPLACED: "a newer moment or schedule of the job took its place",
    Cause.REMOVED: "its job was removed while it was waiting",
    Cause.MISFIRE: "it could start only after the misfire window of the job",
}
_SKIPPED: Final = {
    Cause.OVERLAP: "another run of the job was still running",
    Cause.MISFIRE: "nothing could start it in time, and the misfire policy of the job does not make up for it",
    Cause.CANCELLED: "the job was paused before it could start",
    Cause.REPLACED: "a newer moment or another schedule took its place before it could start",
    Cause.REMOVED: "the job was removed, or done, before it could start",
    Cause.INTERRUPTED: "the job was paused because of crashes before it could start",
}
_WHY: Final = {RunStatus.FAILED: _FAILED, RunStatus.CANCELLED: _CANCELLED, RunStatus.SKIPPED: _SKIPPED}
_STOPPING: Final = {
    Cause.TIMEOUT: "it has run for longer than the timeout of the job",
    Cause.CANCELLED: "its cancellation was requested",
    Cause.REPLACED: "a newer moment takes its place",
    Cause.INTERRUPTED: "its scheduler is stopping",
}


def sentence(run: CronRun, waits_for: str = "") -> str:
    """Describe the status of a run and its cause.

    Args:
        run: The run.
        waits_for: The reason why a pending run waits, in words; "" for nothing but its time.
    """
    match run.status:
        case RunStatus.PENDING:
            return f"pending: it waits for {waits_for or 'its time'}"
        case RunStatus.RUNNING if run.cause is not None:
            return f"running, and being stopped: {_STOPPING.get(run.cause, run.cause)}"
        case RunStatus.FAILED | RunStatus.CANCELLED | RunStatus.SKIPPED if run.cause is not None:
            return f"{run.status}: {why(run.status, run.cause)}"
        case _:
            return run.status


def why(status: RunStatus, cause: Cause) -> str:
    """Say why a run failed, was cancelled or was skipped, with the cause itself in brackets."""
    return f"{_WHY.get(status, {}).get(cause, cause)} ({cause})"


def waiting(stored: str | None) -> str:
    """Describe why a run waits, from the column ``waits_for``; "" for nothing."""
    if not stored:
        return ""
    if stored == PAUSE:
        return "its job to be resumed"
    if stored == CRASH_LOOP:
        return "its turn: runs of jobs in a crash loop start one at a time"
    return "another run of its job" if stored.startswith("job:") else "its session, which another run uses"
