"""The commands on jobs: ``add``, ``show``, ``update``, ``pause``, ``resume``, ``remove``, ``run-now`` and ``cancel``."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
import trio
from click.testing import CliRunner, Result

from cronactors import (
    Cron,
    CronConfig,
    CronJob,
    CronStore,
    Interval,
    JobContext,
    OneShot,
    RetryPolicy,
    RunStatus,
    load_config,
    now,
    open_scheduler,
    open_store,
)
from cronactors.cli import jobs
from cronactors.cli.commands import cronactors
from cronactors.errors import CronError
from tests import cli_stores
from tests.workers import nothing

server = cli_stores.server
Invoke = Callable[..., str]


@pytest.fixture(params=["file", "server"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database that does not exist yet."""
    return str(tmp_path / "jobs.db") if request.param == "file" else request.getfixturevalue("server")


@pytest.fixture
def invoke(database: str, monkeypatch: pytest.MonkeyPatch) -> Invoke:
    """Call the command, and return its output; ``status`` is the exit status that is expected."""
    monkeypatch.setenv("COLUMNS", "200")

    def call(*args: str, status: int = 0, stdin: str | None = None) -> str:
        result: Result = CliRunner().invoke(cronactors, [*args, "--db", database], input=stdin)
        if isinstance(result.exception, CronError):  # `main` prints it
            assert status == 1, result.exception
            return f"cronactors: {result.exception}"
        assert result.exit_code == status, (result.output, result.exception)
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        return result.output

    return call


def in_store(database: str, act: Callable[[CronStore], Any]) -> Any:
    async def main() -> Any:
        async with open_store(database) as store:
            return await act(store)

    return trio.run(main)


def job(database: str, name: str = "report") -> CronJob:
    found = in_store(database, lambda store: store.get_job_by_name(name))
    assert isinstance(found, CronJob)
    return found


def test_a_job_is_added_and_shown(invoke: Invoke, database: str) -> None:
    added = invoke(
        "add", "report", "echo hi", "--cron", "0 9 * * *", "--timezone", "Europe/Rome", "--tag", "daily", "--retries", "2"
    )
    assert re.fullmatch(r"added report: at 09:00.*; next \d{4}-\d\d-\d\d 09:00:00 CES?T\n", added)
    shown = invoke("show", "report")
    for line in (
        r"name        report",
        r"schedule    at 09:00.*  \(0 9 \* \* \*\)",
        r"zone        Europe/Rome",
        r"state       enabled",
        r"next        \w{3} \d{4}-\d\d-\d\d 09:00:00 CES?T",
        r"overlap     a moment during a run is skipped",
        r"retries     2 after a failure",
        r"tags        daily",
        r"prompt      echo hi",
        r"no runs of report yet",
    ):
        assert re.search(f"^{line}", shown, re.MULTILINE), (line, shown)
    found = json.loads(invoke("show", "report", "--json"))
    assert (found["job"]["name"], len(found["next"]), found["runs"]) == ("report", 5, [])


@pytest.mark.parametrize(
    ("options", "schedule"),
    [
        (["--every", "5m"], Interval.every(minutes=5)),
        (["--every", "90s"], Interval.every(seconds=90)),
        (["--cron", "@daily"], Cron("@daily")),
    ],
)
def test_the_options_of_a_schedule(invoke: Invoke, database: str, options: list[str], schedule: object) -> None:
    invoke("add", "report", "p", *options)
    assert job(database).schedule == schedule


def test_a_job_that_runs_once(invoke: Invoke, database: str) -> None:
    invoke("add", "report", "p", "--in", "10m")
    due = job(database).next_run_at
    assert due is not None
    assert 590 < (due - now()).total_seconds() <= 600
    invoke("add", "later", "p", "--at", "2090-01-01 09:00", "--timezone", "Europe/Rome")
    assert str(job(database, "later").next_run_at) == "2090-01-01 08:00:00+00:00"


def test_a_prompt_from_standard_input(invoke: Invoke, database: str) -> None:
    invoke("add", "report", "-", "--every", "1h", stdin="two\nlines")
    assert job(database).prompt == "two\nlines"


