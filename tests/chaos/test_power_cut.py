"""Power cuts: no acknowledged job is missing when the unacknowledged end of the log is cut or garbled.

A stopped process stands for a machine without power: its files are copied and hurt. The drive is not simulated: we assume that it
keeps what it was told to sync.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import sqlite3
import struct
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import attrs
import pytest
import trio

from cronactors import CronConfig, JobContext, RetryPolicy, open_scheduler
from tests.chaos.fault_scenario import clock_at
from tests.chaos.faults import in_memory
from tests.chaos.judge import Ledger, judge, read_database
from tests.chaos.sizes import quick_and_full

pytestmark = pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="needs to see that every thread has stopped")

ROOT = Path(__file__).parents[2]
CUTS_A_PROCESS = 20
_HEADER, _FRAME_HEADER, _PAGE = 32, 24, 4096


@attrs.frozen
class Marks:
    """Acknowledgements, and how far the log reached before each."""

    frames: int
    salt: bytes
    added: frozenset[str]
    recorded: dict[int, str]

    @classmethod
    def read(cls, file: Path) -> Marks:
        lines = [line.split() for line in file.read_text().splitlines()]
        return cls(
            frames=int(lines[-1][0]),
            salt=bytes.fromhex(lines[-1][1]),
            added=frozenset(line[3] for line in lines if line[2] == "added"),
            recorded={int(line[3]): line[4] for line in lines if line[2] == "recorded"},
        )


class World:
    """A folder with a database, a ledger and marks."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.db, self.log = folder / "agent.db", folder / "agent.db-wal"
        self.ledger, self.marks = Ledger(folder / "ledger"), folder / "marks"

    def copy(self, folder: Path) -> World:
        """Copy the files, without the index, which does not survive a reboot."""
        folder.mkdir()
        for file in (self.db, self.log, self.ledger.file, self.marks):
            if file.exists():
                shutil.copyfile(file, folder / file.name)
        return World(folder)

    async def execute(self, ctx: JobContext) -> None:
        self.ledger.write("start", ctx)
        self.ledger.write("raise" if ctx.prompt.startswith("fail") else "end", ctx)
        if ctx.prompt.startswith("fail"):
            raise ValueError("as requested")

    async def _live_on(self) -> None:
        config = CronConfig(max_concurrent_runs=8, retry=RetryPolicy(delays=(0.2,)))
        async with open_scheduler(self.db, self.execute, config=config):
            await trio.sleep(4)  # twice the furthest moment

    def live_on(self) -> None:
        trio.run(self._live_on, clock=clock_at(datetime.now(UTC) + timedelta(seconds=1)))


@contextmanager
def child(world: World, seed: int) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [
            sys.executable,
            str(Path(__file__).with_name("power_child.py")),
            str(world.db),
            str(world.ledger.file),
            str(world.marks),
            str(seed),
        ],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        text=True,
        stdout=subprocess.PIPE,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


@contextmanager
def stopped(process: subprocess.Popen[str]) -> Iterator[None]:
    """Stop the process; a thread that waits for the disk stops only after that."""
    process.send_signal(signal.SIGSTOP)
    threads = Path(f"/proc/{process.pid}/task")
    while {file.read_text().rpartition(")")[2].split()[0] for file in threads.glob("*/stat")} != {"T"}:
        time.sleep(0.001)
    try:
        yield
    finally:
        process.send_signal(signal.SIGCONT)


def cut(world: World, marks: Marks, chance: random.Random) -> str:
    """Cut or garble the log behind the last mark, and pages that a checkpoint may have been writing; return how."""
    log = bytearray(world.log.read_bytes())
    same = log[16:24] == marks.salt
    begins = (
        _HEADER + marks.frames * (_FRAME_HEADER + _PAGE) if same else 0
    )  # otherwise it was restarted, when all of it was in the file
    assert begins <= len(log), "acknowledged pages are not even in the log"
    torn = tear_checkpoint(world, log[:begins], chance) if same else 0
    how = chance.choice(["cut", "garbled", "zeroed"])
    at = chance.randint(begins, len(log))
    if len(log) == begins:
        log += chance.randbytes(chance.randrange(1, 3 * _PAGE))
        how = "junk"
    elif how == "cut":
        del log[at:]
    else:
        until = chance.randint(at, len(log))
        log[at:until] = chance.randbytes(until - at) if how == "garbled" else bytes(until - at)
    world.log.write_bytes(log)
    return f"{how}{' and torn' if torn else ''}"


def tear_checkpoint(world: World, log: bytes, chance: random.Random) -> int:
    """Garble some pages of the file that the log has. Not the first: its header fits a sector, so a checkpoint never tears it."""
    data = bytearray(world.db.read_bytes())
    held = {struct.unpack_from(">I", log, at)[0] for at in range(_HEADER, len(log), _FRAME_HEADER + _PAGE)}
    torn = [page for page in sorted(held) if page > 1 and page * _PAGE <= len(data) and chance.random() < 0.2]
    for page in torn:
        begins = (page - 1) * _PAGE + chance.randrange(_PAGE)
        data[begins : page * _PAGE] = chance.randbytes(page * _PAGE - begins)
    world.db.write_bytes(data)
    return len(torn)


@quick_and_full("cuts", 20, 500)
def test_after_a_power_cut_nothing_that_was_acknowledged_is_missing(
    cuts: int, seed: int, figures: Callable[[str], None], tmp_path: Path
):
    chance = random.Random(seed)
    how: Counter[str] = Counter()
    acknowledged = recorded = 0
    for number in range(-(-cuts // CUTS_A_PROCESS)):
        world = World(tmp_path / str(number))
        world.folder.mkdir()
        copies = []
        with in_memory() as folder, child(world, seed + number) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "2\n", "synchronous of the live connection: 2 is FULL"
            while len(copies) < min(CUTS_A_PROCESS, cuts):
                time.sleep(chance.uniform(0.02, 0.15))  # real time: it is to be stopped at a random point
                with stopped(process):
                    copies.append(world.copy(folder / str(len(copies))))
            process.kill()
            process.wait()
            for copy in copies:  # the process is dead now, so its runs are recovered
                marks = Marks.read(copy.marks)
                how[cut(copy, marks, chance)] += 1
                check(copy, marks)
                acknowledged, recorded = acknowledged + len(marks.added), recorded + len(marks.recorded)
    figures(
        f"{sum(how.values())} cuts ({', '.join(f'{count} {kind}' for kind, count in sorted(how.items()))}); "
        f"0 of {acknowledged} acknowledged jobs and 0 of {recorded} stored outcomes missing; synchronous=2"
    )


def check(world: World, marks: Marks) -> None:
    plain = world.copy(world.folder / "plain")
    with closing(sqlite3.connect(plain.db)) as connection:
        assert connection.execute("PRAGMA quick_check").fetchall() == [("ok",)]
    world.live_on()
    judge(world.db, world.ledger, acknowledged=marks.added)
    _, rows = read_database(world.db)
    status = {row.id: row.status for row in rows}
    assert {run: status.get(run) for run in marks.recorded} == marks.recorded
    ended = {row.job for row in rows if row.status in ("success", "failed")}
    still_open = {row.job for row in rows if row.status in ("pending", "running")}
    assert marks.added <= ended - still_open, "an added job has not finished"
