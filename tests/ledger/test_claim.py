"""What is due begins: in order of time, once, merged, as many as there are slots; loops of one's own; what cannot be read."""

from __future__ import annotations

from contextlib import closing

import pytest

from cronactors.errors import AlreadyClaimed, JobBusy, JobNotFound, RunClosed
from cronactors.ledger.claim import MOST_PASSED_OVER, BlockedBy, Claims, claim_due
from cronactors.ledger.leases import LEASE
from cronactors.model import Overlap, SessionMode
from cronactors.schedules import fire_times
from cronactors.schedules.schedule import Cron, Interval
from cronactors.storage.rows import DueItem
from tests.ledger_world import DAY, FAILURE, HOUR, HOURLY, INTERRUPTED, KINDS, MINUTE, MINUTELY, SECOND, SUCCESS, T0, World, at


@pytest.fixture(params=KINDS)
def world(request):
    with closing(World(request.param)) as made:
        yield made


def test_a_moment_begins_when_it_comes_and_the_next_one_stands(world):
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
    run = world.begin()
    assert (run.scheduled_at, run.coalesced) == (T0 + 2 * DAY, 48)
    assert world.job(job).next_run_at == T0 + 2 * DAY + HOUR
    world.finish(run)
    assert world.claim() == []


def test_a_full_pool_is_lateness_that_merges(world):
    first, second = world.add(), world.add()
    world.pass_time(MINUTE)
    (taken,) = world.claim(limit=1)
    world.pass_time(3 * MINUTE)
    world.finish(taken.run)
    (late,) = world.claim(limit=1)
    assert {taken.run.job_id, late.run.job_id} == {first, second}
    assert (late.run.scheduled_at, late.run.coalesced) == (T0 + 4 * MINUTE, 4)


