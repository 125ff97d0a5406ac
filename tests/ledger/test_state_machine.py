"""Runs and jobs under any order of requests, finishes, crashes and clock changes; `tests.run_model` checks them after each step."""

from __future__ import annotations

from contextlib import closing
from datetime import timedelta

from hypothesis import HealthCheck, settings, strategies as st
from hypothesis.stateful import initialize, precondition, rule

from cronactors.errors import AlreadyClaimed, InvalidJob, JobBusy
from cronactors.instants import Millis
from cronactors.ledger import leases
from cronactors.ledger.claim import claim_due
from cronactors.ledger.leases import LEASE
from cronactors.ledger.pausing import end_pauses
from cronactors.model import Coalesce, Misfire, Overlap, SessionMode
from cronactors.policy import FREE_CRASHES, in_crash_loop
from cronactors.schedules.schedule import Interval, OneShot, Schedule
from cronactors.schedules.schedule_json import schedule_from_json
from cronactors.spec import JobChanges
from cronactors.storage.rows import PAUSE, RunRow
from tests.ledger_world import (
    CANCELLED,
    DAY,
    FAILURE,
    GAVE_UP,
    HOUR,
    INTERRUPTED,
    MINUTE,
    SECOND,
    SUCCESS,
    TIMEOUT,
    at,
    in_dicts,
    process,
)
from tests.run_model import OPEN, Model

EXAMPLES = 70
STEPS = 40
FEW = 4
"""So few jobs that several requests often concern the same one."""
ORIGIN = "agent.toml"

picks = st.integers(0, 3)
# Not shorter, or more than the 1,000 moments that are counted would come due.
schedules = st.one_of(
    st.sampled_from([30 * SECOND, MINUTE, 5 * MINUTE]).map(Interval),
    st.sampled_from([-30 * SECOND, 0, SECOND, MINUTE, 10 * MINUTE]),
)
modes = st.sampled_from([SessionMode.MAIN, SessionMode.MAIN, SessionMode.ISOLATED])
overlaps = st.sampled_from([Overlap.SKIP, *Overlap])
misfires = st.sampled_from(
    [
        Misfire(),
        Misfire(),
        Misfire(window=timedelta(seconds=45)),
        Misfire(window=timedelta(minutes=3), coalesce=Coalesce.EARLIEST),
        Misfire(window=timedelta(minutes=4), coalesce=Coalesce.ALL, max_runs=3),
    ]
)
outcomes = st.sampled_from([SUCCESS, SUCCESS, FAILURE, FAILURE, TIMEOUT, GAVE_UP, INTERRUPTED, CANCELLED])
leaps = st.sampled_from([1, SECOND, 20 * SECOND, 30 * SECOND, MINUTE, 6 * MINUTE, 10 * MINUTE])


