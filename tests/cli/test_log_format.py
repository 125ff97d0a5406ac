"""`--log-format json`: every line is an object with a time, and no line has a prompt."""

from __future__ import annotations

import json
import logging
import signal
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import attrs
import pytest

from cronactors import CronConfig, CronJob, CronRun, Interval, JobContext, JobSpec, RunStatus, log_fields, now
from cronactors.cli.json_report import JsonReport, left_out_line
from cronactors.cli.log_format import JsonFormatter, json_line
from cronactors.errors import InvalidConfig, StoreUnavailable
from cronactors.model import Cause, SessionMode, Trigger
from cronactors.origins import LostOrigin, StartReport
from cronactors.testing import fake_run
from tests.cli_command import QUICK, start, write

__all__ = ["start", "write"]

SECRET = "curl -H 'Authorization: hunter2' https://example.org/a/long/command"


def formatted(record: logging.LogRecord) -> dict[str, Any]:
    line = JsonFormatter().format(record)
    assert len(line.splitlines()) == 1
    assert line.isascii()
    found = json.loads(line, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert isinstance(found, dict)
    return found


def record(message: str = "hello %s", *args: object, **extra: object) -> logging.LogRecord:
    made = logging.getLogger("cronactors.some").makeRecord(
        "cronactors.some", logging.WARNING, __file__, 1, message, args or ("you",), None, extra=extra
    )
    made.created = 1_774_767_600.25
    return made


def test_a_record_has_time_level_logger_and_message() -> None:
    assert formatted(record()) == {
        "time": "2026-03-29T07:00:00.250Z",
        "level": "WARNING",
        "logger": "cronactors.some",
        "message": "hello you",
    }


def test_a_record_about_a_run_has_its_ids() -> None:
    run = CronRun(
        id="7",
        job_id="j",
        job_name="n",
        user_id=None,
        scheduled_at=now(),
        attempt=2,
        trigger=Trigger.RETRY,
        status=RunStatus.RUNNING,
    )
    line = formatted(record("x%s", "", **log_fields.of_run(run)))
    assert {key: line[key] for key in ("cron_job", "cron_run", "cron_attempt")} == {
        "cron_job": "j",
        "cron_run": "7",
        "cron_attempt": 2,
    }


async def test_a_record_of_an_executor_has_the_ids_of_its_run() -> None:
    with fake_run() as run:
        line = formatted(record())
        assert (line["cron_run"], line["cron_job"], line["cron_attempt"]) == (run.run_id, run.job_id, run.attempt)
        assert formatted(record("x%s", "", cron_run="8"))["cron_run"] == "8"
    assert "cron_run" not in formatted(record())


def test_extra_fields_that_are_plain_values_are_kept_and_replace_nothing() -> None:
    line = formatted(record("x%s", "", tokens=3, rate=float("nan"), note="\u2028 \x00 é \udcff", thing=object(), time="never"))
    assert (line["tokens"], line["rate"], line["note"]) == (3, "nan", "\u2028 \x00 é \udcff")
    assert "thing" not in line
    assert line["time"] == "2026-03-29T07:00:00.250Z"


def test_an_exception_is_in_the_line() -> None:
    made = record("first\nsecond%s", "")
    try:
        raise OSError("the disk is full")
    except OSError:
        made.exc_info = sys.exc_info()
    line = formatted(made)
    assert line["message"] == "first\nsecond"
    assert line["exception"].startswith("Traceback (most recent call last):\n")
    assert line["exception"].endswith("OSError: the disk is full")


def test_the_time_is_now_where_none_is_given() -> None:
    at = datetime.fromisoformat(json.loads(json_line("INFO", "x", "y", {}))["time"])
    assert abs(now() - at) < timedelta(seconds=60)
    assert at.tzinfo == UTC


# What run prints


class Printed:
    """A report whose lines are read."""

    def __init__(self) -> None:
        self.text: list[str] = []
        jobs = (JobSpec("a", SECRET, Interval(60_000), data={"token": "hunter2"}),)
        self.report = JsonReport(CronConfig(jobs=jobs, file="/x/agent.toml"), self.text.append)

    def lines(self) -> list[dict[str, Any]]:
        found = [json.loads(line) for line in self.text]
        assert all({"time", "level", "logger", "message", "event"} <= set(line) for line in found)
        assert "hunter2" not in "".join(self.text)
        self.text.clear()
        return found


def context() -> JobContext:
    return JobContext(
        prompt=SECRET,
        session_mode=SessionMode.ISOLATED,
        job_name="a",
        job_id="j",
        user_id=None,
        run_id="7",
        scheduled_at=now(),
        attempt=1,
    )


def run(status: RunStatus, **fields: Any) -> CronRun:
    at = now()
    return CronRun(
        id="7",
        job_id="j",
        job_name="a",
        user_id=None,
        scheduled_at=at,
        attempt=1,
        trigger=Trigger.SCHEDULE,
        status=status,
        started_at=at,
        completed_at=at + timedelta(seconds=1.5),
        **fields,
    )


def job(**fields: Any) -> CronJob:
    return CronJob(
        id="j",
        name="a",
        user_id=None,
        prompt=SECRET,
        schedule=Interval(60_000),
        timezone="UTC",
        enabled=True,
        created_at=now(),
        **fields,
    )


def test_a_run_that_starts_and_finishes() -> None:
    printed = Printed()
    printed.report.run_started(context())
    printed.report.run_finished(None, run(RunStatus.SUCCESS, result_summary=f"fine: {SECRET}\nand more"))
    started, finished = printed.lines()
    ids = {"job": "a", "cron_job": "j", "cron_run": "7", "cron_attempt": 1}
    assert ids.items() <= started.items()
    assert (started["event"], started["level"], started["message"]) == ("run_started", "INFO", "a: attempt 1 started")
    assert ids.items() <= finished.items()
    assert (finished["event"], finished["level"], finished["status"]) == ("run_finished", "INFO", "success")
    assert (finished["duration_secs"], finished["result"]) == (1.5, "fine: <prompt>"), "the job was removed meanwhile"
    printed.report.summary()
    (end,) = printed.lines()
    assert (end["event"], end["runs"]) == ("end", {"success": 1})


def test_a_run_that_fails_is_a_warning_without_its_prompt() -> None:
    printed = Printed()
    retry_at = datetime(2026, 3, 2, 9, tzinfo=UTC)
    failed = run(RunStatus.FAILED, cause=Cause.ERROR, error=f"OSError: cannot run {SECRET}")
    printed.report.run_finished(job(retry_at=retry_at), failed)
    (line,) = printed.lines()
    assert (line["level"], line["status"], line["cause"]) == ("WARNING", "failed", "error")
    assert line["result"] == "OSError: cannot run <prompt>"
    assert line["retry_at"] == "2026-03-02T09:00:00.000Z"


def test_no_line_has_the_prompt_of_the_run_when_the_job_has_another_or_is_unknown() -> None:
    printed = Printed()
    failed = run(RunStatus.FAILED, cause=Cause.ERROR, error=f"OSError: cannot run {SECRET}")
    printed.report.run_started(context())
    printed.report.run_finished(attrs.evolve(job(), prompt="another"), failed)
    assert printed.lines()[1]["result"] == "OSError: cannot run <prompt>"
    printed.report.run_finished(None, failed)
    (line,) = printed.lines()
    assert (line["status"], line["result"]) == ("failed", None)


def test_the_other_lines_are_objects_too() -> None:
    printed = Printed()
    lost = LostOrigin("old.toml", 2, "which is gone")
    report = StartReport(("1 one-shot has passed, recorded as skipped: d",), (lost,), ("a",), (), ("b", "c"), 3)
    printed.report.header(report, "/x/agent.db")
    printed.report.jobs([job()])
    printed.report.end_of_header([run(RunStatus.FAILED, cause=Cause.INTERRUPTED)])
    printed.report.run_started(context())
    printed.report.file_read(printed.report.config, report, ["history"])
    printed.report.file_refused(InvalidConfig("it has a mistake"))
    printed.report.file_waits(StoreUnavailable("the database is locked"))
    printed.report.file_gone()
    printed.report.note("SIGTERM: stopping in order", event="stop", timed=False)
    printed.report.stopping()
    printed.report.summary()
    printed.text.append(left_out_line("… 7 lines left out …"))
    lines = printed.lines()
    assert [line["event"] for line in lines] == [
        *("start", "start", "lost_list", "run_interrupted", "run_started"),
        *("file_read", "lost_list", "file_read", "file_read", "file_refused", "file_waits", "file_gone"),
        *("stop", "stopping", "run_interrupted", "end", "lines_left_out"),
    ]
    numbers = {"added": 1, "changed": 0, "removed": 2, "unchanged": 3}
    assert numbers.items() <= lines[0].items()
    assert numbers.items() <= lines[7].items()
    assert lines[7]["message"] == "read agent.toml again: 1 added (a); 2 removed (b, c); 3 jobs unchanged"
    assert lines[-2]["runs"] == {"interrupted": 1}


def test_the_header_without_a_file() -> None:
    text: list[str] = []
    JsonReport(CronConfig(), text.append).header(StartReport(), "/x/agent.db")
    assert json.loads(text[0])["message"].endswith(" runs the jobs of the database: 0 jobs unchanged")


@pytest.mark.slow
def test_each_line_of_the_command_is_an_object(start, write, tmp_path: Path) -> None:
    write(QUICK)
    (tmp_path / "my_agent.py").write_text(
        "import logging, warnings\n"
        "warnings.simplefilter('always')\n"
        "async def execute(context):\n"
        "    warnings.warn('old')\n"
        "    logging.getLogger('mine').warning('two\\nlines')\n"
        "    return 'done'\n"
    )
    running = start("run", "--log-format", "json", "--executor", "my_agent:execute", PYTHONDONTWRITEBYTECODE="1")
    running.wait_for('"run_finished"')
    running.process.send_signal(signal.SIGHUP)
    running.wait_for('"file_read"')
    running.process.send_signal(signal.SIGTERM)
    code, text = running.end()
    lines = [json.loads(line) for line in text.splitlines()]
    assert code == 0
    assert {line["logger"] for line in lines} >= {"cronactors.run", "mine", "py.warnings"}
    (mine, *_) = [line for line in lines if line["logger"] == "mine"]
    assert mine["message"] == "two\nlines"
    assert mine["cron_run"] in {line["cron_run"] for line in lines if line.get("event") == "run_started"}
    assert lines[-1]["event"] == "end"
    (tmp_path / "agent.toml").write_text("[cron]\nx = 1")
    code, text = start("run", "--log-format", "json").end()
    assert code == 1
    (line,) = [json.loads(line) for line in text.splitlines()]
    assert line["level"] == "CRITICAL"
    assert "unknown key 'x'" in line["message"]