def test_the_queue_is_in_order_of_time_retries_beside_moments(world):
    failing = world.add(HOURLY, name="failing")
    world.pass_time(HOUR)
    world.finish(world.begin(), FAILURE)  # its retry is ready at 1:00:30
    world.add(at(T0 + HOUR + 20 * SECOND), name="before")
    world.add(at(T0 + HOUR + 40 * SECOND), name="after")
    asked = world.add(HOURLY, name="asked")
    world.pass_time(35 * SECOND)
    world.request(asked)
    world.pass_time(HOUR // 2)
    order = [claimed.run for claimed in world.claim()]
    assert [run.job_name for run in order] == ["before", "failing", "asked", "after"]
    assert [run.trigger for run in order] == ["schedule", "retry", "manual", "schedule"]
    assert world.job(failing).held_by == order[1].id


def test_no_more_begin_than_there_are_slots(world):
    for _ in range(5):
        world.add()
    world.pass_time(MINUTE)
    assert world.claim(limit=0) == []
    assert [len(world.claim(limit=2)) for _ in range(4)] == [2, 2, 1, 0]


def test_a_limit_over_all_schedulers(world):
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


def test_a_claim_lengthens_the_lease(world):
    world.add()
    world.pass_time(MINUTE)
    world.claim()
    (row,) = world.do(lambda storage: storage.owners())
    assert (row.heartbeat_at, row.lease_until) == (world.now, world.now + LEASE)


def test_moments_of_a_job_that_allows_all_begin_beside_each_other(world):
    job = world.add(overlap=Overlap.ALLOW_ALL)
    runs = []
    for _ in range(3):
        world.pass_time(MINUTE)
        runs.append(world.begin())
    assert world.job(job).held_by is None
    for run in runs:
        world.finish(run)
    assert world.told(job) == [("success", None, n * MINUTE, 1, 1) for n in (1, 2, 3)]


def test_a_schedule_that_cannot_be_read_stops_nobody(world):
    spoilt, lost, good = world.add(), world.add(Cron("* * * * *")), world.add()
    world.spoil(spoilt, schedule='{"kind":"lunar"}')
    world.spoil(lost, timezone="Atlantis/Capital")
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
def test_a_schedule_that_became_unreadable_during_a_run_does_not_keep_it_from_ending(world, columns, outcome):
    job = world.add(Cron("* * * * *"))
    world.pass_time(MINUTE)
    run = world.begin()
    world.spoil(job, **columns)
    world.pass_time(HOUR)
    assert world.finish(run, outcome) is not None
    assert world.job(job).held_by is None


@pytest.mark.parametrize("columns", [{"schedule": "nonsense"}, {"timezone": "Atlantis/Capital"}])
def test_a_job_whose_schedule_cannot_be_read_is_still_shown_and_can_be_removed(world, columns):
    job, good = world.add(Cron("* * * * *"), name="spoilt"), world.add()
    world.spoil(job, **columns)
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


def test_blocked_runs_are_never_listed(world):
    if world.storage.__class__.__name__ == "FakeStorage":
        pytest.skip("the fake looks at every row")
    main = {"session_mode": SessionMode.MAIN, "user_id": "ann"}
    for _ in range(10_000):
        world.add(HOURLY, **main)
    free = world.add(HOURLY)
    world.pass_time(HOUR)
    begun = []
    for _ in range(60):
        begun += world.claim()
    assert len(begun) == 2
    assert {claimed.run.job_id for claimed in begun} >= {free}
    places = world.do(lambda storage: storage.due(now=world.now + 1, limit=10))
    assert places == []
    (session_run,) = [claimed.run for claimed in begun if claimed.run.session]
    world.finish(session_run)
    (place,) = world.do(lambda storage: storage.due(now=world.now, limit=10))
    assert isinstance(place, DueItem)
    assert place.run_id is not None


def test_one_claim_goes_through_a_bounded_stretch_of_blocked_work(world):
    for _ in range(450):
        world.add(HOURLY, session_mode=SessionMode.MAIN)
    world.add(HOURLY)
    world.pass_time(HOUR)
    world.add(at(world.now + 1), name="last")
    world.pass_time(1)
    names = [[claimed.run.job_name for claimed in world.claim()] for _ in range(5)]
    assert sum(map(len, names)) == 3
    assert "last" in names[2]
    assert names[3] == names[4] == []


# Loops of one's own


def test_a_shown_moment_is_claimed_exactly_once(world):
    job = world.add()
    assert world.due() == []
    world.pass_time(MINUTE)
    (shown,) = world.due()
    run = world.start(shown)
    assert (run.job_id, run.scheduled_at, run.trigger) == (job, T0 + MINUTE, "schedule")
    with pytest.raises(AlreadyClaimed):
        world.start(shown)
    world.complete(run)
    with pytest.raises(AlreadyClaimed):
        world.start(shown)
    world.pass_time(MINUTE)
    with pytest.raises(AlreadyClaimed):
        world.start(shown)
    assert len(world.history()) == 1


def test_a_shown_moment_of_a_job_that_was_changed_is_not_claimed(world):
    job = world.add()
    world.pass_time(MINUTE)
    (shown,) = world.due()
    world.update(job, {"schedule": HOURLY})
    with pytest.raises(AlreadyClaimed):
        world.start(shown)
    world.remove(job)
    with pytest.raises(JobNotFound):
        world.start(shown)


def test_a_shown_retry_is_claimed_exactly_once(world):
    job = world.add(HOURLY)
    world.pass_time(HOUR)
    world.complete(world.start(job), FAILURE)
    assert world.retries() == []
    world.pass_time(30 * SECOND)
    (shown,) = world.retries()
    assert world.due() == []
    run = world.start(shown)
    assert (run.trigger, run.attempt, run.scheduled_at) == ("retry", 2, T0 + HOUR)
    with pytest.raises(AlreadyClaimed):
        world.start(shown)


def test_a_job_with_a_due_retry_and_a_due_moment_is_shown_once_in_order_of_time(world):
    job = world.add()
    world.pass_time(MINUTE)
    world.complete(world.start(job), FAILURE)
    world.pass_time(MINUTE)
    assert world.due() == []
    (shown,) = world.retries()
    world.complete(world.start(shown))
    (shown,) = world.due()
    assert world.start(shown).scheduled_at == T0 + 2 * MINUTE


def test_by_id_what_is_due_is_claimed_else_an_extra_run_begins(world):
    job = world.add(HOURLY)
    extra = world.start(job)
    assert (extra.trigger, extra.manual, extra.status, extra.scheduled_at) == ("manual", 1, "running", T0)
    assert world.job(job).next_run_at == T0 + HOUR
    with pytest.raises(JobBusy):
        world.start(job)
    world.complete(extra)
    world.pass_time(HOUR)
    due = world.start(job)
    assert (due.trigger, due.scheduled_at) == ("schedule", T0 + HOUR)
    assert world.job(job).next_run_at == T0 + 2 * HOUR


def test_a_busy_session_refuses_and_leaves_no_trace(world):
    one, two = (world.add(HOURLY, session_mode=SessionMode.MAIN) for _ in range(2))
    first = world.start(one)
    with pytest.raises(JobBusy):
        world.start(two)
    world.pass_time(HOUR)
    with pytest.raises(JobBusy):
        world.start(two)
    assert world.history(two) == []
    world.complete(first)
    assert world.start(two).scheduled_at == T0 + HOUR


def test_a_busy_session_refuses_also_where_the_moment_takes_the_place_of_a_retry(world):
    main = {"session_mode": SessionMode.MAIN}
    job = world.add(Interval(30 * SECOND), **main)
    world.pass_time(30 * SECOND)
    world.finish(world.begin(), FAILURE)  # its retry is ready together with the next moment
    other = world.add(at(world.now + SECOND), **main)
    world.pass_time(SECOND)
    assert world.begin().job_id == other
    world.pass_time(29 * SECOND)
    shown = next(view for view in world.due() if view.id == job)
    with pytest.raises(JobBusy, match="main session is in use"):
        world.start(shown)


def test_extra_runs_of_one_millisecond_are_different_runs(world):
    job = world.add(HOURLY, overlap=Overlap.ALLOW_ALL)
    runs = [world.start(job) for _ in range(3)]
    assert [run.scheduled_at for run in runs] == [T0, T0 + 1, T0 + 2]


def test_an_own_run_is_completed_once(world):
    run = world.start(world.add(HOURLY))
    assert world.complete(run).status == "success"
    with pytest.raises(RunClosed):
        world.complete(run, FAILURE)
    assert world.run(run).status == "success"


def test_an_own_loop_is_told_when_a_moment_was_decided_before_the_clock_went_back(world):
    job = world.add()
    world.pass_time(MINUTE)
    world.complete(world.start(job))
    world.set_back(MINUTE // 2)
    world.pass_time(MINUTE // 2)
    (shown,) = world.due()
    with pytest.raises(AlreadyClaimed):
        world.start(shown)
    world.pass_time(MINUTE)
    (shown,) = world.due()
    assert world.start(shown).scheduled_at == T0 + 2 * MINUTE


def test_an_own_loop_cannot_start_a_job_whose_schedule_cannot_be_read(world):
    job = world.add(MINUTELY)
    world.spoil(job, schedule="nonsense")
    world.pass_time(MINUTE)
    (shown,) = world.due()
    with pytest.raises((JobBusy, AlreadyClaimed)) as refused:
        world.start(shown)
    assert "cannot be read" in str(refused.value)


@pytest.mark.parametrize("shown", [False, True])
def test_an_own_loop_starts_the_run_that_holds_its_job(world, shown):
    job = world.add(HOURLY)
    world.pass_time(HOUR)
    for _ in range(3):
        world.start(job)
        world.crash()
    held = world.job(job).held_by
    with pytest.raises(JobBusy):
        world.start(job)
    world.pass_time(30 * SECOND)
    (view,) = world.retries()
    run = world.start(view if shown else job)
    assert (run.id, run.attempt) == (held, 4)
    with pytest.raises(JobBusy):
        world.start(job)


def test_a_claim_of_nothing_writes_nothing(world):
    world.add()
    assert world.do(claim_due, owner=world.owner, limit=3).runs == []
    (row,) = world.do(lambda storage: storage.owners())
    assert row.heartbeat_at == T0


def test_an_index_that_tells_of_what_is_not_due_is_asked_twice_and_no_more(world, monkeypatch):
    job = world.add()
    asked = []
    monkeypatch.setattr(world.storage, "due", lambda *, now, limit: asked.append(now) or [DueItem(None, job, now)])
    assert world.claim() == []
    assert len(asked) == 2


def test_a_place_that_an_index_tells_of_twice_is_claimed_once(world, monkeypatch):
    world.add()
    world.pass_time(MINUTE)
    due = world.storage.due
    monkeypatch.setattr(world.storage, "due", lambda *, now, limit: due(now=now, limit=limit) * 2)
    assert len(world.claim()) == 1


@pytest.mark.parametrize("jobs", [2, 300])
def test_what_follows_equal_moments_is_computed_once_however_many_jobs_share_it(world, monkeypatch, jobs):
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
    assert claims(world, limit=0, total=1, cancel_overlapped=True) == Claims([], cancelled_overlapped=True)
    assert world.run(run).cancel_requested == 1
    assert [row.status for row in world.history(job)] == ["running", "pending"]
    assert [row.status for row in world.history(other)] == ["running"]


def test_a_claim_that_is_to_cancel_and_finds_nothing_to_cancel_is_blocked(world):
    world.add()
    world.pass_time(MINUTE)
    found = claims(world, cancel_overlapped=True)
    assert (len(found.runs), found.cancelled_overlapped, found.blocked_by) == (1, False, BlockedBy.NO_PROGRESS)


def test_a_claim_that_only_passes_over_rows_is_blocked(world, monkeypatch):
    job = world.add()
    monkeypatch.setattr(world.storage, "due", lambda *, now, limit: [DueItem(None, job, now)])
    assert claims(world).blocked_by is BlockedBy.NO_PROGRESS
    many = iter(range(1_000))
    monkeypatch.setattr(world.storage, "due", lambda *, now, limit: [DueItem(None, job, next(many)) for _ in range(limit)])
    assert claims(world).blocked_by is BlockedBy.NO_PROGRESS
    assert next(many) == MOST_PASSED_OVER
