"""Outcomes: what a return value, an exception and a timeout of an executor are stored as."""

from __future__ import annotations

import math

import pytest
import trio

from cronactors.actors import outcomes
from cronactors.errors import GiveUp, Retry
from cronactors.model import Cause, JobResult, RunStatus
from cronactors.policy import MAX_ERROR, MAX_SUMMARY, Outcome
from cronactors.spec import MAX_DELAY, MAX_NAME


class Text(str):
    """A text of the user's own class."""

    __slots__ = ()


def failed(outcome: Outcome, *, cause: Cause = Cause.ERROR) -> str:
    """The error of a failure that names no delay."""
    assert (outcome.status, outcome.cause, outcome.result, outcome.retry_after) == (RunStatus.FAILED, cause, None, None)
    assert (outcome.session_id, outcome.crashed) == ("", False)
    assert outcome.error is not None
    return outcome.error


# Return values


@pytest.mark.parametrize(
    ("value", "result", "session_id"),
    [
        (None, "", ""),
        ("", "", ""),
        ("fine", "fine", ""),
        (Text("fine"), "fine", ""),
        (JobResult(summary="fine"), "fine", ""),
        (JobResult(summary="fine", session_id="s1"), "fine", "s1"),
        ("x" * MAX_SUMMARY, "x" * MAX_SUMMARY, ""),
        ("x" * (MAX_SUMMARY + 1), "x" * (MAX_SUMMARY - 1) + "…", ""),
        (JobResult(summary="y" * 20_000, session_id="s" * 300), "y" * (MAX_SUMMARY - 1) + "…", "s" * (MAX_NAME - 1) + "…"),
        ("a\0b\ud800", "a\N{REPLACEMENT CHARACTER}b?", ""),
    ],
    ids=lambda value: ascii(value)[:30],
)
def test_a_return_value_is_a_success(value, result, session_id):
    assert outcomes.success(value) == Outcome(status=RunStatus.SUCCESS, result=result, session_id=session_id)
    assert type(outcomes.success(value).result) is str


def test_an_outcome_has_the_data_of_a_result_and_whether_to_notify():
    outcome = outcomes.success(JobResult(summary="fine", data={"b": [1], "a": None}, notify=False))
    assert (outcome.result_data, outcome.notify) == ('{"a":null,"b":[1]}', False)
    assert "null" not in repr(outcome)
    plain = outcomes.success(JobResult(summary="fine"))
    assert (plain.result_data, plain.notify) == (None, True)


@pytest.mark.parametrize(
    ("value", "error"),
    [
        (5, "TypeError: the executor returned int, not JobResult, str or None"),
        (b"fine", "TypeError: the executor returned bytes, not JobResult, str or None"),
        (False, "TypeError: the executor returned bool, not JobResult, str or None"),
        (JobResult(summary=5), "TypeError: the executor returned a summary of type int, not str"),  # type: ignore[arg-type]
        (JobResult(summary="fine", session_id=None), "TypeError: the executor returned a session_id of type NoneType, not str"),  # type: ignore[arg-type]
    ],
    ids=lambda value: ascii(value)[:30],
)
def test_another_return_value_is_a_failure(value, error):
    assert failed(outcomes.success(value)) == error


def test_a_return_value_that_raises_when_it_is_examined_is_a_failure():
    class Hostile:
        @property
        def __class__(self) -> type:  # isinstance() reads it
            raise KeyboardInterrupt("never mind")

    assert failed(outcomes.success(Hostile())) == "KeyboardInterrupt: never mind"


def test_how_much_is_kept():
    assert len(outcomes.success("x" * 20_000).result or "") == 10_000
    assert len(outcomes.failure(ValueError("x" * 20_000)).error or "") == 2_000
    assert len(outcomes.success(JobResult(summary="", session_id="s" * 20_000)).session_id) == 200


