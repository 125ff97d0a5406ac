"""The signals of ``run``: the first stops it in order, the second at once, the third kills the process."""

from __future__ import annotations

import os
import signal
from typing import Protocol

import trio

_STOP_LIMIT = 5.0
"""How long (s) after the second signal the process is killed if it has not ended."""


class Stoppable(Protocol):
    """Stopped by signals."""

    def stop_in_order(self, reason: str) -> None:
        """Give runs their grace, then stop."""

    def stop_at_once(self, status: int) -> None:
        """Cancel everything; the process is to exit with ``status``."""


async def watch_signals(target: Stoppable, *, task_status: trio.TaskStatus[None]) -> None:
    """Stop ``target`` in order at the first signal and at once at the second.

    Exit with 128 + the signal, without any clean-up, at a third one, or 5 s after the second. Runs until it is cancelled; reports that it
    has started once signals are received.
    """
    signals = [signal.SIGINT, signal.SIGTERM]
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is signal.SIG_DFL:  # nohup ignores it
        signals.append(signal.SIGHUP)
    with trio.open_signal_receiver(*signals) as received:
        task_status.started()
        count = 0
        async for number in received:
            count += 1
            if count == 1:
                target.stop_in_order(signal.Signals(number).name)
                continue
            if count == 2:  # noqa: PLR2004
                target.stop_at_once(128 + number)
                with trio.move_on_after(_STOP_LIMIT):
                    await anext(received)
            os._exit(128 + number)
