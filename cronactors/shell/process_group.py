"""The process group of a shell command, which is ended as a whole. Runs on the task that executes the run."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import trio

from cronactors.actors.forks import generation
from cronactors.backoff import backoff
from cronactors.wallclock import hold

PROC = Path("/proc")
_FIRST_PAUSE, _LONGEST_PAUSE = 0.02, 0.2
"""How long (s) we wait before we count the processes again; the pause doubles each time."""


class ProcessGroup:
    """The process group of a command.

    We end a group and not just the shell, because a shell that is killed leaves its children running: after a timeout of
    ``sleep 1000; true`` the ``sleep`` would hold the job's files and pipes, and run next to the following attempt.

    Args:
        grace: Time between SIGTERM and SIGKILL (s).

    Attributes:
        leader: The id of the group; None before it exists.
    """

    def __init__(self, grace: float) -> None:
        self.leader: int | None = None
        self._refused = False  # the system refused a signal: the processes belong to another user, such as by sudo
        self._grace = grace
        self._generation = generation()
        self._kill_at: float | None = None

    async def running(self) -> int | None:
        """Count the processes of the group that are alive; None if some are, or have just exited, and cannot be counted."""
        if not self._signal(0) and not self._refused:
            return 0
        count = await self._count_alive()
        # Without a proc file system (macOS) a refused signal usually means that only zombies are left.
        return 0 if self._refused and count is None else count

    @property
    def cannot_be_signalled(self) -> bool:
        """Whether the system has refused each signal to the group."""
        return self._refused and self._kill_at is None

    async def end(self) -> None:
        """Send SIGTERM, and after the grace SIGKILL to the processes that are left.

        Waits until no process of the group is alive, at most as long as the grace. A second call continues where the first was
        cancelled.
        """
        if self._kill_at is None and self._signal(signal.SIGTERM):
            self._kill_at = trio.current_time() + self._grace
            self._signal(signal.SIGCONT)  # a stopped process obeys nothing but SIGKILL
        pauses = backoff(_FIRST_PAUSE, _LONGEST_PAUSE)
        while self._kill_at is not None and self._signal(0) and await self._count_alive() != 0:
            if trio.current_time() >= self._kill_at:
                self._signal(signal.SIGKILL)
                return
            await trio.sleep(next(pauses))

    async def _count_alive(self) -> int | None:
        assert self.leader is not None
        with hold():
            # With trio's default limiter SIGKILL would be late while the program's other calls keep all threads busy.
            return await trio.to_thread.run_sync(_count_alive, self.leader, limiter=trio.CapacityLimiter(1))

    def _signal(self, number: int) -> bool:
        """Send a signal to the group. False if the group is gone, or if the system refuses, as some do for zombies."""
        if self.leader is None or generation() != self._generation:  # after a fork the group belongs to the parent
            return False
        try:
            os.killpg(self.leader, number)
        except ProcessLookupError:
            return False
        except PermissionError:
            self._refused = True
            return False
        return True


def _count_alive(group: int) -> int | None:
    """Count the processes of a group that are not zombies. Runs on a thread.

    Zombies don't count, because the first process of a container may never reap its orphans.

    Returns:
        Their number; None if there is no proc file system, or if it shows another namespace, whose ids belong to other processes.
    """
    try:
        if (PROC / "self").readlink().name != str(os.getpid()):
            return None
        # Not by `glob`, which hides errors from Python 3.13 on.
        files = [process / "stat" for process in PROC.iterdir() if process.name.isdecimal()]
    except OSError:  # for example because no file descriptors are left
        return None
    count = 0
    for file in files:
        try:
            state, _, member = file.read_bytes().rpartition(b")")[2].split(maxsplit=3)[:3]
        except (FileNotFoundError, ProcessLookupError, PermissionError, ValueError):  # exited meanwhile, or hidden
            continue
        except OSError:
            return None
        count += int(member) == group and state not in (b"Z", b"X")
    return count
