"""All errors of the library. A message is one line that names the field and the value, and shows no secret."""

from __future__ import annotations

MAX_MESSAGE = 500
"""Longest message of an error (characters)."""

_MAX_VALUE = 80


def shorten(value: object) -> str:
    """Show a value in an error message: its repr on one line, cut to 80 characters; never raises."""
    if isinstance(value, str):
        value = value[: _MAX_VALUE + 1]
    try:
        text = repr(value)
    except Exception:  # noqa: BLE001 - a user's repr can raise anything, and must not replace the error that we report
        text = f"<{type(value).__name__}>"
    text = ascii(text)[1:-1] if not text.isprintable() else text
    return text if len(text) <= _MAX_VALUE else text[: _MAX_VALUE - 1] + "…"


def one_line(text: str, limit: int = MAX_MESSAGE) -> str:
    """Put text on one printable line of at most ``limit`` characters, for messages and logs."""
    head = " ".join(text[: 2 * limit].split())
    if not head.isprintable():
        head = "".join(char if char.isprintable() else ascii(char)[1:-1] for char in head)
    return head if len(head) <= limit and len(text) <= 2 * limit else head[: limit - 1] + "…"


class CronError(Exception):
    """Base of all errors of cronactors. The message is one line of at most 500 characters."""

    def __init__(self, message: str = "") -> None:
        super().__init__(one_line(message))


class InvalidSchedule(CronError, ValueError):
    """A schedule that cannot be understood, never fires, or lies in the past."""


class InvalidJob(CronError, ValueError):
    """A job's field has a wrong type or value."""


class InvalidConfig(CronError, ValueError):
    """A setting, in code or in agent.toml, has an unknown name or a wrong value."""


class JobNotFound(CronError, LookupError):
    """No job has that id or name."""


class RunNotFound(CronError, LookupError):
    """No run has that id."""


class NotificationNotFound(CronError, LookupError):
    """No notification of that key was given up."""


class DuplicateJob(CronError):
    """The user already has a job of that name."""


class AlreadyClaimed(CronError):
    """Another scheduler or loop has started this moment, or the job was changed since it was read, or it is too late for a retry."""


class JobBusy(CronError):
    """The job has an open run, and its overlap policy does not allow another."""


class RunClosed(CronError):
    """The run has finished already, or was taken over because its owner seemed dead."""


class WouldDeadlock(CronError):
    """Waiting for a run inside a run or a receiver could wait for ever: pass ``wait=False``."""


class StoreUnavailable(CronError):
    """The file or server is locked, full, read-only or out of reach.

    Nothing is half done. If the commit itself failed, the change may be on disk: read before you try again.
    """


class StoreCorrupt(CronError):
    """The store is damaged, is not one of cronactors, or was written by a newer version. It was not touched."""


class SchedulerClosed(CronError):
    """The scheduler or store has been closed."""


class SchedulerCrashed(CronError):
    """A bug ended an actor; the bug is the ``__cause__``. The next start marks the interrupted runs and runs them again."""


class Retry(Exception):
    """Raised by an executor: this attempt failed; retry it after ``after`` seconds instead of the delay of the retry policy.

    Args:
        reason: The error, for the history.
        after: The delay (s) until the retry, 0 or more. None: the delay of the retry policy.

    Raises:
        InvalidJob: ``after`` is something else.
    """

    def __init__(self, reason: str = "", *, after: float | None = None) -> None:
        super().__init__(reason)
        given: object = after
        if given is not None and (isinstance(given, bool) or not isinstance(given, int | float) or not given >= 0):
            raise InvalidJob(f"after must be a number of seconds, 0 or more, not {shorten(after)}")
        self.after = after


class GiveUp(Exception):
    """Raised by an executor: this moment has failed for good, and is not retried.

    Args:
        reason: The error, for the history.
    """
