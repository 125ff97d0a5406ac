"""The verb `runs`: of one job or of all, with filters, on a terminal and in a pipe, and `--follow`."""

from __future__ import annotations

import json
import re
import signal
from pathlib import Path

import attrs
import pytest
import trio

from cronactors import (
    Cause,
    CronConfig,
    CronStore,
    Interval,
    JobContext,
    JobSpec,
    RetryPolicy,
    RunStatus,
    StoreUnavailable,
    Trigger,
    open_scheduler,
    open_store,
)
from cronactors.cli import listing, run_query
from cronactors.cli.run_query import RunQuery, find_subject
from cronactors.cli.tables import text_width
from cronactors.cli.watch_events import event_of
from cronactors.cli.watch_reader import Change, Filter, Snapshot
from cronactors.cli.watch_store import StoreReader
from cronactors.testing import VirtualClock
from tests.cli.test_printer import standard_output_in_a_pipe
from tests.cli.test_watch import Plain
from tests.cli_history import START, address, call, filled
from tests.cli_stores import with_ctrl_c

__all__ = ["address", "filled", "with_ctrl_c"]


def runs(database: Path | str, *args: str) -> list[dict[str, object]]:
    status, output = call(database, "runs", "--json", *args)
    assert status == 0, output
    found: list[dict[str, object]] = json.loads(output)
    return found


def lines(database: Path | str, *args: str) -> list[str]:
    status, output = call(database, "runs", *args)
    assert status == 0, output
    return [line.rstrip() for line in output.splitlines()]


@pytest.fixture(params=[80, 110])
def terminal(request, monkeypatch):
    monkeypatch.setattr(listing, "terminal_width", lambda: request.param)
    return request.param


# One job


def test_the_runs_of_a_job_are_in_its_zone_newest_first(filled):
    header, *rows = lines(filled, "report")
    assert re.split("  +", header) == ["run", "started", "for the moment", "attempt", "trigger", "status", "took", "result"]
    assert [row[5:48] for row in rows] == [
        "2026-03-02 11:00:00 CET  2026-03-02 11:00:0",
        "2026-03-02 10:00:00 CET  2026-03-02 10:00:0",
    ]
    assert [row.split()[0] for row in rows] == [run["id"] for run in runs(filled, "report")]
    assert all(re.search(r"schedule +success +5\.\d\d s +done$", row) for row in rows)


def test_a_name_that_two_users_have_lists_them(filled):
    status, text = call(filled, "runs", "mail")
    assert (status, text) == (1, "cronactors: 2 users have a job named 'mail': give --user with one of ann, bob")
    assert {run["user_id"] for run in runs(filled, "mail", "--user", "ann")} == {"ann"}


def test_a_name_that_only_one_user_has_needs_no_user(address):
    async def fill() -> None:
        async with open_store(address) as store:
            job_id = await store.add_job("mail", "it", Interval.every(hours=1), user_id="ann")
            await store.record_run_complete(await store.record_run_start(job_id), RunStatus.SUCCESS, "fine")

    trio.run(fill)
    assert [run["user_id"] for run in runs(address, "mail")] == ["ann"]
    assert [run["user_id"] for run in runs(address, "mail", "--user", "ann")] == ["ann"]
    assert [run["user_id"] for run in runs(address)] == ["ann"]
    assert runs(address, "--user", "") == []
    assert call(address, "runs", "mail", "--user", "")[0] == 1


def test_a_removed_job_is_found_in_the_history(filled):
    found = runs(filled, "gone")
    assert [run["status"] for run in found] == ["success"]
    assert runs(filled, "gone", "--status", "failed") == []
    assert lines(filled, "gone", "--user", "")[1].endswith("done")
    status, text = call(filled, "runs", "gone", "--user", "ann")
    assert (status, text) == (1, "cronactors: no job of user 'ann' has the name 'gone'; cronactors list shows them")


def test_two_removed_jobs_of_one_name_are_listed_together(tmp_path):
    async def fill() -> None:
        async with open_store(tmp_path / "a.db") as store:
            for _ in range(2):
                job_id = await store.add_job("twice", "it", Interval.every(hours=1))
                for _ in range(2):
                    await store.record_run_complete(await store.record_run_start(job_id), RunStatus.SUCCESS, "fine")
                    await trio.sleep(0.002)  # moments of requested runs of one job differ
                await store.remove_job(job_id)

    trio.run(fill)
    found = runs(tmp_path / "a.db", "twice")
    assert [run["id"] for run in found] == ["4", "3", "2", "1"]
    assert [run["id"] for run in runs(tmp_path / "a.db", "twice", "--limit", "3")] == ["4", "3", "2"]


