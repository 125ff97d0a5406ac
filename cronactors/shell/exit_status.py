"""The exit status of a child process, also where something else in this process takes it away."""

from __future__ import annotations

import os
import signal

import trio


async def exit_status(pid: int) -> int | None:
    """Wait until a child of ours exits.

    We don't take the word of `trio.Process`: it answers 0 if the status was lost, as `subprocess` does on ECHILD (bpo-15756). A
    lost status would be a success.

    Args:
        pid: The child. It is left for its `trio.Process` to reap.

    Returns:
        Its exit status, or the negative number of the signal that ended it. None: it has exited, and its status is unknown.

    Cancelled, it leaves the child alone.
    """
    try:
        return await _status_by_pidfd(pid)
    except ChildProcessError:
        return None
    except (AttributeError, OSError):  # no pidfd: another system, an old kernel, a sandbox; or the child is gone already
        # The thread may outlive a cancellation: until the child is killed.
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


def why_unknown() -> str:
    """Say why the exit status of a child was lost."""
    if signal.getsignal(signal.SIGCHLD) is signal.SIG_IGN:
        return "SIGCHLD is ignored in this process, so the system discards it"
    return "something else in this process waited for the command, such as a handler of SIGCHLD that calls waitpid(-1)"
