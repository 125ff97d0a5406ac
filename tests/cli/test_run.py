"""The command with a scheduler: its output, signals, kill -9, and reading its file from a second process."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
import time

import pytest
import trio

import cronactors
from cronactors import CronJob, CronRun, JobContext, JobSpec, NotificationStatus, OneShot, Receiver, RetryPolicy
from tests.cli_command import COMMAND, QUICK, ROOT, SLOW, TIME, lines_of, start, write
from tests.cli_stores import write_on_each

__all__ = ["start", "write", "write_on_each"]


@pytest.mark.slow
def test_run_prints_header_runs_and_summary(start, write, tmp_path):
    write(QUICK)
    code, text = start("run", "--for", "2.5").end()
    assert code == 0, text
    assert text.startswith(
        f"cronactors {cronactors.__version__}\nfile      {tmp_path}/agent.toml\ndatabase  {tmp_path}/jobs.db\n"
    )
    assert "zone      Europe/Rome\nslots     3 runs at a time\n" in text
    assert re.search(rf"^  every    (next|due since) {TIME}  \(every 0.3 s\)$", text, re.MULTILINE)
    assert "cronactors runs every --config agent.toml" in text
    started, ended = lines_of(text, "every .*started"), lines_of(text, "every .*success")
    assert len(started) >= 5
    assert abs(len(started) - len(ended)) <= 1
    assert re.fullmatch(rf"{TIME}  every    attempt 1  success    \d\.\d\d s  one", ended[0])
    assert len(lines_of(text, "seconds .*success .* six fields")) >= 2
    assert len(lines_of(text, "once .*success .* hello")) == 1
    assert re.search(rf"fails    attempt 1  failed     \d\.\d\d s  .*exit status 3: bad(; retry at {TIME})?$", text, re.MULTILINE)
    assert not lines_of(text, "WARNING"), "a failed run is printed once"
    assert re.match(r"ended: \d+ runs \(.*\)\. Nothing is lost: start it again to continue\.", text.splitlines()[-1])


@pytest.mark.slow
def test_a_second_start_continues_and_does_not_repeat_the_one_shot(start, write_on_each, tmp_path):
    write_on_each(QUICK)
    assert start("run", "--for", "0.7").end()[0] == 0
    code, text = start("run", "--for", "0.7").end()
    assert code == 0
    assert not lines_of(text, "once .*started")
    assert lines_of(text, "every .*success")
    assert (tmp_path / "once.txt").read_text() == "once\n"


@pytest.mark.slow
def test_jobs_that_were_added_need_no_file(start):
    assert start("add", "hello", "echo hello", "--in", "0s", "--db", "jobs.db").end()[0] == 0
    code, text = start("run", "--db", "jobs.db", "--executor", "shell", "--for", "0.7").end()
    assert code == 0
    assert len(lines_of(text, "hello .*success .* hello")) == 1
    assert not lines_of(text, "^file ")
    code, text = start("run", "--executor", "shell").end()
    assert (code, "agent.toml: cannot be read" in text) == (1, True)


@pytest.mark.slow
def test_it_leaves_the_notifications_of_another_program_alone(start, write, tmp_path):
    async def fail(_job: CronJob, _run: CronRun) -> None:
        raise OSError("the mail server is down")

    async def execute(_context: JobContext) -> str:
        return "fine"

    async def finish_one_run() -> None:
        jobs = [JobSpec("other", "Summarize", OneShot(cronactors.now()))]
        retry = RetryPolicy(delays=(0.1,))
        on_finish = Receiver(fail, retry=retry, attempts=100)
        async with cronactors.open_scheduler(tmp_path / "jobs.db", execute, on_finish=on_finish, jobs=jobs) as scheduler:
            await scheduler.wait_idle()

    async def pending() -> list[str]:
        async with cronactors.open_store(tmp_path / "jobs.db") as store:
            return [each.key for each in await store.list_notifications(status=NotificationStatus.PENDING)]

    trio.run(finish_one_run)
    write(QUICK)
    assert start("run", "--for", "1").end()[0] == 0
    assert trio.run(pending) == ["run:1"]


@pytest.mark.slow
def test_list_and_runs_while_a_scheduler_has_the_file_open(start, write_on_each):
    write_on_each(QUICK)
    running = start("run")
    for name in ("every", "once", "fails"):
        running.wait_for(f"{name} .*(success|failed)")
    code, text = start("list").end()
    assert code == 0, text
    assert lines_of(text, rf"^every +every 0.3 s +Europe/Rome +{TIME} +{TIME} +enabled")
    assert lines_of(text, "^once +once, .* done")
    assert lines_of(text, "^fails .* retrying .*exit status 3: bad")
    code, text = start("list", "--json").end()
    jobs = {job["name"]: job for job in json.loads(text)}
    assert code == 0
    assert jobs["every"]["schedule"] == {"kind": "interval", "every_ms": 300}
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", jobs["every"]["next_run_at"])
    code, text = start("runs", "every", "--limit", "2").end()
    assert code == 0
    assert len(lines_of(text, r"success +\d\.\d\d s +one")) >= 1
    assert len(text.splitlines()) == 3
    code, text = start("runs", "once", "--config", "agent.toml", "--json").end()
    assert [run["status"] for run in json.loads(text)] == ["success"]
    assert json.loads(text)[0]["result_summary"] == "hello"
    code, text = start("runs", "absent").end()
    assert (code, text) == (1, "cronactors: no job has the name 'absent'; cronactors list shows them")
    running.process.send_signal(signal.SIGTERM)
    assert running.end()[0] == 0


@pytest.mark.slow
def test_kill_9_after_a_run_has_started(start, write_on_each, tmp_path):
    write_on_each(SLOW)
    first = start("run")
    first.wait_for("slow .*started")
    first.process.kill()
    assert first.end()[0] == -signal.SIGKILL
    (tmp_path / "finish").touch()
    second = start("run")
    assert "attempt 1" in second.wait_for("^interrupted: slow")
    second.wait_for("slow .*attempt 2 .*success .*finished")
    second.process.send_signal(signal.SIGINT)
    code, text = second.end()
    assert code == 0
    assert len(lines_of(text, "slow .*started")) == 1
    assert (tmp_path / "started.txt").read_text().count("started\n") in (1, 2)  # it may be killed before the shell has started
    runs = json.loads(start("runs", "slow", "--json").end()[1])
    assert [(run["attempt"], run["status"], run["cause"]) for run in runs] == [(2, "success", None), (1, "failed", "interrupted")]


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_in_order(start, write, number):
    write(QUICK)
    running = start("run")
    running.wait_for("every .*success")
    running.process.send_signal(number)
    code, text = running.end()
    assert code == 0, text
    assert lines_of(text, f"^{number.name}: stopping in order")
    assert text.splitlines()[-1].startswith("ended: ")


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_stops_at_once(start, write, tmp_path, number):
    write(SLOW)
    running = start("run")
    running.wait_for("slow .*started")
    running.process.send_signal(number)
    running.wait_for("waiting at most 5 s for 1 run;")
    sent = time.monotonic()
    running.process.send_signal(number)
    code, text = running.end()
    assert time.monotonic() - sent < 3
    assert code == 128 + number
    assert lines_of(text, "slow .*interrupted")
    (tmp_path / "finish").touch()
    again = start("run")
    again.wait_for("slow .*success")
    again.process.send_signal(signal.SIGTERM)
    assert again.end()[0] == 0


@pytest.mark.slow
def test_a_job_removed_from_the_file_is_removed_and_its_runs_stay(start, write_on_each):
    write_on_each(QUICK)
    first = start("run")
    first.wait_for("once .*success")
    first.process.send_signal(signal.SIGINT)
    assert first.end()[0] == 0
    write_on_each(SLOW.replace("[ ! -e finish ]", "false"))
    assert start("run", "--for", "0.5").end()[0] == 0
    assert [job["name"] for job in json.loads(start("list", "--json").end()[1])] == ["slow"]
    assert len(json.loads(start("runs", "once", "--json").end()[1])) == 1


@pytest.mark.slow
def test_the_option_executor_overrides_the_file(start, write, tmp_path):
    write(QUICK)
    (tmp_path / "my_agent.py").write_text("async def execute(context):\n    return f'agent did {context.prompt!r}'\n")
    running = start("run", "--executor", "my_agent:execute", "--db", "other.db", PYTHONDONTWRITEBYTECODE="1")
    running.wait_for("every .*success .*agent did 'echo one; echo two'")
    running.process.send_signal(signal.SIGINT)
    assert running.end()[0] == 0
    assert (tmp_path / "other.db").exists()
    assert not (tmp_path / "jobs.db").exists()


@pytest.mark.slow
def test_control_characters_are_escaped(start, write):
    write('[[cron.jobs]]\nname = "[bold]x[/]"\nprompt = "printf \'\\\\033]0;title\\\\007\\\\033[31mred[bold]\'"\nin_secs = 0')
    running = start("run")
    line = running.wait_for(r"\[bold\]x\[/\] .*success")
    assert line.endswith(r"\x1b]0;title\x07\x1b[31mred[bold]")
    running.process.send_signal(signal.SIGINT)
    assert running.end()[0] == 0
    assert "\x1b" not in start("list").end()[1]
    assert r"\x1b]0;title\x07\x1b[31mred[bold]" in start("runs", "[bold]x[/]").end()[1]


@pytest.mark.slow
def test_it_stops_in_order_when_its_reader_goes_away(write, tmp_path):
    write(QUICK)
    with subprocess.Popen(
        [*COMMAND, "run"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr is not None
        assert process.stderr.read() == b""
        assert process.wait(20) == 1


@pytest.mark.slow
@pytest.mark.parametrize("closed", ["<&-", "<&- >&- 2>&-"])
def test_closed_standard_streams_are_replaced(write, tmp_path, closed):
    write(QUICK)
    command = f'"$0" -c "from cronactors.cli import main; main()" run --for 0.5 {closed}'
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run(["/bin/sh", "-c", command, sys.executable], cwd=tmp_path, env=environment, capture_output=True, check=True)
    assert (tmp_path / "once.txt").read_text() == "once\n"


@pytest.mark.slow
def test_a_terminal_gets_colours(write, tmp_path):
    write(QUICK)
    leader, follower = pty.openpty()
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TERM": "xterm", "NO_COLOR": ""}
    with subprocess.Popen(
        [*COMMAND, "run", "--for", "1"], cwd=tmp_path, env=environment, stdout=follower, stdin=follower
    ) as process:
        os.close(follower)
        text = b""
        try:
            while piece := os.read(leader, 65536):
                text += piece
        except OSError:  # the other side is closed
            pass
        os.close(leader)
        assert process.wait() == 0
    assert b"\x1b[32msuccess" in text
