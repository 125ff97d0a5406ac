"""Jobs that were removed or renamed: `explain`, `runs` and `show` find them by the runs that are left."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import trio
from click.testing import CliRunner, Result

from cronactors import CronConfig, CronJob, CronStore, Interval, JobContext, Overlap, RunStatus, open_scheduler, open_store
from cronactors.cli import removed
from cronactors.cli.explain import lines, read_answer
from cronactors.cli.job_commands import show as show_command
from cronactors.cli.moments import read_when
from cronactors.cli.removed import RemovedJob, find_job_or_removed
from cronactors.cli.why_commands import explain as command
from cronactors.errors import JobNotFound
from cronactors.testing import VirtualClock
from tests.cli_history import address, call, filled

__all__ = ["address", "filled"]

HOUR = 3_600_000


async def execute(context: JobContext) -> str:
    await trio.sleep(90 if context.job_name.startswith("slow") else 5)
    return "done"


async def told(store: CronStore, name: str, when: str = "now", user: str | None = None) -> list[str]:
    return lines(await read_answer(store, name, user=user, when=read_when(when)))


async def test_the_moments_of_a_removed_job(virtual_clock: VirtualClock) -> None:
    async with open_scheduler(":memory:", execute) as scheduler:
        job_id = await scheduler.store.add_job("slow", "it", Interval(60_000), user_id="ann")
        await trio.sleep(350)
        await scheduler.store.remove_job(job_id)
        await trio.sleep(600)
        first = "slow (user ann) was removed after 2026-01-01 00:05:00 UTC, when run 5, its last, started. Its history stays; times are in UTC."
        ran = "ran: run 3 started at 2026-01-01 00:03:00 UTC, on time; success after 1 min 30 s."
        assert await told(scheduler.store, "slow", "00:03") == [first, f"2026-01-01 00:03:00 UTC {ran}"]
        assert (await told(scheduler.store, "slow", "00:04"))[1] == (
            "2026-01-01 00:04:00 UTC was skipped: run 3 of the job was still running (overlap): it started at "
            "2026-01-01 00:03:00 UTC and finished at 2026-01-01 00:04:30 UTC."
        )
        assert await told(scheduler.store, "slow") == [
            first,
            "2026-01-01 00:05:00 UTC ran: run 5 started at 2026-01-01 00:05:00 UTC, on time; success after 1 min 30 s.",
        ]
        between = await told(scheduler.store, "slow", "2026-01-01 00:03:30Z")
        assert between[1:3] == [
            f"2026-01-01 00:03:00 UTC {ran}",
            "2026-01-01 00:03:30 UTC has no run of the job, whose schedule is not known any more.",
        ]
        assert between[3].startswith("2026-01-01 00:04:00 UTC was skipped: ")
        assert (await told(scheduler.store, "slow", "00:10"))[1:] == [
            "2026-01-01 00:05:00 UTC ran: run 5 started at 2026-01-01 00:05:00 UTC, on time; success after 1 min 30 s.",
            "2026-01-01 00:10:00 UTC has no run of the job, whose schedule is not known any more.",
        ]


async def test_what_waited_says_when_it_was_removed(virtual_clock: VirtualClock) -> None:
    async with open_scheduler(":memory:", execute) as scheduler:
        job_id = await scheduler.store.add_job("slow", "it", Interval(60_000), overlap=Overlap.BUFFER_ONE)
        await trio.sleep(125)
        await scheduler.store.remove_job(job_id)
        await trio.sleep(600)
        found = await told(scheduler.store, "slow", "00:02")
        assert found == [
            "slow was removed at 2026-01-01 00:02:05 UTC. Its history stays; times are in UTC.",
            "2026-01-01 00:02:00 UTC was skipped: the job was removed, or done, before it could start (removed).",
        ]


async def test_merged_moments_of_a_removed_job(virtual_clock: VirtualClock) -> None:
    async with open_store(":memory:") as store:
        job_id = await store.add_job("job", "it", Interval(60_000))
        await trio.sleep(330)
        async with open_scheduler(store, execute):
            await trio.sleep(10)
        await store.remove_job(job_id)
        assert (await told(store, "job", "00:03"))[1] == (
            "2026-01-01 00:03:00 UTC was merged into the run of 2026-01-01 00:05:00 UTC, which stands for 5 moments: that ran: "
            "run 1 started at 2026-01-01 00:05:30 UTC, 30 s late; success after 5.00 s."
        )


async def test_an_earlier_job_of_the_same_name(virtual_clock: VirtualClock) -> None:
    async with open_scheduler(":memory:", execute) as scheduler:
        for _ in range(2):
            job_id = await scheduler.store.add_job("job", "it", Interval(60_000))
            await trio.sleep(70)
            await scheduler.store.remove_job(job_id)
        assert [(await told(scheduler.store, "job", when))[1][:43] for when in ("00:01", "00:02")] == [
            "2026-01-01 00:01:00 UTC ran: run 1 started ",
            "2026-01-01 00:02:10 UTC ran: run 2 started ",
        ]


async def test_a_job_that_was_added_again_is_explained_by_the_one_before(virtual_clock: VirtualClock) -> None:
    async with open_scheduler(":memory:", execute, config=CronConfig(max_concurrent_runs=3)) as scheduler:
        store = scheduler.store
        for name, user in (("other", None), ("job", "ann")):
            await store.add_job(name, "it", Interval(60_000), user_id=user)
        job_id = await store.add_job("job", "it", Interval(60_000))
        await trio.sleep(130)
        await store.remove_job(job_id)
        await trio.sleep(50)
        assert (await told(store, "job", "00:01", user=""))[0].startswith("job was removed after 2026-01-01 00:02:00 UTC, ")
        job_id = await store.add_job("job", "it", Interval(60_000), timezone="Europe/Rome")
        await trio.sleep(130)  # to 00:05:10
        first, second = await told(store, "job", "01:01", user="")  # in Rome
        assert re.fullmatch(
            "job was removed after 2026-01-01 00:02:00 UTC, when run [0-9]+, its last, started, and added again at "
            "2026-01-01 00:03:00 UTC. Its history stays; times are in UTC.",
            first,
        )
        assert second.startswith("2026-01-01 00:01:00 UTC ran: run ")
        assert (await told(store, "job", "01:04", user=""))[0] == "job: every 1 min, Europe/Rome"
        assert (await told(store, "job", user=""))[0] == "job: every 1 min, Europe/Rome"
        assert (await told(store, "other", "2025-12-31 23:00"))[0] == "other: every 1 min, UTC", "there was none before"
        await store.update_job(job_id, name="new")
        await store.add_job("job", "it", Interval(60_000))
        found = await told(store, "job", "00:01", user="")
        assert found[0].startswith("job was removed after 2026-01-01 00:02:00 UTC, ")
        assert found[0].endswith(", and added again at 2026-01-01 00:05:10 UTC. Its history stays; times are in UTC.")
        assert found[1] == second


async def test_a_job_whose_scheduler_is_gone_is_said_to_be(virtual_clock: VirtualClock) -> None:
    async with open_store(":memory:") as store:
        job_id = await store.add_job("job", "it", Interval(HOUR))
        run_id = await store.record_run_start(job_id)
        await store.remove_job(job_id)
        found = await told(store, "job")
        assert found[1].startswith(f"2026-01-01 00:00:00 UTC was requested, and is running: run {run_id} ")


async def test_a_job_that_was_renamed(virtual_clock: VirtualClock) -> None:
    async with open_scheduler(":memory:", execute) as scheduler:
        job_id = await scheduler.store.add_job("old", "it", Interval(60_000))
        await trio.sleep(70)
        await scheduler.store.update_job(job_id, name="new")
        found = await find_job_or_removed(scheduler.store, "old", None)
        assert isinstance(found, CronJob)
        assert (found.id, found.name) == (job_id, "new")
        assert (await told(scheduler.store, "old", "00:01"))[0] == "new: every 1 min, UTC"


async def test_several_users_had_one(virtual_clock: VirtualClock) -> None:
    async with open_scheduler(":memory:", execute, config=CronConfig(max_concurrent_runs=2)) as scheduler:
        for user in ("ann", None):
            await scheduler.store.add_job("job", "it", Interval(60_000), user_id=user)
        await trio.sleep(70)
        await scheduler.store.remove_job((await scheduler.store.list_jobs(user_id="ann"))[0].id)
        assert isinstance(await find_job_or_removed(scheduler.store, "job", None), CronJob)
        assert isinstance(await find_job_or_removed(scheduler.store, "job", "ann"), RemovedJob)
        await scheduler.store.remove_job((await scheduler.store.list_jobs(user_id=None))[0].id)
        with pytest.raises(JobNotFound, match='2 users had a job named \'job\': give --user with one of ("", ann|ann, "")$'):
            await told(scheduler.store, "job")
        assert (await told(scheduler.store, "job", user="ann"))[0].startswith("job (user ann) was removed ")
        assert (await told(scheduler.store, "job", user=""))[0].startswith("job was removed ")


async def test_only_the_newest_runs_are_searched(virtual_clock: VirtualClock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(removed, "_PAGE", 2)
    monkeypatch.setattr(removed, "OLD_RUNS", 4)
    async with open_store(":memory:") as store:
        gone, stays = [await store.add_job(name, "it", Interval(HOUR)) for name in ("gone", "stays")]
        await _run(store, gone)
        await store.remove_job(gone)
        for _ in range(2):
            await _run(store, stays)
        assert isinstance(await find_job_or_removed(store, "gone", None), RemovedJob)
        with pytest.raises(JobNotFound, match="'absent'; cronactors list shows them$"):
            await find_job_or_removed(store, "absent", None)
        for _ in range(2):
            await _run(store, stays)
        with pytest.raises(JobNotFound, match="'gone'; .*; among the newest 4 runs no removed job has it$"):
            await find_job_or_removed(store, "gone", None)


async def _run(store: CronStore, job_id: str) -> None:
    await store.record_run_complete(await store.record_run_start(job_id), RunStatus.SUCCESS, "fine")
    await trio.sleep(0.002)  # moments of runs of one job differ


# The commands


@pytest.fixture
def invoke(address: str) -> Callable[..., Result]:
    async def fill() -> None:
        async with open_store(address) as store:
            job_id = await store.add_job("gone", "it", Interval(HOUR), user_id="ann")
            await _run(store, job_id)
            await store.request_run(job_id)
            await store.remove_job(job_id)

    trio.run(fill)
    return lambda *args: CliRunner().invoke(command, [*args, "--db", address])


def test_the_commands(invoke: Callable[..., Result], address: str) -> None:
    done = invoke("gone")
    first, second = done.output.splitlines()
    assert (done.exit_code, first[:30]) == (0, "gone (user ann) was removed at")
    assert second.endswith(
        " was requested, and was cancelled before it started: its job was removed while it was waiting (removed)."
    )
    found = json.loads(invoke("gone", "--json").output)
    assert (found["job"], found["removed"]["name"], found["removed"]["user_id"]) == (None, "gone", "ann")
    assert found["removed"]["at"].endswith("Z")
    assert [moment["outcome"] for moment in found["moments"]] == ["skipped"]
    of_the_day = json.loads(invoke("gone", found["moments"][0]["at"][:10], "--json").output)["moments"]
    assert [(moment["outcome"], moment["run"]["id"]) for moment in of_the_day] == [("run", "1"), ("skipped", "2")]
    unknown = json.loads(invoke("gone", "2020-01-01", "--json").output)["moments"]
    assert [moment["outcome"] for moment in unknown] == [None]
    status, output = call(address, "runs", "gone")
    assert (status, output.splitlines()[-1][:31]) == (0, "gone (user ann) was removed at ")
    shown = CliRunner().invoke(show_command, ["gone", "--db", address])
    assert (shown.exit_code, shown.output.splitlines()[0]) == (0, first)
    assert len(shown.output.splitlines()) == 5
    as_json = json.loads(CliRunner().invoke(show_command, ["gone", "--json", "--db", address]).output)
    assert (as_json["job"], as_json["removed"], len(as_json["runs"])) == (None, found["removed"], 2)
    assert invoke("nobody").exit_code == 1


def test_runs_of_a_job_that_was_added_again(address: str) -> None:
    async def fill(*, run: bool) -> None:
        async with open_store(address) as store:
            for job in await store.list_jobs():
                await store.remove_job(job.id)
            job_id = await store.add_job("back", "it", Interval(HOUR))
            if run:
                await _run(store, job_id)

    trio.run(partial(fill, run=False))
    assert call(address, "runs", "back") == (0, "no runs of back yet\n")
    trio.run(partial(fill, run=True))
    _, before = call(address, "runs", "back")
    assert "removed" not in before
    trio.run(partial(fill, run=False))
    status, after = call(address, "runs", "back")
    *table, sentence = after.splitlines()
    assert (status, len(table)) == (0, len(before.splitlines()))
    assert re.fullmatch("back was removed .*, and added again at .* UTC. Its history stays; times are in UTC.", sentence)
    assert [run["job_name"] for run in json.loads(call(address, "runs", "back", "--json")[1])] == ["back"]
    assert call(address, "runs", "back", "--status", "failed")[1].startswith("no runs of back match\nback was removed ")
    explained = json.loads(CliRunner().invoke(command, ["back", "2020-01-01", "--json", "--db", address]).output)
    assert (explained["job"], explained["removed"]["added_again_at"][-1]) == (None, "Z")
    trio.run(partial(fill, run=True))
    assert call(address, "runs", "back")[1].count("\n") == len(table)
    assert "removed" not in call(address, "runs", "back")[1]


def test_a_run_that_was_not_waiting_says_after_when(filled: Path) -> None:
    assert (
        call(filled, "runs", "gone")[1].splitlines()[-1].startswith("gone was removed after 2026-03-02 09:00:00 UTC, when run ")
    )
