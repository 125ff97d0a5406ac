"""Values that users write: the retry policy, and the settings of a scheduler.

Each checks its fields when it is created, so that a mistake is found where it was made.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice

import attrs

from cronactors import checks
from cronactors.errors import InvalidConfig, shorten
from cronactors.retention import NINETY_DAYS, History
from cronactors.schedules.zones import check_zone
from cronactors.spec import MAX_DELAY, MAX_PATH, MAX_RETRIES, MAX_TIMEOUT, JobSpec, check_retries, check_specs, check_timeout
from cronactors.storage.postgres.address import DEFAULT_SCHEMA, check_schema

MAX_SLOTS = 10_000
"""Most runs at a time."""


def _delays(value: Iterable[float]) -> tuple[float, ...]:
    if isinstance(value, str | bytes) or not isinstance(value, Iterable):
        raise InvalidConfig(f"delays must be a list of seconds, not {shorten(value)}")
    delays = tuple(islice(value, MAX_RETRIES + 1))  # the iterable may be infinite
    if len(delays) > MAX_RETRIES:
        raise InvalidConfig(f"delays has too many items (at most {MAX_RETRIES:,})")
    return tuple(checks.number("delays", delay, InvalidConfig, least=0, most=MAX_DELAY) for delay in delays)


@attrs.frozen
class RetryPolicy:
    """How long to wait before a failed moment is retried.

    Args:
        delays: The delays (s) before the first, second, ... retry, 0 to a year each; the last is repeated.
        jitter: The greatest share of a delay, 0 to 1, that is added to it at random: jobs that failed together are not retried together.

    Raises:
        InvalidConfig: A field has a wrong type or value.
    """

    delays: tuple[float, ...] = attrs.field(default=(30, 60, 300, 900, 3600), converter=_delays)
    jitter: float = 0.0

    def __attrs_post_init__(self) -> None:
        """Check the ranges of the fields."""
        if not self.delays:
            raise InvalidConfig("delays must hold at least one number of seconds, not ()")
        checks.number("jitter", self.jitter, InvalidConfig, least=0, most=1)


def _specs(value: Iterable[JobSpec]) -> tuple[JobSpec, ...]:
    return check_specs("jobs", value)


@attrs.frozen(kw_only=True)
class CronConfig:
    """Settings of a scheduler, and the defaults that are stored with each new job.

    Args:
        timezone: IANA name of the zone of jobs that give none.
        default_max_retries: ``max_retries`` of jobs that give none, 0 to 1,000.
        default_timeout_secs: ``timeout_secs`` of jobs that give none: a millisecond to ten years.
        max_concurrent_runs: Most runs at a time in this scheduler, 1 to 10,000.
        max_concurrent_runs_total: Most runs at a time in all schedulers of the store, 1 to 10,000; None: no limit. If they were
            started with different numbers, the smallest of those that are alive counts for each that has one.
        retry: The delays of retries.
        history: How much history this scheduler keeps; None: all of it. A job may have a `History` of its own. A store in memory keeps all
            of it unless a `History` is given.
        cancel_grace: How long (s) a cancelled run may take to exit before it is reported as stuck.
        shutdown_grace: How long (s) runs may continue when the scheduler closes, before they are interrupted.
        overdue_after: How long (s) a moment may be due and not start before there is an alert, a second to ten years; None: for ever.
        jobs: Jobs that are upserted when the scheduler opens; jobs of the same origin that are not among them are removed.
        origin: The name of the list ``jobs``; None: the path of ``file`` relative to the folder of the database, and without a file
            the jobs are upserted and never removed.
        file: The absolute path of the file that lists the jobs, set by `load_config`.
        database: The path of the database or the address of a PostgreSQL database, for the command line.
        executor: ``"shell"`` or ``"package.module:function"``, for the command line.
        schema: The schema of a store on PostgreSQL: at most 63 lower-case letters, digits and underscores.

    Raises:
        InvalidConfig: A field has a wrong type or value.
    """

    timezone: str = "UTC"
    default_max_retries: int = 3
    default_timeout_secs: float = 7200
    max_concurrent_runs: int = 1
    max_concurrent_runs_total: int | None = None
    retry: RetryPolicy = RetryPolicy()
    history: History | None = NINETY_DAYS
    cancel_grace: float = 5.0
    shutdown_grace: float = 5.0
    overdue_after: float | None = 300.0
    jobs: tuple[JobSpec, ...] = attrs.field(default=(), converter=_specs)
    origin: str | None = None
    file: str | None = None
    database: str | None = None
    executor: str | None = None
    schema: str = DEFAULT_SCHEMA

    def __attrs_post_init__(self) -> None:
        """Check every field."""
        check_zone(self.timezone, field="timezone", error=InvalidConfig)
        check_retries("default_max_retries", self.default_max_retries, InvalidConfig)
        check_timeout("default_timeout_secs", self.default_timeout_secs, InvalidConfig)
        checks.whole("max_concurrent_runs", self.max_concurrent_runs, InvalidConfig, least=1, most=MAX_SLOTS)
        if self.max_concurrent_runs_total is not None:
            checks.whole("max_concurrent_runs_total", self.max_concurrent_runs_total, InvalidConfig, least=1, most=MAX_SLOTS)
        if not isinstance(self.retry, RetryPolicy):
            raise InvalidConfig(f"retry must be a RetryPolicy, not {shorten(self.retry)}")
        if self.history is not None and not isinstance(self.history, History):
            raise InvalidConfig(f"history must be a History or None, not {shorten(self.history)}")
        checks.number("cancel_grace", self.cancel_grace, InvalidConfig, least=0, most=MAX_TIMEOUT)
        checks.number("shutdown_grace", self.shutdown_grace, InvalidConfig, least=0, most=MAX_TIMEOUT)
        if self.overdue_after is not None:
            checks.number("overdue_after", self.overdue_after, InvalidConfig, least=1, most=MAX_TIMEOUT)
        check_schema(self.schema)
        for field in ("origin", "file", "database", "executor"):
            if (value := getattr(self, field)) is not None:
                checks.text(field, value, InvalidConfig, limit=MAX_PATH)


def check_settings(config: object, timezone: object) -> CronConfig:
    """Check the settings that ``open_store`` and ``open_scheduler`` share.

    Raises:
        InvalidConfig: One of them is wrong.
    """
    if config is None:
        config = CronConfig()
    if not isinstance(config, CronConfig):
        raise InvalidConfig(f"config must be a CronConfig, not {shorten(config)}")
    if timezone is not None:
        check_zone(timezone, field="timezone", error=InvalidConfig)
    return config
