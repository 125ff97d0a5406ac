"""What a job and a run carry: data of jobs, of requests and of results; and that no log, error or repr shows it."""

from __future__ import annotations

import logging
import sqlite3
from pathlib import Path

import attrs
import pytest
import trio

from cronactors import (
    Cron,
    CronRun,
    Interval,
    InvalidJob,
    JobBusy,
    JobContext,
    JobNotFound,
    JobResult,
    JobSpec,
    RunNotFound,
    RunStatus,
    StoreCorrupt,
    open_scheduler,
    open_store,
)
from cronactors.job_data import MAX_DATA, MAX_RESULT_DATA
from cronactors.json_value import Json
from cronactors.ledger.damage import find_damage
from cronactors.storage.sqlite import SqliteStorage
from cronactors.testing import VirtualClock, make_context

DAILY = Cron("@daily")
FULL = "x" * (MAX_DATA - 2)
FULL_RESULT = "x" * (MAX_RESULT_DATA - 2)


class Seen:
    """An executor that keeps the data of its runs, and fails the first ``failures`` of them."""

    def __init__(self, *, failures: int = 0, seconds: float = 0) -> None:
        self.data: list[Json] = []
        self.failures = failures
        self.seconds = seconds

    async def __call__(self, context: JobContext) -> JobResult:
        self.data.append(context.data)
        await trio.sleep(self.seconds)
        if len(self.data) <= self.failures:
            raise ValueError("it did not work")
        return JobResult(summary="done", data={"seen": context.data})


# Data of a job


@pytest.mark.parametrize("data", [{"a": [1, 2.5, None, True]}, [], "text", 0, False, "", {}, FULL])
async def test_the_data_of_a_job_reaches_its_runs(virtual_clock: VirtualClock, data: Json) -> None:
    seen = Seen()
    async with open_scheduler(":memory:", seen, jobs=[JobSpec("job", "it", Interval(60_000), data=data)]) as scheduler:
        await trio.sleep(61)
        (job,) = await scheduler.store.list_jobs()
        assert job.data == data
        assert type(job.data) is type(data)
    assert seen.data == [data]


async def test_a_job_without_data_has_none_and_a_change_can_take_it_away(virtual_clock: VirtualClock) -> None:
    seen = Seen()
    async with open_scheduler(":memory:", seen) as scheduler:
        store = scheduler.store
        job_id = await store.add_job("job", "it", DAILY)
        await scheduler.run_now(job_id)
        await store.update_job(job_id, data={"a": 1})
        await scheduler.run_now(job_id)
        assert (await store.update_job(job_id, prompt="other")).data == {"a": 1}
        assert (await store.update_job(job_id, data=None)).data is None
        await scheduler.run_now(job_id)
        await store.update_job(job_id, data=[1])
        await store.upsert_job("job", "it", DAILY)
        await scheduler.run_now(job_id)
    assert seen.data == [None, {"a": 1}, None, None]


async def test_each_reader_gets_a_copy(virtual_clock: VirtualClock) -> None:
    async def spoil(context: JobContext) -> None:
        assert context.data == {"list": [1]}
        context.data["list"].append(2)  # type: ignore[call-overload, union-attr, index]

    given: dict[str, list[int]] = {"list": [1]}
    async with open_scheduler(":memory:", spoil) as scheduler:
        job_id = await scheduler.store.add_job("job", "it", DAILY, data=given)
        given["list"].append(2)
        for _ in range(2):
            assert (await scheduler.run_now(job_id)).status is RunStatus.SUCCESS


def test_a_specification_with_data_is_a_value() -> None:
    spec = JobSpec("job", "it", DAILY, data={"a": 1, "b": [2]})
    assert spec == JobSpec("job", "it", DAILY, data={"b": (2,), "a": 1})
    assert spec != JobSpec("job", "it", DAILY)
    assert hash(spec) == hash(attrs.evolve(spec))
    assert attrs.evolve(spec, prompt="other").data == {"a": 1, "b": [2]}
    with pytest.raises(AttributeError):
        spec.data = 5  # type: ignore[misc]


def test_make_context_takes_data() -> None:
    assert make_context(data={"a": 1}).data == {"a": 1}
    assert make_context().data is None


# Data of a request


