"""How many round trips to the server a batch takes: with 0.5 ms on the way, ten of them are 5 ms with locks held."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import cast

import psycopg
import pytest

from cronactors.actors.actor_requests import ClaimDue, Finished, FinishRun, FinishSettings, Recover, RenewLeases
from cronactors.actors.mailbox import R, Request
from cronactors.actors.notification_requests import Settle
from cronactors.actors.store import Done, run_batch
from cronactors.actors.user_requests import AddJobs, UpsertJobs
from cronactors.ledger.notifications import CallResult
from cronactors.ledger.upsert import JobList
from cronactors.notifications import NOTIFIER, ON_FINISH, NotificationStatus
from cronactors.policy import Outcome
from cronactors.settings import RetryPolicy
from cronactors.storage.rows import Claimed
from tests.ledger_world import DEFAULTS, FAILURE, MINUTE, SUCCESS, World, process
from tests.postgres_store import in_postgres

SIZES = pytest.mark.parametrize("size", [1, 10, 100])


class Counted:
    """A world whose batches are counted.

    Attributes:
        world: The world.
        sent: What the last batch has sent to the server, one item for each round trip.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.world = World(in_postgres)
        self.world.add()  # the first job of a store also stores the zone rules
        self.sent: list[bytes] = []
        execute = psycopg.RawCursor.execute

        def counted(cursor: psycopg.RawCursor, query: bytes, *args: object, **kwargs: object) -> object:  # type: ignore[type-arg]
            self.sent.append(query)
            return execute(cursor, query, *args, **kwargs)  # type: ignore[arg-type]

        monkeypatch.setattr(psycopg.RawCursor, "execute", counted)

    def carry_out(self, *requests: Request[R]) -> list[R]:
        """Carry out a batch as the store actor does."""
        self.sent.clear()
        result = run_batch(self.world.storage, cast("tuple[Request[object], ...]", requests))
        assert isinstance(result, Done)
        return cast("list[R]", result.replies)

    def due(self, count: int) -> list[Claimed]:
        """Add twice as many jobs, let all be due, and claim half of them."""
        self.carry_out(AddJobs(tuple(self.world.spec() for _ in range(2 * count)), DEFAULTS))
        self.world.pass_time(MINUTE)
        (claims,) = self.carry_out(ClaimDue(self.world.owner, count, None, 0))
        assert len(claims.runs) == count
        return claims.runs

    def finish(self, runs: list[Claimed], *receivers: str, outcome: Outcome = SUCCESS) -> list[Finished]:
        """Finish runs, and claim as many."""
        settings = FinishSettings(owner=self.world.owner, policy=RetryPolicy(), total=None, receivers=receivers)
        replies = self.carry_out(*(FinishRun(each.run.id, outcome, True, settings, each) for each in runs))
        assert all(reply.run is not None and reply.next_claimed is not None for reply in replies)
        return replies


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Iterator[Counted]:
    made = Counted(monkeypatch)
    with closing(made.world):
        yield made


@SIZES
def test_to_finish_runs_and_claim_as_many_takes_seven(counted: Counted, size: int) -> None:
    counted.finish(counted.due(size))
    assert len(counted.sent) <= 7, counted.sent


@SIZES
def test_a_notifier_takes_one_more(counted: Counted, size: int) -> None:
    counted.finish(counted.due(size), NOTIFIER)
    assert len(counted.sent) <= 8, counted.sent


@SIZES
def test_an_on_finish_also_reads_the_jobs(counted: Counted, size: int) -> None:
    counted.finish(counted.due(size), NOTIFIER, ON_FINISH)
    assert len(counted.sent) <= 9, counted.sent


@SIZES
def test_runs_that_fail_are_read_first_and_each_may_let_another_start(counted: Counted, size: int) -> None:
    counted.finish(counted.due(size), outcome=FAILURE)
    assert len(counted.sent) <= 12 + size, counted.sent


@SIZES
def test_a_claim_takes_five(counted: Counted, size: int) -> None:
    counted.due(size)
    counted.carry_out(ClaimDue(counted.world.owner, size, None, 0))
    assert len(counted.sent) <= 5, counted.sent


def test_a_claim_that_finds_nothing_takes_four(counted: Counted) -> None:
    (claims,) = counted.carry_out(ClaimDue(counted.world.owner, 1, None, 0))
    assert not claims.runs
    assert len(counted.sent) <= 4, counted.sent


@SIZES
def test_to_add_jobs_takes_seven(counted: Counted, size: int) -> None:
    counted.carry_out(AddJobs(tuple(counted.world.spec() for _ in range(size)), DEFAULTS))
    assert len(counted.sent) <= 7, counted.sent


def test_many_jobs_are_sent_a_thousand_at_a_time(counted: Counted) -> None:
    """Else the server, which ends a transaction that is idle for 2 s, could have to wait for ten thousand rows to be made."""
    counted.carry_out(AddJobs(tuple(counted.world.spec() for _ in range(2_001)), DEFAULTS))
    assert len(counted.sent) == 7 + 2


@SIZES
def test_a_list_is_added_changed_and_removed_many_at_a_time(counted: Counted, size: int) -> None:
    def upsert(count: int, **changes: object) -> None:
        specs = tuple(counted.world.spec(name=f"listed {n}", tags=["a"], **changes) for n in range(count))
        counted.carry_out(UpsertJobs((JobList(specs=specs, origin="list"),), DEFAULTS))

    upsert(size)
    assert len(counted.sent) <= 10, counted.sent
    upsert(size, description="another")
    assert len(counted.sent) <= 11, counted.sent
    upsert(0)
    assert len(counted.sent) <= 12, counted.sent


@SIZES
def test_to_recover_runs_takes_as_many_as_to_let_each_wait_for_its_retry(counted: Counted, size: int) -> None:
    counted.due(size)
    options = {"trust_leases": False, "own_owners": frozenset[int](), "requested_at": 0}
    ((runs, more),) = counted.carry_out(Recover(process("here", 2), RetryPolicy(), **options))  # type: ignore[arg-type]
    assert (len(runs), more) == (size, False)
    assert len(counted.sent) <= 19 + size, counted.sent


@SIZES
def test_to_settle_notifications_takes_five(counted: Counted, size: int) -> None:
    replies = counted.finish(counted.due(size), NOTIFIER)
    results = [
        CallResult(each.row, NotificationStatus.DELIVERED, attempts=1) for reply in replies for each in reply.notifications
    ]
    assert len(results) == size
    counted.carry_out(Settle(tuple(results), counted.world.owner))
    assert len(counted.sent) <= 5, counted.sent


def test_a_heartbeat_takes_six(counted: Counted) -> None:
    counted.carry_out(RenewLeases((counted.world.owner,)))
    assert len(counted.sent) <= 6, counted.sent
