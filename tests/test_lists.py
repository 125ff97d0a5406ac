"""Lists of jobs: one-shots whose time has passed, defaults that jobs follow, mistakes that refuse a list as a whole."""

from __future__ import annotations

import logging
from contextlib import closing
from pathlib import Path

import pytest
import trio

from cronactors import CronConfig, InvalidSchedule, JobSpec, OneShot, RunStatus, open_scheduler, open_store
from cronactors.ledger.job_fields import Defaults
from cronactors.ledger.jobs import add_jobs
from cronactors.ledger.upsert import JobList, upsert_jobs
from cronactors.schedules.schedule import Cron
from cronactors.spec import Delay
from cronactors.testing import VirtualClock
from tests.ledger_world import (
    DAY,
    DEFAULTS,
    FAILURE,
    HOUR,
    HOURLY,
    KINDS,
    MINUTE,
    SECOND,
    T0,
    World,
    at,
)
from tests.workers import MINUTE as MINUTELY, Worker, after, facts, history

NINE = Cron("0 9 * * *")
ROME = Defaults(timezone="Europe/Rome", max_retries=3, timeout_secs=7200)  # one hour ahead of UTC at T0
LIST = "agent.toml"
SKIPPED_TIME = OneShot("2026-03-29 02:30")  # the clock of Rome is set forward over it


@pytest.fixture(params=KINDS)
def world(request):
    with closing(World(request.param)) as world:
        yield world


def count(world: World) -> int:
    return len(world.do(lambda storage: storage.list_jobs(after=0, limit=100, user_id=None)))


# One-shots whose time has passed


@pytest.mark.parametrize("delete", [False, True])
def test_a_one_shot_that_has_passed_is_added_as_done_and_the_others_run(world, delete):
    specs = world.spec(at(T0 - HOUR), name="late", delete_after_run=delete), world.spec(at(T0), name="now")
    done = world.upsert_list(*specs, origin=LIST, keeps_passed=True)
    late, now = done.ids
    assert done.passed == ["late"]
    assert (world.job(late).enabled, world.job(late).next_run_at) == (0, None)
    assert world.summary(late) == [("skipped", "misfire", -HOUR, 1, 1)]
    assert world.claim_one().job_id == now
    again = world.upsert_list(*specs, origin=LIST, keeps_passed=True)
    assert (again.ids, again.passed) == (done.ids, [])
    assert len(world.history(late)) == 1


def test_a_one_shot_of_the_last_minute_is_due_at_once(world):
    done = world.upsert_list(world.spec(at(T0 - MINUTE), name="a"), origin=LIST, keeps_passed=True)
    assert done.passed == []
    assert world.claim_one().scheduled_at == T0 - MINUTE


def test_a_done_one_shot_stays_done_and_an_edit_to_a_passed_time_is_recorded(world):
    spec = world.spec(at(T0), name="a")
    (job,) = world.upsert_list(spec, origin=LIST, keeps_passed=True).ids
    world.finish(world.claim_one())
    world.pass_time(DAY)
    assert world.upsert_list(spec, origin=LIST, keeps_passed=True).passed == []
    assert [row[0] for row in world.summary(job)] == ["success"]
    other = world.spec(at(T0 + HOUR), name="a")
    for passed in (["a"], []):
        assert world.upsert_list(other, origin=LIST, keeps_passed=True).passed == passed
        assert (world.job(job).enabled, world.job(job).next_run_at, world.claim()) == (0, None, [])
        assert [row[:3] for row in world.summary(job)] == [("success", None, 0), ("skipped", "misfire", HOUR)]
    back = world.upsert_list(spec, origin=LIST, keeps_passed=True)  # moved back, it has run
    assert back.passed == []
    assert len(world.history(job)) == 2


def test_a_waiting_one_shot_that_its_list_moves_into_the_past_is_recorded_as_skipped(world):
    (job,) = world.upsert_list(world.spec(at(T0 + HOUR), name="a"), origin=LIST, keeps_passed=True).ids
    world.pass_time(2 * HOUR)
    assert world.upsert_list(world.spec(at(T0), name="a"), origin=LIST, keeps_passed=True).passed == ["a"]
    assert world.job(job).enabled == 0
    assert sorted(row[:3] for row in world.summary(job)) == [("skipped", "misfire", 0), ("skipped", "replaced", HOUR)]


def test_a_run_and_its_retry_continue_when_their_one_shot_is_moved_into_the_past(world):
    (job,) = world.upsert_list(world.spec(at(T0), name="a"), origin=LIST, keeps_passed=True).ids
    run = world.claim_one()
    world.pass_time(HOUR)
    world.upsert_list(world.spec(at(T0 + MINUTE), name="a"), origin=LIST, keeps_passed=True)
    assert (world.job(job).enabled, world.job(job).held_by) == (1, run.id)
    world.finish(run, FAILURE)
    world.pass_time(MINUTE)
    world.finish(world.claim_one())
    assert (world.job(job).enabled, world.job(job).held_by) == (0, None)


