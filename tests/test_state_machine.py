"""The states of runs and jobs under any order of requests, ends, crashes and clock changes: what must hold after each step."""

from __future__ import annotations

from collections import Counter, defaultdict
from itertools import pairwise

import attrs
from hypothesis import HealthCheck, settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from cronactors.errors import AlreadyClaimed, InvalidJob, JobBusy
from cronactors.instants import Millis
from cronactors.ledger.claim import LEASE
from cronactors.model import JobChanges, Overlap, SessionMode
from cronactors.schedule import Interval, OneShot, Schedule, schedule_from_json
from cronactors.storage.rows import PAUSE, JobRow, RunRow
from cronactors.timestamps import read_timestamp
from tests.ledger_world import (
    CANCELLED,
    FAILURE,
    GAVE_UP,
    HOUR,
    INTERRUPTED,
    MINUTE,
    SECOND,
    SUCCESS,
    TIMEOUT,
    World,
    at,
    in_dicts,
    in_memory,
    process,
)

EXAMPLES = 150
STEPS = 40
OPEN = ("pending", "running")
ORIGIN = "agent.toml"

picks = st.integers(0, 30)
# Not so short that more than the 1,000 moments come due that are counted.
schedules = st.one_of(
    st.sampled_from([30 * SECOND, MINUTE, 5 * MINUTE]).map(Interval),
    st.sampled_from([-30 * SECOND, 0, SECOND, MINUTE, 10 * MINUTE]),
)
modes = st.sampled_from(SessionMode)
overlaps = st.sampled_from([Overlap.SKIP, Overlap.SKIP, Overlap.ALLOW_ALL])
ends = st.sampled_from([SUCCESS, SUCCESS, FAILURE, FAILURE, TIMEOUT, GAVE_UP, INTERRUPTED, CANCELLED])
leaps = st.sampled_from([1, SECOND, 20 * SECOND, 30 * SECOND, MINUTE, 6 * MINUTE, 10 * MINUTE])


@attrs.define
class Watched:
    """What the model knows of a job: which of its moments have passed while it was enabled."""

    schedule: Schedule
    anchor: Millis
    row: JobRow
    passed: int = 0
    allowed_all: bool = False
    most_retries: int = 0

    def moments(self, after: Millis, until: Millis) -> int:
        """Count moments in after < moment <= until."""
        if isinstance(self.schedule, Interval):
            every = self.schedule.every_ms
            return (until - self.anchor) // every - (max(after, self.anchor) - self.anchor) // every
        assert isinstance(self.schedule, OneShot)
        return int(after < read_timestamp(self.schedule.at).instant("UTC") <= until)


