"""Several schedulers on one schema: each moment runs once, limits and sessions hold over all of them, and each acts on the others."""

from __future__ import annotations

import signal
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import attrs
import psycopg
import pytest
import trio

from cronactors import (
    Alert,
    AlertKind,
    Cause,
    Cron,
    CronConfig,
    CronJob,
    CronRun,
    CronScheduler,
    Interval,
    JobContext,
    JobSpec,
    OneShot,
    Overlap,
    RunStatus,
    SessionMode,
    current_notification,
    now,
    open_scheduler,
    open_store,
)
from cronactors.policy import FREE_CRASHES
from tests.chaos.child import RETRY, Options, open_lives
from tests.chaos.judge import Ledger, judge, judge_interrupted, read_rows
from tests.postgres_server import new_database, shared_server

TICK = 0.1
PATIENCE = 30


@attrs.define(eq=False)
class Machine:
    """A scheduler, and the runs that it has executed. Each takes ``seconds``."""

    company: Company
    name: str
    seconds: float = 0.02
    ran: list[JobContext] = attrs.field(factory=list)
    in_flight: int = 0
    most: int = 0
    scheduler: CronScheduler = attrs.field(init=False)

    async def executor(self, ctx: JobContext) -> str:
        self.ran.append(ctx)
        self.in_flight += 1
        self.most = max(self.most, self.in_flight)
        try:
            with self.company.running(ctx):
                await trio.sleep(self.seconds)
        finally:
            self.in_flight -= 1
        if ctx.prompt == "fail":
            raise ValueError("as requested")
        return self.name


