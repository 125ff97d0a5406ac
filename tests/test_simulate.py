"""Simulations, and every moment of many jobs compared with brute force."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta, tzinfo
from pathlib import Path

import pytest
import trio

from cronactors import Cron, CronConfig, CronError, Interval, JobContext, JobSpec, OneShot, RunStatus
from cronactors.shell.executor import shell_executor
from cronactors.testing import VirtualClock, simulate
from tests import oracle

START, END = "2026-03-28T00:00Z", "2026-03-30T00:00Z"
ZONES = ["Europe/Rome", "America/New_York", "Asia/Kolkata", "Australia/Lord_Howe", "Africa/Casablanca", "UTC"]
DAYS = int(os.environ.get("CRONACTORS_DAYS", "5"))
"""How long the comparison with brute force simulates (days)."""


async def work(context: JobContext) -> str:
    await trio.sleep(5)
    if context.job_name == "bad":
        raise ValueError("no luck")
    return f"{context.prompt} done"


def test_a_simulation_reports_runs_skips_and_jobs() -> None:
    specs = [
        JobSpec("night", "back up", Cron("30 2 * * *"), timezone="Europe/Rome"),
        JobSpec("bad", "it", OneShot("2026-03-29T12:00Z"), max_retries=1),
        JobSpec("busy", "it", Interval(2_000), delete_after_run=True),
    ]
    report = simulate(specs, work, start=START, end=END, config=CronConfig(max_concurrent_runs=4))
    assert [(run.job_name, run.attempt, run.status.value) for run in report.runs] == [
        ("busy", 1, "success"),
        ("night", 1, "success"),
        ("night", 1, "success"),
        ("bad", 1, "failed"),
        ("bad", 2, "failed"),
    ]
    assert [(run.job_name, run.coalesced) for run in report.skipped] == [("busy", 2)]
    assert [job.name for job in report.jobs] == ["night", "bad"]
    assert str(report).splitlines() == [
        "2026-03-28 00:00:02  busy  attempt 1  success  it done",
        "2026-03-28 00:00:04  busy  attempt 1  skipped (overlap), 2 moments",
        "2026-03-28 01:30:00  night  attempt 1  success  back up done",
        "2026-03-29 01:00:00  night  attempt 1  success  back up done",
        "2026-03-29 12:00:00  bad  attempt 1  failed (error)  ValueError: no luck",
        "2026-03-29 12:00:35  bad  attempt 2  failed (error)  ValueError: no luck",
        "2 failed/error, 1 skipped/overlap, 3 success",
    ]


def test_a_moment_at_the_end_does_not_run() -> None:
    report = simulate([JobSpec("hourly", "it", Interval.every(hours=1))], work, start=START, end="2026-03-28T02:00Z")
    assert len(report.runs) == 1
    assert str(simulate([], work, start=START, end=END)) == "nothing happened"


@pytest.mark.parametrize(("start", "end"), [(END, START), (START, START), ("yesterday", END), (datetime(2026, 1, 1), END)])
def test_a_bad_start_or_end(start: str, end: str) -> None:
    with pytest.raises(CronError):
        simulate([], work, start=start, end=end)


async def test_a_simulation_inside_a_trio_run_is_refused() -> None:
    with pytest.raises(CronError, match="virtual_clock"):
        simulate([], work, start=START, end=END)


def test_a_zone_that_raises() -> None:
    class Broken(tzinfo):
        def utcoffset(self, moment: datetime | None) -> timedelta:
            raise ValueError

    with pytest.raises(CronError, match="start must be an aware datetime"):
        simulate([], work, start=datetime(2026, 1, 1, tzinfo=Broken()), end=END)


def test_a_report_is_sorted_by_start_moment_and_job() -> None:
    async def minute(context: JobContext) -> None:
        await trio.sleep(60)

    specs = [JobSpec(name, "it", Interval(60_000)) for name in "ab"]
    config = CronConfig(max_concurrent_runs=2)
    texts = {str(simulate(specs, minute, start=START, end="2026-03-28T00:30Z", config=config)) for _ in range(8)}
    assert len(texts) == 1


def test_shell_commands_take_no_virtual_time(tmp_path: Path) -> None:
    spec = JobSpec("job", "sleep 0.05; echo hi", Interval.every(hours=1), max_retries=0, timeout_secs=1)
    report = simulate([spec], shell_executor(tmp_path), start=START, end="2026-03-28T02:30Z")
    assert [(run.status, run.result_summary) for run in report.runs] == [(RunStatus.SUCCESS, "hi")] * 2


async def test_hold_stops_virtual_time(virtual_clock: VirtualClock) -> None:
    command = [sys.executable, "-c", "import time; time.sleep(0.05)"]
    with virtual_clock.hold(), trio.fail_after(0.001):  # virtual seconds
        began = time.monotonic()
        await trio.run_process(command, stdin=subprocess.DEVNULL)
        assert time.monotonic() - began >= 0.05
    before = trio.current_time()
    await trio.sleep(3600)
    assert trio.current_time() - before == pytest.approx(3600)


def expression(draw: random.Random) -> str:
    minute = draw.choice(["0", "15", "30", "45", "*/15", "*/30", "0,30"])
    hour = draw.choice(["*", "*/6", "0", "1", "2", "3", "9-17/4", "23", "2,14"])
    if minute.startswith("*") and hour == "*":
        hour = "*/3"
    return f"{minute} {hour} {draw.choice(['*', '*', '1,15', 'L'])} * {draw.choice(['*', '*', '1-5', '0'])}"


def test_every_moment_of_a_hundred_jobs_matches_brute_force() -> None:
    draw = random.Random(20260301)
    start = datetime(2026, 3, 20, tzinfo=UTC)
    end = start + timedelta(days=DAYS)
    specs = [
        JobSpec(f"job {number}", str(draw.random()), Cron(expression(draw)), timezone=ZONES[number % 6], max_retries=3)
        for number in range(100)
    ]

    async def executor(context: JobContext) -> str:
        await trio.sleep(float(context.prompt) * 100)
        if context.attempt == 1 and context.job_name.endswith("7"):
            raise ValueError("only the first time")
        if context.job_name.endswith("3") and context.attempt == 1:
            await trio.sleep_forever()
        return "done"

    config = CronConfig(max_concurrent_runs=200, default_timeout_secs=200)
    report = simulate(specs, executor, start=start, end=end, config=config)
    first = {(run.job_name, run.scheduled_at) for run in report.runs if run.attempt == 1}
    expected = {
        (spec.name, datetime.fromtimestamp(moment, UTC))
        for spec in specs
        for moment in oracle.fire_instants(
            spec.schedule.expr, spec.timezone, int(start.timestamp()), int(end.timestamp()) - 1, 900
        )  # type: ignore[union-attr, arg-type]
    }
    assert first == expected
    assert len(first) > 30 * DAYS
    assert report.skipped == ()
    assert all(run.started_at == run.scheduled_at for run in report.runs if run.attempt == 1)
    good = {(run.job_name, run.scheduled_at) for run in report.runs if run.status is RunStatus.SUCCESS}
    assert all(end - moment < timedelta(minutes=10) for _, moment in first - good)
    tried = {run.job_name[-1] for run in report.runs if run.attempt == 2}
    assert tried == {"3", "7"}
