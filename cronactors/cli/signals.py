"""The signals of ``run``: the first stops it in order, the second at once, the third kills the process; SIGHUP reads the file again."""

from __future__ import annotations

import os
import signal
from typing import Protocol

import trio

from cronactors.cli.hang_up import HANG_UP, has_terminal, is_ignored, take_noted

_STOP_LIMIT = 5.0
"""The time (s) after the second signal until the process is killed if it has not ended."""
_TERMINAL_GOES = 0.5
"""The time (s) after SIGHUP until we check the terminal: a shell that exits sends SIGHUP before its terminal has gone."""
_CHECK_TERMINAL_EVERY = 2.0
"""The interval (s) at which we check the terminal; SIGHUP arrives within another interval if the end of the terminal is its reason."""


class Stoppable(Protocol):
    """Stopped by signals."""

    def stop_in_order(self, reason: str) -> None:
        """Give runs their grace, then stop."""

    def stop_at_once(self, status: int) -> None:
        """Cancel everything; the process is to exit with ``status``."""

    def read_again(self) -> None:
        """Read the file again."""


async def watch_signals(target: Stoppable, *, task_status: trio.TaskStatus[None]) -> None:
    """Stop ``target`` in order at the first signal and at once at the second.

    Exit with 128 + the signal, without any clean-up, at a third one, or 5 s after the second. Runs until it is cancelled; reports that it
    has started once signals are received.
    """
    await _SignalWatch(target).run(task_status)


class _SignalWatch:
    """Receive signals.

    SIGHUP has two meanings. Service managers send it so that a program reads its file again. The kernel and shells send it when a
    terminal goes away, and send it twice: so it stops the program in order, but never counts as a second signal. We can't see who sent
    it, but we can see whether the terminal that we had has gone. A program in the background may survive the end of its terminal, as
    after ``disown``; so a SIGHUP that comes much later reads the file too.
    """

    def __init__(self, target: Stoppable) -> None:
        self._target = target
        self._is_noted, self._had_terminal = take_noted()
        self._stops = 0

    async def run(self, task_status: trio.TaskStatus[None]) -> None:
        """Receive signals until it is cancelled."""
        signals = [signal.SIGINT, signal.SIGTERM]
        if HANG_UP is not None and not is_ignored():
            signals.append(signal.Signals(HANG_UP))
        with trio.open_signal_receiver(*signals) as received:
            async with trio.open_nursery() as nursery:
                task_status.started()
                if self._is_noted:
                    nursery.start_soon(self._hung_up)
                nursery.start_soon(self._notice_end_of_terminal)
                async for number in received:
                    if number == HANG_UP:
                        nursery.start_soon(self._hung_up)
                        continue
                    self._stops += 1
                    if self._stops == 1:
                        self._target.stop_in_order(signal.Signals(number).name)
                        continue
                    if self._stops == 2:  # noqa: PLR2004
                        self._target.stop_at_once(128 + number)
                        with trio.move_on_after(_STOP_LIMIT):
                            while await anext(received) == HANG_UP:
                                pass
                    os._exit(128 + number)

    async def _hung_up(self) -> None:
        """Stop in order if the terminal goes now; otherwise request that the file is read again."""
        had_terminal = self._had_terminal
        if had_terminal:
            await trio.sleep(_TERMINAL_GOES)
        if self._stops:
            return
        if had_terminal and not has_terminal():
            self._stops = 1
            self._target.stop_in_order("SIGHUP, as the terminal has gone")
        else:
            self._target.read_again()

    async def _notice_end_of_terminal(self) -> None:
        """Forget the terminal once it has gone and SIGHUP has had its time to arrive."""
        while self._had_terminal:
            await trio.sleep(_CHECK_TERMINAL_EVERY)
            if not has_terminal():
                await trio.sleep(_CHECK_TERMINAL_EVERY)
                self._had_terminal = False
