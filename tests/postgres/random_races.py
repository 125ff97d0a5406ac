"""Machines that carry out random requests beside each other on one small store, and what must hold when they are done.

The requests of each machine follow from the seed; how they meet does not, so a seed that has failed once may pass. By hand for 300 s,
from seed 7 on, with 4 machines: ``python -m tests.postgres.random_races 300 7 4``.
"""

from __future__ import annotations

import itertools
import random
import sys
import threading
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import ClassVar, Self, cast

import attrs

from cronactors.actors.actor_requests import (
    ClaimDue,
    DecideAndClaim,
    Finished,
    FinishRun,
    FinishSettings,
    MarkStuck,
    Recover,
    Register,
    Registered,
    RenewLeases,
    SignOff,
)
from cronactors.actors.mailbox import BatchRequest, Request
from cronactors.actors.notification_requests import ReadReady, Settle, TakeOver
from cronactors.actors.output_requests import StoreOutput
from cronactors.actors.store import Done, Locked, run_batch
from cronactors.actors.user_requests import (
    AddJobs,
    PauseJob,
    RemoveJob,
    RequestCancel,
    RequestRun,
    ResumeJob,
    UpdateJob,
    UpsertJobs,
)
from cronactors.ledger.alerting import StuckRun
from cronactors.ledger.claim import Claims
from cronactors.ledger.notifications import CallResult, Deliverable, ReadyPage
from cronactors.ledger.run_output import NewOutput
from cronactors.ledger.upsert import JobList
from cronactors.model import Cause, Overlap, RunStatus
from cronactors.notifications import NotificationStatus
from cronactors.policy import in_crash_loop
from cronactors.run_output import Piece
from cronactors.schedules.schedule import Interval
from cronactors.settings import RetryPolicy
from cronactors.spec import JobSpec
from cronactors.storage.notifications import NotificationRow
from cronactors.storage.protocol import Storage
from cronactors.storage.rows import CRASH_LOOP, PAUSE, Claimed, JobRow, RunRow, job_key
from tests.ledger_world import DEFAULTS, FAILURE, GAVE_UP, HOUR, INTERRUPTED, MINUTE, SECOND, SUCCESS, TIMEOUT, World, at, process
from tests.postgres.two_connections import Locks, RacingPostgres
from tests.postgres_store import in_postgres

RECEIVERS = ("notifier", "on_alert", "on_finish")
TOTAL = 6
NAMES = 12
_TRIES = 200


@attrs.frozen
class Dawdle(BatchRequest[None]):
    """Keeps the locks of its batch for a moment."""

    alone: ClassVar[bool] = False
    seconds: float

    @classmethod
    def apply_all(cls, storage: Storage, requests: Sequence[Self]) -> list[None]:
        return [time.sleep(each.seconds) for each in requests]


class InCrashLoops(BatchRequest[frozenset[str]]):
    """Reads which jobs in a crash loop have a running run."""

    alone: ClassVar[bool] = False

    @classmethod
    def apply_all(cls, storage: Storage, requests: Sequence[Self]) -> list[frozenset[str]]:
        jobs = storage.read_jobs([run.job_id for run in storage.running()]).values()
        return [frozenset(job.id for job in jobs if in_crash_loop(job.crashes)) for _ in requests]


class Executions:
    """The runs that are being executed: from the commit of their claim until their finish is sent."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._now: dict[int, Claimed] = {}
        self._claimed: set[tuple[str, int, int, int]] = set()
        self.count = 0

    def begin(self, claims: Sequence[Claimed]) -> None:
        with self._lock:
            for claimed in claims:
                run = claimed.run
                moment = (run.job_id, run.scheduled_at, run.manual, run.attempt)
                assert moment not in self._claimed, f"{moment} was claimed twice"
                self._claimed.add(moment)
                for other in self._now.values():
                    assert run.session is None or run.session != other.run.session, f"{run} and {other.run} use one session"
                    alike = run.job_id == other.run.job_id and claimed.job.overlap != Overlap.ALLOW_ALL
                    assert not alike, f"{run} and {other.run} overlap"
                self._now[run.id] = claimed
                self.count += 1
            assert len(self._now) <= TOTAL, f"{len(self._now)} runs at a time"

    def end(self, run_ids: Sequence[int]) -> None:
        with self._lock:
            for run_id in run_ids:
                del self._now[run_id]


class Shared:
    """What the machines share."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.executions = Executions()
        self.jobs: list[str] = []
        self.numbers = iter(range(10_000_000))
        self.failed = threading.Event()
        self.batches: Counter[str] = Counter()


