"""The logging handler that adds the log records of a run to its output. Runs in whatever thread logs."""

from __future__ import annotations

import logging

from cronactors.run_context import current_run

_OURS = __name__.partition(".")[0]


class RunLogHandler(logging.Handler):
    """Adds each record that is logged inside of a run to the lines of that run; outside of a run it does nothing.

    A record belongs to the run where it is logged: in the executor, in a task that it started, or in a thread of
    `trio.to_thread`. A ``QueueHandler`` would hand it over in another thread, which has no run, so attach this one directly.
    Records of our own loggers are left out: they are about runs, and none is made inside of one.
    """

    def createLock(self) -> None:  # noqa: N802 - a method of logging
        """Have no lock of our own: the run has one, and if a finalizer logs while it is held, two could wait for each other."""
        self.lock = None

    def handle(self, record: logging.LogRecord) -> bool:
        """Add a record unless a filter drops it; from Python 3.12 on a filter may also replace it."""
        wanted: object = self.filter(record)
        if wanted:
            self.emit(wanted if isinstance(wanted, logging.LogRecord) else record)
        return bool(wanted)

    def emit(self, record: logging.LogRecord) -> None:
        """Add a record to the lines of the current run, if there is one."""
        run = current_run(default=None)
        if run is None or record.name.partition(".")[0] == _OURS:
            return
        try:
            run.log(self.format(record))
        except Exception:  # noqa: BLE001 - as every handler of the standard library: a formatter may raise anything
            self.handleError(record)
