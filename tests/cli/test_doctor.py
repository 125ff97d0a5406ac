"""`cronactors doctor`: what it finds, its exit statuses, and that it leaves a file as it is."""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Callable
from contextlib import closing
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path

import attrs
import click
import pytest
import trio
from click.testing import CliRunner, Result
from sqlite_utils import Database

from cronactors import Interval, now, open_store
from cronactors.cli.checks import Check, Level
from cronactors.cli.doctor import examine
from cronactors.cli.why_commands import doctor
from cronactors.errors import StoreUnavailable
from cronactors.instants import Millis
from cronactors.ledger.zone_changes import RulesOfStore
from cronactors.notifications import NotificationStatus
from cronactors.owner import ProcessIdentity, identify_this_process
from cronactors.storage.migrations import STEPS
from cronactors.storage.notifications import NotificationRow, Settlement
from cronactors.storage.postgres.figures import TABLES
from cronactors.storage.postgres.migrations import newest
from cronactors.storage.protocol import Storage
from cronactors.storage.read_only import read_file
from cronactors.storage.rows import DECLARED_DEAD, JobRow, OwnerRow, RunRow, job_key
from cronactors.storage.schema import APPLICATION_ID, SCHEMA_VERSION
from cronactors.storage.sqlite import SqliteStorage
from cronactors.wallclock import system_wall
from tests.cli_stores import server

__all__ = ["server"]

MINUTE: Millis = 60_000
HOUR: Millis = 3_600_000
DAY: Millis = 86_400_000
ELSEWHERE = ProcessIdentity("another/1/", 17, "")


async def add_job(database: str) -> None:
    async with open_store(database) as store:
        await store.add_job("nightly", "it", Interval(HOUR))


@pytest.fixture
def path(tmp_path: Path) -> str:
    """A file with one hourly job, and no scheduler."""
    database = str(tmp_path / "jobs.db")
    trio.run(add_job, database)
    return database


def change(database: str, function: Callable[[Storage], object]) -> None:
    storage = SqliteStorage(database, wall=system_wall, create=False)
    with closing(storage):
        assert storage.begin(write=True)
        function(storage)
        storage.commit()


def the_job(storage: Storage) -> JobRow:
    ((_, job),) = storage.list_jobs(after=0, limit=10, user_id=None)
    return job


def set_job(**fields: object) -> Callable[[Storage], None]:
    return lambda storage: storage.update_jobs([the_job(storage)._replace(**fields)])  # type: ignore[arg-type]


def add_owner(process: ProcessIdentity | None = None, *, seen: Millis = 0, lease: Millis = 30_000, receivers: str = "[]"):
    """Add an owner that was seen so long ago (ms), by default one of this process."""
    process = process or identify_this_process()

    def add(storage: Storage) -> None:
        at = storage.now() - seen
        until = at + lease if lease > 0 else lease
        storage.insert_owner(OwnerRow(0, process.machine, process.pid, process.process_start, at, until, receivers))

    return add


def add_run(storage: Storage, **fields: object) -> None:
    job, now = the_job(storage), storage.now()
    row = RunRow(0, job.id, job.name, job.user_id, "schedule", 0, now - DAY, 1, now - DAY)
    storage.insert_runs([row._replace(**fields)])  # type: ignore[arg-type]


def found(database: str) -> dict[str, Check]:
    return {check.name: check for check in examine(database)}


def level(database: str, name: str) -> str:
    return found(database)[name].level.name


def run(*args: str) -> Result:
    return CliRunner().invoke(doctor, args)


