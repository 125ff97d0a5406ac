"""Creating files that other processes see complete or not at all: a new database, and the copy before a destructive migration.

A power cut or a full disk can leave an empty file, and SQLite takes an empty file for a new database. Then all jobs would be gone
without an error. We refuse empty files, so we must never leave one behind ourselves: a file is written under another name, which
ends in ``.part``, synced, and gets its own name last. A process that is killed before that leaves the ``.part`` behind (and
perhaps its ``-wal`` and ``-shm``); nothing reads it, and it may be deleted.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path


def create_database(file: Path, fill: Callable[[Path], None]) -> None:
    """Create a database with mode 0600, unless another process creates it first.

    Processes that create the same file at once each write a ``.part`` of their own. `os.link` fails if the name is taken, so the
    first one wins and the others use its file.

    Args:
        file: Its path.
        fill: Writes the content to the path that it receives, and closes it.
    """
    unfinished = file.with_name(f"{file.name}.{secrets.token_hex(8)}.part")
    with _private(unfinished):
        _fill_and_sync(unfinished, fill)
        try:
            os.link(unfinished, file)
        except FileExistsError:
            return
        except OSError:  # a file system without links
            if not file.exists():
                unfinished.replace(file)
    _sync_folder(file.parent)


def replace_file(file: Path, fill: Callable[[Path], None]) -> None:
    """Write a file with mode 0600, instead of an older one of the same name if there is one. The caller holds a lock.

    Args:
        file: Its path.
        fill: Writes the content to the path that it receives, and closes it.
    """
    unfinished = Path(f"{file}.part")
    unfinished.unlink(missing_ok=True)  # left by a process that was killed
    with _private(unfinished):
        _fill_and_sync(unfinished, fill)
        unfinished.replace(file)
    _sync_folder(file.parent)


@contextmanager
def _private(unfinished: Path) -> Iterator[None]:
    """Create an empty file that only its owner may read; after the block delete this name, and SQLite's files beside it."""
    os.close(os.open(unfinished, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
    try:
        yield
    finally:
        for suffix in ("", "-wal", "-shm"):
            Path(f"{unfinished}{suffix}").unlink(missing_ok=True)


def _fill_and_sync(unfinished: Path, fill: Callable[[Path], None]) -> None:
    fill(unfinished)
    descriptor = os.open(unfinished, os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync_folder(folder: Path) -> None:
    """Make a new name in a folder durable (fsync(2)); Windows cannot."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
