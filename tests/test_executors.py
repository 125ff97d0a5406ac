"""The shell executor with real processes, and loading executors by name."""

from __future__ import annotations

import inspect
import os
import shlex
import signal
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from types import SimpleNamespace

import pytest
import trio

from cronactors import executors
from cronactors.errors import InvalidConfig
from cronactors.executors import find_executor, load_executor
from cronactors.model import JobContext, JobResult, SessionMode
from cronactors.shell.executor import SHELL_OUTPUT, CommandFailed, shell_executor

posix = pytest.mark.skipif(os.name != "posix", reason="needs a POSIX shell")
pytestmark = posix


def context(prompt: str, *, name: str = "job", at: datetime = datetime(2026, 3, 29, 1, 30, tzinfo=UTC)) -> JobContext:
    return JobContext(
        prompt=prompt,
        session_mode=SessionMode.ISOLATED,
        job_name=name,
        job_id="1",
        user_id=None,
        run_id="7",
        scheduled_at=at,
        attempt=1,
    )


async def shell(prompt: str, cwd: Path, *, grace: float = 0.3, name: str = "job") -> str:
    result = await shell_executor(cwd, grace=grace)(context(prompt, name=name))
    assert isinstance(result, JobResult)
    assert result.session_id == ""
    return result.summary


async def wait_for(condition: Callable[[], object]) -> None:
    with trio.fail_after(5):
        while not condition():
            await trio.sleep(0.01)


