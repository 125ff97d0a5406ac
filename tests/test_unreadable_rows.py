"""A stored row that cannot be read never stops other jobs: wherever many rows are read it is shown, skipped or paused."""

from __future__ import annotations

import json
import logging
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
import trio

from cronactors import (
    CronConfig,
    CronRun,
    Interval,
    InvalidJob,
    InvalidSchedule,
    JobSpec,
    OneShot,
    Overlap,
    RunStatus,
    open_scheduler,
    open_store,
)
from cronactors.cli import listing
from cronactors.errors import AlreadyClaimed, JobBusy
from cronactors.ledger import clock_set_back, stored_values, views
from cronactors.ledger.cancel_other import cancel_overlapped
from cronactors.model import Coalesce
from cronactors.policy import misfire_from_text
from cronactors.schedules.schedule import Cron
from cronactors.spec import Delay
from cronactors.testing import VirtualClock
from tests.ledger_world import FAILURE, HOUR, HOURLY, INTERRUPTED, KINDS, MINUTE, SUCCESS, T0, World, at
from tests.workers import Worker, after

FAR = 1 << 62
SETTINGS = {
    "misfire": {"misfire": "{"},
    "misfire of another version": {"misfire": '{"coalesce": "some"}'},
    "misfire that is no table": {"misfire": "[1]"},
    "huge misfire": {"misfire": '{"window_ms": 1e400}'},
    "overlap": {"overlap": "sometimes"},
    "session mode": {"session_mode": "maim"},
    "next moment": {"next_run_at": -FAR},
}
SPOILT = {"schedule": {"schedule": '{"kind":"lunar"}'}, "zone": {"timezone": "Atlantis/Capital"}, **SETTINGS}
SHOWN = {**SPOILT, "next moment": {"next_run_at": FAR}, "added": {"created_at": FAR}, "last run": {"last_run_at": -FAR}}

spoilt = pytest.mark.parametrize("columns", SPOILT.values(), ids=SPOILT)
settings = pytest.mark.parametrize("columns", SETTINGS.values(), ids=SETTINGS)


@pytest.fixture(params=KINDS)
def world(request):
    with closing(World(request.param)) as world:
        yield world


@spoilt
def test_a_job_that_cannot_be_read_is_paused_when_its_moment_comes_and_others_run(world, columns):
    bad, good = world.add(Cron("* * * * *"), name="bad"), world.add()
    world.damage(bad, **columns)
    world.pass_time(MINUTE)
    assert [claimed.run.job_id for claimed in world.claim()] == [good]
    row = world.job(bad)
    assert row.enabled == 0
    assert "paused: its stored" in row.last_error
    assert "cannot be read" in world.view(bad).last_error
    assert all(abs(run.scheduled_at - T0) < HOUR for run in world.history(bad))


@spoilt
def test_it_can_be_removed_and_does_not_disturb_a_clock_that_is_set_back(world, columns):
    bad, good = world.add(Cron("* * * * *"), name="bad"), world.add(HOURLY)
    world.damage(bad, **columns)
    world.pass_time(MINUTE)
    assert {due.id for due in world.due()} == {bad}
    world.set_back(10 * MINUTE)
    assert world.job(good).next_run_at is not None
    world.pause(bad)
    world.remove(bad)
    assert not world.exists(bad)


@settings
@pytest.mark.parametrize("outcome", [SUCCESS, FAILURE, INTERRUPTED])
def test_a_run_finishes_although_its_job_has_become_unreadable(world, columns, outcome):
    bad = world.add(Cron("* * * * *"))
    world.pass_time(MINUTE)
    run = world.claim_one()
    world.damage(bad, **columns)
    world.pass_time(HOUR)
    assert world.finish(run, outcome) is not None
    world.claim()
    assert (world.job(bad).held_by, world.job(bad).enabled) == (None, 0)
    assert "cannot be read" in world.job(bad).last_error


@settings
def test_a_crash_of_its_run_is_found_and_so_are_those_of_others(world, columns):
    bad, good = world.add(), world.add()
    world.pass_time(MINUTE)
    world.claim()
    world.damage(bad, **columns)
    assert {run.job_id for run in world.crash()} == {bad, good}
    assert [claimed.run.job_id for claimed in world.claim()] == [good]
    assert [run.waits_for for run in world.history(bad) if run.status == "pending"] == ["pause"]


