"""Bad input outside a store: opening one, settings, schedules. A CronError names field and value; no file is created."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from cronactors import (
    Cron,
    CronConfig,
    CronError,
    Interval,
    InvalidConfig,
    InvalidJob,
    JobContext,
    JobSpec,
    OneShot,
    RetryPolicy,
    StoreUnavailable,
    fire_times,
    load_config,
    next_run,
    open_scheduler,
    open_store,
    schedule_from_dict,
)
from cronactors.testing import VirtualClock
from tests.bad_input import BAD_TEXT, BAD_ZONE, HUGE, LONE, NUL, SPEC_FIELDS, cases, check


async def nothing(context: JobContext) -> None:
    """An executor with nothing to do."""


# Opening

BAD_NUMBER: tuple[object, ...] = (-1, math.nan, math.inf, "1", True, None, [], HUGE)
BAD_FUNCTION: tuple[object, ...] = (5, "function", [])
OPEN_SCHEDULER: Mapping[str, Sequence[object]] = {
    "store": (None, 5, b"a.db", "", [], NUL),
    "executor": (None, *BAD_FUNCTION),
    "notifier": BAD_FUNCTION,
    "on_finish": BAD_FUNCTION,
    "timezone": BAD_ZONE,
    "config": (5, "agent.toml", {}, CronConfig),
    "jobs": (None, 5, "jobs", JobSpec("a", "b", Interval(1))),
    "jobs[0]": ([None], [5], ["job"]),
    "tick_interval": (0, 3601, *BAD_NUMBER),
    "shutdown_grace": [value for value in BAD_NUMBER if value is not None],
}


@pytest.mark.parametrize(("field", "value"), cases(OPEN_SCHEDULER))
async def test_bad_arguments_of_open_scheduler(
    virtual_clock: VirtualClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, field: str, value: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    given: dict[str, Any] = {"store": tmp_path / "a.db", "executor": nothing, field.removesuffix("[0]"): value}
    with pytest.raises(StoreUnavailable if field == "store" else (InvalidConfig, InvalidJob)) as caught:
        async with open_scheduler(**given):
            pytest.fail("the block must not begin")
    check(caught.value, field, "" if field == "jobs[0]" else value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("field", "value"), cases({"timezone": BAD_ZONE, "config": OPEN_SCHEDULER["config"], "store": OPEN_SCHEDULER["store"]})
)
async def test_bad_arguments_of_open_store(virtual_clock: VirtualClock, tmp_path: Path, field: str, value: Any) -> None:
    given: dict[str, Any] = {"store": tmp_path / "a.db", field: value}
    with pytest.raises(StoreUnavailable if field == "store" else InvalidConfig) as caught:
        async with open_store(**given):
            pytest.fail("the block must not begin")
    check(caught.value, field, value)
    assert list(tmp_path.iterdir()) == []


async def test_bad_flags(virtual_clock: VirtualClock, tmp_path: Path) -> None:
    junk: Any = "no"
    with pytest.raises(InvalidConfig, match="create"):
        async with open_store(tmp_path / "a.db", create=junk):
            pytest.fail("the block must not begin")
    async with open_scheduler(":memory:", nothing) as scheduler:
        with pytest.raises(InvalidJob, match="wait"):
            await scheduler.run_now(await scheduler.store.add_job("a", "b", Cron("@daily")), wait=junk)


@pytest.mark.parametrize("error", [OSError(5, "gone"), TypeError("no"), ZeroDivisionError()])
async def test_a_path_object_that_raises(virtual_clock: VirtualClock, error: Exception) -> None:
    class Broken(os.PathLike[str]):
        def __fspath__(self) -> str:
            raise error

    with pytest.raises(StoreUnavailable, match="store must be a path, not") as caught:
        async with open_store(Broken()):
            pytest.fail("the block must not begin")
    assert caught.value.__cause__ is error
    with pytest.raises(InvalidConfig, match="path must be a path, not") as refused:
        load_config(Broken())
    assert refused.value.__cause__ is error


@pytest.mark.parametrize("path", [LONE, "\ud800"])
async def test_a_path_with_a_lone_surrogate(
    virtual_clock: VirtualClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(StoreUnavailable):
        async with open_store(path):
            pytest.fail("the block must not begin")


# Values

CONFIG: Mapping[str, Sequence[object]] = {
    "timezone": (None, *BAD_ZONE),
    "default_max_retries": (None, *SPEC_FIELDS["max_retries"]),
    "default_timeout_secs": (None, *SPEC_FIELDS["timeout_secs"]),
    "max_concurrent_runs": (None, 0, -1, 1.5, True, "1", 10_001, HUGE),
    "max_concurrent_runs_total": (0, -1, 1.5, True, "1", 10_001, HUGE),
    "retry": (None, 5, (30, 60), {}),
    "history": (5, "90", (90,), {}, True),
    "cancel_grace": BAD_NUMBER,
    "shutdown_grace": BAD_NUMBER,
    "overdue_after": (0.9, *(value for value in BAD_NUMBER if value is not None)),
    "jobs": (None, 5, "jobs", b"jobs"),
    "origin": (5, b"x", "", NUL, LONE, "x" * 5_000),
    "file": (5, b"x", "", NUL, LONE, "x" * 5_000),
    "database": (5, b"x", "", NUL, LONE, "x" * 5_000),
    "executor": (5, nothing, "", NUL, LONE, "x" * 5_000),
}


@pytest.mark.parametrize(("field", "value"), cases(CONFIG))
def test_a_bad_setting(field: str, value: Any) -> None:
    given: dict[str, Any] = {field: value}
    with pytest.raises(InvalidJob if field == "jobs" else InvalidConfig) as caught:
        CronConfig(**given)
    check(caught.value, field, value)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *cases({"delays": (None, 5, "30", (), b"\x1e")}),
        *cases({"delays": [(-1,), (math.nan,), (math.inf,), ("30",), (True,), (None,)]}),
        pytest.param("delays", (HUGE,)),
        *cases({"jitter": (-0.1, 1.1, math.nan, "0", True, None)}),
    ],
)
def test_a_bad_retry_policy(field: str, value: Any) -> None:
    given: dict[str, Any] = {field: value}
    with pytest.raises(InvalidConfig) as caught:
        RetryPolicy(**given)
    check(caught.value, field, value if not isinstance(value, tuple) or not value else value[0])


@pytest.mark.parametrize(
    ("make", "field", "values"),
    [
        (Interval, "every_ms", (None, 0, -1, 1.5, "1", True, [], HUGE)),
        (lambda value: Interval.every(hours=value), "hours", (None, -1, "1", True, [], math.nan, math.inf)),
        (lambda value: Interval.every(ms=value), "every_ms", (0.5, 0)),
        (Cron, "expr", BAD_TEXT),
        (OneShot, "at", BAD_TEXT),
        (lambda value: next_run(Cron("@daily"), after=value), "after", (None, 5, "2026-01-01", datetime(2026, 1, 1))),
        (lambda value: list(fire_times(Cron("@daily"), after=value)), "after", (None, 5, datetime(2026, 1, 1))),
        (lambda value: next_run(value, after=datetime(2026, 1, 1, tzinfo=UTC)), "schedule", (None, 5, "@daily", {})),
        (schedule_from_dict, "kind", ({}, {"kind": "never"}, {"kind": []})),
        (
            lambda value: VirtualClock().set_wall(value),
            "moment",
            (None, 5, "", "x", NUL, LONE, "2026-01-01", datetime(2026, 1, 1)),
        ),
    ],
    ids=["Interval", "every", "every ms", "Cron", "OneShot", "after", "fire_times", "schedule", "dict", "set_wall"],
)
def test_a_bad_value_of_a_schedule(make: Callable[[Any], object], field: str, values: Sequence[object]) -> None:
    for value in values:
        with pytest.raises(CronError) as caught:
            make(value)
        check(caught.value, field, "" if isinstance(value, dict | datetime) else value)
