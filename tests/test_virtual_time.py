"""Virtual time: when it jumps and when it waits, setting the wall clock, and that nothing spins."""

from __future__ import annotations

import math
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import attrs
import pytest
import trio
import trio.testing

import cronactors
from cronactors import (
    Cron,
    CronError,
    Interval,
    JobContext,
    OneShot,
    RunStatus,
    SessionMode,
    open_scheduler,
    open_store,
    testing,
)
from cronactors.testing import VirtualClock, make_context
from cronactors.wallclock import hold
from tests.workers import START, Worker, after, history

# Trio's time


async def test_sleeps_end_in_order_without_waiting(virtual_clock: VirtualClock) -> None:
    woke: list[tuple[str, float]] = []

    async def sleep(name: str, seconds: float) -> None:
        await trio.sleep(seconds)
        woke.append((name, trio.current_time()))

    began = time.monotonic()
    async with trio.open_nursery() as nursery:
        for name, seconds in (("year", 365 * 86_400.0), ("moment", 0.001), ("hour", 3600.0)):
            nursery.start_soon(sleep, name, seconds)
    assert [name for name, _ in woke] == ["moment", "hour", "year"]
    assert [at for _, at in woke] == pytest.approx([0.001, 3600, 365 * 86_400])
    assert time.monotonic() - began < 60  # no real sleep
    assert virtual_clock.now() == cronactors.now() == START + timedelta(days=365)


async def test_deadlines_are_met_exactly(virtual_clock: VirtualClock) -> None:
    with trio.move_on_after(10) as scope:
        await trio.sleep_forever()
    assert scope.cancelled_caught
    assert trio.current_time() == pytest.approx(10)
    with pytest.raises(trio.TooSlowError):
        with trio.fail_after(5):
            await trio.sleep(6)
    assert trio.current_time() == pytest.approx(15)
    with trio.move_on_at(3) as past:
        await trio.sleep(1)
    assert past.cancelled_caught
    assert trio.current_time() == pytest.approx(15)


async def test_no_time_passes_while_a_thread_runs(virtual_clock: VirtualClock) -> None:
    order: list[str] = []

    async def work() -> None:
        await trio.to_thread.run_sync(time.sleep, 0.03)  # real: a clock that ignores threads would jump
        order.append(f"thread at {trio.current_time():g}")

    async def sleep() -> None:
        await trio.sleep(3600)
        order.append(f"sleep at {trio.current_time():g}")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(work)
        nursery.start_soon(sleep)
    assert order == ["thread at 0", "sleep at 3600"]


async def test_an_executor_in_a_thread_is_waited_for(virtual_clock: VirtualClock) -> None:
    def block() -> str:
        time.sleep(0.03)  # real: it blocks a thread
        return "blocked"

    async def executor(context: JobContext) -> str:
        return await trio.to_thread.run_sync(block)

    async with open_scheduler(":memory:", executor) as scheduler:
        await scheduler.store.add_job("job", "it", OneShot(after(5)), timeout_secs=1)
        await trio.sleep(100)
        (run,) = await history(scheduler)
        assert (run.status, run.result_summary, run.completed_at) == (RunStatus.SUCCESS, "blocked", after(5))


async def test_an_idle_clock_does_not_spin(virtual_clock: VirtualClock) -> None:
    async with open_scheduler(":memory:", Worker()):
        done = trio.Event()
        token = trio.lowlevel.current_trio_token()
        timer = threading.Timer(0.3, lambda: token.run_sync_soon(done.set))  # real: the span that is measured
        began = time.thread_time()
        timer.start()
        await done.wait()
        used = time.thread_time() - began
        timer.join()
        assert trio.current_time() == 0
        assert used < 0.15  # of 0.3 s; a loop that spins uses all


async def test_an_idle_scheduler_lets_a_long_time_pass_in_few_steps(virtual_clock: VirtualClock) -> None:
    steps = 0

    class Count(trio.abc.Instrument):
        def before_io_wait(self, timeout: float) -> None:
            nonlocal steps
            steps += 1

    async with open_scheduler(":memory:", Worker()) as scheduler:
        await scheduler.store.add_job("job", "it", Cron("@yearly"))
        await trio.sleep(1)
        count = Count()
        trio.lowlevel.add_instrument(count)
        await trio.sleep(300 * 86_400)
        trio.lowlevel.remove_instrument(count)
    assert steps < 100


async def test_a_foreign_autojumping_clock_is_refused(autojump_clock: trio.testing.MockClock, tmp_path: Path) -> None:
    for opening in (open_store(tmp_path / "a.db"), open_scheduler(tmp_path / "a.db", Worker())):
        with pytest.raises(CronError, match="use the fixture virtual_clock of cronactors.testing"):
            async with opening:
                pytest.fail("the block must not begin")
    assert list(tmp_path.iterdir()) == []


async def test_a_mock_clock_that_does_not_jump_by_itself_is_fine(mock_clock: trio.testing.MockClock, tmp_path: Path) -> None:
    async with open_store(tmp_path / "a.db") as store:
        await store.add_job("job", "it", Cron("@daily"))
        assert abs(cronactors.now() - datetime.now(UTC)) < timedelta(minutes=1)


# The wall clock


def test_now_outside_trio_is_the_system_clock() -> None:
    found = cronactors.now()
    assert found.tzinfo is UTC
    assert found.microsecond % 1000 == 0
    assert abs(found - datetime.now(UTC)) < timedelta(minutes=1)


async def test_now_in_real_time_is_the_system_clock() -> None:
    assert abs(cronactors.now() - datetime.now(UTC)) < timedelta(minutes=1)


