"""Test schedules without waiting: virtual time for trio, for the wall clock, and for threads.

    from cronactors.testing import virtual_clock

    async def test_my_app(virtual_clock):
        virtual_clock.set_wall("2026-03-28T22:00+01:00")
        async with my_app.run() as scheduler:
            await trio.sleep(7 * 86400)       # a week, in milliseconds

The app's own `cronactors.open_scheduler` call is unchanged. Time jumps to the next deadline whenever every task waits and no thread of
`trio.to_thread` is running. The store works without its thread, so that a commit takes no virtual time; two schedulers on one file do not
see each other's changes before their own next moment.
"""

from __future__ import annotations

import logging
import math
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, contextmanager
from datetime import datetime, timedelta
from functools import partial

import attrs
import trio
import trio.testing

from cronactors.checks import instant, text
from cronactors.errors import CronError, one_line, shorten
from cronactors.executor_options import NO_OPTIONS
from cronactors.fake_run import FakeRun, fake_run
from cronactors.instants import EARLIEST, LATEST, Millis, from_millis, to_millis
from cronactors.json_value import Json, JsonInput
from cronactors.model import (
    CronJob,
    CronRun,
    JobContext,
    JobExecutor,
    NotificationSender,
    RunObserver,
    RunStatus,
    SessionMode,
)
from cronactors.notifications import AlertObserver, Notification, Receiver
from cronactors.scheduler import CronScheduler
from cronactors.settings import CronConfig, check_settings
from cronactors.spec import JobSpec, check_specs
from cronactors.supervision import open_scheduler
from cronactors.wallclock import VirtualTime, hold

__all__ = ["MOST_RUNS", "FakeRun", "Report", "VirtualClock", "fake_run", "hold", "make_context", "simulate", "virtual_clock"]

logger = logging.getLogger("cronactors.testing")

MOST_RUNS = 1_000_000
"""Most runs that a simulation reports; of more it reports the latest."""
_START: Millis = to_millis(datetime.fromisoformat("2026-01-01T00:00:00+00:00"))
STALLED_AFTER = 5.0
"""How long (s of real time) a clock is held, or waits for a thread, before it logs a warning, once."""
_POLL = 0.005
"""How often (s of real time) we check for the end of a thread, or for a deadline if there is none."""


