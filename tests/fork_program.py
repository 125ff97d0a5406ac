"""A program whose user code forks. `test_forks.py` runs it as ``fork_program.py SCENARIO FOLDER``; it prints its findings as JSON."""

from __future__ import annotations

import atexit
import json
import multiprocessing
import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import trio

from cronactors import CronConfig, CronError, CronScheduler, Interval, JobContext, RunStatus, open_scheduler, open_store

HOURLY = Interval.every(hours=1)
PARENT = os.getpid()
FOLDER = Path(sys.argv[2])


def note(text: str) -> None:
    """Append a line to the file of both processes."""
    with (FOLDER / "notes").open("a") as file:
        file.write(f"{'parent' if os.getpid() == PARENT else 'child'}: {text}\n")


atexit.register(note, "atexit")


async def status_of(pid: int) -> int | None:
    """Wait for the exit status of the child; kill it and return None if it has not ended after 15 s."""
    deadline = time.monotonic() + 15
    while time.monotonic() < deadline:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        await trio.sleep(0.01)
    os.kill(pid, 9)
    os.waitpid(pid, 0)
    return None


def leave(how: str) -> None:
    """End the code of the child in one of several ways; for "return" the caller returns."""
    match how:
        case "exit":
            sys.exit(7)
        case "exit with text":
            sys.exit("my last words")
        case "raise":
            raise ValueError("of the child")
        case "group":
            raise BaseExceptionGroup("group", [SystemExit(7)])
        case "interrupt":
            raise KeyboardInterrupt


async def fork(how: str) -> str:
    """Fork; the child ends as ``how`` says, and the parent returns its exit status."""
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        note("forked")
        if how == "store":
            assert STORE
            try:
                await STORE[0].store.list_jobs()
            except CronError as error:
                note(str(error))
            how = "exit"
        elif how == "nursery":
            async with trio.open_nursery():
                sys.exit(7)
        leave(how)
        return "of the child"
    return str(await status_of(pid))


STORE: list[CronScheduler] = []


async def in_executor(how: str) -> dict[str, object]:
    """Fork in one run while another one is in flight."""
    proceed = trio.Event()
    forking = trio.Event()

    async def executor(context: JobContext) -> str:
        if context.job_name == "neighbour":
            forking.set()
            try:
                await proceed.wait()
            finally:
                note("the neighbour ends")
            return "fine"
        if context.job_name == "after":
            return "fine"
        await forking.wait()
        return await fork(how)

    async with open_scheduler(FOLDER / "a.db", executor, config=CronConfig(max_concurrent_runs=3)) as scheduler:
        STORE.append(scheduler)
        ids = [await scheduler.store.add_job(name, "p", HOURLY, max_retries=0) for name in ("neighbour", "forks", "after")]
        await scheduler.run_now(ids[0], wait=False)
        forked = await scheduler.run_now(ids[1])
        after = await scheduler.run_now(ids[2])
        proceed.set()
        await scheduler.wait_idle()
        runs = await scheduler.store.list_runs()
        return {
            "child": forked.result_summary,
            "after": after.status,
            "all": sorted(run.status for run in runs),
        }


async def in_notifier(how: str) -> dict[str, object]:
    statuses: list[str] = []

    async def notifier(job_name: str, session_id: str, result: str, success: bool) -> None:
        statuses.append(await fork(how))

    async def executor(context: JobContext) -> str:
        return "fine"

    async with open_scheduler(FOLDER / "a.db", executor, notifier=notifier) as scheduler:
        job_id = await scheduler.store.add_job("job", "p", HOURLY)
        for _ in range(2):
            await scheduler.run_now(job_id)
        await scheduler.wait_idle()
    return {"child": statuses[0], "all": statuses}


async def in_store(how: str) -> dict[str, object]:
    async with open_store(FOLDER / "a.db") as store:
        await store.add_job("before", "p", HOURLY)
        ended = await fork(how)
        if os.getpid() == PARENT:
            await store.add_job("after", "p", HOURLY)
            note("the parent leaves")
    if os.getpid() != PARENT:
        note("after the block")
    return {"child": ended}


