"""Plain finishes: a run that finds everything as its claim left it is stored without reading, with the same result."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing

import pytest

from cronactors.ledger.finish import finish_runs
from cronactors.model import Cause, Overlap, RunStatus, SessionMode
from cronactors.policy import Outcome
from cronactors.schedules.schedule import Cron, Interval, OneShot
from cronactors.storage.protocol import Storage
from cronactors.storage.rows import PlainFinish, RunRow
from tests import storages
from tests.ledger_world import FAILURE, KINDS, SUCCESS, T0, RunnerReport, World
from tests.storages import add_run, job, run_finish

MINUTE = 60_000
storage, store = storages.storage, storages.store


def held_job(store: Storage, job_id: str = "a", **fields: object) -> PlainFinish:
    """A job with a running run of owner 1, and its plain finish."""
    run_id = add_run(store, job_id=job_id, status="running", owner=1, started_at=2000, scheduled_at=2000)
    known = {"held_by": run_id, "next_run_at": 9000, "last_run_at": 2000, "last_error": "of old"}
    store.insert_jobs([job(job_id, **(known | fields))])
    return PlainFinish(run_id, 2500, "s", "done", job_id, 9000)


def content(store: Storage) -> object:
    return store.list_jobs(after=0, limit=9, user_id=None), store.list_runs(job_id=None, before=None, limit=9)


def test_a_plain_finish_leaves_the_job_ready_for_its_next_moment(store: Storage) -> None:
    one, two = held_job(store, "a"), held_job(store, "b")
    before = store.jobs(["a", "b"])
    assert store.store_plain_finishes([one, two], owner=1)
    assert store.jobs(["a", "b"]) == {key: row._replace(held_by=None, last_error=None) for key, row in before.items()}
    finished = store.runs([one.run_id])[one.run_id]
    assert (finished.status, finished.cause, finished.completed_at, finished.session_id, finished.result) == (
        "success",
        None,
        2500,
        "s",
        "done",
    )


def test_a_job_without_a_further_moment_is_done(store: Storage) -> None:
    end = held_job(store, next_run_at=None)._replace(next_run_at=None)
    assert store.store_plain_finishes([end], owner=1)
    assert (store.jobs(["a"])["a"].enabled, store.jobs(["a"])["a"].held_by) == (0, None)


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"held_by": 77}, id="held by another"),
        pytest.param({"held_by": None}, id="held by none"),
        pytest.param({"next_run_at": 9001}, id="another moment"),
        pytest.param({"next_run_at": None}, id="no moment"),
        pytest.param({"enabled": 0}, id="paused"),
        pytest.param({"crashes": 1}, id="crashed"),
        pytest.param({"delete_after_run": 1}, id="to be deleted"),
    ],
)
def test_a_job_that_has_changed_since_the_claim_is_no_plain_finish(store: Storage, change: dict[str, object]) -> None:
    good, end = held_job(store, "b"), held_job(store, "a")
    store.update_jobs([store.jobs(["a"])["a"]._replace(**change)])  # type: ignore[arg-type]
    before = content(store)
    assert not store.store_plain_finishes([good, end], owner=1)
    assert content(store) == before, "the other run is not finished either"


@pytest.mark.parametrize(
    "meddle",
    [
        pytest.param(lambda store, end: store.mark_runs([end.run_id], cancel_requested=True), id="cancellation requested"),
        pytest.param(lambda store, end: store.store_finishes([run_finish(end.run_id, "running")]), id="finished"),
        pytest.param(lambda store, _: store.delete_jobs(["a"]), id="removed"),
        pytest.param(lambda store, _: add_run(store, job_id="a", attempt=2), id="another waits"),
        pytest.param(lambda store, _: add_run(store, job_id="a", attempt=2, status="running"), id="another goes on"),
    ],
)
def test_a_plain_finish_is_refused_if_the_run_or_its_job_has_changed(
    store: Storage, meddle: Callable[[Storage, PlainFinish], object]
) -> None:
    good, end = held_job(store, "b"), held_job(store, "a")
    meddle(store, end)
    before = content(store)
    assert not store.store_plain_finishes([good, end], owner=1)
    assert content(store) == before


def test_the_run_of_another_owner_is_no_plain_finish(store: Storage) -> None:
    end = held_job(store)
    before = content(store)
    assert not store.store_plain_finishes([end], owner=2)
    assert content(store) == before


# The same decision, whether the claim is known or not

JOBS = {
    "interval": (Interval(MINUTE), {}),
    "cron": (Cron("* * * * *"), {}),
    "one-shot": (OneShot("2026-03-02T00:01:00Z"), {}),
    "deleted": (OneShot("2026-03-02T00:01:00Z"), {"delete_after_run": True}),
    "session": (Interval(MINUTE), {"session_mode": SessionMode.MAIN}),
    "allow all": (Interval(MINUTE), {"overlap": Overlap.ALLOW_ALL}),
    "buffer": (Interval(MINUTE), {"overlap": Overlap.BUFFER_ONE}),
}
MEANWHILE = {
    "nothing": lambda world, job, run: None,
    "paused": lambda world, job, run: world.pause(job),
    "removed": lambda world, job, run: world.remove(job),
    "renamed": lambda world, job, run: world.update(job, {"name": "other", "prompt": "other"}),
    "to be deleted": lambda world, job, run: world.update(job, {"delete_after_run": True}),
    "another schedule": lambda world, job, run: world.update(job, {"schedule": Interval(7 * MINUTE)}),
    "allows all": lambda world, job, run: world.update(job, {"overlap": Overlap.ALLOW_ALL}),
    "cancellation requested": lambda world, job, run: world.cancel(run),
    "overlapped": lambda world, job, run: world.pass_time(3 * MINUTE),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("meanwhile", MEANWHILE)
@pytest.mark.parametrize("of", JOBS)
@pytest.mark.parametrize("outcome", [SUCCESS, FAILURE], ids=["success", "failure"])
def test_the_claim_saves_reading_and_decides_nothing(kind, meanwhile, of, outcome) -> None:
    schedule, options = JOBS[of]

    def outcome_in(world: World) -> object:
        job_id = world.add(schedule, **options)
        neighbour = world.add(schedule, **options)
        world.now = T0 + MINUTE
        runs = [claimed.run for claimed in world.claim()]
        MEANWHILE[meanwhile](world, job_id, runs[0])
        world.pass_time(1000)
        finished = [world.finish(run, outcome) for run in runs]
        after = world.do(
            lambda storage: (storage.jobs([job_id, neighbour]), storage.list_runs(job_id=None, before=None, limit=99))
        )
        return finished, after

    with closing(World(kind)) as knows, closing(World(kind)) as does_not:
        does_not.knows_claims = False
        assert outcome_in(knows) == outcome_in(does_not)


@pytest.mark.parametrize("kind", KINDS)
def test_of_two_outcomes_of_one_run_in_a_batch_the_first_counts(kind) -> None:
    with closing(World(kind)) as world:
        world.add()
        world.pass_time(MINUTE)
        (claimed,) = world.claim()
        put_back = Outcome(status=RunStatus.FAILED, cause=Cause.INTERRUPTED)
        reports = [RunnerReport(claimed.run.id, SUCCESS, claimed), RunnerReport(claimed.run.id, put_back, None)]
        first, second = world.do(finish_runs, reports, owner=world.owner, policy=world.policy).runs
        assert isinstance(first, RunRow)
        assert (first.status, second, world.run(claimed.run).status) == ("success", None, "success")