async def test_set_wall_moves_only_the_wall_clock(virtual_clock: VirtualClock) -> None:
    await trio.sleep(10)
    virtual_clock.set_wall("2026-03-28T22:00+01:00")
    assert cronactors.now() == datetime(2026, 3, 28, 21, tzinfo=UTC)
    assert trio.current_time() == pytest.approx(10)
    await trio.sleep(1.5)
    assert cronactors.now() == datetime(2026, 3, 28, 21, 0, 1, 500_000, UTC)
    virtual_clock.set_wall(datetime(2000, 1, 1, tzinfo=timezone(timedelta(hours=-5))))
    assert virtual_clock.now() == datetime(2000, 1, 1, 5, tzinfo=UTC)
    for wrong in ("2026-03-28T22:00", datetime(2026, 1, 1), "soon", "1969-12-31T23:59Z", "9999-01-01T00:00Z"):
        with pytest.raises(CronError, match="moment"):
            virtual_clock.set_wall(wrong)
    assert virtual_clock.now() == datetime(2000, 1, 1, 5, tzinfo=UTC)


# Leases


async def test_a_run_that_takes_longer_than_a_lease_is_not_taken_from_a_scheduler(
    virtual_clock: VirtualClock, tmp_path: Path
) -> None:
    attempts: list[int] = []

    async def executor(context: JobContext) -> None:
        attempts.append(context.attempt)
        await trio.sleep(500)

    async with open_scheduler(tmp_path / "a.db", executor) as scheduler:
        await scheduler.store.add_job("job", "it", OneShot(after(1)))
        await trio.sleep(200)
        async with open_store(tmp_path / "a.db") as store:
            assert await store.get_due_jobs() == []
        async with open_scheduler(tmp_path / "a.db", executor) as other:
            assert other.recovered == ()
            await trio.sleep(1)
        await trio.sleep(500)
        assert [run.status for run in await history(scheduler)] == [RunStatus.SUCCESS]
    assert attempts == [1]


# Contexts


def test_make_context_has_defaults() -> None:
    context = make_context()
    assert context == JobContext(
        prompt="prompt",
        session_mode=SessionMode.ISOLATED,
        job_name="job",
        job_id="job-1",
        user_id=None,
        run_id="1",
        scheduled_at=START,
        attempt=1,
    )
    given = make_context("do it", user_id="ann", session_mode=SessionMode.MAIN, scheduled_at=after(5), attempt=3, run_id="9")
    assert (given.prompt, given.user_id, given.session_mode) == ("do it", "ann", SessionMode.MAIN)
    assert (given.scheduled_at, given.attempt, given.run_id) == (after(5), 3, "9")
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        given.prompt = "other"  # type: ignore[misc]


def test_trio_may_wait_until_the_clock_moves() -> None:
    clock = VirtualClock()
    assert (clock.current_time(), clock.wall(), clock.now()) == (0.0, 1_767_225_600_000, START)
    assert clock.deadline_to_sleep_time(0.0) == 0.0
    assert clock.deadline_to_sleep_time(5.0) == math.inf


async def test_now_in_a_thread_of_an_executor_is_virtual(virtual_clock: VirtualClock) -> None:
    seen = []

    async def executor(context: JobContext) -> None:
        seen.append((cronactors.now(), await trio.to_thread.run_sync(cronactors.now)))

    async with open_scheduler(":memory:", executor) as scheduler:
        await scheduler.run_now(await scheduler.store.add_job("job", "it", Interval.every(hours=1)))
    assert seen == [(START, START)]


async def test_a_thread_cannot_set_the_wall_clock_under_a_scheduler(virtual_clock: VirtualClock) -> None:
    await trio.to_thread.run_sync(virtual_clock.set_wall, START + timedelta(days=1))
    async with open_scheduler(":memory:", Worker()):
        with pytest.raises(CronError, match="in a task while a scheduler runs"):
            await trio.to_thread.run_sync(virtual_clock.set_wall, START)
        assert virtual_clock.now() == START + timedelta(days=1)
        await trio.to_thread.run_sync(trio.from_thread.run_sync, virtual_clock.set_wall, START)
        assert virtual_clock.now() == START


async def test_a_stalled_clock_logs_a_warning_once(
    virtual_clock: VirtualClock, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(testing, "STALLED_AFTER", 0.05)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.sleep, 3600)
        await trio.to_thread.run_sync(time.sleep, 0.4)  # real time, in which nothing else may happen
        assert trio.current_time() == 0
    assert [record.getMessage().partition(":")[0] for record in caplog.records] == ["virtual time is stalled"]


async def test_hold_uses_the_clock_of_the_trio_run(virtual_clock: VirtualClock) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.sleep, 3600)
        with hold():
            await trio.run_process([sys.executable, "-c", "pass"], stdin=subprocess.DEVNULL)
            assert trio.current_time() == 0
    assert trio.current_time() == 3600


async def test_hold_does_nothing_in_real_time() -> None:
    before = trio.current_time()
    with hold():
        await trio.sleep(0.001)
    assert trio.current_time() > before


async def test_the_clock_stops_at_the_end_of_time(virtual_clock: VirtualClock) -> None:
    await trio.sleep(1e12)
    assert cronactors.now().year == 9997


def test_without_pytest_the_error_names_the_packages_to_install() -> None:
    code = "import sys; sys.modules['pytest'] = None; from cronactors.testing import make_context, virtual_clock"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr.splitlines()[-1] == (
        "ImportError: the fixture virtual_clock needs pytest and pytest-trio: pip install pytest pytest-trio"
    )
