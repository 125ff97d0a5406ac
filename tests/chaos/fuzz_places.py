"""Every public call that takes values from users, with makers of bad values for each parameter."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import Any

import attrs

from cronactors import (
    Cron,
    CronConfig,
    CronScheduler,
    Interval,
    JobResult,
    JobSpec,
    Misfire,
    OneShot,
    Receiver,
    Retry,
    RetryPolicy,
    Timetable,
    compare_fire_times,
    fire_times,
    lint,
    load_config,
    next_run,
    open_scheduler,
    open_store,
    preview,
    schedule_from_dict,
    schedule_to_dict,
)
from cronactors.run_output import MAX_NOTE
from cronactors.spec import MAX_NAME, MAX_PATH, MAX_TIMEOUT
from cronactors.tags import MAX_TAG
from cronactors.testing import FakeRun, VirtualClock, simulate
from tests.chaos.fuzzing import (
    CONFIG,
    LIMIT,
    LIMIT_OR_NONE,
    SPEC,
    STATUS,
    USER,
    Chance,
    Maker,
    bad_data,
    bad_delays,
    bad_expression,
    bad_flag,
    bad_id,
    bad_instant,
    bad_mapping,
    bad_member,
    bad_number,
    bad_specs,
    bad_text,
    bad_timestamp,
    bad_whole,
    bad_zone,
    thing,
)
from tests.workers import nothing

GOOD: Mapping[str, Any] = {"name": "new", "prompt": "it", "schedule": Interval(60_000)}
AFTER = datetime(2026, 1, 1, tzinfo=UTC)


@attrs.frozen
class World:
    """A scheduler with a job called old and a run of it, and a folder: all that calls need."""

    scheduler: CronScheduler
    job_id: str
    run_id: str
    folder: Path


@attrs.frozen
class Place:
    """A public callable; ``call`` takes bad values for some of its parameters."""

    makers: Mapping[str, Maker]
    call: Callable[..., Any]


def of_store(verb: str, makers: Mapping[str, Maker], **good: Any) -> Place:
    """Return a method of the store; ``job_id`` and ``run_id`` are good unless bad ones are passed."""

    def call(world: World, **bad: Any) -> Any:
        known = {"job_id": world.job_id, "run_id": world.run_id}
        given = {**{key: known.get(key, value) for key, value in good.items()}, **bad}
        return getattr(world.scheduler.store, verb)(**given)

    return Place(makers, call)


def bad_function(chance: Chance) -> object:
    return thing(chance, type(None), but=callable)


def bad_path(chance: Chance) -> object:
    return bad_text(MAX_PATH)(chance)


async def enter(block: Any) -> None:
    async with block:
        raise AssertionError("the block must not begin")


def pure(function: Callable[..., Any], makers: Mapping[str, Maker], **good: Any) -> Place:
    return Place(makers, lambda _, **bad: function(**{**good, **bad}))


_ID = {"job_id": bad_id}
_RUN = {"run_id": bad_id}
_REQUEST: Mapping[str, Maker] = {"data": bad_data, "key": bad_text(MAX_NAME, none_is_bad=False)}
_FILTERS: Mapping[str, Maker] = {
    "job_id": bad_text(MAX_NAME, none_is_bad=False),
    "tag": bad_text(MAX_NAME, none_is_bad=False),
    "user_id": USER,
    "since": bad_instant(none_is_bad=False),
    "until": bad_instant(none_is_bad=False),
}
_WORDS: Mapping[str, Maker] = dict.fromkeys(("status", "cause", "trigger"), lambda c: _status(c))
_QUESTION = {
    "schedule": lambda c: thing(c),
    "after": bad_instant(any_year=True),
    "timezone": bad_zone(none_is_bad=False),
    "anchor": bad_instant(none_is_bad=False, any_year=True),
}
_OPENING = {"timezone": bad_zone(none_is_bad=False), "config": lambda c: thing(c, type(None))}
_EVERY = bad_number(0, 36_525 * 86_400_000)

PLACES: Mapping[str, Place] = {
    "add_job": of_store("add_job", SPEC, **GOOD),
    "upsert_job": of_store("upsert_job", SPEC, **GOOD),
    "add_jobs": of_store("add_jobs", {"specs": bad_specs}),
    "upsert_jobs": of_store("upsert_jobs", {"origin": bad_text(MAX_PATH, none_is_bad=False)}, specs=()),
    "adopt_origin": of_store("adopt_origin", {"origin": bad_text(MAX_PATH), "by": bad_text(MAX_PATH)}, origin="a", by="b"),
    "remove_origin": of_store("remove_origin", {"origin": bad_text(MAX_PATH)}),
    "update_job": of_store(
        "update_job",
        {**_ID, **{key: maker for key, maker in SPEC.items() if key not in ("user_id", "enabled")}, "timezone": bad_zone()},
        job_id=None,
        prompt="other",
    ),
    "get_job": of_store("get_job", _ID),
    "get_job_by_name": of_store("get_job_by_name", {"name": bad_text(MAX_NAME), "user_id": USER}, name="old"),
    "remove_job_by_name": of_store("remove_job_by_name", {"name": bad_text(MAX_NAME), "user_id": USER}, name="old"),
    "list_jobs": of_store(
        "list_jobs",
        {
            "user_id": USER,
            "tag": bad_text(MAX_TAG, none_is_bad=False),
            "enabled": lambda c: thing(c, bool, type(None)),
        },
    ),
    "pause_job": of_store(
        "pause_job",
        {**_ID, "until": bad_instant(none_is_bad=False), "note": bad_text(1_000, empty_is_bad=False)},
        job_id=None,
    ),
    "resume_job": of_store("resume_job", _ID),
    "remove_job": of_store("remove_job", _ID),
    "get_due_jobs": of_store("get_due_jobs", {"limit": LIMIT_OR_NONE}),
    "get_retry_jobs": of_store("get_retry_jobs", {"limit": LIMIT_OR_NONE}),
    "record_run_start": of_store("record_run_start", {"job": bad_id}),
    "record_run_complete": of_store(
        "record_run_complete",
        {
            **_RUN,
            "status": STATUS,
            "result": lambda c: thing(c, str, type(None)),
            "session_id": bad_text(MAX_NAME, empty_is_bad=False),
            "error": lambda c: thing(c, str, type(None)),
            "data": bad_data,
        },
        run_id=None,
        status="success",
    ),
    "request_run": of_store("request_run", {**_ID, **_REQUEST}, job_id=None),
    "get_run_data": of_store("get_run_data", _RUN),
    "request_cancel": of_store("request_cancel", _RUN),
    "get_run": of_store("get_run", _RUN),
    "get_run_output": of_store("get_run_output", {**_RUN, "since": bad_whole(0, 2**62)}, run_id=None),
    "get_progress": of_store("get_progress", _RUN),
    "list_runs": of_store(
        "list_runs",
        {**_FILTERS, **_WORDS, "limit": LIMIT, "after": bad_text(MAX_NAME, none_is_bad=False)},
    ),
    "list_notifications": of_store(
        "list_notifications",
        {"status": lambda c: _status(c), "receiver": bad_text(MAX_NAME, none_is_bad=False), "limit": LIMIT},
    ),
    "retry_notification": of_store(
        "retry_notification", {"key": bad_text(MAX_NAME), "receiver": bad_text(MAX_NAME, none_is_bad=False)}, key="run:1"
    ),
    "count_runs": of_store("count_runs", {**_FILTERS, **_WORDS}),
    "run_stats": of_store("run_stats", _FILTERS),
    "run_now": Place({**_ID, **_REQUEST, "wait": bad_flag}, lambda w, **bad: w.scheduler.run_now(**{"job_id": w.job_id, **bad})),
    "cancel_run": Place(_RUN, lambda w, **bad: w.scheduler.cancel_run(**bad)),
    "explain": Place(
        {**_ID, "at": bad_instant()}, lambda w, **bad: w.scheduler.explain(**{"job_id": w.job_id, "at": AFTER, **bad})
    ),
    "events": Place({"capacity": LIMIT}, lambda w, **bad: w.scheduler.events(**bad)),
    "open_store": Place(
        {"store": bad_path, **_OPENING, "create": bad_flag},
        lambda w, **bad: enter(open_store(**{"store": w.folder / "b.db", **bad})),
    ),
    "open_scheduler": Place(
        {
            "store": bad_path,
            "executor": lambda c: bad_function(c),
            "notifier": bad_function,
            "on_finish": bad_function,
            "on_alert": bad_function,
            **_OPENING,
            "jobs": lambda c: thing(c, list, tuple, dict, set, frozenset, range, type(iter([]))),
            "tick_interval": bad_number(0.01, 3600),
            "shutdown_grace": bad_number(0, MAX_TIMEOUT, none_is_bad=False),
        },
        lambda w, **bad: enter(open_scheduler(**{"store": w.folder / "b.db", "executor": nothing, **bad})),
    ),
    "JobSpec": pure(JobSpec, SPEC, **GOOD),
    "JobResult": pure(JobResult, {"data": bad_data, "notify": bad_flag}),
    "CronConfig": pure(CronConfig, CONFIG),
    "RetryPolicy": pure(RetryPolicy, {"delays": bad_delays, "jitter": bad_number(0, 1)}),
    "Receiver": pure(
        lambda **given: Receiver(**{"function": nothing, **given}),
        {
            "function": bad_function,
            "retry": lambda c: thing(c),
            "attempts": bad_whole(1, 1_000),
            "timeout": bad_number(0.001, 86_400),
            "concurrency": bad_whole(1, 100),
        },
    ),
    "Misfire": pure(
        Misfire,
        {
            "window": lambda c: (
                thing(c, type(None), timedelta) if c.randrange(2) else AFTER - datetime(2027 + c.randrange(9), 1, 1, tzinfo=UTC)
            ),
            "coalesce": bad_member("latest", "earliest", "all"),
            "max_runs": bad_whole(1, 1_000),
        },
    ),
    "Retry": pure(Retry, {"after": lambda c: bad_number(0, float("inf"), none_is_bad=False)(c)}),
    "Cron": pure(Cron, {"expr": bad_expression}),
    "Interval": pure(Interval, {"every_ms": bad_whole(1, 36_525 * 86_400_000)}),
    "Interval.every": pure(Interval.every, {"hours": _EVERY, "minutes": _EVERY, "seconds": _EVERY, "ms": _EVERY}),
    "OneShot": pure(OneShot, {"at": bad_timestamp}),
    "CurrentRun.log": pure(FakeRun(None, None).log, {"line": lambda c: thing(c, str)}),
    "CurrentRun.report_progress": pure(
        FakeRun(None, None).report_progress,
        {"fraction": bad_number(0, 1, none_is_bad=False), "note": bad_text(MAX_NOTE, empty_is_bad=False)},
        fraction=None,
    ),
    "next_run": pure(next_run, _QUESTION, schedule=Cron("@daily"), after=AFTER),
    "fire_times": pure(
        lambda **given: list(islice(fire_times(**given), 2)),
        {**_QUESTION, "before": bad_instant(none_is_bad=False, any_year=True)},
        schedule=Cron("@daily"),
        after=AFTER,
    ),
    "preview": pure(preview, {**_QUESTION, "count": bad_whole(0, 10_000)}, schedule=Cron("@daily"), after=AFTER),
    "compare_fire_times": pure(
        compare_fire_times,
        {
            "old": lambda c: thing(c, Timetable),
            "new": lambda c: thing(c, Timetable),
            "since": bad_instant(any_year=True),
            "until": bad_instant(any_year=True),
            "limit": bad_whole(1, 100_000),
        },
        old=Timetable(Cron("@daily")),
        new=Timetable(Cron("@weekly")),
        since=AFTER,
        until=AFTER + timedelta(days=9),
    ),
    "lint": pure(
        lint,
        {
            "schedule": lambda c: thing(c),
            "timezone": bad_zone(none_is_bad=False),
            "after": bad_instant(none_is_bad=False, any_year=True),
        },
        schedule=Cron("@daily"),
    ),
    "schedule_from_dict": pure(schedule_from_dict, {"mapping": bad_mapping}),
    "schedule_to_dict": pure(schedule_to_dict, {"schedule": lambda c: thing(c)}),
    "load_config": pure(load_config, {"path": bad_text(MAX_PATH)}),
    "simulate": pure(
        simulate,
        {
            "start": lambda c: _moment(c),
            "end": lambda c: _moment(c),
            "specs": lambda c: thing(c, list, tuple, dict, set, frozenset, range, type(iter([]))),
            "notifier": bad_function,
            "on_finish": bad_function,
            "on_alert": bad_function,
        },
        specs=(),
        executor=nothing,
        start=AFTER,
        end=AFTER,
    ),
    "VirtualClock.set_wall": Place({"moment": lambda c: _moment(c)}, lambda _, **bad: VirtualClock().set_wall(**bad)),
}


def _status(chance: Chance) -> object:
    found = STATUS(chance)
    return 5 if found is None else found


def _moment(chance: Chance) -> object:
    return bad_timestamp(chance) if chance.randrange(2) else bad_instant()(chance)
