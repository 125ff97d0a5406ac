"""Due moments and runs start in order of time, once, merged, as many as there are slots; and what blocks a claim."""

from __future__ import annotations

import pytest

from cronactors.ledger.claim import MOST_PASSED_OVER, MOST_STEPS, BlockedBy, Claims, claim_due
from cronactors.ledger.leases import LEASE
from cronactors.model import Overlap, SessionMode
from cronactors.schedules import fire_times
from cronactors.schedules.schedule import Cron
from cronactors.storage.postgres.storage import PostgresStorage
from cronactors.storage.rows import DueItem
from tests.ledger_world import DAY, FAILURE, HOUR, HOURLY, INTERRUPTED, MINUTE, SECOND, SUCCESS, T0, at


def test_a_moment_starts_when_it_is_due_and_the_next_one_is_stored(world):
    job = world.add()
    world.pass_time(MINUTE - 1)
    assert world.claim() == []
    world.pass_time(1)
    (claimed,) = world.claim()
    run = claimed.run
    assert (run.status, run.scheduled_at, run.started_at, run.attempt, run.coalesced) == ("running", T0 + MINUTE, world.now, 1, 1)
    assert (run.owner, run.trigger, run.job_name, run.manual) == (world.owner, "schedule", "job 1", 0)
    assert world.run(run) == run
    row = world.job(job)
    assert claimed.job_now == row
    assert (row.next_run_at, row.held_by, row.last_run_at) == (T0 + 2 * MINUTE, run.id, world.now)
    assert world.claim() == []


def test_missed_moments_make_one_late_run_then_the_next_future_one(world):
    job = world.add(HOURLY)
    world.pass_time(2 * DAY + MINUTE)
    run = world.claim_one()
    assert (run.scheduled_at, run.coalesced) == (T0 + 2 * DAY, 48)
    assert world.job(job).next_run_at == T0 + 2 * DAY + HOUR
    world.finish(run)
    assert world.claim() == []


def test_moments_that_are_missed_while_every_slot_is_taken_are_merged(world):
    first, second = world.add(), world.add()
    world.pass_time(MINUTE)
    (taken,) = world.claim(limit=1)
    world.pass_time(3 * MINUTE)
    world.finish(taken.run)
    (late,) = world.claim(limit=1)
    assert {taken.run.job_id, late.run.job_id} == {first, second}
    assert (late.run.scheduled_at, late.run.coalesced) == (T0 + 4 * MINUTE, 4)