def test_a_name_that_nobody_has(filled):
    assert call(filled, "runs", "absent") == (1, "cronactors: no job has the name 'absent'; cronactors list shows them")
    assert call(filled, "runs", "reprt") == (1, "cronactors: no job has the name 'reprt'; did you mean report?")


# All jobs


def test_the_runs_of_all_jobs_have_their_job_and_user(filled):
    header, *rows = lines(filled, "--limit", "3", "--status", "success")
    assert re.split("  +", header)[:4] == ["run", "job", "user", "started"]
    assert len(rows) == 3
    assert all(re.match(r"\d+ +(report|mail) +(-|ann|bob) +2026-03-02 10:00:00 UTC", row) for row in rows)
    ids = [int(str(run["id"])) for run in runs(filled, "--limit", "1000")]
    assert ids == sorted(ids, reverse=True)
    assert len(ids) == 2 + 6 + 4 + 1


def test_there_is_no_column_of_users_if_no_run_has_one(filled):
    header, *rows = lines(filled, "--user", "", "--limit", "1000")
    assert re.split("  +", header)[:3] == ["run", "job", "started"]
    assert len(rows) == 2 + 6 + 1


@pytest.mark.parametrize(
    ("args", "count"),
    [
        (["--status", "failed"], 6),
        (["--cause", "error"], 6),
        (["--cause", "timeout"], 0),
        (["--trigger", "retry"], 4),
        (["--tag", "flaky"], 6),
        (["--tag", "other"], 0),
        (["--user", "ann"], 2),
        (["--status", "failed", "--trigger", "schedule"], 2),
        (["--since", "2026-03-02T10:00Z"], 1 + 3 + 2),
        (["--until", "2026-03-02T10:00Z"], 1 + 3 + 2 + 1),
        (["report", "--since", "2026-03-02T10:30"], 1),  # of Rome
        (["report", "--since", "2026-03-02T11:00", "--until", "2026-03-02T11:01"], 1),
        (["--since", "1h"], 6),
        (["--since", "today"], 13),
        (["--since", "in 1h"], 0),
        (["--until", "yesterday"], 0),
    ],
)
def test_filters(filled, monkeypatch, args, count):
    monkeypatch.setattr(run_query, "now", lambda: START.replace(hour=10, minute=45))
    assert len(runs(filled, "--limit", "1000", *args)) == count


def test_no_runs(filled, tmp_path):
    assert lines(filled, "--cause", "timeout") == ["no runs match"]
    assert lines(filled, "report", "--cause", "timeout") == ["no runs of report match"]
    assert lines(filled, "--user", "carl") == ["no runs match"]

    async def fill() -> None:
        async with open_store(tmp_path / "empty.db") as store:
            await store.add_job("new", "it", Interval.every(hours=1))

    trio.run(fill)
    assert lines(tmp_path / "empty.db") == ["no runs yet"]
    assert lines(tmp_path / "empty.db", "new") == ["no runs of new yet"]


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--since", "soon"], "'soon' is not a time, such as 2026-03-28"),
        (["--until", "2 y"], "unknown unit 'y'"),
        (["--status", "lost"], "'lost' is not one of"),
        (["--limit", "0"], "Invalid value for '--limit'"),
        (["--follow", "--until", "now"], "--follow prints what comes"),
        (["a", "b"], "unexpected extra argument"),
    ],
)
def test_wrong_usage(tmp_path, args, message):
    status, text = call(tmp_path / "absent.db", "runs", *args)
    assert (status, message in text) == (2, True), text
    assert not list(tmp_path.iterdir())


def test_errors(filled, tmp_path):
    status, text = call(filled, "runs", "--since", "today", "--until", "yesterday")
    assert (status, text.startswith("cronactors: until must not be before since")) == (1, True)
    assert call(tmp_path / "absent.db", "runs")[0] == 1


# On a terminal


