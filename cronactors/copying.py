"""Moves the jobs of a file, with their history, to a PostgreSQL server: all of them, or those of one user.

The order of the commits decides what a crash leaves behind. The file is marked first: from then on no process can use it, and the rows
on the server are not visible yet. Then the server commits. So at no moment can two schedulers run the same jobs. After a crash between the
two, opening the file is an error that says that the move was interrupted. The same command then asks the server whether it has the jobs,
and finishes the move or begins it again.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Final, TypeAlias, TypeVar

import attrs

from cronactors.errors import CronError, JobNotFound, StoreUnavailable, shorten
from cronactors.ids import new_ids
from cronactors.ledger import leases, pruning_clock, zone_changes
from cronactors.ledger.recovery import living_owners, recover
from cronactors.ledger.waiting import release_crash_loops
from cronactors.owner import identify_this_process
from cronactors.settings import RetryPolicy
from cronactors.storage.errors import Contended
from cronactors.storage.moved import FileMoved, Move, Numbers
from cronactors.storage.postgres.address import MISSING_EXTRA, split_schema
from cronactors.storage.protocol import Storage
from cronactors.storage.sqlite_copying import ORIGINS, TABLES, SourceFile
from cronactors.wallclock import system_wall

if TYPE_CHECKING:
    from cronactors.storage.postgres.copying import PostgresTarget

_T = TypeVar("_T")

COUNTS_AS_ALIVE: Final = (leases.LEASE + leases.HEARTBEAT_WHEN_IDLE) // 1000
"""How long (s) a scheduler counts as running after its last heartbeat, unless its process has certainly ended."""

_OPEN_TIMEOUT = 10.0
_PAUSE = 0.05

Report: TypeAlias = Callable[[str, int, int], None]
"""Called with a table, how many rows there are to copy, and how many were copied so far."""


@attrs.frozen(kw_only=True)
class Moved:
    """The result of a move.

    Attributes:
        to: The server, without user and password.
        counts: How many rows of each table were copied; None if a move before had copied them.
    """

    to: str
    counts: dict[str, int] | None


def move_to_server(path: str, url: str, *, schema: str, user_id: str | None, report: Report) -> Moved:
    """Move the jobs of a file to a server. If it fails, file and server are as they were before.

    Args:
        path: The file.
        url: The address of the database.
        schema: The schema, unless the address names one.
        user_id: The only user whose jobs are moved, and deleted from the file; None: all jobs, and the file is marked.
        report: Called now and then.

    Raises:
        FileMoved: The file was moved before, to another server or with other users.
        JobNotFound: The user has no job and no run.
        StoreUnavailable: A scheduler may be running on the file; the server has jobs already; or one of them cannot be used.
        StoreCorrupt: The file or the schema is damaged, of another application or of a newer version.
        CronError: psycopg is not installed, or PostgreSQL cannot store a row.
    """
    try:
        from cronactors.storage.postgres.copying import PostgresTarget  # noqa: PLC0415 - an extra, and a heavy one
    except ImportError as error:
        raise CronError(MISSING_EXTRA) from error
    url, schema = split_schema(url, schema)

    def open_target() -> PostgresTarget:
        return _patiently(lambda: PostgresTarget(url, schema=schema))

    try:
        source = _open_source(path)
    except FileMoved as marked:
        try:
            with closing(open_target()) as target:
                if _finish_earlier(path, target, user_id, marked):
                    return Moved(to=target.name, counts=None)
        except KeyboardInterrupt:
            raise KeyboardInterrupt(f"an earlier move of {path} may have been carried out: repeat the command") from None
        source = _open_source(path)
    with closing(source):
        _begin(source)
        try:
            _refuse_living(source)
            source.refuse_damage()
            source.savepoint()
            _settle(source, user_id)
            with closing(open_target()) as target:
                return _move(source, target, user_id, report)
        finally:
            source.rollback()


def unmark(path: str) -> str | None:
    """Let a file that was moved be used again, and return where it was moved to; None if the mark does not say that.

    Raises:
        StoreUnavailable: It is not marked, or cannot be used now.
        StoreCorrupt: It is damaged, of another application or of a newer version.
    """
    with closing(_patiently(lambda: SourceFile(path, marked=True))) as file:
        _begin(file)
        try:
            if not file.is_marked:
                raise StoreUnavailable(f"{path} is not marked as moved")
            move = file.move()
            file.unmark()
            file.commit()
        finally:
            file.rollback()
    return None if move is None else move.to


def _patiently(attempt: Callable[[], _T]) -> _T:
    """Try for 10 s while another process is in the way."""
    until = time.monotonic() + _OPEN_TIMEOUT
    while True:
        try:
            return attempt()
        except Contended as error:
            if time.monotonic() >= until:
                raise StoreUnavailable(str(error)) from error.__cause__
        time.sleep(_PAUSE)


def _open_source(path: str) -> SourceFile:
    return _patiently(lambda: SourceFile(path))


def _begin(store: Storage) -> None:
    """Begin a write transaction, which keeps all others from writing."""

    def begin() -> None:
        if not store.begin(write=True):
            raise Contended(f"{store.name} is locked by another process")

    _patiently(begin)


def _refuse_living(source: SourceFile) -> None:
    """Raise StoreUnavailable while a scheduler, or a loop of a user's own, may be running; one without runs sends a heartbeat a minute."""
    this_process = identify_this_process()
    alive = living_owners(source, this_process, trust_leases=True, overdue_for=leases.HEARTBEAT_WHEN_IDLE)
    pids = sorted(row.pid for row in source.owners() if row.id in alive)
    if pids:
        who = f"process {pids[0]}" if len(pids) == 1 else f"processes {', '.join(map(str, pids[:10]))}"
        killed = f"one that was killed counts for {COUNTS_AS_ALIVE} s where its end cannot be seen"
        raise StoreUnavailable(f"{source.name} is in use by a scheduler ({who}): stop it first; {killed}")