def test_a_store_that_is_well(path: str) -> None:
    change(path, add_owner())
    done = run(path)
    assert (done.exit_code, {line.split()[0] for line in done.output.splitlines()}) == (0, {"OK"})
    assert "1 scheduler alive (process " in done.output
    report = json.loads(run(path, "--json", "--deep").output)
    assert (report["status"], report["error"]) == ("ok", None)
    names = [check["check"] for check in report["checks"]]
    assert names == [
        "scheduler", "overdue", "runs", "waiting", "paused", "failing", "notifications", "given up", "lists", "time zones", "clock",
        "file", "disk", "integrity",
    ]  # fmt: skip
    assert next(check["schema"] for check in report["checks"] if check["check"] == "file") == SCHEMA_VERSION


@pytest.mark.parametrize(
    ("owner", "expected"),
    [
        (add_owner(), "OK"),
        (add_owner(seen=HOUR), "WARNING"),
        (add_owner(ELSEWHERE, seen=100_000), "OK"),
        (add_owner(ELSEWHERE, seen=130_000), "CRITICAL"),
        (add_owner(lease=0), "CRITICAL"),
        (add_owner(lease=DECLARED_DEAD), "CRITICAL"),
        (add_owner(attrs.evolve(identify_this_process(), process_start="1")), "CRITICAL"),
        (None, "CRITICAL"),
    ],
)
def test_whether_a_scheduler_is_alive(path: str, owner: Callable[[Storage], None] | None, expected: str) -> None:
    if owner is not None:
        change(path, owner)
    assert level(path, "scheduler") == expected


def test_without_a_scheduler_what_waits_for_one_is_counted(path: str) -> None:
    async def pause(until: datetime | None, *, run: bool) -> None:
        async with open_store(path) as store:
            (job,) = await store.list_jobs()
            await store.pause_job(job.id, until=until)
            if run:
                await store.request_run(job.id)

    def scheduler() -> tuple[Level, str]:
        check = found(path)["scheduler"]
        return check.level, check.text

    assert scheduler() == (Level.CRITICAL, "none is alive, and 1 job waits for one")
    trio.run(partial(pause, None, run=False))
    assert scheduler() == (Level.OK, "none is alive, and nothing waits for one")
    trio.run(partial(pause, now() + timedelta(hours=1), run=False))
    assert scheduler() == (Level.CRITICAL, "none is alive, and 1 job waits for one")
    trio.run(partial(pause, None, run=True))
    assert scheduler() == (Level.CRITICAL, "none is alive, and 1 run waits for one")
    change(path, set_job(enabled=1))
    assert scheduler() == (Level.CRITICAL, "none is alive, and 1 job and 1 run wait for one")


def test_without_a_scheduler_the_worst_is_first(path: str) -> None:
    change(path, set_job(consecutive_failures=12))
    done = run(path)
    assert done.exit_code == 2
    lines = done.output.splitlines()
    assert lines[0] == "CRITICAL  scheduler: none is alive, and 1 job waits for one"
    assert lines[1] == "WARNING   failing: 1 job failing again and again: nightly (12 times)"
    change(path, set_job(enabled=0))
    assert run(path).exit_code == 0


