"""The log lines of failed runs: one each, equal ones once a minute, and one for the first success after failures."""

from __future__ import annotations

import json
import logging
import re
import subprocess
from collections.abc import Iterator

import pytest
import trio

from cronactors import CronConfig, Interval, JobContext, OneShot, RunStatus, open_scheduler
from cronactors.actors import failure_log
from cronactors.actors.failure_log import FailureLog, without_prompt
from cronactors.actors.outcomes import INTERRUPTED, timed_out
from cronactors.errors import one_line
from cronactors.model import Cause
from cronactors.policy import Outcome
from cronactors.storage.rows import Claimed
from cronactors.testing import VirtualClock
from tests.cli_command import ROOT
from tests.storages import job, run
from tests.workers import Sleeper, after, start_jobs

SUCCESS = Outcome(status=RunStatus.SUCCESS)


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> Iterator[list[str]]:
    """The messages of warnings, as they are logged."""
    found: list[str] = []

    class Collect(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.levelno >= logging.WARNING:
                found.append(record.getMessage())

    handler = Collect()
    logging.getLogger("cronactors").addHandler(handler)
    yield found
    logging.getLogger("cronactors").removeHandler(handler)


def claimed(number: int, name: str = "a", prompt: str = "say it") -> Claimed:
    row = job(name, prompt=prompt)
    return Claimed(run(id=number, job_id=name, job_name=name), row, None, None, None)


def failed(text: str) -> Outcome:
    return Outcome(status=RunStatus.FAILED, cause=Cause.ERROR, error=text)


async def test_a_scheduler_without_notifier_logs_failed_runs_and_the_success_after_them(
    virtual_clock: VirtualClock, lines: list[str]
) -> None:
    fails = 2

    async def executor(context: JobContext) -> None:
        nonlocal fails
        fails -= 1
        if fails >= 0:
            raise ValueError(f"of {context.prompt}")

    async with open_scheduler(":memory:", executor) as scheduler:
        await scheduler.store.add_job("job", "do the thing that is secret", OneShot(after(1)))
        await trio.sleep(200)
    assert lines == [
        "run 1 of job 'job' failed: ValueError: of <prompt>",
        "job 'job' succeeds again after 2 failures (run 3)",
    ]


def snippet(page: str, word: str) -> str:
    """The block of code in a page of the docs that holds a word."""
    found = re.findall(r"^```python\n(.*?)^```$", (ROOT / "docs" / page).read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    (block,) = [code for code in found if word in code]
    return str(block)


async def test_records_carry_the_ids_of_job_run_and_attempt(
    virtual_clock: VirtualClock, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    names: dict[str, object] = {}
    exec(snippet("troubleshooting.md", "cron_run").replace('"7"', '"3"'), names)
    handler = names["handler"]
    assert isinstance(handler, logging.Handler)
    failures = 3

    async def executor(context: JobContext) -> None:
        nonlocal failures
        failures -= 1
        if failures >= 0:
            raise ValueError(f"failure {failures}")

    try:
        async with open_scheduler(":memory:", executor) as scheduler:
            job_id = await scheduler.store.add_job("job", "it", OneShot(after(1)))
            await trio.sleep(1000)
    finally:
        logging.getLogger("cronactors").removeHandler(handler)
    ids = [
        tuple(vars(record).get(field) for field in ("cron_job", "cron_run", "cron_attempt"))
        for record in caplog.records
        if record.name == "cronactors.failures"
    ]
    assert ids == [(job_id, str(number), number) for number in (1, 2, 3, 4)]
    assert capsys.readouterr().err == "run 3 of job 'job' failed: ValueError: failure 0\n"


async def test_timeouts_are_logged_and_interruptions_are_not(virtual_clock: VirtualClock, lines: list[str]) -> None:
    async with open_scheduler(":memory:", Sleeper(100), shutdown_grace=0, config=CronConfig(max_concurrent_runs=2)) as scheduler:
        await start_jobs(scheduler, "interrupted")
        await scheduler.store.add_job("slow", "it", Interval(2000), timeout_secs=1, max_retries=0)
        await trio.sleep(3.5)
    assert lines == ["run 2 of job 'slow' failed: timed out after 1 s"]


async def test_equal_lines_are_logged_once_a_minute_with_a_count(autojump_clock, lines: list[str]) -> None:
    log = FailureLog()
    for second in range(121):
        log.note(claimed(second), failed("boom"))
        if second == 30:
            log.note(claimed(1000), failed("another"))
            log.note(claimed(1001, "b"), failed("boom"))
        await trio.sleep(1)
    assert lines == [
        "run 0 of job 'a' failed: boom",
        "run 1000 of job 'a' failed: another",
        "run 1001 of job 'b' failed: boom",
        "run 60 of job 'a' failed: boom (59 more like it since the last line)",
        "run 120 of job 'a' failed: boom (59 more like it since the last line)",
    ]


async def test_only_failures_and_timeouts_are_logged(autojump_clock, lines: list[str]) -> None:
    log = FailureLog()
    log.note(claimed(1), SUCCESS)
    log.note(claimed(2), INTERRUPTED)
    log.note(claimed(3), Outcome(status=RunStatus.CANCELLED, cause=Cause.CANCELLED))
    log.note(claimed(4), SUCCESS)
    assert lines == []
    log.note(claimed(5), timed_out(3))
    log.note(claimed(6), INTERRUPTED)
    log.note(claimed(7), SUCCESS)
    log.note(claimed(8), SUCCESS)
    assert lines == ["run 5 of job 'a' failed: timed out after 3 s", "job 'a' succeeds again after 1 failure (run 7)"]


async def test_the_number_of_jobs_and_lines_kept_is_bounded(autojump_clock, lines: list[str]) -> None:
    log = FailureLog()
    for number in range(3 * failure_log.REMEMBERED):
        log.note(claimed(number, f"job {number}"), failed("boom"))
        log.note(claimed(number, "one"), failed(f"boom {number}"))
    assert len(log._failures) == len(log._lines) == failure_log.REMEMBERED
    assert len(lines) == 6 * failure_log.REMEMBERED
    log.note(claimed(1, "one"), SUCCESS)
    assert lines[-1] == "job 'one' succeeds again after 3,000 failures (run 1)"


async def test_a_line_is_one_line_of_bounded_length(autojump_clock, lines: list[str]) -> None:
    FailureLog().note(claimed(1), failed("first\nsecond\x1b[31m" + "x" * 10_000))
    assert len(lines[0]) < 300
    assert lines[0].isprintable()


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("ValueError: Summarize the secret plans of Bob", "ValueError: <prompt>"),
        ("got 'Summarize the secret plans of Bob' twice: Summarize the secret plans of Bob!", "got '<prompt>' twice: <prompt>!"),
        ("ValueError: Summarize the secret plan", "ValueError: <prompt>"),
        ("ValueError: Summarize", "ValueError: Summarize"),
        ("", ""),
    ],
)
def test_no_line_holds_a_prompt(text: str, shown: str) -> None:
    assert without_prompt(text, "Summarize the secret plans of Bob") == shown


@pytest.mark.parametrize("prompt", ["Summarize the alerts of host\nTOKEN=s3cr3t", "Run:\nexport TOKEN=s3cr3t\n\tand more of it"])
def test_a_prompt_of_several_lines_is_hidden_in_every_quoted_form(prompt: str) -> None:
    command = subprocess.CalledProcessError(1, ["agent", "--prompt", prompt])
    for text in (prompt, str(command), json.dumps({"prompt": prompt}), one_line(f"bad prompt: {prompt}", 1000)):
        assert "s3cr3t" not in without_prompt(text, prompt)
        assert "<prompt>" in without_prompt(text, prompt)


def test_a_prompt_of_a_few_characters_is_left_in_the_text() -> None:
    assert without_prompt("it fails", "it") == "it fails"