def test_a_paused_one_shot_that_is_moved_into_the_past_is_done(world):
    (job,) = world.upsert_list(world.spec(at(T0 + DAY), name="a"), origin=LIST, keeps_passed=True).ids
    world.pause(job)
    world.upsert_list(world.spec(at(T0 - DAY), name="a"), origin=LIST, keeps_passed=True)
    assert (world.job(job).enabled, world.job(job).next_run_at) == (0, None)


def test_single_calls_refuse_a_one_shot_that_has_passed(world):
    late = world.spec(at(T0 - HOUR), name="late")
    with pytest.raises(InvalidSchedule, match="'late': .* in the past"):
        world.do(add_jobs, [late], DEFAULTS)
    with pytest.raises(InvalidSchedule, match="'late': .* in the past"):
        world.upsert(world.spec(), late)
    assert count(world) == 0


@pytest.mark.parametrize(
    "bad", [{"schedule": SKIPPED_TIME, "timezone": "Europe/Rome"}, {"schedule": Cron("* 2 * 3 L7"), "timezone": "Europe/Rome"}]
)
def test_any_other_mistake_refuses_the_whole_list_and_removes_nothing(world, bad):
    kept = world.upsert_list(world.spec(name="a"), world.spec(name="b"), origin=LIST, keeps_passed=True).ids
    with pytest.raises(InvalidSchedule, match="'bad'"):
        world.upsert_list(
            world.spec(name="c"), world.spec(at(T0 - HOUR)), world.spec(name="bad", **bad), origin=LIST, keeps_passed=True
        )
    assert [world.exists(job) for job in kept] == [True, True]
    assert count(world) == 2
    assert world.history() == []


