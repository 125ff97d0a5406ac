"""Outcomes of runs: from the value that an executor returned, the exception that it raised, or the reason of its cancellation."""

from __future__ import annotations

import random

import trio

from cronactors.actors.exception_groups import single_exceptions
from cronactors.actors.tracebacks import describe, name_of
from cronactors.errors import GiveUp, Retry
from cronactors.job_data import data_to_column
from cronactors.model import Cause, JobResult, RunStatus
from cronactors.policy import MAX_ERROR, MAX_SUMMARY, Outcome, truncated
from cronactors.spec import MAX_DELAY, MAX_NAME

INTERRUPTED = Outcome(status=RunStatus.FAILED, cause=Cause.INTERRUPTED, error="interrupted: the scheduler was closed")
CANCELLED = Outcome(status=RunStatus.CANCELLED, cause=Cause.CANCELLED, error="cancelled on request")
REPLACED = Outcome(status=RunStatus.CANCELLED, cause=Cause.REPLACED, error="cancelled for the next moment of its job")


def success(value: object) -> Outcome:
    """Return the outcome of an executor that returned a value; a value that raises when it is inspected is a failure."""
    try:
        return _success(value)
    except BaseException as error:  # noqa: BLE001 - a user's object may do anything
        return failure(error)


def _success(value: object) -> Outcome:
    if value is None or type(value) is str:
        return Outcome(status=RunStatus.SUCCESS, result=truncated(value or "", MAX_SUMMARY))
    if isinstance(value, str):
        value = JobResult(summary=value)
    if not isinstance(value, JobResult):
        return failure(TypeError(f"the executor returned {name_of(type(value))}, not JobResult, str or None"))
    texts: dict[str, object] = {"summary": value.summary, "session_id": value.session_id}
    for field, text in texts.items():
        if not isinstance(text, str):
            return failure(TypeError(f"the executor returned a {field} of type {name_of(type(text))}, not str"))
    return Outcome(
        status=RunStatus.SUCCESS,
        result=truncated(value.summary, MAX_SUMMARY),
        session_id=truncated(value.session_id, MAX_NAME),
        result_data=data_to_column(value._data),
        notify=value.notify,
    )


def timed_out(seconds: float) -> Outcome:
    """Return the outcome of an executor that its timeout (s) cancelled."""
    return Outcome(
        status=RunStatus.FAILED,
        cause=Cause.TIMEOUT,
        error=f"timed out after {seconds:g} s",
        spread=random.random(),  # noqa: S311 - spreads retries, guards nothing
    )


def failure(error: BaseException) -> Outcome:
    """Return the outcome of an executor that raised."""
    text = truncated(describe(error), MAX_ERROR)
    # A nursery wraps even a single exception in a group.
    parts = [leaf for leaf in single_exceptions(error) if not issubclass(type(leaf), trio.Cancelled)]
    if any(issubclass(type(part), GiveUp) for part in parts):
        return Outcome(status=RunStatus.FAILED, cause=Cause.GAVE_UP, error=text)
    after = _requested_delay(parts[0]) if len(parts) == 1 and issubclass(type(parts[0]), Retry) else None
    return Outcome(
        status=RunStatus.FAILED,
        cause=Cause.ERROR,
        error=text,
        retry_after=after,
        spread=random.random(),  # noqa: S311 - spreads retries, guards nothing
    )


def _requested_delay(retry: BaseException) -> float | None:
    """Return the delay (s) that a `Retry` requests; None if a subclass has dropped it or replaced it by something else."""
    try:
        after: object = getattr(retry, "after", None)
    except BaseException:  # noqa: BLE001 - a user's property may do anything
        return None
    if type(after) is int or type(after) is float:
        return min(after, MAX_DELAY) if after >= 0 else None
    return None
