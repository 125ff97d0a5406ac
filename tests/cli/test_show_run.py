"""The verb `show-run`."""

from __future__ import annotations

import json
import re
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import trio

from cronactors import (
    Cause,
    CronConfig,
    CronRun,
    Interval,
    JobSpec,
    Overlap,
    RetryPolicy,
    RunStatus,
    Trigger,
    open_scheduler,
    open_store,
)
from cronactors.cli.run_words import sentence, waiting
from cronactors.testing import VirtualClock
from tests.cli_history import HOURLY, LONG_ERROR, START, address, call, filled

__all__ = ["address", "filled"]


def ids_of(database: Path, name: str) -> list[str]:
    """Return the ids of the runs of a job, the first one first."""
    return [run["id"] for run in json.loads(call(database, "runs", name, "--json")[1])][::-1]


def shown(database: Path | str, run_id: str, *args: str) -> str:
    status, output = call(database, "show-run", run_id, *args)
    assert status == 0, output
    return output


def shown_json(database: Path | str, run_id: str, *args: str) -> Any:
    return json.loads(shown(database, run_id, "--json", *args))


def test_a_run_that_succeeded(filled):
    run_id = ids_of(filled, "report")[0]
    text = shown(filled, run_id)
    facts, *sections = re.split(r"\n\n", text)
    assert re.sub(r"\d\.\d\d s", "N s", facts).splitlines() == [
        f"run         {run_id}",
        "job         report",
        "status      success",
        "trigger     schedule, attempt 1",
        "scheduled   2026-03-02 10:00:00 CET",
        "started     2026-03-02 10:00:00 CET  (N s late)",
        "completed   2026-03-02 10:00:05 CET  (took N s)",
        "session     the session",
    ]
    assert sections[0] == "result:\n  done\n  second line"
    heading, *lines = sections[1].splitlines()
    assert heading == "output, the last 20 of 30 lines (--output prints all):"
    assert lines == [f"  line {number}    \\x1b[31m" for number in range(10, 30)]
    assert sections[2:] == ["notifications:\n  on_finish  delivered\n"]
    assert "s3cret" not in text


def test_all_of_the_output_and_the_data_only_on_request(filled):
    run_id = ids_of(filled, "report")[0]
    text = shown(filled, run_id, "--output", "--data")
    assert "\noutput:\n  line 0    \\x1b[31m\n" in text
    assert '\ndata:\n  {\n    "token": "s3cret"\n  }\n' in text


def test_a_run_that_failed_shows_its_whole_error_and_all_attempts_of_its_moment(filled):
    first, second, third, *_ = ids_of(filled, "bad")
    text = shown(filled, second)
    assert "\nstatus      failed: the executor raised an error (error)\ntrigger     retry, attempt 2\n" in text
    assert "\nready       2026-03-02 09:00:35 UTC\nstarted     2026-03-02 09:00:35 UTC  (0.0" in text
    assert "\nerror:\n  OSError: " + LONG_ERROR.replace("\n", "\n  ") in text
    table = text.partition("all attempts of this moment:\n")[2].partition("\n\n")[0].splitlines()
    assert [re.split("  +", line)[:5] for line in table] == [
        ["run", "attempt", "trigger", "started", "status"],
        [first, "1", "schedule", "2026-03-02 09:00:00", "failed/error"],
        [f"{second} *", "2", "retry", "2026-03-02 09:00:35", "failed/error"],
        [third, "3", "retry", "2026-03-02 09:01:40", "failed/error"],
    ]
    assert text.endswith("notifications:\n  on_finish  given up, 2 failed: OSError: the mail server is down\n")
    assert all(len(line) <= 80 for line in text.splitlines())


def test_attempts_are_those_of_the_moment_alone(filled):
    found = ids_of(filled, "bad")
    for moment in (found[:3], found[3:]):
        for run_id in moment:
            assert [each["id"] for each in shown_json(filled, run_id)["attempts"]] == moment


def test_as_json(filled):
    run_id = ids_of(filled, "report")[0]
    found = shown_json(filled, run_id)
    assert found["run"]["id"] == run_id
    assert found["run"]["scheduled_at"] == found["ready_at"] == "2026-03-02T09:00:00.000Z"
    assert (found["zone"], found["job_exists"], found["sentence"]) == ("Europe/Rome", True, "success")
    assert 0 <= found["late_secs"] < 1
    assert 5 <= found["took_secs"] < 6
    assert found["output"] == {
        "text": "".join(f"line {number}\t\x1b[31m\n" for number in range(10, 30)),
        "lines": 30,
        "bytes_left_out": 0,
        "finished": True,
    }
    (notification,) = found["notifications"]
    assert (notification["key"], notification["receiver"], notification["status"]) == (f"run:{run_id}", "on_finish", "delivered")
    assert "result_data" not in found["run"]
    everything = shown_json(filled, run_id, "--data", "--output")
    assert everything["run"]["result_data"] == {"token": "s3cret"}
    assert everything["output"]["text"].startswith("line 0\t")


def test_the_run_of_a_job_that_was_removed(filled):
    (run_id,) = ids_of(filled, "gone")
    assert "job         gone, which was removed\n" in shown(filled, run_id)
    assert shown_json(filled, run_id)["job_exists"] is False


