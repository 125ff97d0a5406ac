"""A durable job scheduler for trio: cron expressions, fixed intervals and one-shots in one SQLite file, run as real trio tasks.

Start with `open_scheduler`; `open_store` opens the same file without one.
"""

from typing import TYPE_CHECKING

from cronactors.alerts import Alert, AlertKind
from cronactors.errors import (
    AlreadyClaimed,
    CronError,
    DuplicateJob,
    GiveUp,
    InvalidConfig,
    InvalidJob,
    InvalidSchedule,
    JobBusy,
    JobNotFound,
    NotificationNotFound,
    Retry,
    RunClosed,
    RunNotFound,
    SchedulerClosed,
    SchedulerCrashed,
    StoreCorrupt,
    StoreUnavailable,
    WouldDeadlock,
)
from cronactors.health import Health
from cronactors.model import (
    ALL,
    Cause,
    Coalesce,
    CronJob,
    CronRun,
    Explanation,
    Fate,
    JobContext,
    JobExecutor,
    JobResult,
    Misfire,
    NotificationSender,
    Overlap,
    Pause,
    RunObserver,
    RunStatus,
    SessionMode,
    Trigger,
)
from cronactors.notification_context import current_notification
from cronactors.notifications import AlertObserver, Notification, NotificationStatus, Receiver
from cronactors.retention import History
from cronactors.run_context import CurrentRun, current_run
from cronactors.run_output import RunOutput, RunProgress
from cronactors.scheduler import CronScheduler
from cronactors.schedules.fire_times import fire_times, next_run
from cronactors.schedules.schedule import Cron, Interval, OneShot, Schedule
from cronactors.schedules.schedule_json import schedule_from_dict, schedule_to_dict
from cronactors.settings import CronConfig, RetryPolicy
from cronactors.spec import JobSpec
from cronactors.store import CronStore, open_store
from cronactors.supervision import open_scheduler
from cronactors.wallclock import now

if TYPE_CHECKING:
    from cronactors.config_file import load_config
    from cronactors.events import (
        ClockJumped,
        Event,
        EventsLost,
        JobAdded,
        JobChanged,
        JobEvent,
        JobRemoved,
        MomentSkipped,
        RetryScheduled,
        RunEvent,
        RunFinished,
        RunInterrupted,
        RunRequested,
        RunStarted,
        RunWaiting,
        StoreFailed,
        StoreWorking,
    )
    from cronactors.run_log_handler import RunLogHandler
    from cronactors.run_stats import RunStats
    from cronactors.schedules.comparison import FireTimeChanges, Timetable, compare_fire_times
    from cronactors.schedules.finding import Finding
    from cronactors.schedules.lint import lint
    from cronactors.schedules.preview import Preview, preview

__version__ = "0.1.0"

# Imported when they are first used (PEP 562). A program that only schedules needs none of them, and import time has a budget: at most
# 1.7 times that of trio (docs/performance.md).
_EVENTS = (
    "ClockJumped",
    "Event",
    "EventsLost",
    "JobAdded",
    "JobChanged",
    "JobEvent",
    "JobRemoved",
    "MomentSkipped",
    "RetryScheduled",
    "RunEvent",
    "RunFinished",
    "RunInterrupted",
    "RunRequested",
    "RunStarted",
    "RunWaiting",
    "StoreFailed",
    "StoreWorking",
)
_LAZY = {
    "load_config": "config_file",
    "RunLogHandler": "run_log_handler",
    "RunStats": "run_stats",
    **dict.fromkeys(_EVENTS, "events"),
    **dict.fromkeys(("FireTimeChanges", "Timetable", "compare_fire_times"), "schedules.comparison"),
    "Finding": "schedules.finding",
    "lint": "schedules.lint",
    "Preview": "schedules.preview",
    "preview": "schedules.preview",
}

__all__ = [
    "ALL",
    "Alert",
    "AlertKind",
    "AlertObserver",
    "AlreadyClaimed",
    "Cause",
    "ClockJumped",
    "Coalesce",
    "Cron",
    "CronConfig",
    "CronError",
    "CronJob",
    "CronRun",
    "CronScheduler",
    "CronStore",
    "CurrentRun",
    "DuplicateJob",
    "Event",
    "EventsLost",
    "Explanation",
    "Fate",
    "Finding",
    "FireTimeChanges",
    "GiveUp",
    "Health",
    "History",
    "Interval",
    "InvalidConfig",
    "InvalidJob",
    "InvalidSchedule",
    "JobAdded",
    "JobBusy",
    "JobChanged",
    "JobContext",
    "JobEvent",
    "JobExecutor",
    "JobNotFound",
    "JobRemoved",
    "JobResult",
    "JobSpec",
    "Misfire",
    "MomentSkipped",
    "Notification",
    "NotificationNotFound",
    "NotificationSender",
    "NotificationStatus",
    "OneShot",
    "Overlap",
    "Pause",
    "Preview",
    "Receiver",
    "Retry",
    "RetryPolicy",
    "RetryScheduled",
    "RunClosed",
    "RunEvent",
    "RunFinished",
    "RunInterrupted",
    "RunLogHandler",
    "RunNotFound",
    "RunObserver",
    "RunOutput",
    "RunProgress",
    "RunRequested",
    "RunStarted",
    "RunStats",
    "RunStatus",
    "RunWaiting",
    "Schedule",
    "SchedulerClosed",
    "SchedulerCrashed",
    "SessionMode",
    "StoreCorrupt",
    "StoreFailed",
    "StoreUnavailable",
    "StoreWorking",
    "Timetable",
    "Trigger",
    "WouldDeadlock",
    "compare_fire_times",
    "current_notification",
    "current_run",
    "fire_times",
    "lint",
    "load_config",
    "next_run",
    "now",
    "open_scheduler",
    "open_store",
    "preview",
    "schedule_from_dict",
    "schedule_to_dict",
]

if not TYPE_CHECKING:  # else a type checker would accept any name

    def __getattr__(name: str) -> object:
        if name not in _LAZY:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from importlib import import_module  # noqa: PLC0415 - only these names need it

        value = globals()[name] = getattr(import_module(f"{__name__}.{_LAZY[name]}"), name)
        return value

    def __dir__() -> list[str]:
        return sorted({*globals(), *_LAZY})
