"""Races between two machines: what each decides must be true when both have committed.

Each race is played with the locks of the design, where it ends well, and with fewer locks, where it does not: a race that always ends
well would show nothing. The first nine have the numbers of the design (POSTGRES.md, section 4).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import psycopg
import pytest

from cronactors.actors.actor_requests import Finished, Recover, RenewLeases
from cronactors.actors.mailbox import Request
from cronactors.actors.notification_requests import Settle
from cronactors.actors.user_requests import AddJobs, PauseJob, RemoveJob, RequestCancel, RequestRun
from cronactors.errors import DuplicateJob, JobBusy
from cronactors.ledger import leases, zone_changes
from cronactors.ledger.claim import BlockedBy, Claims
from cronactors.ledger.leases import LEASE
from cronactors.ledger.notifications import CallResult, Deliverable
from cronactors.ledger.zone_changes import RulesOfStore
from cronactors.model import RunStatus
from cronactors.notifications import NotificationStatus
from cronactors.schedules import zone_rules
from cronactors.settings import RetryPolicy
from cronactors.storage.rows import CRASH_LOOP, RunRow, session_key
from tests.ledger_world import DAY, DEFAULTS, FAILURE, HOUR, HOURLY, MINUTE, MINUTELY, T0, World, at, process
from tests.postgres.two_connections import Batch, Locks, Stop, claim, connections, finish, refused
from tests.postgres_store import in_postgres

USER = "ada"
SESSION = session_key(USER)
FEWER = [Locks.ROWS, Locks.NONE]


@pytest.fixture
def world() -> Iterator[World]:
    with closing(World(in_postgres)) as made:
        yield made


def elsewhere(world: World) -> int:
    """Register the scheduler of another machine."""
    return world.register(process("there"))


def in_session(world: World, moment: int = T0 + MINUTE, **options: object) -> str:
    """Add a job that is due once, and whose runs use the session of one user."""
    return world.add(at(moment), session_mode="main", user_id=USER, **options)


def of_job(world: World, job_id: str) -> RunRow:
    (run,) = world.history(job_id)
    return run


def started(reply: object) -> list[str]:
    """Return the jobs whose runs a claim has started."""
    assert isinstance(reply, Claims)
    return [claimed.run.job_id for claimed in reply.runs]


def running(world: World) -> list[RunRow]:
    return [run for run in world.history() if run.status == RunStatus.RUNNING]


# 1: a claim lets a run wait for its session, while the run that uses the session ends


def claim_beside_finish(world: World, locks: Locks, *, claim_first: bool) -> str:
    there = elsewhere(world)
    in_session(world)
    world.pass_time(MINUTE)
    using = world.claim_one()
    waiting = in_session(world, world.now + MINUTE)
    world.pass_time(MINUTE)
    carry_out_both(world, locks, claim(there), finish(world, using), claim_first=claim_first)
    world.claim()
    return waiting


def carry_out_both(world: World, locks: Locks, claims: Request[object], finishes: Request[object], *, claim_first: bool) -> None:
    """Carry out one of them while the other is not committed: a finish waits for a claim, and a claim for nobody."""
    with connections(world, locks) as (one, other):
        if claim_first:
            first, second = one.hold_open(claims), other.start(finishes)
            assert second.waits is (locks is Locks.ALL)
        else:
            first, second = one.hold_open(finishes), other.start(claims)
            assert not second.waits
        first.replies()
        second.replies()


@pytest.mark.parametrize("claim_first", [True, False])
def test_a_run_does_not_wait_for_a_session_that_is_free(world: World, claim_first: bool) -> None:
    waiting = claim_beside_finish(world, Locks.ALL, claim_first=claim_first)
    assert of_job(world, waiting).status == RunStatus.RUNNING


@pytest.mark.parametrize("claim_first", [True, False])
@pytest.mark.parametrize("locks", FEWER)
def test_with_fewer_locks_a_run_waits_for_its_session_for_ever(world: World, claim_first: bool, locks: Locks) -> None:
    waiting = claim_beside_finish(world, locks, claim_first=claim_first)
    assert (of_job(world, waiting).status, of_job(world, waiting).waits_for) == (RunStatus.PENDING, SESSION)
    assert running(world) == []


# 2: two claims find runs of one session


def two_claims_of_a_session(world: World, locks: Locks) -> list[list[str]]:
    """Request two runs of one session, and return which jobs two claims of one slot each start."""
    there = elsewhere(world)
    for _ in range(2):
        world.request(in_session(world, T0 + HOUR))
    with connections(world, locks) as (one, other):
        first = one.hold_open(claim(world.owner, limit=1))
        second = other.start(claim(there, limit=1))
        assert second.waits is (locks is not Locks.ALL)
        return [started(first.reply()), started(second.reply())]


def test_two_claims_do_not_start_runs_of_one_session(world: World) -> None:
    of_first, of_second = two_claims_of_a_session(world, Locks.ALL)
    assert (len(of_first), of_second) == (1, [])
    world.claim()
    assert sorted((run.status, run.waits_for) for run in world.history()) == [("pending", SESSION), ("running", None)]
    world.finish(running(world)[0])
    assert len(world.claim()) == 1


def test_without_locks_two_claims_start_the_same_run(world: World) -> None:
    of_first, of_second = two_claims_of_a_session(world, Locks.NONE)
    assert of_first == of_second != []


def test_with_locks_of_rows_alone_a_claim_violates_the_index_of_sessions(world: World) -> None:
    with pytest.raises(psycopg.errors.UniqueViolation):
        two_claims_of_a_session(world, Locks.ROWS)


# 3: two claims fill the same total


def two_claims_of_a_total(world: World, locks: Locks, *, finishes: bool = False) -> int:
    """Let two schedulers claim two runs each with a total of 2; return how many are running."""
    for moment in range(4):
        world.add(at(T0 + MINUTE + moment))
    world.pass_time(2 * MINUTE)
    taken = world.claim(limit=1)[0].run if finishes else None
    there = elsewhere(world)
    with connections(world, locks) as (one, other):
        ending = finish(world, taken, claim_next=True, total=2) if taken else claim(world.owner, limit=2, total=2)
        first, second = one.hold_open(ending), other.start(claim(there, limit=2, total=2))
        first.replies()
        second.replies()
    return len(running(world))


@pytest.mark.parametrize("finishes", [False, True])
def test_two_claims_keep_to_the_total(world: World, finishes: bool) -> None:
    assert two_claims_of_a_total(world, Locks.ALL, finishes=finishes) == (1 if finishes else 2)
    world.claim(total=2)
    assert len(running(world)) == 2


@pytest.mark.parametrize("locks", FEWER)
def test_with_fewer_locks_two_claims_exceed_the_total(world: World, locks: Locks) -> None:
    assert two_claims_of_a_total(world, locks) == 4


def test_a_claim_says_that_it_could_not_see_the_total(world: World) -> None:
    """The clock tries again after a pause; else nobody would claim what the other one has left."""
    world.add(at(T0 + MINUTE))
    world.pass_time(2 * MINUTE)
    there = elsewhere(world)
    with connections(world) as (one, other):
        first = one.hold_open(claim(world.owner, total=2))
        (reply,) = other.carry_out(claim(there, total=2))
        first.replies()
    assert reply == Claims([], blocked_by=BlockedBy.NO_PROGRESS)


# 4: one name is added by two


def one_name_by_two(world: World, locks: Locks) -> Batch:
    add = [AddJobs((world.spec(name="daily"),), DEFAULTS) for _ in range(2)]
    with connections(world, locks) as (one, other):
        first, second = one.hold_open(add[0]), other.start(add[1])
        assert second.waits, "for the index of names"
        assert first.reply() == [add[0].specs[0][0]]
        assert second.was_locked, "the batch is carried out again"
        return other.start(add[1])


def test_of_two_who_add_one_name_the_second_is_refused(world: World) -> None:
    assert refused(one_name_by_two(world, Locks.ALL).reply()) is DuplicateJob


@pytest.mark.parametrize("locks", FEWER)
def test_a_name_that_is_taken_meanwhile_would_be_a_bug_elsewhere(world: World, locks: Locks) -> None:
    with pytest.raises(psycopg.errors.UniqueViolation):
        one_name_by_two(world, locks)


# 5: a job is paused while it is claimed


def pause_beside_claim(world: World, locks: Locks) -> str:
    job_id = world.add()
    world.pass_time(MINUTE)
    with connections(world, locks) as (one, other):
        first, second = one.hold_open(claim(world.owner)), other.start(PauseJob(job_id))
        assert second.waits
        first.replies()
        second.replies()
    return job_id


@pytest.mark.parametrize("locks", [Locks.ALL, Locks.ROWS])
def test_a_pause_waits_for_the_claim_of_its_job(world: World, locks: Locks) -> None:
    job_id = pause_beside_claim(world, locks)
    assert (world.job(job_id).enabled, world.job(job_id).held_by) == (0, running(world)[0].id)


def test_without_locks_a_paused_job_forgets_its_run(world: World) -> None:
    job_id = pause_beside_claim(world, Locks.NONE)
    assert (world.job(job_id).held_by, len(running(world))) == (None, 1)


# 6: two recover the same runs


def two_recoveries(world: World, locks: Locks) -> int:
    """Let two schedulers recover a run, and return how many crashes its job has."""
    job_id = world.add()
    world.pass_time(MINUTE)
    world.claim_one()
    world.pass_time(LEASE)
    recover = Recover(process("there"), world.policy, trust_leases=True, own_owners=frozenset(), requested_at=world.now)
    with connections(world, locks) as (one, other):
        first, second = one.hold_open(recover), other.start(recover)
        assert second.waits
        first.replies()
        second.replies()
    return world.job(job_id).crashes


@pytest.mark.parametrize("locks", [Locks.ALL, Locks.NONE])
def test_two_recoveries_count_a_crash_once(world: World, locks: Locks) -> None:
    """Without any locks by luck: both write a 1."""
    assert two_recoveries(world, locks) == 1


def test_with_locks_of_rows_alone_two_recoveries_count_a_crash_twice(world: World) -> None:
    assert two_recoveries(world, Locks.ROWS) == 2


# 7: an owner gives a heartbeat while it is declared dead


def heartbeat_beside_recovery(world: World, locks: Locks, *, heartbeat_first: bool) -> bool:
    """Return whether the owner was declared dead."""
    world.add()
    world.pass_time(MINUTE)
    world.claim_one()
    world.pass_time(LEASE)
    recover = Recover(process("there"), world.policy, trust_leases=True, own_owners=frozenset(), requested_at=world.now)
    heartbeat = RenewLeases((world.owner,))
    with connections(world, locks) as (one, other):
        first = one.hold_open(heartbeat if heartbeat_first else recover)
        second = other.start(recover if heartbeat_first else heartbeat)
        assert second.waits
        first.replies()
        second.replies()
    return world.do(leases.was_declared_dead, world.owner)


def test_who_gives_a_heartbeat_too_late_stays_dead(world: World) -> None:
    assert heartbeat_beside_recovery(world, Locks.ALL, heartbeat_first=False)
    assert running(world) == []


def test_who_gives_a_heartbeat_in_time_keeps_its_runs(world: World) -> None:
    assert not heartbeat_beside_recovery(world, Locks.ALL, heartbeat_first=True)
    assert len(running(world)) == 1


@pytest.mark.parametrize("locks", FEWER)
def test_with_fewer_locks_an_owner_lives_on_whose_runs_were_taken_over(world: World, locks: Locks) -> None:
    assert not heartbeat_beside_recovery(world, locks, heartbeat_first=False)
    assert running(world) == []


# 8: a pending run is cancelled while it is claimed


def cancel_beside_claim(world: World, locks: Locks) -> RunRow:
    run = world.request(world.add())
    with connections(world, locks) as (one, other):
        first, second = one.hold_open(claim(world.owner)), other.start(RequestCancel(str(run.id), world.policy))
        assert second.waits
        first.replies()
        second.replies()
    return world.run(run)


def test_a_cancellation_finds_the_run_that_was_claimed_meanwhile(world: World) -> None:
    run = cancel_beside_claim(world, Locks.ALL)
    assert (run.status, run.cancel_requested) == (RunStatus.RUNNING, 1)


@pytest.mark.parametrize("locks", FEWER)
def test_with_fewer_locks_a_cancellation_ends_the_store(world: World, locks: Locks) -> None:
    with pytest.raises(AssertionError) as caught:
        cancel_beside_claim(world, locks)
    assert caught.traceback[-1].name == "request_cancel"


# 9: a run is requested by two, and overlaps are skipped


def two_requests(world: World, locks: Locks, *, key: str | None = None, overlap: str = "skip") -> list[object]:
    job_id = world.add(overlap=overlap)
    request = RequestRun(job_id, key, None)
    with connections(world, locks) as (one, other):
        first, second = one.hold_open(request), other.start(request)
        assert second.waits
        return [first.reply(), second.reply()]


@pytest.mark.parametrize("locks", [Locks.ALL, Locks.ROWS])
def test_of_two_requests_one_is_refused(world: World, locks: Locks) -> None:
    _, second = two_requests(world, locks)
    assert refused(second) is JobBusy


def test_without_locks_two_requests_overlap(world: World) -> None:
    two_requests(world, Locks.NONE)
    assert len(world.history()) == 2


# Requests with one key


def test_of_two_requests_with_one_key_the_second_returns_the_run_of_the_first(world: World) -> None:
    first, second = two_requests(world, Locks.ALL, key="order 7", overlap="buffer_all")
    assert first == second
    assert len(world.history()) == 1


@pytest.mark.parametrize("locks", FEWER)
def test_with_fewer_locks_two_requests_with_one_key_run_twice(world: World, locks: Locks) -> None:
    first, second = two_requests(world, locks, key="order 7", overlap="buffer_all")
    assert refused(first) is refused(second) is None
    assert len(world.history()) == 2


# A job is removed while it is claimed


def removal_beside_claim(world: World, locks: Locks, *, claim_first: bool) -> str:
    job_id = world.add(at(T0 + MINUTE))
    world.pass_time(MINUTE)
    with connections(world, locks) as (one, other):
        if claim_first:
            first, second = one.hold_open(claim(world.owner)), other.start(RemoveJob(job_id))
        else:
            first, second = one.hold_open(RemoveJob(job_id)), other.start(claim(world.owner))
        assert second.waits
        first.replies()
        second.replies()
    assert not world.exists(job_id)
    return job_id


def test_a_removal_waits_for_the_claim_of_its_job(world: World) -> None:
    job_id = removal_beside_claim(world, Locks.ALL, claim_first=True)
    assert of_job(world, job_id).status == RunStatus.RUNNING


def test_a_claim_waits_for_a_removal(world: World) -> None:
    job_id = removal_beside_claim(world, Locks.ALL, claim_first=False)
    assert of_job(world, job_id).status == RunStatus.SKIPPED


def test_without_locks_a_claim_stumbles_over_a_removal(world: World) -> None:
    with pytest.raises(KeyError):
        removal_beside_claim(world, Locks.NONE, claim_first=False)


# A crash loop: runs of such jobs start one at a time


def in_crash_loop(world: World) -> str:
    job_id = world.add(at(world.now + MINUTE))
    world.damage(job_id, crashes=2)
    world.pass_time(MINUTE)
    return job_id


def two_crash_loops(world: World, locks: Locks) -> list[list[str]]:
    there = elsewhere(world)
    for _ in range(2):
        in_crash_loop(world)
    with connections(world, locks) as (one, other):
        first = one.hold_open(claim(world.owner, limit=1))
        second = other.start(claim(there, limit=1))
        assert not second.waits
        return [started(first.reply()), started(second.reply())]


def test_two_claims_do_not_start_two_crash_loops(world: World) -> None:
    of_first, of_second = two_crash_loops(world, Locks.ALL)
    assert (len(of_first), of_second) == (1, [])


def test_with_locks_of_rows_alone_two_claims_start_two_crash_loops(world: World) -> None:
    two_crash_loops(world, Locks.ROWS)
    assert len(running(world)) == 2


def end_of_crash_loop_beside_claim(world: World, locks: Locks, *, claim_first: bool) -> RunRow:
    there = elsewhere(world)
    in_crash_loop(world)
    using = world.claim_one()
    waiting = in_crash_loop(world)
    carry_out_both(world, locks, claim(there), finish(world, using), claim_first=claim_first)
    world.claim()
    return of_job(world, waiting)


@pytest.mark.parametrize("claim_first", [True, False])
def test_a_run_does_not_wait_for_a_crash_loop_that_has_ended(world: World, claim_first: bool) -> None:
    assert end_of_crash_loop_beside_claim(world, Locks.ALL, claim_first=claim_first).status == RunStatus.RUNNING


@pytest.mark.parametrize("claim_first", [True, False])
@pytest.mark.parametrize("locks", FEWER)
def test_with_fewer_locks_a_run_waits_for_a_crash_loop_for_ever(world: World, claim_first: bool, locks: Locks) -> None:
    run = end_of_crash_loop_beside_claim(world, locks, claim_first=claim_first)
    assert (run.status, run.waits_for, running(world)) == (RunStatus.PENDING, CRASH_LOOP, [])


# A run that waits for its session is cancelled while it is released


def cancellation_beside_release(world: World, locks: Locks, *, release_first: bool, is_listed: bool = False) -> RunRow:
    """Return the run that waits last for a session, whose next run is cancelled with its job while that session becomes free.

    The job has been edited: it uses no session any more, but its run does. So only the run says which session matters. A job that is
    listed in a file is not removed after its run, but disabled.
    """
    there = elsewhere(world)
    in_session(world)
    world.pass_time(MINUTE)
    using = world.claim_one()
    job_id = world.add(HOURLY, session_mode="main", user_id=USER, overlap="allow_all", delete_after_run=True)
    if is_listed:
        world.damage(job_id, origin="agent.toml")
    world.pass_time(HOUR)
    assert world.claim() == []
    world.pass_time(MINUTE)
    last = world.request(in_session(world, world.now + DAY))
    assert world.claim() == []
    world.update(job_id, {"session_mode": "isolated"})
    world.pass_time(HOUR)
    ended = next(claimed.run for claimed in world.claim(owner=there) if claimed.run.job_id == job_id)
    with connections(world, locks) as (one, other):
        release, cancellation = finish(world, using), finish(world, ended)
        first = one.hold_open(release if release_first else cancellation)
        second = other.start(cancellation if release_first else release)
        assert second.waits
        first.replies()
        second.replies()
    return world.run(last)


@pytest.mark.parametrize("release_first", [True, False])
@pytest.mark.parametrize("is_listed", [True, False])
def test_a_release_is_not_lost_with_a_run_that_is_cancelled(world: World, release_first: bool, is_listed: bool) -> None:
    run = cancellation_beside_release(world, Locks.ALL, release_first=release_first, is_listed=is_listed)
    assert (run.status, run.waits_for) == (RunStatus.PENDING, None)


@pytest.mark.parametrize("locks", FEWER)
def test_with_fewer_locks_a_release_is_lost_with_a_run_that_is_cancelled(world: World, locks: Locks) -> None:
    run = cancellation_beside_release(world, locks, release_first=True)
    assert (run.status, run.waits_for) == (RunStatus.PENDING, SESSION)


def test_a_release_passes_over_a_run_that_was_cancelled_meanwhile(world: World) -> None:
    """Also without the key: `release_first` looks again when there was nothing to release."""
    run = cancellation_beside_release(world, Locks.ROWS, release_first=False)
    assert (run.status, run.waits_for) == (RunStatus.PENDING, None)


@pytest.mark.parametrize("claim_first", [True, False])
def test_a_retry_that_a_new_moment_replaces_keeps_nobody_waiting(world: World, claim_first: bool) -> None:
    """The retry was the next one of its session, which becomes free meanwhile."""
    there = elsewhere(world)
    world.policy = RetryPolicy(delays=(600,))
    job_id = world.add(MINUTELY, session_mode="main", user_id=USER)
    world.pass_time(MINUTE)
    world.finish(world.claim_one(), FAILURE)
    in_session(world, world.now + 1)
    world.pass_time(1)
    using = world.claim_one()
    requested = world.request(in_session(world, T0 + DAY))
    world.pass_time(MINUTE)
    with connections(world) as (one, other):
        ending = finish(world, using)
        first = one.hold_open(claim(there) if claim_first else ending)
        second = other.start(ending if claim_first else claim(there))
        assert second.waits is claim_first
        first.replies()
        second.replies()
    for _ in range(2):
        world.claim()
        (run,) = running(world)
        world.finish(run, owner=run.owner)
    assert [run.status for run in world.history(job_id)] == ["failed", "cancelled", "success"]
    assert world.run(requested).status == RunStatus.SUCCESS


@pytest.mark.parametrize("is_unreadable", [False, True])
def test_a_claim_does_not_wait_for_the_session_of_a_retry_that_it_cancels(world: World, is_unreadable: bool) -> None:
    """The job was edited: it uses no session any more, but its retry does."""
    there = elsewhere(world)
    world.policy = RetryPolicy(delays=(600,))
    job_id = world.add(MINUTELY, session_mode="main", user_id=USER)
    world.pass_time(MINUTE)
    world.finish(world.claim_one(), FAILURE)
    in_session(world, world.now + 1)
    world.pass_time(1)
    using = world.claim_one()
    world.update(job_id, {"session_mode": "isolated"})
    if is_unreadable:
        world.damage(job_id, schedule="nonsense")
    world.pass_time(MINUTE)
    with connections(world) as (one, other):
        first, second = one.hold_open(finish(world, using)), other.start(claim(there))
        assert not second.waits
        assert second.reply() == Claims([], blocked_by=BlockedBy.NO_PROGRESS)
        first.replies()
    world.claim()
    assert world.job(job_id).enabled == (not is_unreadable)
    assert [run.status for run in world.history(job_id)][1:] == (["pending"] if is_unreadable else ["cancelled", "running"])


def test_a_claim_does_not_wait_for_the_session_of_a_removed_job(world: World) -> None:
    there = elsewhere(world)
    in_session(world)
    world.pass_time(MINUTE)
    using = world.claim_one()
    left = world.request(in_session(world, T0 + DAY))
    world.do(lambda storage: storage.delete_jobs([left.job_id]))
    with connections(world) as (one, other):
        first, second = one.hold_open(finish(world, using)), other.start(claim(there))
        assert not second.waits
        assert second.reply() == Claims([], blocked_by=BlockedBy.NO_PROGRESS)
        first.replies()
    world.claim()
    assert world.run(left).status == RunStatus.CANCELLED


# A notification is added while the one before it in its line is settled


def next_of_a_line(world: World, locks: Locks, *, settle_first: bool, removed: bool) -> tuple[list[int], list[Deliverable]]:
    """Settle the first notification of a job while a run of the job finishes, which adds the second one.

    Returns:
        The notifications that are ready in the end, and those that the settlement has released.
    """
    there = elsewhere(world)
    job_id = world.add(overlap="allow_all")
    runs = []
    for owner in (world.owner, there):
        world.pass_time(MINUTE)
        runs += [claimed.run for claimed in world.claim(owner=owner)]
    receivers = ["on_finish"]
    with connections(world, locks) as (one, other):
        (finished,) = one.carry_out(finish(world, runs[0], receivers=receivers))
        assert isinstance(finished, Finished)
        (delivered,) = finished.notifications
        if removed:
            world.remove(job_id)
        settlement = Settle((CallResult(delivered.row, NotificationStatus.DELIVERED, 0),), world.owner)
        # It has failed, so that its finish is none of the plain ones, which lock a job that is removed at once.
        ending = finish(world, runs[1], FAILURE, receivers=receivers)
        first = one.hold_open(settlement if settle_first else ending)
        second = other.start(ending if settle_first else settlement)
        assert second.waits is (locks is not Locks.NONE)
        replies = [first.reply(), second.reply()]
    released = replies[0 if settle_first else 1]
    assert isinstance(released, list)
    rows = world.do(lambda storage: storage.notifications.page(before=None, status="pending", receiver=None, limit=9))[0]
    assert len(rows) == 1
    return [row.id for row in rows if row.ready_at is not None], released


@pytest.mark.parametrize("removed", [False, True])
@pytest.mark.parametrize("settle_first", [True, False])
def test_a_line_of_notifications_goes_on(world: World, settle_first: bool, removed: bool) -> None:
    ready, released = next_of_a_line(world, Locks.ALL, settle_first=settle_first, removed=removed)
    assert len(ready) == 1
    assert [each.row.id for each in released] == ([] if settle_first else ready)


@pytest.mark.parametrize("removed", [False, True])
@pytest.mark.parametrize("settle_first", [True, False])
def test_without_locks_a_notification_waits_for_ever(world: World, settle_first: bool, removed: bool) -> None:
    ready, released = next_of_a_line(world, Locks.NONE, settle_first=settle_first, removed=removed)
    assert (ready, released) == ([], [])


# Two batches lock two jobs in different orders


def crossing(world: World, *, lock_timeout: str, deadlock_timeout: str) -> None:
    """Let two batches, of which each finishes a run and requests one of the other job, wait for each other."""
    jobs = [world.add(overlap="buffer_all") for _ in range(2)]
    world.pass_time(MINUTE)
    runs = {claimed.run.job_id: claimed.run for claimed in world.claim()}
    with connections(world) as (one, other):
        for connection in (one, other):
            connection.storage.set(deadlock_timeout=deadlock_timeout)
        other.storage.set(lock_timeout=lock_timeout)
        first = one.begin(finish(world, runs[jobs[0]]), Stop(), RequestRun(jobs[1], None, None))
        second = other.begin(finish(world, runs[jobs[1]]), Stop(), RequestRun(jobs[0], None, None))
        first.go_on()
        one.until_it_waits(first)
        assert first.waits
        second.go_on()
        again = [(connection, batch) for connection, batch in ((one, first), (other, second)) if batch.was_locked]
        assert len(again) == 1, "one of them has made room"
        for connection, batch in again:
            connection.carry_out(*batch.requests)
    finished = [run.job_id for run in world.history() if run.status == RunStatus.SUCCESS]
    requested = [run.job_id for run in world.history() if run.manual]
    assert sorted(finished) == sorted(requested) == sorted(jobs)


def test_of_two_batches_that_wait_for_each_other_the_server_ends_one(world: World) -> None:
    crossing(world, lock_timeout="2min", deadlock_timeout="10ms")


def test_of_two_batches_that_wait_for_each_other_one_gives_up(world: World) -> None:
    crossing(world, lock_timeout="200ms", deadlock_timeout="1min")


# A finish beside another decision about the same job


def test_a_finish_sees_the_run_that_was_requested_meanwhile(world: World) -> None:
    """A plain finish would leave the job without a run that holds it; the requested run would start beside its next moment."""
    job_id = world.add(overlap="buffer_all")
    world.pass_time(MINUTE)
    run = world.claim_one()
    with connections(world) as (one, other):
        first, second = one.hold_open(RequestRun(job_id, None, None)), other.start(finish(world, run))
        assert second.waits
        first.replies()
        second.replies()
    assert [run.status for run in world.history()] == ["success", "pending"]
    assert [claimed.run.manual for claimed in world.claim()] == [1]


def finishes_of_one_job(world: World, locks: Locks) -> int:
    """Let two runs of a job fail beside each other, and return how many failures in a row it has."""
    there = elsewhere(world)
    job_id = world.add(overlap="allow_all")
    runs = []
    for owner in (world.owner, there):
        world.pass_time(MINUTE)
        runs += [claimed.run for claimed in world.claim(owner=owner)]
    with connections(world, locks) as (one, other):
        first, second = one.hold_open(finish(world, runs[0], FAILURE)), other.start(finish(world, runs[1], FAILURE))
        assert second.waits
        first.replies()
        second.replies()
    return world.job(job_id).consecutive_failures


def test_two_finishes_count_two_failures(world: World) -> None:
    assert finishes_of_one_job(world, Locks.ALL) == 2


def test_without_locks_a_failure_is_not_counted(world: World) -> None:
    assert finishes_of_one_job(world, Locks.NONE) == 1


# Two machines with different releases of the zone rules add the first jobs of a store


def first_jobs(world: World, locks: Locks) -> RulesOfStore:
    """Let a newer release add a job beside an older one; return what the store says about its jobs."""
    with connections(world, locks) as (one, other), pytest.MonkeyPatch.context() as patch:
        _set_rules(patch, "2025b/1")
        first = one.hold_open(AddJobs((world.spec(name="by the older"),), DEFAULTS))
        _set_rules(patch, "2026f/1")
        second = other.start(AddJobs((world.spec(name="by the newer"),), DEFAULTS))
        assert second.waits
        first.replies()
        second.replies()
        return world.do(zone_changes.note_rules)


def _set_rules(patch: pytest.MonkeyPatch, release: str) -> None:
    patch.setattr(zone_changes, "RULES", release)
    patch.setattr(zone_changes, "is_older", lambda rules, than=release: zone_rules.is_older(rules, than))


def test_jobs_of_older_rules_are_recomputed_if_they_are_the_first(world: World) -> None:
    assert first_jobs(world, Locks.ALL) == RulesOfStore("2026f/1", T0, done=False, before="2025b/1")


def test_with_locks_of_rows_alone_the_first_jobs_keep_older_rules(world: World) -> None:
    assert first_jobs(world, Locks.ROWS).done


# What two machines do beside each other without a wait


def test_two_claims_share_what_is_due(world: World) -> None:
    there = elsewhere(world)
    jobs = [world.add(at(T0 + MINUTE)) for _ in range(4)]
    world.pass_time(2 * MINUTE)
    with connections(world) as (one, other):
        first = one.hold_open(claim(world.owner, limit=2))
        (second,) = other.carry_out(claim(there, limit=3))
        assert started(first.reply()) + started(second) == jobs


def test_finishes_of_different_jobs_do_not_wait_for_each_other(world: World) -> None:
    there = elsewhere(world)
    for _ in range(2):
        world.add()
    world.pass_time(MINUTE)
    runs = [claimed.run for owner in (world.owner, there) for claimed in world.claim(limit=1, owner=owner)]
    with connections(world) as (one, other):
        first = one.hold_open(finish(world, runs[0]))
        other.carry_out(finish(world, runs[1]))
        first.replies()
    assert running(world) == []


def test_finishes_in_one_session_follow_each_other(world: World) -> None:
    """One ends while the other one is about to start what it would release."""
    there = elsewhere(world)
    in_session(world)
    world.pass_time(MINUTE)
    using = world.claim_one()
    isolated = world.add()
    waiting = in_session(world, world.now + MINUTE)
    world.pass_time(MINUTE)
    (ended,) = [claimed.run for claimed in world.claim(owner=there) if claimed.run.job_id == isolated]
    with connections(world) as (one, other):
        first = one.hold_open(finish(world, using))
        second = other.start(finish(world, ended, claim_next=True))
        assert not second.waits
        first.replies()
        second.replies()
    world.claim()
    assert of_job(world, waiting).status == RunStatus.RUNNING
