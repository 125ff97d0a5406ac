"""The command ``export``: its file makes the same jobs in another store."""

from __future__ import annotations

import json
import sqlite3
import tempfile
import tomllib
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import attrs
import pytest
import trio
from click.testing import CliRunner, Result
from hypothesis import given, settings, strategies as st

from cronactors import Cron, History, Interval, JobSpec, Misfire, OneShot, open_store
from cronactors.cli.export import make_export, toml_of
from cronactors.cli.file_commands import export
from cronactors.config_file import load_config
from cronactors.errors import InvalidConfig, JobNotFound
from cronactors.model import CronJob, Overlap, SessionMode
from cronactors.spec import Delay
from tests.cli_stores import server

__all__ = ["server"]

OF_A_STORE = ("id", "created_at", "last_run_at", "next_run_at", "retry_count", "last_error", "retry_at", "origin", "pause")
SPECIFIED = [field.name for field in attrs.fields(CronJob) if field.name not in OF_A_STORE]


def call(*args: str) -> Result:
    result = CliRunner().invoke(export, args)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def add(database: str, *specs: JobSpec, pause: tuple[str, ...] = (), origin: str | None = None) -> list[CronJob]:
    async def main() -> list[CronJob]:
        async with open_store(database) as store:
            await store.upsert_jobs(specs, origin=origin)
            for name in pause:
                job = await store.get_job_by_name(name)
                assert job is not None
                await store.pause_job(job.id)
            return await store.list_jobs()

    return trio.run(main)