@settings
def test_a_requested_run_fails_with_the_reason(world, columns):
    bad, good = world.add(HOURLY), world.add(HOURLY)
    world.damage(bad, **columns)
    asked = world.request(bad)
    world.request(good)
    assert [claimed.run.job_id for claimed in world.claim()] == [good]
    run = world.run(asked)
    assert (run.status, run.cause) == ("failed", "gave_up")
    assert "cannot be read" in run.error


@settings
def test_a_job_that_cancels_its_runs(world, columns):
    bad = world.add(overlap=Overlap.CANCEL_OTHER)
    world.pass_time(MINUTE)
    world.claim_one()
    world.damage(bad, **{**columns, "overlap": "cancel_other"} if "overlap" not in columns else columns)
    world.pass_time(MINUTE)
    world.do(cancel_overlapped)
    assert not world.do(cancel_overlapped)
    assert world.job(bad).enabled == ("overlap" in columns)  # it cancels nothing, and its next claim pauses it


@settings
def test_an_own_loop_cannot_start_it(world, columns):
    bad = world.add()
    world.damage(bad, **columns)
    world.pass_time(MINUTE)
    with pytest.raises(JobBusy, match="cannot be read"):
        world.start(bad)


# Upserting


@spoilt
@pytest.mark.parametrize("origin", [None, "agent.toml"])
@pytest.mark.parametrize("schedule", [HOURLY, Cron("0 9 * * *"), at(T0)], ids=["interval", "cron", "done"])
def test_an_upsert_repairs_it_and_is_not_refused(world, columns, origin, schedule):
    bad, good = world.spec(schedule, name="bad"), world.spec(HOURLY, name="good")
    ids = world.upsert(bad, good, origin=origin)
    for each in world.claim():
        world.finish(each.run)
    world.pass_time(10 * MINUTE)
    world.damage(ids[0], **columns)
    new = world.spec(HOURLY, name="good", max_retries=9)
    assert world.upsert(bad, new, origin=origin) == ids
    assert world.job(ids[1]).max_retries == 9
    row = world.job(ids[0])
    timing = stored_values.timing_of(row)
    assert timing.schedule == schedule
    misfire_from_text(row.misfire)
    if "next_run_at" not in columns:
        assert views.faults_of_job(row) == []
    if isinstance(schedule, OneShot):
        assert world.claim() == []
        assert [told[0] for told in world.summary(ids[0])] == ["success"]


