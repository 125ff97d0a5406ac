"""The verb ``watch``: the running, the next and the last runs of a store, until `q` or Ctrl-C; and ``runs --follow``.

On a terminal ``watch`` is a live view, if rich is installed; else a line for each event. The store is open in another process, the
scheduler, and may be out of reach for some time: then we show that, and continue.
"""

from __future__ import annotations

import math
import os
import signal
import sys
from datetime import timedelta

import attrs
import trio

from cronactors import open_store
from cronactors.cli.json_report import left_out_line
from cronactors.cli.listing import run_as_json
from cronactors.cli.printer import Printer
from cronactors.cli.run_query import RunQuery, Subject, find_subject, read_runs
from cronactors.cli.stdout import json_text
from cronactors.cli.watch_events import Event, Reported, event_of, events_of, failure_of
from cronactors.cli.watch_reader import Filter
from cronactors.cli.watch_screen import Screen, find_screen
from cronactors.cli.watch_store import StoreReader
from cronactors.cli.watch_view import View, lines_of
from cronactors.errors import CronError
from cronactors.model import CronRun
from cronactors.store import CronStore
from cronactors.wallclock import now

INTERVAL = 1.0
"""How often (s) the store is read, unless the user says otherwise; and how often the live view is drawn at least."""
_QUIT = b"qQ\x03"
_FOLLOWED = ("started", "finished", "store")


@attrs.frozen(kw_only=True)
class WatchOptions:
    """The options of the verb.

    Attributes:
        as_json: Whether to print JSON, an object a line, also on a terminal.
        interval: How often (s) to read the store.
        seconds: When to stop (s).
        follow: Whether to print the last runs, oldest first, and then only runs that start or finish, as ``runs --follow`` does. In
            JSON each line is a run.
    """

    as_json: bool = False
    interval: float = INTERVAL
    seconds: float = math.inf
    follow: bool = False


def watch_store(database: str, query: RunQuery, options: WatchOptions) -> int:
    """Show the runs of a store until `q`, a signal, or for some seconds.

    Args:
        database: The path or address of the database.
        query: Whose runs are watched.
        options: The options of the verb.

    Returns:
        The exit status: 0, 1 if the reader of standard output went away, 128 + a signal other than SIGINT.

    Raises:
        JobNotFound: There is no such job, and no run of one; or several users have one.
        CronError: The database cannot be read at first, is damaged, or was deleted.
        OSError: Standard output cannot be written to.
    """
    screen = None if options.as_json or options.follow else find_screen()
    try:
        return trio.run(Session(database, query, screen, options).run)
    except KeyboardInterrupt:  # before it received signals
        return 0


