"""A claim of runs that use sessions takes few round trips: meanwhile the finishes that need the sessions wait."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import pytest

from cronactors.ledger.claim import MOST_STEPS
from cronactors.model import Misfire, RunStatus
from tests.ledger_world import MINUTE, T0, World, at
from tests.postgres.test_round_trips import Counted
from tests.postgres.two_connections import claim, connections, finish

USERS = pytest.mark.parametrize("users", [1, 20])


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Iterator[Counted]:
    made = Counted(monkeypatch)
    with closing(made.world):
        yield made


def add_in_sessions(world: World, users: int) -> None:
    """Add three jobs for each user, in turn, that are due at one moment, and let it come."""
    for number in range(3 * users):
        world.add(at(T0 + 30_000), session_mode="main", user_id=f"user {number % users}")
    world.pass_time(30_000)


def claim_of(counted: Counted) -> set[str]:
    """Claim all, and return the users whose runs have started."""
    (claims,) = counted.carry_out(claim(counted.world.owner, limit=100))
    users = [claimed.run.user_id for claimed in claims.runs]
    assert len(users) == len(set(users))
    return set(users)


@USERS
def test_moments_in_sessions_are_claimed_together(counted: Counted, users: int) -> None:
    add_in_sessions(counted.world, users)
    assert len(claim_of(counted)) == users
    assert len(counted.sent) <= 16, counted.sent
    assert claim_of(counted) == set(), "the others have left the queue"


@USERS
def test_runs_that_were_released_are_claimed_together(counted: Counted, users: int) -> None:
    add_in_sessions(counted.world, users)
    for _ in range(2):
        claim_of(counted)
        for run in counted.world.do(lambda storage: storage.running()):
            counted.world.finish(run)
    assert len(claim_of(counted)) == users
    assert len(counted.sent) <= 16, counted.sent


def test_a_claim_leaves_to_the_next_one_what_takes_too_many_round_trips(counted: Counted) -> None:
    """Each of the jobs has two moments, the later of which waits."""
    for _ in range(2 * MOST_STEPS):
        counted.world.add(overlap="buffer_all", misfire=Misfire(coalesce="all"))
    counted.world.pass_time(2 * MINUTE)
    claimed = []
    while not claimed or claimed[-1]:
        (claims,) = counted.carry_out(claim(counted.world.owner, limit=100))
        claimed.append(len(claims.runs))
        assert claims.blocked_by is None
        assert len(counted.sent) < 12 * MOST_STEPS
    assert sum(claimed) == 2 * MOST_STEPS + 1, "with the first job of the store"
    assert max(claimed) < MOST_STEPS + 1


def test_a_session_that_another_transaction_holds_keeps_only_its_own_runs_waiting(counted: Counted) -> None:
    world = counted.world
    add_in_sessions(world, 5)
    (using,) = [claimed.run for claimed in world.claim(limit=1)]
    with connections(world) as (one, other):
        first = one.hold_open(finish(world, using))
        (reply,) = other.carry_out(claim(world.owner, limit=100))
        first.replies()
    assert {claimed.run.user_id for claimed in reply.runs} == {f"user {number}" for number in range(5)} - {using.user_id}
    world.claim()
    assert [run.user_id for run in world.history() if run.status == RunStatus.RUNNING].count(using.user_id) == 1
