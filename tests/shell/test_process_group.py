"""Processes that are still running when the shell exits: they are ended, counted and reported."""

from __future__ import annotations

import os
import re
import signal

import pytest
import trio

from cronactors.shell.executor import CommandFailed
from cronactors.shell.process_group import ProcessGroup
from tests.cli_command import lines_of, start, write
from tests.shell.run_command import shell

__all__ = ["start", "write"]
pytestmark = pytest.mark.skipif(os.name != "posix", reason="needs a POSIX shell")


async def test_a_process_that_is_still_running_is_in_the_summary(tmp_path):
    with trio.fail_after(5):
        text = await shell("sleep 1000 & echo done", tmp_path)
    assert text == "1 process was still running when the shell exited and was ended\ndone"


async def test_processes_that_are_still_running_are_counted(tmp_path):
    with trio.fail_after(5):
        text = await shell("sleep 1000 & sleep 1000 & sleep 1000 &", tmp_path)
    assert text == "3 processes were still running when the shell exited and were ended"


async def test_a_redirection_of_bash_starts_a_background_process_in_other_shells(tmp_path):
    (tmp_path / "nightly.sh").write_text("#!/bin/sh\nsleep 1000\n")
    (tmp_path / "nightly.sh").chmod(0o755)
    if "bash" in os.path.realpath("/bin/sh"):
        pytest.skip("/bin/sh is bash here, which knows &>>")
    with trio.fail_after(5):
        text = await shell("./nightly.sh &>> log", tmp_path)
    assert re.fullmatch(r"[12] process(es were| was) still running when the shell exited and (was|were) ended", text)


async def test_processes_of_a_failed_command_are_in_the_error(tmp_path):
    with trio.fail_after(5), pytest.raises(CommandFailed) as caught:
        await shell("sleep 1000 & echo bad >&2; exit 3", tmp_path)
    assert str(caught.value) == "exit status 3; 1 process was still running when the shell exited and was ended: bad"


async def test_a_process_that_has_exited_is_not_counted(tmp_path):
    assert await shell("true & true | cat & wait; echo done", tmp_path) == "done"


async def test_processes_that_cannot_be_counted_are_still_reported(monkeypatch, tmp_path):
    monkeypatch.setattr("cronactors.shell.process_group.PROC", tmp_path / "nowhere")
    with trio.fail_after(5):
        text = await shell("sleep 1000 & echo done", tmp_path)
    assert text == "processes were still running when the shell exited and were ended\ndone"


async def test_processes_of_another_user_are_reported_as_not_ended(monkeypatch, tmp_path):
    def refuse(group: int, number: int) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "killpg", refuse)
    text = await shell("sleep 0.5 >/dev/null 2>&1 & echo done", tmp_path)
    assert text == "1 process was still running when the shell exited and could not be ended\ndone"
    assert await shell("echo alone", tmp_path) == "alone"


async def test_the_proc_file_system_of_another_namespace_is_not_used(monkeypatch, tmp_path):
    """Its process ids belong to other processes, so a group that it does not show may be alive."""
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
def test_the_log_line_and_the_run_name_processes_that_were_still_running(start, write):
    write('[[cron.jobs]]\nname = "nohup"\nprompt = "nohup sleep 1000 >/dev/null 2>&1 & echo started"\nin_secs = 0')
    text = "1 process was still running when the shell exited and was ended"
    running = start("run")
    running.wait_for(f"nohup .*success .*{text}")
    running.process.send_signal(signal.SIGTERM)
    assert running.end()[0] == 0
    assert lines_of(start("runs", "nohup").end()[1], f"success .*{text}")