@pytest.mark.parametrize(("late", "expected"), [(MINUTE // 2, "OK"), (5 * MINUTE, "WARNING"), (2 * HOUR, "CRITICAL")])
def test_overdue_moments(path: str, late: Millis, expected: str) -> None:
    change(path, lambda storage: set_job(next_run_at=storage.now() - late)(storage))
    check = found(path)["overdue"]
    assert check.level.name == expected
    assert check.text == "no moment is overdue" or check.text.startswith("1 job is overdue, the first for ")


def test_stuck_runs_and_those_of_the_dead(path: str) -> None:
    change(path, add_owner())
    change(path, set_job(timeout_secs=100.0))
    change(path, lambda storage: add_run(storage, status="running", owner=1, started_at=storage.now() - 2 * MINUTE))
    assert found(path)["runs"].text == "1 run running, none is stuck"
    change(path, lambda storage: add_run(storage, status="running", owner=7, started_at=1, attempt=2))
    assert (level(path, "runs"), found(path)["runs"].figures["orphans"]) == ("WARNING", 1)
    change(path, set_job(timeout_secs=60.0))
    assert found(path)["runs"].text == "1 run did not end within the timeout: run 1 of nightly"


def test_runs_that_wait(path: str) -> None:
    change(path, lambda storage: add_run(storage, ready_at=storage.now()))
    assert level(path, "waiting") == "OK"
    change(path, lambda storage: add_run(storage, attempt=2, ready_at=storage.now() - HOUR))
    assert found(path)["waiting"].text == "1 run waiting, the first for 1 h: run 2 of nightly"


def test_runs_that_wait_for_something(path: str) -> None:
    key = job_key("another")
    change(path, lambda storage: add_run(storage, ready_at=storage.now() - 2 * HOUR, waits_for=key))
    assert level(path, "waiting") == "OK"
    change(path, set_job(held_by=1))
    assert found(path)["waiting"].text.startswith("1 run waiting, the first for 2 h")


def test_jobs_that_are_paused(path: str) -> None:
    change(path, set_job(enabled=0, last_error="of a user"))
    assert level(path, "paused") == "OK"
    change(path, set_job(last_error="paused: the schedule cannot be read"))
    assert level(path, "paused") == "WARNING"
    change(path, set_job(crashes=3))
    assert found(path)["paused"].text == "1 job paused because the process crashed: nightly"
    assert level(path, "paused") == "CRITICAL"


def notify(storage: Storage) -> None:
    rows = [NotificationRow(0, None, number, "mail", the_job(storage).id, storage.now()) for number in (1, 2)]
    storage.notifications.insert(rows)


def test_notifications(path: str) -> None:
    change(path, notify)
    assert found(path)["notifications"].text == "2 notifications pending, and no running scheduler has the receiver mail"
    change(path, add_owner(receivers='["mail"]'))
    assert found(path)["notifications"].text == "2 notifications pending"
    assert level(path, "notifications") == "OK"
    assert level(path, "given up") == "OK"

    def give_up(storage: Storage) -> None:
        lost = Settlement(1, NotificationStatus.GIVEN_UP, 5, None, "no", "mail", the_job(storage).id)
        storage.notifications.settle([lost], owner=1)

    change(path, give_up)
    assert (level(path, "given up"), found(path)["given up"].figures) == ("WARNING", {"given_up": 1})


def test_a_list_whose_file_is_gone(path: str) -> None:
    def list_it(storage: Storage) -> None:
        storage.update_jobs([the_job(storage)._replace(origin="old.toml")])
        storage.set_origin("old.toml", "old.toml")

    change(path, list_it)
    assert found(path)["lists"].text == "the file of 1 list is gone, and the jobs keep running: old.toml (1 job)"
    Path(path).with_name("old.toml").touch()
    assert level(path, "lists") == "OK"


@pytest.mark.parametrize(("rules", "expected"), [("2001a/1", "OK"), ("2999a/1", "WARNING")])
def test_the_rules_of_time_zones(path: str, rules: str, expected: str) -> None:
    stored = json.dumps(attrs.asdict(RulesOfStore(rules, 0, done=True, before=None)))
    change(path, lambda storage: storage.set_meta("rules", stored))
    assert (level(path, "time zones"), rules in found(path)["time zones"].text) == (expected, True)


def test_a_clock_that_was_set_back(path: str) -> None:
    assert level(path, "clock") == "OK"
    change(path, add_owner(ELSEWHERE, seen=-2 * HOUR))
    assert "the store has times 1 h 59 min ahead" in found(path)["clock"].text or "2 h ahead" in found(path)["clock"].text


# The file


def content(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def test_it_leaves_the_file_as_it_is(path: str, tmp_path: Path) -> None:
    before = content(tmp_path)
    assert set(before) == {"jobs.db"}
    assert run(path, "--deep").exit_code == 2
    assert content(tmp_path) == before


def test_it_reads_what_a_running_program_has_written(path: str, tmp_path: Path) -> None:
    storage = SqliteStorage(path, wall=system_wall, create=False)
    with closing(storage):
        assert storage.begin(write=True)
        set_job(consecutive_failures=5)(storage)
        storage.commit()
        assert storage.begin(write=True)  # another program may be in the middle of something
        names = {file.name for file in tmp_path.iterdir()}
        assert level(path, "failing") == "WARNING"
        assert {file.name for file in tmp_path.iterdir()} == names
        storage.rollback()


def test_a_file_that_another_program_opens_meanwhile_is_read_again(path: str) -> None:
    opened: list[SqliteStorage] = []

    def read(storage: Storage) -> int:
        assert storage.begin(write=False)
        failures = the_job(storage).consecutive_failures
        storage.rollback()
        if not opened:
            opened.append(SqliteStorage(path, wall=system_wall, create=False))
            assert opened[0].begin(write=True)
            set_job(consecutive_failures=5)(opened[0])
            opened[0].commit()
        return failures

    try:
        assert read_file(path, read) == 5
    finally:
        opened[0].close()


def test_a_newer_schema_is_named(path: str, tmp_path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 99")
    before = content(tmp_path)
    done = run(path)
    assert (done.exit_code, "schema 99, this version knows" in done.output) == (3, True)
    assert json.loads(run(path, "--json").output)["status"] == "unknown"
    assert content(tmp_path) == before


def test_an_older_schema_is_not_upgraded(tmp_path: Path) -> None:
    path = tmp_path / "old.db"
    with closing(sqlite3.connect(path)) as connection:
        for step in STEPS[:-1]:
            step.apply(Database(connection))
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION - 1}")
        connection.commit()
    before = content(tmp_path)
    done = run(str(path))
    assert (done.exit_code, f"schema {SCHEMA_VERSION - 1} is older" in done.output) == (1, True)
    assert content(tmp_path) == before


def test_damage(path: str) -> None:
    change(path, add_owner())
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("DELETE FROM job_specs")
        connection.commit()
    done = run(path, "--deep")
    assert (done.exit_code, done.output.splitlines()[0].startswith("CRITICAL  integrity: ")) == (2, True)


def test_what_cannot_be_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CRONACTORS_DB", raising=False)
    assert run("absent.db").output == f"UNKNOWN   {tmp_path / 'absent.db'} does not exist\n"
    assert run("absent.db").exit_code == run(":memory:").exit_code == run(".").exit_code == 3
    assert run().exit_code == run("--nonsense").exit_code == run("a", "b").exit_code == 3
    assert run("--config", "absent.toml").exit_code == 3
    assert run("postgresql://user:secret@localhost/x").exit_code == 3
    assert run("--help").exit_code == 0
    assert CliRunner().invoke(click.Group(commands=[doctor]), ["doctor", "--nonsense"]).exit_code == 3
    assert not list(tmp_path.iterdir())
    Path("notes.txt").write_text("no database")
    assert run("notes.txt").exit_code == 3
    with pytest.raises(StoreUnavailable):
        examine("absent.db")


def test_a_server(server: str) -> None:
    assert run(server).exit_code == 3  # the schema does not exist, and is not created
    assert run(server).exit_code == 3
    trio.run(add_job, server)
    assert found(server)["scheduler"].level is Level.CRITICAL
    assert not {"file", "lists"} & set(found(server))
    facts = found(server)["server"]
    assert facts.level is Level.OK
    assert re.fullmatch(
        r"schema \d on PostgreSQL \d+(\.\d+)?, \d+ kB in \d\d tables; the largest is \w+ with [\d.]+ kB", facts.text
    )
    assert facts.figures["schema"] == newest()
    tables = facts.figures["tables"]
    assert isinstance(tables, dict)
    assert facts.figures["size"] == sum(tables.values())
    assert set(tables) == set(TABLES) >= {"version", "jobs", "runs", "run_output"}
    assert all(tables.values())
    assert run(server).exit_code == 2