def test_the_table_fits_the_terminal(filled, terminal):
    for args in (["--limit", "100"], ["report"], ["bad"], ["--status", "failed"]):
        found = lines(filled, *args)
        assert all(text_width(line) <= terminal for line in found), found
        assert re.match("run +", found[0])
    assert re.search(" user +in UTC ", lines(filled, "--limit", "100")[0])
    header, *rows = lines(filled, "bad", "--limit", "1")
    assert re.split("  +", header.strip()) == ["run", "in UTC", "status", "took", "result"]
    assert re.match(r"\d+ +2026-03-02 10:0\d:\d\d +failed/error #3 +5\.\d\d s +OSError: ", rows[0])


def test_long_names_and_results_are_cut_to_the_terminal_and_columns_left_out(address, terminal):
    async def fill() -> None:
        async with open_store(address) as store:
            job_id = await store.add_job("日本" * 50, "it", Interval.every(hours=1), user_id="u" * 60)
            run_id = await store.record_run_start(job_id)
            await store.record_run_complete(run_id, RunStatus.FAILED, "long " * 100)
            retry = (await store.list_runs(status=RunStatus.PENDING))[0]
            await store.request_cancel(retry.id)

    trio.run(fill)
    header, *rows = lines(address)
    assert ("user" in header) is (terminal == 110)
    assert len(rows) == 2
    assert max(map(text_width, rows)) == terminal
    assert all("日本日本日本日…" in row for row in rows)


def test_a_wide_terminal_has_all_columns_and_the_ids(filled, monkeypatch):
    monkeypatch.setattr(listing, "terminal_width", lambda: 150)
    header, *_ = lines(filled, "report")
    assert re.split("  +", header) == ["run", "started", "for the moment", "attempt", "trigger", "status", "took", "result"]


@pytest.mark.parametrize(
    ("text", "width", "expected"), [("abc", 3, "abc"), ("abcd", 3, "ab…"), ("日本語", 5, "日本…"), ("", 0, "")]
)
def test_text_is_cut_to_columns(text, width, expected):
    assert listing.cut_to(text, width) == expected


# --follow


async def test_each_start_and_outcome_is_found_once(virtual_clock: VirtualClock, tmp_path: Path) -> None:
    async def execute(context: JobContext) -> str:
        await trio.sleep(50 if context.job_name == "slow" else 0.1)
        if context.job_name == "bad":
            raise ValueError("no luck")
        return "fine"

    jobs = [
        JobSpec("slow", "it", Interval.every(hours=1)),
        JobSpec("quick", "it", Interval.every(hours=1), user_id="ann"),
        JobSpec("bad", "it", Interval.every(hours=1), max_retries=1, tags=["flaky"]),
    ]
    file = tmp_path / "a.db"
    config = CronConfig(retry=RetryPolicy(delays=[30]), max_concurrent_runs=5)
    async with open_scheduler(file, execute, config=config, jobs=jobs) as scheduler, open_store(file, create=False) as store:
        ids = {job.name: job.id for job in await scheduler.store.list_jobs()}
        queries = [
            RunQuery(),
            RunQuery(name="quick", user="ann"),
            RunQuery(status=RunStatus.FAILED),
            RunQuery(tag="flaky"),
            RunQuery(user=""),
            RunQuery(cause=Cause.ERROR, trigger=Trigger.RETRY),
        ]
        readers = [StoreReader(store, Filter(query, await find_subject(store, query)), for_view=False) for query in queries]

        async def poll() -> list[list[tuple[str, str]]]:
            found = []
            for reader in readers:
                seen, _ = await reader.read()
                assert seen is not None
                runs = [change.run for change in seen.changes]
                found.append([(run.job_name, str(run.status)) for run in runs if run.status is not RunStatus.PENDING])
            return found

        await scheduler.run_now(ids["slow"], wait=False)
        await trio.sleep(10)
        assert await poll() == await poll() == [[], [], [], [], [], []]
        await scheduler.run_now(ids["quick"])
        assert await poll() == [[("quick", "success")], [("quick", "success")], [], [], [], []]
        await scheduler.run_now(ids["bad"])
        bad = [("bad", "failed")]
        assert await poll() == [bad, [], bad, bad, bad, []]
        await trio.sleep(100)  # the slow run has finished, and the retry of the bad one has failed
        assert await poll() == [[*bad, ("slow", "success")], [], bad, bad, [*bad, ("slow", "success")], bad]
        assert await poll() == [[], [], [], [], [], []]
        await scheduler.run_now(ids["slow"], wait=False)
        await trio.sleep(1)
        assert (await poll())[0] == [("slow", "running")]
        assert (await poll())[0] == []


