"""Reading the file of `run` again, in this process: the changes, and what is refused."""

from __future__ import annotations

import re
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
import trio
import trio.testing

from cronactors import CronConfig, JobContext, RunStatus, StoreUnavailable, open_scheduler
from cronactors.cli import reload, run
from cronactors.cli.reload import Loaded, Reloader, Source, Stamp
from cronactors.cli.run_report import RunReport, TypedCommand
from cronactors.errors import InvalidConfig
from cronactors.origins import StartReport
from tests import cli_stores
from tests.reload_world import DAILY, FILE, HEAD, NOT_APPLIED, WEEKLY, nothing, world

server = cli_stores.server


async def changes_of_a_start(text: str, file: Path) -> StartReport:
    """What a start with this file changes."""
    file.write_text(text)
    loaded = Source(file=file).load()
    async with open_scheduler(loaded.database, nothing, config=loaded.config) as scheduler:
        return scheduler._start_report


async def test_jobs_are_added_changed_and_removed_as_at_a_start(tmp_path: Path) -> None:
    text = HEAD + DAILY.replace("0 9", "0 10") + WEEKLY
    async with world(tmp_path) as here:
        before = await here.jobs()
        line = await here.read(text)
        assert line.endswith("  read agent.toml again: 1 added (weekly); 1 changed (daily); 1 removed (hourly)")
        assert re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d CES?T  ", line)
        after = await here.jobs()
        assert set(after) == {"daily", "weekly"}
        assert after["daily"].id == before["daily"].id
        assert after["daily"].next_run_at != before["daily"].next_run_at
        assert here.lines == []
    start = await changes_of_a_start(text, tmp_path / "agent.toml")
    assert (start.added, start.changed, start.removed, start.unchanged) == ((), (), (), 2)


async def test_a_file_that_is_the_same_changes_nothing(tmp_path: Path) -> None:
    async with world(tmp_path) as here:
        before = await here.jobs()
        assert (await here.read()).endswith("  read agent.toml again: 2 jobs unchanged")
        assert await here.jobs() == before


async def test_a_list_on_a_server(tmp_path: Path, server: str) -> None:
    text = FILE.replace('database = "jobs.db"', f'database = "{server}"\norigin = "mine"')
    async with world(tmp_path, text) as here:
        assert "again: 1 added (weekly); 1 removed (daily); 1 job unchanged" in await here.read(text.replace(DAILY, WEEKLY))
        assert set(await here.jobs()) == {"hourly", "weekly"}
        assert "origin must be named" in await here.read(text.replace('origin = "mine"', ""))
        other = text.replace('origin = "mine"', 'origin = "mine"\nschema = "another"')
        assert ("the database is another one now" in await here.read(other)) == ("schema=" not in server)


async def test_a_new_job_starts(tmp_path: Path) -> None:
    started = trio.Event()

    async def execute(context: JobContext) -> None:
        assert context.job_name == "now"
        started.set()

    async with world(tmp_path, execute=execute) as here:
        await here.read(FILE + '[[cron.jobs]]\nname = "now"\nprompt = "echo now"\nin_secs = 0\n')
        with trio.fail_after(20):
            await started.wait()


