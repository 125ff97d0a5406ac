"""Next moments that older zone rules have computed: each day of a job runs once, whichever way the rules move its clock."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from pathlib import Path

import pytest
import trio
from hypothesis import given, strategies as st

import cronactors
from cronactors import Cron, Interval, OneShot, open_scheduler, open_store
from cronactors.actors import recompute
from cronactors.instants import Millis, from_millis, to_millis
from cronactors.ledger import cancel_other, claim_together, jobs, zone_changes
from cronactors.schedules import clock_changes, fire_times, zone_rules
from cronactors.schedules.zone_rules import is_older
from cronactors.testing import VirtualClock
from tests.ledger_world import DAY, HOUR, KINDS, MINUTE, SUCCESS, T0, World

ZONE = "Africa/Casablanca"
OLD, NEW = "2025b/1", "2026f/1"


@contextmanager
def world_rules(release: str, *hours: float, change: Millis = 0) -> Iterator[None]:
    """Give a zone one offset, or two with a change between them, and clear all caches of other rules."""
    before, *after = [timezone(timedelta(hours=each)) for each in hours]

    class Zone(tzinfo):
        def utcoffset(self, moment: datetime | None) -> timedelta:
            raise NotImplementedError

        def fromutc(self, moment: datetime) -> datetime:
            instant = to_millis(moment.replace(tzinfo=UTC))
            offset = after[0] if after and instant >= change else before
            return moment.replace(tzinfo=UTC).astimezone(offset)

    real = clock_changes.load_zone
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(clock_changes, "load_zone", lambda zone: Zone() if zone == ZONE else real(zone))
        for module in (zone_rules, claim_together, jobs, zone_changes, recompute):
            patch.setattr(module, "RULES", release)
        _forget()
        yield
    _forget()


def _forget() -> None:
    for cached in (clock_changes._block, fire_times._next_of_cron, fire_times._latest_of_cron):
        cached.cache_clear()


@pytest.fixture(autouse=True)
def compares_with_the_rules_of_the_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    """`is_older` compares with the rules that the process has; here they change."""
    for module in (zone_changes, recompute):
        monkeypatch.setattr(
            module, "is_older", lambda rules, than=None: is_older(rules, zone_changes.RULES if than is None else than)
        )


def start(world: World) -> int:
    """Do what a scheduler does at its start; return how many next moments have moved."""
    world.do(zone_changes.note_rules)
    after: int | None = 0
    total = 0
    while after is not None:
        after, ids = world.do(zone_changes.find_older, after=after, limit=2)
        total += world.do(zone_changes.recompute, ids)
    world.do(zone_changes.mark_recomputed)
    return total


def runs(world: World, job_id: str) -> list[Millis]:
    return [run.scheduled_at - T0 for run in world.history(job_id)]


def run_due(world: World) -> None:
    for each in world.claim():
        world.finish(each.run, SUCCESS)


# T0 is 2026-03-02T00:00Z.


def test_a_daily_job_that_has_run_today_does_not_run_again_today(world: World) -> None:
    with world_rules(OLD, 1):
        start(world)
        job_id = world.add(Cron("0 9 * * *"), timezone=ZONE)
        world.now = T0 + 8 * HOUR
        run_due(world)
        assert runs(world, job_id) == [8 * HOUR]
    with world_rules(NEW, 0):
        world.now += 30 * MINUTE
        assert start(world) == 1
        assert world.job(job_id).next_run_at == T0 + DAY + 9 * HOUR
        assert world.job(job_id).rules == NEW
        world.now = T0 + 10 * HOUR
        assert world.claim() == []
        world.now = T0 + DAY + 9 * HOUR
        run_due(world)
        assert runs(world, job_id) == [8 * HOUR, DAY + 9 * HOUR]


def test_a_daily_moment_that_has_passed_by_the_new_rules_runs_at_once(world: World) -> None:
    with world_rules(OLD, 0):
        start(world)
        job_id = world.add(Cron("0 9 * * *"), timezone=ZONE)
    with world_rules(NEW, 1):
        world.now = T0 + 8 * HOUR + 30 * MINUTE  # half past nine on the new clock
        assert start(world) == 1
        run_due(world)
        assert runs(world, job_id) == [8 * HOUR]
        assert world.job(job_id).next_run_at == T0 + DAY + 8 * HOUR


def test_a_moment_that_was_due_before_the_change_stays_due(world: World) -> None:
    with world_rules(OLD, 1):
        start(world)
        job_id = world.add(Cron("0 9 * * *"), timezone=ZONE)
    with world_rules(NEW, 0):
        world.now = T0 + 8 * HOUR + 30 * MINUTE
        assert start(world) == 0
        run_due(world)
        assert runs(world, job_id) == [8 * HOUR]
        assert world.job(job_id).next_run_at == T0 + DAY + 9 * HOUR


def test_a_job_that_comes_due_before_its_page_is_brought_up_to_date_first(world: World) -> None:
    with world_rules(OLD, 1):
        start(world)
        job_id = world.add(Cron("0 9 * * *"), timezone=ZONE)
        other = world.add(Cron("0 9 * * *"), timezone=ZONE, overlap="cancel_other")
    with world_rules(NEW, 0):
        world.now = T0 + 7 * HOUR
        world.do(zone_changes.note_rules)
        world.now = T0 + 8 * HOUR
        assert world.claim() == []
        world.do(cancel_other.cancel_overlapped)
        assert [world.job(each).next_run_at for each in (job_id, other)] == [T0 + 9 * HOUR] * 2
        world.now = T0 + 9 * HOUR
        assert len(world.claim()) == 2


def test_a_yearly_job_and_a_local_one_shot_move_and_other_jobs_do_not(world: World) -> None:
    july = to_millis(datetime(2027, 7, 1, 9, tzinfo=UTC))
    with world_rules(OLD, 1):
        start(world)
        yearly = world.add(Cron("0 9 1 7 *"), timezone=ZONE)
        local = world.add(OneShot("2027-07-01 09:00"), timezone=ZONE)
        fixed = world.add(OneShot("2027-07-01T09:00Z"), timezone=ZONE)
        interval = world.add(Interval(7 * HOUR), timezone=ZONE)
        unchanged = [world.job(each).next_run_at for each in (fixed, interval)]
    with world_rules(NEW, 0):
        world.now += HOUR
        assert start(world) == 2
        assert world.job(yearly).next_run_at == to_millis(datetime(2026, 7, 1, 9, tzinfo=UTC))
        assert world.job(local).next_run_at == july
        assert [world.job(each).next_run_at for each in (fixed, interval)] == unchanged
        assert {world.job(each).rules for each in (yearly, local, fixed, interval)} == {NEW}
        assert start(world) == 0


def test_a_process_with_older_rules_changes_nothing(world: World) -> None:
    with world_rules(NEW, 0):
        start(world)
        job_id = world.add(Cron("0 9 * * *"), timezone=ZONE)
    with world_rules(OLD, 1):
        assert start(world) == 0
        assert world.do(zone_changes.note_rules).rules == NEW
        assert (world.job(job_id).next_run_at, world.job(job_id).rules) == (T0 + 9 * HOUR, NEW)


def test_a_moment_that_older_rules_computed_meanwhile_is_recomputed_by_the_next_start(world: World) -> None:
    with world_rules(NEW, 0):
        start(world)
        job_id = world.add(Cron("0 9 * * *"), timezone=ZONE)
        assert world.do(zone_changes.note_rules).done
    with world_rules(OLD, 1):
        start(world)
        world.now = T0 + 9 * HOUR
        run_due(world)
        assert (world.job(job_id).next_run_at, world.job(job_id).rules) == (T0 + DAY + 8 * HOUR, OLD)
    with world_rules(NEW, 0):
        assert start(world) == 1
        assert (world.job(job_id).next_run_at, world.job(job_id).rules) == (T0 + DAY + 9 * HOUR, NEW)
        assert world.do(zone_changes.note_rules).done


def test_a_job_of_a_file_without_rules_moves_to_the_nearest_moment(world: World) -> None:
    with world_rules("", 1):
        job_id = world.add(Cron("0 9 * * *"), timezone=ZONE)
        world.now = T0 + 8 * HOUR
        run_due(world)
        world.damage(job_id, decided_local=None, rules="")
    with world_rules(NEW, 0):
        world.now += MINUTE
        assert start(world) == 1
        assert world.job(job_id).next_run_at == T0 + DAY + 9 * HOUR


def test_a_job_that_cannot_be_read_is_left_alone_and_stops_no_other_job(world: World) -> None:
    with world_rules(OLD, 1):
        start(world)
        broken = world.add(Cron("0 9 * * *"), timezone=ZONE)
        job_id = world.add(Cron("0 9 * * *"), timezone=ZONE)
        world.damage(broken, schedule="{}")
    with world_rules(NEW, 0):
        assert start(world) == 1
        assert world.job(broken).rules == OLD
        assert world.job(job_id).next_run_at == T0 + 9 * HOUR


def test_a_step_of_minutes_follows_the_local_clock(world: World) -> None:
    with world_rules(OLD, 1):
        start(world)
        job_id = world.add(Cron("*/15 * * * *"), timezone=ZONE)
        world.now = T0 + 5 * MINUTE
    with world_rules(NEW, 0):
        start(world)
        assert world.job(job_id).next_run_at == T0 + 15 * MINUTE


@pytest.mark.parametrize("expr", ["*/15 * * * *", "0 * * * *"])
def test_no_moment_with_a_step_is_lost_that_comes_due_before_its_page(world: World, expr: str) -> None:
    with world_rules(OLD, 1):
        start(world)
        job_id = world.add(Cron(expr), timezone=ZONE)
        first = world.job(job_id).next_run_at
        assert first is not None
    with world_rules(NEW, 0):
        world.do(zone_changes.note_rules)
        world.now = first
        run_due(world)
        assert runs(world, job_id) == [first - T0]


def test_no_moment_with_a_step_is_lost_by_a_start_that_was_interrupted(world: World) -> None:
    with world_rules(OLD, 1):
        start(world)
        job_id = world.add(Cron("*/15 * * * *"), timezone=ZONE)
    with world_rules(NEW, 0):
        world.do(zone_changes.note_rules)
        world.now = T0 + HOUR + MINUTE
        start(world)
        run_due(world)
        (row,) = world.history(job_id)
        assert (row.coalesced, row.range_at, row.scheduled_at) == (4, T0 + 15 * MINUTE, T0 + HOUR)


def test_processes_with_older_and_newer_rules_side_by_side_run_each_moment_with_a_step(world: World) -> None:
    with world_rules(NEW, 0):
        start(world)
        job_id = world.add(Cron("*/15 * * * *"), timezone=ZONE)
    for quarter in range(1, 9):
        world.now = T0 + quarter * 15 * MINUTE
        with world_rules(*((OLD, 1) if quarter % 2 else (NEW, 0))):
            run_due(world)
    assert runs(world, job_id) == [quarter * 15 * MINUTE for quarter in range(1, 9)]


def test_a_job_that_a_process_with_older_rules_adds_is_recomputed_by_the_next_start(world: World) -> None:
    with world_rules(NEW, 1):
        start(world)
    with world_rules(OLD, 0):
        job_id = world.add(Cron("0 9 * * *"), timezone=ZONE)
        assert world.job(job_id).next_run_at == T0 + 9 * HOUR
    with world_rules(NEW, 1):
        assert start(world) == 1
        assert world.job(job_id).next_run_at == T0 + 8 * HOUR


@pytest.mark.parametrize(
    "spoilt", [{"decided_local": 10**17}, {"decided_local": None, "next_run_at": 2**62}, {"timezone": "No/Where"}]
)
def test_a_row_with_a_number_that_is_no_time_stops_no_other_job(world: World, spoilt: dict[str, object]) -> None:
    with world_rules(OLD, 1):
        start(world)
        broken = world.add(Cron("0 9 * * *"), timezone=ZONE)
        job_id = world.add(Cron("0 9 * * *"), timezone=ZONE)
        world.damage(broken, **spoilt)
    with world_rules(NEW, 0):
        start(world)
        assert world.job(job_id).next_run_at == T0 + 9 * HOUR


@pytest.mark.parametrize(
    "text", ["{}", "[]", "17", "nothing", '{"rules": "2026a/1", "since": 1, "done": true, "before": null, "more": 1}']
)
def test_a_fact_of_another_shape_is_written_again(world: World, text: str) -> None:
    world.add(Cron("0 9 * * *"), timezone=ZONE)
    world.do(lambda storage: storage.set_meta("rules", text))
    with world_rules(NEW, 0):
        assert world.do(zone_changes.note_rules) == zone_changes.RulesOfStore(NEW, T0, done=False, before=None)


def test_a_new_store_has_nothing_to_recompute(world: World) -> None:
    with world_rules(NEW, 0):
        assert world.do(zone_changes.note_rules) == zone_changes.RulesOfStore(NEW, T0, done=True, before=None)


def test_who_adds_the_first_job_of_a_store_leaves_nothing_to_recompute(world: World) -> None:
    with world_rules(NEW, 0):
        world.add(Cron("0 9 * * *"), timezone=ZONE)
        assert world.do(zone_changes.note_rules).done
        assert world.do(zone_changes.find_older, after=0, limit=1) == (None, [])


def test_a_walk_ends_once_another_process_has_done_the_rest(world: World) -> None:
    with world_rules(OLD, 1):
        first, second = (world.add(Cron("0 9 * * *"), timezone=ZONE) for _ in range(2))
    with world_rules(NEW, 0):
        world.do(zone_changes.note_rules)
        after, ids = world.do(zone_changes.find_older, after=0, limit=1)
        assert (after is not None, ids) == (True, [first])
        assert world.do(zone_changes.recompute, [first]) == 1
        assert world.do(zone_changes.recompute, [first, second]) == 1  # the first is up to date already
        world.do(zone_changes.mark_recomputed)
        assert world.do(zone_changes.find_older, after=after, limit=1) == (None, [])


offsets = st.sampled_from([-1, -0.5, 0, 0.5, 1, 2])
times_of_day = st.sampled_from(
    ["0 9 * * *", "30 2 * * *", "0 9,10 * * *", "0 0 * * *", "59 23 * * *", "0 */2 * * *", "15 9-11 * * 1-5"]
)


@given(expr=times_of_day, old=offsets, new=offsets, restart=st.integers(0, 4 * DAY // MINUTE))
def test_the_change_itself_neither_repeats_nor_loses_a_local_time(expr: str, old: float, new: float, restart: int) -> None:
    world = World(KINDS[1])  # in dicts: nothing to close
    local: list[tuple[int, int]] = []

    def work(until: Millis, offset: float) -> None:
        while (due := world.do(lambda s: s.next_times().due)) is not None and due <= until:
            world.now = max(world.now, due)
            for each in world.claim():
                world.finish(each.run, SUCCESS)
                local.append((each.run.scheduled_at, each.run.scheduled_at + int(offset * HOUR)))
        world.now = until

    with world_rules(OLD, old):
        start(world)
        job_id = world.add(Cron(expr), timezone=ZONE)
        begin = T0 + int(old * HOUR)
        work(T0 + restart * MINUTE, old)
    with world_rules(NEW, new):
        start(world)
        work(T0 + 8 * DAY, new)
        end = T0 + 8 * DAY + int(new * HOUR)
    with world_rules("", 0):
        wanted = list(map(to_millis, cronactors.fire_times(Cron(expr), after=from_millis(begin), before=from_millis(end + 1))))
    ran = [wall for _, wall in local]
    assert len(ran) == len(set(ran)), "a local time ran twice"
    assert set(ran) <= set(wanted)
    # Of several that have passed at once one runs; an instant that has run as one local time does not run as another.
    again = {moment for moment, _ in local} & {moment - int(new * HOUR) for moment in set(wanted) - set(ran)}
    assert sum(run.coalesced for run in world.history(job_id)) + len(again) == len(wanted)


async def test_a_scheduler_recomputes_stored_moments_and_logs_how_many_moved(
    virtual_clock: VirtualClock, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    virtual_clock.set_wall(from_millis(T0))
    seen: list[datetime] = []

    async def executor(context: cronactors.JobContext) -> None:
        seen.append(cronactors.now())

    file = tmp_path / "agent.db"
    with world_rules(OLD, 1):
        async with open_scheduler(file, executor) as scheduler:
            await scheduler.store.add_job("greet", "Greet", Cron("0 9 * * *"), timezone=ZONE)
            await trio.sleep(8.5 * 3600)
    with caplog.at_level(logging.WARNING), world_rules(NEW, 0):
        async with open_scheduler(file, executor) as scheduler:
            await trio.sleep(2 * 86400)
            (job,) = await scheduler.store.list_jobs()
            await scheduler.store.upsert_job("greet", "Greet", Cron("0 9 * * *"), timezone=ZONE)
            assert (await scheduler.store.list_jobs())[0] == job
    assert [(each.day, each.hour) for each in seen] == [(2, 8), (3, 9), (4, 9)][: len(seen)]
    assert len(seen) == 2
    assert [record.message for record in caplog.records] == [f"time zone rules changed from {OLD} to {NEW}: 1 next moments moved"]
    caplog.clear()
    with caplog.at_level(logging.WARNING), world_rules(OLD, 1):
        async with open_scheduler(file, executor):
            await trio.sleep(1)
    (record,) = caplog.records
    assert f"newer time zone rules ({NEW}) than this process has ({OLD})" in record.message


async def test_an_own_loop_sees_the_moments_of_the_new_rules(virtual_clock: VirtualClock, tmp_path: Path) -> None:
    virtual_clock.set_wall(from_millis(T0))
    file = tmp_path / "agent.db"
    with world_rules(OLD, 0):
        async with open_store(file) as store:
            await store.add_job("greet", "Greet", Cron("0 9 * * *"), timezone=ZONE)
            assert await store.get_due_jobs() == []
    with world_rules(NEW, 1):
        async with open_store(file) as store:
            await trio.sleep(8 * 3600)
            (job,) = await store.get_due_jobs()
            assert job.next_run_at == from_millis(T0 + 8 * HOUR)
