"""Owners: leases and heartbeats, which owners count as dead, and stop marks."""

from __future__ import annotations

import pytest

from cronactors.ledger import leases, owners
from cronactors.ledger.leases import HEARTBEAT_EVERY, HEARTBEAT_WITH_CLAIM, LEASE, renew_leases
from cronactors.ledger.owners import last_seen, sign_off
from cronactors.owner import ProcessIdentity
from cronactors.storage.rows import DECLARED_DEAD
from tests.ledger_world import (
    DAY,
    HOUR,
    MINUTE,
    T0,
    World,
    at,
    process,
)


def test_without_a_heartbeat_the_lease_ends(world):
    other = world.register(process("there"))
    world.add()
    world.pass_time(MINUTE)
    (claimed,) = world.claim(owner=other)
    world.pass_time(LEASE - 1)
    assert world.recover() == []
    world.pass_time(1)
    assert world.orphans(trust_leases=False) == []
    assert [run.id for run in world.orphans(trust_leases=True)] == [claimed.run.id]
    world.do(renew_leases, [other])
    assert world.recover() == []
    world.pass_time(LEASE)
    assert [run.id for run in world.recover()] == [claimed.run.id]


def test_a_heartbeat_renews_the_lease_from_now_however_long_it_still_lasts(world):
    for beat in range(4):
        world.pass_time(HEARTBEAT_EVERY)
        world.do(renew_leases, [world.owner])
        assert lease_of(world, world.owner) == (T0 + (beat + 1) * HEARTBEAT_EVERY, T0 + (beat + 1) * HEARTBEAT_EVERY + LEASE)


