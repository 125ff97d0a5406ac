"""Files that are damaged, or not ours, or gone: an error of ours names the file, in time, and nothing is written over it."""

from __future__ import annotations

import os
import random
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
    JobContext,
    JobSpec,
    OneShot,
    Overlap,
    SessionMode,
    StoreCorrupt,
    StoreUnavailable,
    open_scheduler,
    open_store,
)
from cronactors.storage.connection import APPLICATION_ID, SCHEMA_VERSION
from tests.chaos.fault_scenario import START, clock_at
from tests.chaos.faults import in_memory, talking
from tests.chaos.judge import Ledger, judge
from tests.chaos.sizes import quick_and_full

IN_TIME = 5.0
"""Seconds that are promised from the start, or from the damage, to the error."""


async def execute(ctx: JobContext) -> str:
    return f"done: {ctx.prompt}"


async def _fill(file: Path) -> None:
    kinds = [
        lambda n: Interval.every(seconds=20 + n),
        lambda n: Cron("* * * * *"),
        lambda n: OneShot(START + timedelta(seconds=n)),
    ]
    async with open_scheduler(file, execute, config=CronConfig(max_concurrent_runs=4)) as scheduler:
        for number in range(150):
            await scheduler.store.add_job(
                f"job {number}",
                "a prompt " * (number % 20 + 1),
                kinds[number % 3](number),
                user_id=(None, "user")[number % 2],
                session_mode=(SessionMode.MAIN, SessionMode.ISOLATED)[number % 4 > 0],
                overlap=(Overlap.SKIP, Overlap.CANCEL_OTHER)[number % 5 == 0],
            )
        await trio.sleep(120)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A file of 150 jobs of all kinds, with history."""
    file = tmp_path_factory.mktemp("whole") / "agent.db"
    trio.run(_fill, file, clock=clock_at(START))
    return file.read_bytes()


def contents(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}


# Found when it is opened

JUNK = random.Random(1).randbytes(20_000)
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


def of_others(*statements: str) -> Callable[[Path], None]:
    def make(file: Path) -> None:
        with closing(sqlite3.connect(file, isolation_level=None)) as connection:
            for statement in statements:
                connection.execute(statement)

    return make


def left_by_a_crash(*statements: str) -> Callable[[Path], None]:
    """Its log beside it, as after a kill: nobody has closed it."""

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
async def test_what_cannot_be_used_is_refused_by_name_and_stays_as_it_is(kind: str, opener: str, whole: bytes, tmp_path: Path):
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
    """A file of root, and until the block ends a user without the rights of root."""
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
    """A bit, eight bytes, or a block."""
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
    """Fail a block that goes on for ever, so that the seed and the number of the file are told."""

    def stop(*_: object) -> None:
        raise TimeoutError(f"it went on for {seconds:.0f} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def use(file: Path) -> tuple[bool, BaseException | None]:
    """Whether it could be opened, and what went wrong."""
    opened = trio.Event()
    try:
        with ending(10 * IN_TIME):
            trio.run(_use, file, opened, clock=clock_at(START + timedelta(seconds=300)))
    except BaseException as error:
        return opened.is_set(), error
    return True, None


@quick_and_full("files", 40, 2000)
def test_flipped_bytes_are_found_or_harmless_and_nothing_but_an_error_of_ours_comes_out(
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
            assert "prompt" not in str(error), "what stands in the file may be secret"
        outcomes["not noticed" if error is None else type(error).__name__] += 1
    told = ", ".join(f"{count} {outcome}" for outcome, count in sorted(outcomes.items()))
    assert longest < IN_TIME
    figures(f"{files} damaged files: {told}; the longest took {longest:.1f} s")


@pytest.mark.slow
@pytest.mark.parametrize("table", ["jobs", "job_specs", "runs", "schedulers", "jobs_due", "runs_of_job"])
async def test_damage_in_the_middle_is_told_when_it_is_met(table: str, whole: bytes, tmp_path: Path):
    """The root of a table or of an index, garbled while nobody looked: the file opens, and the scheduler ends with the reason."""
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
async def test_an_index_that_tells_of_moments_which_its_table_does_not_have_makes_nobody_spin_nor_run_ahead(
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
            before = scheduler._clock.turns.value
            await trio.sleep(0.5)  # real time, in which the clock would turn some 1,500 times
            assert scheduler._clock.turns.value - before < 150, "ten to twenty are expected"
            assert await scheduler.store.list_runs() == []


@pytest.mark.parametrize(
    "statement",
    ["UPDATE jobs SET overlap = 'sometimes'", "UPDATE job_specs SET misfire = '{'", "UPDATE job_specs SET created_at = 1 << 62"],
)
async def test_values_that_nobody_wrote_are_told_as_damage_and_not_as_a_bug(statement: str, whole: bytes, tmp_path: Path):
    file = tmp_path / "agent.db"
    file.write_bytes(whole)
    of_others(statement)(file)
    with (
        trio.fail_after(IN_TIME),
        pytest.raises(StoreCorrupt, match=r"agent\.db is damaged \(there are jobs that cannot be read"),
    ):
        async with open_store(file) as store:
            await store.list_jobs()


# Gone while it is open


@pytest.mark.slow
@pytest.mark.parametrize("what", ["deleted", "deleted with its log", "replaced", "its log deleted", "its index deleted"])
async def test_a_file_that_goes_while_it_is_open_is_told_and_not_made_anew(what: str, tmp_path: Path):
    file, away = tmp_path / "agent.db", tmp_path / "away"
    away.mkdir()
    alone = {"deleted": "agent.db", "its log deleted": "agent.db-wal", "its index deleted": "agent.db-shm"}
    gone = [alone[what]] if what in alone else ["agent.db", "agent.db-wal", "agent.db-shm"]
    ledger = Ledger(tmp_path / "ledger")

    async def execute(ctx: JobContext) -> None:
        ledger.write("start", ctx)
        ledger.write("end", ctx)

    async with open_scheduler(file, execute, tick_interval=0.1) as scheduler:
        kept = await scheduler.store.add_job("kept", "p", Interval.every(ms=50))
        await trio.sleep(0.2)  # real time, so that there are runs
        for name in gone:
            (tmp_path / name).rename(away / name)
        if what == "replaced":
            of_others("CREATE TABLE notes (text)")(file)
        there = contents(tmp_path).keys()
        with trio.fail_after(IN_TIME):
            with pytest.raises(StoreUnavailable, match=r"agent\.db was deleted or replaced"):
                await scheduler.store.add_job("lost", "p", Interval.every(ms=50))
            while "deleted" not in (scheduler.health().last_store_error or ""):
                await trio.sleep(0.01)
        await trio.sleep(0.3)  # real time, in which nothing is made
        assert contents(tmp_path).keys() == there
        if what == "replaced":
            file.unlink()
        for name in gone:
            (away / name).rename(tmp_path / name)
        with trio.fail_after(IN_TIME):
            second = await scheduler.store.add_job("second", "p", Interval.every(ms=50))
            while not await scheduler.store.list_runs(second):
                await trio.sleep(0.02)
    judge(file, ledger, acknowledged=[kept, second])


@pytest.mark.slow
async def test_without_the_index_that_all_share_two_processes_do_not_write_over_each_other(tmp_path: Path):
    """Who opens the file next makes a new index and knows nothing of the locks in the old one."""
    file = tmp_path / "agent.db"
    async with open_store(file) as store:
        added = [await store.add_job(f"before {n}", "p" * 3_000, Cron("* * * * *")) for n in range(10)]
        (tmp_path / "agent.db-shm").unlink()
        with talking(str(Path(__file__).with_name("adding_child.py")), str(file)) as other:
            assert other.stdin is not None
            assert other.stdout is not None
            for number in range(10):
                print(f"theirs {number}", file=other.stdin, flush=True)
                added.append(other.stdout.readline().strip())
                with pytest.raises(StoreUnavailable, match=r"agent\.db was deleted or replaced"):
                    await store.add_job(f"ours {number}", "p" * 3_000, Cron("* * * * *"))
            other.stdin.close()
            assert other.wait(timeout=30) == 0
    judge(file, Ledger(tmp_path / "ledger"), acknowledged=added)


# The log of another time


@pytest.mark.parametrize("log", [JUNK, bytes(9_000)], ids=["junk", "zeros"])
async def test_a_log_that_is_none_is_left_aside(log: bytes, whole: bytes, tmp_path: Path):
    file = tmp_path / "agent.db"
    file.write_bytes(whole)
    (tmp_path / "agent.db-wal").write_bytes(log)
    async with open_store(file) as store:
        assert len(await store.list_jobs()) == 150


@pytest.mark.parametrize("told", [True, False])
@pytest.mark.parametrize("kind", ["of another file", "of an earlier time"])
async def test_a_log_that_does_not_belong_to_the_file_is_told_or_taken_for_its_own(
    kind: str, told: bool, whole: bytes, tmp_path: Path
):
    """SQLite knows its own log by checksums, but not to which state of which file it belongs: docs/limits.md.

    It is told if pages of the one do not fit to those of the other. Else the file is what it was when the log was written.
    """
    file, other = tmp_path / "agent.db", tmp_path / "other.db"
    if kind == "of an earlier time" and told:  # else the log has every page that the file had then
        other.write_bytes(whole)
    async with open_store(other) as store:
        for number in range(1 if told else 5):
            await store.add_job(f"other {number}", "p" * 9_000, Cron("* * * * *"))
        then = {job.name for job in await store.list_jobs()}
        log = other.with_name("other.db-wal").read_bytes()
    file.write_bytes(whole)
    if kind == "of an earlier time" and told:  # the file went on without that log
        of_others("UPDATE job_specs SET prompt = 'p' || prompt || prompt")(file)
    elif not told:
        if kind == "of an earlier time":
            file.write_bytes(other.read_bytes())
        else:
            file.unlink()
        async with open_store(file) as store:
            await store.add_jobs([JobSpec(f"later {number}", "p" * 9_000, Cron("* * * * *")) for number in range(100)])
    (tmp_path / "agent.db-wal").write_bytes(log)

    async def read() -> set[str]:
        with trio.fail_after(IN_TIME):
            async with open_store(file) as store:
                await store.list_runs(limit=1000)
                return {job.name for job in await store.list_jobs()}

    if told:
        with pytest.raises(StoreCorrupt, match=r"agent\.db"):
            await read()
    else:
        assert await read() == then
