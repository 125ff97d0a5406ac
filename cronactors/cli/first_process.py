"""The duties of the first process of a container: to reap orphans, and to pass signals on."""

from __future__ import annotations

import os
import signal
import sys
from contextlib import suppress

_PASSED_ON = (
    signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2, signal.SIGWINCH, signal.SIGCONT,
)  # fmt: skip


def fork_as_container_init() -> None:
    """As process 1, fork: the child returns from here, and the parent never does.

    The kernel gives every orphan of a process namespace to process 1, and one that nobody waits for stays a zombie. We don't reap in
    the process that runs jobs: to wait for any child would take away the exit statuses of commands. So the parent does nothing else
    but to reap and to pass signals on, and exits as the child does: with its status, or with 128 + the signal that ended it. The
    kernel ends whatever is left then.

    Call it while there is one thread. In any other process, and where signals cannot be waited for, it does nothing.
    """
    if os.getpid() != 1 or not hasattr(signal, "sigwaitinfo"):
        return
    # Blocked before the fork, so that none is lost; a signal that process 1 neither blocks nor handles never reaches it.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD, *_PASSED_ON})
    child = os.fork()
    if child == 0:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        return
    while (status := _reap_until(child)) is None:
        received = signal.sigwaitinfo({signal.SIGCHLD, *_PASSED_ON})
        # What the kernel sends (si_code > 0) for a key of the terminal reaches the child by itself: it is in the same process group.
        # A hangup reaches only the leader of the session, which is this process.
        by_itself = received.si_code > 0 and received.si_signo != signal.SIGHUP
        if received.si_signo != signal.SIGCHLD and not by_itself:
            with suppress(ProcessLookupError):
                os.kill(child, received.si_signo)
    sys.exit(status if status >= 0 else 128 - status)


def _reap_until(child: int) -> int | None:
    """Reap whatever has exited; the child's status, or the negative number of its signal, if it is among it."""
    status = None
    while True:
        try:
            pid, wait_status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return status
        if pid == 0:
            return status
        if pid == child:
            status = os.waitstatus_to_exitcode(wait_status)
