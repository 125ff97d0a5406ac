"""The init process of a container (process 1): reaps orphans and passes signals on."""

from __future__ import annotations

import os
import signal
import sys
from contextlib import suppress

_FORWARDED = (
    signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2, signal.SIGWINCH, signal.SIGCONT,
)  # fmt: skip


def fork_as_container_init() -> None:
    """Fork if this is process 1: the child returns from here, and the parent never does.

    The kernel gives every orphan of a process namespace to process 1, and an orphan that is never waited for stays a zombie. We don't reap
    in the process that runs jobs: waiting for any child would take away the exit statuses of commands. So the parent only reaps and passes
    signals on, and exits as the child does: with its status, or with 128 + the signal that killed it. Then the kernel kills all other
    processes of the namespace.

    Call it while there is one thread. In any other process, and where signals cannot be waited for, it does nothing.
    """
    if os.getpid() != 1 or not hasattr(signal, "sigwaitinfo"):
        return
    # Blocked before the fork, so that none is lost; a signal that process 1 neither blocks nor handles never reaches it.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD, *_FORWARDED})
    child = os.fork()
    if child == 0:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        return
    while (status := _reap_until(child)) is None:
        received = signal.sigwaitinfo({signal.SIGCHLD, *_FORWARDED})
        # For a key of the terminal the kernel (si_code > 0) signals the whole process group, so the child has it already. A hangup
        # reaches only the leader of the session, which is this process.
        sent_to_group = received.si_code > 0 and received.si_signo != signal.SIGHUP
        if received.si_signo != signal.SIGCHLD and not sent_to_group:
            with suppress(ProcessLookupError):
                os.kill(child, received.si_signo)
    sys.exit(status if status >= 0 else 128 - status)


def _reap_until(child: int) -> int | None:
    """Reap all processes that have exited.

    Returns:
        The exit status of ``child``, the negative number of the signal that killed it, or None if it is still running.
    """
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
