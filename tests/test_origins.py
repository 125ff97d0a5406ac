"""Origins: finding the list of a file again, reports of lists whose file is gone, taking them over and removing them."""

from __future__ import annotations

import logging
import os
import pty
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path

import attrs
import pytest

from cronactors import CronConfig, Interval, InvalidConfig, JobSpec, load_config, open_scheduler, open_store
from cronactors.origins import default_origin, origin_of
from cronactors.testing import VirtualClock
from tests.cli_command import COMMAND, ROOT, lines_of, start, write
from tests.workers import Worker

__all__ = ["start", "write"]

EVERY = Interval(3_600_000)


@pytest.mark.parametrize(
    ("database", "file", "path"),
    [
        ("/srv/a.db", "/srv/agent.toml", "agent.toml"),
        ("/srv/data/a.db", "/srv/conf/agent.toml", "../conf/agent.toml"),
        ("/a.db", "/srv/agent.toml", "srv/agent.toml"),
        (":memory:", "/srv/agent.toml", "agent.toml"),
        ("/srv/x/../a.db", "/srv/agent.toml", "agent.toml"),
    ],
)
def test_the_origin_of_a_file_is_its_path_from_the_folder_of_the_database(database, file, path):
    assert default_origin(database, file) == path
    assert origin_of(CronConfig(file=file), database) == path
    assert origin_of(CronConfig(file=file, origin="named"), database) == "named"
    assert origin_of(CronConfig(origin="named"), database) == "named"
    assert origin_of(CronConfig(), database) is None


def test_a_relative_path_of_the_database(tmp_path, monkeypatch):
    (tmp_path / "sub").mkdir()
    monkeypatch.chdir(tmp_path / "sub")
    assert default_origin("a.db", f"{tmp_path}/agent.toml") == "../agent.toml"


def test_a_file_may_name_its_origin(tmp_path):
    file = tmp_path / "agent.toml"
    file.write_text('[cron]\norigin = "my agent"')
    assert (load_config(file).origin, load_config(file).file) == ("my agent", str(file))
    file.write_text("[cron]\norigin = 5")
    with pytest.raises(InvalidConfig, match=r"agent\.toml: \[cron\]: origin must be text, not int"):
        load_config(file)


def list_in(file: Path, *names: str, extra: str = "") -> CronConfig:
    """Write a file with those jobs, and load it."""
    jobs = "".join(f'[[cron.jobs]]\nname = "{name}"\nprompt = "p"\nevery_ms = 3600000\n' for name in names)
    file.write_text(f"[cron]\n{extra}\n{jobs}")
    return load_config(file)


async def names_in(database: Path) -> list[str]:
    async with open_store(database, create=False) as store:
        return sorted(job.name for job in await store.list_jobs())


async def start_and_stop(database: Path, config: CronConfig) -> tuple[str, ...]:
    """Start and stop a scheduler; return the reports of lists whose file is gone."""
    async with open_scheduler(database, Worker(), config=config) as scheduler:
        return tuple(lost.line() for lost in scheduler._start_report.lost)


