"""The shell executor when an exit status is lost, and when processes are still running at the exit of the shell."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from cronactors import Interval, RunStatus, open_scheduler
from cronactors.errors import InvalidJob
from cronactors.executors import CommandFailed, shell_executor
from cronactors.model import JobResult
from cronactors.shell.process_group import ProcessGroup
from cronactors.testing import make_context
from tests.cli_command import COMMAND, ROOT, lines_of, start, write

__all__ = ["start", "write"]
pytestmark = pytest.mark.skipif(os.name != "posix", reason="needs a POSIX shell")

IGNORED = "exit status unknown: SIGCHLD is ignored in this process, so the system discards it"
TAKEN = "exit status unknown: something else in this process waited for the command"
ENDS = ["exit 3", "exit 7", "kill -9 $$", "exit 0"]


async def shell(prompt: str, cwd: Path, *, grace: float = 0.3) -> str:
    result = await shell_executor(cwd, grace=grace)(make_context(prompt))
    assert isinstance(result, JobResult)
    return result.summary


@pytest.fixture
def ignored() -> Iterator[None]:
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    yield
    signal.signal(signal.SIGCHLD, before)


@pytest.fixture
def reaped() -> Iterator[None]:
    """A handler that reaps every child, as a careless program has."""

    def reap(_number: int, _frame: object) -> None:
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            pass

    before = signal.signal(signal.SIGCHLD, reap)
    yield
    signal.signal(signal.SIGCHLD, before)


@pytest.fixture
def reaping_thread() -> Iterator[None]:
    """A thread that waits for every child."""
    end = threading.Event()

    def reap() -> None:
        while not end.is_set():
            try:
                os.waitpid(-1, 0)
            except ChildProcessError:
                time.sleep(0.001)

    thread = threading.Thread(target=reap)
    thread.start()
    yield
    end.set()
    thread.join()


@pytest.mark.parametrize("prompt", ENDS)
async def test_status_that_the_system_discards_is_unknown(ignored, tmp_path, prompt):
    with pytest.raises(CommandFailed) as caught:
        await shell(f"echo why >&2; {prompt}", tmp_path)
    assert str(caught.value) == f"{IGNORED}: why"


@pytest.mark.parametrize("prompt", ENDS[:3])
@pytest.mark.parametrize("reaper", ["reaped", "reaping_thread"])
async def test_status_that_is_taken_away_is_never_success(request, tmp_path, reaper, prompt):
    request.getfixturevalue(reaper)
    for _ in range(5):
        with pytest.raises(CommandFailed, match="^(exit status [37]$|ended by SIGKILL$|exit status unknown: something else)"):
            await shell(prompt, tmp_path)


async def test_status_that_is_taken_away_says_by_whom(monkeypatch, tmp_path):
    waitid = os.waitid

    def late(kind: int, which: int, options: int) -> object:
        os.waitpid(-1, 0)
        return waitid(kind, which, options)

    monkeypatch.setattr(os, "waitid", late)
    with pytest.raises(CommandFailed, match=f"^{re.escape(TAKEN)}"):
        await shell("exit 0", tmp_path)


@pytest.mark.parametrize(("prompt", "message"), [("exit 3", "exit status 3"), ("kill -9 $$", "ended by SIGKILL")])
async def test_status_without_pidfd(monkeypatch, tmp_path, prompt, message):
    def absent(pid: int, flags: int = 0) -> int:
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(os, "pidfd_open", absent)
    with pytest.raises(CommandFailed, match=message):
        await shell(prompt, tmp_path)
    assert await shell("echo fine", tmp_path) == "fine"
    with trio.fail_after(5), trio.move_on_after(0.1) as scope:
        await shell("sleep 1000", tmp_path)
    assert scope.cancelled_caught


async def test_status_without_pidfd_that_is_discarded(ignored, monkeypatch, tmp_path):
    monkeypatch.delattr(os, "pidfd_open")
    with pytest.raises(CommandFailed, match=f"^{re.escape(IGNORED)}$"):
        await shell("exit 3", tmp_path)


async def test_run_with_a_lost_status_is_recorded_as_failed(ignored, tmp_path):
    async with open_scheduler(tmp_path / "jobs.db", shell_executor(tmp_path)) as scheduler:
        job_id = await scheduler.store.add_job("job", "exit 3", Interval.every(hours=1), max_retries=0)
        run = await scheduler.run_now(job_id)
    assert (run.status, run.result_summary) == (RunStatus.FAILED, None)
    assert run.error is not None
    assert IGNORED in run.error


def test_inherited_disregard_of_sigchld_is_reset_by_the_command(write, tmp_path):
    write(
        '[[cron.jobs]]\nname = "three"\nprompt = "exit 3"\nin_secs = 0\n[[cron.jobs]]\nname = "zero"\nprompt = "exit 0"\nin_secs = 0'
    )
    ignoring = "import os, signal, sys; signal.signal(signal.SIGCHLD, signal.SIG_IGN); os.execv(sys.argv[1], sys.argv[1:])"
    done = subprocess.run(
        [sys.executable, "-c", ignoring, *COMMAND, "run", "--for", "0.7"],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    assert lines_of(done.stdout, "three .*failed .*exit status 3"), done.stdout
    assert lines_of(done.stdout, "zero .*success"), done.stdout


# Processes that are still running when the shell exits


async def test_one_process_that_was_left_is_in_the_summary(tmp_path):
    with trio.fail_after(5):
        text = await shell("sleep 1000 & echo done", tmp_path)
    assert text == "1 process was still running when the shell exited and was ended\ndone"


async def test_processes_that_were_left_are_counted(tmp_path):
    with trio.fail_after(5):
        text = await shell("sleep 1000 & sleep 1000 & sleep 1000 &", tmp_path)
    assert text == "3 processes were still running when the shell exited and were ended"


async def test_bash_redirection_under_another_shell(tmp_path):
    (tmp_path / "nightly.sh").write_text("#!/bin/sh\nsleep 1000\n")
    (tmp_path / "nightly.sh").chmod(0o755)
    if "bash" in os.path.realpath("/bin/sh"):
        pytest.skip("/bin/sh is bash here, which knows &>>")
    with trio.fail_after(5):
        text = await shell("./nightly.sh &>> log", tmp_path)
    assert re.fullmatch(r"[12] process(es were| was) still running when the shell exited and (was|were) ended", text)


async def test_processes_that_were_left_by_a_failure_are_in_the_error(tmp_path):
    with trio.fail_after(5), pytest.raises(CommandFailed) as caught:
        await shell("sleep 1000 & echo bad >&2; exit 3", tmp_path)
    assert str(caught.value) == "exit status 3; 1 process was still running when the shell exited and was ended: bad"


async def test_process_that_ended_by_itself_is_not_counted(tmp_path):
    assert await shell("true & true | cat & wait; echo done", tmp_path) == "done"


async def test_processes_that_cannot_be_counted(monkeypatch, tmp_path):
    monkeypatch.setattr("cronactors.shell.process_group.PROC", tmp_path / "nowhere")
    with trio.fail_after(5):
        text = await shell("sleep 1000 & echo done", tmp_path)
    assert text == "processes were still running when the shell exited and were ended\ndone"


async def test_processes_of_another_user_cannot_be_ended(monkeypatch, tmp_path):
    def refuse(group: int, number: int) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "killpg", refuse)
    text = await shell("sleep 0.5 >/dev/null 2>&1 & echo done", tmp_path)
    assert text == "1 process was still running when the shell exited and could not be ended\ndone"
    assert await shell("echo alone", tmp_path) == "alone"


async def test_proc_of_another_namespace_is_not_believed(monkeypatch, tmp_path):
    """Process ids in it are those of others: a group that it does not show may be alive."""
    (tmp_path / "self").symlink_to("1")
    (tmp_path / "1").mkdir()
    monkeypatch.setattr("cronactors.shell.process_group.PROC", tmp_path)
    deaf = "(trap '' TERM; echo $$ >pid; while :; do sleep 0.05; done) & while [ ! -s pid ]; do sleep 0.01; done; echo done"
    with trio.fail_after(5):
        text = await shell(deaf, tmp_path, grace=0.2)
    assert text.endswith("were ended\ndone")
    monkeypatch.undo()
    group = ProcessGroup(0)
    group.leader = int((tmp_path / "pid").read_text())
    with trio.fail_after(5):
        while await group.running():
            await trio.sleep(0.01)


@pytest.mark.slow
def test_line_and_record_name_the_processes_that_were_left(start, write):
    write('[[cron.jobs]]\nname = "nohup"\nprompt = "nohup sleep 1000 >/dev/null 2>&1 & echo started"\nin_secs = 0')
    said = "1 process was still running when the shell exited and was ended"
    running = start("run")
    running.wait_for(f"nohup .*success .*{said}")
    running.process.send_signal(signal.SIGTERM)
    assert running.end()[0] == 0
    assert lines_of(start("runs", "nohup").end()[1], f"success .*{said}")


# The options of the executor


async def test_shell_of_a_job(tmp_path):
    execute = shell_executor(tmp_path)
    result = await execute(make_context("echo ${BASH_VERSION:+bash} ${0}", executor_options={"shell": "/bin/bash"}))
    assert isinstance(result, JobResult)
    assert result.summary == "bash /bin/bash"


async def test_shell_that_is_absent(tmp_path):
    with pytest.raises(CommandFailed, match=r"'/bin/absent' cannot be started in .*: No such file"):
        await shell_executor(tmp_path)(make_context("true", executor_options={"shell": "/bin/absent"}))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shel": "/bin/bash"}, "executor_options: unknown key 'shel': did you mean shell"),
        ({"shell": "bash"}, "executor_options: shell must be an absolute path, not 'bash'"),
        ({"shell": 5}, "executor_options: shell must be text, not int"),
    ],
)
async def test_options_that_the_executor_does_not_know_fail_the_run(tmp_path, options, message):
    with pytest.raises(InvalidJob, match=message):
        await shell_executor(tmp_path)(make_context("true", executor_options=options))