@pytest.mark.parametrize("data", [{"n": 1}, None, 0, FULL])
async def test_a_run_can_have_data_of_its_own(virtual_clock: VirtualClock, data: Json) -> None:
    seen = Seen(failures=1)
    async with open_scheduler(":memory:", seen) as scheduler:
        job_id = await scheduler.store.add_job("job", "it", DAILY, data="the job's")
        run = await scheduler.run_now(job_id, data=data)
        assert run.status is RunStatus.FAILED
        await trio.sleep(60)
        await scheduler.run_now(job_id)
    assert seen.data == [data, data, "the job's"]


async def test_a_run_that_a_stop_interrupted_keeps_its_data(virtual_clock: VirtualClock, tmp_path: Path) -> None:
    seen = Seen(seconds=10)
    async with open_scheduler(tmp_path / "jobs.db", seen, shutdown_grace=0) as scheduler:
        job_id = await scheduler.store.add_job("job", "it", DAILY)
        await scheduler.run_now(job_id, data={"n": 1}, wait=False)
        await trio.sleep(1)
    async with open_scheduler(tmp_path / "jobs.db", seen) as scheduler:
        await trio.sleep(20)
    assert seen.data == [{"n": 1}, {"n": 1}]


async def test_a_scheduler_starts_what_a_store_has_requested(virtual_clock: VirtualClock, tmp_path: Path) -> None:
    seen = Seen()
    async with open_store(tmp_path / "jobs.db") as store:
        job_id = await store.add_job("job", "it", DAILY)
        run_id = await store.request_run(job_id, data=[1], key="k")
        assert await store.request_run(job_id, data=(1,), key="k") == run_id
    async with open_scheduler(tmp_path / "jobs.db", seen) as scheduler:
        run = await scheduler.run_now(job_id, data=[1], key="k")
        assert (run.id, run.status, run.result_data) == (run_id, RunStatus.SUCCESS, {"seen": [1]})
    async with open_store(tmp_path / "jobs.db") as store:
        assert await store.request_run(job_id, data=[1], key="k") == run_id
    assert seen.data == [[1]]


async def test_requests_with_one_key_at_once_make_one_run(virtual_clock: VirtualClock) -> None:
    runs: list[CronRun] = []

    async def request() -> None:
        runs.append(await scheduler.run_now(job_id, data={"n": 1}, key="k"))

    seen = Seen(seconds=5)
    async with open_scheduler(":memory:", seen) as scheduler:
        job_id = await scheduler.store.add_job("job", "it", DAILY)
        async with trio.open_nursery() as nursery:
            for _ in range(20):
                nursery.start_soon(request)
        assert len(await scheduler.store.list_runs(limit=100)) == 1
    assert len(runs) == 20
    assert {(run.id, run.status) for run in runs} == {(runs[0].id, RunStatus.SUCCESS)}
    assert seen.data == [{"n": 1}]


async def test_a_key_finds_its_run_while_the_job_is_busy(virtual_clock: VirtualClock) -> None:
    async with open_scheduler(":memory:", Seen(seconds=10)) as scheduler:
        job_id = await scheduler.store.add_job("job", "it", DAILY)
        first = await scheduler.run_now(job_id, key="k", wait=False)
        assert (await scheduler.run_now(job_id, key="k", wait=False)).id == first.id
        with pytest.raises(JobBusy):
            await scheduler.run_now(job_id, key="l", wait=False)
        assert (await scheduler.run_now(job_id, key="k")).status is RunStatus.SUCCESS
        with pytest.raises(InvalidJob, match="^key 'k' of job 'job' was used with other data, for run 1$") as caught:
            await scheduler.run_now(job_id, key="k", data="SECRET")
        assert "SECRET" not in str(caught.value)


async def test_stores_of_one_file_share_the_keys(virtual_clock: VirtualClock, tmp_path: Path) -> None:
    async with open_store(tmp_path / "jobs.db") as one, open_store(tmp_path / "jobs.db") as other:
        job_id = await one.add_job("job", "it", DAILY)
        ids = [await store.request_run(job_id, key="k") for store in (one, other, one, other)]
        assert len(set(ids)) == len(await other.list_runs()) == 1
        with pytest.raises(InvalidJob, match="other data"):
            await other.request_run(job_id, key="k", data=1)


async def test_a_key_whose_run_left_the_history_is_free_again(virtual_clock: VirtualClock, tmp_path: Path) -> None:
    seen = Seen()
    async with open_scheduler(tmp_path / "jobs.db", seen) as scheduler:
        job_id = await scheduler.store.add_job("job", "it", DAILY)
        first = await scheduler.run_now(job_id, key="k", data=1)
        change(tmp_path / "jobs.db", "DELETE FROM runs WHERE id = ?", first.id)
        second = await scheduler.run_now(job_id, key="k", data=2)
        assert (await scheduler.run_now(job_id, key="k", data=2)).id == second.id != first.id
    assert seen.data == [1, 2]


