"""A database with a history for tests of the verbs on it, and the call of a verb in this process."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import click
import pytest
import trio
from click.testing import CliRunner

from cronactors import (
    CronConfig,
    CronError,
    CronJob,
    CronRun,
    Interval,
    JobContext,
    JobResult,
    JobSpec,
    Receiver,
    RetryPolicy,
    current_run,
    open_scheduler,
)
from cronactors.cli.history_commands import COMMANDS
from cronactors.testing import VirtualClock
from tests.cli_stores import _schema

START = datetime(2026, 3, 2, 8, tzinfo=UTC)  # a Monday
HOURLY = Interval.every(hours=1)
LONG_ERROR = "the disk is full\n" + "\n".join(f"detail {number}" for number in range(5))


async def execute(context: JobContext) -> JobResult:
    await trio.sleep(5)
    if context.job_name == "bad":
        raise OSError(LONG_ERROR)
    for number in range(30):
        current_run().log(f"line {number}\t\x1b[31m")
    return JobResult(summary="done\nsecond line", data={"token": "s3cret"}, session_id="the session")


async def deliver(_job: CronJob, run: CronRun) -> None:
    if run.job_name == "bad":
        raise OSError("the mail server is down")


async def fill(file: Path) -> None:
    """Let two and a half hours pass. All runs of "bad" fail, and each is retried twice; "mail" belongs to two users; "gone" is removed."""
    config = CronConfig(retry=RetryPolicy(delays=[30, 60]), max_concurrent_runs=10)
    on_finish = Receiver(deliver, attempts=2, retry=RetryPolicy(delays=(1,)))
    jobs = [
        JobSpec("report", "it", HOURLY, timezone="Europe/Rome"),
        JobSpec("bad", "it", HOURLY, max_retries=2, tags=["flaky"]),
        JobSpec("mail", "it", HOURLY, user_id="ann"),
        JobSpec("mail", "it", HOURLY, user_id="bob"),
        JobSpec("gone", "it", HOURLY),
    ]
    async with open_scheduler(file, execute, config=config, on_finish=on_finish, jobs=jobs) as scheduler:
        await trio.sleep(1.5 * 3600)
        gone = await scheduler.store.get_job_by_name("gone")
        assert gone is not None
        await scheduler.store.remove_job(gone.id)
        await trio.sleep(3600)


@pytest.fixture(scope="session")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with a history. Tests only read it."""
    file = tmp_path_factory.mktemp("history") / "jobs.db"
    clock = VirtualClock()
    clock.set_wall(START)
    trio.run(fill, file, clock=clock)
    return file


@pytest.fixture(params=["file", "server"])
def address(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of a store that does not exist yet: a file, or a schema on the server."""
    if request.param == "file":
        yield str(tmp_path / "jobs.db")
    else:
        yield from _schema(monkeypatch)


def call(database: Path | str, *args: str) -> tuple[int, str]:
    """Call a verb, and return its exit status and what it prints; an error is printed as `main` does."""
    group = click.Group("cronactors", commands=list(COMMANDS))
    # `--db` stands before `--`, behind which everything is a name.
    done = CliRunner().invoke(group, [args[0], "--db", str(database), *args[1:]])
    if isinstance(done.exception, CronError):
        return 1, f"{done.output}cronactors: {done.exception}"
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.exit_code, done.output
