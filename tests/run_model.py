"""The model of the state machine of runs: the moments of each job that have passed, and checks after each step."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter, defaultdict
from itertools import pairwise

import attrs
from hypothesis.stateful import RuleBasedStateMachine, invariant

from cronactors.instants import Millis, from_millis
from cronactors.ledger.explain import explain
from cronactors.model import Fate
from cronactors.policy import in_crash_loop, misfire_from_text
from cronactors.schedules.schedule import Interval, OneShot, Schedule
from cronactors.schedules.timestamps import read_timestamp
from cronactors.storage.rows import CRASH_LOOP, PAUSE, JobRow, RunRow
from tests.ledger_world import (
    World,
    in_memory,
    process,
)

OPEN = ("pending", "running")


@attrs.define
class Watched:
    """A job in the model, with its moments that have passed while it was enabled."""

    schedule: Schedule
    anchor: Millis
    row: JobRow
    passed: set[Millis] = attrs.Factory(set)
    allowed_all: bool = False
    most_retries: int = 0

    def moments(self, after: Millis, until: Millis) -> set[Millis]:
        """Return the moments in after < moment <= until."""
        if isinstance(self.schedule, Interval):
            every = self.schedule.every_ms
            first = (max(after, self.anchor) - self.anchor) // every + 1
            return set(range(self.anchor + first * every, until + 1, every))
        assert isinstance(self.schedule, OneShot)
        moment = read_timestamp(self.schedule.at).instant("UTC")
        return {moment} if after < moment <= until else set()


class Model(RuleBasedStateMachine):
    """A storage, the model of its jobs, and the checks."""

    make = staticmethod(in_memory)
    kind_of_world = World

    def __init__(self) -> None:
        super().__init__()
        self.world = self.kind_of_world(self.make)
        self.world.policy = attrs.evolve(self.world.policy, delays=(30, 60, 300))
        self.boots = [1, 1]
        self.owners = [self.world.owner, self.world.register(process("there"))]
        self.watched: dict[str, Watched] = {}
        self.rows: dict[int, RunRow] = {}
        self.ahead: dict[int, Millis] = {}
        """Rows that reached ahead when the jump of the clock was noticed, and the time to which the clock was set."""
        self.exact = True
        self.sound = True

    # Jobs and runs to choose from

    def jobs(self) -> dict[str, JobRow]:
        return {job.id: job for _, job in self.world.do(lambda s: s.list_jobs(after=0, limit=1000, user_id=None))}

    def a_job(self, pick: int) -> str | None:
        jobs = list(self.jobs())
        return jobs[pick % len(jobs)] if jobs else None

    def an_open_run(self, pick: int, *statuses: str) -> RunRow | None:
        runs = [run for run in self.world.history() if run.status in (statuses or OPEN)]
        return runs[pick % len(runs)] if runs else None

    def watch(self, job_id: str, schedule: Schedule) -> None:
        """Add a job, or start its new schedule now; a one-shot of the last minute is due at once."""
        row = self.world.job(job_id)
        known = self.watched.setdefault(job_id, Watched(schedule, self.world.now, row))
        known.schedule, known.anchor, known.row = schedule, self.world.now, row
        if isinstance(schedule, OneShot) and row.enabled:
            known.passed |= known.moments(0, self.world.now)

    def note_rows_ahead(self, set_to: Millis) -> None:
        """Note rows that reach ahead: of their moments only the one by which each is known does not come due again."""
        for run in self.world.history():
            if run.span[1] > self.world.now:
                self.ahead[run.id] = min(set_to, self.ahead.get(run.id, set_to))

    # Checks

    @invariant()
    def all_holds(self) -> None:
        self.sound = False
        self.runs_only_move_forward()
        self.jobs_are_whole()
        self.attempts_follow_each_other()
        self.sessions_do_not_overlap()
        self.crash_loops_do_not_overlap()
        self.no_wake_up_is_lost()
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
                window = misfire_from_text(self.watched[after.job_id].row.misfire).window
                if window is not None and after.attempt > 1 and not after.manual:
                    assert from_millis(after.started_at) - from_millis(after.scheduled_at) <= window, "it came too late"
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
                assert (later.coalesced, later.range_at) == (earlier.coalesced, earlier.range_at)
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
            assert job.held_by is None or job.held_by in opened, "held by a run that has finished"
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

    def crash_loops_do_not_overlap(self) -> None:
        """At most one job in a crash loop is running, unless it allowed all overlaps: then it may have got into the loop during its run."""
        jobs = self.jobs()
        in_crash_loops = {run.job_id for run in self.rows.values() if run.status == "running" and run.job_id in jobs}
        in_crash_loops = {
            job_id for job_id in in_crash_loops if in_crash_loop(jobs[job_id].crashes) and not self.watched[job_id].allowed_all
        }
        assert len(in_crash_loops) <= 1

    def no_wake_up_is_lost(self) -> None:
        jobs = self.jobs()
        opened = [run for run in self.rows.values() if run.status in OPEN]
        for waiter in opened:
            if waiter.waits_for in (None, PAUSE):
                continue
            others = [run for run in opened if run.waits_for is None]
            if waiter.waits_for.startswith("session:"):
                assert any(run.session == waiter.waits_for for run in others), waiter
            elif waiter.waits_for == CRASH_LOOP:
                running = [run.job_id for run in others if run.status == "running"]
                assert any(job_id not in jobs or in_crash_loop(jobs[job_id].crashes) for job_id in running), waiter
            else:
                held = jobs[waiter.job_id].held_by is not None
                assert held or any(run.job_id == waiter.job_id and run.status == "pending" for run in others), waiter

    def each_moment_is_explained(self) -> None:
        """Each moment that has passed is explained by the row that stands for it, whatever was changed in the job since."""
        for job_id, job in self.jobs().items():
            known, named = self.watched[job_id], Counter[str]()
            for moment in known.passed:
                found = self.world.do(explain, job, moment)
                if found.run_id is None:
                    assert found.outcome is Fate.WAITING, found
                    assert job.next_run_at is not None, found
                    assert moment >= job.next_run_at, found
                else:
                    assert found.outcome in {Fate.RUN, Fate.MERGED, Fate.SKIPPED, Fate.WAITING}, found
                    named[found.run_id] += 1
            rows: Counter[str] = Counter()
            moments_of: dict[Millis, list[RunRow]] = defaultdict(list)
            for run in self.rows.values():
                if run.job_id == job_id and not run.manual:
                    moments_of[run.scheduled_at].append(run)
            for first, *_, last in ([*runs, runs[-1]] for runs in moments_of.values()):
                merged = first.coalesced - 1
                # The moment by which the row is known is explained by its last attempt, the others by the attempt next to them.
                rows[str(last.id)] += 1
                rows[str((first if first.scheduled_at == first.span[1] else last).id)] += merged
            assert named == rows

    def each_moment_is_accounted_for(self) -> None:
        """One row stands for each moment that has passed, or the moment waits to be decided.

        Once the clock was set back the moments of rows pass a second time. Those within the range of a row that reaches ahead come due
        a second time, and a second row stands for them.
        """
        jobs = self.jobs()
        rows: dict[str, list[RunRow]] = defaultdict(list)
        for run in self.rows.values():
            if run.attempt == 1 and not run.manual:
                rows[run.job_id].append(run)
        for job_id, known in self.watched.items():
            job = jobs.get(job_id)
            passed = sorted(known.passed)
            found: Counter[Millis] = Counter()
            for run in rows[job_id]:
                low, high = run.span
                stands_for = passed[bisect_left(passed, low) : bisect_right(passed, min(high, self.ahead.get(run.id, high)))]
                if run.id in self.ahead and run.scheduled_at in known.passed:
                    stands_for.append(run.scheduled_at)
                found.update(stands_for)
                assert run.range_at is None or run.status != "skipped" or run.scheduled_at == low, run
                if self.exact:
                    assert {low, high} <= known.passed, run
                    assert run.coalesced == len(stands_for), run
            if job is not None and job.enabled and job.next_run_at is not None:
                undecided = passed[bisect_left(passed, job.next_run_at) :]
                found.update(undecided if self.exact else set(undecided) - found.keys())
            missing = known.passed - found.keys()
            assert not missing, (known, sorted(missing))
            assert not self.exact or found.total() == len(passed), [moment for moment, times in found.items() if times > 1]