@pytest.mark.parametrize("key", [5, b"x", "", "x" * 201, "a\0b", "\ud800", ["k"]])
async def test_a_bad_key(virtual_clock: VirtualClock, key: object) -> None:
    async with open_scheduler(":memory:", Seen()) as scheduler:
        job_id = await scheduler.store.add_job("job", "it", DAILY)
        with pytest.raises(InvalidJob, match="^key "):
            await scheduler.run_now(job_id, key=key)  # type: ignore[arg-type]
        assert await scheduler.store.list_runs() == []


@pytest.mark.parametrize("data", [b"SECRET", {"a": object()}, {5: "SECRET"}, FULL + "x", "SECRET\0"])
async def test_bad_data_of_a_request(virtual_clock: VirtualClock, data: object) -> None:
    async with open_scheduler(":memory:", Seen()) as scheduler:
        job_id = await scheduler.store.add_job("job", "it", DAILY)
        with pytest.raises(InvalidJob, match="^data") as caught:
            await scheduler.run_now(job_id, data=data)  # type: ignore[arg-type]
        assert "SECRET" not in str(caught.value)
        assert await scheduler.store.list_runs() == []


# Data of a result


@pytest.mark.parametrize("data", [{"rows": [1, 2]}, None, 0, "", FULL_RESULT])
async def test_the_data_of_a_result_is_kept_with_its_run(virtual_clock: VirtualClock, data: Json) -> None:
    async def execute(context: JobContext) -> JobResult:
        return JobResult(summary="done", data=data)

    observed: list[CronRun] = []

    async def on_finish(job: object, run: CronRun) -> None:
        observed.append(run)

    async with open_scheduler(":memory:", execute, on_finish=on_finish) as scheduler:
        job_id = await scheduler.store.add_job("job", "it", Interval(60_000))
        assert (await scheduler.run_now(job_id)).result_data == data
        await trio.sleep(61)
        await scheduler.wait_idle()
        assert [run.result_data for run in await scheduler.store.list_runs()] == [data, data]
    assert [run.result_data for run in observed] == [data, data]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (FULL_RESULT + "x", "data is too long: 65,537 bytes of JSON, at most 65,536 are allowed"),
        ({"a": {1}}, "data['a'] must be a JSON value, not set"),
    ],
)
async def test_data_that_a_result_cannot_have_is_an_error_where_the_result_is_made(
    virtual_clock: VirtualClock, data: Json, message: str
) -> None:
    async def careless(context: JobContext) -> JobResult:
        return JobResult(data=data)

    async def careful(context: JobContext) -> JobResult:
        try:
            return JobResult(summary="done", data=data)
        except InvalidJob as problem:
            return JobResult(summary=f"done; {problem}")

    async with open_scheduler(":memory:", careless) as scheduler:
        run = await scheduler.run_now(await scheduler.store.add_job("job", "it", DAILY))
        assert (run.status, run.error, run.result_data) == (RunStatus.FAILED, f"InvalidJob: {message}", None)
    async with open_scheduler(":memory:", careful) as scheduler:
        run = await scheduler.run_now(await scheduler.store.add_job("job", "it", DAILY))
        assert (run.status, run.result_summary) == (RunStatus.SUCCESS, f"done; {message}")


@pytest.mark.parametrize("notify", [None, 0, 1, "no"])
def test_notify_is_a_bool(notify: object) -> None:
    with pytest.raises(InvalidJob, match="^notify must be True or False"):
        JobResult(notify=notify)  # type: ignore[arg-type]


# Loops of the caller's own


async def test_a_loop_of_ones_own_reads_and_stores_data(virtual_clock: VirtualClock) -> None:
    async with open_store(":memory:") as store:
        job_id = await store.add_job("job", "it", DAILY, data="the job's")
        requested = await store.request_run(job_id, data={"n": 1})
        run_id = await store.record_run_start(job_id)
        assert run_id == requested
        assert await store.get_run_data(run_id) == {"n": 1}
        await store.record_run_complete(run_id, RunStatus.SUCCESS, "done", data=[1, 2])
        assert (await store.get_run(run_id)).result_data == [1, 2]
        other = await store.record_run_start(job_id)
        assert await store.get_run_data(other) == "the job's"
        with pytest.raises(InvalidJob, match="^data is too long"):
            await store.record_run_complete(other, RunStatus.SUCCESS, data=FULL_RESULT + "x")
        await store.record_run_complete(other, RunStatus.FAILED, error="no", data={"partial": 1})
        assert (await store.get_run(other)).result_data == {"partial": 1}
        await store.remove_job(job_id)
        with pytest.raises(JobNotFound):
            await store.get_run_data(other)
        with pytest.raises(RunNotFound):
            await store.get_run_data("99")