class Machine:
    """A scheduler and its users, on a connection of their own."""

    def __init__(self, shared: Shared, number: int, seed: int, locks: Locks) -> None:
        self.shared = shared
        self.number = number
        self.random = random.Random(f"{seed}/{number}")
        self.storage = RacingPostgres(shared.world, locks)
        self.boot = 0
        self.running: dict[int, Claimed] = {}
        self.to_deliver: dict[int, NotificationRow] = {}
        self.owner = 0
        self.start()

    @property
    def policy(self) -> RetryPolicy:
        return RetryPolicy(delays=(0.0, 5.0, 60.0))

    def start(self) -> None:
        self.boot += 1
        self.process = process(f"machine {self.number}", self.boot)
        (reply,) = self.carry_out(Register(self.process, RECEIVERS))
        assert isinstance(reply, Registered)
        self.owner = reply.owner

    def carry_out(self, *requests: Request[object]) -> list[object]:
        """Carry out a batch as the store does: again as long as others are in the way."""
        for _ in range(_TRIES):
            result = run_batch(self.storage, requests)
            self.shared.batches[type(result).__name__] += 1
            if not isinstance(result, Locked):
                assert isinstance(result, Done), result
                return result.replies
            time.sleep(self.random.random() / 100)
        raise AssertionError(f"{requests} never get through")

    def work(self, steps: int) -> None:
        try:
            for _ in range(steps):
                if self.shared.failed.is_set():
                    return
                self.step()
        except BaseException:
            self.shared.failed.set()
            raise

    def step(self) -> None:
        (action,) = self.random.choices([self.beside_others, self.alone, self.pass_time, self.die, self.read], [12, 3, 4, 0.3, 1])
        action()

    # Beside others

    def beside_others(self) -> None:
        makers = self.random.choices(
            [self.claim, self.finish, self.settle, self.request, self.add, self.other],
            [5, 6, 3, 3, 1, 1],
            k=self.random.randint(1, 4),
        )
        requests = [request for maker in makers for request in maker()]
        if self.random.random() < 0.5:
            requests.insert(self.random.randint(0, len(requests)), Dawdle(self.random.random() / 200))
        self.apply(requests)

    def apply(self, requests: Sequence[Request[object]]) -> None:
        if not requests:
            return
        self.shared.executions.end([request.run_id for request in requests if isinstance(request, FinishRun)])
        *replies, looping = self.carry_out(*requests, InCrashLoops())
        claimed: list[Claimed] = []
        for request, reply in zip(requests, replies, strict=True):
            match reply:
                case Claims():
                    claimed += reply.runs
                case Finished():
                    assert reply.run is not None, f"{request} had no effect"
                    claimed += [] if reply.next_claimed is None else [reply.next_claimed]
                    self.note(reply.notifications)
                case list() if isinstance(request, Settle):
                    self.note(cast("list[Deliverable]", reply))
                case list() if isinstance(request, AddJobs):
                    self.shared.jobs += cast("list[str]", reply)
                case _:
                    pass
        assert isinstance(looping, frozenset)
        for each in claimed:
            assert not in_crash_loop(each.job.crashes) or looping <= {each.run.job_id}, f"{each} runs beside {looping}"
        self.shared.executions.begin(claimed)
        self.running |= {each.run.id: each for each in claimed}

    def note(self, found: Sequence[Deliverable]) -> None:
        self.to_deliver |= {each.row.id: each.row for each in found if each.row.ready_at is not None}

    def claim(self) -> list[Request[object]]:
        return [ClaimDue(self.owner, self.random.randint(1, 4), TOTAL, 0)]

    def finish(self) -> list[Request[object]]:
        chosen = self.random.sample(sorted(self.running), self.random.randint(0, min(3, len(self.running))))
        return [self.finish_of(self.running.pop(run_id)) for run_id in chosen]

    def finish_of(self, claimed: Claimed) -> FinishRun:
        run = claimed.run
        (outcome,) = self.random.choices([SUCCESS, FAILURE, TIMEOUT, GAVE_UP, INTERRUPTED], [12, 5, 1, 1, 1])
        settings = FinishSettings(owner=self.owner, policy=self.policy, total=TOTAL, receivers=RECEIVERS)
        knows = self.random.random() < 0.8
        output = NewOutput(run.id, (Piece(0, b"done\n"),), None) if self.random.random() < 0.2 else None
        return FinishRun(run.id, outcome, self.random.random() < 0.5, settings, claimed if knows else None, output)

    def settle(self) -> list[Request[object]]:
        chosen = self.random.sample(sorted(self.to_deliver), self.random.randint(0, min(4, len(self.to_deliver))))
        results = []
        for number in chosen:
            row = self.to_deliver.pop(number)
            (status,) = self.random.choices(
                [NotificationStatus.DELIVERED, NotificationStatus.GIVEN_UP, NotificationStatus.PENDING], [6, 1, 1]
            )
            retry_after = 5 * SECOND if status is NotificationStatus.PENDING else None
            results.append(CallResult(row, status, row.attempts + 1, retry_after))
        return [Settle(tuple(results), self.owner)] if results else []

    def request(self) -> list[Request[object]]:
        key = self.random.choice([None, None, "a", "b", "c"])
        return [RequestRun(job_id, key, None) for job_id in self.some_job()]

    def add(self) -> list[Request[object]]:
        return [
            AddJobs(tuple((f"id{next(self.shared.numbers)}", self.spec()) for _ in range(self.random.randint(1, 2))), DEFAULTS)
        ]

    def other(self) -> list[Request[object]]:
        if not self.running or self.random.random() < 0.5:
            return [RenewLeases((self.owner,))]
        run_id = self.random.choice(sorted(self.running))
        stuck = MarkStuck((StuckRun(run_id, Cause.TIMEOUT, MINUTE),))
        return [stuck, StoreOutput((NewOutput(run_id, (Piece(0, b"line\n"),), None),))]

    def spec(self) -> JobSpec:
        chance = self.random.random()
        moment = at(self.shared.world.now + self.random.choice([SECOND, MINUTE, HOUR]))
        options: dict[str, object] = {
            "overlap": self.random.choice(list(Overlap)),
            "session_mode": self.random.choice(["main", "main", "isolated"]),
            "user_id": self.random.choice(["ada", "bob"]),
            "delete_after_run": self.random.random() < 0.2,
            "max_retries": self.random.choice([0, 2]),
        }
        schedule = moment if chance < 0.3 else Interval(self.random.choice([20 * SECOND, MINUTE, 5 * MINUTE]))
        name = f"name {self.random.randrange(NAMES)}"
        return JobSpec(name, "do it", schedule, **options)  # type: ignore[arg-type]

    def some_job(self) -> list[str]:
        recent = self.shared.jobs[-NAMES:]
        return [self.random.choice(recent)] if recent else []

    # Alone

    def alone(self) -> None:
        makers = [
            self.pause,
            self.resume,
            self.remove,
            self.cancel,
            self.update,
            self.cancel_and_claim,
            self.recover,
            self.take_over,
        ]
        (maker,) = self.random.choices([*makers, self.upsert], [2, 3, 1, 2, 3, 3, 2, 2, 1])
        self.apply(maker())

    def pause(self) -> list[Request[object]]:
        until = self.random.choice([None, self.shared.world.now + self.random.choice([SECOND, MINUTE, 3 * MINUTE])])
        return [PauseJob(job_id, until, "") for job_id in self.some_job()]

    def resume(self) -> list[Request[object]]:
        return [ResumeJob(job_id) for job_id in self.some_job()]

    def remove(self) -> list[Request[object]]:
        return [RemoveJob(job_id) for job_id in self.some_job()]

    def cancel(self) -> list[Request[object]]:
        newest = max(self.running, default=20)
        return [RequestCancel(str(self.random.randint(max(1, newest - 20), newest + 5)), self.policy)]

    def update(self) -> list[Request[object]]:
        changes: list[dict[str, object]] = [
            {"session_mode": self.random.choice(["main", "isolated"])},
            {"overlap": self.random.choice(list(Overlap))},
            {"schedule": Interval(self.random.choice([20 * SECOND, MINUTE]))},
        ]
        return [UpdateJob(job_id, self.random.choice(changes)) for job_id in self.some_job()]  # type: ignore[arg-type]

    def cancel_and_claim(self) -> list[Request[object]]:
        return [DecideAndClaim(self.owner, self.random.randint(0, 3), TOTAL, 0)]

    def recover(self) -> list[Request[object]]:
        return [Recover(self.process, self.policy, trust_leases=False, own_owners=frozenset([self.owner]), requested_at=0)]

    def take_over(self) -> list[Request[object]]:
        return [TakeOver(RECEIVERS, self.owner, self.process, trust_leases=False, own_owners=frozenset([self.owner]), limit=100)]

    def upsert(self) -> list[Request[object]]:
        specs = tuple((f"id{next(self.shared.numbers)}", self.spec()) for _ in range(2))
        return [UpsertJobs((JobList(specs=specs, origin="agent.toml", file="agent.toml", keeps_passed=True),), DEFAULTS)]

    # Other things that happen

    def pass_time(self) -> None:
        self.shared.world.now += self.random.choice([SECOND, 10 * SECOND, MINUTE, 3 * MINUTE])

    def read(self) -> None:
        receiver = self.random.choice(RECEIVERS)
        (page,) = self.carry_out(ReadReady(receiver, self.owner, 5, frozenset(self.to_deliver)))
        assert isinstance(page, ReadyPage)
        self.note(page.deliverables)

    def die(self) -> None:
        """End this process, as kill -9 does or with a farewell, and start it again."""
        self.shared.executions.end(list(self.running))
        self.running.clear()
        self.to_deliver.clear()
        if self.random.random() < 0.5:
            self.carry_out(SignOff((self.owner,)))
        self.start()
        self.carry_out(*self.recover())