def start(text: str, database: str) -> list[CronJob]:
    """Do what ``run`` does with a file: upsert its jobs with its defaults."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "agent.toml"
        file.write_text(text, encoding="utf-8")
        config = load_config(file)

    async def main() -> list[CronJob]:
        async with open_store(database, config=config) as store:
            await store.upsert_jobs(config.jobs, origin="the file")
            return await store.list_jobs()

    return trio.run(main)


def specified(jobs: list[CronJob]) -> list[dict[str, object]]:
    return sorted(
        ({name: getattr(job, name) for name in SPECIFIED} for job in jobs), key=lambda job: (str(job["user_id"]), job["name"])
    )


FAR = datetime(2090, 5, 6, 7, 8, 9, 123_000, tzinfo=UTC)
EVERYTHING = (
    JobSpec("plain", "x", Cron("0 9 * * *")),
    JobSpec("seconds", "two\nlines\n", Cron("0 0 9 * * mon"), timezone="Europe/Rome", max_retries=0, timeout_secs=0.5),
    JobSpec("every", "it's \"quoted\" \\ '''", Interval(1234), user_id="ann\n", overlap=Overlap.ALLOW_ALL),
    JobSpec("every", "x", Interval(1234), user_id="bob", session_mode=SessionMode.MAIN, executor_options={"shell": "/bin/bash"}),
    JobSpec("once", "x", OneShot("2090-05-06 07:08"), timezone="Asia/Tokyo", delete_after_run=True),
    JobSpec("instant", "x", OneShot(FAR), tags=["b", "a c"], description="\u2028 é \x1b"),
    JobSpec("delay", "x", Delay(3600.5), misfire=Misfire(window=timedelta(milliseconds=1500), coalesce="earliest", max_runs=7)),
    JobSpec("all", "x", Cron("@daily"), misfire=Misfire(coalesce="all"), history=History(days=None, per_job=None)),
    JobSpec("some", "x", Cron("0 9 * * *"), history=History(days=0.5, per_job=7, keep_last=0)),
    JobSpec("data", "x", Cron("@daily"), data={"": [1, 1.5, -0.0, 1e300, True, {"a.b": "c\nd"}, []], "é": {}}),
    JobSpec("false", "x", Cron("@daily"), data=False),
    JobSpec("empty", "x", Cron("@daily"), data=[]),
)


def test_the_file_makes_the_same_jobs_in_another_store(tmp_path: Path) -> None:
    old = add(str(tmp_path / "a.db"), *EVERYTHING)
    result = call("--db", str(tmp_path / "a.db"))
    assert (result.exit_code, result.stderr) == (0, "")
    new = start(result.stdout, str(tmp_path / "b.db"))
    assert specified(new) == specified(old)
    assert [job.next_run_at for job in new if job.name in ("once", "instant", "delay")] == [
        job.next_run_at for job in old if job.name in ("once", "instant", "delay")
    ]
    again = call("--db", str(tmp_path / "b.db"))
    assert again.stdout == result.stdout


TEXT = st.text(alphabet=st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
NAMES = st.text(alphabet="ab \"'\\#é=[]", min_size=1, max_size=8).map(str.strip).filter(bool)
DATA = st.recursive(
    st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)
MISFIRES = st.builds(
    Misfire,
    window=st.none() | st.integers(0, 10**9).map(lambda ms: timedelta(milliseconds=ms)),
    coalesce=st.sampled_from(["latest", "earliest", "all"]),
    max_runs=st.integers(1, 1000),
)
HISTORIES = st.none() | st.builds(
    History,
    days=st.none() | st.floats(0.001, 36_000),
    per_job=st.none() | st.integers(1, 10**9),
    keep_last=st.integers(0, 10**9),
)
SCHEDULES = st.one_of(
    st.sampled_from([Cron("0 9 * * *"), Cron("@daily"), Cron("*/5 * * * * *")]),
    st.integers(1, 10**12).map(Interval),
    st.datetimes(datetime(2080, 1, 1), datetime(2090, 1, 1), timezones=st.just(UTC)).map(OneShot),
    st.floats(1, 10**6).map(Delay),
)
SPECS = st.builds(
    JobSpec,
    NAMES,
    TEXT.filter(bool),
    SCHEDULES,
    delete_after_run=st.booleans(),
    timezone=st.sampled_from([None, "UTC", "Europe/Rome", "Asia/Tokyo"]),
    max_retries=st.none() | st.integers(0, 1000),
    timeout_secs=st.none() | st.integers(1, 10**6) | st.floats(0.001, 10**6),
    session_mode=st.sampled_from(list(SessionMode)),
    user_id=st.none() | TEXT.filter(bool),
    overlap=st.sampled_from(list(Overlap)),
    misfire=MISFIRES,
    executor_options=st.sampled_from([{}, {"shell": "/bin/bash"}, {"shell": "/opt/my \"shell'"}]),
    description=TEXT,
    tags=st.lists(NAMES, max_size=3),
    data=st.none() | DATA,
    history=HISTORIES,
)


@settings(max_examples=40, deadline=None)
@given(st.lists(SPECS, max_size=5, unique_by=lambda spec: (spec.user_id, spec.name)))
def test_any_job_comes_back(specs: list[JobSpec]) -> None:
    old = add(":memory:", *specs)
    assert specified(start(toml_of(make_export(old)), ":memory:")) == specified(old)


def test_values_that_most_jobs_share_are_written_once(tmp_path: Path) -> None:
    jobs = [JobSpec(name, "x", Cron("@daily"), timezone="Europe/Rome", max_retries=1, timeout_secs=9) for name in "abc"]
    add(str(tmp_path / "a.db"), *jobs, JobSpec("d", "x", Cron("@daily"), max_retries=0))
    found = tomllib.loads(call("--db", str(tmp_path / "a.db")).stdout)
    assert found == {
        "timezone": "Europe/Rome",
        "cron": {
            "default_max_retries": 1,
            "default_timeout_secs": 9,
            "jobs": [
                *({"name": name, "prompt": "x", "cron": "@daily"} for name in "abc"),
                {"name": "d", "prompt": "x", "cron": "@daily", "timezone": "UTC", "max_retries": 0, "timeout_secs": 7200},
            ],
        },
    }


def test_a_paused_job_is_not_enabled_and_the_rest_is_in_a_comment(tmp_path: Path) -> None:
    async def finish(database: str) -> None:
        async with open_store(database) as store:
            await store.upsert_jobs([JobSpec("past", "x", OneShot("2020-01-01 00:00"))], origin="x")
            job = await store.get_job_by_name("my job")
            assert job is not None
            await store.pause_job(job.id, until=datetime(2099, 3, 1, 9, tzinfo=UTC), note="moving\nhouse")

    database = str(tmp_path / "a.db")
    add(
        database,
        *(JobSpec(name, "x", Cron("@daily")) for name in ("my job", "paused", "other")),
        pause=("paused",),
    )
    trio.run(finish, database)
    lines = call("--db", database).stdout.splitlines()
    above = {lines[at + 1]: lines[at - 1] for at, line in enumerate(lines) if line == "[[cron.jobs]]"}
    assert above['name = "my job"'] == "# paused until 2099-03-01 09:00:00 UTC (moving)"
    assert above['name = "paused"'] == ""
    enabled = {job["name"]: job.get("enabled") for job in tomllib.loads("\n".join(lines))["cron"]["jobs"]}
    assert enabled == {"my job": False, "paused": False, "other": None, "past": None}
    started = {job.name: job.enabled for job in start("\n".join(lines), str(tmp_path / "b.db"))}
    assert started == {"my job": False, "paused": False, "other": True, "past": False}
    assert above['name = "past"'].startswith("# done: ")
    assert above['name = "other"'] == ""


def test_jobs_that_a_file_cannot_hold_are_left_out_and_named(tmp_path: Path) -> None:
    add(
        str(tmp_path / "a.db"),
        JobSpec("null", "x", Cron("@daily"), data={"a": [None]}),
        JobSpec("options", "x", Cron("@daily"), executor_options={"model": "secret"}),
        JobSpec("kept", "x", Cron("@daily")),
    )
    result = call("--db", str(tmp_path / "a.db"))
    assert result.exit_code == 1
    assert [job["name"] for job in tomllib.loads(result.stdout)["cron"]["jobs"]] == ["kept"]
    assert result.stderr.splitlines() == [
        "cronactors: job null is left out: TOML has no null, and its data has one",
        "cronactors: job options is left out: a file cannot hold executor_options: it has 'model'",
    ]
    assert "# left out: null: TOML has no null, and its data has one" in result.stdout
    assert "secret" not in result.output
    found = json.loads(call("--db", str(tmp_path / "a.db"), "--format", "json").stdout)["cron"]["jobs"]
    assert [(job["name"], job.get("data"), job.get("executor_options")) for job in found] == [
        ("null", {"a": [None]}, None), ("options", None, {"model": "secret"}), ("kept", None, None),
    ]  # fmt: skip


def test_a_damaged_job_is_left_out(tmp_path: Path) -> None:
    add(
        str(tmp_path / "a.db"),
        JobSpec("a", "x", Cron("@daily")),
        JobSpec("b", "x", Cron("@daily")),
        JobSpec("c", "x", Cron("@daily")),
    )
    with closing(sqlite3.connect(tmp_path / "a.db")) as db, db:
        number = "number = (SELECT number FROM jobs WHERE name = 'a')"
        db.execute(f"UPDATE job_specs SET schedule = '{{}}' WHERE {number}")
        db.execute("UPDATE jobs SET overlap = 'no' WHERE name = 'b'")
    result = call("--db", str(tmp_path / "a.db"))
    assert result.exit_code == 1
    assert [line.partition(" cannot")[0] for line in result.stderr.splitlines()] == [
        "cronactors: job a is left out: its stored schedule",
        "cronactors: job b is left out: its stored settings",
    ]
    found = json.loads(call("--db", str(tmp_path / "a.db"), "--format", "json").stdout)["cron"]["jobs"]
    assert ["error" in job for job in found] == [True, True, False]


def test_the_executor(tmp_path: Path) -> None:
    database = str(tmp_path / "a.db")
    add(database, JobSpec("a", "x", Cron("@daily")))

    def executor(*args: str) -> object:
        return tomllib.loads(call("--db", database, *args).stdout)["cron"].get("executor")

    assert executor() is None
    assert executor("--executor", "my.module:run") == "my.module:run"
    add(database, JobSpec("b", "x", Cron("@daily"), executor_options={"shell": "/bin/bash"}))
    assert executor() == "shell"
    result = call("--db", database, "--executor", "my.module:run")
    assert result.stderr == "cronactors: job b is left out: a file cannot hold executor_options: it has 'shell'\n"


def test_the_executor_of_the_file_that_names_the_database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CRONACTORS_DB", raising=False)
    Path("agent.toml").write_text('[cron]\nexecutor = "a.b:c"\ndatabase = "a.db"', encoding="utf-8")
    Path("other.toml").write_text('[cron]\nexecutor = "d.e:f"\ndatabase = "a.db"', encoding="utf-8")
    add("a.db", JobSpec("a", "x", Cron("@daily")))

    def executor(*args: str) -> object:
        return tomllib.loads(call(*args).stdout)["cron"].get("executor")

    assert executor() == "a.b:c"
    assert executor("--config", "other.toml") == "d.e:f"
    assert executor("--db", "a.db") is None
    assert executor("--executor", "g.h:i") == "g.h:i"
    monkeypatch.setenv("CRONACTORS_DB", "a.db")
    assert executor() is None


def test_the_jobs_of_one_user(tmp_path: Path) -> None:
    database = str(tmp_path / "a.db")
    add(database, JobSpec("a", "x", Cron("@daily")), JobSpec("b", "x", Cron("@daily"), user_id="ann"))

    def names(*args: str) -> list[str]:
        return [job["name"] for job in tomllib.loads(call("--db", database, *args).stdout)["cron"]["jobs"]]

    assert (names(), names("--user", "ann"), names("--user", "")) == (["a", "b"], ["b"], ["a"])
    with pytest.raises(JobNotFound, match="the user 'bob' has no job"):
        call("--db", database, "--user", "bob")


def test_json_has_the_same_keys(tmp_path: Path) -> None:
    database = str(tmp_path / "a.db")
    add(database, *EVERYTHING, pause=("plain",))
    found = json.loads(call("--db", database, "--format", "json").stdout)
    assert [job["name"] for job in found["cron"]["jobs"] if job.get("enabled") is False] == ["plain"]
    assert found == tomllib.loads(call("--db", database).stdout)


def test_an_empty_store(tmp_path: Path) -> None:
    add(str(tmp_path / "a.db"))
    result = call("--db", str(tmp_path / "a.db"))
    assert result.exit_code == 0
    assert start(result.stdout, ":memory:") == []


def test_too_many_jobs_for_a_file(tmp_path: Path) -> None:
    database = str(tmp_path / "a.db")
    add(database, *(JobSpec(f"{number}", "x" * 600_000, Cron("@daily")) for number in range(17)))
    with pytest.raises(InvalidConfig, match="17 jobs are too many for one file, which holds 10,000 jobs and 10,000,000 bytes"):
        call("--db", database)
    assert len(json.loads(call("--db", database, "--format", "json").stdout)["cron"]["jobs"]) == 17


def test_a_store_on_a_server_has_the_origin(server: str) -> None:
    add(server, JobSpec("a", "x", Cron("@daily")), origin="mine")
    found = tomllib.loads(call("--db", server).stdout)["cron"]
    assert (found["origin"], [job["name"] for job in found["jobs"]]) == ("mine", ["a"])
    assert "origin" not in tomllib.loads(call("--db", server, "--user", "").stdout)["cron"], (
        "a start with part of a list would remove the rest"
    )