@pytest.mark.parametrize(
    ("args", "status", "message"),
    [
        (["add", "report", "p"], 2, "when does it run?"),
        (["add", "report", "p", "--cron", "@daily", "--every", "1h"], 2, "give only one of --cron"),
        (["add", "report", "p", "--cron", "61 * * * *"], 1, "61"),
        (["add", "report", "p", "--every", "1h", "--timezone", "Mars/Base"], 1, "Mars/Base"),
        (["add", "report", "p", "--every", "1h", "--data", "{"], 1, "data must be JSON"),
        (["add", "taken", "p", "--every", "1h"], 1, "name 'taken' is taken"),
        (["update", "taken"], 2, "what is to change?"),
        (["update", "taken", "--cron", "nonsense"], 1, "nonsense"),
        (["pause"], 2, "give NAME or --all"),
        (["pause", "taken", "--all"], 2, "give NAME or --all"),
        (["remove"], 2, "give NAME or --origin"),
        (["remove", "taken"], 2, "there is no terminal to confirm on"),
        (["remove", "token"], 1, "did you mean taken"),
        (["remove", "--origin", "x", "--user", "ada"], 2, "--user is for NAME"),
        (["add", "report", "p", "--every", "5"], 2, "'5' is not a length of time"),
        (["add", "report", "p", "--in", "99999999999w"], 2, "longer than a hundred years"),
        (["update", "taken", "--timeout", "foo"], 2, "'foo' is not a length of time"),
        (["update", "taken", "--at", "2020-01-01 09:00", "--dry-run"], 1, "2020"),
        (["update", "taken", "--timezone", "Mars/Base", "--dry-run"], 1, "Mars/Base"),
        (["show", "token"], 1, "no job has the name 'token'; did you mean taken\\?"),
        (["show", "zzz"], 1, "no job has the name 'zzz'; cronactors list shows them"),
        (["show", "taken", "--user", "ada"], 1, "no job of user 'ada' has the name 'taken', but one of \"\" has"),
        (["run-now", "taken", "--data", "{"], 1, "data must be JSON"),
        (["cancel", "99"], 1, "99"),
    ],
)
def test_what_is_refused(invoke: Invoke, database: str, args: list[str], status: int, message: str) -> None:
    invoke("add", "taken", "p", "--every", "1h")
    before = job(database, "taken")
    assert re.search(message, invoke(*args, status=status))
    assert job(database, "taken") == before


def test_a_name_that_several_users_have_lists_them(invoke: Invoke) -> None:
    for user in ("", "ada", "bob"):
        invoke("add", "report", f"of {user}", "--every", "1h", "--user", user)
    assert 'give --user with one of "", ada, bob' in invoke("show", "report", status=1)
    assert "prompt      of ada" in invoke("show", "report", "--user", "ada")
    assert "user" not in invoke("show", "report", "--user", "")
    invoke("remove", "report", "--user", "", "--yes")
    invoke("remove", "report", "--user", "bob", "--yes")
    assert "prompt      of ada" in invoke("show", "report")


def test_a_change_shows_the_times_that_change(invoke: Invoke, database: str) -> None:
    invoke("add", "report", "p", "--cron", "0 9 * * *")
    before = job(database)
    would = invoke("update", "report", "--cron", "0 10 * * *", "--dry-run")
    assert re.search(r"in the next year 36[56] times are gone, 36[56] are new, 0 stay", would)
    assert re.search(r"gone  \w{3} \d{4}-\d\d-\d\d 09:00:00 UTC", would)
    assert "nothing was changed" in would
    assert job(database) == before
    assert "nothing would change" in invoke("update", "report", "--cron", "0 9 * * *", "--dry-run")
    invoke("add", "other", "p", "--every", "1h")
    assert "name 'other' is taken" in invoke("update", "report", "--rename", "other", "--dry-run", status=1)
    assert 'fire_times": null' in invoke("update", "other", "--timezone", "Europe/Rome", "--json")
    assert re.search(r"changed report: next .* 10:00:00 UTC", invoke("update", "report", "--cron", "0 10 * * *"))
    assert job(database).schedule == Cron("0 10 * * *")
    changed = json.loads(invoke("update", "report", "--cron", "0 10 * * *", "--timeout", "5m", "--rename", "new", "--json"))
    assert (changed["job"]["name"], changed["job"]["timeout_secs"], changed["fire_times"]) == ("new", 300, None)


def test_a_shell_is_added_to_the_other_options_of_the_executor(invoke: Invoke, database: str) -> None:
    async def add(store: CronStore) -> None:
        await store.add_job("report", "p", Cron("@daily"), executor_options={"model": "m"}, tags=["a"])

    in_store(database, add)
    invoke("update", "report", "--shell", "/bin/bash")
    assert dict(job(database).executor_options) == {"model": "m", "shell": "/bin/bash"}
    invoke("update", "report", "--tag", "b", "--tag", "c")
    assert job(database).tags == ("b", "c")
    invoke("update", "report", "--tag", "")
    assert job(database).tags == ()


