"""Executors that come with the library: run the prompt in a shell, or load a function by its name."""

from __future__ import annotations

import importlib
import inspect
import os
import signal
import subprocess
import sys
import traceback
from collections.abc import Awaitable, Callable
from datetime import UTC
from functools import partial, reduce
from pathlib import Path
from typing import TYPE_CHECKING, cast

import trio

from cronactors import checks
from cronactors.errors import CronError, InvalidConfig, one_line, shorten
from cronactors.model import JobContext, JobExecutor, JobResult
from cronactors.wallclock import hold

if TYPE_CHECKING:
    from _typeshed import StrPath

SHELL_GRACE = 2.0
"""Seconds that the processes of a command have between SIGTERM and SIGKILL."""
SHELL_OUTPUT = 64 * 1024
"""Bytes of output that become the summary: half from the beginning and half from the end."""

_ERROR_BYTES = 4096
_ERROR_CHARACTERS = 400
_DRAIN = 2.0
_POLL, _LONGEST_POLL = 0.02, 0.2


class CommandFailed(CronError):
    """A job's command could not be started, or ended with a status other than 0."""


def find_executor(name: str, folder: StrPath) -> JobExecutor:
    """Find the executor that a configuration names.

    Args:
        name: ``"shell"`` or ``"package.module:function"``.
        folder: Where commands of the shell run.

    Raises:
        InvalidConfig: There is no such executor.
    """
    return shell_executor(folder) if name == "shell" else load_executor(name)


def load_executor(name: str) -> JobExecutor:
    """Import an executor by its name, ``"package.module:function"``; the function may be an attribute of something, ``a:b.c``.

    Raises:
        InvalidConfig: The name is malformed, its module cannot be imported, or what it names is no async function of one argument.
    """
    checks.text("executor", name, InvalidConfig, limit=4096)
    module_name, colon, path = name.partition(":")
    parts = [*module_name.split("."), *path.split(".")]
    if not colon or not all(part.isidentifier() for part in parts):
        raise InvalidConfig(f'executor must be "shell" or "package.module:function", not {shorten(name)}')
    found = _import(name, module_name, path)
    if not callable(found):
        raise InvalidConfig(f"executor {shorten(name)} must be an async function, not {type(found).__name__}")
    if not _is_async(found):
        raise InvalidConfig(f"executor {shorten(name)} must be an async function: write async def")
    try:
        _signature(found).bind(None)
    except (TypeError, ValueError):
        raise InvalidConfig(f"executor {shorten(name)} must take one argument, the JobContext") from None
    return cast(JobExecutor, found)


def _import(name: str, module_name: str, path: str) -> object:
    """Import what a user names; importing may raise anything, or try to end the process."""
    try:
        module = importlib.import_module(module_name)
    except (Exception, SystemExit) as problem:
        frames = [frame for frame in traceback.extract_tb(problem.__traceback__) if "importlib" not in frame.filename]
        place = f" ({Path(frames[-1].filename).name}, line {frames[-1].lineno})" if len(frames) > 1 else ""
        what = one_line(f"{type(problem).__name__}: {problem}", 300)
        raise InvalidConfig(f"executor {shorten(name)}: cannot import {module_name}: {what}{place}") from problem
    try:
        return reduce(getattr, path.split("."), cast(object, module))
    except Exception as problem:
        raise InvalidConfig(f"executor {shorten(name)}: {module_name} has no {path}") from problem


def _is_async(found: Callable[..., object]) -> bool:
    """Whether calling it gives a coroutine: an async function, partial or method, decorated or not, or an async ``__call__``."""
    if isinstance(found, type):
        return False
    return any(map(inspect.iscoroutinefunction, (found, inspect.unwrap(found), type(found).__call__)))


def _signature(found: Callable[..., object]) -> inspect.Signature:
    """The parameters of a function.

    Annotations may name types that only type checkers import, and Python 3.14 evaluates them here unless it is asked for their text
    (PEP 649, and the documentation of `inspect.signature`).
    """
    if sys.version_info >= (3, 14):
        from annotationlib import Format  # noqa: PLC0415 - older versions have no such module

        return inspect.signature(found, annotation_format=Format.STRING)
    else:  # noqa: RET505 - type checkers of 3.14 would find it unreachable
        return inspect.signature(found)


def shell_executor(cwd: StrPath, *, grace: float = SHELL_GRACE) -> JobExecutor:
    """Make an executor that runs each prompt with ``/bin/sh -c``.

    The command gets an empty standard input and our environment plus CRON_JOB (the job's name), CRON_RUN_ID and CRON_SCHEDULED_AT
    (the moment, ISO 8601 in UTC). What it writes to standard output is the summary; of much output the beginning and the end.

    The command is a process group of its own. The run has ended when the shell has: what it left behind in the background is ended
    then, and everything is when the run is cancelled, with SIGTERM and after the grace with SIGKILL. Cancellation waits for that.
    A process that is to outlive its run has to leave the group (``setsid``) and let go of standard output.

    Args:
        cwd: The folder in which commands run.
        grace: Seconds between SIGTERM and SIGKILL.

    Raises:
        InvalidConfig: This system has no process groups.

    The executor raises CommandFailed if the command cannot be started or its status is not 0, with the last of standard error.
    """
    if os.name != "posix":
        raise InvalidConfig('executor "shell" needs a POSIX system; name a "package.module:function"')
    folder = Path(cwd).absolute()

    async def run_in_shell(context: JobContext) -> JobResult:
        command = _Command(folder, grace)
        status = await command.run(context)
        if status:
            raise CommandFailed(_blame(status, command.err.text()))
        return JobResult(summary=command.out.text())

    return run_in_shell