def test_a_delay_that_cannot_be_read_is_the_same_one_shot_again(world):
    spec = world.spec(Delay(60), name="a")
    (job,) = world.upsert(spec)
    before = world.job(job)
    world.damage(job, schedule="nonsense")
    world.pass_time(MINUTE // 2)
    assert world.upsert(spec) == [job]
    assert (world.job(job).schedule, world.job(job).next_run_at) == (before.schedule, before.next_run_at)


def test_a_stored_default_zone_that_cannot_be_read_is_replaced(world):
    (job,) = world.upsert(world.spec(HOURLY, name="a"))
    world.damage(job, timezone="Atlantis/Capital")
    world.upsert(world.spec(Cron("0 9 * * *"), name="a"))
    assert world.job(job).timezone == "UTC"


# Reading


@pytest.mark.parametrize("columns", SHOWN.values(), ids=SHOWN)
def test_a_job_that_cannot_be_read_is_shown_among_the_others(world, columns):
    bad, good = world.add(name="bad"), world.add(name="good")
    world.damage(bad, **columns)
    jobs = world.do(
        lambda storage: views.job_views(storage, (row for _, row in storage.list_jobs(after=0, limit=9, user_id=None)))
    )
    assert [job.name for job in jobs] == ["bad", "good"]
    assert "cannot be read" in (jobs[0].last_error or "")
    assert jobs[1] == world.view(good)
    listing.print_jobs(jobs)
    json.dumps([listing.job_as_json(job) for job in jobs])


def test_unreadable_times_are_not_taken_for_a_clock_that_was_ahead(world):
    bad = world.add()
    world.damage(bad, created_at=FAR, anchor_at=FAR)
    found = world.do(clock_set_back.latest_added_at)
    assert found is not None
    assert stored_values.is_time(found)


@pytest.mark.parametrize(
    "change",
    [
        "status = 'odd'",
        "\"trigger\" = 'odd'",
        "cause = 'odd'",
        f"scheduled_at = {FAR}",
        f"completed_at = -{FAR}",
        "started_at = 1 << 61",
    ],
)
async def test_a_run_that_cannot_be_read_is_shown_among_the_others_and_never_as_a_success(
    virtual_clock: VirtualClock, tmp_path: Path, change: str
) -> None:
    file = tmp_path / "a.db"
    async with open_scheduler(file, Worker()) as scheduler:
        await scheduler.store.add_job("job", "it", Interval(1000))
        await trio.sleep(3.5)
    spoil(file, f"UPDATE runs SET {change} WHERE id = 2")
    async with open_store(file) as store:
        runs = await store.list_runs()
        assert len(runs) == 3
        (bad,) = [run for run in runs if run.id == "2"]
        assert await store.get_run("2") == bad
    assert "cannot be read" in (bad.error or "")
    if change.startswith("status"):
        assert bad.status is RunStatus.FAILED
    assert {run.error for run in runs if run is not bad} == {None}
    listing.print_runs("job", "Atlantis/Capital", runs)
    json.dumps([listing.run_as_json(run) for run in runs])


def spoil(file: Path, *statements: str) -> None:
    with closing(sqlite3.connect(file)) as connection, connection:
        for statement in statements:
            assert connection.execute(statement).rowcount


SQL = [
    "UPDATE job_specs SET session_mode = 'maim'",
    "UPDATE jobs SET next_run_at = -9000000000000000000",
    "UPDATE jobs SET overlap = 'sometimes'",
    "UPDATE job_specs SET misfire = '{'",
    "UPDATE job_specs SET schedule = 'x'",
    "UPDATE job_specs SET timezone = 'Atlantis/Capital'",
    "UPDATE job_specs SET created_at = 1 << 62, anchor_at = 1 << 62",
    "UPDATE jobs SET last_run_at = 1 << 62",
]


@pytest.mark.parametrize("statement", SQL)
async def test_a_scheduler_starts_and_runs_the_others(
    virtual_clock: VirtualClock, tmp_path: Path, statement: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Covers all reads of a start, a tick, a run and its notification."""
    caplog.set_level(logging.ERROR)
    file = tmp_path / "a.db"
    async with open_store(file) as store:
        await store.add_jobs([JobSpec("bad", "it", Interval(1000)), JobSpec("good", "it", Interval(1000))])
    spoil(file, f"{statement} WHERE number = 1")
    worker = Worker()
    seen: list[CronRun] = []

    async def on_finish(_: object, run: CronRun) -> None:
        seen.append(run)

    config = CronConfig(jobs=(JobSpec("new", "it", OneShot(after(2))),), origin="list", max_concurrent_runs=2)
    async with open_scheduler(file, worker, config=config, on_finish=on_finish) as scheduler:
        ids = {job.name: job.id for job in await scheduler.store.list_jobs()}
        await trio.sleep(5.5)
        assert worker.names.count("good") == 5
        assert "new" in worker.names
        assert {run.job_name for run in seen} >= {"good", "new"}
        await scheduler.store.list_runs()
        (shown,) = [job for job in await scheduler.store.list_jobs() if job.name == "bad"]
        if "created_at" not in statement and "last_run_at" not in statement:
            assert (shown.enabled, "bad" in worker.names) == (False, False)
            assert "cannot be read" in (shown.last_error or "")
        await trio.sleep(0.5)
        if "schedule" in statement or "timezone" in statement:
            with pytest.raises(InvalidSchedule):
                await scheduler.explain(ids["bad"], after(3))
        elif "misfire" in statement:
            with pytest.raises(InvalidJob):
                await scheduler.explain(ids["bad"], after(3))
        assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


def test_an_unreadable_misfire_is_a_cron_error():
    for text in ("{", "[1]", "null", '{"x": 1}', '{"window_ms": "a"}', '{"window_ms": 1e999}', '{"coalesce": 5}', "[" * 100_000):
        with pytest.raises(InvalidJob, match="misfire .*"):
            misfire_from_text(text)
    assert misfire_from_text('{"coalesce": "all"}').coalesce is Coalesce.ALL


def test_an_own_loop_pauses_an_unreadable_job_again(world):
    job_id = world.add()
    world.damage(job_id, misfire="x")
    world.pass_time(MINUTE)
    for _ in range(2):
        with pytest.raises((AlreadyClaimed, JobBusy)):
            world.start(job_id)
        assert not world.job(job_id).enabled
        world.damage(job_id, enabled=1)  # as an edit of the file, with the same error in it


def test_a_run_without_a_moment_hides_no_other_run(world):
    """Its column is NOT NULL, but a flipped bit in the file may say otherwise."""
    world.add(HOURLY)
    world.pass_time(HOUR)
    world.finish(world.claim_one())
    (run,) = world.history()
    damaged = run._replace(scheduled_at=None)
    assert views.run_view(damaged).id == str(run.id)
    assert len(views.faults_of_run(damaged)) == 1
