"""Disks that fill up and have room again: real ones where the machine allows it, otherwise limits of SQLite."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import attrs

from cronactors import CronStore
from cronactors.actors.mailbox import ReadRequest
from cronactors.storage.protocol import Storage
from cronactors.storage.sqlite import SqliteStorage

SIZE = 4 * 2**20


@attrs.frozen
class Pragma(ReadRequest[None]):
    """Set a limit on the connection of the store itself."""

    setting: str

    def apply(self, storage: Storage) -> None:
        assert isinstance(storage, SqliteStorage)
        storage._db.execute(f"PRAGMA {self.setting}")


class Disk(ABC):
    """The place of a database. ``what`` names the way in which it is filled."""

    what: str

    def __init__(self, folder: Path) -> None:
        self.db = folder / "agent.db"

    @abstractmethod
    async def fill(self, store: CronStore) -> None: ...

    @abstractmethod
    async def free(self, store: CronStore) -> None: ...

    async def _set(self, store: CronStore, setting: str) -> None:
        await store._service.mailbox.call(Pragma(setting))


class Tmpfs(Disk):
    what = "a tmpfs without a free byte"

    async def fill(self, store: CronStore) -> None:
        with self.db.with_name("filler").open("wb", buffering=0) as filler:
            for size in (4096, 1):
                try:
                    while filler.write(bytes(size)):
                        pass
                except OSError:
                    continue

    async def free(self, store: CronStore) -> None:
        self.db.with_name("filler").unlink()


class PageLimit(Disk):
    what = "PRAGMA max_page_count"

    async def fill(self, store: CronStore) -> None:
        await self._set(store, "max_page_count = 1")  # as many as there are

    async def free(self, store: CronStore) -> None:
        await self._set(store, "max_page_count = 1000000")


class FileSizeLimit(Disk):
    what = "RLIMIT_FSIZE"

    async def fill(self, store: CronStore) -> None:
        log = self.db.with_name("agent.db-wal").stat().st_size
        resource.setrlimit(resource.RLIMIT_FSIZE, (log, resource.RLIM_INFINITY))

    async def free(self, store: CronStore) -> None:
        no_limit()


class Immutable(Disk):
    what = "chattr +i on the file and its log"

    async def fill(self, store: CronStore) -> None:
        chattr("+i", self.db, self.db.with_name("agent.db-wal"))

    async def free(self, store: CronStore) -> None:
        chattr("-i", self.db, self.db.with_name("agent.db-wal"))


class QueryOnly(Disk):
    what = "PRAGMA query_only"

    async def fill(self, store: CronStore) -> None:
        await self._set(store, "query_only = ON")

    async def free(self, store: CronStore) -> None:
        await self._set(store, "query_only = OFF")


def no_limit() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


def chattr(flag: str, *files: Path) -> bool:
    return (
        bool(shutil.which("chattr")) and not subprocess.run(["chattr", flag, *files], check=False, capture_output=True).returncode
    )


def may_be_immutable(folder: Path) -> bool:
    probe = folder / "probe"
    with probe.open("wb", buffering=0) as file:
        if not chattr("+i", probe):
            return False
        try:
            file.write(b"x")
        except OSError:
            return True
        else:
            return False
        finally:
            chattr("-i", probe)


@contextmanager
def small_disk(kind: str, folder: Path) -> Iterator[Disk]:
    """A disk of that kind, or the nearest kind that this machine has."""
    if kind == "full":
        mounted = mount(folder)
        try:
            yield Tmpfs(folder) if mounted else PageLimit(folder)
        finally:
            if mounted:
                subprocess.run(["umount", folder], check=True)
    elif kind == "file size":
        try:
            yield FileSizeLimit(folder)
        finally:
            no_limit()
    else:
        immutable = may_be_immutable(folder)
        try:
            yield Immutable(folder) if immutable else QueryOnly(folder)
        finally:
            if immutable:
                chattr("-i", *folder.glob("agent.db*"))


def mount(folder: Path) -> bool:
    if os.geteuid() or not shutil.which("mount"):
        return False
    command = ["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", folder]
    return not subprocess.run(command, check=False, capture_output=True).returncode
