"""The verb ``copy``: move the jobs of a file to a PostgreSQL server, or undo the mark that it leaves in the file."""

from __future__ import annotations

import shlex
import signal
import sys
import time
from types import TracebackType
from typing import Self

import click

from cronactors.cli.amounts import count
from cronactors.copying import Moved, move_to_server, unmark
from cronactors.errors import InvalidConfig, one_line
from cronactors.storage.file_state import MEMORY
from cronactors.storage.postgres.address import DEFAULT_SCHEMA, is_postgres

_EVERY = 0.2
"""Interval (s) of updates of the progress."""


def copy_file(source: str, target: str, *, user_id: str | None) -> None:
    """Move the jobs of a file to a server, and print how many there were.

    Args:
        source: The path of the file.
        target: The address of the database.
        user_id: The only user whose jobs are moved; "" is the agent itself, None all of them.

    Raises:
        CronError: Source or target is refused, or cannot be used. Both are as they were before.
        SystemExit: Ctrl-C has stopped it. Likewise, unless it was finishing an earlier move.
    """
    if is_postgres(source) or source == MEMORY:
        raise InvalidConfig("SOURCE must be a file: jobs cannot be moved away from a server")
    if not is_postgres(target):
        raise InvalidConfig("TARGET must be the address of a PostgreSQL database: postgresql://HOST/DATABASE")
    try:
        with _Progress() as progress:
            moved = move_to_server(source, target, schema=DEFAULT_SCHEMA, user_id=user_id, report=progress.show)
    except KeyboardInterrupt as stopped:
        click.echo(f"cronactors: interrupted: {one_line(str(stopped)) or 'nothing was moved'}", err=True)
        raise SystemExit(128 + signal.SIGINT) from None
    click.echo(_summary(source, moved, user_id))


def _summary(source: str, moved: Moved, user_id: str | None) -> str:
    file, to = one_line(source), one_line(moved.to)
    if moved.counts is None:
        return f"{file} had been moved to {to} already: finished"
    of_user = "" if user_id is None else f" of {'the agent itself' if not user_id else f'the user {one_line(user_id, 60)}'}"
    jobs, runs = moved.counts["jobs"], moved.counts["runs"]
    counted = f"{count(jobs, 'job')} and {count(runs, 'run')}"
    after = "" if user_id is not None else f"; {file} is marked, `cronactors copy --unmark {shlex.quote(file)}` undoes that"
    return f"moved {counted}{of_user} from {file} to {to}{after}"


def unmark_file(source: str) -> None:
    """Undo the mark of a file that was moved.

    Raises:
        CronError: It is not marked, or cannot be used.
    """
    if is_postgres(source):
        raise InvalidConfig("SOURCE must be a file: only a file is marked")
    to = unmark(source)
    server = "the server" if to is None else one_line(to)
    click.echo(f"{one_line(source)} can be used again; if {server} has its jobs too, use only one of the two")


class _Progress:
    """One line on standard error, written anew; nothing if that is no terminal."""

    def __init__(self) -> None:
        self._shown_at: float | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _type: type[BaseException] | None, _error: BaseException | None, _traceback: TracebackType | None) -> None:
        """Erase the line."""
        if self._shown_at is not None:
            click.echo("\r\033[K", nl=False, err=True)

    def show(self, table: str, total: int, done: int) -> None:
        """Show how many rows of a table were copied, at most five times a second."""
        if not sys.stderr.isatty():
            return
        now = time.monotonic()
        if self._shown_at is None or now >= self._shown_at + _EVERY:
            self._shown_at = now
            click.echo(f"\r\033[K{table.replace('_', ' ')}: {done:,} of {total:,}", nl=False, err=True)
