"""The options of a job for its executor: checks, storage, and that no log or error shows them."""

from __future__ import annotations

import copy
import logging
import pickle
import sqlite3
from collections.abc import Iterator, Mapping

import attrs
import pytest

from cronactors import Interval, InvalidJob, JobContext, JobSpec, RunStatus, open_scheduler, open_store
from cronactors.executor_options import MAX_OPTIONS, ExecutorOptions, check_executor_options
from cronactors.testing import make_context

HOURLY = Interval.every(hours=1)
NESTED = {"shell": "/bin/bash", "limits": {"cpu": 1.5, "names": ["a", None, True, 7]}, "": "ü"}


def spec(options: Mapping[str, object]) -> JobSpec:
    return JobSpec("job", "prompt", HOURLY, executor_options=options)


@pytest.mark.parametrize("options", [{}, {"shell": "/bin/bash"}, NESTED, {"deep": [[[[]]]]}, {"x": "y" * (MAX_OPTIONS - 8)}])
def test_options_are_stored_unchanged(options):
    kept = spec(options).executor_options
    assert kept == options
    assert dict(kept) == options
    assert kept == spec(copy.deepcopy(options)).executor_options
    assert hash(spec(options)) == hash(spec(options))
    assert pickle.loads(pickle.dumps(make_context(executor_options=options))).executor_options == options
    assert copy.deepcopy(kept) == kept


def test_order_of_the_keys_does_not_matter():
    assert spec({"a": 1, "b": 2}) == spec({"b": 2, "a": 1})
    assert spec({"a": 1}) != spec({"a": True})
    assert spec({"a": 1}) != spec({})


def test_options_are_a_copy_and_cannot_be_changed():
    given = {"list": [1]}
    job = spec(given)
    given["list"].append(2)
    given["more"] = [3]
    assert job.executor_options == {"list": [1]}
    job.executor_options["list"].append(2)
    assert job.executor_options == {"list": [1]}
    with pytest.raises(TypeError):
        job.executor_options["list"] = 5
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        job.executor_options = {}


def test_repr_shows_no_options():
    secret = {"token": "SECRET"}
    for value in (spec(secret), make_context(executor_options=secret), spec(secret).executor_options):
        assert "SECRET" not in repr(value)
        assert "token" not in repr(value)


ENDLESS: list[object] = []
ENDLESS.append(ENDLESS)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({5: "x"}, "executor_options must have text as keys, not 5"),
        ({"a": {5: "x"}}, r"executor_options\['a'\] must have text as keys, not 5"),
        ({"a": object()}, r"executor_options\['a'\] must be a JSON value, not object"),
        ({"a": [b"SECRET"]}, r"executor_options\['a'\] must be a JSON value, not bytes"),
        ({"a": {1, 2}}, r"executor_options\['a'\] must be a JSON value, not set"),
        ({"a": float("nan")}, r"executor_options\['a'\] must be a finite number"),
        ({"a": float("inf")}, r"executor_options\['a'\] must be a finite number"),
        ({"a": "SECRET\0"}, r"executor_options\['a'\] contains a NUL"),
        ({"a": "SECRET\ud800"}, r"executor_options\['a'\] contains a lone surrogate"),
        ({"a\0": 1}, "a key of executor_options contains a NUL"),
        ({"a": ENDLESS}, r"executor_options\['a'\] is too deep"),
        ({"a": 10**5000}, "executor_options must be a mapping of JSON values: it cannot be read"),
        ({"x": "SECRET" * 1000}, "executor_options is too long: 6,008 bytes of JSON, at most 4,096 are allowed"),
    ],
)
def test_bad_options_are_refused_without_their_values(options, message):
    with pytest.raises(InvalidJob, match=message) as caught:
        spec(options)
    assert "SECRET" not in str(caught.value)
    assert str(caught.value).isprintable()


def test_a_mapping_that_raises():
    class Broken(Mapping[str, str]):
        def __getitem__(self, key: str) -> str:
            raise RuntimeError("SECRET")

        def __iter__(self) -> Iterator[str]:
            return iter(["a"])

        def __len__(self) -> int:
            return 1

    with pytest.raises(InvalidJob, match=r"it cannot be read \(RuntimeError\)$"):
        spec(Broken())


async def test_options_reach_the_executor_and_can_be_changed(virtual_clock, tmp_path, caplog):
    seen: list[dict[str, object]] = []

    async def execute(context: JobContext) -> None:
        context.executor_options["list"].append("changed by a run")
        seen.append(dict(context.executor_options))

    caplog.set_level(logging.DEBUG)
    first, second, third = {"list": ["SECRET-1"]}, {"list": ["SECRET-2"]}, {"list": ["SECRET-3"], "more": 1}
    async with open_scheduler(tmp_path / "jobs.db", execute) as scheduler:
        store = scheduler.store
        job_id = await store.add_job("job", "p", HOURLY, executor_options=first)
        await scheduler.run_now(job_id)
        await scheduler.run_now(job_id)
        await store.upsert_job("job", "p", HOURLY, executor_options=second)
        await scheduler.run_now(job_id)
        job = await store.update_job(job_id, executor_options=third)
        assert job.executor_options == third
        await scheduler.run_now(job_id)
        assert (await store.update_job(job_id, prompt="other")).executor_options == third
        await scheduler.run_now(job_id)
        await store.upsert_job("job", "p", HOURLY)
        assert (await store.get_job(job_id)).executor_options == {}
    assert seen == [first, first, second, third, third]
    assert "SECRET" not in caplog.text


async def test_a_change_is_copied_when_it_is_made(virtual_clock):
    async with open_store(":memory:") as store:
        job_id = await store.add_job("job", "p", HOURLY)
        options = {"list": [1]}
        await store.update_job(job_id, executor_options=options)
        options["list"].append(2)
        assert (await store.get_job(job_id)).executor_options == {"list": [1]}
        with pytest.raises(InvalidJob, match="executor_options must be a mapping"):
            await store.update_job(job_id, executor_options=5)


@pytest.mark.parametrize("damaged", ["", "[]", "5", "{", '{"a": '])
async def test_damaged_options_fail_their_own_run_only(virtual_clock, tmp_path, damaged):
    async def execute(context: JobContext) -> str:
        return str(context.executor_options.get("a"))

    file = tmp_path / "jobs.db"
    async with open_store(file) as store:
        bad = await store.add_job("bad", "p", HOURLY, executor_options={"a": 1})
        good = await store.add_job("good", "p", HOURLY, executor_options={"a": 2})
    with sqlite3.connect(file) as connection:
        changed = connection.execute(
            "UPDATE job_specs SET executor_options = ? WHERE executor_options = ?", (damaged, '{"a":1}')
        ).rowcount
    connection.close()
    assert changed == 1
    async with open_scheduler(file, execute) as scheduler:
        assert len(await scheduler.store.list_jobs()) == 2
        run = await scheduler.run_now(bad)
        assert run.status is RunStatus.FAILED
        assert "executor_options cannot be read" in (run.error or "")
        assert (await scheduler.run_now(good)).result_summary == "2"


def test_checked_options_are_not_copied_again():
    options = ExecutorOptions('{"a":1}')
    assert check_executor_options("executor_options", options) is options
