"""The executor ``shell``: runs each prompt as a command in a process group of its own."""

from __future__ import annotations

import os
import signal
import subprocess
from datetime import UTC
from pathlib import Path
from typing import TYPE_CHECKING

import trio

from cronactors.errors import CronError, InvalidConfig, shorten
from cronactors.model import JobContext, JobExecutor, JobResult
from cronactors.shell.checks import DEFAULT_SHELL, check_shell_options
from cronactors.shell.exit_status import exit_status, why_unknown
from cronactors.shell.output import HeadAndTail
from cronactors.shell.process_group import ProcessGroup
from cronactors.wallclock import hold

if TYPE_CHECKING:
    from _typeshed import StrPath

SHELL_GRACE = 2.0
"""Time that the processes of a command have between SIGTERM and SIGKILL (s)."""
SHELL_OUTPUT = 64 * 1024
"""Bytes of output that become the summary: half from the beginning and half from the end."""

_ERROR_BYTES = 4096
_ERROR_CHARACTERS = 400
_DRAIN = 2.0


class CommandFailed(CronError):
    """A job's command could not be started, its status is not 0, or its status is unknown."""


def shell_executor(cwd: StrPath, *, grace: float = SHELL_GRACE) -> JobExecutor:
    """Make an executor that runs each prompt with ``/bin/sh -c``, or with the shell that the job's ``executor_options`` name.

    The command gets an empty standard input and our environment plus CRON_JOB (the job's name), CRON_RUN_ID and CRON_SCHEDULED_AT
    (the moment, ISO 8601 in UTC). What it writes to standard output is the summary; of much output the beginning and the end.

    The command is a process group of its own. The run ends when the shell exits. Processes of the group that are still running
    then are ended, with SIGTERM and after the grace with SIGKILL, and the first line of the summary says how many there were. On
    cancellation the whole group is ended in the same way; cancellation waits for that. A process that is to outlive its run has
    to leave the group (``setsid``) and let go of standard output.

    Args:
        cwd: The folder in which commands run.
        grace: Time between SIGTERM and SIGKILL (s).

    Raises:
        InvalidConfig: This system has no process groups.

    The executor raises CommandFailed if the command cannot be started, or its status is unknown or not 0, with the last of
    standard error; and InvalidJob for options that it does not know.
    """
    if os.name != "posix":
        raise InvalidConfig('executor "shell" needs a POSIX system; name a "package.module:function"')
    folder = Path(cwd).absolute()

    async def run_in_shell(context: JobContext) -> JobResult:
        command = _Command(check_shell_options(context.executor_options), folder, grace)
        status = await command.run(context)
        left = command.left
        if status != 0:
            raise CommandFailed(_blame(status, left, command.err.text()))
        return JobResult(summary="\n".join(filter(None, [left, command.out.text()])))

    return run_in_shell


def _environment(context: JobContext) -> dict[str, str]:
    moment = context.scheduled_at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    own = {"CRON_JOB": context.job_name, "CRON_RUN_ID": context.run_id, "CRON_SCHEDULED_AT": moment}
    return {**os.environ, **{key: _native(value) for key, value in own.items()}}


def _native(text: str) -> str:
    """Make text reach a process as UTF-8 whatever the locale says."""
    return os.fsdecode(text.encode())


def _blame(status: int | None, left: str, errors: str) -> str:
    """Say in one line how a command failed: its status, what it left running, and the last of its standard error."""
    if status is None:
        how = f"exit status unknown: {why_unknown()}"
    elif status < 0:
        try:
            how = f"ended by {signal.Signals(-status).name}"
        except ValueError:
            how = f"ended by signal {-status}"
    else:
        how = f"exit status {status}"
    if left:
        how = f"{how}; {left}"
    last = " ".join(errors.split())
    if len(last) > _ERROR_CHARACTERS:
        last = f"…{last[1 - _ERROR_CHARACTERS :]}"
    return f"{how}: {last}" if last else how


def _say_left(count: int | None, *, ended: bool) -> str:
    """Say how many processes were running when the shell exited; "" for none. None: some, and they could not be counted."""
    if count == 0:
        return ""
    number = "" if count is None else f"{count:,} "
    noun, verb = ("process", "was") if count == 1 else ("processes", "were")
    fate = f"{verb} ended" if ended else "could not be ended"
    return f"{number}{noun} {verb} still running when the shell exited and {fate}"


class _Command:
    """One run of one command: its process group and what it writes.

    Attributes:
        left: What is to be said of processes that were running when the shell exited; "" if there were none.
    """

    def __init__(self, shell: str, folder: Path, grace: float) -> None:
        self.out = HeadAndTail(SHELL_OUTPUT // 2, SHELL_OUTPUT // 2)
        self.err = HeadAndTail(0, _ERROR_BYTES)
        self.left = ""
        self._shell = shell
        self._folder = folder
        self._group = ProcessGroup(grace)

    async def run(self, context: JobContext) -> int | None:
        """Run the prompt and return its status; None: it is unknown. Cancelled, it ends the whole group first.

        Raises:
            CommandFailed: The shell cannot be started.
        """
        try:
            process = await trio.lowlevel.open_process(
                [self._shell, "-c", _native(context.prompt)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                cwd=self._folder,
                env=_environment(context),
                start_new_session=True,
            )
        except OSError as problem:
            shell = DEFAULT_SHELL if self._shell == DEFAULT_SHELL else shorten(self._shell)
            raise CommandFailed(f"{shell} cannot be started in {shorten(str(self._folder))}: {problem.strerror}") from problem
        self._group.leader = process.pid
        try:
            return await self._attend(process)
        finally:
            with trio.CancelScope(shield=True):  # a process that was left alive would run beside the next attempt
                await self._group.end()
                await process.wait()  # reaps it; the status that it returns may be invented

    async def _attend(self, process: trio.Process) -> int | None:
        assert process.stdout is not None
        assert process.stderr is not None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.out.fill, process.stdout)
            nursery.start_soon(self.err.fill, process.stderr)
            with hold():
                status = await exit_status(process.pid)
                await process.wait()
            left = await self._group.running()
            await self._group.end()
            self.left = _say_left(left, ended=not self._group.out_of_reach)
            # A process that left the group may hold the pipes for ever.
            nursery.cancel_scope.deadline = trio.current_time() + _DRAIN
        return status
