"""A program with few or no descriptors, run by `test_descriptors.py` as ``descriptors_program.py SCENARIO FOLDER``; the answer is in a file."""

from __future__ import annotations

import json
import logging
import os
import resource
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import trio

from cronactors import CronConfig, CronError, Interval, JobContext, RunStatus, open_scheduler, open_store
from cronactors.shell.executor import shell_executor

HOURLY = Interval.every(hours=1)
FOLDER = Path(sys.argv[2])
FILE = FOLDER / "a.db"


def exhaust() -> list[int]:
    """Take every descriptor that the process may still have."""
    soft = len(list(Path("/proc/self/fd").iterdir())) + 20
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    taken = []
    with suppress(OSError):
        while True:
            taken.append(os.open(os.devnull, os.O_RDONLY))
    return taken


def give_back(taken: list[int]) -> None:
    while taken:
        os.close(taken.pop())


async def without_standard_streams() -> dict[str, object]:
    """Start with descriptors 0 to 2 closed: whatever is opened gets their numbers."""
    os.closerange(0, 3)
    logging.disable()  # the warning of the run that fails would go to whatever has the number 2
    shell = shell_executor(FOLDER)
    async with open_scheduler(FILE, shell) as scheduler:
        prompt = "cat; echo out; echo err >&2"
        run = await scheduler.run_now(await scheduler.store.add_job("job", prompt, HOURLY, max_retries=0))
        failing = await scheduler.run_now(await scheduler.store.add_job("bad", "echo bad >&2; exit 3", HOURLY, max_retries=0))
    async with open_store(FILE) as store:
        jobs = [job.name for job in await store.list_jobs()]
    return {"status": run.status, "result": run.result_summary, "error": failing.error, "jobs": jobs}


async def an_executor_closes_them() -> dict[str, object]:
    """Let a run close descriptors 0 to 2, and then write to what is there."""

    async def executor(context: JobContext) -> str:
        if context.job_name == "closes":
            os.closerange(0, 3)
        else:
            with suppress(OSError):
                os.write(1, b"X" * 5000)
            with suppress(OSError):
                os.write(2, b"X" * 5000)
        return "fine"

    async with open_scheduler(FILE, executor) as scheduler:
        ids = [await scheduler.store.add_job(name, "p", HOURLY) for name in ("closes", "writes")]
        runs = [await scheduler.run_now(job_id) for job_id in (*ids, *ids)]
    async with open_store(FILE) as store:
        jobs = [job.name for job in await store.list_jobs()]
        await store.add_job("more", "p", HOURLY)
    return {"status": [run.status for run in runs], "jobs": jobs}


async def exhausted_while_running() -> dict[str, object]:
    """Let a run take all descriptors: its neighbours go on, commands fail with the reason, and afterwards everything works."""
    shell = shell_executor(FOLDER)
    taken: list[int] = []
    slow_started = trio.Event()

    async def executor(context: JobContext) -> object:
        if context.job_name == "takes":
            await slow_started.wait()
            while not (FOLDER / "begun").exists():
                await trio.sleep(0.01)
            taken.extend(exhaust())
            return "all"
        if context.job_name == "plain":
            return "fine"
        if context.job_name == "slow":
            slow_started.set()
        return await shell(context)

    async with open_scheduler(FILE, executor, config=CronConfig(max_concurrent_runs=2)) as scheduler:
        store = scheduler.store
        prompts = {
            "takes": "p",
            "plain": "p",
            "shell": "echo hello",
            "slow": "sh -c \"trap '' TERM; sleep 60\" & touch begun; while [ ! -e go_on ]; do sleep 0.02; done; echo slow",
        }
        ids = {name: await store.add_job(name, prompt, HOURLY, max_retries=0) for name, prompt in prompts.items()}
        slow_id = (await scheduler.run_now(ids["slow"], wait=False)).id
        await scheduler.run_now(ids["takes"])
        plain = await scheduler.run_now(ids["plain"])
        refused = await scheduler.run_now(ids["shell"])
        await store.add_jobs([])
        await store.add_job("added meanwhile", "x" * 100_000, HOURLY)
        try:
            async with open_store(FOLDER / "other.db"):
                opening = "opened"
        except CronError as error:
            opening = f"{type(error).__name__}: {error}"
        spare = [taken.pop()]
        give_back(spare)
        (FOLDER / "go_on").touch()
        taken += exhaust()
        with trio.fail_after(20):
            while not (slow := await store.get_run(slow_id)).status.ended:
                await trio.sleep(0.02)
        give_back(taken)
        hello = await scheduler.run_now(ids["shell"])
    async with open_store(FILE) as store, open_store(FOLDER / "other.db"):
        jobs = sorted(job.name for job in await store.list_jobs())
    return {
        "plain": plain.status,
        "refused": (refused.status, refused.error),
        "opening": opening,
        "slow": (slow.status, slow.result_summary, slow.error),
        "hello": hello.result_summary,
        "jobs": jobs,
        "left": sorted(file.name for file in FOLDER.iterdir() if "part" in file.name),
    }


async def exhausted_at_the_start() -> dict[str, object]:
    """Open a scheduler with no descriptor left, on a file that is missing and on one that is there."""
    async with open_store(FILE) as store:
        await store.add_job("job", "p", HOURLY)

    async def executor(context: JobContext) -> str:
        return "fine"

    told = []
    taken = exhaust()
    for name in ("a.db", "new.db"):
        try:
            async with open_scheduler(FOLDER / name, executor):
                told.append("opened")
        except CronError as error:
            told.append(f"{type(error).__name__}: {error}")
    give_back(taken)
    async with open_scheduler(FILE, executor) as scheduler:
        (job,) = await scheduler.store.list_jobs()
        run = await scheduler.run_now(job.id)
        assert run.status is RunStatus.SUCCESS
    return {"told": told, "files": sorted(file.name for file in FOLDER.iterdir())}


SCENARIOS: dict[str, Callable[[], object]] = {
    "closed": without_standard_streams,
    "closes": an_executor_closes_them,
    "exhausted": exhausted_while_running,
    "start": exhausted_at_the_start,
}

if __name__ == "__main__":
    (FOLDER / "answer").write_text(json.dumps(trio.run(SCENARIOS[sys.argv[1]])))  # type: ignore[arg-type]