MISTAKES = {
    "no TOML": (FILE + "x =", r"/agent\.toml: is not TOML: .*line 14"),
    "unknown key": (FILE + "cronn = 1", "job 'hourly': unknown key 'cronn'"),
    "a name twice": (FILE + DAILY, "'daily'"),
    "no expression": (FILE.replace("0 9 ", "x y "), "job 'daily': cron"),
    "never fires": (FILE.replace("0 9 * * *", "0 9 31 2 *"), "job 'daily': cron: .* no such date"),
    "no such time": (FILE.replace('cron = "0 9 * * *"', 'at = "2035-03-25 02:30"'), "does not exist"),
    "prompt too long": (FILE.replace("echo day", "x" * 200_000), "job 'daily': prompt"),
    "database": (FILE.replace("jobs.db", "other.db"), "the database is another one now, which needs a new start"),
    "executor": (FILE.replace('"shell"', '"my:agent"'), "the executor is another one now, which needs a new start"),
    "empty": ("", "it lists no job any more, as if it were not complete; to remove all 2 jobs, write jobs = "),
    "only the beginning": (HEAD, "it lists no job any more"),
    "not UTF-8": (FILE.replace("echo day", "\udcff"), "is not UTF-8"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
async def test_a_file_with_a_mistake_changes_nothing_and_says_what_is_wrong(tmp_path: Path, mistake: str) -> None:
    text, problem = MISTAKES[mistake]
    async with world(tmp_path) as here:
        before = await here.jobs()
        here.file.write_bytes(text.encode(errors="surrogateescape"))
        line = await here.read()
        assert NOT_APPLIED in line
        assert re.search(problem, line)
        assert len(line) < 600
        assert here.lines == []
        assert await here.jobs() == before
        assert not (tmp_path / "other.db").exists()
        assert "1 added (weekly)" in await here.read(FILE + WEEKLY)


async def test_an_empty_list_removes_all_jobs_if_the_file_says_so(tmp_path: Path) -> None:
    async with world(tmp_path) as here:
        assert "again: 2 removed (daily, hourly)" in await here.read("\ufeff" + HEAD + "jobs = []\n")
        assert await here.jobs() == {}
        assert "again: 0 jobs unchanged" in await here.read(HEAD)
        assert "again: 1 added (daily)" in await here.read(HEAD + DAILY)
        assert "to remove that job, write jobs = [] under [cron]" in await here.read(HEAD)


async def test_a_file_that_is_missing_changes_nothing(tmp_path: Path) -> None:
    async with world(tmp_path) as here:
        here.file.unlink()
        assert NOT_APPLIED in (line := await here.read())
        assert "cannot be read: No such file or directory" in line
        assert set(await here.jobs()) == {"daily", "hourly"}
        assert "2 jobs unchanged" in await here.read(FILE)


async def test_a_run_of_a_job_that_is_removed_finishes(tmp_path: Path) -> None:
    started, finish = trio.Event(), trio.Event()

    async def execute(_context: JobContext) -> str:
        started.set()
        await finish.wait()
        return "finished"

    slow = '[[cron.jobs]]\nname = "slow"\nprompt = "echo slow"\nin_secs = 0\n'
    with trio.fail_after(20):
        async with world(tmp_path, FILE + slow, execute=execute) as here:
            await started.wait()
            assert "1 removed (slow)" in await here.read(FILE)
            assert "slow" not in await here.jobs()
            finish.set()
            await here.scheduler.wait_idle()
            (run,) = await here.scheduler.store.list_runs()
            assert (run.status, run.result_summary) == (RunStatus.SUCCESS, "finished")


async def test_a_request_while_the_file_is_read_is_not_forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = Reloader._load

    def load_then_change(reloader: Reloader) -> object:
        found = read(reloader)
        if here.file.read_text() == FILE:  # the first time
            here.file.write_text(FILE + WEEKLY)
            trio.from_thread.run_sync(here.reloader.request)
            trio.from_thread.run_sync(here.reloader.request)
        return found

    monkeypatch.setattr(Reloader, "_load", load_then_change)
    async with world(tmp_path) as here:
        assert "again: 2 jobs unchanged" in await here.read()
        assert "again: 1 added (weekly); 2 jobs unchanged" in await here.wait_for("again:")
        await trio.testing.wait_all_tasks_blocked(0.05)
        assert here.lines == [], "two requests at the same time are one"


async def test_defaults_apply_at_once_and_other_settings_at_the_next_start(tmp_path: Path) -> None:
    async with world(tmp_path) as here:
        text = FILE.replace("Rome", "Paris").replace('"shell"', '"shell"\ndefault_max_retries = 7\ndefault_timeout_secs = 60')
        assert "2 changed (daily, hourly)" in await here.read(text + "[cron.history]\ndays = 3\n")
        await here.wait_for("  history changes at the next start$")
        job = (await here.jobs())["daily"]
        assert (job.timezone, job.max_retries, job.timeout_secs) == ("Europe/Paris", 7, 60)
        late = (
            'max_concurrent_runs = 3\nretry_delays = [1]\nshutdown_grace = 1\n[cron.history]\ndays = 3\n[[cron.jobs]]\nname = "d'
        )
        here.file.write_text(text.replace('[[cron.jobs]]\nname = "d', late))
        here.reloader.request()
        await here.wait_for("again: 2 jobs unchanged$")
        await here.wait_for("  max_concurrent_runs, retry_delays, history and shutdown_grace change at the next start$")
        assert here.lines == []
        assert here.scheduler._actors.pool.settings.slots == here.report.config.max_concurrent_runs == 1
        assert (here.report.config.shutdown_grace, here.report.config.timezone) == (5, "Europe/Paris")


async def test_the_defaults_that_now_apply_are_printed_as_at_a_start(tmp_path: Path) -> None:
    async with world(tmp_path) as here:
        here.file.write_text(FILE.replace("Rome", "Paris"))
        here.reloader.request()
        assert (await here.wait_for("now applies")).endswith("CET  timezone Europe/Paris now applies to 2 jobs: daily, hourly")
        await here.wait_for("again: 2 changed")


async def test_an_option_of_the_command_stays_in_force(tmp_path: Path) -> None:
    async with world(tmp_path, shutdown_grace=3) as here:
        assert "2 jobs unchanged" in await here.read(FILE.replace('"shell"', '"shell"\nshutdown_grace = 9'))
        await trio.testing.wait_all_tasks_blocked(0.05)
        assert here.lines == [], "the file has no say in it, also at the next start"


async def test_a_list_that_gets_a_name_keeps_its_jobs_and_one_that_gets_another_is_reported(tmp_path: Path) -> None:
    named = FILE.replace('"shell"', '"shell"\norigin = "mine"')
    async with world(tmp_path) as here:
        before = await here.jobs()
        assert "2 jobs unchanged" in await here.read(named)
        after = await here.jobs()
        assert {job.origin for job in after.values()} == {"mine"}
        assert {job.id for job in after.values()} == {job.id for job in before.values()}
        here.file.write_text(named.replace("mine", "yours").replace(DAILY, ""))
        here.reloader.request()
        await here.wait_for("1 job of mine, whose file agent.toml has another origin now: `cronactors run --adopt mine` takes it")
        await here.wait_for("again: 1 changed [(]hourly[)]$")
        assert {name: job.origin for name, job in (await here.jobs()).items()} == {"daily": "mine", "hourly": "yours"}


async def test_a_locked_database_is_waited_for(tmp_path: Path) -> None:
    async with world(tmp_path) as here:
        with closing(sqlite3.connect(tmp_path / "jobs.db", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            here.file.write_text(FILE + WEEKLY)
            here.reloader.request()
            with trio.move_on_after(0.5):
                await here.wait_for("again:")
                pytest.fail("the lock was not held")
            assert here.lines == []
            other.execute("ROLLBACK")
        await here.wait_for("again: 1 added [(]weekly[)]; 2 jobs unchanged$")


async def test_a_database_that_cannot_be_used_is_tried_again_until_it_can(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = 0
    upsert = reload.upsert_lists

    async def fail_three_times(*args: object, **options: object) -> StartReport:
        nonlocal calls
        calls += 1
        if calls <= 3:
            raise StoreUnavailable("jobs.db is locked")
        return await upsert(*args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(reload, "upsert_lists", fail_three_times)
    monkeypatch.setattr(reload, "_RETRY_EVERY", 0.01)
    async with world(tmp_path) as here:
        assert (await here.read()).endswith("agent.toml is not applied yet, and is tried again: jobs.db is locked")
        await here.wait_for("again: 2 jobs unchanged$")
        assert calls == 4
        await trio.testing.wait_all_tasks_blocked(0.1)
        assert calls == 4
        assert len(here.all_lines) == 2, "the same problem is printed once"


async def test_a_stop_while_the_database_is_locked_changes_all_or_nothing(tmp_path: Path) -> None:
    with trio.fail_after(20):
        async with world(tmp_path) as here:
            other = sqlite3.connect(tmp_path / "jobs.db", isolation_level=None)
            other.execute("BEGIN IMMEDIATE")
            here.file.write_text(HEAD + WEEKLY)
            here.reloader.request()
            with trio.move_on_after(0.3):
                await here.wait_for("again:")
            trio.lowlevel.current_trio_token().run_sync_soon(other.close)  # during the stop
    with closing(sqlite3.connect(tmp_path / "jobs.db")) as after:
        names = {name for (name,) in after.execute("SELECT name FROM jobs")}
    assert names in ({"daily", "hourly"}, {"weekly"})


@pytest.mark.parametrize("watches", [True, False])
def test_the_header_says_whether_the_file_is_watched(watches: bool) -> None:
    lines: list[str] = []
    typed = TypedCommand("cronactors", "--config agent.toml", "cronactors run")
    RunReport(CronConfig(file="/x/agent.toml"), typed, lines.append, watches=watches).header(StartReport(), "agent.db")
    assert lines[1] == ("file      /x/agent.toml; read again when it changes" if watches else "file      /x/agent.toml")


def test_each_setting_either_applies_at_once_or_is_named_for_the_next_start() -> None:
    at_once = {"timezone", "default_max_retries", "default_timeout_secs", "jobs", "origin"}
    refused = {"database", "schema", "executor"}
    fields = {field.name for field in CronConfig.__attrs_attrs__}  # type: ignore[attr-defined]
    assert fields == at_once | refused | set(reload._AT_START) | {"file"}


def test_a_file_that_is_not_needed_may_be_missing(tmp_path: Path) -> None:
    database, missing = str(tmp_path / "jobs.db"), tmp_path / "agent.toml"
    optional = Source(file=missing, needed=False, db=database, executor="shell")
    assert (optional.load().config.jobs, optional.load().database) == ((), database)
    with pytest.raises(InvalidConfig, match="cannot be read"):
        Source(file=missing, db=database, executor="shell").load()
    missing.write_text(FILE)
    assert [job.name for job in optional.load().config.jobs] == ["daily", "hourly"]


def test_run_reads_its_file_again_by_an_absolute_path_and_only_if_it_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sources: list[Source] = []

    class Spy(Reloader):
        def __init__(self, source: Source, running: Loaded, stamp: Stamp | None, *, watch: bool) -> None:
            super().__init__(source, running, stamp, watch=watch)
            sources.append(source)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(run, "Reloader", Spy)
    optional = Source(file=Path("agent.toml"), needed=False, db="jobs.db", executor="shell")
    assert run.run_file(optional, run.RunOptions(seconds=0)) == 0
    (tmp_path / "agent.toml").write_text(DAILY)
    assert run.run_file(optional, run.RunOptions(seconds=0)) == 0
    assert [(source.file, source.needed) for source in sources] == [(tmp_path / "agent.toml", True)] * 2