def gone(pid: int) -> bool:
    """Whether a process has exited; a zombie has."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except OSError:
        return True


async def pid_in(file: Path) -> int:
    await wait_for(lambda: file.exists() and file.read_text().endswith("\n"))
    return int(file.read_text())


async def test_standard_output_is_the_summary(tmp_path):
    assert await shell("echo one; echo two; echo no >&2", tmp_path) == "one\ntwo"


async def test_empty_output(tmp_path):
    assert await shell("true", tmp_path) == ""


async def test_runs_in_its_folder_with_empty_input_and_its_own_variables(tmp_path):
    folder = tmp_path / "a folder"
    folder.mkdir()
    text = await shell('pwd -P; cat; echo "$CRON_JOB|$CRON_RUN_ID|$CRON_SCHEDULED_AT|$HOME"', folder, name='naïve "$(x)" 名')
    home = os.environ.get("HOME", "")
    assert text.splitlines() == [str(folder.resolve()), f'naïve "$(x)" 名|7|2026-03-29T01:30:00.000Z|{home}']


async def test_the_moment_in_the_environment_is_in_utc(tmp_path):
    rome = datetime(2026, 7, 1, 9, 0, 0, 5000, tzinfo=timezone(timedelta(hours=2)))
    result = await shell_executor(tmp_path)(context("echo $CRON_SCHEDULED_AT", at=rome))
    assert isinstance(result, JobResult)
    assert result.summary == "2026-07-01T07:00:00.005Z"


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ("exit 3", "exit status 3"),
        ("echo out; echo first >&2; echo 'the last' >&2; exit 1", "exit status 1: first the last"),
        ("kill -KILL $$", "ended by SIGKILL"),
        ("kill -TERM $$", "ended by SIGTERM"),
        ("no-such-command-anywhere 2>/dev/null", "exit status 127"),
    ],
)
async def test_a_failure_shows_the_status_and_the_end_of_standard_error(tmp_path, prompt, message):
    with pytest.raises(CommandFailed) as caught:
        await shell(prompt, tmp_path)
    assert str(caught.value) == message


async def test_long_errors_keep_their_end(tmp_path):
    with pytest.raises(CommandFailed) as caught:
        await shell("i=0; while [ $i -lt 3000 ]; do echo line $i >&2; i=$((i+1)); done; echo why >&2; exit 9", tmp_path)
    text = str(caught.value)
    assert text.startswith("exit status 9: …")
    assert text.endswith("line 2999 why")
    assert len(text) < 450


async def test_bytes_that_are_not_text(tmp_path):
    assert await shell(r"printf 'a\000b\377c\n\n'", tmp_path) == "ab\N{REPLACEMENT CHARACTER}c"


async def test_long_output_keeps_both_ends_in_little_memory(tmp_path):
    text = await shell("echo first; head -c 30000000 /dev/zero | tr '\\0' x; echo; echo last", tmp_path)
    assert text.startswith("first\nxxx")
    assert text.endswith("xxx\nlast")
    assert "bytes left out" in text
    assert len(text) < SHELL_OUTPUT + 100


async def test_output_of_the_greatest_length_is_kept_whole(tmp_path):
    assert await shell(f"head -c {SHELL_OUTPUT} /dev/zero | tr '\\0' x", tmp_path) == "x" * SHELL_OUTPUT


async def test_a_folder_that_is_gone(tmp_path):
    with pytest.raises(CommandFailed, match=r"/bin/sh cannot be started in .*nowhere.*No such file"):
        await shell("true", tmp_path / "nowhere")


async def test_a_prompt_too_long_for_the_system(tmp_path):
    with pytest.raises(CommandFailed, match="Argument list too long"):
        await shell("# " + "x" * 900_000, tmp_path)


async def test_cancellation_ends_the_whole_process_group(tmp_path):
    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(shell, "sleep 1000 & echo $! >child; echo $$ >shell; wait", tmp_path)
            child, leader = await pid_in(tmp_path / "child"), await pid_in(tmp_path / "shell")
            assert os.getpgid(child) == os.getpgid(leader) != os.getpgid(0)
            nursery.cancel_scope.cancel()
        await wait_for(lambda: gone(child) and gone(leader))


async def test_a_group_that_ignores_sigterm_is_killed_after_the_grace(tmp_path):
    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            # The shell obeys SIGTERM at once; the child it leaves behind does not.
            deaf = "trap '' TERM; echo $$ >child; while :; do sleep 1; done"
            nursery.start_soon(shell, f'sh -c "{deaf.replace("$", chr(92) + "$")}" & wait', tmp_path)
            child = await pid_in(tmp_path / "child")
            started = trio.current_time()
            nursery.cancel_scope.cancel()
        assert trio.current_time() - started >= 0.3
        await wait_for(lambda: gone(child))


async def test_a_stopped_process_group_is_ended(tmp_path):
    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(shell, "echo $$ >shell; exec sleep 1000", tmp_path)
            leader = await pid_in(tmp_path / "shell")
            os.kill(leader, signal.SIGSTOP)
            nursery.cancel_scope.cancel()
        await wait_for(lambda: gone(leader))


async def test_a_cancelled_command_may_clean_up(tmp_path):
    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(shell, "trap 'echo tidy >tidied; exit' TERM; echo $$ >shell; sleep 1000 & wait", tmp_path)
            await pid_in(tmp_path / "shell")
            nursery.cancel_scope.cancel()
    assert (tmp_path / "tidied").read_text() == "tidy\n"


async def test_a_timeout_of_an_outer_scope_is_not_an_error_of_the_command(tmp_path):
    with trio.move_on_after(0.2) as scope:
        await shell("sleep 1000", tmp_path)
    assert scope.cancelled_caught


async def test_cancelled_before_the_command_starts(tmp_path):
    with trio.CancelScope() as scope:
        scope.cancel()
        await shell("touch ran; sleep 1000", tmp_path)
    assert scope.cancelled_caught


async def test_background_processes_end_with_the_run(tmp_path):
    with trio.fail_after(5):
        assert (await shell("sleep 1000 & echo $! >child; echo done", tmp_path)).endswith("\ndone")
    child = await pid_in(tmp_path / "child")
    await wait_for(lambda: gone(child))


@pytest.mark.slow
async def test_a_process_that_left_the_group_does_not_hold_the_run(tmp_path):
    code = "import os, time; os.setsid(); print(os.getpid(), file=open('child', 'w')); time.sleep(1000)"
    detach = f"{shlex.quote(sys.executable)} -c {shlex.quote(code)}"
    with trio.fail_after(10):
        assert await shell(f"{detach} & while [ ! -s child ]; do sleep 0.01; done; echo done", tmp_path) == "done"
    os.kill(int((tmp_path / "child").read_text()), signal.SIGKILL)


async def test_many_commands_at_once(tmp_path):
    answers: list[str] = []

    async def one(number: int) -> None:
        answers.append(await shell(f"echo {number}", tmp_path))

    async with trio.open_nursery() as nursery:
        for number in range(20):
            nursery.start_soon(one, number)
    assert sorted(map(int, answers)) == list(range(20))


def test_no_descriptor_stays_open(tmp_path):
    def count() -> int:
        return len(list(Path("/dev/fd").iterdir()))

    async def run() -> None:
        for _ in range(5):
            await shell("echo x", tmp_path)
            with trio.move_on_after(0.05):
                await shell("sleep 1000", tmp_path)

    trio.run(run)
    before = count()
    trio.run(run)
    assert count() == before


MODULE = """
import functools

async def good(context): return context.prompt

def plain(context): return None

async def none(): pass

async def two(a, b): pass

async def optional(context, more=1): return "optional"

async def steps(context): yield 1