class Machine(Model):
    """Requests on a storage, and steps of schedulers and of time."""

    def __init__(self) -> None:
        super().__init__()
        self.requested: dict[tuple[str, Millis], str | None] = {}  # the data of requested moments
        self.keys: dict[tuple[str, str], tuple[str, Millis]] = {}

    def schedule(self, chosen: Interval | Millis, job_id: str | None = None) -> Schedule:
        """Make the chosen schedule; a one-shot is later than all moments that the job has had."""
        if isinstance(chosen, Interval):
            return chosen
        moment = self.world.now + chosen
        if job_id is not None:
            known = self.watched[job_id].passed.union(*(run.span for run in self.rows.values() if run.job_id == job_id))
            moment = max([moment, *(before + 1 for before in known)])
        return at(moment)

    # Users

    @initialize(kinds=st.lists(st.tuples(schedules, overlaps, modes, misfires, st.integers(0, 3)), min_size=1, max_size=3))
    def begin_with_jobs(self, kinds: list[tuple[Interval | Millis, Overlap, SessionMode, Misfire, int]]) -> None:
        for chosen, overlap, mode, misfire, retries in kinds:
            self.add(chosen, overlap, mode, misfire, retries, user_id="ann", delete=False)

    @precondition(lambda self: len(self.jobs()) < FEW)
    @rule(
        chosen=schedules,
        overlap=overlaps,
        mode=modes,
        misfire=misfires,
        retries=st.integers(0, 3),
        user_id=st.sampled_from(["ann", "ann", None]),
        delete=st.sampled_from([False, False, True]),
    )
    def add(
        self,
        chosen: Interval | Millis,
        overlap: Overlap,
        mode: SessionMode,
        misfire: Misfire,
        retries: int,
        user_id: str | None,
        delete: bool,
    ) -> None:
        schedule = self.schedule(chosen)
        options = {"overlap": overlap, "session_mode": mode, "misfire": misfire, "max_retries": retries, "user_id": user_id}
        self.watch(self.world.add(schedule, delete_after_run=delete, **options), schedule)

    @rule(names=st.sets(st.sampled_from("ab")), chosen=schedules, mode=modes, delete=st.booleans(), same=st.booleans())
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

    @rule(pick=picks, length=st.sampled_from([None, SECOND, MINUTE, 90 * SECOND, 10 * MINUTE]))
    def pause(self, pick: int, length: Millis | None) -> None:
        job_id = self.a_job(pick)
        if job_id is None:
            return
        until = None if length is None else self.world.now + length
        try:
            assert not self.world.pause(job_id, until=until).enabled
        except InvalidJob:
            job = self.world.job(job_id)
            assert isinstance(schedule_from_json(job.schedule), OneShot)
            assert job.next_run_at is not None
            assert until is not None
            assert job.next_run_at < until

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
            assert self.watched[job_id].moments(self.world.now, self.world.now + DAY) == set()

    @rule(pick=picks)
    def remove(self, pick: int) -> None:
        job_id = self.a_job(pick)
        if job_id is not None:
            self.world.remove(job_id)

    @rule(pick=picks, key=st.sampled_from([None, "k", "l"]))
    def request_run(self, pick: int, key: str | None) -> None:
        job_id = self.a_job(pick)
        if job_id is None:
            return
        data = None if key == "k" else f"{len(self.requested)}"
        earlier = self.keys.get((job_id, key)) if key is not None else None
        if earlier is not None:
            data = self.requested[earlier]
        try:
            run = self.world.request(job_id, key=key, data=data)
            moment = (job_id, run.scheduled_at)
            assert earlier == moment if earlier is not None else run.status == "pending"
            assert run.manual
            self.requested[moment] = data
            if key is not None:
                self.keys[job_id, key] = moment
        except JobBusy:
            assert earlier is None
            opened = [run for run in self.world.history(job_id) if run.status in OPEN]
            assert any(run.waits_for != PAUSE for run in opened)

    @rule(pick=picks)
    def request_cancel(self, pick: int) -> None:
        run = self.an_open_run(pick)
        if run is not None:
            now = self.world.cancel(run)
            assert (now.status, now.cancel_requested) == (("running", 1) if run.status == "running" else ("cancelled", 0))

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
            requested = self.requested.get((each.job.id, each.run.scheduled_at)) if each.run.manual else None
            assert each.request_data == requested

    @rule(pick=picks, outcome=outcomes, by_handle=st.booleans())
    def finish(self, pick: int, outcome, by_handle: bool) -> None:
        run = self.an_open_run(pick, "running")
        if run is not None:
            assert run.owner is not None
            finished = self.world.finish_own(run, outcome) if by_handle else self.world.finish(run, outcome, owner=run.owner)
            assert finished == self.world.run(run)
            assert finished is not None
            requested = run.cancel_requested and outcome == INTERRUPTED
            assert finished.status == ("cancelled" if requested else outcome.status)

    @rule(outcome=outcomes)
    def finish_all(self, outcome) -> None:
        for run in self.world.do(lambda s: s.running()):
            self.world.finish(run, outcome, owner=run.owner)

    @rule(who=st.integers(0, 1))
    def work(self, who: int) -> None:
        """A scheduler with free slots claims when the next run is due."""
        self.advance_to_the_next()
        self.claim(who, 6, None)

    @rule(outcome=outcomes)
    def work_to_the_end(self, outcome) -> None:
        self.work(0)
        self.finish_all(outcome)

    @rule()
    def work_and_crash(self) -> None:
        self.work(0)
        self.crash(0)

    @rule(pick=picks, shown=st.booleans())
    def start(self, pick: int, shown: bool) -> None:
        """A loop of a user's own claims, by id or with a job from `get_due_jobs` or `get_retry_jobs`."""
        targets = [*self.world.due(), *self.world.retries()] if shown else list(self.jobs())
        if targets:
            target = targets[pick % len(targets)]
            try:
                run = self.world.start(target)
            except JobBusy:
                job = self.world.job(target if isinstance(target, str) else target.id)
                running = [run for run in self.world.history() if run.status == "running"]
                holder = None if job.held_by is None else self.rows[job.held_by]
                waits = holder is not None and (
                    holder.status == "running" or holder.waits_for is not None or holder.ready_at > self.world.now or not shown
                )
                in_loop = in_crash_loop(job.crashes) and len(running) > 0
                assert waits or in_loop or any(run.session for run in running)
                return
            except AlreadyClaimed:
                outdated = {run.id: run for run in self.world.history() if run.cause == "misfire"}
                assert not self.exact or any(self.rows.get(run_id) != run for run_id, run in outdated.items())
                return
            assert run == self.world.run(run)
            assert run.status == "running"

    @rule(who=st.integers(0, 1))
    def crash(self, who: int) -> None:
        self.boots[who] += 1
        this_process = process(("here", "there")[who], self.boots[who])
        dead = self.owners[who]
        self.owners[who] = self.world.register(this_process)
        self.world.owner = self.owners[0]
        recovered = self.world.recover(this_process, trust_leases=False)
        assert {run.owner for run in recovered} <= {dead}
        assert self.world.do(lambda s: s.running(owner=dead)) == []

    @rule(who=st.integers(0, 1))
    def let_lease_end(self, who: int) -> None:
        """The other owner sends no heartbeat for as long as its lease."""
        self.advance(LEASE + 1)
        this_process = process(("here", "there")[who], self.boots[who])
        recovered = self.world.recover(this_process, trust_leases=True, mine=[self.owners[who]])
        assert self.owners[who] not in {run.owner for run in recovered}
        if self.exact:  # else a lease may end later than the clock shows
            assert all(run.owner == self.owners[who] for run in self.world.do(lambda s: s.running()))
        other = self.owners[1 - who]
        if self.world.do(leases.was_declared_dead, other):  # its patrol notices, cancels its runs, and revives it
            assert self.world.do(claim_due, owner=other, limit=9).runs == []
            self.world.do(leases.revive, other, process("there"))

    # Time

    @rule(by=leaps)
    def advance(self, by: Millis) -> None:
        before = self.world.now
        self.world.pass_time(by)
        for job_id, job in self.jobs().items():
            if job.enabled:
                self.watched[job_id].passed |= self.watched[job_id].moments(before, self.world.now)
        self.end_pauses()

    def end_pauses(self) -> None:
        """Resume jobs as the clock does, which may be late; moments since the end of their pauses are missed ones."""
        ending = self.world.do(lambda s: s.pauses.to_end(now=self.world.now, limit=FEW + 9))
        disabled = {job_id for job_id, job in self.jobs().items() if not job.enabled}
        assert self.world.do(end_pauses) is bool(ending)
        for pause in ending:
            if pause.job_id in disabled and self.world.job(pause.job_id).enabled:
                assert pause.until_at is not None
                known = self.watched[pause.job_id]
                known.passed |= known.moments(pause.until_at - 1, self.world.now)
        assert not self.world.do(end_pauses)

    @rule()
    def advance_to_the_next(self) -> None:
        next_due = self.world.do(lambda s: s.next_times().due)
        if next_due is not None and 0 < next_due - self.world.now <= 10 * MINUTE:
            self.advance(next_due - self.world.now)

    def teardown(self) -> None:
        with closing(self.world):
            if self.sound:  # otherwise the failure that was found is enough
                self.run_to_the_end()

    def run_to_the_end(self) -> None:
        """Without new requests every run that waits finishes after some time."""
        if not self.sound:
            return  # that failure is reported by itself
        if self.exact:
            self.each_moment_is_explained()
        waiting = {run_id for run_id, run in self.rows.items() if run.status in OPEN and run.waits_for != PAUSE}
        undecided = [
            moment
            for job in self.jobs().values()
            for moment in self.watched[job.id].passed
            if job.next_run_at is not None and moment >= job.next_run_at  # with buffer_all each may run before a run that waits
        ]
        for _ in range(3 * len(waiting) + len(undecided) + 10):
            for run in self.world.do(lambda s: s.running()):
                self.world.finish(run, owner=run.owner)
            self.world.claim(100)
            self.world.pass_time(
                6 * MINUTE
            )  # longer than any delay of a retry; with much longer steps buffered moments would never end
        rows = {run.id: run for run in self.world.history()}
        still_open = [rows[run_id] for run_id in waiting if rows[run_id].status in OPEN]
        assert [
            run for run in still_open if not (run.waits_for == PAUSE and self.was_disabled_by_crashes(run.job_id, rows))
        ] == []

    def was_disabled_by_crashes(self, job_id: str, rows: dict[int, RunRow]) -> bool:
        """Return whether a crash loop was disabled as its retry came too late for the job's window: its other runs wait until it is resumed."""
        job = self.world.job(job_id)
        outdated = [run for run in rows.values() if run.job_id == job_id and (run.status, run.cause) == ("cancelled", "misfire")]
        requested = any(run.job_id == job_id and run.manual and run.status == "success" for run in rows.values())
        crashed = job.crashes > FREE_CRASHES or requested  # a requested run that ends by itself has set the count back
        return not job.enabled and crashed and any(run.attempt > 1 for run in outdated)