async def record(store: CronStore, job_id: str, count: int) -> None:
    for _ in range(count):
        await store.record_run_complete(await store.record_run_start(job_id), RunStatus.SUCCESS, "fine")
        await trio.sleep(0.002)  # moments of runs of one job differ


@pytest.mark.parametrize("as_json", [False, True])
async def test_follow_prints_the_last_runs_and_new_ones_until_ctrl_c(address, with_ctrl_c, capsys, as_json):
    async with open_store(address) as store:
        job_id = await store.add_job("job", "it", Interval.every(hours=1))
        await record(store, job_id, 3)
        await store.record_run_start(await store.add_job("other", "it", Interval.every(hours=1)))
        with standard_output_in_a_pipe() as reader, trio.fail_after(20):
            following = Plain(address, reader, RunQuery(limit=2), follow=True, as_json=as_json)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(following.run)
                await following.lines.wait_for("running|started")
                await record(store, job_id, 2)
                await following.lines.wait_for('("id": "|run )6.*$')
                signal.raise_signal(signal.SIGINT)
    assert (following.status, capsys.readouterr().err) == (0, "")
    printed = following.lines.text.splitlines()
    if as_json:
        runs = [json.loads(line) for line in printed]
        assert [(run["id"], run["status"]) for run in runs] == [
            ("3", "success"), ("4", "running"), ("5", "success"), ("6", "success"),
        ]  # fmt: skip
    else:
        assert re.fullmatch(r"\S+ \S+ UTC  run 4  other  attempt 1  started", printed.pop(1))
        for number, line in zip((3, 5, 6), printed, strict=True):
            assert re.fullmatch(rf"\S+ \S+ UTC  run {number}  job  attempt 1  success    \d+\.\d\d s  fine", line)


async def test_follow_prints_only_runs_once_and_reports_a_server_that_is_away_as_an_error(tmp_path, monkeypatch, capsys):
    async with open_store(tmp_path / "a.db") as store:
        job_id = await store.add_job("job", "it", Interval.every(hours=1))
        await record(store, job_id, 1)
        (run,) = await store.list_runs(job_id)
    begin, calls = StoreReader._inspect, 0

    async def fail_once(self: StoreReader) -> Snapshot:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise StoreUnavailable("the server is gone")
        if calls == 4:
            signal.raise_signal(signal.SIGTERM)
        # Another scheduler each time, and the run changed between the first inspection and the read of the last runs.
        return attrs.evolve(await begin(self), schedulers=calls, changes=[Change(run, None)])

    monkeypatch.setattr(StoreReader, "_inspect", fail_once)
    with standard_output_in_a_pipe() as reader, trio.fail_after(20):
        following = Plain(tmp_path / "a.db", reader, follow=True, as_json=True)
        await following.run()
        await following.lines.wait_for("\n")
    assert following.status == 143
    assert [json.loads(line)["id"] for line in following.lines.text.splitlines()] == ["1"]
    errors = capsys.readouterr().err.splitlines()
    assert [line.partition("UTC  ")[2] for line in errors] == ["no answer: the server is gone", "the store answers again"]


async def test_the_line_of_a_run_that_starts_and_of_one_that_was_skipped(virtual_clock: VirtualClock) -> None:
    virtual_clock.set_wall(START)

    async def execute(_context: JobContext) -> None:
        await trio.sleep(3600)

    async with open_scheduler(
        ":memory:", execute, jobs=[JobSpec("a", "it", Interval.every(minutes=25), user_id="ann")]
    ) as scheduler:
        await trio.sleep(26 * 60)
        (run,) = await scheduler.store.list_runs()
        assert event_of(run).line("Europe/Rome") == "2026-03-02 09:25:00 CET  run 1  a  of ann  attempt 1  started"
        await trio.sleep(70 * 60)
        skipped = (await scheduler.store.list_runs(status=RunStatus.SKIPPED))[0]
        assert re.fullmatch(
            r"2026-03-02 \d\d:\d\d:\d\d UTC  run \d+  a  of ann  attempt 1  skipped/overlap  \(stands for 2 moments\)",
            event_of(skipped).line("UTC"),
        )
