"""`cronactors explain`: why a moment ran, did not, or waits."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import trio
from click.testing import CliRunner, Result

from cronactors import (
    Cron,
    CronConfig,
    CronJob,
    CronStore,
    Interval,
    JobContext,
    Misfire,
    OneShot,
    Overlap,
    SessionMode,
    open_scheduler,
    open_store,
)
from cronactors.cli.explain import answer_as_json, lines, read_answer
from cronactors.cli.find import find_job
from cronactors.cli.moments import Asked, read_when
from cronactors.cli.why import Why
from cronactors.cli.why_commands import explain as command
from cronactors.policy import FREE_CRASHES
from cronactors.testing import VirtualClock
from tests.cli_command import TIME
from tests.cli_stores import server
from tests.ledger_world import KINDS, MINUTE, T0, PrunedWorld, World, at

__all__ = ["server"]

START = datetime(2026, 1, 1, tzinfo=UTC)


async def executor(context: JobContext) -> str:
    await trio.sleep(150 if context.job_name.startswith("slow") else 0)
    if context.job_name == "bad":
        raise ValueError("no luck")
    return "done"


async def told(store: CronStore, name: str, when: str = "now", user: str | None = None) -> list[str]:
    return lines(await read_answer(store, name, user=user, when=read_when(when)))


async def test_runs_and_overlaps(virtual_clock: VirtualClock) -> None:
    async with open_scheduler(":memory:", executor) as scheduler:
        await scheduler.store.add_job("slow", "it", Interval(60_000))
        await trio.sleep(4.2 * 60)
        assert await told(scheduler.store, "slow", "00:01") == [
            "slow: every 1 min, UTC",
            "2026-01-01 00:01:00 UTC ran: run 1 started at 2026-01-01 00:01:00 UTC, on time; success after 2 min 30 s.",
            "Next: 2026-01-01 00:05:00 UTC.",
        ]
        assert (await told(scheduler.store, "slow", "00:03"))[1] == (
            "2026-01-01 00:03:00 UTC was skipped: run 1 of the job was still running (overlap): it started at "
            "2026-01-01 00:01:00 UTC and finished at 2026-01-01 00:03:30 UTC; the row stands for 2 moments, "
            "from 2026-01-01 00:02:00 UTC to 2026-01-01 00:03:00 UTC."
        )
        assert (await told(scheduler.store, "slow"))[1:] == [
            "2026-01-01 00:04:00 UTC is running: run 3 started at 2026-01-01 00:04:00 UTC, on time, 12 s ago.",
            "2026-01-01 00:05:00 UTC will run, in 48 s, unless a run of the job is still running then.",
        ]
        await trio.sleep(60)
        assert (await told(scheduler.store, "slow", "00:05"))[1] == (
            "2026-01-01 00:05:00 UTC is due for 12 s and has not started: it waits for run 3 of the job, "
            "which is running since 2026-01-01 00:04:00 UTC."
        )


async def test_failures_retries_and_pauses(virtual_clock: VirtualClock) -> None:
    async with open_scheduler(":memory:", executor) as scheduler:
        job_id = await scheduler.store.add_job("bad", "it", Interval(3_600_000), max_retries=1)
        await trio.sleep(3_605)
        assert (await told(scheduler.store, "bad", "01:00"))[1] == (
            "2026-01-01 01:00:00 UTC has not succeeded in 1 attempt (ValueError: no luck): "
            "attempt 2 may start at 2026-01-01 01:00:30 UTC."
        )
        await scheduler.store.pause_job(job_id)
        paused = await told(scheduler.store, "bad", "01:00")
        assert paused[0] == "bad: every 1 h, UTC, paused"
        assert paused[1].endswith("has not succeeded in 1 attempt (ValueError: no luck): the job is paused.")
        assert paused[-1].startswith("The job is paused.")
        await scheduler.store.resume_job(job_id)
        await trio.sleep(60)
        assert (await told(scheduler.store, "bad", "01:00"))[1].endswith("; failed (error) after 0.00 s: ValueError: no luck.")
        await scheduler.store.pause_job(job_id)
        assert (await told(scheduler.store, "bad", "2026-01-01 03:00"))[1] == (
            "2026-01-01 03:00:00 UTC is not planned: the job is paused since 2026-01-01 01:01:05 UTC."
        )
        until = datetime(2026, 1, 1, 4, 30, tzinfo=UTC)
        await scheduler.store.resume_job(job_id)
        await scheduler.store.pause_job(job_id, until=until, note="a disk")
        assert (await told(scheduler.store, "bad", "2026-01-01 03:00"))[1:] == [
            "2026-01-01 03:00:00 UTC is not planned: the job is paused since 2026-01-01 01:01:05 UTC until 2026-01-01 04:30:00 UTC (a disk).",
            "The job is paused until 2026-01-01 04:30:00 UTC (a disk). `cronactors resume` lets it continue.",
        ]
        assert (await told(scheduler.store, "bad", "2026-01-01 05:00"))[1] == (
            "2026-01-01 05:00:00 UTC will run, in 3 h 58 min: the pause of the job ends at 2026-01-01 04:30:00 UTC."
        )
        assert (await told(scheduler.store, "bad"))[-2] == (
            "2026-01-01 05:00:00 UTC will run, in 3 h 58 min: the pause of the job ends at 2026-01-01 04:30:00 UTC."
        )
        await trio.sleep(4 * 3600)
        assert (await told(scheduler.store, "bad", "2026-01-01 03:00"))[1] == (
            "2026-01-01 03:00:00 UTC was not planned: the job was paused from 2026-01-01 01:01:05 UTC to 2026-01-01 04:30:00 UTC "
            "(a disk)."
        )


async def test_missed_moments(virtual_clock: VirtualClock) -> None:
    async with open_scheduler(":memory:", executor) as scheduler:
        misfire = Misfire(window=timedelta(minutes=3))
        await scheduler.store.add_job("late", "it", Interval(60_000), misfire=misfire)
        await trio.sleep(90)
        virtual_clock.set_wall(START + timedelta(minutes=10.1))
        await trio.sleep(5)
        assert (
            "merged into the run of 2026-01-01 00:10:00 UTC, which stands for 3 moments: that ran: run 3"
            in ((await told(scheduler.store, "late", "00:09"))[1])
        )
        assert "was skipped: nothing could start it in time" in (await told(scheduler.store, "late", "00:03"))[1]
        assert ", 6.00 s late; success" in (await told(scheduler.store, "late", "00:10"))[1]


async def test_what_is_no_moment_shows_its_neighbours(virtual_clock: VirtualClock) -> None:
    async with open_scheduler(":memory:", executor) as scheduler:
        await scheduler.store.add_job("hourly", "it", Cron("0 * * * *"))
        await trio.sleep(2 * 3600 + 600)
        found = await told(scheduler.store, "hourly", "01:30")
        assert found[1].startswith("2026-01-01 01:00:00 UTC ran: run 1 ")
        assert found[2] == "2026-01-01 01:30:00 UTC is no moment of the job."
        assert found[3].startswith("2026-01-01 02:00:00 UTC ran: run 2 ")
        assert (await told(scheduler.store, "hourly", "00:59"))[2].startswith("2026-01-01 00:59:00 UTC is no moment")
        assert (await told(scheduler.store, "hourly", "2025-12-31 23:00"))[1] == (
            "2025-12-31 23:00:00 UTC was not planned: the job was added later, at 2026-01-01 00:00:00 UTC."
        )


async def test_a_minute_means_the_moment_inside_it(virtual_clock: VirtualClock) -> None:
    await trio.sleep(17.25)
    async with open_scheduler(":memory:", executor) as scheduler:
        await scheduler.store.add_job("odd", "it", Interval(600_000))
        await trio.sleep(700)
        assert (await told(scheduler.store, "odd", "00:10"))[1].startswith("2026-01-01 00:10:17 UTC ran: run 1")
        await scheduler.store.upsert_job("odd", "it", Cron("0 12 * * *"))
        assert (await told(scheduler.store, "odd", "00:10"))[1].startswith("2026-01-01 00:10:17 UTC ran: run 1")


@pytest.mark.parametrize(
    ("expr", "when", "expected"),
    [
        (
            "30 2 * * *",
            "2026-03-29 02:30",
            ["2026-03-29 03:00:00 CEST ran: run ", "  02:30 does not exist: runs at 03:00"],
        ),
        ("*/30 * * * *", "02:30", ["2026-03-29 03:00:00 CEST ran: run ", "  02:00 to 03:00 does not exist: skipped"]),
        (
            "0 1 * * *",
            "02:30",
            [
                "2026-03-29 01:00:00 CET was not planned: the job was added later",
                "2026-03-29 03:00:00 CEST is no moment of the job.",
                "2026-03-30 01:00:00 CEST will run, in ",
                "  02:30 does not exist on 2026-03-29: the clock goes from 02:00 to 03:00",
            ],
        ),
    ],
)
async def test_clock_changes(virtual_clock: VirtualClock, expr: str, when: str, expected: list[str]) -> None:
    virtual_clock.set_wall(datetime(2026, 3, 29, 0, 30, tzinfo=UTC))
    async with open_scheduler(":memory:", executor, timezone="Europe/Rome") as scheduler:
        await scheduler.store.add_job("nightly", "it", Cron(expr))
        await trio.sleep(3_600)
        found = await told(scheduler.store, "nightly", when)
        assert [line[: len(start)] for line, start in zip(found[1:], expected, strict=False)] == expected


async def test_a_time_that_is_shown_twice(virtual_clock: VirtualClock) -> None:
    virtual_clock.set_wall(datetime(2026, 10, 24, 12, tzinfo=UTC))
    async with open_scheduler(":memory:", executor, timezone="Europe/Rome") as scheduler:
        await scheduler.store.add_job("nightly", "it", Cron("30 2 * * *"))
        await trio.sleep(24 * 3600)
        first = await told(scheduler.store, "nightly", "2026-10-25 02:30")
        assert first[1].startswith("2026-10-25 02:30:00 CEST ran: ")
        assert first[2] == "  02:30 is shown twice: runs the first time only"
        second = await told(scheduler.store, "nightly", "2026-10-25 02:30+01:00")
        assert second[1:4] == [*first[1:3], "2026-10-25 02:30:00 CET is no moment of the job."]


async def test_it_waits_for_a_scheduler(virtual_clock: VirtualClock) -> None:
    async with open_store(":memory:") as store:
        await store.add_job("job", "it", Interval(60_000))
        await trio.sleep(90)
        assert (await told(store, "job"))[1:] == [
            "2026-01-01 00:01:00 UTC is due for 30 s and has not started: no scheduler is running.",
            "2026-01-01 00:02:00 UTC will run, in 30 s, unless a run of the job is still running then.",
        ]


async def test_it_waits_for_a_slot(virtual_clock: VirtualClock) -> None:
    async with open_scheduler(":memory:", executor, config=CronConfig(max_concurrent_runs=1)) as scheduler:
        await scheduler.store.add_job("slow", "it", Interval(59_000), overlap=Overlap.BUFFER_ONE)
        await scheduler.store.add_job("other", "it", Interval(60_000))
        await trio.sleep(61)
        assert "it is about to start, or it waits for a free slot: 1 run" in (await told(scheduler.store, "other", "00:01"))[1]
        await trio.sleep(9)
        answer = await read_answer(scheduler.store, "other", user=None, when=read_when("00:01"))
        assert [reason.kind for reason in answer.moments[0].reasons] == ["slot"]
        assert lines(answer)[1].endswith("it waits for a free slot: 1 run of all jobs running.")


async def test_it_waits_for_its_session(virtual_clock: VirtualClock) -> None:
    async with open_scheduler(":memory:", executor, config=CronConfig(max_concurrent_runs=2)) as scheduler:
        for name, every in (("slow", 59_000), ("other", 60_000)):
            await scheduler.store.add_job(name, "it", Interval(every), session_mode=SessionMode.MAIN, user_id="ann")
        await trio.sleep(62)
        answer = await read_answer(scheduler.store, "other", user=None, when=read_when("00:01"))
        assert [reason.kind for reason in answer.moments[0].reasons] == ["session"]
        assert lines(answer)[0] == "other (user ann): every 1 min, UTC"
        assert lines(answer)[1].endswith("it waits for the session of ann, which run 1 of slow uses.")
        (moment,) = json.loads(json.dumps(answer_as_json(answer)))["moments"]
        assert (moment["at"], moment["outcome"]) == ("2026-01-01T00:01:00.000Z", "waiting")
        assert [reason["kind"] for reason in moment["waits_for"]] == ["session"]
        assert moment["run"]["status"] == "pending"


async def test_it_waits_because_of_the_limit_of_all_schedulers(virtual_clock: VirtualClock) -> None:
    config = CronConfig(max_concurrent_runs=5, max_concurrent_runs_total=1)
    async with open_scheduler(":memory:", executor, config=config) as scheduler:
        await scheduler.store.add_job("slow", "it", Interval(59_000), overlap=Overlap.BUFFER_ONE)
        await scheduler.store.add_job("other", "it", Interval(60_000))
        await trio.sleep(70)
        found = await told(scheduler.store, "other", "00:01")
        assert found[1].endswith("1 run of all jobs running, as many as are allowed (max_concurrent_runs_total).")


@pytest.mark.parametrize("kind", KINDS)
def test_it_waits_for_another_job_in_a_crash_loop(kind: Any) -> None:
    with closing(World(kind)) as world:
        jobs = [world.add(at(T0 + number), name=f"job {number}") for number in range(2)]
        world.pass_time(10)
        for _ in range(FREE_CRASHES):
            world.claim()
            world.crash()
        (running,) = world.claim()
        answer = world.do(lambda storage: Why(jobs[1], None, world.this_process).apply(storage))
        assert [reason.kind for reason in answer.moments[0].reasons] == ["crash_loop"]
        assert lines(answer)[1].endswith(
            f"its last 2 runs crashed, and such jobs start one at a time; run {running.run.id}, attempt 3, of job 0 is running."
        )


def test_a_moment_whose_history_is_pruned() -> None:
    with closing(PrunedWorld(KINDS[0])) as world:
        job = world.add(Interval(MINUTE), name="job")
        for _ in range(2):
            world.pass_time(MINUTE)
            world.finish(world.claim_one())
        answer = world.do(lambda storage: Why(job, lambda _zone, now: Asked(now - MINUTE, 1), world.this_process).apply(storage))
        assert "was decided, and its history deleted since" in lines(answer)[1]


def test_a_run_whose_scheduler_is_gone() -> None:
    with closing(World(KINDS[0])) as world:
        job = world.add(at(T0), name="job")
        world.claim()
        world.pass_time(200_000)
        answer = world.do(lambda storage: Why(job, None, world.this_process).apply(storage))
        assert [reason.kind for reason in answer.moments[0].reasons] == ["scheduler"]
        assert lines(answer)[1].endswith("; its scheduler is gone: the next start runs it again.")


async def test_a_merged_moment_whose_run_waits(virtual_clock: VirtualClock) -> None:
    config = CronConfig(max_concurrent_runs=2)
    async with open_scheduler(":memory:", executor, config=config) as scheduler:
        for name, every in (("slow", 10_000), ("other", 20_000)):
            await scheduler.store.add_job(name, "it", Interval(every), session_mode=SessionMode.MAIN)
        virtual_clock.set_wall(START + timedelta(seconds=121))
        await trio.sleep(2)
        found = await told(scheduler.store, "other", "00:01")
        assert (
            "was merged into the run of 2026-01-01 00:02:00 UTC, which stands for 6 moments: that has not started yet" in found[1]
        )
        assert found[1].endswith("it waits for the session of the agent, which run 1 of slow uses.")


@pytest.mark.parametrize("when", ["1970-01-01", "1970-01-01 00:00", "9997-12-31 23:59", "36000d"])
async def test_times_at_the_edges(virtual_clock: VirtualClock, when: str) -> None:
    async with open_store(":memory:") as store:
        for name, schedule in (("interval", Interval(1)), ("cron", Cron("* * * * *")), ("once", OneShot("2026-06-01 00:00"))):
            await store.add_job(name, "it", schedule, timezone="Pacific/Kiritimati")
            assert len(await told(store, name, when)) > 1


VERBS = r"ran: |is running: |was skipped: |was merged |is due |will run, |was not planned: |is not planned: |is no moment |has not succeeded |ran, but "


async def test_every_answer_is_a_sentence(virtual_clock: VirtualClock) -> None:
    """Jobs with every policy, in a scheduler with too few slots that is paused, edited and stopped meanwhile."""
    seen: set[str] = set()

    async def ask(store: CronStore) -> None:
        for job in await store.list_jobs():
            for when in ("now", "1m", "2m", "5m", "10m", "30m"):
                for line in (await told(store, job.name, when))[1:]:
                    found = re.match(rf"{TIME} ({VERBS})|Next: {TIME}|The job is paused|It has had no moment yet|  \\w", line)
                    assert found is not None, line
                    assert line.endswith(".")
                    seen.add(found[1] or "")

    async with (
        open_store(":memory:") as store,
        open_scheduler(store, executor, config=CronConfig(max_concurrent_runs=3)) as scheduler,
    ):
        for policy in Overlap:
            for name in ("slow", "quick"):
                await store.add_job(f"{name} {policy}", "it", Interval(60_000), overlap=policy)
        await store.add_job("bad", "it", Interval(120_000), max_retries=2)
        await store.add_job("main", "it", Interval(60_000), session_mode=SessionMode.MAIN)
        await ask(store)
        for step in range(12):
            await trio.sleep(47)
            if step == 6:
                await store.pause_job((await find(store, "bad")).id)
                await store.update_job((await find(store, "main")).id, schedule=Cron("*/2 * * * *"))
            await ask(store)
        assert scheduler.health().runs_in_flight > 0
    assert len(seen) > 8, seen


async def find(store: CronStore, name: str) -> CronJob:
    return await find_job(store, name, None)


async def test_a_one_shot_that_is_done(virtual_clock: VirtualClock) -> None:
    async with open_scheduler(":memory:", executor) as scheduler:
        await scheduler.store.add_job("once", "it", OneShot("2026-01-01 00:05"))
        await trio.sleep(600)
        assert await told(scheduler.store, "once") == [
            "once: once, at 2026-01-01 00:05, UTC, done",
            "2026-01-01 00:05:00 UTC ran: run 1 started at 2026-01-01 00:05:00 UTC, on time; success after 0.00 s.",
        ]


# The command itself


@pytest.fixture(params=["file", "server"])
def invoke(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[..., Result]:
    path = str(tmp_path / "jobs.db") if request.param == "file" else request.getfixturevalue("server")

    async def fill() -> None:
        async with open_store(path) as store:
            for user in ("ann", "bob"):
                await store.add_job("both", "it", Interval(3_600_000), user_id=user)
            await store.add_job("mine", "it", Cron("0 9 * * mon-fri"), timezone="Europe/Rome")

    trio.run(fill)
    return lambda *args: CliRunner().invoke(command, [*args, "--db", path])


def test_the_command(invoke: Callable[..., Result]) -> None:
    done = invoke("mine", "2020-01-01", "09:00")
    assert (done.exit_code, done.output.splitlines()[:2][0]) == (0, "mine: at 09:00, Monday to Friday, Europe/Rome")
    assert "2020-01-01 09:00:00 CET was not planned: the job was added later" in done.output
    found = json.loads(invoke("both", "--user", "bob", "--json").output)
    assert (found["job"]["user_id"], found["words"]) == ("bob", "every 1 h")
    assert [moment["outcome"] for moment in found["moments"]][-1] == "will_run"


def test_the_command_refuses(invoke: Callable[..., Result]) -> None:
    assert "2 users have a job named 'both'" in str(invoke("both").exception)
    assert invoke("both").exit_code == 1
    assert invoke("nobody").exit_code == 1
    wrong = invoke("mine", "25:00")
    assert (wrong.exit_code, "'25:00' is not a time" in wrong.output) == (2, True)
    assert invoke("mine", "nonsense").exit_code == 2
    wrong = invoke("mine", "2020-01-01", "09:00:00", "EST")
    assert (wrong.exit_code, "the offset of Europe/Rome is not EST" in str(wrong.exception)) == (1, True)
    assert invoke("mine", "2020-01-01", "09:00:00", "CET").exit_code == 0