def play(seed: int, *, machines: int = 3, steps: int = 60, locks: Locks = Locks.ALL) -> str:
    """Let machines work beside each other, and check the store afterwards; return figures."""
    with closing(World(in_postgres)) as world:
        shared = Shared(world)
        added = Machine(shared, 0, seed, Locks.ALL)
        workers = [added, *(Machine(shared, number, seed, locks) for number in range(1, machines))]
        try:
            for _ in range(6):
                added.apply(added.add())
            with ThreadPoolExecutor(machines) as threads:
                for done in [threads.submit(worker.work, steps) for worker in workers]:
                    done.result()
            check(world)
            drain(world)
            check(world)
        except BaseException as error:
            error.add_note(f"seed {seed}")
            raise
        finally:
            for worker in workers:
                worker.storage.close()
        figures = ", ".join(f"{count} {name}" for name, count in sorted(shared.batches.items()))
        return f"{shared.executions.count} runs; {figures}"


def drain(world: World) -> None:
    """Finish all runs, and claim what is due, until nothing is; some time passes meanwhile."""
    for _ in range(4):
        for _ in range(2_000):
            running = world.do(lambda storage: storage.running())
            for run in running:
                world.finish(run, owner=run.owner)
            if not world.claim(limit=50) and not running:
                break
        else:
            raise AssertionError("there is no end of what is due")
        check(world)
        assert not world.do(lambda storage: storage.due(now=world.now, limit=1))
        world.pass_time(2 * MINUTE)