@pytest.mark.parametrize(
    "claimed_after", [0, HEARTBEAT_WITH_CLAIM - 1, HEARTBEAT_WITH_CLAIM + 1, 2 * HEARTBEAT_WITH_CLAIM, LEASE // 2 + 1]
)
@pytest.mark.parametrize("own_loop", [False, True])
def test_a_process_that_is_stopped_for_19_s_keeps_its_runs_wherever_it_is_stopped(world, claimed_after, own_loop):
    """The process is stopped just before its next heartbeat, at most `HEARTBEAT_EVERY` after the claim."""
    other, here = world.register(process("there")), world.owner
    job_id = world.add(at(T0 + MINUTE))
    world.pass_time(MINUTE)
    world.do(renew_leases, [other])
    world.pass_time(claimed_after)
    world.owner = other
    run = world.start(job_id) if own_loop else world.claim_one()
    world.owner = here
    world.pass_time(HEARTBEAT_EVERY - 1 + 19_000)
    assert world.recover() == []
    world.pass_time(LEASE)
    assert [finished.id for finished in world.recover()] == [run.id]


def lease_of(world: World, owner: int) -> tuple[int, int]:
    (row,) = [row for row in world.do(lambda storage: storage.owners()) if row.id == owner]
    return row.heartbeat_at, row.lease_until


def test_no_owner_of_this_process_counts_as_dead(world):
    world.add()
    world.pass_time(MINUTE)
    run = world.claim_one()
    world.pass_time(DAY)
    assert world.recover(mine=[world.owner]) == []
    assert [orphan.id for orphan in world.orphans(trust_leases=True)] == [run.id]


@pytest.mark.parametrize("trust_leases", [False, True])
def test_runs_that_a_closed_handle_leaves_open_have_no_living_owner(world, trust_leases):
    world.add()
    world.pass_time(MINUTE)
    run = world.claim_one()
    assert world.recover(trust_leases=trust_leases) == []
    world.do(sign_off, world.owner)
    assert [finished.id for finished in world.recover(trust_leases=trust_leases)] == [run.id]


def test_owners_that_closed_or_died_are_deleted_once_they_own_no_runs(world):
    there = world.register(process("there"))
    world.add()
    world.pass_time(MINUTE)
    world.claim_one()
    world.do(sign_off, there)
    before = world.owner
    world.register(process("here", 2))
    rows = world.do(lambda storage: storage.owners())
    assert before in {row.id for row in rows}
    assert there not in {row.id for row in rows}
    world.recover(process("here", 2))
    latest = world.register(process("here", 3))
    assert [row.id for row in world.do(lambda storage: storage.owners())] == [latest]


def test_the_latest_heartbeat_is_that_of_any_owner(world):
    world.pass_time(HOUR)
    other = world.register(process("there"))
    world.pass_time(HOUR)
    assert world.do(last_seen) == T0 + HOUR
    world.do(renew_leases, [world.owner])
    assert world.do(last_seen) == T0 + 2 * HOUR
    world.do(sign_off, other)


def test_an_owner_that_closes_removes_its_stop_mark(world):
    world.mark_stopping(world.owner)
    world.do(sign_off, world.owner)
    assert world.storage.stopping_owners() == set()


def test_a_registration_removes_stop_marks_that_no_recovery_needs(world):
    world.add()
    world.pass_time(MINUTE)
    world.claim_one()
    for owner in (world.owner, world.owner + 1, 77):  # one that is alive, one of an earlier file, one whose row was deleted
        world.mark_stopping(owner)
    assert world.register(process("there")) == world.owner + 1
    assert world.storage.stopping_owners() == {world.owner}


def test_a_stop_mark_of_a_process_that_may_live_stays_for_a_day_after_its_lease(world):
    """A process of another container: we cannot see whether it has died."""
    elsewhere = world.register(ProcessIdentity("", 7, ""))
    world.mark_stopping(elsewhere)
    world.pass_time(LEASE + 23 * HOUR)
    world.register(process("here", 2))
    assert world.storage.stopping_owners() == {elsewhere}
    world.pass_time(2 * HOUR)
    world.register(process("here", 3))
    assert world.storage.stopping_owners() == set()


# An owner that was declared dead and lives


def test_who_was_declared_dead_starts_nothing_until_it_is_revived(world):
    """Race 7 of two machines: the lease of a stopped process runs out, its runs are taken over, and it goes on."""
    other = world.register(process("there"))
    job_id = world.add()
    world.pass_time(MINUTE)
    (lost,) = world.claim(owner=other)
    world.pass_time(LEASE)
    (taken_over,) = world.recover()
    assert taken_over.id == lost.run.id
    assert world.do(leases.was_declared_dead, other)
    world.do(renew_leases, [other])
    assert lease_of(world, other)[1] == DECLARED_DEAD, "a heartbeat does not bring it back"
    world.add()
    world.pass_time(MINUTE)
    assert world.claim(owner=other) == []
    assert world.finish(lost.run, owner=other) is None
    world.do(leases.revive, other, process("there"))
    assert {claimed.run.job_id for claimed in world.claim(owner=other)} >= {job_id}
    assert world.orphans(trust_leases=True) == []


def test_a_loop_of_a_users_own_revives_its_owner(world):
    other = world.register(process("there"))
    job_id = world.add()
    here, world.owner = world.owner, other
    world.pass_time(MINUTE)
    world.start(job_id)
    world.pass_time(LEASE)
    world.recover()
    assert world.do(leases.was_declared_dead, other)
    world.start(job_id)
    assert not world.do(leases.was_declared_dead, other)
    world.owner = here


def test_an_owner_without_runs_is_not_declared_dead(world):
    other = world.register(process("there"))
    world.pass_time(LEASE)
    assert world.recover() == []
    assert not world.do(leases.was_declared_dead, other)


def test_a_receiver_of_an_owner_that_was_declared_dead_counts_for_a_week(world):
    other = world.do(owners.register, process("there"), ["mine"])
    world.add()
    world.pass_time(MINUTE)
    world.claim(owner=other)
    world.pass_time(LEASE)
    world.recover()
    assert world.do(owners.receivers, [])["mine"] == {other}
    world.pass_time(8 * DAY)
    assert "mine" not in world.do(owners.receivers, [])


@pytest.mark.parametrize("declared_dead", [False, True])
def test_an_owner_of_a_machine_that_never_comes_back_is_deleted_after_a_week(world, declared_dead):
    other = world.register(process("gone"))
    if declared_dead:
        world.add()
        world.pass_time(MINUTE)
        world.claim(owner=other)
        world.pass_time(LEASE)
        world.recover()
        assert world.do(leases.was_declared_dead, other)
    world.pass_time(7 * DAY - MINUTE)
    world.register(process("another"))
    assert other in {row.id for row in world.do(lambda storage: storage.owners())}
    world.pass_time(2 * MINUTE)
    world.register(process("another"))
    assert other not in {row.id for row in world.do(lambda storage: storage.owners())}


def test_who_was_away_for_so_long_that_its_row_is_gone_starts_nothing_until_it_is_revived(world):
    other = world.do(owners.register, process("there"), ["mine"])
    world.add()
    world.pass_time(8 * DAY)
    world.register(process("another"))
    assert world.do(leases.was_declared_dead, other)
    assert world.claim(owner=other) == []
    world.do(leases.revive, other, process("there"), ["mine"])
    assert len(world.claim(owner=other)) == 1
    assert world.orphans(trust_leases=True) == []
    assert world.do(owners.receivers, [])["mine"] == {other}
    assert world.register(process("yet another")) > other