def test_moments_and_retries_start_in_order_of_time(world):
    failing = world.add(HOURLY, name="failing")
    world.pass_time(HOUR)
    world.finish(world.claim_one(), FAILURE)  # its retry is ready at 1:00:30
    world.add(at(T0 + HOUR + 20 * SECOND), name="before")
    world.add(at(T0 + HOUR + 40 * SECOND), name="after")
    requested = world.add(HOURLY, name="requested")
    world.pass_time(35 * SECOND)
    world.request(requested)
    world.pass_time(HOUR // 2)
    order = [claimed.run for claimed in world.claim()]
    assert [run.job_name for run in order] == ["before", "failing", "requested", "after"]
    assert [run.trigger for run in order] == ["schedule", "retry", "manual", "schedule"]
    assert world.job(failing).held_by == order[1].id


def test_no_more_runs_start_than_there_are_slots(world):
    for _ in range(5):
        world.add()
    world.pass_time(MINUTE)
    assert world.claim(limit=0) == []
    assert [len(world.claim(limit=2)) for _ in range(4)] == [2, 2, 1, 0]


def test_the_total_limit_counts_the_runs_of_all_schedulers(world):
    other = world.register(world.this_process)
    for _ in range(5):
        world.add()
    world.pass_time(MINUTE)
    assert len(world.claim(owner=other)) == 5
    assert world.claim(total=5) == world.claim(total=3) == []
    running = world.do(lambda storage: storage.running())
    for run in running:
        world.finish(run, owner=other)
    world.pass_time(MINUTE)
    assert len(world.claim(total=3)) == 3
    assert len(world.claim(owner=other, total=4)) == 1


def test_a_claim_renews_the_lease(world):
    world.add()
    world.pass_time(MINUTE)
    world.claim()
    (row,) = world.do(lambda storage: storage.owners())
    assert (row.heartbeat_at, row.lease_until) == (world.now, world.now + LEASE)


def test_moments_of_a_job_that_allows_all_overlaps_start_at_the_same_time(world):
    job = world.add(overlap=Overlap.ALLOW_ALL)
    runs = []
    for _ in range(3):
        world.pass_time(MINUTE)
        runs.append(world.claim_one())
    assert world.job(job).held_by is None
    for run in runs:
        world.finish(run)
    assert world.summary(job) == [("success", None, n * MINUTE, 1, 1) for n in (1, 2, 3)]


def test_a_schedule_that_cannot_be_read_stops_no_other_job(world):
    spoilt, lost, good = world.add(), world.add(Cron("* * * * *")), world.add()
    world.damage(spoilt, schedule='{"kind":"lunar"}')
    world.damage(lost, timezone="Atlantis/Capital")
    world.pass_time(MINUTE)
    assert [claimed.run.job_id for claimed in world.claim()] == [good]
    for job in (spoilt, lost):
        row = world.job(job)
        assert row.enabled == 0
        assert "cannot be read" in (row.last_error or "")
    assert "lunar" in (world.job(spoilt).last_error or "")
    assert "Atlantis" in (world.job(lost).last_error or "")


@pytest.mark.parametrize("columns", [{"schedule": "nonsense"}, {"timezone": "Atlantis/Capital"}])
@pytest.mark.parametrize("outcome", [SUCCESS, FAILURE, INTERRUPTED])
def test_a_run_finishes_although_its_schedule_became_unreadable_meanwhile(world, columns, outcome):
    job = world.add(Cron("* * * * *"))
    world.pass_time(MINUTE)
    run = world.claim_one()
    world.damage(job, **columns)
    world.pass_time(HOUR)
    assert world.finish(run, outcome) is not None
    assert world.job(job).held_by is None


@pytest.mark.parametrize("columns", [{"schedule": "nonsense"}, {"timezone": "Atlantis/Capital"}])
def test_a_job_whose_schedule_cannot_be_read_is_still_shown_and_can_be_removed(world, columns):
    job, good = world.add(Cron("* * * * *"), name="spoilt"), world.add()
    world.damage(job, **columns)
    world.pass_time(MINUTE)
    view = world.view(job)
    assert view.name == "spoilt"
    assert "cannot be read" in (view.last_error or "")
    assert {due.id for due in world.due()} == {job, good}
    world.set_back(HOUR)
    world.pause(job)
    world.remove(job)
    assert not world.exists(job)


# Jobs that cannot start leave the queue


def test_the_queue_never_lists_runs_that_wait(world):
    if world.storage.__class__.__name__ == "FakeStorage":
        pytest.skip("the fake looks at every row")
    main = {"session_mode": SessionMode.MAIN, "user_id": "ann"}
    for _ in range(1_000 if isinstance(world.storage, PostgresStorage) else 10_000):  # a transaction each
        world.add(HOURLY, **main)
    free = world.add(HOURLY)
    world.pass_time(HOUR)
    started = []
    for _ in range(60):
        started += world.claim()
    assert len(started) == 2
    assert {claimed.run.job_id for claimed in started} >= {free}
    due_items = world.do(lambda storage: storage.due(now=world.now + 1, limit=10))
    assert due_items == []
    (session_run,) = [claimed.run for claimed in started if claimed.run.session]
    world.finish(session_run)
    (due_item,) = world.do(lambda storage: storage.due(now=world.now, limit=10))
    assert isinstance(due_item, DueItem)
    assert due_item.run_id is not None


def test_one_claim_passes_over_a_bounded_number_of_rows_that_start_nothing(world):
    for _ in range(450):
        world.add(HOURLY, session_mode=SessionMode.MAIN)
    world.add(HOURLY)
    world.pass_time(HOUR)
    world.add(at(world.now + 1), name="last")
    world.pass_time(1)
    slots = 9
    passed_over = slots * MOST_STEPS if world.storage.writes_side_by_side else MOST_PASSED_OVER
    needed = 450 // passed_over + 1
    names = [[claimed.run.job_name for claimed in world.claim(limit=slots + (n == 0))] for n in range(needed + 2)]
    assert sum(map(len, names)) == 3
    assert "last" in names[needed - 1]
    assert names[needed:] == [[], []]


def test_a_claim_of_nothing_writes_nothing(world):
    world.add()
    assert world.do(claim_due, owner=world.owner, limit=3).runs == []
    (row,) = world.do(lambda storage: storage.owners())
    assert row.heartbeat_at == T0


def test_a_damaged_index_that_names_what_is_not_due_is_read_twice_and_no_more(world, monkeypatch):
    job = world.add()
    queries = []
    monkeypatch.setattr(world.storage, "due", lambda *, now, limit: queries.append(now) or [DueItem(None, job, now)])
    assert world.claim() == []
    assert len(queries) == 2


def test_a_job_that_a_damaged_index_names_twice_is_claimed_once(world, monkeypatch):
    world.add()
    world.pass_time(MINUTE)
    due = world.storage.due
    monkeypatch.setattr(world.storage, "due", lambda *, now, limit: due(now=now, limit=limit) * 2)
    assert len(world.claim()) == 1


@pytest.mark.parametrize("jobs", [2, 300])
def test_the_moment_after_equal_moments_is_computed_once_for_all_jobs_that_share_it(world, monkeypatch, jobs):
    computed = []
    next_instant = fire_times.next_instant
    monkeypatch.setattr(fire_times, "next_instant", lambda *args: computed.append(args) or next_instant(*args))
    fire_times._next_of_cron.cache_clear()
    for _ in range(jobs):
        world.add(Cron("0 9 * * *"), timezone="Europe/Rome")
    world.pass_time(DAY)
    while claimed := world.claim(limit=100):
        for each in claimed:
            world.finish(each.run)
    assert len(computed) == len(set(computed)) == 2  # nine o'clock today, when they were added, and tomorrow


def claims(world, **options: object):
    return world.do(claim_due, owner=world.owner, **{"limit": 10, **options})


def test_nothing_blocks_a_claim_that_finds_nothing_due_or_uses_every_slot(world):
    world.add()
    world.add()
    assert claims(world) == Claims([])
    world.pass_time(MINUTE)
    assert claims(world, limit=1).blocked_by is None


def test_a_claim_that_reaches_the_limit_over_all_owners_says_so(world):
    for _ in range(3):
        world.add()
    world.pass_time(MINUTE)
    assert claims(world, limit=1, total=2).blocked_by is None
    last = claims(world, total=2)
    assert (len(last.runs), last.blocked_by) == (1, BlockedBy.TOTAL_LIMIT)
    assert claims(world, total=2) == Claims([], blocked_by=BlockedBy.TOTAL_LIMIT)
    assert claims(world, total=1) == Claims([], blocked_by=BlockedBy.TOTAL_LIMIT)
    assert len(claims(world).runs) == 1


def test_a_claim_without_slots_cancels_and_starts_nothing(world):
    job = world.add(overlap=Overlap.CANCEL_OTHER)
    other = world.add()
    world.pass_time(MINUTE)
    (run, _) = (each.run for each in world.claim())
    world.pass_time(MINUTE)
    assert claims(world, limit=0, total=1) == Claims([])
    assert world.run(run).cancel_requested == 0
    assert claims(world, limit=0, total=1, slotless=True) == Claims([], decided_slotless=True)
    assert world.run(run).cancel_requested == 1
    assert [row.status for row in world.history(job)] == ["running", "pending"]
    assert [row.status for row in world.history(other)] == ["running"]


def test_a_claim_that_is_to_cancel_and_finds_nothing_to_cancel_is_blocked(world):
    world.add()
    world.pass_time(MINUTE)
    found = claims(world, slotless=True)
    assert (len(found.runs), found.decided_slotless, found.blocked_by) == (1, False, BlockedBy.NO_PROGRESS)


def test_a_claim_that_only_passes_over_rows_is_blocked(world, monkeypatch):
    job = world.add()
    monkeypatch.setattr(world.storage, "due", lambda *, now, limit: [DueItem(None, job, now)])
    assert claims(world).blocked_by is BlockedBy.NO_PROGRESS
    many = iter(range(1_000))
    monkeypatch.setattr(world.storage, "due", lambda *, now, limit: [DueItem(None, job, next(many)) for _ in range(limit)])
    blocked_by = claims(world).blocked_by
    if world.storage.writes_side_by_side:
        assert blocked_by is None, "what is due has changed meanwhile"
        assert next(many) == 10 + 1, "a page, whose rows are too many steps, and the look at the next one"
    else:
        assert blocked_by is BlockedBy.NO_PROGRESS
        assert next(many) == MOST_PASSED_OVER


def test_a_claim_beside_others_that_cannot_get_on_is_blocked(world, monkeypatch):
    """The first row of the queue stays where it is, and the ones behind it are new each time."""
    jobs = [world.add() for _ in range(2)]
    more = iter(range(1_000))
    monkeypatch.setattr(
        world.storage, "due", lambda *, now, limit: [DueItem(None, jobs[0], 0), DueItem(None, jobs[1], next(more))][:limit]
    )
    assert claims(world).blocked_by is BlockedBy.NO_PROGRESS