async def test_lists_of_the_call_and_of_the_configuration_start_with_one_warning(
    virtual_clock: VirtualClock, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    old = OneShot("2025-01-01T00:00Z")
    config = CronConfig(
        jobs=(JobSpec("past", "it", old), JobSpec("older", "it", old), JobSpec("tick", "it", MINUTELY)), origin=LIST
    )
    worker = Worker()
    async with open_scheduler(tmp_path / "a.db", worker, config=config) as scheduler:
        await trio.sleep(90)
        runs = {run.job_name: facts(run)[:2] for run in await history(scheduler)}
        assert worker.names == ["tick"]
        assert runs["past"] == runs["older"] == (RunStatus.SKIPPED, "misfire")
    assert [(record.levelname, record.message) for record in caplog.records] == [
        ("WARNING", "2 one-shots have passed, recorded as skipped: past, older")
    ]
    caplog.clear()
    for warnings in (1, 0):
        async with open_scheduler(
            tmp_path / "a.db", worker, jobs=[JobSpec("call", "it", old), JobSpec("soon", "it", OneShot(after(200)))]
        ):
            pass
        assert len(caplog.records) == warnings
        caplog.clear()
    async with open_store(tmp_path / "a.db") as store:
        await store.upsert_jobs([JobSpec("kept elsewhere", "it", old)], origin="other")
        assert [record.levelname for record in caplog.records] == ["WARNING"]
        with pytest.raises(InvalidSchedule, match="in the past"):
            await store.upsert_jobs([JobSpec("strict", "it", old)])
        with pytest.raises(InvalidSchedule, match="in the past"):
            await store.upsert_job("strict", "it", old)


# Defaults that jobs follow


def test_a_new_default_zone_moves_only_moments_that_depend_on_it(world):
    specs = [
        world.spec(NINE, name="cron"),
        world.spec(HOURLY, name="interval"),
        world.spec(OneShot("2026-03-02 12:00"), name="local"),
        world.spec(at(T0 + DAY), name="offset"),
        world.spec(Delay(3600 * 24), name="delay"),
        world.spec(NINE, name="own", timezone="Asia/Tokyo"),
        world.spec(OneShot("2026-03-02 00:00"), name="done"),
    ]
    jobs = dict(zip([spec.name for _, spec in specs], world.upsert(*specs, origin=LIST), strict=True))
    world.finish(world.claim_one())
    world.pass_time(10 * MINUTE)
    before = {name: world.job(job) for name, job in jobs.items()}
    done = world.upsert_list(*specs, origin=LIST, defaults=ROME)
    assert (done.zone, done.retries, done.timeout) == (["cron", "interval", "local", "offset", "delay", "done"], [], [])
    rows = {name: world.job(job) for name, job in jobs.items()}
    assert {name for name in rows if rows[name].timezone == "Europe/Rome"} == set(jobs) - {"own"}
    assert (rows["cron"].next_run_at, rows["local"].next_run_at) == (T0 + 8 * HOUR, T0 + 11 * HOUR)
    assert rows["cron"].decided_local == (world.now + HOUR) // 1000
    for name in ("interval", "offset", "delay", "done"):
        assert rows[name] == before[name]._replace(timezone="Europe/Rome")
    assert rows["own"] == before["own"]
    assert [told[0] for told in world.summary(jobs["done"])] == ["success"]
    assert world.upsert_list(*specs, origin=LIST, defaults=ROME).zone == []


def test_moments_that_were_due_before_the_zone_changed_are_recorded(world):
    specs = world.spec(Cron("0 * * * *"), name="cron"), world.spec(OneShot("2026-03-02 06:00"), name="once")
    cron, once = world.upsert(*specs, origin=LIST)
    world.pass_time(3 * HOUR + MINUTE)
    world.upsert(*specs, origin=LIST, defaults=ROME)
    assert world.summary(cron) == [("skipped", "replaced", HOUR, 1, 3)]
    assert world.summary(once) == []
    assert world.job(once).next_run_at == T0 + 5 * HOUR
    world.pass_time(3 * HOUR)
    done = world.upsert_list(
        *specs, origin=LIST, keeps_passed=True, defaults=Defaults(timezone="Asia/Tokyo", max_retries=3, timeout_secs=7200)
    )
    assert done.passed == ["once"]  # 06:00 in Tokyo was yesterday
    assert world.summary(once) == [("skipped", "replaced", 5 * HOUR, 1, 1), ("skipped", "misfire", -3 * HOUR, 1, 1)]
    assert world.job(once).enabled == 0


def test_pending_runs_stay_pending_when_the_default_zone_changes(world):
    specs = (
        world.spec(NINE, name="retries"),
        world.spec(NINE, name="crashed"),
        world.spec(OneShot("2026-03-02 09:00"), name="once"),
    )
    retries, crashed, once = world.upsert(*specs, origin=LIST)
    world.pass_time(9 * HOUR)
    for each in world.claim():
        if each.run.job_id != crashed:
            world.finish(each.run, FAILURE)
    world.crash()
    world.upsert(*specs, origin=LIST, defaults=ROME)
    waiting = {run.job_id: run.trigger for run in world.history() if run.status == "pending"}
    assert waiting == {retries: "retry", crashed: "recovery", once: "retry"}
    world.pass_time(MINUTE)
    for each in world.claim():
        world.finish(each.run)
    assert all(row[0] != "cancelled" for job in (retries, crashed, once) for row in world.summary(job))
    assert world.job(once).enabled == 0
    assert world.job(retries).next_run_at == T0 + DAY + 8 * HOUR


def test_a_job_in_a_crash_loop_stays_held_when_the_default_zone_changes(world):
    spec = world.spec(Cron("* * * * *"), name="a")
    (job,) = world.upsert(spec, origin=LIST)
    world.pass_time(MINUTE)
    for _ in range(3):
        world.claim_one()
        world.crash()
    before = world.job(job)
    assert before.held_by is not None
    world.upsert(spec, origin=LIST, defaults=ROME)
    row = world.job(job)
    assert (row.held_by, row.crashes, row.timezone) == (before.held_by, 3, "Europe/Rome")


def test_a_zone_of_the_user_restarts_only_schedules_that_depend_on_it(world):
    job = world.add(HOURLY)
    world.pass_time(HOUR)
    world.finish(world.claim_one(), FAILURE)
    before = world.job(job)
    world.pass_time(SECOND)
    world.update(job, {"timezone": "Europe/Rome"})
    assert world.job(job) == before._replace(timezone="Europe/Rome")
    assert world.view(job).retry_at is not None
    (nine,) = world.upsert(world.spec(NINE, name="nine"), origin=LIST)
    world.pass_time(9 * HOUR - MINUTE)
    run = next(each.run for each in world.claim() if each.run.job_id == nine)
    world.finish(run, FAILURE)
    world.upsert(world.spec(NINE, name="nine", timezone="Europe/Rome"), origin=LIST)
    assert [row[:2] for row in world.summary(nine)] == [("failed", "error"), ("cancelled", "replaced")]


def test_new_default_retries_and_timeout_apply_to_pending_runs_too(world):
    specs = world.spec(HOURLY, name="a"), world.spec(HOURLY, name="own", max_retries=2, timeout_secs=5)
    a, own = world.upsert(*specs, origin=LIST)
    world.pass_time(HOUR)
    for each in world.claim():
        world.finish(each.run, FAILURE)
    before = world.job(a)
    done = world.upsert_list(*specs, origin=LIST, defaults=Defaults(timezone="UTC", max_retries=1, timeout_secs=60.5))
    assert (done.zone, done.retries, done.timeout) == ([], ["a"], ["a"])
    assert world.job(a) == before._replace(max_retries=1, timeout_secs=60.5)
    assert (world.job(own).max_retries, world.job(own).timeout_secs) == (2, 5)
    world.pass_time(30 * SECOND)
    (claimed,) = [each for each in world.claim() if each.job.id == a]
    assert claimed.job.timeout_secs == 60.5
    world.finish(claimed.run, FAILURE)
    assert [row[0] for row in world.summary(a)] == ["failed", "failed"]  # and no third attempt


def test_a_paused_job_follows_new_defaults_and_stays_paused(world):
    spec = world.spec(NINE, name="a")
    (job,) = world.upsert(spec, origin=LIST)
    world.pause(job)
    world.upsert(spec, origin=LIST, defaults=ROME)
    assert (world.job(job).enabled, world.job(job).timezone) == (0, "Europe/Rome")
    assert world.resume(job).next_run_at == T0 + 8 * HOUR


def test_a_call_without_an_origin_keeps_the_defaults_that_a_list_has_stored(world):
    spec = world.spec(NINE, name="a")
    (job,) = world.upsert(spec, origin=LIST, defaults=ROME)
    before = world.job(job)
    world.upsert(spec, defaults=Defaults(timezone="Asia/Tokyo", max_retries=0, timeout_secs=1))
    assert world.job(job) == before


async def test_the_start_logs_which_jobs_follow_new_defaults(
    virtual_clock: VirtualClock, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "cronactors.lists")
    jobs = tuple(JobSpec(f"job {number}", "it", NINE) for number in range(12))

    async def start(**settings: object) -> list[str]:
        caplog.clear()
        config = CronConfig(jobs=jobs, origin=LIST, **settings)  # type: ignore[arg-type]
        async with open_scheduler(tmp_path / "a.db", Worker(), config=config) as scheduler:
            assert {job.timezone for job in await scheduler.store.list_jobs()} == {config.timezone}
            return [record.message for record in caplog.records if record.name == "cronactors.lists"]

    names = ", ".join(f"job {number}" for number in range(10))
    assert await start() == []
    assert await start(timezone="Europe/Rome") == [f"timezone Europe/Rome now applies to 12 jobs: {names} and 2 more"]
    jobs = jobs[:1]
    assert await start(default_max_retries=0, default_timeout_secs=1.5) == [
        "timezone UTC now applies to 1 job: job 0",
        "default_max_retries 0 now applies to 1 job: job 0",
        "default_timeout_secs 1.5 now applies to 1 job: job 0",
    ]


# The list that a job belongs to


def test_a_job_named_in_two_lists_belongs_to_the_list_that_was_upserted_last(world):
    shared = world.spec(HOURLY, name="shared")
    (job,) = world.upsert(shared, origin="a")
    own = world.add(HOURLY, name="own")
    assert world.upsert(shared, world.spec(HOURLY, name="own"), origin="b") == [job, own]
    assert (world.job(job).origin, world.job(own).origin) == ("b", "b")
    world.upsert(origin="a")
    assert world.exists(job)
    world.upsert(shared)  # a call without an origin takes over no job
    assert world.job(job).origin == "b"


def test_a_list_takes_over_the_jobs_of_its_former_origins_only(world):
    def upsert(origin: str, file: str, *specs: object) -> list[str]:
        former = (file, f"/srv/{file}")
        return world.do(upsert_jobs, JobList(specs=specs, origin=origin, file=file, former=former), DEFAULTS).ids  # type: ignore[arg-type]

    specs = {name: world.spec(HOURLY, name=name) for name in ("kept", "dropped", "library")}
    kept, dropped = world.upsert(specs["kept"], specs["dropped"], origin="/srv/a.toml")
    (library,) = world.upsert(specs["library"], origin="b.toml")  # an origin that its program named
    assert upsert("a.toml", "a.toml", specs["kept"]) == [kept]
    assert (world.job(kept).origin, world.exists(dropped)) == ("a.toml", False)
    other = upsert("b", "b.toml", world.spec(HOURLY, name="other"))
    assert world.job(library).origin == "b.toml"
    assert upsert("named", "a.toml", specs["kept"], specs["dropped"])[0] == kept
    assert world.job(kept).origin == "named"
    assert world.exists(other[0])
    assert [(row.name, row.file, row.jobs) for row in world.do(lambda storage: storage.origins())] == [
        ("b", "b.toml", 1),
        ("b.toml", None, 1),
        ("named", "a.toml", 2),
    ]
