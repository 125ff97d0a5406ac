"""A durable job scheduler for trio: cron expressions, fixed intervals and one-shots in one SQLite file, run as real trio tasks.

Start with `open_scheduler`; `open_store` opens the same file without one.
"""

from cronactors.config import load_config
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
    Retry,
    RunClosed,
    RunNotFound,
    SchedulerClosed,
    SchedulerCrashed,
    StoreCorrupt,
    StoreUnavailable,
    WouldDeadlock,
)
from cronactors.findings import Finding, lint
from cronactors.handle import CronStore, open_store
from cronactors.model import (
    ALL,
    Cause,
    CronJob,
    CronRun,
    JobContext,
    JobExecutor,
    JobResult,
    Misfire,
    NotificationSender,
    Overlap,
    RunObserver,
    RunStatus,
    SessionMode,
    Trigger,
)
from cronactors.preview import Preview, preview
from cronactors.schedule import (
    Cron,
    Interval,
    OneShot,
    Schedule,
    fire_times,
    next_run,
    schedule_from_dict,
    schedule_to_dict,
)
from cronactors.scheduler import CronScheduler, Health, open_scheduler
from cronactors.spec import CronConfig, JobSpec, RetryPolicy
from cronactors.wallclock import now

__version__ = "0.1.0"

__all__ = [
    "ALL",
    "AlreadyClaimed",
    "Cause",
    "Cron",
    "CronConfig",
    "CronError",
    "CronJob",
    "CronRun",
    "CronScheduler",
    "CronStore",
    "DuplicateJob",
    "Finding",
    "GiveUp",
    "Health",
    "Interval",
    "InvalidConfig",
    "InvalidJob",
    "InvalidSchedule",
    "JobBusy",
    "JobContext",
    "JobExecutor",
    "JobNotFound",
    "JobResult",
    "JobSpec",
    "Misfire",
    "NotificationSender",
    "OneShot",
    "Overlap",
    "Preview",
    "Retry",
    "RetryPolicy",
    "RunClosed",
    "RunNotFound",
    "RunObserver",
    "RunStatus",
    "Schedule",
    "SchedulerClosed",
    "SchedulerCrashed",
    "SessionMode",
    "StoreCorrupt",
    "StoreUnavailable",
    "Trigger",
    "WouldDeadlock",
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