def check(world: World) -> None:
    """Check what must hold whenever no transaction is open."""
    jobs = {job.id: job for _, job in world.do(lambda s: s.list_jobs(after=0, limit=1_000, user_id=None))}
    runs = {run.id: run for run in world.history()}
    opened = [run for run in runs.values() if run.status in (RunStatus.PENDING, RunStatus.RUNNING)]
    for job in jobs.values():
        _check_job(job, [run for run in opened if run.job_id == job.id])
    for run in opened:
        if run.status == RunStatus.PENDING:
            assert run.job_id in jobs, f"{run} waits, and its job is removed"
            _check_waiting(run, jobs, [other for other in opened if other.id != run.id])
    _check_moments(list(runs.values()))
    _check_attempts(list(runs.values()))
    _check_notifications(world)


def _check_job(job: JobRow, opened: Sequence[RunRow]) -> None:
    assert job.held_by is None or job.held_by in {run.id for run in opened}, f"{job} is held by a run that is not open"
    if job.overlap == Overlap.ALLOW_ALL:
        return
    running = [run.id for run in opened if run.status == RunStatus.RUNNING]
    assert not running or job.held_by is not None, f"{job} is in the queue beside its runs {running}"
    if job.enabled and job.next_run_at is None:
        assert opened, f"{job} is enabled and has no moment left"


