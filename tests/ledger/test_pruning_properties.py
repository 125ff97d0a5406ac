"""Random histories, limits and clocks: pruning removes nothing that is to stay, no moment runs twice, and no job falls silent."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import closing, suppress

import pytest
from hypothesis import given, settings, strategies as st

from cronactors.errors import JobBusy
from cronactors.ledger import pruning_clock
from cronactors.ledger.pruning import Cutoffs, KeptRun, Round, is_pruned
from cronactors.ledger.pruning_clock import HistoryClock
from cronactors.model import Overlap
from cronactors.retention import History
from cronactors.schedules.schedule import Cron, Interval
from cronactors.storage.notifications import NotificationRow
from cronactors.storage.rows import RunRow
from tests.ledger_world import DAY, FAILURE, HOUR, KINDS, MINUTE, SUCCESS, T0, World

LIMITS = st.builds(
    History,
    days=st.sampled_from([None, 0.01, 0.1, 1]),
    per_job=st.sampled_from([None, 1, 3, 20]),
    keep_last=st.sampled_from([0, 1, 5]),
)
MOVES = st.one_of(
    st.tuples(st.just("pass"), st.sampled_from([MINUTE, 7 * MINUTE, HOUR])),
    st.tuples(st.just("set"), st.sampled_from([-40 * DAY, -3 * DAY, -HOUR, -5 * MINUTE, 5 * MINUTE, HOUR, 3 * DAY, 40 * DAY])),
    st.tuples(st.just("run"), st.integers(1, 12)),
    st.tuples(st.just("back"), st.integers(1, 3)),
    st.tuples(st.just("fail"), st.integers(1, 4)),
    st.tuples(st.just("claim"), st.just(0)),
    st.tuples(st.just("request"), st.integers(0, 2)),
    st.tuples(st.just("pause"), st.integers(0, 2)),
    st.tuples(st.just("resume"), st.integers(0, 2)),
    st.tuples(st.just("edit"), st.integers(0, 2)),
    st.tuples(st.just("notify"), st.sampled_from(["on_finish", "mail"])),
    st.tuples(st.just("prune"), LIMITS),
)
RECEIVERS = '["on_finish"]'


class Life:
    """A world with three jobs, whose clock goes evenly but for the jumps. It passes less than a day, so no jump ahead is believed."""

    def __init__(self, world: World, harsh: History | None) -> None:
        self.world = world
        self.harsh = harsh
        self.passed = 0
        self.round_at = 0
        self.ran: Counter[tuple[str, int]] = Counter()
        world.do(lambda storage: storage.insert_owner(storage.owners()[0]._replace(id=0, receivers=RECEIVERS)))
        clock = HistoryClock(announced_at=T0 - 1_000 * DAY, time=T0, wall=T0)
        world.do(pruning_clock.write, clock)
        self.jobs = [
            world.add(Interval(MINUTE)),
            world.add(Cron("*/5 * * * *"), overlap=Overlap.BUFFER_ALL),
            world.add(Interval(10 * MINUTE), overlap=Overlap.CANCEL_OTHER, history=History(days=0.02, keep_last=2)),
        ]
        self.notified: list[int] = []

    def pass_(self, by: int) -> None:
        self.passed += by
        self.world.pass_time(by)

    def set(self, by: int) -> None:
        if by < 0:
            self.world.set_back(-by)
        else:
            self.world.now += by

    def back(self, index: int) -> None:
        """Set the clock back to before the last runs, and edit or resume a job there."""
        self.set(-5 * MINUTE)
        if index == 1:
            self.pause(0)
            self.resume(0)
        elif index == 2:
            self.edit(0)

    def claim(self, _: int = 0) -> list[RunRow]:
        claimed = [each.run for each in self.world.claim()]
        for run in claimed:
            if run.attempt == 1 and not run.manual:
                self.ran[run.job_id, run.scheduled_at] += 1
        return claimed

    def run(self, times: int, outcome=SUCCESS) -> None:
        for _ in range(times):
            self.pass_(MINUTE)
            self.claim()
            for run in self.world.do(lambda storage: storage.running()):
                self.world.finish(run, outcome)
            if self.harsh is not None:
                self.prune(self.harsh)

    def fail(self, times: int) -> None:
        self.run(times, FAILURE)

    def request(self, index: int) -> None:
        with suppress(JobBusy):
            self.world.request(self.jobs[index])

    def pause(self, index: int) -> None:
        self.world.pause(self.jobs[index])

    def resume(self, index: int) -> None:
        self.world.resume(self.jobs[index])

    def edit(self, index: int) -> None:
        schedules = [Interval(MINUTE), Interval(2 * MINUTE), Cron("*/5 * * * *"), Cron("*/7 * * * *"), Interval(10 * MINUTE)]
        self.world.update(self.jobs[index], {"schedule": schedules[(index + self.passed // MINUTE) % 5]})

    def notify(self, receiver: str) -> None:
        for run in self.world.history()[-3:]:
            row = NotificationRow(id=0, key=None, run_id=run.id, receiver=receiver, job_id=run.job_id, created_at=self.world.now)
            self.world.do(lambda storage, row=row: storage.notifications.insert([row]))
            if receiver == "on_finish":
                self.notified.append(run.id)

    def prune(self, limits: History) -> None:
        before = self.world.history()
        search = Round(limits, {1, 2}, elapsed=max(1, self.passed - self.round_at))  # 0 would be a start
        self.round_at = self.passed
        self.world.do(search.carry_out, lambda: False)
        left = self.world.history()
        check_pruned(self, limits, before, left)


def check_pruned(life: Life, settings: History, before: Sequence[RunRow], left: Sequence[RunRow]) -> None:
    kept = {run.id for run in left}
    moments = {(run.job_id, run.scheduled_at) for run in left}
    for job_id in life.jobs:
        limits = History(days=0.02, keep_last=2) if job_id == life.jobs[2] else settings
        rows = sorted(
            (run for run in before if run.job_id == job_id), key=lambda run: (run.scheduled_at, run.manual, run.attempt)
        )
        rows.reverse()
        for place, run in enumerate(rows):
            if run.id in kept:
                continue
            assert run.completed_at is not None
            assert run.status not in ("pending", "running")
            assert place >= limits.keep_last
            assert (job_id, run.scheduled_at) not in moments, "all attempts go together"
            assert run.id not in life.notified
            old = limits.days is not None and run.completed_at <= life.world.now - limits.days * DAY
            assert old or (limits.per_job is not None and place >= limits.per_job)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=150, deadline=None)
@given(moves=st.lists(MOVES, max_size=40), final=LIMITS, harsh=st.none() | LIMITS)
def test_pruning_keeps_what_it_must_and_no_moment_runs_twice(
    kind: Callable[..., object], moves: list[tuple[str, object]], final: History, harsh: History | None
) -> None:
    with closing(World(kind)) as world:  # type: ignore[arg-type]
        life = Life(world, harsh)
        for move, argument in moves:
            getattr(life, {"pass": "pass_"}.get(move, move))(argument)
        life.prune(final)
        life.run(3)
        twice = [key for key, times in life.ran.items() if times > 1]
        assert not twice
        life.harsh = None
        # Far in the future every enabled job has something to run.
        world.now = max(world.now, T0 + 200 * DAY)
        life.run(4)
        recent = {run.job_id for run in world.history() if (run.started_at or 0) >= T0 + 200 * DAY}
        enabled = {job_id for job_id in life.jobs if world.job(job_id).enabled}
        assert enabled <= recent
        assert not [key for key, times in life.ran.items() if times > 1]


ROWS = st.builds(
    KeptRun,
    id=st.integers(1, 9),
    scheduled_at=st.just(100),
    manual=st.integers(0, 1),
    attempt=st.integers(1, 3),
    status=st.just("success") | st.sampled_from(["failed", "cancelled", "skipped", "pending", "running", "of a later release"]),
    started_at=st.none() | st.integers(40, 300),
    completed_at=st.integers(50, 150) | st.none() | st.integers(50, 300),
    range_at=st.none() | st.integers(50, 300),
)
CUTOFFS = st.builds(
    Cutoffs,
    time=st.integers(100, 300),
    old_at=st.none() | st.integers(50, 300),
    beyond=st.none() | st.integers(50, 300),
    kept_from=st.just(1_000),
)


@settings(max_examples=500)
@given(attempts=st.lists(ROWS, min_size=1, max_size=3), cutoffs=CUTOFFS, undecided=st.none() | st.integers(50, 300))
def test_a_moment_goes_only_if_all_of_its_attempts_may(attempts: list[KeptRun], cutoffs: Cutoffs, undecided: int | None) -> None:
    found = is_pruned(attempts, cutoffs, undecided)
    if found:
        for run in attempts:
            assert run.status in {"success", "failed", "cancelled", "skipped"}
            assert run.completed_at is not None
            assert run.completed_at <= cutoffs.time
            assert run.manual or undecided is None or run.last_moment < undecided
            assert run.manual or run.last_moment <= cutoffs.time
            old = cutoffs.old_at is not None and run.completed_at <= cutoffs.old_at
            assert old or (cutoffs.beyond is not None and run.scheduled_at < cutoffs.beyond)