class Session:
    """One call of the verb; `watch_store` documents the arguments.

    Args:
        screen: The terminal to draw on; None: print lines.
    """

    def __init__(self, database: str, query: RunQuery, screen: Screen | None, options: WatchOptions) -> None:
        self._database, self._query, self._screen, self._options = database, query, screen, options
        self._printer = Printer(lambda: self.stop(1), left_out_line if options.as_json else str)
        self._scope = trio.CancelScope()
        self._status: int | None = None
        self._failure: CronError | None = None
        self._redraw = trio.Event()
        self._view = View(title="", now=now())
        self._ahead = timedelta()  # by how much the clock of the store is ahead of ours

    def stop(self, status: int = 0) -> None:
        """Stop, with an exit status; the first one counts."""
        if self._status is None:
            self._status = status
            self._scope.cancel()

    async def run(self) -> int:
        """Run until it is stopped. Errors are those that `watch_store` documents, and never in a group."""
        async with trio.open_nursery() as nursery:
            await nursery.start(self._receive_signals)
            nursery.start_soon(self._printer.run)
            self._scope.deadline = trio.current_time() + self._options.seconds
            try:
                with self._scope:
                    await self._watch()
            except CronError as error:
                self._failure = error
            await self._printer.close()
            nursery.cancel_scope.cancel()
        if failure := self._failure or self._printer.failure:
            raise failure
        return self._status or 0

    async def _watch(self) -> None:
        async with open_store(self._database, create=False) as store:
            subject = await find_subject(store, self._query)
            reader = StoreReader(store, Filter(self._query, subject), for_view=self._screen is not None)
            if self._screen is None:
                await self._report(store, subject, reader)
            else:
                await self._show(reader, self._screen, subject.zone)

    async def _receive_signals(self, *, task_status: trio.TaskStatus[None]) -> None:
        # What is ignored, as nohup has SIGHUP, stays so.
        stops = [number for number in _existing("SIGHUP", "SIGQUIT") if signal.getsignal(number) is signal.SIG_DFL]
        of_screen = [] if self._screen is None else _existing("SIGWINCH", "SIGTSTP")
        with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM, *stops, *of_screen) as received:
            task_status.started()
            async for number in received:
                if number not in of_screen and self._status is None:
                    self.stop(0 if number == signal.SIGINT else 128 + number)
                elif number not in of_screen:  # a server that does not answer keeps us from stopping in order
                    if self._screen is not None:
                        self._screen.leave()
                    os._exit(128 + number)
                elif self._screen is not None:
                    if signal.Signals(number).name == "SIGTSTP":
                        self._screen.suspend()
                    self._redraw.set()

    # Lines

    async def _report(self, store: CronStore, subject: Subject, reader: StoreReader) -> None:
        """Print a line for each event; to follow runs, only for those of runs, after the last runs."""
        reported, last = Reported(), list[CronRun]()
        while True:
            seen, problem = await reader.read()
            is_first = reported.schedulers is None
            events, reported = failure_of(problem, now(), reported) if seen is None else events_of(seen, reported)
            if self._options.follow and seen is not None:
                if is_first:
                    last = await read_runs(store, self._query, subject)
                    events = [event_of(run) for run in reversed(last)]
                else:  # a run may have changed before we read the last ones
                    events = [each for each in events if each.kind in _FOLLOWED and each.run not in last]
            for event in events:
                self._print(event, subject.zone)
            if seen is None or seen.known.complete:
                await trio.sleep(self._options.interval)

    def _print(self, event: Event, zone: str) -> None:
        follow, run = self._options.follow, event.run
        if follow and run is None:
            print(event.line(zone), file=sys.stderr)  # noqa: T201 - about the store, and no run
        elif self._options.as_json:
            self._printer.print_line(json_text(run_as_json(run) if follow and run is not None else event.as_json()))
        else:
            self._printer.print_line(event.line(zone))

    # The live view

    async def _show(self, reader: StoreReader, screen: Screen, zone: str) -> None:
        """Draw the live view."""
        self._view = attrs.evolve(self._view, title=reader.name, zone=zone)
        with screen:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._read_keys, screen)
                nursery.start_soon(self._draw, screen)
                try:
                    await self._update(reader)
                except CronError as error:
                    self._failure = error
                    self.stop(1)

    async def _update(self, reader: StoreReader) -> None:
        """Read the store again and again, for the view."""
        while True:
            seen, problem = await reader.read()
            self._view = attrs.evolve(self._view, problem=problem)
            if seen is not None:
                self._ahead = seen.now - now()
                self._view = attrs.evolve(self._view, snapshot=seen, last=reader.last or ())
            self._redraw.set()
            if seen is None or seen.known.complete:
                await trio.sleep(self._options.interval)

    async def _draw(self, screen: Screen) -> None:
        """Draw at least once a second, since times go on, and when there is a reason to; stop if the terminal is gone."""
        while True:
            self._redraw = trio.Event()
            view = attrs.evolve(self._view, now=now() + self._ahead)
            try:
                await screen.draw(lines_of(view, *screen.size()))
            except OSError:
                self.stop(1)
            with trio.move_on_after(INTERVAL):
                await self._redraw.wait()

    async def _read_keys(self, screen: Screen) -> None:
        while True:
            keys = await screen.read_keys()
            if not keys or any(key in _QUIT for key in keys):
                self.stop()


def _existing(*names: str) -> list[signal.Signals]:
    return [signal.Signals[name] for name in names if name in signal.Signals.__members__]
