"""The exit status of a child process, even if other code has collected it. Runs on the task that executes the run."""

from __future__ import annotations

import os
import signal

import trio


async def wait_for_exit_status(pid: int) -> int | None:
    """Wait until a child process exits, and return its status.

    We don't use the status of `trio.Process`. It is 0 if the status was lost, as with `subprocess` on ECHILD (bpo-15756), so a
    failed command would count as a success. A status is lost if SIGCHLD is ignored, or if other code in this process waits for
    any child. So we read it with ``WNOWAIT`` from a pidfd, which leaves the child for `trio.Process` to reap.

    Args:
        pid: The child process.

    Returns:
        Its exit status, or the negative number of the signal that ended it; None if it has exited and its status is unknown.

    If it is cancelled, the child keeps running. Without pidfds (another system than Linux, an old kernel, a sandbox) the thread
    that waits for the child then stays until the child exits.
    """
    try:
        return await _status_by_pidfd(pid)
    except ChildProcessError:
        return None
    except (AttributeError, OSError):  # no pidfds, or the child is gone already
        return await trio.to_thread.run_sync(_reap, pid, abandon_on_cancel=True, limiter=trio.CapacityLimiter(1))


async def _status_by_pidfd(pid: int) -> int | None:
    descriptor = os.pidfd_open(pid)
    try:
        await trio.lowlevel.wait_readable(descriptor)
        found = os.waitid(os.P_PIDFD, descriptor, os.WEXITED | os.WNOWAIT)  # noqa: ASYNC222 - it has exited
    finally:
        trio.lowlevel.notify_closing(descriptor)
        os.close(descriptor)
    assert found is not None
    return found.si_status if found.si_code == os.CLD_EXITED else -found.si_status


def _reap(pid: int) -> int | None:
    try:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    except ChildProcessError:
        return None


def explain_unknown_status() -> str:
    """Explain why the exit status of a child was lost."""
    if signal.getsignal(signal.SIGCHLD) is signal.SIG_IGN:
        return "SIGCHLD is ignored in this process, so the system discards it"
    return "something else in this process waited for the command, such as a handler of SIGCHLD that calls waitpid(-1)"
