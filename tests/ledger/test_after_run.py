"""What a finished run means for its job: whether the job waits for the retry, and which run holds it."""

from __future__ import annotations

from cronactors.policy import FREE_CRASHES
from tests.ledger_world import MINUTE


def test_only_the_retry_of_a_crash_that_costs_one_holds_its_job(world):
    job = world.add()
    world.pass_time(MINUTE)
    for crash in range(1, FREE_CRASHES + 2):
        run = world.claim_one()
        assert world.job(job).held_by == run.id
        world.crash()
        retry = world.history(job)[-1]
        assert (retry.status, retry.id != run.id) == ("pending", True)
        assert world.job(job).held_by == (retry.id if crash > FREE_CRASHES else None)


def test_a_job_that_has_come_to_allow_all_is_held_by_no_run(world):
    job = world.add(overlap="skip")
    world.pass_time(MINUTE)
    first = world.claim_one()
    world.update(job, {"overlap": "allow_all"})
    world.pass_time(MINUTE)
    second = world.claim_one()
    assert world.job(job).held_by is None
    world.finish(first)
    assert world.run(second).status == "running"
    assert world.job(job).held_by is None


def test_a_job_that_allows_all_no_more_is_held_by_its_latest_run(world):
    job = world.add(overlap="allow_all")
    runs = []
    for _ in range(3):
        world.pass_time(MINUTE)
        runs.append(world.claim_one())
    world.update(job, {"overlap": "skip"})
    assert world.job(job).held_by == runs[2].id
    world.finish(runs[0])
    assert world.job(job).held_by == runs[2].id
    world.finish(runs[2])
    assert world.job(job).held_by == runs[1].id
    world.finish(runs[1])
    assert world.job(job).held_by is None
