"""Processes whose descriptors 0 to 2 are closed, or that have no free descriptor."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import trio

from tests.cli_command import ROOT
from tests.test_executors import gone, pid_in, shell

pytestmark = pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs the proc file system")


def run(folder: Path, scenario: str) -> dict[str, object]:
    done = subprocess.run(
        [sys.executable, "-W", "error", str(ROOT / "tests/descriptors_program.py"), scenario, folder],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    answer = json.loads((folder / "answer").read_text())
    assert isinstance(answer, dict)
    return answer


@pytest.mark.slow
def test_a_scheduler_works_where_the_standard_streams_are_closed(tmp_path: Path) -> None:
    assert run(tmp_path, "closed") == {
        "status": "success",
        "result": "out",
        "error": "CommandFailed: exit status 3: bad",
        "jobs": ["job", "bad"],
    }


@pytest.mark.slow
def test_an_executor_that_closes_the_standard_streams_and_writes_to_them_does_no_harm(tmp_path: Path) -> None:
    assert run(tmp_path, "closes") == {"status": ["success"] * 4, "jobs": ["closes", "writes"]}


@pytest.mark.slow
def test_without_a_free_descriptor_runs_continue_and_commands_fail_with_the_reason(tmp_path: Path) -> None:
    found = run(tmp_path, "exhausted")
    assert found["plain"] == "success"
    status, error = found["refused"]  # type: ignore[misc]
    assert status == "failed"
    assert "Too many open files" in error
    assert str(found["opening"]).startswith("StoreUnavailable: ")
    status, result, error = found["slow"]  # type: ignore[misc]
    assert status == "success", error  # the shell left a process behind that ignores SIGTERM: it is found and killed
    assert result.splitlines()[-1] == "slow"
    assert found["hello"] == "hello"
    assert found["jobs"] == ["added meanwhile", "plain", "shell", "slow", "takes"]
    assert found["left"] == []


@pytest.mark.slow
def test_a_scheduler_without_a_free_descriptor_reports_it_and_leaves_nothing(tmp_path: Path) -> None:
    found = run(tmp_path, "start")
    told = found["told"]
    assert isinstance(told, list)
    assert all(text.startswith("StoreUnavailable: ") for text in told), told
    assert found["files"] == ["a.db"]


@pytest.mark.parametrize("call", ["iterdir", "read_bytes"])
async def test_a_process_group_that_cannot_be_read_is_not_taken_for_dead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    def exhausted(self: Path, *_: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(Path, call, exhausted)
    prompt = "sh -c \"trap '' TERM; echo \\$\\$ >pid; sleep 60\" & while [ ! -s pid ]; do sleep 0.01; done; echo done"
    assert (await shell(prompt, tmp_path)).splitlines() == [
        "processes were still running when the shell exited and were ended",
        "done",
    ]
    pid = await pid_in(tmp_path / "pid")
    monkeypatch.undo()
    with trio.fail_after(5):
        while not gone(pid):
            await trio.sleep(0.01)
