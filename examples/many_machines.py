"""One program on one machine or on many: only the string that names the store differs.

    python examples/many_machines.py                                    # a file, many_machines.db
    python examples/many_machines.py --db postgresql://server/agent     # a PostgreSQL database; the extra `postgres` is needed
    docker compose -f examples/compose.yaml up                          # a server and three copies of this program

Start it several times, on one file or on one server: each moment runs in exactly one of the copies, and two runs of ada's main session
never at the same time, wherever they run. Stop one copy by Ctrl-C, SIGTERM or `kill -9`, and the others go on.
"""

from __future__ import annotations

import argparse
import logging
import math
import os
import platform
import signal
from collections import Counter

import trio

import cronactors
from cronactors import CronConfig, CronJob, CronRun, Interval, JobContext, JobSpec, SessionMode

PLACE = f"{platform.node()}/{os.getpid()}"
JOBS = (
    JobSpec("pulse", "Count the queue", Interval.every(ms=500)),
    JobSpec("mail", "Sort the mail", Interval.every(seconds=1), user_id="ada", session_mode=SessionMode.MAIN),
    JobSpec("news", "Read the news", Interval.every(seconds=1), user_id="ada", session_mode=SessionMode.MAIN),
)


async def executor(context: JobContext) -> str:
    """Execute one run; the result says where."""
    print(f"{PLACE}  run {context.run_id:>4}  {context.job_name:<5}  {context.scheduled_at:%H:%M:%S.%f}  started", flush=True)
    await trio.sleep(0.2)  # reply = await agent.chat(context.prompt, user=context.user_id)
    return PLACE


async def on_finish(job: CronJob, run: CronRun) -> None:
    """Print a run that this copy of the program has finished."""
    print(f"{PLACE}  run {run.id:>4}  {job.name:<5}  {run.scheduled_at:%H:%M:%S.%f}  {run.status}", flush=True)


async def wait_for_a_signal() -> None:
    """Return at Ctrl-C, or at the SIGTERM of a deploy."""
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        await anext(aiter(signals))


async def main(database: str, seconds: float) -> None:
    """Run until a signal comes, or for so many seconds; then print which copy has executed how many of the last runs."""
    config = CronConfig(jobs=JOBS, origin="examples/many_machines.py")
    async with cronactors.open_scheduler(database, executor, config=config, on_finish=on_finish) as scheduler:
        print(f"{PLACE}  opened {scheduler.store.path}", flush=True)
        with trio.move_on_after(seconds):
            await wait_for_a_signal()
    async with cronactors.open_store(database, create=False) as store:
        runs = await store.list_runs(limit=100)
    for place, count in Counter(run.result_summary for run in runs if run.result_summary).most_common():
        print(f"{PLACE}  of the last {len(runs)} runs {place} has executed {count}", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="One program on one machine or on many.")
    parser.add_argument(
        "--db", default=os.environ.get("CRONACTORS_DB", "many_machines.db"), help="a path, or a postgresql:// address"
    )
    parser.add_argument("--seconds", type=float, default=math.inf, help="stop after so many seconds")
    options = parser.parse_args()
    logging.basicConfig(format=f"{PLACE}  %(message)s")
    trio.run(main, options.db, options.seconds)
