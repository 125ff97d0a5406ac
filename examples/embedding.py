"""An agent with a schedule: three jobs in one file, of which one fails at first and one blocks, and a callback for finished runs.

    python examples/embedding.py                # until Ctrl-C; the jobs are stored in embedding.db
    python examples/embedding.py --seconds 2    # stops by itself

Start it again: the jobs are updated, not added a second time, and the history grows.
"""

from __future__ import annotations

import argparse
import math
import time
from zoneinfo import ZoneInfo

import trio

import cronactors
from cronactors import Cron, CronConfig, CronJob, CronRun, Interval, JobContext, JobResult, JobSpec, Retry, SessionMode

ZONE = "Europe/Rome"
JOBS = (
    JobSpec("morning-check", "Summarize overnight alerts", Cron("0 0 9 * * *"), session_mode=SessionMode.MAIN),
    JobSpec("pulse", "Count the queue", Interval.every(ms=500), timeout_secs=5),
    JobSpec("flaky", "Fetch the news", Interval.every(seconds=1), max_retries=2),
)


def count_queue() -> int:
    """Block, as a database driver, a library without async or a long calculation does."""
    time.sleep(0.05)
    return 42


async def executor(context: JobContext) -> JobResult | str:
    """Execute one run: return on success, raise on failure. A timeout, or the end of the program, cancels it."""
    if context.job_name == "pulse":
        waiting = await trio.to_thread.run_sync(count_queue, abandon_on_cancel=True)
        return f"{waiting} waiting"
    if context.job_name == "flaky" and context.attempt == 1:
        raise Retry("the network is down", after=0.2)
    await trio.sleep(0.05)  # reply = await agent.chat(context.prompt, session=context.session_mode, user=context.user_id)
    return JobResult(session_id=f"s-{context.run_id}", summary=f"done: {context.prompt}")


async def on_finish(_job: CronJob, run: CronRun) -> None:
    """Print a finished run; called once it is recorded on disk."""
    text = run.result_summary if run.error is None else run.error
    print(f"{run.job_name:<13}  attempt {run.attempt}  {run.status}  {text}", flush=True)


async def main(database: str, seconds: float) -> None:
    """Run the agent for so many seconds, then print the history of one job."""
    config = CronConfig(timezone=ZONE, max_concurrent_runs=4, jobs=JOBS, origin="examples/embedding.py")
    async with cronactors.open_scheduler(database, executor, config=config, on_finish=on_finish) as scheduler:
        for run in scheduler.recovered:
            print(f"{run.job_name} was interrupted and will run again", flush=True)
        for job in await scheduler.store.list_jobs():
            print(f"{job.name:<13}  next {job.next_run_at:%Y-%m-%d %H:%M:%S} UTC", flush=True)
        check = await scheduler.store.get_job_by_name("morning-check")
        assert check is not None
        await scheduler.run_now(check.id)  # once now, to see it work; then every day at nine
        with trio.move_on_after(seconds):
            await trio.sleep_forever()
        print(f"in flight: {scheduler.health().runs_in_flight}", flush=True)
    async with cronactors.open_store(database) as store:
        last = await store.list_runs(check.id, limit=3)
    for run in last:
        started = run.started_at and run.started_at.astimezone(ZoneInfo(ZONE))
        print(f"history: {run.job_name} {started:%H:%M:%S %Z} {run.trigger} {run.status}", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="An agent with a schedule.")
    parser.add_argument("--db", default="embedding.db", help="the database (default: embedding.db)")
    parser.add_argument("--seconds", type=float, default=math.inf, help="stop after so many seconds")
    options = parser.parse_args()
    try:
        trio.run(main, options.db, options.seconds)
    except KeyboardInterrupt:
        print("stopped by Ctrl-C")
