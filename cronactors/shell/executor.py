"""The executor ``shell``: runs each prompt as a command in a process group of its own. Runs on the task that executes the run."""

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
from cronactors.run_context import current_run
from cronactors.shell.checks import DEFAULT_SHELL, check_shell_options
from cronactors.shell.exit_status import explain_unknown_status, wait_for_exit_status
from cronactors.shell.live_lines import LiveLines
from cronactors.shell.output import HeadAndTail
from cronactors.shell.process_group import ProcessGroup
from cronactors.wallclock import hold

if TYPE_CHECKING:
    from _typeshed import StrPath

SHELL_GRACE = 2.0
"""Time that the processes of a command have between SIGTERM and SIGKILL (s)."""
SHELL_OUTPUT = 64 * 1024
"""How many bytes of output become the summary: half from the beginning and half from the end."""

_ERROR_BYTES = 4096
_ERROR_CHARACTERS = 400
_DRAIN = 2.0
"""How long (s) we read the output after the shell has exited: a process that left the group may hold the pipes for ever."""


class CommandFailed(CronError):
    """The command of a job could not be started, or its exit status is unknown or not 0."""


def shell_executor(cwd: StrPath, *, grace: float = SHELL_GRACE) -> JobExecutor:
    """Make an executor that runs each prompt with ``/bin/sh -c``, or with the shell in the job's ``executor_options``.

    The command gets an empty standard input and our environment plus CRON_JOB (the job's name), CRON_RUN_ID and CRON_SCHEDULED_AT
    (the moment, ISO 8601 in UTC). Its standard output is the summary; of a long output the beginning and the end are kept. The lines of
    standard output and standard error also go to the output of the run while it is running, see `CurrentRun.log`.

    The command is a process group of its own. The run ends when the shell exits. Processes of the group that are still running
    then get SIGTERM and after the grace SIGKILL, and the first line of the summary counts them. On cancellation the whole group
    is ended in the same way, and the cancellation waits for that. A process that must outlive its run has to leave the group
    (``setsid``) and close its standard output.

    The executor raises CommandFailed with the end of standard error if the command cannot be started, or if its exit status is
    unknown or not 0; and InvalidJob for unknown options.

    Args:
        cwd: The folder in which commands run.
        grace: Time between SIGTERM and SIGKILL (s).

    Raises:
        InvalidConfig: This system has no process groups.
    """
    if os.name != "posix":
        raise InvalidConfig('executor "shell" needs a POSIX system; name a "package.module:function"')
    folder = Path(cwd).absolute()

    async def run_in_shell(context: JobContext) -> JobResult:
        command = _Command(check_shell_options(context.executor_options), folder, grace)
        status = await command.run(context)
        leftover = command.leftover
        if status != 0:
            raise CommandFailed(_describe_failure(status, leftover, command.err.text()))
        return JobResult(summary="\n".join(filter(None, [leftover, command.out.text()])))

    return run_in_shell


def _environment(context: JobContext) -> dict[str, str]:
    moment = context.scheduled_at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    variables = {"CRON_JOB": context.job_name, "CRON_RUN_ID": context.run_id, "CRON_SCHEDULED_AT": moment}
    return {**os.environ, **{key: _native(value) for key, value in variables.items()}}


def _native(text: str) -> str:
    """Encode text so that a process receives it as UTF-8, whatever the locale."""
    return os.fsdecode(text.encode())


def _describe_failure(status: int | None, leftover: str, errors: str) -> str:
    """Describe a failed command in one line: its status, the processes it left running, and the end of its standard error."""
    if status is None:
        how = f"exit status unknown: {explain_unknown_status()}"
    elif status < 0:
        try:
            how = f"ended by {signal.Signals(-status).name}"
        except ValueError:
            how = f"ended by signal {-status}"
    else:
        how = f"exit status {status}"
    if leftover:
        how = f"{how}; {leftover}"
    last = " ".join(errors.split())
    if len(last) > _ERROR_CHARACTERS:
        last = f"…{last[1 - _ERROR_CHARACTERS :]}"
    return f"{how}: {last}" if last else how


def _describe_leftover(count: int | None, *, ended: bool) -> str:
    """Count the processes that were running when the shell exited, in words.

    Args:
        count: Their number; None if there were some, and they could not be counted.
        ended: Whether they could be ended.

    Returns:
        "" if there were none.
    """
    if count == 0:
        return ""
    number = "" if count is None else f"{count:,} "
    noun, verb = ("process", "was") if count == 1 else ("processes", "were")
    fate = f"{verb} ended" if ended else "could not be ended"
    return f"{number}{noun} {verb} still running when the shell exited and {fate}"


class _Command:
    """A command: its process group and its output.

    Attributes:
        out: Its standard output.
        err: Its standard error.
        leftover: A description of the processes that were running when the shell exited; "" if there were none.
    """

    def __init__(self, shell: str, folder: Path, grace: float) -> None:
        self.out = HeadAndTail(SHELL_OUTPUT // 2, SHELL_OUTPUT // 2)
        self.err = HeadAndTail(0, _ERROR_BYTES)
        self.leftover = ""
        self._shell = shell
        self._folder = folder
        self._group = ProcessGroup(grace)

    async def run(self, context: JobContext) -> int | None:
        """Run the prompt, and return its exit status; None if it is unknown. If it is cancelled, it ends the whole group first.

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
            return await self._wait(process)
        finally:
            with trio.CancelScope(shield=True):  # a process that stays alive would run next to the following attempt
                await self._group.end()
                await process.wait()  # reaps it; we don't use its status, see `wait_for_exit_status`

    async def _wait(self, process: trio.Process) -> int | None:
        """Read the output until the shell has exited and its group has ended, and return the exit status."""
        assert process.stdout is not None
        assert process.stderr is not None
        run = current_run(default=None)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.out.fill, process.stdout, LiveLines(run))
            nursery.start_soon(self.err.fill, process.stderr, LiveLines(run))
            with hold():
                status = await wait_for_exit_status(process.pid)
                await process.wait()
            count = await self._group.running()
            await self._group.end()
            self.leftover = _describe_leftover(count, ended=not self._group.cannot_be_signalled)
            nursery.cancel_scope.deadline = trio.current_time() + _DRAIN
        return status
