"""The logging handler that adds the records of a run to its lines."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from datetime import timedelta

import pytest
import trio

from cronactors import JobContext, JobSpec, OneShot, RunLogHandler, RunStatus, now, open_scheduler
from cronactors.testing import VirtualClock, fake_run
from tests.workers import history

logger = logging.getLogger("app.reports")


@pytest.fixture(autouse=True)
def handler() -> Iterator[RunLogHandler]:
    made = RunLogHandler()
    made.setFormatter(logging.Formatter("%(levelname)s %(message)s"))
    root = logging.getLogger()
    before = root.level
    root.addHandler(made)
    root.setLevel(logging.DEBUG)
    yield made
    root.removeHandler(made)
    root.setLevel(before)


async def test_records_of_a_run_are_among_its_lines(virtual_clock: VirtualClock) -> None:
    def in_thread() -> None:
        logger.warning("from a thread")

    async def child() -> None:
        logger.info("from a task")

    async def executor(ctx: JobContext) -> None:
        logger.info("reading %s", ctx.job_name)
        await trio.to_thread.run_sync(in_thread)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(child)
        try:
            raise ValueError("no")
        except ValueError:
            logger.exception("it failed")

    logger.info("before")
    async with open_scheduler(
        ":memory:", executor, jobs=[JobSpec("job", "it", OneShot(now() + timedelta(seconds=1)))]
    ) as scheduler:
        await trio.sleep(10)
        logger.info("after")
        (run,) = await history(scheduler)
        text = (await scheduler.store.get_run_output(run.id)).text
    lines = text.splitlines()
    assert lines[:5] == [
        "INFO reading job",
        "WARNING from a thread",
        "INFO from a task",
        "ERROR it failed",
        "Traceback (most recent call last):",
    ]
    assert lines[-1] == "ValueError: no"


async def test_our_own_records_are_left_out(virtual_clock: VirtualClock) -> None:
    async def executor(ctx: JobContext) -> None:
        logging.getLogger("cronactors.runner").error("ours")
        logging.getLogger("cronactors").error("ours")
        logging.getLogger("cronactors_of_another").error("theirs")
        raise ValueError("no")

    spec = JobSpec("job", "it", OneShot(now() + timedelta(seconds=1)), max_retries=0)
    async with open_scheduler(":memory:", executor, jobs=[spec]) as scheduler:
        await trio.sleep(10)
        (run,) = await history(scheduler)
        assert run.status is RunStatus.FAILED
        assert (await scheduler.store.get_run_output(run.id)).text == "ERROR theirs\n"


def test_outside_of_a_run_it_does_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    logger.error("nothing %s", "here")
    assert capsys.readouterr().err == ""


def test_level_and_filters_work_as_everywhere(handler: RunLogHandler) -> None:
    handler.setLevel(logging.WARNING)
    with fake_run() as run:
        logger.info("quiet")
        logger.warning("loud")
    assert run.lines == ["WARNING loud"]


def test_a_record_that_cannot_be_formatted_does_not_reach_the_executor(
    handler: RunLogHandler, capsys: pytest.CaptureFixture[str]
) -> None:
    with fake_run() as run:
        for arguments in (("no number",), (5,)):
            handler.handle(logging.LogRecord("app", logging.INFO, "app.py", 1, "%d", arguments, None))
    assert run.lines == ["INFO 5"]
    assert "Logging error" in capsys.readouterr().err
