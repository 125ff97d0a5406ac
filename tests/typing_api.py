"""Uses of the public API for type checkers. Never run: ``test_typing.py`` checks it with mypy --strict.

A line that must be refused ends in a type: ignore with its error code; one that is not needed is an error by itself.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import assert_never, assert_type

import cronactors
from cronactors import (
    ALL,
    Alert,
    AlertKind,
    AlertObserver,
    Cause,
    ClockJumped,
    Coalesce,
    Cron,
    CronConfig,
    CronError,
    CronJob,
    CronRun,
    CronScheduler,
    CronStore,
    CurrentRun,
    Event,
    EventsLost,
    Explanation,
    Fate,
    Finding,
    FireTimeChanges,
    GiveUp,
    Health,
    History,
    Interval,
    JobAdded,
    JobChanged,
    JobContext,
    JobEvent,
    JobExecutor,
    JobRemoved,
    JobResult,
    JobSpec,
    Misfire,
    MomentSkipped,
    Notification,
    NotificationSender,
    NotificationStatus,
    OneShot,
    Overlap,
    Pause,
    Preview,
    Receiver,
    Retry,
    RetryPolicy,
    RetryScheduled,
    RunEvent,
    RunFinished,
    RunInterrupted,
    RunLogHandler,
    RunObserver,
    RunOutput,
    RunProgress,
    RunRequested,
    RunStarted,
    RunStats,
    RunStatus,
    RunWaiting,
    Schedule,
    SessionMode,
    StoreFailed,
    StoreWorking,
    Timetable,
    Trigger,
    compare_fire_times,
    current_notification,
    current_run,
    fire_times,
    lint,
    load_config,
    next_run,
    now,
    open_scheduler,
    open_store,
    preview,
    schedule_from_dict,
    schedule_to_dict,
)
from cronactors.json_value import Json
from cronactors.testing import fake_run, make_context

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


# Callbacks


async def result(ctx: JobContext) -> JobResult:
    assert_type(ctx.prompt, str)
    assert_type(ctx.session_mode, SessionMode)
    assert_type(ctx.user_id, str | None)
    assert_type(ctx.scheduled_at, datetime)
    assert_type(ctx.attempt, int)
    assert_type(ctx.executor_options.get("shell"), Json)
    ctx.executor_options["shell"] = "x"  # type: ignore[index]
    assert_type(ctx.data, Json)
    ctx.data = {}  # type: ignore[misc]
    match ctx.data:
        case {"url": str(url)}:
            assert_type(url, str)
    assert_type((ctx.job_name, ctx.job_id, ctx.run_id), tuple[str, str, str])
    ctx.prompt = "frozen"  # type: ignore[misc]
    JobResult("s-1", "positional")  # type: ignore[call-arg]
    rows: dict[str, list[int]] = {"rows": [1, 2]}
    assert_type(JobResult(data=rows, notify=False).data, Json)
    JobResult(data=object())  # type: ignore[arg-type]
    JobResult(notify="no")  # type: ignore[arg-type]
    return JobResult(session_id="s-1", summary="done")


async def text(ctx: JobContext) -> str:
    raise Retry(after=5)


async def nothing(ctx: JobContext) -> None:
    raise GiveUp("it cannot work")


async def maybe(ctx: JobContext) -> JobResult | str | None:
    return None


async def number(ctx: JobContext) -> int:
    return 1


async def reporting(ctx: JobContext) -> None:
    run = current_run()
    assert_type(run, CurrentRun)
    assert_type(current_run(default=None), CurrentRun | None)
    assert_type(run.log("a line"), None)
    assert_type(run.report_progress(0.4, "reading"), None)
    assert_type(run.report_progress(None), None)
    assert_type(await run.previous(), CronRun | None)
    assert_type((run.run_id, run.job_id, run.job_name, run.attempt), tuple[str, str, str, int])
    run.log(5)  # type: ignore[arg-type]
    current_run(None)  # type: ignore[call-overload]
    CurrentRun()  # type: ignore[abstract]
    with fake_run(make_context(), previous=None) as fake:
        assert_type(fake.lines, list[str])
        assert_type(fake.progress, list[tuple[float | None, str]])
    logging.getLogger().addHandler(RunLogHandler(logging.INFO))


def not_async(ctx: JobContext) -> str:
    return ""


async def notifier(job_name: str, session_id: str, result: str, success: bool) -> None: ...


async def on_finish(job: CronJob, run: CronRun) -> None:
    notification = current_notification()
    assert_type(notification, Notification)
    assert_type((notification.key, notification.receiver, notification.job_id), tuple[str, str, str])
    assert_type((notification.run_id, notification.attempts), tuple[str | None, int])
    assert_type(notification.status, NotificationStatus)
    assert_type(current_notification(default=None), Notification | None)


async def on_alert(job: CronJob, alert: Alert) -> None:
    assert_type((alert.kind, alert.count, alert.text), tuple[AlertKind, int, str])


ALERT_OBSERVER: AlertObserver = on_alert


EXECUTORS: list[JobExecutor] = [result, text, nothing, maybe]
CALLABLE: Callable[[JobContext], Awaitable[JobResult | str | None]] = EXECUTORS[0]
SENDER: NotificationSender = notifier
OBSERVER: RunObserver = on_finish


# Schedules


def schedules(schedule: Schedule) -> None:
    assert_type(OneShot("2026-01-01T12:00:00"), OneShot)
    assert_type(OneShot(at=NOON), OneShot)
    assert_type(Interval(every_ms=500), Interval)
    assert_type(Interval.every(hours=1, minutes=2, seconds=3, ms=4), Interval)
    assert_type(Cron("0 0 9 * * *"), Cron)
    assert_type(Cron(expr="@daily").expr, str)
    Cron(9)  # type: ignore[arg-type]
    Interval("1h")  # type: ignore[arg-type]
    assert_type(next_run(schedule, after=NOON), datetime | None)
    assert_type(next_run(schedule, after=NOON, timezone="Europe/Rome", anchor=NOON), datetime | None)
    assert_type(fire_times(schedule, after=NOON), Iterator[datetime])
    assert_type(preview(schedule, after=NOON, timezone="UTC", count=3), list[Preview])
    timetable = Timetable(schedule, "Europe/Rome", anchor=NOON)
    changed = compare_fire_times(timetable, Timetable(schedule), since=NOON, until=NOON, limit=1)
    assert_type(changed, FireTimeChanges)
    assert_type(changed.gone + changed.new, list[datetime])
    assert_type(lint(schedule, "Europe/Rome", after=NOON), list[Finding])
    assert_type(fire_times(schedule, after=NOON, before=NOON, timezone="UTC", anchor=NOON), Iterator[datetime])
    next_run(schedule, NOON)  # type: ignore[call-arg]
    assert_type(schedule_from_dict(schedule_to_dict(schedule)), Schedule)
    match schedule:
        case OneShot() | Interval() | Cron():
            pass
        case _:
            assert_never(schedule)


# Values


def values(job: CronJob, run: CronRun) -> None:
    assert_type((job.id, job.name, job.prompt, job.timezone), tuple[str, str, str, str])
    assert_type(job.schedule, Schedule)
    assert_type((job.enabled, job.delete_after_run), tuple[bool, bool])
    assert_type(job.created_at, datetime)
    assert_type(job.last_run_at, datetime | None)
    assert_type(job.next_run_at, datetime | None)
    assert_type(job.retry_at, datetime | None)
    assert_type((job.retry_count, job.max_retries), tuple[int, int])
    assert_type((job.last_error, job.user_id), tuple[str | None, str | None])
    assert_type(job.timeout_secs, float)
    assert_type(job.session_mode, SessionMode)
    assert_type((job.overlap, job.misfire), tuple[Overlap, Misfire])
    assert_type((job.description, job.tags), tuple[str, tuple[str, ...]])
    assert_type(job.data, Json)
    if job.pause is not None:
        assert_type((job.pause.since, job.pause.until, job.pause.note), tuple[datetime, datetime | None, str])
    job.name = "frozen"  # type: ignore[misc]

    assert_type((run.id, run.job_id, run.job_name, run.session_id), tuple[str, str, str, str])
    assert_type((run.user_id, run.result_summary, run.error), tuple[str | None, str | None, str | None])
    assert_type(run.scheduled_at, datetime)
    assert_type((run.started_at, run.completed_at), tuple[datetime | None, datetime | None])
    assert_type((run.attempt, run.coalesced), tuple[int, int])
    assert_type((run.trigger, run.status), tuple[Trigger, RunStatus])
    assert_type(run.cause, Cause | None)
    assert_type(run.status.ended, bool)
    assert_type(run.result_data, Json)
    plain: str = run.status  # a StrEnum is its text
    assert plain
    run.status = RunStatus.FAILED  # type: ignore[misc]

    CronJob(id="1", name="j", prompt="p", schedule=Interval(1), created_at=NOON)  # easy to make in a test
    CronRun(
        id="1",
        job_id="1",
        job_name="j",
        user_id=None,
        scheduled_at=NOON,
        attempt=1,
        trigger=Trigger.RETRY,
        status=RunStatus.FAILED,
    )
    assert_type(make_context("p", data=[1]).data, Json)
    assert_type(make_context("p", attempt=2, session_mode=SessionMode.MAIN, scheduled_at=NOON), JobContext)
    assert_type(now(), datetime)


def settings() -> CronConfig:
    spec = JobSpec(
        "j",
        "p",
        Cron("* * * * *"),
        delete_after_run=True,
        timezone="UTC",
        max_retries=None,
        timeout_secs=1.5,
        session_mode=SessionMode.MAIN,
        user_id="u",
        overlap=Overlap.ALLOW_ALL,
        misfire=Misfire(),
        description="d",
        tags={"a", "b"},
        data={"list": [1, None, {"x": 0.5}]},
    )
    JobSpec("j", "p", Cron("* * * * *"), tags=5)  # type: ignore[arg-type]
    JobSpec("j", "p", Cron("* * * * *"), colour="red")  # type: ignore[call-arg]
    JobSpec("j", "p", "* * * * *")  # type: ignore[arg-type]
    JobSpec("j", "p")  # type: ignore[call-arg]
    RetryPolicy((1, 2.5), jitter=0.1)
    RetryPolicy(delays=[1, 2])
    assert_type(load_config("agent.toml"), CronConfig)
    assert_type(load_config(Path("agent.toml")), CronConfig)
    CronConfig("UTC")  # type: ignore[call-arg]
    CronConfig(history=None)
    History(30)  # type: ignore[call-arg]
    History(keep_last=None)  # type: ignore[arg-type]
    JobSpec("name", "prompt", Interval(1000), history=History(days=None))
    return CronConfig(
        timezone="UTC",
        default_max_retries=3,
        default_timeout_secs=7200,
        max_concurrent_runs=4,
        max_concurrent_runs_total=None,
        retry=RetryPolicy(delays=(30,)),
        history=History(days=30, per_job=None, keep_last=10),
        cancel_grace=5.0,
        overdue_after=None,
        jobs=[spec],
    )


# The store


async def jobs(store: CronStore) -> None:
    every = Interval(1000)
    assert_type(await store.add_job("j", "p", every), str)
    assert_type(
        await store.upsert_job(
            "j",
            "p",
            Cron("@daily"),
            delete_after_run=False,
            timezone=None,
            max_retries=0,
            timeout_secs=None,
            session_mode=SessionMode.ISOLATED,
            user_id=None,
            overlap=Overlap.SKIP,
            misfire=Misfire(),
        ),
        str,
    )
    await store.add_job("j", "p", every, colour="red")  # type: ignore[call-arg]
    await store.add_job("j", "p", every, max_retries="3")  # type: ignore[arg-type]
    await store.upsert_job("j", "p", every, enabled=True)
    await store.upsert_job("j", "p", every, enabled="no")  # type: ignore[arg-type]
    assert_type(await store.add_jobs([JobSpec("j", "p", every)]), list[str])
    assert_type(await store.adopt_origin("old.toml", by="new.toml"), int)
    assert_type(await store.remove_origin("old.toml"), int)
    assert_type(await store.upsert_jobs((spec for spec in [JobSpec("j", "p", every)]), origin="agent.toml"), list[str])
    assert_type(await store.get_job("1"), CronJob)
    assert_type(await store.get_job_by_name("j", user_id="u"), CronJob | None)
    assert_type(await store.list_jobs(), list[CronJob])
    assert_type(await store.list_jobs(tag="t", enabled=True), list[CronJob])
    await store.list_jobs(enabled="yes")  # type: ignore[arg-type]
    for whose in (ALL, None, "u"):
        await store.list_jobs(user_id=whose)
        await store.list_runs(user_id=whose)

    assert_type(await store.update_job("1", prompt="other", schedule=every, timezone="UTC", name="k"), CronJob)
    await store.update_job("1", delete_after_run=True, max_retries=1, timeout_secs=2, session_mode=SessionMode.MAIN)
    await store.update_job("1", overlap=Overlap.SKIP, misfire=Misfire())
    await store.update_job("1", executor_options={"shell": "/bin/bash", "more": [1, None, {"x": True}]})
    await store.update_job("1", executor_options=5)  # type: ignore[arg-type]
    await store.update_job("1", data={"a": [1]}, tags=["t"], description="d")
    await store.update_job("1", data=None, tags=())
    await store.update_job("1", unknown=1)  # type: ignore[call-arg]
    await store.update_job("1", enabled=False)  # type: ignore[call-arg]
    await store.update_job("1", max_retries=None)  # type: ignore[arg-type]
    await store.update_job("1", prompt=7)  # type: ignore[arg-type]

    assert_type(await store.pause_job("1"), CronJob)
    assert_type((await store.pause_job("1", until=datetime.now(UTC), note="moving")).pause, Pause | None)
    await store.pause_job("1", until="tomorrow")  # type: ignore[arg-type]
    assert_type(await store.resume_job("1"), CronJob)
    await store.remove_job("1")
    await store.remove_job_by_name("j", user_id=None)


async def runs(store: CronStore) -> None:
    due = await store.get_due_jobs(limit=5)
    assert_type(due, list[CronJob])
    assert_type(await store.get_retry_jobs(), list[CronJob])
    assert_type(await store.record_run_start(due[0]), str)
    run_id = await store.record_run_start("1")
    assert_type(await store.record_run_complete(run_id, RunStatus.SUCCESS, "fine", session_id="s"), CronRun)
    await store.record_run_complete(run_id, RunStatus.FAILED, error="no")
    await store.record_run_complete(run_id, "success")  # type: ignore[arg-type]
    assert_type(await store.request_run("1"), str)
    assert_type(await store.request_run("1", data={"a": (1, 2)}, key="k"), str)
    await store.request_run("1", "k")  # type: ignore[call-arg]
    assert_type(await store.get_run_data(run_id), Json)
    await store.record_run_complete(run_id, RunStatus.SUCCESS, data=[1])
    assert_type(await store.request_cancel(run_id), CronRun)
    assert_type(await store.get_run(run_id), CronRun)
    await store.get_run(1)  # type: ignore[arg-type]
    assert_type(await store.list_runs("1", 5, status=RunStatus.FAILED), list[CronRun])
    await store.list_runs(cause=Cause.TIMEOUT, trigger=Trigger.RETRY, tag="t", since=NOON, until=NOON, after=run_id)
    await store.list_runs(since="monday")  # type: ignore[arg-type]
    assert_type(await store.count_runs("1", status=RunStatus.FAILED, user_id=None, since=NOON), int)
    stats = await store.run_stats(tag="t", since=NOON)
    assert_type(stats, RunStats)
    assert_type((stats.by_status[RunStatus.FAILED], stats.duration_p99), tuple[int, float | None])
    assert_type(await store.explain("1", NOON), Explanation)
    assert_type(await store.list_notifications(), list[Notification])
    await store.list_notifications(status=NotificationStatus.PENDING, receiver="notifier", limit=5)
    assert_type(await store.retry_notification("run:1"), list[Notification])
    await store.retry_notification("run:1", "on_finish")


# Events


def job_or_run(event: JobEvent | RunEvent) -> str:
    return event.job_id


def kind_of(event: Event) -> str:
    match event:
        case JobAdded() | JobChanged() | JobRemoved():
            return job_or_run(event)
        case RunRequested() | RunWaiting() | RunStarted() | RunFinished() | RunInterrupted() | MomentSkipped() | RetryScheduled():
            assert_type((event.status, event.cause, event.started_at), tuple[RunStatus, Cause | None, datetime | None])
            return job_or_run(event)
        case ClockJumped():
            assert_type((event.seconds, event.now), tuple[float, datetime])
        case StoreFailed():
            return event.reason
        case StoreWorking():
            pass
        case EventsLost():
            assert_type(event.count, int)
        case _:
            assert_never(event)
    return ""


async def watch(scheduler: CronScheduler) -> None:
    async with scheduler.events(capacity=10) as stream:
        async for event in stream:
            assert_type(kind_of(event), str)


# The scheduler


async def output(store: CronStore) -> None:
    read = await store.get_run_output("1", since=0)
    assert_type(read, RunOutput)
    assert_type((read.text, read.cursor, read.left_out, read.finished), tuple[str, int, int, bool])
    progress = await store.get_progress("1")
    assert_type(progress, RunProgress | None)
    if progress is not None:
        assert_type((progress.fraction, progress.note, progress.at), tuple[float | None, str, datetime])
    await store.get_run_output("1", 5)  # type: ignore[call-arg]


async def scheduler(config: CronConfig) -> None:
    async with open_store("agent.db", timezone="UTC", config=config, create=False) as store:
        assert_type(store, CronStore)
        CronStore("agent.db")  # type: ignore[arg-type]
        assert_type(store.path, str)
        async with open_scheduler(store, result) as scheduler:
            assert_type(scheduler.store, CronStore)
    async with open_scheduler(
        Path("agent.db"),
        text,
        timezone="Europe/Rome",
        notifier=notifier,
        on_finish=on_finish,
        on_alert=on_alert,
        jobs=[JobSpec("j", "p", Interval(1))],
        config=config,
        tick_interval=0.5,
        shutdown_grace=1,
    ) as scheduler:
        assert_type(scheduler, CronScheduler)
        assert_type(scheduler.recovered, tuple[CronRun, ...])
        assert_type(await scheduler.run_now("1"), CronRun)
        assert_type(await scheduler.run_now("1", wait=False), CronRun)
        assert_type(await scheduler.run_now("1", data=None, key="k"), CronRun)
        assert_type(await scheduler.cancel_run("1"), CronRun)
        await scheduler.wait_idle()
        assert_type(await scheduler.explain("1", NOON), Explanation)
        assert_type((await scheduler.explain("1", NOON)).outcome, Fate)
        assert_type(Misfire(coalesce=Coalesce.ALL).coalesce, Coalesce)
        health = scheduler.health()
        assert_type(health, Health)
        assert_type((health.last_tick, health.next_wake), tuple[datetime | None, datetime | None])
        assert_type((health.runs_in_flight, health.last_store_error), tuple[int, str | None])
        assert_type((health.clock_lag, health.store_latency), tuple[float, float | None])
        assert_type((health.free_slots, health.store_queue, health.notifications_pending), tuple[int, int, int])
    open_scheduler("agent.db", number)  # type: ignore[arg-type]
    open_scheduler("agent.db", not_async)  # type: ignore[arg-type]
    open_scheduler("agent.db", result, notifier=on_finish)  # type: ignore[arg-type]
    policy = RetryPolicy(delays=(1, 60))
    open_scheduler(
        "agent.db",
        result,
        notifier=Receiver(notifier),
        on_finish=Receiver(on_finish, retry=policy, attempts=3, timeout=10, concurrency=4),
        on_alert=Receiver(on_alert),
    )
    open_scheduler("agent.db", result, notifier=Receiver(on_finish))  # type: ignore[arg-type]
    Receiver(number)  # type: ignore[type-var]
    Receiver(notifier, policy)  # type: ignore[call-arg]
    open_scheduler("agent.db", result, notifier)  # type: ignore[call-arg, arg-type]
    open_scheduler("agent.db", result, shutdown_grace=timedelta(seconds=1))  # type: ignore[arg-type]


# Errors


def errors() -> tuple[type[CronError], ...]:
    invalid: tuple[type[ValueError], ...] = (cronactors.InvalidSchedule, cronactors.InvalidJob, cronactors.InvalidConfig)
    missing: tuple[type[LookupError], ...] = (cronactors.JobNotFound, cronactors.RunNotFound)
    assert invalid
    assert missing
    return (
        cronactors.AlreadyClaimed,
        cronactors.DuplicateJob,
        cronactors.InvalidConfig,
        cronactors.InvalidJob,
        cronactors.InvalidSchedule,
        cronactors.JobBusy,
        cronactors.JobNotFound,
        cronactors.NotificationNotFound,
        cronactors.RunClosed,
        cronactors.RunNotFound,
        cronactors.SchedulerClosed,
        cronactors.SchedulerCrashed,
        cronactors.StoreCorrupt,
        cronactors.StoreUnavailable,
        cronactors.WouldDeadlock,
    )
