"""A file that another process keeps locked: the program around the scheduler never stalls, and every wait can be cancelled."""

from __future__ import annotations

import sqlite3
import statistics
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trio
import trio.testing

from cronactors import CronConfig, Interval, JobContext, JobSpec, OneShot, StoreUnavailable, open_scheduler, open_store
from cronactors.actors import store as store_module, store_lifetime
from cronactors.actors.storage_thread import in_place
from cronactors.storage.errors import Contended
from cronactors.storage.sqlite import SqliteStorage
from tests.chaos.judge import Ledger, judge

BEAT = 0.01
STALLED = 0.5  # how late one beat may be (s); 0.001 is usual
LATE = 0.02  # on average; if the loop waited for the lock it would be 0.03
LET_GO = 1.0  # how long until a cancelled caller returns (s); SQLite waits 0.1 s for a lock
FAR = OneShot(datetime.now(UTC) + timedelta(days=1))

HOLDS = """
import sqlite3, sys
db = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=20)
db.execute(f"PRAGMA locking_mode = {sys.argv[2]}")
db.execute("BEGIN IMMEDIATE")
print("locked", flush=True)
sys.stdin.read()
"""


@asynccontextmanager
async def locked(file: Path, how: str = "NORMAL") -> AsyncIterator[Callable[[], Awaitable[None]]]:
    """Hold the lock in another process until the block ends or the yielded function is called; EXCLUSIVE bars readers too."""
    process = await trio.lowlevel.open_process(
        [sys.executable, "-c", HOLDS, str(file), how], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdin is not None
    assert process.stdout is not None

    async def unlock() -> None:
        assert process.stdin is not None
        await process.stdin.aclose()
        await process.wait()

    try:
        with trio.fail_after(30):
            assert await process.stdout.receive_some()
        yield unlock
    finally:
        with trio.CancelScope(shield=True):
            process.kill()
            await process.wait()
            await process.stdin.aclose()
            await process.stdout.aclose()


class Heart:
    """Beats every 10 ms in the same loop, and measures how late each beat was."""

    def __init__(self) -> None:
        self.late: list[float] = []

    async def beat(self) -> None:
        while True:
            due = trio.current_time() + BEAT
            await trio.sleep_until(due)
            self.late.append(trio.current_time() - due)

    def __str__(self) -> str:
        late = sorted(self.late)
        return f"heartbeat at most {late[-1] * 1000:.1f} ms late, p99 {late[len(late) * 99 // 100] * 1000:.1f} ms"


@asynccontextmanager
async def beating() -> AsyncIterator[Heart]:
    heart = Heart()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(heart.beat)
        yield heart
        nursery.cancel_scope.cancel()
    assert max(heart.late) < STALLED
    assert statistics.mean(heart.late) < LATE


async def longest_cancellation(wait: Callable[[], Awaitable[object]], *, times: int = 5) -> float:
    """Cancel a wait again and again; return the longest time until it returned (s)."""
    longest = 0.0
    for number in range(times):
        with trio.move_on_after(0.01 + 0.05 * number) as scope:
            await wait()
            pytest.fail("it is locked")
        assert scope.cancelled_caught
        longest = max(longest, trio.current_time() - scope.deadline)
    assert longest < LET_GO
    return longest


@pytest.mark.parametrize(
    "seconds",
    [
        pytest.param(1, marks=pytest.mark.slow),
        pytest.param(10, marks=pytest.mark.chaos),
        pytest.param(60, marks=pytest.mark.chaos),
    ],
)
async def test_while_the_file_is_locked_the_program_continues_and_afterwards_everything_is_stored(
    seconds: float, figures: Callable[[str], None], tmp_path: Path
):
    file, ledger = tmp_path / "agent.db", Ledger(tmp_path / "ledger")
    outcomes: list[object] = []

    async def execute(ctx: JobContext) -> None:
        ledger.write("start", ctx)
        await trio.sleep(0.02)
        ledger.write("end", ctx)

    async with open_scheduler(file, execute, config=CronConfig(max_concurrent_runs=20)) as scheduler:
        store = scheduler.store
        ids = [await store.add_job(f"interval {n}", "p", Interval.every(ms=200)) for n in range(10)]
        await trio.sleep(0.3)  # real time, so that runs are running

        async def add(name: str) -> None:
            try:
                outcomes.append(await store.add_job(name, "p", FAR))
            except StoreUnavailable as error:
                outcomes.append(error)

        async with trio.open_nursery() as nursery, locked(file) as unlock:
            async with beating() as heart:
                begun = trio.current_time()
                nursery.start_soon(add, "waits")
                longest = await longest_cancellation(lambda: store.add_job("cancelled", "p", FAR))
                assert len(await store.list_jobs()) == len(ids), "a read needs no lock"
                await trio.sleep(max(0.0, begun + seconds - trio.current_time()))
            await unlock()
        await trio.sleep(0.5)  # real time, so that the next moments come
        names = {job.name for job in await store.list_jobs()}
    assert "cancelled" not in names
    waits_that_long = seconds < store_module.LOCK_TIMEOUT
    assert ("waits" in names) == waits_that_long
    (outcome,) = outcomes
    assert isinstance(outcome, str if waits_that_long else StoreUnavailable)
    judgement = judge(file, ledger, acknowledged=[*ids, outcome] if isinstance(outcome, str) else ids)
    figures(f"locked for {seconds} s: {heart}; a caller was cancelled within {longest * 1000:.0f} ms; {judgement}")


@pytest.mark.slow
@pytest.mark.parametrize("what", ["store", "scheduler"])
async def test_opening_a_locked_file_can_be_cancelled_and_succeeds_once_it_is_unlocked(
    what: str, figures: Callable[[str], None], tmp_path: Path
):
    file = tmp_path / "agent.db"
    async with open_store(file):
        pass

    async def execute(ctx: JobContext) -> None: ...

    async def use() -> None:
        async with open_store(file) if what == "store" else open_scheduler(file, execute) as opened:
            store = getattr(opened, "store", opened)
            assert await store.list_jobs() == []

    async with locked(file, "EXCLUSIVE") as unlock, beating() as heart:
        longest = await longest_cancellation(use)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(use)
            await trio.sleep(0.1)
            await unlock()
    figures(f"opening a locked {what}: {heart}; cancelled within {longest * 1000:.0f} ms")


@pytest.mark.slow
async def test_a_scheduler_that_waits_for_the_lock_after_opening_can_be_cancelled_and_leaves_nothing(
    figures: Callable[[str], None], tmp_path: Path
):
    file = tmp_path / "agent.db"
    async with open_store(file):
        pass

    async def execute(ctx: JobContext) -> None: ...

    async def use() -> None:
        async with open_scheduler(file, execute, jobs=[JobSpec("job", "p", FAR)]):
            pytest.fail("it is locked")

    async with locked(file), beating() as heart:
        longest = await longest_cancellation(use)
    async with open_store(file) as store:
        assert await store.list_jobs() == []
    with closing(sqlite3.connect(file)) as db:
        tables = [name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        rows = {name: db.execute(f"SELECT count(*) FROM {name}").fetchone()[0] for name in tables}
    assert not any(rows.values()), rows
    figures(f"starting on a locked file: {heart}; cancelled within {longest * 1000:.0f} ms")


async def test_opening_a_file_that_stays_locked_fails_in_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(store_lifetime, "OPEN_TIMEOUT", 0.1)
    file = tmp_path / "agent.db"
    async with open_store(file):
        pass
    async with locked(file, "EXCLUSIVE"):
        begun = trio.current_time()
        with pytest.raises(StoreUnavailable, match=r"agent\.db .*SQLITE_BUSY") as caught:
            async with open_store(file):
                pytest.fail("it is locked")
        assert 0.1 <= trio.current_time() - begun < 2
    assert type(caught.value) is StoreUnavailable
    async with open_store(file) as store:
        assert await store.list_jobs() == []


async def test_opening_waits_ten_seconds_for_a_lock(autojump_clock: trio.testing.MockClock):
    def opener() -> SqliteStorage:
        raise Contended("agent.db is locked")

    with pytest.raises(StoreUnavailable, match=r"agent\.db is locked"):
        await store_lifetime._open(in_place, opener)
    assert 10 <= trio.current_time() < 10.1


async def test_a_file_that_needs_no_writing_is_opened_while_another_writes(tmp_path: Path):
    file = tmp_path / "agent.db"
    async with open_store(file):
        pass
    async with locked(file), open_store(file) as store:
        assert await store.list_jobs() == []
