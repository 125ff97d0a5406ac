"""The executor ``shell`` when an exit status is lost: the run fails, and the error names the reason."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest
import trio

from cronactors import Interval, RunStatus, open_scheduler
from cronactors.shell.executor import CommandFailed, shell_executor
from tests.cli_command import COMMAND, ROOT, lines_of, start, write
from tests.shell.run_command import shell

__all__ = ["start", "write"]
pytestmark = pytest.mark.skipif(os.name != "posix", reason="needs a POSIX shell")

IGNORED = "exit status unknown: SIGCHLD is ignored in this process, so the system discards it"
COLLECTED = "exit status unknown: something else in this process waited for the command"
EXITS = ["exit 3", "exit 7", "kill -9 $$", "exit 0"]


@pytest.fixture
def ignored() -> Iterator[None]:
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    yield
    signal.signal(signal.SIGCHLD, before)


@pytest.fixture
def reaped() -> Iterator[None]:
    """A handler of SIGCHLD that reaps every child."""

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
    """A thread that collects every child. It never blocks: the server of other tests is a child too, and ends with this process only."""
    end = threading.Event()

    def reap() -> None:
        while not end.is_set():
            try:
                collected, _ = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                collected = 0
            if not collected:
                time.sleep(0.0002)

    thread = threading.Thread(target=reap)
    thread.start()
    yield
    end.set()
    thread.join()


@pytest.mark.parametrize("prompt", EXITS)
async def test_a_status_that_the_system_discards_is_unknown(ignored, tmp_path, prompt):
    with pytest.raises(CommandFailed) as caught:
        await shell(f"echo why >&2; {prompt}", tmp_path)
    assert str(caught.value) == f"{IGNORED}: why"


@pytest.mark.parametrize("prompt", EXITS[:3])
@pytest.mark.parametrize("reaper", ["reaped", "reaping_thread"])
async def test_a_status_that_other_code_collects_is_never_a_success(request, tmp_path, reaper, prompt):
    request.getfixturevalue(reaper)
    for _ in range(5):
        with pytest.raises(CommandFailed, match="^(exit status [37]$|ended by SIGKILL$|exit status unknown: something else)"):
            await shell(prompt, tmp_path)


async def test_the_error_of_a_collected_status_names_the_cause(monkeypatch, tmp_path):
    waitid = os.waitid

    def late(kind: int, which: int, options: int) -> object:
        os.waitpid(-1, 0)
        return waitid(kind, which, options)

    monkeypatch.setattr(os, "waitid", late)
    with pytest.raises(CommandFailed, match=f"^{re.escape(COLLECTED)}"):
        await shell("exit 0", tmp_path)


@pytest.mark.parametrize(("prompt", "message"), [("exit 3", "exit status 3"), ("kill -9 $$", "ended by SIGKILL")])
async def test_a_status_is_found_without_pidfd(monkeypatch, tmp_path, prompt, message):
    def absent(pid: int, flags: int = 0) -> int:
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(os, "pidfd_open", absent)
    with pytest.raises(CommandFailed, match=message):
        await shell(prompt, tmp_path)
    assert await shell("echo fine", tmp_path) == "fine"
    with trio.fail_after(5), trio.move_on_after(0.1) as scope:
        await shell("sleep 1000", tmp_path)
    assert scope.cancelled_caught


async def test_a_discarded_status_without_pidfd_is_unknown(ignored, monkeypatch, tmp_path):
    monkeypatch.delattr(os, "pidfd_open")
    with pytest.raises(CommandFailed, match=f"^{re.escape(IGNORED)}$"):
        await shell("exit 3", tmp_path)


async def test_a_run_with_a_lost_status_is_failed(ignored, tmp_path):
    async with open_scheduler(tmp_path / "jobs.db", shell_executor(tmp_path)) as scheduler:
        job_id = await scheduler.store.add_job("job", "exit 3", Interval.every(hours=1), max_retries=0)
        run = await scheduler.run_now(job_id)
    assert (run.status, run.result_summary) == (RunStatus.FAILED, None)
    assert run.error is not None
    assert IGNORED in run.error


def test_the_command_resets_an_inherited_sigchld_that_is_ignored(write, tmp_path):
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