@pytest.mark.parametrize("run_id", ["999999", "x", "-1", "٣", "9" * 30])
def test_a_run_that_does_not_exist(filled, run_id):
    assert call(filled, "show-run", "--", run_id) == (1, f"cronactors: no run has the id '{run_id}'")


def test_wrong_usage(filled):
    assert call(filled, "show-run")[0] == 2
    assert call(filled, "show-run", "1", "2")[0] == 2


def test_attempts_on_each_store(address):
    """Requested runs, and a run of the schedule that a crash of its loop interrupts: each moment has its own attempts."""

    async def fill() -> str:
        async with open_store(address) as store:
            job_id = await store.add_job("job", "it", HOURLY, max_retries=1, overlap=Overlap.ALLOW_ALL, user_id="ann")
            for _ in range(2):
                run_id = await store.record_run_start(job_id)
                await store.record_run_complete(run_id, RunStatus.FAILED, "it broke")
                await trio.sleep(0.002)  # moments of runs of one job differ
            await store.request_run(job_id)
            return run_id

    run_id = trio.run(fill)
    found = shown_json(address, run_id)
    assert {each["scheduled_at"] for each in found["attempts"]} == {found["run"]["scheduled_at"]}
    assert run_id in [each["id"] for each in found["attempts"]]
    text = shown(address, run_id)
    assert "job         job of user ann\n" in text
    assert "\nerror:\n  it broke\n" in text
    requested = next(
        run["id"] for run in json.loads(call(address, "runs", "--json", "--status", "pending", "--trigger", "manual")[1])
    )
    assert "status      pending: it waits for its time\ntrigger     manual, attempt 1\n" in shown(address, requested)
    assert [each["id"] for each in shown_json(address, requested)["attempts"]] == [requested]


async def test_runs_that_are_pending_and_running_now(virtual_clock: VirtualClock, tmp_path: Path) -> None:
    virtual_clock.set_wall(START)

    async def execute(_context: object) -> None:
        await trio.sleep(50 * 60)
        raise ValueError("no luck")

    file = tmp_path / "a.db"
    config = CronConfig(retry=RetryPolicy(delays=[60]))
    jobs = [JobSpec("job", "it", Interval.every(hours=3), overlap=Overlap.BUFFER_ONE)]
    async with open_scheduler(file, execute, config=config, jobs=jobs):
        await trio.sleep(3 * 3600 + 60)
        running = await trio.to_thread.run_sync(call, file, "show-run", "1")
        await trio.sleep(49.5 * 60)
        pending = await trio.to_thread.run_sync(call, file, "show-run", "2")
    assert "\nstatus      running\n" in running[1]
    assert "\ncompleted   still running, for " in running[1]
    assert "\nstatus      pending: it waits for its time\n" in pending[1]
    assert re.search(r"\nscheduled   2026-03-02 11:00:00 UTC\nready       2026-03-02 11:5\d:\d\d UTC\n", pending[1])
    assert "\nstarted" not in pending[1]


# Sentences


def run_with(status: RunStatus, cause: Cause | None) -> CronRun:
    return CronRun(
        id="1", job_id="j", job_name="j", user_id=None, scheduled_at=START, attempt=1, trigger=Trigger.SCHEDULE, status=status, cause=cause,
        started_at=START, completed_at=START + timedelta(seconds=1),
    )  # fmt: skip


@pytest.mark.parametrize("status", RunStatus)
@pytest.mark.parametrize("cause", [None, *Cause])
def test_every_status_and_cause_has_a_sentence(status, cause):
    text = sentence(run_with(status, cause))
    assert text.startswith(str(status))
    if cause is not None and status in (RunStatus.FAILED, RunStatus.CANCELLED, RunStatus.SKIPPED):
        assert text.endswith(f"({cause})")


DOCUMENTED = {
    RunStatus.FAILED: [Cause.ERROR, Cause.TIMEOUT, Cause.GAVE_UP, Cause.INTERRUPTED],
    RunStatus.CANCELLED: [Cause.CANCELLED, Cause.REPLACED, Cause.REMOVED, Cause.MISFIRE],
    RunStatus.SKIPPED: [Cause.OVERLAP, Cause.MISFIRE, Cause.CANCELLED, Cause.REPLACED, Cause.REMOVED, Cause.INTERRUPTED],
}


@pytest.mark.parametrize(("status", "cause"), [(status, cause) for status, causes in DOCUMENTED.items() for cause in causes])
def test_every_cause_that_a_status_has_is_explained_in_words(status, cause):
    assert len(sentence(run_with(status, cause)).split()) >= 6


@pytest.mark.parametrize(
    ("stored", "words"),
    [
        (None, "pending: it waits for its time"),
        ("pause", "pending: it waits for its job to be resumed"),
        ("crash_loop", "pending: it waits for its turn: runs of jobs in a crash loop start one at a time"),
        ("job:x", "pending: it waits for another run of its job"),
        ("session:ann", "pending: it waits for its session, which another run uses"),
    ],
)
def test_what_a_pending_run_waits_for(stored, words):
    assert sentence(run_with(RunStatus.PENDING, None), waiting(stored)) == words