class VirtualClock(VirtualTime):
    """Virtual time for one trio run. It begins at 2026-01-01T00:00:00Z unless it is set."""

    def __init__(self) -> None:
        self._mono = 0.0
        self._wall_at = _START
        self._wall_from = 0.0
        self._holds = 0
        self.set_listeners: list[Callable[[], None]] = []

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Stop time while the block runs: for subprocesses and sockets, whose work the clock cannot detect."""
        self._holds += 1
        try:
            yield
        finally:
            self._holds -= 1

    def set_wall(self, moment: datetime | str) -> None:
        """Set the wall clock, before a scheduler runs or while it does. Trio's own time does not change, and so timeouts and sleeps don't.

        Args:
            moment: An aware datetime, or ISO 8601 text with an offset.

        Raises:
            CronError: ``moment`` has no offset or cannot be read, or a scheduler runs and the caller is in a thread.
        """
        if self.set_listeners and not trio.lowlevel.in_trio_task():
            raise CronError("set_wall must be called in a task while a scheduler runs: use trio.from_thread.run_sync")
        self._wall_at = _instant("moment", moment)
        self._wall_from = self._mono
        for listener in list(self.set_listeners):
            listener()

    def now(self) -> datetime:
        """Return the virtual wall clock, UTC."""
        return from_millis(self.wall())

    def wall(self) -> Millis:
        """Return the virtual wall clock (ms); it stops at the end of the year 9997."""
        return min(self._wall_at + round((self._mono - self._wall_from) * 1000), LATEST - 1)

    # trio.abc.Clock

    def start_clock(self) -> None:
        """Start the task that moves time."""
        trio.lowlevel.current_trio_token().run_sync_soon(self._start_driver)

    def current_time(self) -> float:
        """Return the virtual time (s) since the run began."""
        return self._mono

    def deadline_to_sleep_time(self, deadline: float) -> float:
        """Return how long (s) trio may wait for I/O: until `_drive` moves time."""
        return 0.0 if deadline <= self._mono else math.inf

    def _start_driver(self) -> None:
        trio.lowlevel.spawn_system_task(self._drive, name="cronactors virtual time")

    async def _drive(self) -> None:
        stalled_since: float | None = None
        warned = False
        while True:
            # Twice: a test that waits for all tasks itself has to wake first. A cushion above 0 would cost a millisecond of real time.
            await trio.testing.wait_all_tasks_blocked()
            await trio.testing.wait_all_tasks_blocked()
            wait = trio.lowlevel.current_statistics().seconds_to_next_deadline
            if math.isinf(wait) or not (self._holds or trio.testing.active_thread_count()):
                stalled_since = None
            elif stalled_since is None:
                stalled_since = time.monotonic()
            elif not warned and time.monotonic() - stalled_since > STALLED_AFTER:
                warned = True
                self._warn(wait)
            if math.isinf(wait) or stalled_since is not None:
                await trio.testing.wait_all_tasks_blocked(_POLL)
            else:
                self._mono = max(self._mono + wait, math.nextafter(self._mono, math.inf))

    def _warn(self, wait: float) -> None:
        logger.warning(
            "virtual time is stalled: %d blocks hold it and %d threads are running; the next deadline is %.3f s away, and a thread "
            "or a block that waits for it waits for ever",
            self._holds,
            trio.testing.active_thread_count(),
            wait,
        )


def _instant(field: str, moment: object) -> Millis:
    if isinstance(moment, str):
        try:
            moment = datetime.fromisoformat(text(field, moment, CronError, limit=100))
        except ValueError:
            raise CronError(f"{field} must be ISO 8601 text, not {shorten(moment)}") from None
    found = instant(field, moment, CronError)
    if not EARLIEST <= found < LATEST - timedelta(days=366) // timedelta(milliseconds=1):
        raise CronError(f"{field} must lie in the years 1970 to 9996, not {shorten(moment)}")
    return found


@attrs.frozen(kw_only=True)
class Report:
    """The result of a simulation.

    Attributes:
        runs: Every attempt, in order of start; also those that are pending or running at the end.
        skipped: The moments that were skipped, in order; ``coalesced`` counts the moments of a row.
        jobs: The jobs at the end.
        notifications: The notifications of the receivers, in order; also those that are pending at the end.
    """

    runs: tuple[CronRun, ...]
    skipped: tuple[CronRun, ...]
    jobs: tuple[CronJob, ...]
    notifications: tuple[Notification, ...] = ()

    def __str__(self) -> str:
        """Return a line for each run and each skipped row, times in UTC, one that counts them, and one that counts notifications."""
        rows = sorted((*self.runs, *self.skipped), key=_sort_key)
        counted = Counter(f"{run.status}" if run.cause is None else f"{run.status}/{run.cause}" for run in rows)
        total = ", ".join(f"{count:,} {status}" for status, count in sorted(counted.items())) or "nothing happened"
        sent = sorted(Counter(f"{each.receiver} {each.status}" for each in self.notifications).items())
        notified = [f"notifications: {', '.join(f'{count:,} {status}' for status, count in sent)}"] if sent else []
        return "\n".join([*map(_line, rows), total, *notified])


def _sort_key(run: CronRun) -> tuple[datetime, datetime, str, int, int]:
    """Return the sort key of a run in a report; ids alone would depend on the order of trio's tasks."""
    return run.started_at or run.scheduled_at, run.scheduled_at, run.job_name, run.attempt, int(run.id)


def _line(run: CronRun) -> str:
    at = (run.started_at or run.scheduled_at).isoformat(sep=" ", timespec="seconds").removesuffix("+00:00")
    status = run.status if run.cause is None else f"{run.status} ({run.cause})"
    several = f", {run.coalesced:,} moments" if run.coalesced > 1 else ""
    result = one_line(run.error or run.result_summary or "", 100)
    return f"{at}  {run.job_name}  attempt {run.attempt}  {status}{several}  {result}".rstrip()


