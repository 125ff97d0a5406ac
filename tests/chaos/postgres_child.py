"""``child.py`` on a PostgreSQL server, whose lives can be stopped or killed right before a COMMIT: ``postgres_child.py OPTIONS``.

SIGUSR1 stops a life in its next transaction that writes, SIGUSR2 kills it there, or right after. The lives write down their stops.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Any

from cronactors import StoreUnavailable
from cronactors.actors import lease_guard
from cronactors.storage.postgres.session import Session
from cronactors.storage.values import Value
from tests.chaos import child
from tests.chaos.judge import append_line

UNAVAILABLE = 3
"""How a life exits that could not open the store."""
STOP, KILL = signal.SIGUSR1, signal.SIGUSR2


def stops_file(ledger: str) -> Path:
    """Return the file of stops: ``stopped PID TIME`` before each, ``continued PID TIME`` after it."""
    return Path(f"{ledger}.stops")


class Mischief:
    """Replaces `Session.commit`."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._next: signal.Signals | None = None
        self._commit = Session.commit

    def install(self) -> None:
        def commit(session: Session, last: str = "") -> list[tuple[Value, ...]]:
            return self.commit(session, last)

        Session.commit = commit  # type: ignore[method-assign]
        for number in (STOP, KILL):
            signal.signal(number, self._arm)

    def _arm(self, number: int, _frame: object) -> None:
        self._next = signal.Signals(number)

    def commit(self, session: Session, last: str) -> list[tuple[Value, ...]]:
        armed = self._next if session._xid else None  # only a write has a number
        if armed is not None:
            self._next = None
        before = random.SystemRandom().random() < 0.5
        if armed is STOP:
            self._stop()
        elif armed is KILL and before:
            child.die()
        rows = self._commit(session, last)
        if armed is KILL:
            child.die()
        return rows

    def _stop(self) -> None:
        append_line(self._file, ["stopped", os.getpid(), time.time()])
        signal.pthread_kill(threading.get_ident(), signal.SIGSTOP)  # `os.kill` could let this thread go on for a moment
        append_line(self._file, ["continued", os.getpid(), time.time()])


def scale_lease_guard(lease: int) -> None:
    """Shorten what the guard of a real lease leaves to executors as much as the lease."""
    lease_guard.BEFORE_THE_END = lease / 6000  # type: ignore[misc]
    lease_guard._LOOK_EVERY = lease / 30_000


def exit_if_unavailable(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Exit with a code of its own, since that is expected while the server is down."""
    if issubclass(kind, StoreUnavailable):
        sys.stderr.write(f"not opened: {error}\n")
        os._exit(UNAVAILABLE)
    sys.__excepthook__(kind, error, trace)


def main(given: dict[str, Any]) -> None:
    Mischief(stops_file(given["ledger"])).install()
    sys.excepthook = exit_if_unavailable
    if given["lease"] is not None:
        scale_lease_guard(given["lease"])
    child.main(given)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