class Company:
    """All machines.

    Attributes:
        most: How many runs were running at a time over all of them: of each session, of each prompt, and of all ("").
        calls: How often each receiver was called for each run.
        alerts: How often each alert was received.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.machines: list[Machine] = []
        self.most: Counter[str] = Counter()
        self.calls: Counter[tuple[str, str]] = Counter()
        self.alerts: Counter[tuple[AlertKind, int]] = Counter()
        self._in_flight: Counter[str] = Counter()

    @asynccontextmanager
    async def machine(
        self, *, slots: int = 2, total: int | None = None, seconds: float = 0.02, **options: Any
    ) -> AsyncIterator[Machine]:
        machine = Machine(self, f"machine {len(self.machines)}", seconds)
        self.machines.append(machine)
        config = CronConfig(max_concurrent_runs=slots, max_concurrent_runs_total=total, retry=RETRY)
        async with open_scheduler(
            self.url, machine.executor, config=config, tick_interval=TICK, shutdown_grace=PATIENCE, **options
        ) as machine.scheduler:
            yield machine

    @contextmanager
    def running(self, ctx: JobContext) -> Iterator[None]:
        counted = ["", ctx.prompt, *([f"session of {ctx.user_id}"] if ctx.session_mode is SessionMode.MAIN else [])]
        self._in_flight.update(counted)
        for each in counted:
            self.most[each] = max(self.most[each], self._in_flight[each])
        try:
            yield
        finally:
            self._in_flight.subtract(counted)

    async def notifier(self, _job: str, _session: str, _text: str, _success: bool) -> None:
        self._count_call()

    async def on_finish(self, _job: CronJob, _run: CronRun) -> None:
        self._count_call()

    def _count_call(self) -> None:
        notification = current_notification()
        self.calls[notification.receiver, notification.key] += 1

    async def on_alert(self, _job: CronJob, alert: Alert) -> None:
        self.alerts[alert.kind, alert.count] += 1

    async def add(self, *specs: JobSpec) -> list[str]:
        """Add jobs as a process without a scheduler does."""
        async with open_store(self.url) as store:
            return await store.add_jobs(specs)

    async def until_all_ended(self, jobs: int) -> list[CronRun]:
        """Wait until the runs of so many one-shots have ended, and return them."""
        async with open_store(self.url) as store:
            with trio.fail_after(PATIENCE):
                while True:
                    runs = [run for run in await store.list_runs(limit=1000) if run.job_name.startswith("shot")]
                    if len(runs) >= jobs and all(run.status.ended for run in runs):
                        return runs
                    await trio.sleep(0.02)

    @property
    def ran(self) -> list[JobContext]:
        return [ctx for machine in self.machines for ctx in machine.ran]

    @property
    def shares(self) -> list[int]:
        """How many runs each machine has executed."""
        return [len(machine.ran) for machine in self.machines]


@pytest.fixture
def company() -> Company:
    return Company(new_database(shared_server()))


def shots(count: int, prompt: str = "work", *, first: int = 0, **options: Any) -> list[JobSpec]:
    due = now()
    return [JobSpec(f"shot {number}", prompt, OneShot(due), **options) for number in range(first, first + count)]


async def until(holds: Callable[[], object]) -> None:
    with trio.fail_after(PATIENCE):
        while not holds():
            await trio.sleep(0.01)


@pytest.mark.slow
async def test_each_moment_runs_once(company: Company) -> None:
    repeated = [
        JobSpec("often", "work", Interval(100), overlap=Overlap.ALLOW_ALL),
        JobSpec("less often", "work", Interval(300), overlap=Overlap.BUFFER_ALL),
        JobSpec("cron", "work", Cron("* * * * * *")),
    ]
    async with company.machine(), company.machine():
        await company.add(*shots(100), *repeated)
        await until(lambda: {ctx.job_name for ctx in company.ran}.issuperset(["cron"]) and len(company.ran) >= 110)
    assert set(Counter((ctx.job_id, ctx.scheduled_at) for ctx in company.ran).values()) == {1}
    assert {ctx.attempt for ctx in company.ran} == {1}
    assert min(company.shares) > 0


async def test_many_that_start_at_once_create_the_schema_and_their_jobs_once(company: Company) -> None:
    """As when a new release is rolled out."""
    jobs = [JobSpec(f"job {number}", "work", Interval.every(hours=1)) for number in range(20)]

    async def live() -> None:
        async with company.machine(jobs=jobs) as machine:
            await machine.scheduler.wait_idle()

    async with trio.open_nursery() as nursery:
        for _ in range(4):
            nursery.start_soon(live)
    async with open_store(company.url, create=False) as store:
        assert sorted(job.name for job in await store.list_jobs()) == sorted(job.name for job in jobs)


async def test_a_pause_acts_on_other_machines(company: Company) -> None:
    async with company.machine() as machine, open_store(company.url) as store:
        job_id = await store.add_job("often", "work", Interval(50))
        await until(lambda: machine.ran)
        await store.pause_job(job_id)
        (((paused_at,),),) = read_rows(company.url, "SELECT extract(epoch FROM clock_timestamp()) * 1000")
        await trio.sleep(3 * TICK)  # real time, in which it would run six times
        (((started_at,),),) = read_rows(company.url, "SELECT max(started_at) FROM runs")
        assert started_at <= paused_at
        before = len(machine.ran)
        await store.resume_job(job_id)
        await until(lambda: len(machine.ran) > before)


async def test_an_edit_acts_on_other_machines_within_a_tick(company: Company) -> None:
    async with company.machine() as machine, open_store(company.url) as store:
        job_id = await store.add_job("job", "old", Interval.every(hours=1))
        due = now() + timedelta(seconds=0.2)
        await store.update_job(job_id, prompt="new", schedule=OneShot(due))
        await until(lambda: machine.ran)
        (run,) = await store.list_runs(job_id)
    assert machine.ran[0].prompt == "new"
    assert run.started_at is not None
    assert run.started_at - due < timedelta(seconds=3 * TICK)


@pytest.mark.slow
async def test_a_run_is_cancelled_from_another_machine(company: Company) -> None:
    async with company.machine(seconds=60) as there:
        await company.add(*shots(1))
        await until(lambda: there.in_flight)
        async with company.machine() as here:
            with trio.fail_after(PATIENCE):
                run = await here.scheduler.cancel_run(there.ran[0].run_id)
            assert (run.status, run.cause) == (RunStatus.CANCELLED, Cause.CANCELLED)
        await until(lambda: not there.in_flight)


@pytest.mark.slow
async def test_run_now_waits_for_a_run_that_another_machine_executes(company: Company) -> None:
    async with company.machine(slots=1, seconds=60) as here:
        await company.add(*shots(1))
        await until(lambda: here.in_flight)
        async with company.machine() as there:
            (job_id,) = await company.add(JobSpec("job", "work", Interval.every(hours=1)))
            with trio.fail_after(PATIENCE):
                run = await here.scheduler.run_now(job_id)
            assert (run.status, run.result_summary) == (RunStatus.SUCCESS, there.name)
        await here.scheduler.cancel_run(here.ran[0].run_id)


async def test_each_machine_keeps_its_own_limit(company: Company) -> None:
    async with company.machine(slots=2), company.machine(slots=3):
        await company.add(*shots(40))
        await company.until_all_ended(40)
    assert [machine.most for machine in company.machines] == [2, 3]


async def test_a_total_holds_over_all_machines(company: Company) -> None:
    async with company.machine(total=3), company.machine(total=3):
        await company.add(*shots(60))
        await company.until_all_ended(60)
    assert company.most[""] == 3
    assert min(company.shares) > 0


@pytest.mark.slow
async def test_the_smallest_total_of_the_living_counts(company: Company) -> None:
    async with company.machine(total=4, slots=8), company.machine(total=8, slots=8):
        async with company.machine(total=2, slots=8):
            await company.add(*shots(30))
            await company.until_all_ended(30)
        assert company.most[""] == 2
        await company.add(*shots(60, first=30))
        await company.until_all_ended(90)
    assert company.most[""] == 4


@pytest.mark.slow
async def test_runs_of_a_session_never_overlap(company: Company) -> None:
    users = ("ann", "bob", "cat")
    specs = [
        JobSpec(f"{user} {shot.name}", "work", shot.schedule, session_mode=SessionMode.MAIN, user_id=user)
        for shot in shots(20)
        for user in users
    ]
    specs += [JobSpec("often", "work", Interval(50), session_mode=SessionMode.MAIN, user_id=user) for user in users]
    async with company.machine(), company.machine():
        await company.add(*specs)
        await until(lambda: sum("shot" in ctx.job_name for ctx in company.ran) == 60)
    assert [company.most[f"session of {user}"] for user in users] == [1, 1, 1]
    assert company.most[""] == 3
    assert min(company.shares) > 0


async def test_jobs_in_a_crash_loop_run_one_at_a_time_over_all_machines(company: Company) -> None:
    await company.add(*shots(6, "in a crash loop"), *shots(20, first=6))
    with psycopg.connect(company.url) as connection:
        loop = "SELECT id FROM cronactors.jobs WHERE prompt = 'in a crash loop'"
        connection.execute(f"UPDATE cronactors.job_state SET crashes = {FREE_CRASHES} WHERE id IN ({loop})".encode())
    async with company.machine(), company.machine():
        await company.until_all_ended(26)
    assert company.most["in a crash loop"] == 1
    assert company.most["work"] > 1
    assert min(company.shares) > 0


@pytest.mark.slow
async def test_each_receiver_gets_each_event_once(company: Company) -> None:
    receivers = {"notifier": company.notifier, "on_finish": company.on_finish, "on_alert": company.on_alert}
    async with company.machine(**receivers), company.machine(**receivers):
        await company.add(JobSpec("fails", "fail", Interval(50), max_retries=0), *shots(30))
        await until(lambda: company.alerts and len(company.ran) > 40)
    keys = {f"run:{ctx.run_id}" for ctx in company.ran}
    assert company.calls == {(receiver, key): 1 for receiver in ("notifier", "on_finish") for key in keys}
    assert company.alerts[AlertKind.FAILING, 3] == 1
    assert set(company.alerts.values()) == {1}
    assert min(company.shares) > 0


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs signals of POSIX")
async def test_a_job_that_ends_the_process_of_each_machine_is_paused(company: Company, tmp_path: Path) -> None:
    budget = 1
    options = Options(db=company.url, ledger=str(tmp_path / "ledger"), slots=4)
    async with open_store(company.url) as store:
        killer = await store.add_job("killer", "die 0.05", Interval(200), max_retries=budget)
        others = await store.add_jobs([JobSpec(f"job {number}", "sleep 0.01", Interval(100)) for number in range(4)])
        async with open_lives(options, timeout=60) as lives:
            living, deaths = [await lives.begin(), await lives.begin()], 0
            while (await store.get_job(killer)).enabled:
                for place, life in enumerate(living):
                    if life.status is not None:
                        assert life.status == -signal.SIGKILL
                        deaths += 1
                        living[place] = await lives.begin()
                await trio.sleep(0.02)
            for life in living:
                await life.ready()
                life.send(signal.SIGINT)
                assert await life.gone() == 0
        assert deaths == FREE_CRASHES + 1 + budget
        assert f"{deaths} times in a row" in ((await store.get_job(killer)).last_error or "")
        assert all([(await store.get_job(job)).enabled for job in others])
    ledger = Ledger(options.ledger)
    judge(company.url, ledger, acknowledged=[killer, *others])
    judge_interrupted(company.url, but=[killer])
    assert sum(entry.job == killer and entry.what == "start" for entry in ledger.read()) == deaths
