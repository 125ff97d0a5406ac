"""Tags and descriptions of jobs, and finding jobs by their tags."""

from __future__ import annotations

import itertools
import json
import sqlite3
from collections.abc import Iterable
from pathlib import Path

import pytest

from cronactors import Cron, CronStore, InvalidJob, JobSpec, OneShot, open_store
from cronactors.cli import listing
from cronactors.testing import VirtualClock
from cronactors.verbs import jobs as job_verbs

DAILY = Cron("@daily")


def spec(tags: Iterable[str], name: str = "job") -> JobSpec:
    return JobSpec(name, "it", DAILY, tags=tags)


async def names(store: CronStore, **wanted: object) -> list[str]:
    return [job.name for job in await store.list_jobs(**wanted)]  # type: ignore[arg-type]


@pytest.mark.parametrize("given", [["b", "a", "b"], ("a", "b"), {"b", "a"}, iter(["b", "a"]), {"a": 1, "b": 2}.keys()])
def test_tags_are_sorted_and_each_once(given: Iterable[str]) -> None:
    assert spec(given).tags == ("a", "b")


def test_the_limits_of_tags_and_descriptions() -> None:
    most = [f"{n:03}" for n in range(32)]
    assert spec(most * 2).tags == tuple(most)
    with pytest.raises(InvalidJob, match="^tags holds 33 different tags, at most 32 are allowed$"):
        spec([*most, "x"])
    with pytest.raises(InvalidJob, match="^tags holds more than 1,000 items"):
        spec(itertools.repeat("x"))
    assert spec(["x" * 100]).tags == ("x" * 100,)
    with pytest.raises(InvalidJob, match=r"^tags\[1\] is too long: 101 characters"):
        spec(["a", "x" * 101])
    assert JobSpec("job", "it", DAILY, description="x" * 1_000).description == "x" * 1_000
    with pytest.raises(InvalidJob, match="^description is too long: 1,001 characters, at most 1,000 are allowed$"):
        JobSpec("job", "it", DAILY, description="x" * 1_001)


async def test_jobs_are_found_by_tag_user_and_whether_they_are_enabled(virtual_clock: VirtualClock) -> None:
    async with open_store(":memory:") as store:
        await store.add_jobs([spec(["x", "y"], "a"), spec([], "b"), spec(["y"], "c")])
        ann = await store.add_job("d", "it", DAILY, tags=["y"], user_id="ann")
        await store.pause_job(ann)
        assert await names(store, tag="y") == ["a", "c", "d"]
        assert await names(store, tag="y", enabled=True) == ["a", "c"]
        assert await names(store, tag="y", user_id="ann", enabled=False) == ["d"]
        assert await names(store, tag="y", user_id=None) == ["a", "c"]
        assert await names(store, enabled=False) == ["d"]
        assert await names(store, enabled=True) == ["a", "b", "c"]
        assert await names(store, tag="z") == []
        assert await names(store) == ["a", "b", "c", "d"]


async def test_tags_follow_updates_upserts_and_removals(virtual_clock: VirtualClock, tmp_path: Path) -> None:
    async with open_store(tmp_path / "jobs.db") as store:
        job_id = await store.add_job("job", "it", DAILY, tags=["x"], description="d")
        job = await store.update_job(job_id, tags=iter(["z", "y"]))
        assert (job.tags, job.description) == (("y", "z"), "d")
        assert [await names(store, tag=tag) for tag in "xyz"] == [[], ["job"], ["job"]]
        assert (await store.update_job(job_id, prompt="other")).tags == ("y", "z")
        await store.upsert_job("job", "it", DAILY)
        job = await store.get_job(job_id)
        assert (job.tags, job.description) == ((), "")
        assert await names(store, tag="y") == []
        await store.upsert_job("job", "it", DAILY, tags=["y"])
        assert await names(store, tag="y") == ["job"]
        await store.remove_job(job_id)
        assert await names(store, tag="y") == []
        await store.add_job("once", "it", OneShot("2026-01-02T00:00Z"), tags=["y"])
        assert await names(store, tag="y") == ["once"]


async def test_pages_of_a_tag_hold_every_job_once(virtual_clock: VirtualClock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job_verbs, "_PAGE", 3)
    async with open_store(":memory:") as store:
        await store.add_jobs([spec(["x"] if n % 2 else [], f"{n}") for n in range(25)])
        for n in range(0, 25, 5):
            await store.pause_job((await store.list_jobs())[n].id)
        assert await names(store, tag="x") == [f"{n}" for n in range(25) if n % 2]
        assert await names(store, tag="x", enabled=True) == [f"{n}" for n in range(25) if n % 2 and n % 5]
        assert await names(store, enabled=False) == [f"{n}" for n in range(0, 25, 5)]


@pytest.mark.parametrize("tag", [5, b"x", "", " x", "a\nb", "x" * 101, "a\0", "\ud800", ["x"]])
async def test_a_bad_tag_to_find(virtual_clock: VirtualClock, tag: object) -> None:
    async with open_store(":memory:") as store:
        with pytest.raises(InvalidJob, match="^tag "):
            await names(store, tag=tag)


@pytest.mark.parametrize("enabled", [0, 1, "yes", []])
async def test_a_bad_flag_to_find(virtual_clock: VirtualClock, enabled: object) -> None:
    async with open_store(":memory:") as store:
        with pytest.raises(InvalidJob, match="^enabled must be True or False"):
            await names(store, enabled=enabled)


async def test_tags_that_cannot_be_read_are_shown_as_such_and_can_be_replaced(
    virtual_clock: VirtualClock, tmp_path: Path
) -> None:
    file = tmp_path / "jobs.db"
    async with open_store(file) as store:
        bad = await store.add_job("bad", "it", DAILY, tags=["x"])
        await store.add_job("good", "it", DAILY, tags=["x"])
    with sqlite3.connect(file) as connection:
        connection.execute("UPDATE job_specs SET tags = '[5]' WHERE number = (SELECT number FROM jobs WHERE id = ?)", (bad,))
    connection.close()
    async with open_store(file) as store:
        job = await store.get_job(bad)
        assert (job.tags, job.last_error) == ((), "its stored settings cannot be read: tags '[5]' cannot be read")
        assert (await store.update_job(bad, tags=["y"])).last_error is None
        assert (await names(store, tag="x"), await names(store, tag="y")) == (["good"], ["bad"])


async def test_the_command_shows_tags_and_no_data(virtual_clock: VirtualClock, capsys: pytest.CaptureFixture[str]) -> None:
    async with open_store(":memory:") as store:
        await store.add_job("plain", "it", DAILY)
        listing.print_jobs(await store.list_jobs())
        assert "tags" not in capsys.readouterr().out
        await store.add_job("tagged", "it", DAILY, tags=["b", "a"], description="d", data={"token": "SECRET"})
        jobs = await store.list_jobs()
        listing.print_jobs(jobs)
        shown = capsys.readouterr().out
        assert ("a, b" in shown, "SECRET" in shown) == (True, False)
        fields = listing.job_as_json(jobs[1])
        assert (fields["tags"], fields["description"]) == (["a", "b"], "d")
        assert "SECRET" not in json.dumps(fields)
