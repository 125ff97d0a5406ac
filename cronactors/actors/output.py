"""The actor that stores the output of runs while they are running, and the runs from which it collects.

Executors report from the event loop and from threads, often far faster than a disk writes. So a report only changes a buffer in
memory, bounded for each run, and the writer stores the reports of all runs at most once a second, with the next commit of others
where there is one. The rest is stored in the transaction that finishes the run: so nothing of it is lost, and a
short run costs no commit of its own.
"""

from __future__ import annotations

import logging
from contextlib import suppress
from threading import RLock
from typing import Final

import trio

from cronactors.actors.exits import actor
from cronactors.actors.forks import generation
from cronactors.actors.mailbox import Mailbox
from cronactors.actors.output_buffer import OutputBuffer
from cronactors.actors.output_requests import LastFinishedRun, StoreOutput
from cronactors.errors import StoreUnavailable
from cronactors.ledger.run_output import NewOutput
from cronactors.model import CronRun
from cronactors.run_context import CurrentRun
from cronactors.run_output import Progress, encode_lines
from cronactors.storage.rows import RunRow

logger = logging.getLogger("cronactors.runner")

WRITE_EVERY: Final = 1.0
"""How long (s) after one write of output the next may begin, for all runs of a scheduler together."""
MOST_AT_ONCE: Final = 256 * 1024
"""How many bytes of output one commit stores, but for the last run of it."""
SHARE_WITHIN: Final = 0.2
"""How long (s) a write waits for a commit that it can share."""


class LiveRun(CurrentRun):
    """The current run of an executor that a scheduler calls.

    It is made for each run, so until it reports something it has two attributes only.

    Args:
        run: The run.
        writer: Stores its reports.
    """

    _buffer: OutputBuffer | None = None
    _progress: Progress | None = None
    _progress_is_stored = True
    _has_ended = False

    def __init__(self, run: RunRow, writer: OutputWriter) -> None:
        self._run = run
        self._writer = writer

    @property
    def run_id(self) -> str:
        """Its id in the history."""
        return str(self._run.id)

    @property
    def job_id(self) -> str:
        """The job's id."""
        return self._run.job_id

    @property
    def job_name(self) -> str:
        """The job's name."""
        return self._run.job_name

    @property
    def attempt(self) -> int:
        """From 1, interruptions included."""
        return self._run.attempt

    async def previous(self) -> CronRun | None:
        """Read the run that finished last."""
        return await self._writer.mailbox.call(LastFinishedRun(self._run.job_id, besides=self._run.id))

    # Any thread

    def _log(self, text: str) -> None:
        content = encode_lines(text)
        if self._writer.is_of_this_process():
            with self._writer.lock:
                if not self._has_ended:
                    self._buffer = self._buffer or OutputBuffer()
                    self._buffer.add(content)
                    self._writer.note(self)

    def _report_progress(self, progress: Progress) -> None:
        if self._writer.is_of_this_process():
            with self._writer.lock:
                if not self._has_ended:
                    self._progress, self._progress_is_stored = progress, False
                    self._writer.note(self)

    # The event loop

    def not_stored(self) -> NewOutput | None:
        """Return what is not stored yet. The caller has the lock."""
        pieces = () if self._buffer is None else self._buffer.pieces()
        progress = None if self._progress_is_stored else self._progress
        return NewOutput(self._run.id, pieces, progress) if pieces or progress is not None else None

    def stored(self, output: NewOutput) -> None:
        """Forget what has been stored. The caller has the lock."""
        if self._buffer is not None and output.pieces:
            self._buffer.stored(output.pieces[-1].end)
        if output.progress is self._progress:
            self._progress_is_stored = True

    def end(self) -> NewOutput | None:
        """Ignore reports from now on. Return what the finish has to store or to delete; None if the run has reported nothing."""
        with self._writer.lock:
            self._has_ended = True
            if self._buffer is None and self._progress is None:
                return None
            pieces = () if self._buffer is None else self._buffer.pieces()
            self._buffer, self._progress_is_stored = None, True
            return NewOutput(self._run.id, pieces, None)


class OutputWriter:
    """The actor. It writes only after a run has reported something, so an idle one costs nothing.

    Args:
        mailbox: The mailbox of the store.
        share_within: How long (s) a write waits for a commit that it can share.

    Attributes:
        mailbox: The mailbox of the store.
        lock: Guards the reports of runs. It is held for microseconds, and reentrant: a handler of a signal, or a finalizer, may
            log in the middle of another call.
    """

    def __init__(self, mailbox: Mailbox, *, share_within: float = SHARE_WITHIN) -> None:
        self.mailbox = mailbox
        self.lock = RLock()
        self._share_within = share_within
        self._changed: dict[LiveRun, None] = {}  # runs with something to store, in the order in which they reported it
        self._wake = trio.Event()
        self._scope = trio.CancelScope()
        self._trio = trio.lowlevel.current_trio_token()
        self._generation = generation()

    def is_of_this_process(self) -> bool:
        """Whether this process is not a fork of the one that runs the scheduler: its lock may be held by a thread that is not here."""
        return generation() == self._generation

    def note(self, run: LiveRun) -> None:
        """Note that a run has something to store. Any thread, with the lock."""
        if run not in self._changed:
            self._changed[run] = None
            with suppress(trio.RunFinishedError):  # a thread that the executor left behind has outlived trio
                self._trio.run_sync_soon(self._set_wake, idempotent=True)

    def _set_wake(self) -> None:
        self._wake.set()

    @actor
    async def run(self) -> None:
        """Write until it is closed. Cancelled, it leaves the rest to the finishes of the runs."""
        with self._scope:
            while True:
                await self._wake.wait()
                self._wake = trio.Event()
                next_write = trio.current_time() + WRITE_EVERY
                try:
                    await self._write()
                except StoreUnavailable as error:  # which the store has logged
                    logger.debug("the output of runs will be stored later: %s", error)
                    self._wake.set()
                await trio.sleep_until(next_write)

    async def _write(self) -> None:
        """Store what is new of the runs that have reported: some `MOST_AT_ONCE` bytes in a commit, so that none takes long."""
        with self.lock:
            changed, self._changed = self._changed, {}  # before the loop, in which a handler of a signal may note a run
            outputs = {run: output for run in changed if (output := run.not_stored()) is not None}
        try:
            while outputs:
                part = _first(outputs, MOST_AT_ONCE)
                await self.mailbox.share_commit(StoreOutput(tuple(part.values())), within=self._share_within)
                with self.lock:
                    for run, output in part.items():
                        run.stored(output)
                        del outputs[run]
        finally:
            with self.lock:
                for run in outputs:
                    self._changed.setdefault(run)

    def close(self) -> None:
        """Stop writing: all runs have ended."""
        self._scope.cancel()


def _first(outputs: dict[LiveRun, NewOutput], most: int) -> dict[LiveRun, NewOutput]:
    """Return the first outputs, until they hold so many bytes."""
    part: dict[LiveRun, NewOutput] = {}
    size = 0
    for run, output in outputs.items():
        part[run] = output
        size += sum(len(piece.content) for piece in output.pieces)
        if size >= most:
            break
    return part