def wrapped_by(function):
    @functools.wraps(function)
    def wrapper(*args): return function(*args)
    return wrapper

wrapped = wrapped_by(good)
part = functools.partial(two, 1)

class Agent:
    async def run(self, context): return "method"
    async def __call__(self, context): return "called"
    @property
    def broken(self): raise RuntimeError("no")

agent = Agent()
number = 5
"""


@pytest.fixture
def modules(tmp_path, monkeypatch):
    (tmp_path / "my_executors.py").write_text(MODULE)
    (tmp_path / "my_broken.py").write_text("\n\nx = 1 / 0\n")
    (tmp_path / "my_syntax.py").write_text("def\n")
    (tmp_path / "my_exit.py").write_text("raise SystemExit(3)\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    yield tmp_path
    for name in ("my_executors", "my_broken", "my_syntax", "my_exit"):
        sys.modules.pop(name, None)


@pytest.mark.parametrize(
    ("name", "result"),
    [
        ("my_executors:good", "p"),
        ("my_executors:optional", "optional"),
        ("my_executors:wrapped", "p"),
        ("my_executors:part", None),
        ("my_executors:agent", "called"),
        ("my_executors:agent.run", "method"),
    ],
)
async def test_an_executor_is_loaded_by_name(modules, name, result):
    assert await load_executor(name)(context("p")) == result


TYPED = """
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from somewhere import Context, Reply

async def typed(context: Context) -> Reply: return context.prompt

async def two(a: Context, b: Context) -> Reply: pass
"""


@pytest.mark.skipif(sys.version_info < (3, 14), reason="before 3.14 the module itself could not be imported (PEP 649)")
async def test_annotations_that_only_type_checkers_understand_are_not_evaluated(modules):
    (modules / "my_executors.py").write_text(TYPED)
    assert await load_executor("my_executors:typed")(context("p")) == "p"
    with pytest.raises(InvalidConfig, match="must take one argument"):
        load_executor("my_executors:two")


def test_a_signature_that_3_14_cannot_evaluate_is_read_as_text(modules, monkeypatch):
    """A substitute for 3.14, whose `inspect.signature` fails in the same way unless text is requested."""
    real = inspect.signature

    def signature(found, *, annotation_format="evaluated"):
        if annotation_format != "text":
            raise NameError("name 'Context' is not defined")
        return real(found)

    monkeypatch.setattr(executors, "sys", SimpleNamespace(version_info=(3, 14)))
    monkeypatch.setattr(inspect, "signature", signature)
    monkeypatch.setitem(sys.modules, "annotationlib", SimpleNamespace(Format=SimpleNamespace(STRING="text")))
    load_executor("my_executors:good")
    with pytest.raises(InvalidConfig, match="must take one argument"):
        load_executor("my_executors:two")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("", "executor must not be empty"),
        ("my_executors", 'executor must be "shell" or "package.module:function"'),
        ("my_executors:", 'executor must be "shell" or "package.module:function"'),
        (":good", 'executor must be "shell" or "package.module:function"'),
        ("my executors:good", 'executor must be "shell" or "package.module:function"'),
        ("..my_executors:good", 'executor must be "shell" or "package.module:function"'),
        ("a\0b:good", "executor contains a NUL"),
        ("my_nowhere:good", "cannot import my_nowhere: ModuleNotFoundError: No module named 'my_nowhere'"),
        ("my_broken:good", r"cannot import my_broken: ZeroDivisionError: .*\(my_broken.py, line 3\)"),
        ("my_syntax:good", "cannot import my_syntax: SyntaxError"),
        ("my_exit:good", "cannot import my_exit: SystemExit: 3"),
        ("my_executors:absent", "my_executors has no absent"),
        ("my_executors:agent.absent", "my_executors has no agent.absent"),
        ("my_executors:agent.broken", "my_executors has no agent.broken"),
        ("my_executors:number", "must be an async function, not int"),
        ("my_executors:plain", "must be an async function"),
        ("my_executors:steps", "must be an async function"),
        ("my_executors:Agent", "must be an async function"),
        ("my_executors:none", "must take one argument"),
        ("my_executors:two", "must take one argument"),
    ],
)
def test_an_error_names_the_executor(modules, name, message):
    with pytest.raises(InvalidConfig, match=message) as caught:
        load_executor(name)
    assert name in str(caught.value) or not name.isprintable()


async def test_find_executor_knows_shell_and_functions(modules):
    result = await find_executor("shell", modules)(context("echo $((6 * 7))"))
    assert isinstance(result, JobResult)
    assert result.summary == "42"
    assert await find_executor("my_executors:good", modules)(context("p")) == "p"
