"""What the state machine of runs knows, and what must hold after each step."""

from __future__ import annotations

from collections import Counter, defaultdict
from itertools import pairwise

import attrs
from hypothesis.stateful import RuleBasedStateMachine, invariant

from cronactors.instants import Millis
from cronactors.policy import is_suspect
from cronactors.schedule import Interval, OneShot, Schedule
from cronactors.storage.rows import CRASH_LOOP, PAUSE, JobRow, RunRow
from cronactors.timestamps import read_timestamp
from tests.ledger_world import (
    World,
    in_memory,
    process,
)

OPEN = ("pending", "running")


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


class Model(RuleBasedStateMachine):
    """A storage, what is known of it, and what must hold."""

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

    def watch(self, job_id: str, schedule: Schedule) -> None:
        """A new baseline from now; a one-shot of the last minute is due at once."""
        row = self.world.job(job_id)
        known = self.watched.setdefault(job_id, Watched(schedule, self.world.now, row))
        known.schedule, known.anchor, known.row = schedule, self.world.now, row
        if isinstance(schedule, OneShot) and row.enabled:
            known.passed += known.moments(0, self.world.now)

    # What must hold

    @invariant()
    def all_holds(self) -> None:
        self.sound = False
        self.runs_only_move_forward()
        self.jobs_are_whole()
        self.attempts_follow_each_other()
        self.sessions_do_not_overlap()
        self.suspects_do_not_overlap()
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

    def suspects_do_not_overlap(self) -> None:
        """At most one runs, unless a job came to be one while its run went on: one that had allowed all."""
        jobs = self.jobs()
        suspects = {run.job_id for run in self.rows.values() if run.status == "running" and run.job_id in jobs}
        suspects = {job_id for job_id in suspects if is_suspect(jobs[job_id].crashes) and not self.watched[job_id].allowed_all}
        assert len(suspects) <= 1

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
                assert any(job_id not in jobs or is_suspect(jobs[job_id].crashes) for job_id in running), waiter
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