class ClockSetBack(Machine):
    """The same in plain dicts, with the wall clock set back now and then."""

    make = staticmethod(in_dicts)

    @rule(
        by=st.sampled_from([SECOND, MINUTE, 10 * MINUTE, HOUR]),
        unseen=st.lists(st.sampled_from(["wait", "wait", "claim", "finish"]), max_size=6),
        both=st.booleans(),
    )
    def set_back(self, by: Millis, unseen: list[str], both: bool) -> None:
        """One scheduler or both notice it after a while, and runs are claimed and finished meanwhile."""
        self.exact = False
        self.world.now -= by
        set_to = self.world.now
        for known in self.watched.values():
            known.passed = {moment for moment in known.passed if moment <= set_to}
        self.work_meanwhile(unseen)
        self.forget_moments_of_done_jobs(set_to)
        self.note_rows_ahead(set_to)
        self.world.notice_set_back(by, set_to=set_to)
        if both:
            self.work_meanwhile(unseen)
            self.forget_moments_of_done_jobs(set_to)
            self.world.notice_set_back(by, set_to=set_to - SECOND, owner=self.owners[1])
        for job in self.jobs().values():
            known = self.watched[job.id]
            known.anchor = min(known.anchor, job.anchor_at)
            if job.enabled and job.next_run_at is not None and isinstance(schedule_from_json(job.schedule), Interval):
                assert job.next_run_at <= max(self.world.now, known.anchor) + schedule_from_json(job.schedule).every_ms

    def forget_moments_of_done_jobs(self, set_to: Millis) -> None:
        """A job that was done or deleted with its run before the jump was noticed has no more moments, nor a record of them."""
        jobs = self.jobs()
        for job_id, known in self.watched.items():
            if job_id not in jobs or not jobs[job_id].enabled:
                known.passed = {moment for moment in known.passed if moment <= set_to}

    def work_meanwhile(self, what: list[str]) -> None:
        for each in what:
            self.runs_only_move_forward()
            match each:
                case "wait":
                    self.advance(20 * SECOND)
                case "claim":
                    self.claim(1, 3, None)
                case "finish":
                    self.finish_all(SUCCESS)


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
