"""What a run is requested with: every attempt has the same data, and a key adds no second run."""

from __future__ import annotations

import pytest

from cronactors.errors import InvalidJob, JobBusy, JobNotFound
from cronactors.ledger import runs
from cronactors.ledger.claim import claim_due
from tests.ledger_world import FAILURE, HOUR, HOURLY, MINUTE


def claimed_data(world):
    (claimed,) = world.claim()
    return claimed.run, claimed.request_data


def test_all_attempts_see_the_data_of_the_request_and_other_runs_do_not(world):
    job = world.add(HOURLY, data={"from": "job"})
    world.request(job, data='{"from":"request"}')
    run, data = claimed_data(world)
    assert data == '{"from":"request"}'
    world.finish(run, FAILURE)
    world.pass_time(MINUTE)
    run, data = claimed_data(world)
    assert (run.attempt, data) == (2, '{"from":"request"}')
    world.crash()
    run, data = claimed_data(world)
    assert (run.attempt, run.trigger, data) == (3, "recovery", '{"from":"request"}')
    world.finish(run)
    world.pass_time(HOUR)
    run, data = claimed_data(world)
    assert (run.manual, data) == (0, None)
    world.finish(run)
    world.request(job)
    assert claimed_data(world)[1] is None


def test_a_second_request_with_a_key_returns_the_last_attempt(world):
    job = world.add(HOURLY)
    first = world.request(job, key="k")
    assert world.request(job, key="k") == first
    run = world.claim_one()
    assert world.request(job, key="k") == world.run(run)
    world.finish(run, FAILURE)
    (retry,) = [each for each in world.history(job) if each.attempt == 2]
    assert world.request(job, key="k") == retry
    world.pass_time(MINUTE)
    world.finish(world.claim_one())
    done = world.request(job, key="k")
    assert (done.id, done.status) == (retry.id, "success")
    assert len(world.history(job)) == 2


def test_keys_of_different_jobs_are_different(world):
    first, second = world.add(HOURLY), world.add(HOURLY)
    assert world.request(first, key="k").job_id == first
    assert world.request(second, key="k").job_id == second
    world.claim()
    with pytest.raises(JobBusy):
        world.request(first, key="l")
    assert len(world.history()) == 2


def test_a_refused_request_uses_up_no_key(world):
    job = world.add(HOURLY)
    world.request(job)
    with pytest.raises(JobBusy):
        world.request(job, key="k", data="1")
    world.finish(world.claim_one())
    run = world.request(job, key="k", data="2")
    assert run.status == "pending"
    assert claimed_data(world)[1] == "2"


@pytest.mark.parametrize(("first", "second"), [("1", "2"), ("1", None), (None, "1"), ("null", None), ("1", "1.0")])
def test_other_data_under_a_key_is_refused(world, first, second):
    job = world.add(HOURLY, name="report")
    run = world.request(job, key="k", data=first)
    with pytest.raises(InvalidJob, match=f"^key 'k' of job 'report' was used with other data, for run {run.id}$"):
        world.request(job, key="k", data=second)
    assert world.request(job, key="k", data=first) == run


def test_the_key_of_a_removed_job_still_finds_its_run(world):
    job = world.add(HOURLY)
    world.request(job, key="k")
    run = world.claim_one()
    world.remove(job)
    assert world.request(job, key="k").id == run.id
    with pytest.raises(JobNotFound):
        world.request(job, key="l")


def test_requests_in_one_millisecond_keep_their_own_data(world):
    job = world.add(HOURLY, overlap="allow_all")
    ids = {world.request(job, data=f"{n}").id: f"{n}" for n in range(4)}
    assert {each.run.id: each.request_data for each in world.claim()} == ids


def test_data_of_a_run_is_what_it_was_requested_with_or_what_its_job_has(world):
    job = world.add(HOURLY, data=[1], overlap="allow_all")
    own, plain = world.request(job, data="null"), world.request(job)
    assert [world.do(runs.data_of_run, str(run.id)) for run in (own, plain)] == ["null", "[1]"]
    world.claim()
    world.remove(job)
    assert world.do(runs.data_of_run, str(own.id)) == "null"
    with pytest.raises(JobNotFound):
        world.do(runs.data_of_run, str(plain.id))


def test_a_moment_of_the_schedule_reads_no_request(world, monkeypatch):
    job = world.add(HOURLY)
    world.pass_time(HOUR)
    world.finish(world.claim_one(), FAILURE)
    world.pass_time(MINUTE)

    def fail(*args: object) -> None:
        raise AssertionError("a retry of a moment has no request")

    monkeypatch.setattr(type(world.storage.run_requests), "of_moment", fail)
    assert world.claim_one().attempt == 2
    assert world.do(claim_due, owner=world.owner, limit=5).runs == []
    assert world.exists(job)