class Machine(RuleBasedStateMachine):
    """Requests on a storage. Subclasses say which storage, and whether the clock may be set back."""

    make = staticmethod(in_memory)

    def __init__(self) -> None:
        super().__init__()
        self.world = World(self.make)
        self.world.policy = attrs.evolve(self.world.policy, delays=(30, 60, 300))
        self.boots = [1, 1]
        self.owners = [self.world.owner, self.world.register(process("there"))]
        self.watched: dict[str, Watched] = {}
        self.rows: dict[int, RunRow] = {}
        self.exact = True
        self.sound = True

    # What there is to choose from

    def jobs(self) -> dict[str, JobRow]:
        return {job.id: job for _, job in self.world.do(lambda s: s.page_of_jobs(after=0, limit=1000, user_id=None))}

    def a_job(self, pick: int) -> str | None:
        jobs = list(self.jobs())
        return jobs[pick % len(jobs)] if jobs else None

    def an_open_run(self, pick: int, *statuses: str) -> RunRow | None:
        runs = [run for run in self.world.history() if run.status in (statuses or OPEN)]
        return runs[pick % len(runs)] if runs else None

    def schedule(self, chosen: Interval | Millis, job_id: str | None = None) -> Schedule:
        """What was chosen; a one-shot at a moment that the job has not had before."""
        if isinstance(chosen, Interval):
            return chosen
        had = {run.scheduled_at for run in self.rows.values() if run.job_id == job_id}
        if job_id is not None:
            had.add(self.world.job(job_id).next_run_at or 0)
        moment = self.world.now + chosen
        while moment in had:
            moment += 1
        return at(moment)

    def watch(self, job_id: str, schedule: Schedule) -> None:
        """A new baseline from now; a one-shot of the last minute is due at once."""
        row = self.world.job(job_id)
        known = self.watched.setdefault(job_id, Watched(schedule, self.world.now, row))
        known.schedule, known.anchor, known.row = schedule, self.world.now, row
        if isinstance(schedule, OneShot) and row.enabled:
            known.passed += known.moments(0, self.world.now)

    # Users

    @initialize(kinds=st.lists(st.tuples(schedules, overlaps, modes, st.integers(0, 3)), min_size=1, max_size=3))
    def begin(self, kinds: list[tuple[Interval | Millis, Overlap, SessionMode, int]]) -> None:
        for chosen, overlap, mode, retries in kinds:
            self.add(chosen, overlap, mode, retries, user_id="ann", delete=False)

    @rule(
        chosen=schedules,
        overlap=overlaps,
        mode=modes,
        retries=st.integers(0, 3),
        user_id=st.sampled_from([None, "ann"]),
        delete=st.sampled_from([False, False, True]),
    )
    def add(
        self, chosen: Interval | Millis, overlap: Overlap, mode: SessionMode, retries: int, user_id: str | None, delete: bool
    ) -> None:
        schedule = self.schedule(chosen)
        options = {"overlap": overlap, "session_mode": mode, "max_retries": retries, "user_id": user_id}
        self.watch(self.world.add(schedule, delete_after_run=delete, **options), schedule)

    @rule(names=st.sets(st.sampled_from("abc")), chosen=schedules, mode=modes, delete=st.booleans(), same=st.booleans())
    def upsert(self, names: set[str], chosen: Interval | Millis, mode: SessionMode, delete: bool, same: bool) -> None:
        listed = {job.name: job for job in self.jobs().values() if job.origin == ORIGIN}
        found = {name: job.id for name, job in listed.items()}
        specs, schedules = [], {}
        for name in sorted(names):
            keeps = same and name in listed
            schedule = schedule_from_json(listed[name].schedule) if keeps else self.schedule(chosen, found.get(name))
            specs.append(self.world.spec(schedule, name=name, session_mode=mode, delete_after_run=delete))
            if name not in listed or schedule_from_json(listed[name].schedule) != schedule:
                schedules[name] = schedule
        for job_id, (_, spec) in zip(self.world.upsert(*specs, origin=ORIGIN), specs, strict=True):
            if spec.name in schedules:
                self.watch(job_id, schedules[spec.name])

    @rule(pick=picks, chosen=schedules)
    def reschedule(self, pick: int, chosen: Interval | Millis) -> None:
        job_id = self.a_job(pick)
        if job_id is not None and schedule_from_json(self.world.job(job_id).schedule) != chosen:
            schedule = self.schedule(chosen, job_id)
            self.world.update(job_id, {"schedule": schedule})
            self.watch(job_id, schedule)

    @rule(pick=picks, overlap=overlaps, mode=modes, retries=st.integers(0, 3))
    def update(self, pick: int, overlap: Overlap, mode: SessionMode, retries: int) -> None:
        job_id = self.a_job(pick)
        if job_id is not None:
            changes: JobChanges = {"overlap": overlap, "session_mode": mode, "max_retries": retries}
            self.world.update(job_id, changes)

    @rule(pick=picks)
    def pause(self, pick: int) -> None:
        job_id = self.a_job(pick)
        if job_id is not None:
            assert not self.world.pause(job_id).enabled

    @rule(pick=picks)
    def resume(self, pick: int) -> None:
        job_id = self.a_job(pick)
        if job_id is None:
            return
        job = self.world.job(job_id)
        try:
            assert self.world.resume(job_id).enabled
        except InvalidJob:
            assert not job.enabled
            assert isinstance(schedule_from_json(job.schedule), OneShot)
            assert self.watched[job_id].moments(self.world.now, 2**60) == 0

    @rule(pick=picks)
    def remove(self, pick: int) -> None:
        job_id = self.a_job(pick)
        if job_id is not None:
            self.world.remove(job_id)

    @rule(pick=picks)
    def request_run(self, pick: int) -> None:
        job_id = self.a_job(pick)
        if job_id is None:
            return
        try:
            assert self.world.request(job_id).status == "pending"
        except JobBusy:
            opened = [run for run in self.world.history(job_id) if run.status in OPEN]
            assert any(run.waits_for != PAUSE for run in opened)

    @rule(pick=picks)
    def request_cancel(self, pick: int) -> None:
        run = self.an_open_run(pick)
        if run is not None:
            now = self.world.cancel(run)
            assert (now.status, now.cancel_asked) == (("running", 1) if run.status == "running" else ("cancelled", 0))

    # Schedulers and own loops

    @rule(who=st.integers(0, 1), limit=st.integers(1, 6), total=st.sampled_from([None, None, 3]))
    def claim(self, who: int, limit: int, total: int | None) -> None:
        before = self.world.do(lambda s: s.count_running())
        claimed = self.world.claim(limit, owner=self.owners[who], total=total)
        assert len(claimed) <= limit
        assert total is None or not claimed or before + len(claimed) <= total
        for each in claimed:
            assert each.run == self.world.run(each.run)
            assert (each.run.status, each.run.owner) == ("running", self.owners[who])
            assert each.run.ready_at <= self.world.now

    @rule(pick=picks, outcome=ends, by_handle=st.booleans())
    def finish(self, pick: int, outcome, by_handle: bool) -> None:
        run = self.an_open_run(pick, "running")
        if run is not None:
            assert run.owner is not None
            ended = self.world.complete(run, outcome) if by_handle else self.world.finish(run, outcome, owner=run.owner)
            assert ended == self.world.run(run)
            assert ended is not None
            assert ended.status == outcome.status

    @rule(outcome=ends)
    def finish_all(self, outcome) -> None:
        for run in self.world.do(lambda s: s.running()):
            self.world.finish(run, outcome, owner=run.owner)

    @rule(pick=picks, shown=st.booleans())
    def start(self, pick: int, shown: bool) -> None:
        """A loop of one's own, by id or with what `get_due_jobs` and `get_retry_jobs` show."""
        targets = [*self.world.due(), *self.world.retries()] if shown else list(self.jobs())
        if targets:
            target = targets[pick % len(targets)]
            try:
                run = self.world.start(target)
            except JobBusy:
                job = self.world.job(target if isinstance(target, str) else target.id)
                running = [run for run in self.world.history() if run.status == "running"]
                holder = None if job.held_by is None else self.rows[job.held_by]
                waits = holder is not None and (holder.status == "running" or holder.ready_at > self.world.now or not shown)
                assert waits or any(run.session for run in running)
                return
            except AlreadyClaimed:
                assert not self.exact
                return
            assert run == self.world.run(run)
            assert run.status == "running"

    @rule(who=st.integers(0, 1))
    def crash(self, who: int) -> None:
        self.boots[who] += 1
        me = process(("here", "there")[who], self.boots[who])
        dead = self.owners[who]
        self.owners[who] = self.world.register(me)
        self.world.owner = self.owners[0]
        recovered = self.world.recover(me, trust_leases=False)
        assert {run.owner for run in recovered} <= {dead}
        assert self.world.do(lambda s: s.running(owner=dead)) == []

    @rule(who=st.integers(0, 1))
    def silence(self, who: int) -> None:
        """The other one gives no sign of life for as long as its lease."""
        self.advance(LEASE + 1)
        me = process(("here", "there")[who], self.boots[who])
        recovered = self.world.recover(me, trust_leases=True, mine=[self.owners[who]])
        assert self.owners[who] not in {run.owner for run in recovered}
        if self.exact:  # else a lease may end later than the clock shows
            assert all(run.owner == self.owners[who] for run in self.world.do(lambda s: s.running()))

    # Time

    @rule(by=leaps)
    def advance(self, by: Millis) -> None:
        before = self.world.now
        self.world.pass_time(by)
        for job_id, job in self.jobs().items():
            if job.enabled:
                self.watched[job_id].passed += self.watched[job_id].moments(before, self.world.now)

    @rule()
    def advance_to_the_next(self) -> None:
        next_due = self.world.do(lambda s: s.next_due())
        if next_due is not None and 0 < next_due - self.world.now <= 10 * MINUTE:
            self.advance(next_due - self.world.now)

    # What must hold

    @invariant()
    def all_holds(self) -> None:
        self.sound = False
        self.runs_only_move_forward()
        self.jobs_are_whole()
        self.attempts_follow_each_other()
        self.sessions_do_not_overlap()
        self.no_wake_up_is_lost()
        if self.exact:
            self.each_moment_is_accounted_for()
        self.sound = True

    def runs_only_move_forward(self) -> None:
        rows = {run.id: run for run in self.world.history()}
        assert self.rows.keys() <= rows.keys()
        for run_id, before in self.rows.items():
            after = rows[run_id]
            if before.status not in OPEN:
                assert after == before
            if before.status == "running":
                assert after.status != "pending"
                assert (after.owner, after.started_at) == (before.owner, before.started_at)
            if (before.status, after.status) == ("pending", "running"):
                assert after.started_at is not None
                assert after.started_at >= before.ready_at
        self.rows = rows

    def attempts_follow_each_other(self) -> None:
        moments: dict[tuple[str, Millis, int], list[RunRow]] = defaultdict(list)
        for run in self.rows.values():
            moments[run.job_id, run.scheduled_at, run.manual].append(run)
        for runs in moments.values():
            assert [run.attempt for run in runs] == list(range(1, len(runs) + 1))
            for earlier, later in pairwise(runs):
                assert (earlier.status, earlier.cause) in {
                    ("failed", "error"),
                    ("failed", "timeout"),
                    ("failed", "interrupted"),
                }
                assert later.failures - earlier.failures == 1 or earlier.cause == "interrupted"
                assert later.coalesced == earlier.coalesced
        for run in self.rows.values():
            assert run.failures <= self.watched[run.job_id].most_retries

    def jobs_are_whole(self) -> None:
        jobs = self.jobs()
        for job_id, job in jobs.items():
            known = self.watched[job_id]
            known.row = job
            known.allowed_all |= job.overlap == "allow_all"
            known.most_retries = max(known.most_retries, job.max_retries)
            opened = {run.id: run for run in self.rows.values() if run.job_id == job_id and run.status in OPEN}
            assert not job.enabled or job.next_run_at is not None or opened, "a silent job"
            assert job.held_by is None or job.held_by in opened, "held by a run that has ended"
            assert job.held_by is None or opened[job.held_by].waits_for != PAUSE, "held by a run that is paused"
            assert known.allowed_all or sum(run.status == "running" for run in opened.values()) <= 1, "an overlap"
            for run in opened.values():
                if run.status == "pending" and not run.manual:
                    assert (run.waits_for == PAUSE) == (not job.enabled)
        for run in self.rows.values():
            assert run.status != "pending" or run.job_id in jobs, "a pending run of a removed job"

    def sessions_do_not_overlap(self) -> None:
        sessions = Counter(run.session for run in self.rows.values() if run.status == "running" and run.session)
        assert all(count == 1 for count in sessions.values())

    def no_wake_up_is_lost(self) -> None:
        jobs = self.jobs()
        opened = [run for run in self.rows.values() if run.status in OPEN]
        for waiter in opened:
            if waiter.waits_for in (None, PAUSE):
                continue
            others = [run for run in opened if run.waits_for is None]
            if waiter.waits_for.startswith("session:"):
                assert any(run.session == waiter.waits_for for run in others), waiter
            else:
                held = jobs[waiter.job_id].held_by is not None
                assert held or any(run.job_id == waiter.job_id and run.status == "pending" for run in others), waiter

    def each_moment_is_accounted_for(self) -> None:
        jobs = self.jobs()
        told: Counter[str] = Counter()
        for run in self.rows.values():
            if run.attempt == 1 and not run.manual:
                told[run.job_id] += run.coalesced
        for job_id, known in self.watched.items():
            job = jobs.get(job_id)
            waiting = 0
            if job is not None and job.enabled and job.next_run_at is not None:
                waiting = known.moments(job.next_run_at - 1, self.world.now)
            assert told[job_id] + waiting == known.passed, known

    def teardown(self) -> None:
        """Without new requests, and with time going on, all that waits comes to its end."""
        if not self.sound:
            return  # what was found broken is told by itself
        waiting = {run_id for run_id, run in self.rows.items() if run.status in OPEN and run.waits_for != PAUSE}
        for _ in range(3 * len(waiting) + 10):
            for run in self.world.do(lambda s: s.running()):
                self.world.finish(run, owner=run.owner)
            self.world.claim(100)
            self.world.pass_time(HOUR)
        rows = {run.id: run for run in self.world.history()}
        assert [rows[run_id] for run_id in waiting if rows[run_id].status in OPEN] == []


class ClockSetBack(Machine):
    """The same with the wall clock set back now and then; in plain dicts."""

    make = staticmethod(in_dicts)

    @rule(by=st.sampled_from([SECOND, MINUTE, 10 * MINUTE, HOUR]))
    def set_back(self, by: Millis) -> None:
        self.exact = False
        self.world.set_back(by)
        for job in self.jobs().values():
            if job.enabled and job.next_run_at is not None and isinstance(schedule_from_json(job.schedule), Interval):
                known = self.watched[job.id]
                assert job.next_run_at <= max(self.world.now, known.anchor) + schedule_from_json(job.schedule).every_ms


_settings = settings(
    max_examples=EXAMPLES,
    stateful_step_count=STEPS,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
TestRuns = Machine.TestCase
TestRuns.settings = _settings
TestRunsWithClockSetBack = ClockSetBack.TestCase
TestRunsWithClockSetBack.settings = _settings
