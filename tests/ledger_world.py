"""A storage with a wall clock that a test sets; the requests of users and runners are plain calls, a transaction each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Concatenate, NamedTuple, ParamSpec, TypeVar

import attrs

from cronactors.errors import CronError
from cronactors.instants import Millis, from_millis
from cronactors.ledger import claim, clock_set_back, jobs, own_loop, owners, pruning_clock, recovery, runs, views
from cronactors.ledger.finish import finish_runs
from cronactors.ledger.job_fields import Defaults
from cronactors.ledger.pruning import Round
from cronactors.ledger.upsert import JobList, Upserted, upsert_jobs
from cronactors.model import Cause, CronJob, RunStatus
from cronactors.owner import ProcessIdentity
from cronactors.policy import Outcome
from cronactors.retention import History
from cronactors.schedules.schedule import Interval, OneShot, Schedule
from cronactors.settings import RetryPolicy
from cronactors.spec import Delay, JobChanges, JobSpec
from cronactors.storage.protocol import Storage
from cronactors.storage.rows import Claimed, JobRow, RunRow
from cronactors.storage.sqlite import SqliteStorage
from tests.fake_storage import FakeStorage
from tests.postgres_store import in_postgres

T0: Millis = 1_772_409_600_000
"""2026-03-02T00:00:00Z"""
SECOND: Millis = 1_000
MINUTE: Millis = 60_000
HOUR: Millis = 3_600_000
DAY: Millis = 86_400_000
MINUTELY = Interval(MINUTE)
HOURLY = Interval(HOUR)

SUCCESS = Outcome(status=RunStatus.SUCCESS, result="fine")
FAILURE = Outcome(status=RunStatus.FAILED, cause=Cause.ERROR, error="boom")
TIMEOUT = Outcome(status=RunStatus.FAILED, cause=Cause.TIMEOUT, error="timed out")
GAVE_UP = Outcome(status=RunStatus.FAILED, cause=Cause.GAVE_UP, error="no use")
INTERRUPTED = Outcome(status=RunStatus.FAILED, cause=Cause.INTERRUPTED, error="interrupted")
CANCELLED = Outcome(status=RunStatus.CANCELLED, cause=Cause.CANCELLED)

DEFAULTS = Defaults(timezone="UTC", max_retries=3, timeout_secs=7200)

NEWEST_MOMENT = History(days=None, per_job=1, keep_last=0)
"""The shortest history."""

P = ParamSpec("P")
R = TypeVar("R")


def process(name: str, boot: int = 1) -> ProcessIdentity:
    """A process on a machine of its own; those of an earlier boot are certainly dead."""
    return ProcessIdentity(f"{name}/{boot}/", 1, "")


def at(moment: Millis) -> OneShot:
    return OneShot(from_millis(moment))


class RunnerReport(NamedTuple):
    """The outcome of a run, as a runner reports it."""

    run_id: int
    outcome: Outcome
    claimed: Claimed | None


class World:
    """The requests as plain calls; each is a transaction, and a refused one leaves no trace."""

    def __init__(self, make: Callable[[Callable[[], Millis]], Storage]) -> None:
        self.now = T0
        self.storage = make(lambda: self.now)
        self.policy = RetryPolicy()
        self.names = 0
        self.claimed: dict[int, Claimed] = {}
        self.knows_claims = True
        self.this_process = process("here")
        self.owner = self.register(self.this_process)

    def close(self) -> None:
        """Close the storage; one in dicts has nothing to close."""
        if not isinstance(self.storage, FakeStorage):
            self.storage.close()  # type: ignore[attr-defined]

    def do(self, function: Callable[Concatenate[Storage, P], R], *args: P.args, **kwargs: P.kwargs) -> R:
        storage = self.storage
        assert storage.begin(write=True)
        storage.savepoint()
        try:
            answer = function(storage, *args, **kwargs)
        except CronError:
            storage.undo()
            storage.commit()
            raise
        except BaseException:
            storage.rollback()
            raise
        storage.release()
        storage.commit()
        return answer

    def pass_time(self, by: Millis) -> None:
        self.now += by

    # Jobs

    def spec(self, schedule: Schedule | Delay = MINUTELY, *, name: str | None = None, **options: object) -> tuple[str, JobSpec]:
        self.names += 1
        return f"id{self.names}", JobSpec(name or f"job {self.names}", "do it", schedule, **options)  # type: ignore[arg-type]

    def add(self, schedule: Schedule | Delay = MINUTELY, *, name: str | None = None, **options: object) -> str:
        return self.do(jobs.add_jobs, [self.spec(schedule, name=name, **options)], DEFAULTS)[0]

    def with_retry(self) -> str:
        """Add an hourly job whose first moment failed: its retry is due at 1:00:30."""
        job_id = self.add(HOURLY)
        self.now = T0 + HOUR
        self.finish(self.claim_one(), FAILURE)
        return job_id

    def upsert(self, *specs: tuple[str, JobSpec], origin: str | None = None, defaults: Defaults = DEFAULTS) -> list[str]:
        return self.upsert_list(*specs, origin=origin, defaults=defaults).ids

    def upsert_list(self, *specs: tuple[str, JobSpec], defaults: Defaults = DEFAULTS, **fields: object) -> Upserted:
        return self.do(upsert_jobs, JobList(specs=specs, **fields), defaults)  # type: ignore[arg-type]

    def update(self, job_id: str, changes: JobChanges) -> JobRow:
        return self.do(jobs.update_job, job_id, changes)

    def pause(self, job_id: str, *, until: Millis | None = None, note: str = "") -> JobRow:
        return self.do(jobs.pause_job, job_id, until=until, note=note)

    def resume(self, job_id: str) -> JobRow:
        return self.do(jobs.resume_job, job_id)

    def remove(self, job_id: str) -> None:
        self.do(jobs.remove_job, job_id)

    def damage(self, job_id: str, **columns: object) -> None:
        """Write columns that no call of the ledger writes."""
        row = self.job(job_id)._replace(**columns)  # type: ignore[arg-type]
        self.do(lambda storage: storage.update_jobs([row]))

    # Runs

    def claim(
        self, limit: int = 10, *, owner: int | None = None, total: int | None = None, slotless: bool = False
    ) -> list[Claimed]:
        owner = self.owner if owner is None else owner
        claimed = self.do(claim.claim_due, owner=owner, limit=limit, total=total, slotless=slotless).runs
        self.claimed |= {each.run.id: each for each in claimed}
        return claimed

    def claim_one(self) -> RunRow:
        """Claim exactly one run."""
        (claimed,) = self.claim()
        return claimed.run

    def finish(self, run: RunRow, outcome: Outcome = SUCCESS, *, owner: int | None = None) -> RunRow | None:
        owner = self.owner if owner is None else owner
        reports = [RunnerReport(run.id, outcome, self.claimed.get(run.id) if self.knows_claims else None)]
        return self.do(finish_runs, reports, owner=owner, policy=self.policy).runs[0]

    def mark_stopping(self, owner: int) -> None:
        self.storage.mark_stopping(owner)

    def orphans(self, *, trust_leases: bool) -> list[RunRow]:
        return self.do(lambda storage: recovery.orphans(storage, self.this_process, storage.running(), trust_leases=trust_leases))

    def request(self, job_id: str, *, key: str | None = None, data: str | None = None) -> RunRow:
        return self.do(runs.request_run, job_id, key=key, data=data)

    def cancel(self, run: RunRow) -> RunRow:
        return self.do(runs.request_cancel, str(run.id), policy=self.policy)

    def start(self, target: CronJob | str) -> RunRow:
        started = self.do(own_loop.start_own_run, target, owner=self.owner, this_process=self.this_process)
        if isinstance(started, CronError):  # as a handle does after the commit
            raise started
        return started.run

    def finish_own(self, run: RunRow, outcome: Outcome = SUCCESS) -> RunRow:
        return self.do(own_loop.finish_own_run, str(run.id), outcome, policy=self.policy)

    def due(self) -> list[CronJob]:
        return self.do(own_loop.due_jobs, retries=False, limit=None)

    def retries(self) -> list[CronJob]:
        return self.do(own_loop.due_jobs, retries=True, limit=None)

    # Owners and clock

    def register(self, this_process: ProcessIdentity) -> int:
        return self.do(owners.register, this_process)

    def recover(
        self,
        this_process: ProcessIdentity | None = None,
        *,
        trust_leases: bool = True,
        mine: Sequence[int] = (),
        limit: int = recovery.RECOVERED_AT_ONCE,
    ) -> list[RunRow]:
        recovered: list[RunRow] = []
        more = True
        while more:
            runs, more = self.do(
                recovery.recover,
                this_process or self.this_process,
                policy=self.policy,
                trust_leases=trust_leases,
                mine=mine,
                limit=limit,
            )
            recovered += runs
        return recovered

    def crash(self) -> list[RunRow]:
        """End this process as kill -9 does, and start it again."""
        boot = int(self.this_process.machine.split("/")[1])
        self.this_process = process("here", boot + 1)
        self.owner = self.register(self.this_process)
        return self.recover()

    def set_back(self, by: Millis) -> None:
        """Set the wall clock back, and do what the clock actor does when it notices that."""
        self.now -= by
        self.notice_set_back(by, set_to=self.now)

    def notice_set_back(self, by: Millis, *, set_to: Millis, owner: int | None = None) -> None:
        """Do what the clock actor does when it notices the jump some time after it."""
        owner = self.owner if owner is None else owner
        page: int | None = 0
        while page is not None:
            page = self.do(clock_set_back.recompute_page, after=page, limit=2, owner=owner, by=by, since=set_to, earliest=set_to)

    # Pruning

    def round(self, limits: History, *, owners: Sequence[int] = ()) -> Round:
        """Begin a round, at which all time has passed evenly since the last one."""
        clock = self.do(pruning_clock.read)
        return Round(limits, owners, elapsed=0 if clock is None else max(0, self.now - clock.wall))

    # Jobs and runs as they are stored

    def job(self, job_id: str) -> JobRow:
        return self.do(jobs.find_job, job_id)

    def exists(self, job_id: str) -> bool:
        return self.do(lambda storage: bool(storage.jobs([job_id])))

    def view(self, job_id: str) -> CronJob:
        return self.do(lambda storage: views.job_views(storage, [jobs.find_job(storage, job_id)])[0])

    def run(self, run: RunRow) -> RunRow:
        return self.do(lambda storage: storage.runs([run.id])[run.id])

    def history(self, job_id: str | None = None) -> list[RunRow]:
        """All runs, in the order in which they were stored."""
        rows = self.do(lambda storage: storage.list_runs(job_id=job_id, before=None, limit=10_000))
        return sorted(rows, key=lambda run: run.id)

    def summary(self, job_id: str) -> list[tuple[str, str | None, Millis, int, int]]:
        """The history in short: status, cause, moment after T0, attempt, coalesced."""
        return [(run.status, run.cause, run.scheduled_at - T0, run.attempt, run.coalesced) for run in self.history(job_id)]


class PrunedWorld(World):
    """A world whose history is pruned after each finish: of each job only the runs of its newest moment stay.

    `history` and `run` return the pruned rows too, as they were.
    """

    def __init__(self, make: Callable[[Callable[[], Millis]], Storage]) -> None:
        self._passed: Millis = 0  # by a clock that cannot be set
        self._pruned_at: Millis = 0
        self._gone: dict[int, RunRow] = {}
        super().__init__(make)
        clock = pruning_clock.HistoryClock(announced_at=T0 - 1_000 * DAY, time=T0, wall=T0)
        self.do(pruning_clock.write, clock)

    def pass_time(self, by: Millis) -> None:
        super().pass_time(by)
        self._passed += by

    def finish(self, run: RunRow, outcome: Outcome = SUCCESS, *, owner: int | None = None) -> RunRow | None:
        finished = super().finish(run, outcome, owner=owner)
        self.prune()
        return finished

    def prune(self, limits: History = NEWEST_MOMENT) -> None:
        before = {row.id: row for row in super().history()}
        search = Round(limits, (self.owner,), elapsed=self._passed - self._pruned_at)
        self._pruned_at = self._passed
        self.do(search.carry_out, lambda: False)
        left = {row.id for row in super().history()}
        self._gone |= {run_id: row for run_id, row in before.items() if run_id not in left}

    def history(self, job_id: str | None = None) -> list[RunRow]:
        gone = [row for row in self._gone.values() if job_id in (None, row.job_id)]
        return sorted(gone + super().history(job_id), key=lambda run: run.id)

    def run(self, run: RunRow) -> RunRow:
        return self._gone.get(run.id) or super().run(run)


def prune(world: World, limits: History, *, owners: Sequence[int] = (), announced: bool = True, again: bool = False) -> int:
    """Carry out a round and return how many runs it has deleted.

    Args:
        world: The world.
        limits: The settings of the scheduler.
        owners: Its own owners.
        announced: Whether it was announced long ago that history is deleted.
        again: Whether the search begins at the first run, as it does once a week.
    """
    clock = world.do(pruning_clock.read)
    if announced and clock is None:
        clock = pruning_clock.HistoryClock(announced_at=T0 - 1_000 * DAY, time=world.now, wall=world.now)
    if clock is not None:
        clock = attrs.evolve(clock, cursors={}) if again else clock
        world.do(pruning_clock.write, clock)
    search = world.round(limits, owners=owners)
    world.do(search.carry_out, lambda: False)
    return search.deleted


def in_memory(wall: Callable[[], Millis]) -> Storage:
    return SqliteStorage(":memory:", wall=wall)


def in_dicts(wall: Callable[[], Millis]) -> Storage:
    return FakeStorage(wall=wall)


KINDS: Sequence[Callable[[Callable[[], Millis]], Storage]] = (in_memory, in_dicts, in_postgres)
"""The storages on which the ledger must decide alike."""
