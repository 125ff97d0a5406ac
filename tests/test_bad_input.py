"""Bad input to a store: a CronError of one line names field and value, and nothing is stored."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import attrs
import pytest
import trio
from hypothesis import given, settings, strategies as st

from cronactors import (
    Cron,
    CronError,
    CronScheduler,
    CronStore,
    DuplicateJob,
    Interval,
    InvalidJob,
    InvalidSchedule,
    JobContext,
    JobNotFound,
    JobSpec,
    OneShot,
    RunNotFound,
    RunStatus,
    SessionMode,
    open_scheduler,
    open_store,
)
from cronactors.errors import shorten
from cronactors.testing import VirtualClock, make_context
from tests.bad_input import BAD_FLAG, BAD_ID, BAD_LIMIT, BAD_TEXT, BAD_ZONE, LONE, NUL, SECRET, SPEC_FIELDS, cases, check

CHANGEABLE = set(SPEC_FIELDS) - {"user_id", "enabled"}


def dump(store: CronStore) -> list[str]:
    """Return all that is stored; on virtual time the storage has no thread of its own."""
    storage: Any = store._service.actor.storage
    return list(storage._db.iterdump())


async def nothing(context: JobContext) -> None:
    """An executor with nothing to do."""


async def refused(
    store: CronStore, call: Callable[[], Awaitable[object]], field: str, value: object, kind: type[CronError] = CronError
) -> None:
    before = dump(store)
    with pytest.raises(kind) as caught:
        await call()
    check(caught.value, field, value)
    assert dump(store) == before


# Jobs


def options(field: str, value: object) -> dict[str, Any]:
    return {"name": "new", "prompt": SECRET, "schedule": Interval(60_000), field: value}


@pytest.mark.parametrize(("field", "value"), cases(SPEC_FIELDS))
async def test_a_bad_field_of_a_new_job(virtual_clock: VirtualClock, field: str, value: object) -> None:
    given = options(field, value)
    with pytest.raises(InvalidJob) as caught:
        JobSpec(given.pop("name"), given.pop("prompt"), given.pop("schedule"), **given)
    check(caught.value, field, value)
    async with open_store(":memory:") as store:
        await store.add_job("old", "it", Cron("@daily"))
        await refused(store, lambda: store.add_job(**options(field, value)), field, value, InvalidJob)
        await refused(store, lambda: store.upsert_job(**options(field, value)), field, value, InvalidJob)


@pytest.mark.parametrize(
    ("field", "value"), cases({**{field: SPEC_FIELDS[field] for field in sorted(CHANGEABLE)}, "timezone": (None, *BAD_ZONE)})
)
async def test_a_bad_field_of_an_update(virtual_clock: VirtualClock, field: str, value: object) -> None:
    changes: dict[str, Any] = {field: value}
    async with open_store(":memory:") as store:
        job_id = await store.add_job("old", "it", Cron("@daily"))
        await refused(store, lambda: store.update_job(job_id, **changes), field, value, InvalidJob)
        mixed: dict[str, Any] = {"max_retries": 7, "prompt": "new", **changes}
        await refused(store, lambda: store.update_job(job_id, **mixed), field, value, InvalidJob)


@pytest.mark.parametrize("schedule", [OneShot("2020-01-01T00:00Z"), OneShot("2026-03-29 02:30"), Cron("0 0 1 1 *")])
async def test_a_schedule_that_never_fires_or_lies_in_the_past(virtual_clock: VirtualClock, schedule: Any) -> None:
    if isinstance(schedule, Cron):
        virtual_clock.set_wall("9996-12-30T00:00Z")
        schedule = OneShot("1999-01-01T00:00Z")
    async with open_store(":memory:", timezone="Europe/Rome") as store:
        job_id = await store.add_job("old", "it", Cron("@daily"))
        good = JobSpec("good", "it", Cron("@daily"))
        for call in (
            lambda: store.add_job("new", "it", schedule),
            lambda: store.add_jobs([good, JobSpec("new", "it", schedule)]),
            lambda: store.upsert_jobs([good, JobSpec("new", "it", schedule)]),
            lambda: store.upsert_job("old", "it", schedule),
            lambda: store.update_job(job_id, schedule=schedule, prompt="other"),
        ):
            await refused(store, call, schedule.at, schedule.at, InvalidSchedule)


async def test_an_unknown_field_is_named(virtual_clock: VirtualClock) -> None:
    unknown: dict[str, Any]
    async with open_store(":memory:") as store:
        job_id = await store.add_job("old", "it", Cron("@daily"))
        for key in ("colour", "max_retrys", "x" * 10_000, LONE):
            unknown = {key: 1}
            shown = key if key.isalpha() and len(key) < 20 else key[:1]
            await refused(store, lambda: store.add_job("new", "it", Cron("@daily"), **unknown), shown, "")  # noqa: B023
            await refused(store, lambda: store.upsert_job("new", "it", Cron("@daily"), **unknown), shown, "")  # noqa: B023
            await refused(store, lambda: store.update_job(job_id, **unknown), shown, "")  # noqa: B023
        for key in ("id", "user_id", "enabled", "next_run_at", "origin"):
            unknown = {key: "x"}
            await refused(store, lambda: store.update_job(job_id, **unknown), key, "")  # noqa: B023


async def test_names_that_exist_already_or_are_given_twice(virtual_clock: VirtualClock) -> None:
    async with open_store(":memory:") as store:
        await store.add_job("old", "it", Cron("@daily"))
        other = await store.add_job("other", "it", Cron("@daily"))
        old, new = (JobSpec(name, "it", Cron("@daily")) for name in ("old", "new"))
        for call, name in (
            (lambda: store.add_job("old", "it", Cron("@daily")), "old"),
            (lambda: store.add_jobs([new, old]), "old"),
            (lambda: store.add_jobs([new, new]), "new"),
            (lambda: store.upsert_jobs([new, new]), "new"),
            (lambda: store.update_job(other, name="old", prompt="changed"), "old"),
        ):
            await refused(store, call, f"'{name}'", "", DuplicateJob)


async def test_values_that_are_not_lists_of_specifications(virtual_clock: VirtualClock) -> None:
    good = JobSpec("new", "it", Cron("@daily"))
    junk: Any
    async with open_store(":memory:") as store:
        for junk in (None, 5, "text", b"x", good):
            for call in (store.add_jobs, store.upsert_jobs):
                await refused(store, lambda: call(junk), "specs", junk, InvalidJob)  # noqa: B023
        for junk in (None, "text", ("new", "it"), {}):
            for call in (store.add_jobs, store.upsert_jobs):
                await refused(store, lambda: call([good, junk]), "specs[1]", "", InvalidJob)  # noqa: B023
        many = [attrs.evolve(good, name=f"job {n}") for n in range(10_001)]
        for call in (store.add_jobs, store.upsert_jobs):
            await refused(store, lambda: call(many), "10,001", "", InvalidJob)  # noqa: B023
        for junk in (*BAD_TEXT[1:], "x" * 5_000):
            await refused(store, lambda: store.upsert_jobs([good], origin=junk), "origin", junk, InvalidJob)  # noqa: B023


# Ids, limits and the rest of the handle

ID_CALLS: Mapping[str, tuple[str, Callable[[CronScheduler, Any], Awaitable[object]]]] = {
    "get_job": ("job_id", lambda scheduler, junk: scheduler.store.get_job(junk)),
    "update_job": ("job_id", lambda scheduler, junk: scheduler.store.update_job(junk, prompt="new")),
    "pause_job": ("job_id", lambda scheduler, junk: scheduler.store.pause_job(junk)),
    "resume_job": ("job_id", lambda scheduler, junk: scheduler.store.resume_job(junk)),
    "remove_job": ("job_id", lambda scheduler, junk: scheduler.store.remove_job(junk)),
    "request_run": ("job_id", lambda scheduler, junk: scheduler.store.request_run(junk)),
    "run_now": ("job_id", lambda scheduler, junk: scheduler.run_now(junk)),
    "record_run_start": ("job", lambda scheduler, junk: scheduler.store.record_run_start(junk)),
    "get_job_by_name": ("name", lambda scheduler, junk: scheduler.store.get_job_by_name(junk)),
    "remove_job_by_name": ("name", lambda scheduler, junk: scheduler.store.remove_job_by_name(junk)),
    "get_run": ("run_id", lambda scheduler, junk: scheduler.store.get_run(junk)),
    "get_run_data": ("run_id", lambda scheduler, junk: scheduler.store.get_run_data(junk)),
    "request_cancel": ("run_id", lambda scheduler, junk: scheduler.store.request_cancel(junk)),
    "cancel_run": ("run_id", lambda scheduler, junk: scheduler.cancel_run(junk)),
    "record_run_complete": ("run_id", lambda scheduler, junk: scheduler.store.record_run_complete(junk, RunStatus.SUCCESS)),
}


@pytest.mark.parametrize("name", ID_CALLS)
async def test_bad_and_unknown_ids(virtual_clock: VirtualClock, name: str) -> None:
    field, call = ID_CALLS[name]
    async with open_scheduler(":memory:", nothing) as scheduler:
        store = scheduler.store
        await store.add_job("old", "it", Cron("@daily"))
        with suppress(JobNotFound):
            await store.record_run_start("registers the handle")
        for junk in BAD_ID:
            await refused(store, lambda: call(scheduler, junk), field, junk, InvalidJob)  # noqa: B023
        if name != "get_job_by_name":
            for missing in ("nobody", "0", "-1", "9" * 30, "\uff11", "²", " 1", "1.0"):
                kind = RunNotFound if field == "run_id" else JobNotFound
                await refused(store, lambda: call(scheduler, missing), shorten(missing), "", kind)  # noqa: B023


BAD_TIME = (5, "now", True, datetime(2026, 1, 1), datetime(1969, 1, 1, tzinfo=UTC), datetime(9998, 1, 1, tzinfo=UTC))
BAD_STATUS = (5, "", "done", [], "SUCCESS", [RunStatus.FAILED])
BAD_FILTERS = {
    "job_id": BAD_ID[1:],
    "tag": BAD_ID[1:],
    "user_id": SPEC_FIELDS["user_id"],
    "since": BAD_TIME,
    "until": BAD_TIME,
}
KEYWORD_CALLS: Mapping[str, tuple[Callable[..., Awaitable[object]], Mapping[str, Sequence[object]]]] = {
    "get_job_by_name": (lambda store, **junk: store.get_job_by_name("old", **junk), {"user_id": SPEC_FIELDS["user_id"]}),
    "remove_job_by_name": (lambda store, **junk: store.remove_job_by_name("old", **junk), {"user_id": SPEC_FIELDS["user_id"]}),
    "list_jobs": (
        lambda store, **junk: store.list_jobs(**junk),
        {
            "user_id": SPEC_FIELDS["user_id"],
            "tag": (5, b"x", True, [], "", NUL, LONE, "x" * 101, " x"),
            "enabled": BAD_FLAG[1:],
        },
    ),
    "request_run": (
        lambda store, **junk: store.request_run("no such id", **junk),
        {"key": (5, b"x", True, [], "", NUL, LONE, "x" * 201), "data": SPEC_FIELDS["data"]},
    ),
    "get_run_data": (lambda store, **junk: store.get_run_data(**junk), {"run_id": BAD_ID}),
    "get_due_jobs": (lambda store, **junk: store.get_due_jobs(**junk), {"limit": BAD_LIMIT}),
    "get_retry_jobs": (lambda store, **junk: store.get_retry_jobs(**junk), {"limit": BAD_LIMIT}),
    "list_runs": (
        lambda store, **junk: store.list_runs(**junk),
        {
            **BAD_FILTERS,
            "limit": (None, *BAD_LIMIT),
            "status": BAD_STATUS,
            "cause": (5, "", "bored", []),
            "trigger": (5, "", "finger", []),
            "after": (*BAD_ID[1:], "x", "-1", "1.5", "²", "1" * 19),
        },
    ),
    "count_runs": (lambda store, **junk: store.count_runs(**junk), {**BAD_FILTERS, "status": BAD_STATUS}),
    "run_stats": (lambda store, **junk: store.run_stats(**junk), BAD_FILTERS),
    "record_run_complete": (
        lambda store, **junk: store.record_run_complete("1", **{"status": RunStatus.SUCCESS, **junk}),
        {
            "status": (None, 5, "", "done", [], RunStatus.PENDING, RunStatus.RUNNING, RunStatus.SKIPPED),
            "result": (5, b"x", []),
            "error": (5, b"x", []),
            "session_id": (5, b"x", [], NUL, LONE, "x" * 201),
            "data": SPEC_FIELDS["data"],
        },
    ),
}


@pytest.mark.parametrize("name", KEYWORD_CALLS)
async def test_bad_keywords_of_the_handle(virtual_clock: VirtualClock, name: str) -> None:
    call, fields = KEYWORD_CALLS[name]
    async with open_store(":memory:") as store:
        assert await store.record_run_start(await store.add_job("old", "it", Cron("@daily"))) == "1"
        for field, values in fields.items():
            for junk in values:
                await refused(store, lambda: call(store, **{field: junk}), field, junk, InvalidJob)  # noqa: B023


@pytest.mark.parametrize(
    "changes", [{"id": LONE}, {"next_run_at": datetime(2026, 1, 2)}, {"next_run_at": "now"}], ids=["id", "naive", "text"]
)
async def test_a_job_made_by_hand_is_refused(virtual_clock: VirtualClock, changes: dict[str, Any]) -> None:
    async with open_store(":memory:") as store:
        job = await store.get_job(await store.add_job("old", "it", Interval(1000)))
        await trio.sleep(1.5)
        with pytest.raises(CronError):
            await store.record_run_start(attrs.evolve(job, **changes))
        assert await store.list_runs() == []


# Arbitrary values

ANY_TEXT = st.text(st.characters(exclude_categories=()), max_size=20)
ANYTHING = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    ANY_TEXT,
    st.sampled_from(["old", "1", "UTC", "Europe/Rome", "main", "skip", "success", *SessionMode, *RunStatus]),
    st.binary(max_size=5),
    st.lists(st.integers(), max_size=2),
    st.datetimes(),
    st.builds(Interval, st.integers(1, 10**9)),
    st.sampled_from([Cron("@daily"), OneShot("2026-06-01T00:00Z"), OneShot("2020-06-01T00:00Z"), make_context(), Cron]),
)
OPTIONS = st.dictionaries(st.sampled_from([*SPEC_FIELDS, "colour"]), ANYTHING, max_size=3)
FILTERS = ["user_id", "status", "job_id", "cause", "trigger", "tag", "since", "until"]
KEYWORDS = st.dictionaries(st.sampled_from([*FILTERS, "limit", "after"]), ANYTHING, max_size=2)
CALLS: Mapping[str, st.SearchStrategy[tuple[tuple[Any, ...], dict[str, Any]]]] = {
    **{name: st.tuples(st.tuples(), OPTIONS) for name in ("add_job", "upsert_job")},
    "update_job": st.tuples(st.tuples(st.just("old") | ANYTHING), OPTIONS),
    **{
        name: st.tuples(st.tuples(st.lists(ANYTHING, max_size=2) | ANYTHING), st.just({})) for name in ("add_jobs", "upsert_jobs")
    },
    **{
        name: st.tuples(st.tuples(st.just("old") | ANYTHING), st.just({}))
        for name in ("get_job", "pause_job", "resume_job", "remove_job", "request_cancel", "get_run")
    },
    "request_run": st.tuples(
        st.tuples(st.just("old") | ANYTHING), st.fixed_dictionaries({}, optional={"data": ANYTHING, "key": ANYTHING})
    ),
    "record_run_start": st.tuples(st.tuples(ANYTHING), st.just({})),
    "get_job_by_name": st.tuples(st.tuples(ANYTHING), st.fixed_dictionaries({}, optional={"user_id": ANYTHING})),
    "list_runs": st.tuples(st.tuples(), KEYWORDS),
    "list_jobs": st.tuples(
        st.tuples(), st.fixed_dictionaries({}, optional={"user_id": ANYTHING, "tag": ANYTHING, "enabled": ANYTHING})
    ),
    "count_runs": st.tuples(st.tuples(), st.dictionaries(st.sampled_from(FILTERS), ANYTHING, max_size=2)),
    "explain": st.tuples(st.tuples(st.just("old") | ANYTHING, ANYTHING | st.datetimes(timezones=st.just(UTC))), st.just({})),
    "get_due_jobs": st.tuples(st.tuples(), st.fixed_dictionaries({}, optional={"limit": ANYTHING})),
    "record_run_complete": st.tuples(
        st.tuples(ANYTHING, ANYTHING, ANYTHING), st.fixed_dictionaries({}, optional={"error": ANYTHING, "session_id": ANYTHING})
    ),
}
CALL = st.sampled_from(sorted(CALLS)).flatmap(lambda name: st.tuples(st.just(name), CALLS[name]))
DEFAULTS: dict[str, Any] = {"name": "new", "prompt": "it", "schedule": Cron("@daily")}


@settings(max_examples=300, deadline=None)
@given(st.lists(CALL, min_size=1, max_size=5))
def test_any_arguments_raise_only_cron_errors(calls: list[Any]) -> None:
    async def main() -> None:
        async with open_store(":memory:") as store:
            ids = {"old": await store.add_job("old", "it", Cron("@daily"))}
            await store.record_run_start(ids["old"])
            for name, (args, keywords) in calls:
                args = tuple(ids.get(arg, arg) if isinstance(arg, str) else arg for arg in args)  # noqa: PLW2901
                given = {**DEFAULTS, **keywords} if name in ("add_job", "upsert_job") else keywords
                before = dump(store)
                error: CronError | None = None
                try:
                    await getattr(store, name)(*args, **given)
                except CronError as refusal:
                    error = refusal
                assert error is None or (str(error).isprintable() and 0 < len(str(error)) <= 500)
                assert error is None or dump(store) == before
            await store.list_jobs()

    trio.run(main, clock=VirtualClock())
