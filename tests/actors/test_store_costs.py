"""The cost of a run in transactions, hops and reads of the storage. They do not depend on the machine."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import trio

from cronactors import CronConfig, JobContext, JobSpec, OneShot, Overlap, RunStatus, open_scheduler
from cronactors.actors import store_lifetime
from cronactors.actors.storage_thread import T, in_place
from tests.store_under_test import CountedSqlite, opened


class Costs:
    """Transactions and hops of a scheduler on virtual time, from `start` on."""

    def __init__(self) -> None:
        self.hops = 0
        self._from = 0
        self._reads_before = 0

    async def hop(self, function: Callable[[], T], /) -> T:
        self.hops += 1
        return await in_place(function)

    def start(self) -> None:
        self.hops, self._from, self._reads_before = 0, len(opened[-1].log), opened[-1].reads

    @property
    def log(self) -> list[str]:
        return opened[-1].log[self._from :]

    @property
    def reads(self) -> int:
        return opened[-1].reads - self._reads_before


@pytest.fixture
def costs(monkeypatch):
    counted = Costs()
    monkeypatch.setattr(store_lifetime, "SqliteStorage", CountedSqlite)
    monkeypatch.setattr(store_lifetime, "in_place", counted.hop)
    yield counted
    opened.clear()


@pytest.mark.parametrize(
    ("slots", "overlap", "finishes"),
    [
        pytest.param(1, Overlap.SKIP, 48, id="one slot: one commit a run"),
        pytest.param(8, Overlap.SKIP, 6, id="eight slots whose runs finish together: one commit for eight"),
        pytest.param(8, Overlap.ALLOW_ALL, 6, id="the same where jobs hold no run"),
    ],
)
async def test_a_run_under_load_costs_one_commit_and_one_hop(virtual_clock, costs, tmp_path, slots, overlap, finishes):
    async def executor(ctx: JobContext) -> None:
        await trio.sleep(1)

    virtual_clock.set_wall("2026-01-01T00:00:00+00:00")
    jobs = [JobSpec(f"j{number}", "p", OneShot("2026-01-01T00:01:00+00:00"), overlap=overlap) for number in range(48)]
    config = CronConfig(max_concurrent_runs=slots)
    async with open_scheduler(tmp_path / "agent.db", executor, jobs=jobs, config=config) as scheduler:
        await trio.sleep(59)
        costs.start()
        await trio.sleep(1 + 48 / slots + 1)
        log, hops = costs.log, costs.hops
        runs = await scheduler.store.list_runs(limit=100)
    assert [run.status for run in runs] == [RunStatus.SUCCESS] * 48
    # The claim that fills the slots, then the finishes: each claims the next run for its slot.
    assert log == ["write", "commit"] * (1 + finishes)
    assert hops == 1 + finishes


@pytest.mark.parametrize("slots", [4, 64])
async def test_the_reads_of_a_commit_do_not_grow_with_its_runs(virtual_clock, costs, tmp_path, slots):
    async def executor(ctx: JobContext) -> None:
        await trio.sleep(1)

    virtual_clock.set_wall("2026-01-01T00:00:00+00:00")
    jobs = [JobSpec(f"j{number}", "p", OneShot("2026-01-01T00:01:00+00:00")) for number in range(4 * slots)]
    async with open_scheduler(tmp_path / "agent.db", executor, jobs=jobs, config=CronConfig(max_concurrent_runs=slots)):
        await trio.sleep(60.5)
        costs.start()
        await trio.sleep(1)
        assert costs.log == ["write", "commit"]
        # None for plain finishes; the lease, the queue, jobs and the last id for the runs that start; one for the clock.
        assert costs.reads == 4 + 1


async def test_an_idle_scheduler_on_virtual_time_does_nothing(virtual_clock, costs, tmp_path):
    async def executor(ctx: JobContext) -> None:
        pass

    jobs = [JobSpec("later", "p", OneShot("2027-01-01T00:00:00+00:00"))]
    async with open_scheduler(tmp_path / "agent.db", executor, jobs=jobs):
        await trio.sleep(1)
        costs.start()
        await trio.sleep(86_400)
        assert (costs.log, costs.hops) == ([], 0)
