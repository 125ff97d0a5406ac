"""The processes of one shell command: the exit status of the shell, and the process group that is ended as a whole."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import trio

from cronactors.actors.forks import generation
from cronactors.wallclock import hold

PROC = Path("/proc")
_POLL, _LONGEST_POLL = 0.02, 0.2


class ProcessGroup:
    """The process group of a command.

    Args:
        grace: Time between SIGTERM and SIGKILL (s).

    Attributes:
        leader: The id of the group; None before it exists.
    """

    def __init__(self, grace: float) -> None:
        self.leader: int | None = None
        self._refused = False  # such as processes of another user, which sudo has started
        self._grace = grace
        self._generation = generation()
        self._kill_at: float | None = None

    async def running(self) -> int | None:
        """Count the processes of the group that are alive; None: some are, or have just exited, and they cannot be counted here."""
        if not self._signal(0) and not self._refused:
            return 0
        count = await self._count_alive()
        # Where there is no proc file system (macOS) the refusal is about zombies, as a rule.
        return 0 if self._refused and count is None else count

    @property
    def out_of_reach(self) -> bool:
        """Whether the system has refused each signal to the group."""
        return self._refused and self._kill_at is None

    async def end(self) -> None:
        """Send SIGTERM, and SIGKILL to what is left after the grace. Called again it continues where it was cancelled."""
        if self._kill_at is None and self._signal(signal.SIGTERM):
            self._kill_at = trio.current_time() + self._grace
            self._signal(signal.SIGCONT)  # a stopped process obeys nothing but SIGKILL
        pause = _POLL
        while self._kill_at is not None and self._signal(0) and await self._count_alive() != 0:
            if trio.current_time() >= self._kill_at:
                self._signal(signal.SIGKILL)
                return
            await trio.sleep(pause)
            pause = min(2 * pause, _LONGEST_POLL)

    async def _count_alive(self) -> int | None:
        assert self.leader is not None
        with hold():
            # A limiter of its own: the threads that the program's other calls share may all be busy, and SIGKILL would wait for
            # one.
            return await trio.to_thread.run_sync(_count_alive, self.leader, limiter=trio.CapacityLimiter(1))

    def _signal(self, number: int) -> bool:
        """Signal the group; False if there is none that may be signalled (some systems forbid to signal a zombie)."""
        if self.leader is None or generation() != self._generation:  # in a fork the group is the parent's
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
    """Count the processes of a group that are no zombies: the first process of a container may never reap its orphans.

    Returns:
        Their number; None if there is no proc file system, or it shows another namespace, whose ids mean other processes.
    """
    try:
        if (PROC / "self").readlink().name != str(os.getpid()):
            return None
        # Not by `glob`, which hides errors from Python 3.13 on.
        files = [process / "stat" for process in PROC.iterdir() if process.name.isdecimal()]
    except OSError:  # of descriptors, say, none is left
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