async def test_a_file_that_is_moved_with_its_database_is_the_same_list(virtual_clock: VirtualClock, tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    assert await start_and_stop(first / "a.db", list_in(first / "agent.toml", "a", "b")) == ()
    first.rename(second)
    assert await start_and_stop(second / "a.db", list_in(second / "agent.toml", "a")) == ()
    assert await names_in(second / "a.db") == ["a"]


async def test_each_start_reports_a_renamed_file_until_its_jobs_are_taken_over(
    virtual_clock: VirtualClock, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    database, old, new = tmp_path / "a.db", tmp_path / "old.toml", tmp_path / "new list.toml"
    await start_and_stop(database, list_in(old, "a", "b", "c"))
    old.unlink()
    adopt, remove = "cronactors run --adopt old.toml", "cronactors remove --origin old.toml"
    report = (f"2 jobs of old.toml, which is gone: `{adopt}` takes them over, `{remove}` removes them",)
    for _ in range(2):
        caplog.clear()
        assert await start_and_stop(database, list_in(new, "a")) == report
        assert [(record.levelno, record.message) for record in caplog.records] == [(logging.WARNING, report[0])]
    async with open_store(database) as store:
        job = await store.get_job_by_name("b")
        assert await store.adopt_origin("old.toml", by="new list.toml") == 2
        assert job is not None
        assert await store.get_job_by_name("b") == attrs.evolve(job, origin="new list.toml")
        assert await store.adopt_origin("old.toml", by="new list.toml") == 0
    assert await start_and_stop(database, list_in(new, "a", "b")) == ()
    assert await names_in(database) == ["a", "b"]
    new.unlink()
    assert "`cronactors run --adopt 'new list.toml'`" in (await start_and_stop(database, list_in(old, "d")))[0]
    async with open_store(database) as store:
        assert await store.remove_origin("new list.toml") == 2
        assert await store.remove_origin("new list.toml") == 0
    assert await start_and_stop(database, load_config(old)) == ()
    assert await names_in(database) == ["d"]


async def test_two_files_with_one_database_keep_their_own_jobs(virtual_clock: VirtualClock, tmp_path: Path) -> None:
    database = tmp_path / "a.db"
    (tmp_path / "other").mkdir()
    for _ in range(2):
        assert await start_and_stop(database, list_in(tmp_path / "agent.toml", "a")) == ()
        assert await start_and_stop(database, list_in(tmp_path / "other" / "agent.toml", "b")) == ()
        assert await start_and_stop(database, list_in(tmp_path / "named.toml", "c", extra='origin = "agent"')) == ()
        assert await names_in(database) == ["a", "b", "c"]


@pytest.mark.parametrize("migrated", [False, True])
async def test_the_absolute_path_of_a_file_was_its_origin_once(
    virtual_clock: VirtualClock, tmp_path: Path, *, migrated: bool
) -> None:
    database, file = tmp_path / "a.db", tmp_path / "agent.toml"
    async with open_store(database) as store:
        specs = [JobSpec(name, "p", EVERY) for name in ("a", "b")]
        (job_id, _) = await store.upsert_jobs(specs, origin=str(file))
        await store.upsert_jobs([JobSpec("c", "p", EVERY)], origin=str(tmp_path / "another.toml"))
    if migrated:  # from schema 1, as its migration notes absolute paths
        with closing(sqlite3.connect(database)) as connection, connection:
            connection.execute("INSERT INTO origins SELECT DISTINCT origin, origin FROM jobs")
        (tmp_path / "another.toml").touch()
    assert await start_and_stop(database, list_in(file, "a")) == ()
    assert await names_in(database) == ["a", "c"]
    async with open_store(database) as store:
        assert [job.id for job in await store.list_jobs() if job.name == "a"] == [job_id]


async def test_a_file_that_gets_an_origin_keeps_its_jobs_and_a_changed_origin_is_reported(
    virtual_clock: VirtualClock, tmp_path: Path
) -> None:
    database, file = tmp_path / "a.db", tmp_path / "agent.toml"
    await start_and_stop(database, list_in(file, "a", "b"))
    assert await start_and_stop(database, list_in(file, "a", extra='origin = "first"')) == ()
    assert await names_in(database) == ["a"]
    (report,) = await start_and_stop(database, list_in(file, "c", extra='origin = "second"'))
    assert report.startswith(
        "1 job of first, whose file agent.toml has another origin now: `cronactors run --adopt first` takes it over"
    )
    assert await names_in(database) == ["a", "c"]


async def test_a_list_without_a_file_is_never_reported(virtual_clock: VirtualClock, tmp_path: Path) -> None:
    database = tmp_path / "a.db"
    async with open_store(database) as store:
        await store.upsert_jobs([JobSpec("a", "p", EVERY)], origin="program")
    assert await start_and_stop(database, list_in(tmp_path / "agent.toml", "b")) == ()
    assert await names_in(database) == ["a", "b"]


async def test_a_list_in_a_database_in_memory(virtual_clock: VirtualClock, tmp_path: Path) -> None:
    async with open_scheduler(":memory:", Worker(), config=list_in(tmp_path / "agent.toml", "a")) as scheduler:
        assert [job.name for job in await scheduler.store.list_jobs()] == ["a"]


# The command

JOBS = """
[[cron.jobs]]
name = "a"
prompt = "true"
every_ms = 3600000
[[cron.jobs]]
name = "b"
prompt = "true"
cron = "0 9 * * *"
"""


@pytest.mark.slow
def test_the_header_names_a_renamed_file_and_adopt_takes_its_jobs_over(start, write, tmp_path):
    write(JOBS).rename(tmp_path / "old.toml")
    assert start("run", "old.toml", "--for", "0").end()[0] == 0
    (tmp_path / "old.toml").unlink()
    write(JOBS.partition('[[cron.jobs]]\nname = "b"')[0])
    code, text = start("run", "--for", "0").end()
    assert code == 0
    adopt, remove = "cronactors run --adopt old.toml", "cronactors remove --config agent.toml --origin old.toml"
    assert lines_of(text, "old.toml") == [f"1 job of old.toml, which is gone: `{adopt}` takes it over, `{remove}` removes it"]
    code, text = start("run", "--for", "0", "--adopt", "old.toml").end()
    assert (code, lines_of(text, "old.toml")) == (0, ["took over 1 job of old.toml"])
    assert not lines_of(text, "^  b ")
    code, text = start("run", "--for", "0", "--adopt", "old.toml").end()  # as after the restart of a service
    assert (code, lines_of(text, "old.toml")) == (0, ["took over 0 jobs of old.toml"])


@pytest.mark.slow
def test_the_header_lists_jobs_with_new_defaults_and_one_shots_that_have_passed(start, write, tmp_path):
    file = write(JOBS)
    assert start("run", "--for", "0").end()[0] == 0
    file.write_text(
        file.read_text().replace("Europe/Rome", "Asia/Tokyo") + '[[cron.jobs]]\nname = "c"\nprompt = "true"\nat = "2020-01-01"'
    )
    assert start("run", "--for", "0").end()[0] == 1  # a date is no time
    file.write_text(file.read_text().replace('"2020-01-01"', '"2020-01-01 09:00"'))
    code, text = start("run", "--for", "0").end()
    assert code == 0
    assert "zone      Asia/Tokyo\n" in text
    assert lines_of(text, "applies|passed") == [
        "timezone Asia/Tokyo now applies to 2 jobs: a, b",
        "1 one-shot has passed, recorded as skipped: c",
    ]
    code, text = start("list").end()
    assert lines_of(text, "^c .* done")
    assert lines_of(start("runs", "c").end()[1], "skipped/misfire")


@pytest.mark.slow
def test_remove_removes_the_jobs_of_a_list(start, write, tmp_path):
    write(JOBS)
    assert start("run", "--for", "0").end()[0] == 0
    code, text = start("remove", "--origin", "agent.toml").end()
    assert (code, text.splitlines()[-1]) == (2, "Error: there is no terminal to confirm on: give --yes")
    code, text = start("remove", "--origin", "absent", "--yes").end()
    assert (code, text) == (1, "cronactors: no job has the origin absent; there are agent.toml (2)")
    assert start("remove", "--yes").end()[0] == 2
    for typed, status, message in ((b"n\n", 1, "Aborted!"), (b"y\n", 0, "removed 2 jobs of agent.toml")):
        code, text = remove_on_terminal(tmp_path, typed)
        assert code == status
        assert "Remove 2 jobs of agent.toml? [y/N]: " in text
        assert "agent.toml exists: as long as it lists jobs, its next start adds them as new ones" in text
        assert message in text
    assert start("list").end() == (0, "no jobs")
    code, text = start("remove", "--origin", "agent.toml", "--yes").end()
    assert (code, text) == (1, "cronactors: no job has the origin agent.toml; no job has any")


def remove_on_terminal(folder: Path, typed: bytes) -> tuple[int, str]:
    """Return exit status and output of a removal on a terminal, with that typed."""
    leader, follower = pty.openpty()
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TERM": "dumb"}
    with subprocess.Popen(
        [*COMMAND, "remove", "--origin", "agent.toml"],
        cwd=folder,
        env=environment,
        stdin=follower,
        stdout=follower,
        stderr=follower,
    ) as process:
        os.close(follower)
        os.write(leader, typed)
        text = b""
        try:
            while piece := os.read(leader, 65536):
                text += piece
        except OSError:  # the other side is closed
            pass
        os.close(leader)
        return process.wait(20), text.decode()