def _settle(source: SourceFile, user_id: str | None) -> None:
    """Finish the runs that were left running as interrupted, as the next start on the file would; the transaction undoes it there."""
    recover(source, identify_this_process(), policy=RetryPolicy(), trust_leases=True)
    if user_id is not None:
        release_crash_loops(source)  # the one that such a run waits for may stay behind


def _move(source: SourceFile, target: PostgresTarget, user_id: str | None, report: Report) -> Moved:
    totals = {table.name: source.count(table, user_id=user_id) for table in TABLES}
    if user_id is not None and not totals["jobs"] + totals["runs"]:
        raise JobNotFound(f"{source.name} has no job and no run of the user {shorten(user_id)}")
    (move_id,) = new_ids(1)
    move = Move(id=move_id, to=target.name, at=system_wall(), user_id=user_id)
    _begin(target)
    try:
        shift = target.reserve(source.highest(), user_id=user_id)
        target.commit()
        target.begin_move(move)
        _copy_tables(source, target, user_id, shift, totals=totals, report=report)
        source.undo_reading()
        target.lock()
        _copy_origins(source, target, user_id, shift)
        _copy_facts(source, target, user_id)
        target.prepare(move)
        with _uninterrupted():
            _commit(source, target, move)
    finally:
        target.rollback()
    return Moved(to=target.name, counts=totals)


def _copy_tables(
    source: SourceFile, target: PostgresTarget, user_id: str | None, shift: Numbers, *, totals: dict[str, int], report: Report
) -> None:
    for table in TABLES:
        if table is not ORIGINS:
            with closing(source.rows(table, user_id=user_id, shift=shift)) as rows:
                target.copy(table.name, table.columns, rows, report=partial(report, table.name, totals[table.name]))


def _copy_origins(source: SourceFile, target: PostgresTarget, user_id: str | None, shift: Numbers) -> None:
    with closing(source.rows(ORIGINS, user_id=user_id, shift=shift)) as rows:
        target.insert_origins(rows)


def _copy_facts(source: SourceFile, target: PostgresTarget, user_id: str | None) -> None:
    """Copy the facts that are about jobs and history.

    These are the clock of the history, whose cursors name runs by their ids, and the rules by which next moments were computed. Beside the
    jobs of other users only the latter matter: the jobs may have moments from older rules, so all are to be looked at again. Not copied are
    facts about schedulers: since when one is running, their totals, and jumps of the clock of their machine.
    """
    history, rules = (source.meta(key) for key in (pruning_clock.HISTORY_FACT, zone_changes.RULES_FACT))
    if user_id is None and history is not None:
        target.set_meta(pruning_clock.HISTORY_FACT, history)
    if user_id is None and rules is not None:
        target.set_meta(zone_changes.RULES_FACT, rules)
    elif (known := zone_changes.rules_of(target)) is not None:
        zone_changes.note_older(target, known)


def _commit(source: SourceFile, target: PostgresTarget, move: Move) -> None:
    """Mark the file, commit on the server, and note in the file that this has happened."""
    source.mark(move)
    source.commit()
    try:
        target.commit()
    except BaseException as error:
        has = _ask(target, move)
        if has is None:
            repeat = "repeat the command when the server can be reached"
            raise StoreUnavailable(f"{error}; {source.name} is marked as moved: {repeat}") from error
        if not has:
            _change(source, source.unmark)
            raise
    _finish(source, move)


def _finish(source: SourceFile, move: Move) -> None:
    """After the server has committed: a file without the jobs of a user can be used again, and of one without jobs the mark stays."""

    def without_user() -> None:
        source.unmark()
        source.delete_user(move.user_id or "")
        release_crash_loops(source)

    if move.user_id is None:
        _change(source, lambda: source.set_done(move._replace(done=True)))
    else:
        _change(source, without_user)


def _change(file: SourceFile, change: Callable[[], None]) -> None:
    """Carry out a change of a marked file in a transaction of its own."""
    _begin(file)
    try:
        change()
        file.commit()
    finally:
        file.rollback()


def _ask(target: PostgresTarget, move: Move) -> bool | None:
    """Ask the server whether it has committed a move; None: it cannot be reached, or still works on it."""
    try:
        target.rollback()
        free = _patiently(lambda: target.begin_move(move))
        return target.has(move) if free else None
    except StoreUnavailable:
        return None
    finally:
        target.rollback()


def _finish_earlier(path: str, target: PostgresTarget, user_id: str | None, marked: FileMoved) -> bool:
    """Finish a move that a crash has interrupted, if the server has committed it; else unmark the file.

    Returns:
        Whether the jobs are on the server.

    Raises:
        FileMoved: It was another move, or the server that has the jobs is not this one.
        StoreUnavailable: The server still works on it, or cannot be reached.
    """
    move = marked.move
    if move is None or move.user_id != user_id:
        raise marked
    has = _ask(target, move)
    if has is None:
        raise StoreUnavailable(f"another process is moving {path} to {move.to}, or the server cannot tell")
    if not has and (move.done or move.to != target.name):
        raise marked
    with closing(_patiently(lambda: SourceFile(path, marked=True))) as file:
        if has:
            _finish(file, move)
        else:
            _change(file, file.unmark)
    return has


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Ignore Ctrl-C for the milliseconds in which file and server commit: it comes too late to stop the move."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
