"""Upgrades of the schema that fail or are killed at any statement, or run in many processes: the schema is old or new."""

from __future__ import annotations

import json
import random
import shutil
import sqlite3
import stat
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from cronactors.errors import StoreCorrupt, StoreUnavailable
from cronactors.storage import migrations, schema
from cronactors.storage.connection import connect
from cronactors.storage.schema import SCHEMA_VERSION
from tests.chaos import upgrades
from tests.chaos.faults import EXIT_CODE, EXITS, FAILS, Faults, State, committed, in_memory, talking
from tests.chaos.sizes import quick_and_full
from tests.chaos.upgrades import made_up_schemas, open_file
from tests.storages import filled

JOBS = 50
FIXTURES = Path(__file__).parents[1] / "schema_files"
OLDER = [f"schema-{number}" for number in range(1, SCHEMA_VERSION)]


class Server:
    """A process that opens files."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        assert self.receive() == "ready"

    def call(self, **case: object) -> None:
        assert self._process.stdin is not None
        print(json.dumps(case), file=self._process.stdin, flush=True)

    def receive(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()


@contextmanager
def serving() -> Iterator[Server]:
    with talking(upgrades.__file__) as process:
        yield Server(process)


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of the schema that is to be upgraded."""
    file = tmp_path_factory.mktemp("old") / "agent.db"
    filled(str(file), count=JOBS)
    return file


@contextmanager
def started(kind: str, old: Path) -> Iterator[Path]:
    """A folder with the file before the upgrade, or without a file."""
    with in_memory() as folder:
        file = folder / "agent.db"
        if kind != "missing":
            shutil.copyfile(FIXTURES / f"{kind}.sqlite" if kind in OLDER else old, file)
        yield file


def copies(folder: Path) -> set[str]:
    return {file.name for file in folder.glob("agent.db.schema-*.bak")}


def check_copy(file: Path, state: State, before: State) -> None:
    """Check that a copy is complete and private, and that there is one before anything was deleted."""
    found = copies(file.parent)
    if found:
        _, (_, version), *_ = before
        assert found == {f"agent.db.schema-{version[0]}.bak"}
        copy = file.with_name(found.pop())
        assert committed(copy) == before
        assert stat.S_IMODE(copy.stat().st_mode) == 0o600
    else:
        assert not before or state == before


@pytest.mark.parametrize("kind", ["missing", "old", *OLDER])
@quick_and_full("share", 0.3, 1.0)
def test_failing_or_killed_at_any_statement_an_opening_leaves_the_old_schema_or_the_new_one(
    kind: str, share: float, old: Path, seed: int, figures: Callable[[str], None]
):
    chance = random.Random(seed)
    with started(kind, old) as file:
        before = committed(file)
        plain = Faults(file)
        open_file(plain)
        after = committed(file)
        check_copy(file, after, before)
    assert before != after
    assert (kind != "missing") == any("DROP COLUMN" in statement and before for statement in plain.seen)
    outcomes = {"old": 0, "new": 0}
    with serving() as server:
        for (number, statement), how in product(enumerate(plain.seen), FAILS + EXITS):
            if chance.random() > share and statement not in ("backup", "COMMIT"):
                continue
            with started(kind, old) as file:
                hurt(file, number, how, server)
                state = committed(file)
                assert state in (before, after), f"statement {number} {how}: {plain.seen[number]}"
                outcomes["new" if state == after else "old"] += 1
                check_copy(file, state, before)
                open_file(Faults(file))
                assert committed(file) == after
                check_copy(file, after, before)
                left = {path.name for path in file.parent.iterdir()} - {"agent.db"} - copies(file.parent)
                assert how in EXITS or not left
                assert all(name.endswith((".part", ".part-wal", ".part-shm", ".part-journal")) for name in left)
    assert all(outcomes.values())
    figures(
        f"{kind}: {len(plain.seen)} statements, {sum(outcomes.values())} faults: {outcomes['old']} left the old schema, "
        f"{outcomes['new']} the new one, 0 anything else; each opened afterwards"
    )


def hurt(file: Path, number: int, how: str, server: Server) -> None:
    """Let the opening fail or exit at that statement."""
    if how in EXITS:
        server.call(db=str(file), at=number, how=how)
        assert server.receive() == str(EXIT_CODE)
    else:
        with pytest.raises(StoreUnavailable, match=r"agent\.db"):
            open_file(Faults(file, number, how))


@quick_and_full("rounds", 4, 100)
def test_eight_processes_that_open_one_file_at_once_all_succeed_and_upgrade_it_once(
    rounds: int, old: Path, figures: Callable[[str], None]
):
    with started("old", old) as file:
        open_file(Faults(file))
        upgraded = committed(file)
    with started("missing", old) as file:
        open_file(Faults(file))
        new = committed(file)
    with ExitStack() as stack:
        servers = [stack.enter_context(serving()) for _ in range(8)]
        for round_ in range(rounds):
            kind = ("missing", "old")[round_ % 2]
            with started(kind, old) as file:
                before = committed(file)
                for server in servers:
                    server.call(db=str(file))
                assert {server.receive() for server in servers} == {f"opened with {JOBS if before else 0} jobs"}
                assert committed(file) == (upgraded if before else new)
                check_copy(file, (), before)
                assert {path.name for path in file.parent.iterdir()} <= {"agent.db"} | copies(file.parent)
    figures(f"{rounds} times 8 processes at once, new and old files by turns: all opened, each file was upgraded once")


def test_an_upgrade_loses_nothing(old: Path):
    with started("old", old) as file, made_up_schemas():
        connect(str(file), create=False).close()
        with closing(sqlite3.connect(file)) as db:
            assert db.execute("SELECT count(*), max(title) FROM jobs").fetchone() == (JOBS, f"{JOBS - 1:03}!")
            assert db.execute("PRAGMA user_version").fetchone() == (upgrades.NEWEST,)


def test_a_step_that_deletes_nothing_makes_no_copy(old: Path, monkeypatch: pytest.MonkeyPatch):
    with started("old", old) as file:
        monkeypatch.setattr(migrations, "STEPS", (*migrations.STEPS, migrations.Step(SCHEMA_VERSION + 1, upgrades.add_title)))
        monkeypatch.setattr(schema, "SCHEMA_VERSION", SCHEMA_VERSION + 1)
        connect(str(file), create=False).close()
        assert [path.name for path in file.parent.iterdir()] == ["agent.db"]


def test_a_file_of_a_newer_schema_is_refused_untouched(old: Path):
    with started("old", old) as file:
        open_file(Faults(file))
        before = file.read_bytes()
        with pytest.raises(StoreCorrupt, match=rf"agent\.db was written by a newer version \(schema {upgrades.NEWEST},"):
            connect(str(file), create=True)
        assert file.read_bytes() == before


def test_the_steps_are_numbered_up_to_the_newest_schema():
    numbers: list[Any] = [step.number for step in migrations.STEPS]
    assert numbers == list(range(1, SCHEMA_VERSION + 1))