def _check_waiting(run: RunRow, jobs: dict[str, JobRow], others: Sequence[RunRow]) -> None:
    """Check that a pending run is in the queue, or that who holds its key is open and will release it."""
    key, job = run.waits_for, jobs[run.job_id]
    if key is None:
        return
    if key == PAUSE:
        holds = not job.enabled
    elif key == CRASH_LOOP:
        running = [jobs.get(other.job_id) for other in others if other.status == RunStatus.RUNNING]
        holds = any(other is None or in_crash_loop(other.crashes) for other in running)
    elif key == job_key(run.job_id):
        of_job = [other for other in others if other.job_id == run.job_id]
        holds = job.held_by in {other.id for other in of_job} or any(_is_next(other) for other in of_job)
    else:
        assert key == run.session
        holds = any(other.session == key and _is_next(other) for other in others)
    assert holds, f"{run} waits for {key}, which nothing holds"


def _is_next(run: RunRow) -> bool:
    return run.status == RunStatus.RUNNING or run.waits_for is None


def _check_moments(runs: Sequence[RunRow]) -> None:
    of_jobs: dict[str, list[RunRow]] = {}
    for run in runs:
        # A schedule that has replaced another may have the same moments.
        if run.attempt == 1 and not run.manual and run.cause != Cause.REPLACED:
            of_jobs.setdefault(run.job_id, []).append(run)
    for of_job in of_jobs.values():
        of_job.sort(key=lambda run: run.span)
        for before, after in itertools.pairwise(of_job):
            assert before.span[1] < after.span[0], f"two rows stand for one moment: {before}, {after}"


def _check_attempts(runs: Sequence[RunRow]) -> None:
    """Check that the ids of the attempts of a moment grow: an id is the token by which others refuse an earlier attempt."""
    attempts: dict[tuple[str, int, int], list[tuple[int, int, str]]] = {}
    for run in runs:
        attempts.setdefault((run.job_id, run.scheduled_at, run.manual), []).append((run.attempt, run.id, run.status))
    for moment, found in attempts.items():
        found.sort()
        ids = [number for _, number, _ in found]
        assert ids == sorted(ids), f"{moment}: {found}"
        assert [attempt for attempt, _, _ in found] == list(range(1, len(found) + 1)), f"{moment}: {found}"
        assert sum(status in (RunStatus.PENDING, RunStatus.RUNNING) for *_, status in found) <= 1, f"{moment}: {found}"
        assert all(status != RunStatus.SUCCESS for *_, status in found[:-1]), f"{moment}: {found}"


def _check_notifications(world: World) -> None:
    rows = world.do(lambda s: s.notifications.page(before=None, status="pending", receiver=None, limit=10_000))[0]
    lines: dict[tuple[str, str], list[NotificationRow]] = {}
    for row in rows:
        lines.setdefault(row.line, []).append(row)
    for line, found in lines.items():
        ready = [row for row in found if row.ready_at is not None]
        assert len(ready) == 1, f"{line}: {len(ready)} of {len(found)} are ready"
        assert ready[0].id == min(row.id for row in found), f"{line} is out of order"


def main(seconds: int, first: int = 0, machines: int = 3) -> None:
    """Play for a time."""
    end, seed = time.monotonic() + seconds, first
    while time.monotonic() < end:
        figures = play(seed, machines=machines, steps=200)
        if seed % 10 == 0:
            print(seed, figures, flush=True)  # noqa: T201
        seed += 1
    print(f"seeds {first} to {seed - 1}")  # noqa: T201


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