def simulate(
    specs: Iterable[JobSpec],
    executor: JobExecutor,
    *,
    start: datetime | str,
    end: datetime | str,
    config: CronConfig | None = None,
    timezone: str | None = None,
    notifier: NotificationSender | Receiver[NotificationSender] | None = None,
    on_finish: RunObserver | Receiver[RunObserver] | None = None,
    on_alert: AlertObserver | Receiver[AlertObserver] | None = None,
) -> Report:
    """Run jobs from ``start`` to ``end`` on virtual time, with the real scheduler, and report the runs. Runs its own trio.

    Runs of the same instant may start in any order. Of more than a million runs the latest are reported. A `History` has no
    effect here: nothing is deleted before it is reported.

    Args:
        specs: The jobs, added at the start.
        executor: Called for each run; it may sleep, use threads and fail.
        start: An aware datetime, or ISO 8601 text with an offset.
        end: The same; moments at it or later do not run.
        config: Settings of the scheduler.
        timezone: IANA name of the zone of jobs that give none.
        notifier: As for `open_scheduler`.
        on_finish: The same.
        on_alert: The same.

    Returns:
        The runs, the skipped moments, the jobs and the notifications.

    Raises:
        CronError: An argument is wrong, or the caller is in a trio run.
    """
    if trio.lowlevel.in_trio_run():
        raise CronError("simulate runs its own trio: in an async test use the fixture virtual_clock")
    begin = _instant("start", start)
    length = (_instant("end", end) - begin) / 1000
    if length <= 0:
        raise CronError(f"end must be at least a millisecond later than start, not {shorten(end)}")
    clock = VirtualClock()
    clock.set_wall(from_millis(begin))
    jobs = [attrs.evolve(spec, history=None) for spec in check_specs("specs", specs)]
    config = attrs.evolve(check_settings(config, timezone), history=None)
    scheduler = partial(
        open_scheduler,
        ":memory:",
        executor,
        config=config,
        timezone=timezone,
        notifier=notifier,
        on_finish=on_finish,
        on_alert=on_alert,
        jobs=jobs,
        shutdown_grace=0,
    )
    return trio.run(_simulate, scheduler, length, clock=clock)


async def _simulate(open_it: Callable[[], AbstractAsyncContextManager[CronScheduler]], length: float) -> Report:
    async with open_it() as scheduler:
        await trio.sleep(length - 0.0005)  # leave out moments at ``end`` itself
        rows = await scheduler.store.list_runs(limit=MOST_RUNS)
        jobs = await scheduler.store.list_jobs()
        notifications = await scheduler.store.list_notifications(limit=MOST_RUNS)
    rows.sort(key=_sort_key)
    skipped = tuple(run for run in rows if run.status is RunStatus.SKIPPED)
    runs = tuple(run for run in rows if run.status is not RunStatus.SKIPPED)
    return Report(runs=runs, skipped=skipped, jobs=tuple(jobs), notifications=tuple(reversed(notifications)))


def make_context(
    prompt: str = "prompt",
    *,
    session_mode: SessionMode = SessionMode.ISOLATED,
    job_name: str = "job",
    job_id: str = "job-1",
    user_id: str | None = None,
    run_id: str = "1",
    scheduled_at: datetime | None = None,
    attempt: int = 1,
    executor_options: Mapping[str, Json] = NO_OPTIONS,
    data: JsonInput = None,
) -> JobContext:
    """Make a `JobContext` to call an executor with.

    Args:
        prompt: The text of the job.
        session_mode: Own session, or the user's main session.
        job_name: The job's name.
        job_id: The job's id.
        user_id: Whose job it is.
        run_id: The run's id.
        scheduled_at: The moment; None: 2026-01-01T00:00:00Z.
        attempt: From 1.
        executor_options: Options for the executor, besides the prompt.
        data: The JSON value that the run has.
    """
    return JobContext(
        prompt=prompt,
        session_mode=session_mode,
        job_name=job_name,
        job_id=job_id,
        user_id=user_id,
        run_id=run_id,
        scheduled_at=from_millis(_START) if scheduled_at is None else scheduled_at,
        attempt=attempt,
        executor_options=executor_options,
        data=data,
    )


try:
    import pytest
except ModuleNotFoundError:  # only the fixture needs it

    def __getattr__(name: str) -> object:
        if name == "virtual_clock":
            raise ImportError("the fixture virtual_clock needs pytest and pytest-trio: pip install pytest pytest-trio")
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
else:

    @pytest.fixture
    def virtual_clock() -> VirtualClock:
        """Virtual time for a test: pytest-trio uses it as the clock of the test's trio run."""
        return VirtualClock()