def test_a_paused_job_has_no_times_to_lose(invoke: Invoke) -> None:
    invoke("add", "report", "p", "--cron", "0 9 * * *")
    invoke("pause", "report")
    assert "it is paused, so it runs at none of its times" in invoke("update", "report", "--cron", "0 10 * * *", "--dry-run")


def test_pause_and_resume(invoke: Invoke, database: str) -> None:
    for name in ("report", "other"):
        invoke("add", name, "p", "--every", "1h")
    assert invoke("pause", "report").startswith("paused report")
    assert invoke("pause", "report") == "report was paused already\n"
    assert [job(database, name).enabled for name in ("report", "other")] == [False, True]
    assert invoke("pause", "--all") == "paused 1 job\n"
    assert invoke("resume", "--all") == "resumed 2 jobs\n"
    invoke("pause", "report")
    assert re.match(r"resumed report: next \d{4}", invoke("resume", "report"))
    assert re.match(r"report was not paused: next \d{4}", invoke("resume", "report"))
    assert job(database).enabled


def test_a_pause_with_an_end_and_a_note(invoke: Invoke, database: str) -> None:
    invoke("add", "report", "p", "--cron", "0 9 * * *", "--timezone", "Europe/Rome")
    paused = invoke("pause", "report", "--until", "2099-07-01 10:00", "--note", "holidays")
    assert paused == (
        "paused report until 2099-07-01 10:00:00 CEST (holidays): its moments before that are not run, also not later\n"
    )
    assert re.search(r"state +paused until 2099-07-01 10:00:00 CEST \(holidays\), since 2", invoke("show", "report"))
    assert "paused until 2099-07-01 10:00:00 CEST" in invoke("list")
    shown = json.loads(invoke("list", "--json"))[0]["pause"]
    assert (shown["until"], shown["note"]) == ("2099-07-01T08:00:00.000Z", "holidays")
    assert invoke("pause", "report", "--until", "2099-07-01T08:00Z", "--note", "holidays").startswith("report was paused already")
    before = now()
    found = json.loads(invoke("pause", "report", "--until", "2h", "--json"))["pause"]
    assert before < datetime.fromisoformat(found["until"]) - timedelta(hours=2) < now()
    assert found["note"] == ""
    assert invoke("pause", "report").startswith("paused report: its moments are not run")
    paused_at = job(database).pause
    assert paused_at is not None
    assert (paused_at.since, paused_at.until) == (datetime.fromisoformat(shown["since"]), None)


@pytest.mark.parametrize(
    ("until", "message"),
    [
        ("soon", "--until: 'soon' is not a time, such as 2h, 09:00,"),
        ("yesterday", "of job 'report' has passed"),
        ("2020-01-01", "of job 'report' has passed"),
    ],
)
def test_an_end_that_is_no_time_to_come_is_refused(invoke: Invoke, database: str, until: str, message: str) -> None:
    invoke("add", "report", "p", "--cron", "0 9 * * *")
    assert message in invoke("pause", "report", "--until", until, status=1)
    assert message in invoke("pause", "--all", "--until", until, status=1)
    assert job(database).enabled


def test_a_removed_job_is_gone_and_its_history_stays(invoke: Invoke, database: str) -> None:
    invoke("add", "report", "p", "--every", "1h")
    assert invoke("remove", "report", "--yes") == "removed report; its history stays\n"
    assert in_store(database, lambda store: store.list_jobs()) == []


def test_a_job_that_a_file_lists_is_changed_there(invoke: Invoke, database: str, tmp_path: Path) -> None:
    async def upsert(store: CronStore) -> None:
        from cronactors import JobSpec  # noqa: PLC0415

        await store.upsert_jobs([JobSpec("report", "p", Cron("@daily"))], origin="agent.toml")

    in_store(database, upsert)
    for args in (["update", "report", "--timeout", "1m"], ["remove", "report", "--yes"]):
        assert "job 'report' is listed" in invoke(*args, status=1)
    if "://" not in database:  # where the list has a file, it is missing here
        assert "is listed" in invoke("remove", "report", "--yes", status=1)
    assert invoke("pause", "report").startswith("paused report")
    assert "listed in   agent.toml" in invoke("show", "report")
    tried = invoke("update", "report", "--timeout", "1m", "--dry-run")
    assert tried == "nothing was changed: it is listed in agent.toml: edit it there\n"