# Exceptions


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ValueError("boom"), "ValueError: boom"),
        (ValueError(), "ValueError"),
        (ValueError("x" * MAX_ERROR), "ValueError: " + "x" * (MAX_ERROR - 13) + "…"),
        (SystemExit(3), "SystemExit: 3"),
        (ExceptionGroup("several", [ValueError("one"), KeyError("two")]), "ValueError: one; KeyError: 'two'"),
        (ExceptionGroup("two delays", [Retry("a", after=1), Retry("b", after=2)]), "Retry: a; Retry: b"),
        (ExceptionGroup("a delay and more", [Retry("a", after=1), ValueError("b")]), "Retry: a; ValueError: b"),
    ],
    ids=lambda value: ascii(value)[:30],
)
def test_an_exception_is_a_failure(error, text):
    assert failed(outcomes.failure(error)) == text


@pytest.mark.parametrize("wrap", [lambda error: error, lambda error: ExceptionGroup("", [ValueError("beside"), error])])
def test_giving_up_is_final(wrap):
    class Hopeless(GiveUp):
        pass

    for error in (GiveUp("no use"), Hopeless("no use")):
        outcome = outcomes.failure(wrap(error))
        assert failed(outcome, cause=Cause.GAVE_UP).endswith("no use")
        assert outcome.spread == 0


@pytest.mark.parametrize(
    ("after", "expected"),
    [
        (None, None),
        (0, 0),
        (0.5, 0.5),
        (90, 90),
        (MAX_DELAY, MAX_DELAY),
        (MAX_DELAY + 1, MAX_DELAY),
        (-1, None),
        (-0.001, None),
        (math.nan, None),
        (math.inf, MAX_DELAY),
        (True, None),
        ("5", None),
    ],
)
def test_the_delay_of_a_retry(after, expected):
    class Later(Retry):
        def __init__(self) -> None:
            Exception.__init__(self, "later")
            self.after = after

    for error in (Later(), ExceptionGroup("of a nursery", [Later()])):
        outcome = outcomes.failure(error)
        assert (outcome.status, outcome.cause, outcome.retry_after) == (RunStatus.FAILED, Cause.ERROR, expected)
        assert outcome.error == "Later: later"


def test_a_retry_without_its_delay_waits_as_any_failure():
    class NoDelay(Retry):
        def __init__(self) -> None:
            Exception.__init__(self, "later")

    class Broken(NoDelay):
        @property
        def after(self):
            raise KeyboardInterrupt

    for error in (NoDelay(), Broken()):
        assert failed(outcomes.failure(error)).endswith(": later")


async def test_cancellations_in_a_group_do_not_hide_the_one_error_that_is_in_it():
    caught: list[trio.Cancelled] = []
    with trio.CancelScope() as scope:
        scope.cancel()
        try:
            await trio.lowlevel.checkpoint()
        except trio.Cancelled as cancelled:
            caught.append(cancelled)
            raise
    outcome = outcomes.failure(BaseExceptionGroup("", [*caught, Retry("later", after=7)]))
    assert outcome.retry_after == 7
    assert failed(outcomes.failure(caught[0])).startswith("Cancelled")


# Spread of retries


def test_retries_of_runs_that_failed_together_are_spread():
    for make in (lambda: outcomes.failure(ValueError()), lambda: outcomes.timed_out(1)):
        spreads = {make().spread for _ in range(100)}
        assert len(spreads) == 100
        assert all(0 <= spread < 1 for spread in spreads)


@pytest.mark.parametrize(("seconds", "text"), [(7200, "7200"), (0.5, "0.5"), (1.0, "1"), (0.001, "0.001")])
def test_a_timeout_names_its_seconds(seconds, text):
    assert failed(outcomes.timed_out(seconds), cause=Cause.TIMEOUT) == f"timed out after {text} s"


def test_the_outcomes_of_cancellations():
    assert failed(outcomes.INTERRUPTED, cause=Cause.INTERRUPTED) == "interrupted: the scheduler was closed"
    assert (outcomes.CANCELLED.status, outcomes.CANCELLED.cause) == (RunStatus.CANCELLED, Cause.CANCELLED)
    assert (outcomes.REPLACED.status, outcomes.REPLACED.cause) == (RunStatus.CANCELLED, Cause.REPLACED)
    assert outcomes.CANCELLED.error == "cancelled on request"
    assert outcomes.REPLACED.error == "cancelled for the next moment of its job"