async def in_scheduler(how: str) -> dict[str, object]:
    async def executor(context: JobContext) -> str:
        try:
            await trio.sleep_forever()
        finally:
            note("the run ends")
        return ""

    async with open_scheduler(FOLDER / "a.db", executor, shutdown_grace=0) as scheduler:
        job_id = await scheduler.store.add_job("job", "p", HOURLY)
        run = await scheduler.run_now(job_id, wait=False)
        await trio.sleep(0.1)  # so that it is in flight
        ended = await fork(how)
        if os.getpid() == PARENT:
            assert (await scheduler.store.get_run(run.id)).status is RunStatus.RUNNING
            note("the parent leaves")
    if os.getpid() != PARENT:
        note("after the block")
    return {"child": ended}


async def outside_a_block(how: str) -> dict[str, object]:
    """Fork in a task outside the block: in the child the block is cancelled from outside."""
    ended: list[str] = []
    async with trio.open_nursery() as nursery:

        async def forks() -> None:
            ended.append(await fork(how))

        async with open_store(FOLDER / "a.db") as store:
            await store.add_job("before", "p", HOURLY)
            nursery.start_soon(forks)
            while not ended:
                await trio.sleep(0.01)
            await store.add_job("after", "p", HOURLY)
            note("the parent leaves")
    return {"child": ended[0]}


def outside_of_trio(how: str) -> dict[str, object]:
    """Fork in the main thread while a store is open in another one, and leave the interpreter in order."""
    opened, forked = threading.Event(), threading.Event()

    async def main() -> None:
        async with open_store(FOLDER / "a.db") as store:
            await store.add_job("before", "p", HOURLY)
            opened.set()
            while not forked.is_set():
                await trio.sleep(0.01)
            assert Path(FOLDER / "a.db-wal").stat().st_size > 0, "the child has closed a connection of its parent"
            await store.add_job("after", "p", HOURLY)
            note("the parent leaves")

    thread = threading.Thread(target=trio.run, args=(main,))
    thread.start()
    opened.wait(20)
    pid = os.fork()
    if pid == 0:
        note("forked")
        leave(how)
        sys.exit(0)
    ended = trio.run(status_of, pid)
    forked.set()
    thread.join()
    return {"child": str(ended)}


def square(number: int) -> int:
    return number * number


async def in_pool(how: str) -> dict[str, object]:
    """Let runs use pools of forked processes, one in the loop and two in threads."""

    def work() -> str:
        with multiprocessing.get_context("fork").Pool(2) as pool:
            return str(sum(pool.map(square, range(100))))

    async def executor(context: JobContext) -> str:
        return work() if context.job_name == "0" else await trio.to_thread.run_sync(work)

    async with open_scheduler(FOLDER / "a.db", executor, config=CronConfig(max_concurrent_runs=3)) as scheduler:
        ids = [await scheduler.store.add_job(str(n), "p", HOURLY, max_retries=0) for n in range(3)]
        for job_id in ids:
            await scheduler.run_now(job_id, wait=False)
        with trio.fail_after(30):
            while len(runs := await scheduler.store.list_runs(status=RunStatus.SUCCESS)) < 3:
                await trio.sleep(0.02)
    return {"child": "0", "all": sorted(str(run.result_summary) for run in runs)}


SCENARIOS: dict[str, Callable[[str], object]] = {
    "executor": in_executor,
    "notifier": in_notifier,
    "store": in_store,
    "scheduler": in_scheduler,
    "outside_block": outside_a_block,
    "pool": in_pool,
}


def main() -> NoReturn:
    scenario, _, how = sys.argv[1].partition(" ")
    found = outside_of_trio(how) if scenario == "outside" else trio.run(SCENARIOS[scenario], how)  # type: ignore[arg-type]
    if os.getpid() != PARENT:
        note("the end of the program")
    sys.stdout.write(f"{json.dumps(found)}\n")
    sys.exit(0)


if __name__ == "__main__":
    main()