def test_a_listed_job_whose_file_is_gone_names_the_way_to_remove_it(tmp_path: Path) -> None:
    file, database = tmp_path / "agent.toml", str(tmp_path / "jobs.db")
    file.write_text('[cron]\n[[cron.jobs]]\nname = "report"\nprompt = "p"\ncron = "@daily"\n')

    async def start() -> None:
        async with open_scheduler(database, nothing, config=load_config(file)):
            pass

    trio.run(start)
    file.unlink()
    result = CliRunner().invoke(cronactors, ["remove", "report", "--yes", "--db", database])
    assert "is gone: `cronactors remove --origin agent.toml` removes its jobs" in str(result.exception)


def test_a_prompt_of_several_lines_is_shown_as_such(invoke: Invoke) -> None:
    invoke("add", "report", "first\nsecond\n", "--every", "1h")
    assert re.search(r"prompt +first … \(2 lines, all with --json\)\n", invoke("show", "report"))


def test_a_job_runs_once_tomorrow_in_its_zone(invoke: Invoke, database: str) -> None:
    invoke("add", "report", "p", "--at", "tomorrow 09:00", "--timezone", "Asia/Tokyo")
    tomorrow = now().astimezone(ZoneInfo("Asia/Tokyo")).date() + timedelta(days=1)
    assert job(database).schedule == OneShot(f"{tomorrow.isoformat()}T09:00")


def test_a_run_is_requested_and_cancelled(invoke: Invoke, database: str) -> None:
    invoke("add", "report", "p", "--every", "1h")
    (run_id,) = re.findall(
        r"run (\d+) of report is requested, but no scheduler", invoke("run-now", "report", "--data", '{"a": 1}', "--key", "k")
    )
    assert json.loads(invoke("run-now", "report", "--data", '{"a": 1}', "--key", "k", "--json"))["id"] == run_id
    assert "cancelled, and did not start" in invoke("cancel", run_id)
    assert f"run {run_id}" in invoke("cancel", run_id, status=1)
    assert "was requested before: cancelled" in invoke("run-now", "report", "--data", '{"a": 1}', "--key", "k")


async def test_run_now_waits_for_the_end(tmp_path: Path) -> None:
    file = str(tmp_path / "jobs.db")

    async def executor(context: JobContext) -> str:
        if context.prompt == "fail":
            raise ValueError("broken")
        return "done"

    config = CronConfig(retry=RetryPolicy(delays=(0.01,)))
    async with open_scheduler(file, executor, config=config) as scheduler:
        for name, retries in (("succeed", 0), ("fail", 1)):
            await scheduler.store.add_job(name, name, Interval.every(hours=1), max_retries=retries)

        def invoke(name: str) -> Result:
            return CliRunner().invoke(cronactors, ["run-now", name, "--wait", "--db", file])

        succeeded = await trio.to_thread.run_sync(invoke, "succeed")
        failed = await trio.to_thread.run_sync(invoke, "fail")
        assert (succeeded.exit_code, failed.exit_code) == (0, 1)
        assert re.search(r"run \d+: success after [\d.]+ s  done", succeeded.output)
        assert re.search(
            r"run 2: failed/error after .*broken; run 3 is its retry\nrun 3: failed/error after .*broken", failed.output
        ), failed.output
        statuses = [run.status for run in await scheduler.store.list_runs()]
        assert statuses == [RunStatus.FAILED, RunStatus.FAILED, RunStatus.SUCCESS]


async def test_run_now_that_waits_says_that_no_scheduler_is_running(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "_ALONE_EVERY", 0.01)
    file = str(tmp_path / "jobs.db")
    async with open_store(file) as store:
        job_id = await store.add_job("report", "p", Interval.every(hours=1))

        def invoke() -> Result:
            return CliRunner().invoke(cronactors, ["run-now", "report", "--wait", "--db", file])

        results: list[Result] = []
        async with trio.open_nursery() as nursery:

            async def call() -> None:
                results.append(await trio.to_thread.run_sync(invoke))

            nursery.start_soon(call)
            with trio.fail_after(20):
                while not (runs := await store.list_runs(job_id)):
                    await trio.sleep(0.01)
                await trio.sleep(0.5)  # some checks
                await store.request_cancel(runs[0].id)
    (result,) = results
    assert result.stderr.count("no scheduler is running now: the run waits for one, and so does this command") == 1
    assert result.exit_code == 1