# Secrets and damage


async def test_nothing_shows_data(virtual_clock: VirtualClock, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    notified: list[object] = []

    async def execute(context: JobContext) -> JobResult:
        if context.attempt == 1:
            raise ValueError("it did not work")
        return JobResult(data={"token": "SECRET"})

    async def notifier(*text: object) -> None:
        notified.append(text)

    async with open_scheduler(":memory:", execute, notifier=notifier) as scheduler:
        job_id = await scheduler.store.add_job("job", "it", DAILY, data={"token": "SECRET"})
        await scheduler.run_now(job_id, data={"token": ["SECRET"]})
        await trio.sleep(60)
        await scheduler.wait_idle()
        (job,), runs = await scheduler.store.list_jobs(), await scheduler.store.list_runs()
    assert runs[0].result_data == {"token": "SECRET"}
    spec, context = JobSpec("job", "it", DAILY, data="SECRET"), make_context(data="SECRET")
    shown = [caplog.text, *map(repr, [job, *runs, spec, context, JobResult(data="SECRET"), notified])]
    assert not [text for text in shown if "SECRET" in text]


@pytest.mark.parametrize("damaged", ["", "{", "[1", "{'a': 1}"])
async def test_damaged_data_fails_its_own_run_only(virtual_clock: VirtualClock, tmp_path: Path, damaged: str) -> None:
    file = tmp_path / "jobs.db"
    async with open_store(file) as store:
        bad = await store.add_job("bad", "it", DAILY, data=[1])
        good = await store.add_job("good", "it", DAILY, data=[2])
        requested = await store.request_run(good, data=[3])
    change(file, "UPDATE job_specs SET data = ? WHERE data = '[1]'", damaged)
    change(file, "UPDATE run_requests SET data = ? WHERE data = '[3]'", damaged)
    async with open_scheduler(file, Seen()) as scheduler:
        store = scheduler.store
        run = await scheduler.run_now(bad)
        assert (run.status, run.error) == (RunStatus.FAILED, "InvalidJob: data cannot be read: what is stored is not JSON")
        assert (await store.get_run(requested)).error == run.error
        assert (await scheduler.run_now(good)).result_data == {"seen": [2]}
        jobs = {job.name: job for job in await store.list_jobs()}
        assert jobs["good"].data == [2]
        with pytest.raises(InvalidJob, match="data cannot be read"):
            jobs["bad"].data  # noqa: B018
        assert (await store.update_job(bad, data=[1])).data == [1]


DAMAGE = {
    "data": ("jobs", "UPDATE job_specs SET data = ?", "{"),
    "options": ("jobs", "UPDATE job_specs SET executor_options = ?", "[]"),
    "tags": ("jobs", "UPDATE job_specs SET tags = ?", "{"),
    "result": ("runs", "UPDATE runs SET result_data = ?", "{"),
}


@pytest.mark.parametrize(("table", "statement", "value"), DAMAGE.values(), ids=DAMAGE)
async def test_damaged_json_is_found(virtual_clock: VirtualClock, tmp_path: Path, table: str, statement: str, value: str) -> None:
    file = tmp_path / "jobs.db"
    async with open_scheduler(file, Seen()) as scheduler:
        await scheduler.run_now(await scheduler.store.add_job("job", "it", DAILY, data=[1]))
    storage = SqliteStorage(str(file), wall=lambda: 0)
    assert find_damage(storage) is None
    change(file, statement, value)
    found = find_damage(storage)
    storage.close()
    assert isinstance(found, StoreCorrupt)
    assert f"there are {table} that cannot be read: " in str(found)
    async with open_store(file) as store:
        (run,) = await store.list_runs()
        assert run.status is RunStatus.SUCCESS
        if table == "runs":
            with pytest.raises(InvalidJob, match="^result_data cannot be read"):
                run.result_data  # noqa: B018


def change(file: Path, statement: str, value: str) -> None:
    with sqlite3.connect(file) as connection:
        assert connection.execute(statement, (value,)).rowcount == 1
    connection.close()
