"""Damaged files and files of others: an error of ours names the file in time, and nothing is written to it."""

from __future__ import annotations

import os
import random
import re
import shutil
import signal
import sqlite3
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, nullcontext, suppress
from datetime import timedelta
from pathlib import Path

import pytest
import trio

from cronactors import (
    Cron,
    CronConfig,
    Interval,
    Overlap,
    StoreCorrupt,
    StoreUnavailable,
    open_scheduler,
    open_store,
)
from cronactors.ledger.damage import find_damage
from cronactors.storage.schema import APPLICATION_ID, SCHEMA_VERSION
from cronactors.storage.sqlite import SqliteStorage
from tests.chaos import whole_file
from tests.chaos.fault_scenario import START, clock_at
from tests.chaos.faults import in_memory
from tests.chaos.sizes import quick_and_full
from tests.chaos.whole_file import IN_TIME, JUNK, execute, of_others
from tests.storages import contents

whole = whole_file.whole


# Found when it is opened

BYTES: dict[str, Callable[[bytes], bytes]] = {
    "header zeroed": lambda data: bytes(100) + data[100:],
    "first page zeroed": lambda data: bytes(4096) + data[4096:],
    "schema garbled": lambda data: data[:100] + JUNK[:3996] + data[4096:],
    "truncated": lambda data: data[: len(data) // 2],
    "truncated within a page": lambda data: data[: len(data) // 2 + 1000],
    "junk": lambda data: JUNK,
    "text": lambda data: b"[cron]\ndatabase = 'agent.db'\n",
    "zeros": lambda data: bytes(len(data)),
    "empty": lambda data: b"",
}


def left_by_a_crash(*statements: str) -> Callable[[Path], None]:
    """Leave the log beside the file, as after a kill."""

    def make(file: Path) -> None:
        with (
            tempfile.TemporaryDirectory() as folder,
            closing(sqlite3.connect(f"{folder}/a.db", isolation_level=None)) as connection,
        ):
            for statement in statements:
                connection.execute(statement)
            for suffix in ("", "-wal"):
                shutil.copyfile(f"{folder}/a.db{suffix}", f"{file}{suffix}")

    return make


NEWER = (f"PRAGMA application_id = {APPLICATION_ID}", f"PRAGMA user_version = {SCHEMA_VERSION + 1}", "CREATE TABLE j (x)")
FILES: dict[str, Callable[[Path], None]] = {
    "directory": Path.mkdir,
    "foreign": of_others("CREATE TABLE notes (text)", "INSERT INTO notes VALUES ('mine')"),
    "foreign with its log": left_by_a_crash("PRAGMA journal_mode = WAL", "CREATE TABLE notes (text)"),
    "newer": of_others(*NEWER),
    "newer with its log": left_by_a_crash("PRAGMA journal_mode = WAL", *NEWER, "PRAGMA wal_checkpoint", "CREATE TABLE k (x)"),
    "pipe": os.mkfifo,
}


@pytest.mark.parametrize("opener", ["open_store", "open_scheduler"])
@pytest.mark.parametrize("kind", [*BYTES, *FILES, "no permission"])
async def test_an_unusable_file_is_refused_by_name_and_stays_as_it_is(kind: str, opener: str, whole: bytes, tmp_path: Path):
    file = tmp_path / "agent.db"
    if kind in FILES:
        FILES[kind](file)
    else:
        file.write_bytes(BYTES[kind](whole) if kind in BYTES else whole)
    before = contents(tmp_path) if kind != "pipe" else {}
    assert (f"{file.name}-wal" in before) == kind.endswith("with its log")
    permission = no_permission(tmp_path) if kind == "no permission" else nullcontext()
    with permission:  # noqa: SIM117 - it is given back last
        with trio.fail_after(IN_TIME), pytest.raises((StoreCorrupt, StoreUnavailable), match=r"agent\.db") as caught:
            async with open_store(file) if opener == "open_store" else open_scheduler(file, execute):
                pytest.fail("it must not open")
    assert "\n" not in str(caught.value)
    if kind != "pipe":
        assert contents(tmp_path) == before


@contextmanager
def no_permission(folder: Path) -> Iterator[None]:
    """Give the file to root; until the block ends this process has no rights of root."""
    root = os.geteuid() == 0
    for path in (folder, *folder.parents[:2]):
        path.chmod(path.stat().st_mode | 0o055)
    (folder / "agent.db").chmod(0o600 if root else 0)
    if root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)
        (folder / "agent.db").chmod(0o600)


# Found later


def damage(data: bytes, chance: random.Random) -> bytes:
    """Flip a bit, eight bytes, or a block."""
    damaged = bytearray(data)
    kind = chance.choice(["bit", "bytes", "block"])
    for _ in range(8 if kind == "bytes" else 1):
        at = chance.randrange(len(damaged))
        if kind == "bit":
            damaged[at] ^= 1 << chance.randrange(8)
        else:
            until = min(len(damaged), at + (chance.randrange(1, 600) if kind == "block" else 1))
            damaged[at:until] = chance.randbytes(until - at)
    return bytes(damaged)


async def _use(file: Path, opened: trio.Event) -> None:
    async with open_scheduler(file, execute, config=CronConfig(max_concurrent_runs=4)) as scheduler:
        opened.set()
        await scheduler.store.list_jobs()
        await scheduler.store.list_runs(limit=1000)
        await trio.sleep(25)
        await scheduler.store.add_job("another", "p", Cron("* * * * *"))
        await trio.sleep(60)
        await scheduler.store.list_runs(limit=1000)


@contextmanager
def ending(seconds: float) -> Iterator[None]:
    """Fail a block that does not end, so that the seed and the number of the file are printed."""

    def stop(*_: object) -> None:
        raise TimeoutError(f"it was still running after {seconds:.0f} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def use(file: Path) -> tuple[bool, BaseException | None]:
    """Return whether the file could be opened, and the error."""
    opened = trio.Event()
    try:
        with ending(10 * IN_TIME):
            trio.run(_use, file, opened, clock=clock_at(START + timedelta(seconds=300)))
    except BaseException as error:
        return opened.is_set(), error
    return True, None


@quick_and_full("files", 40, 2000)
def test_flipped_bytes_are_found_or_harmless_and_only_raise_our_own_errors(
    files: int, whole: bytes, seed: int, figures: Callable[[str], None]
):
    chance = random.Random(seed)
    outcomes: Counter[str] = Counter()
    longest = 0.0
    for number in range(files):
        with in_memory() as folder:
            file = folder / "agent.db"
            file.write_bytes(damage(whole, chance))
            before = contents(folder)
            begun = time.monotonic()
            opened, error = use(file)
            longest = max(longest, time.monotonic() - begun)
            assert opened or contents(folder) == before, f"file {number} was refused, and is another now"
        if error is not None:
            assert isinstance(error, StoreCorrupt | StoreUnavailable), f"file {number}: {error!r}"
            assert "agent.db" in str(error)
            assert "prompt" not in str(error), "the content of the file may be secret"
        outcomes["not noticed" if error is None else type(error).__name__] += 1
    counts = ", ".join(f"{count} {outcome}" for outcome, count in sorted(outcomes.items()))
    assert longest < IN_TIME
    figures(f"{files} damaged files: {counts}; the longest took {longest:.1f} s")


@pytest.mark.slow
@pytest.mark.parametrize("table", ["jobs", "job_specs", "runs", "owners", "jobs_due", "runs_of_job"])
async def test_damage_in_the_middle_is_reported_when_it_is_read(table: str, whole: bytes, tmp_path: Path):
    """With a garbled root page of a table or an index the file opens, and the scheduler ends with the reason."""
    file = tmp_path / "agent.db"
    file.write_bytes(whole)
    with closing(sqlite3.connect(file)) as connection:
        (page,) = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = ?", (table,)).fetchone()
    data = bytearray(whole)
    data[(page - 1) * 4096 : page * 4096] = random.Random(page).randbytes(4096)
    file.write_bytes(data)
    with trio.fail_after(IN_TIME), pytest.raises(StoreCorrupt, match=r"agent\.db is damaged"):
        async with open_scheduler(file, execute) as scheduler:
            await scheduler.store.list_runs()
            await trio.sleep_forever()
    assert file.stat().st_size >= len(data), "it is not made anew"


@pytest.mark.parametrize("change", ["next_run_at = NULL", "id = 'another'", "next_run_at = 5000000000000"])
@pytest.mark.parametrize("index", ["jobs_due", "jobs_cancelling"])
async def test_an_index_with_moments_that_its_table_lacks_lets_no_task_spin_and_no_job_run_early(
    index: str, change: str, tmp_path: Path
):
    file = tmp_path / "agent.db"
    held = "held_by = 77" if index == "jobs_cancelling" else "held_by = NULL"
    async with open_store(file) as store:
        await store.add_job("job", "p", Interval.every(ms=1), overlap=Overlap.CANCEL_OTHER)
    of_others(f"UPDATE jobs SET {held}")(file)
    with closing(sqlite3.connect(file, isolation_level=None)) as connection:
        connection.execute("PRAGMA writable_schema = ON")
        row = connection.execute("SELECT * FROM sqlite_master WHERE name = ?", (index,)).fetchone()
        connection.execute("DELETE FROM sqlite_master WHERE name = ?", (index,))
    of_others(f"UPDATE jobs SET {change}")(file)
    with closing(sqlite3.connect(file, isolation_level=None)) as connection:
        connection.execute("PRAGMA writable_schema = ON")
        connection.execute("INSERT INTO sqlite_master VALUES (?, ?, ?, ?, ?)", row)
    with suppress(StoreCorrupt):
        async with open_scheduler(file, execute) as scheduler:
            before = scheduler._actors.clock.wakes
            await trio.sleep(0.5)  # real time, in which the clock would turn some 1,500 times
            assert scheduler._actors.clock.wakes - before < 150, "ten to twenty are expected"
            assert await scheduler.store.list_runs() == []


@pytest.mark.parametrize(
    "statement",
    ["UPDATE jobs SET overlap = 'sometimes'", "UPDATE job_specs SET misfire = '{'", "UPDATE job_specs SET created_at = 1 << 62"],
)
async def test_foreign_values_hide_no_bug_and_are_found_as_damage_when_the_scheduler_fails(
    statement: str, whole: bytes, tmp_path: Path
):
    file = tmp_path / "agent.db"
    file.write_bytes(whole)
    of_others(statement)(file)
    with trio.fail_after(IN_TIME):
        async with open_store(file) as store:
            jobs = await store.list_jobs()
            assert jobs
            assert all("cannot be read" in (job.last_error or "") for job in jobs)
    with closing(SqliteStorage(str(file), wall=lambda: 0)) as storage:
        assert re.search(r"agent\.db is damaged \(there are jobs that cannot be read", str(find_damage(storage)))