def _environment(context: JobContext) -> dict[str, str]:
    moment = context.scheduled_at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    own = {"CRON_JOB": context.job_name, "CRON_RUN_ID": context.run_id, "CRON_SCHEDULED_AT": moment}
    return {**os.environ, **{key: _native(value) for key, value in own.items()}}


def _native(text: str) -> str:
    """Make text reach a process as UTF-8 whatever the locale says."""
    return os.fsdecode(text.encode())


def _blame(status: int, errors: str) -> str:
    """Say in one line how a command failed: its status and the last of its standard error."""
    if status < 0:
        try:
            how = f"ended by {signal.Signals(-status).name}"
        except ValueError:
            how = f"ended by signal {-status}"
    else:
        how = f"exit status {status}"
    last = " ".join(errors.split())
    if len(last) > _ERROR_CHARACTERS:
        last = f"…{last[1 - _ERROR_CHARACTERS :]}"
    return f"{how}: {last}" if last else how


class _Command:
    """One run of one command: its process group and what it writes."""

    def __init__(self, folder: Path, grace: float) -> None:
        self.out = _Ends(SHELL_OUTPUT // 2, SHELL_OUTPUT // 2)
        self.err = _Ends(0, _ERROR_BYTES)
        self._folder = folder
        self._group = _Group(grace)

    async def run(self, context: JobContext) -> int:
        """Run the prompt to its end and answer its status. Cancelled: the whole group is ended first."""
        start: Callable[..., Awaitable[object]] = partial(
            trio.run_process,
            ["/bin/sh", "-c", _native(context.prompt)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            check=False,
            cwd=self._folder,
            env=_environment(context),
            start_new_session=True,
            deliver_cancel=self._group.deliver_cancel,
        )
        try:
            return await self._run(start)
        finally:
            with trio.CancelScope(shield=True):
                await self._group.end()

    async def _run(self, start: Callable[..., Awaitable[object]]) -> int:
        status, failure = 0, None
        async with trio.open_nursery() as nursery:
            try:
                process: trio.Process = await nursery.start(start)
            except OSError as problem:  # raised in here it would leave as an ExceptionGroup
                failure = problem
            else:
                assert process.stdout is not None
                assert process.stderr is not None
                self._group.leader = process.pid
                nursery.start_soon(self.out.fill, process.stdout)
                nursery.start_soon(self.err.fill, process.stderr)
                with hold():
                    status = await process.wait()
                await self._group.end()
                # A process that left the group may hold the pipes for ever.
                nursery.cancel_scope.deadline = trio.current_time() + _DRAIN
        if failure is not None:
            raise CommandFailed(f"/bin/sh cannot be started in {shorten(str(self._folder))}: {failure.strerror}") from failure
        return status


class _Group:
    """The process group of a command. To end it once more goes on where the last time was cancelled."""

    def __init__(self, grace: float) -> None:
        self.leader: int | None = None
        self._grace = grace
        self._kill_at: float | None = None

    async def deliver_cancel(self, process: trio.Process) -> None:
        """End the group; see `trio.run_process`, which cancels this as soon as the shell itself is gone."""
        self.leader = process.pid
        await self.end()

    async def end(self) -> None:
        """Ask the group to end, and end it when the grace is over. Costs nothing if it is gone."""
        if self._kill_at is None and self._signal(signal.SIGTERM):
            self._kill_at = trio.current_time() + self._grace
            self._signal(signal.SIGCONT)  # a stopped process hears nothing but SIGKILL
        pause = _POLL
        while self._kill_at is not None and self._signal(0) and not await trio.to_thread.run_sync(_only_zombies, self.leader):
            if trio.current_time() >= self._kill_at:
                self._signal(signal.SIGKILL)
                return
            await trio.sleep(pause)
            pause = min(2 * pause, _LONGEST_POLL)

    def _signal(self, number: int) -> bool:
        """Signal the group; False if it is gone (what is left may be dead and unreaped, which some systems forbid to signal)."""
        if self.leader is None:
            return False
        try:
            os.killpg(self.leader, number)
        except (ProcessLookupError, PermissionError):
            return False
        return True


def _only_zombies(group: int | None) -> bool:
    """Whether all that is left of a process group is dead: a container's first process may never collect its orphans."""
    for file in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, member = file.read_bytes().rpartition(b")")[2].split(maxsplit=3)[:3]
        except (OSError, ValueError):  # gone meanwhile
            continue
        if int(member) == group and state not in (b"Z", b"X"):
            return False
    return Path("/proc/self/stat").exists()


class _Ends:
    """Keeps the first and the last bytes of a stream, however much comes."""

    def __init__(self, head: int, tail: int) -> None:
        self._head, self._tail = bytearray(), bytearray()
        self._head_size, self._tail_size = head, tail
        self._lost = 0

    async def fill(self, stream: trio.abc.ReceiveStream) -> None:
        """Read a stream to its end and close it. Cancelled: what came so far stays."""
        async with stream:
            async for chunk in stream:
                self.add(chunk)

    def add(self, chunk: bytes | bytearray) -> None:
        """Take the next piece."""
        room = self._head_size - len(self._head)
        self._head += chunk[:room]
        self._tail += chunk[room:]
        if (excess := len(self._tail) - self._tail_size) > 0:
            del self._tail[:excess]
            self._lost += excess

    def text(self) -> str:
        """Answer what was kept as text without NUL and without the last line's end; what is no UTF-8 is replaced."""
        gap = f"\n… {self._lost:,} bytes left out …\n" if self._lost and self._head_size else ""
        pieces = [bytes(self._head), bytes(self._tail)] if gap else [bytes(self._head + self._tail)]
        return gap.join(piece.decode("utf-8", "replace") for piece in pieces).replace("\0", "").rstrip("\n")
