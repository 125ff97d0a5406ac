"""What users hand in: the specification of a job, the retry policy, the configuration. Checked when they are made."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from itertools import islice
from typing import TypedDict, TypeVar

import attrs

from cronactors import checks
from cronactors.errors import CronError, InvalidConfig, InvalidJob, shorten
from cronactors.executor_options import NO_OPTIONS, ExecutorOptions, Json, check_executor_options
from cronactors.instants import EARLIEST, LATEST, Millis
from cronactors.model import Misfire, Overlap, SessionMode
from cronactors.schedules.schedule import Cron, Interval, OneShot, Schedule
from cronactors.schedules.zones import check_zone

MAX_NAME = 200
"""Longest name of a job, user or session, in characters."""
MAX_JOBS = 10_000
"""How many jobs one call, or one file, takes."""
MAX_PATH = 4_096
"""Longest path of a file, in characters."""
MAX_PROMPT = 1_000_000
"""Longest prompt, in characters."""
MAX_RETRIES = 1_000
MAX_TIMEOUT = 10 * 366 * 86_400
"""Longest timeout, in seconds: ten years."""
MAX_SLOTS = 10_000
MAX_DELAY = 366 * 86_400
"""Longest delay of a retry, in seconds: a year."""

_T = TypeVar("_T")


def _checked(
    check: Callable[[str, object], object], *, optional: bool = False
) -> Callable[[object, attrs.Attribute[_T], _T], None]:
    """Make an attrs validator of a check; ``optional`` lets None pass."""

    def validate(_self: object, attribute: attrs.Attribute[_T], value: _T) -> None:
        if not (optional and value is None):
            check(attribute.name, value)

    return validate


def check_name(field: str, value: object) -> str:
    """Check a job's name: 1 to 200 characters on one line."""
    name = checks.text(field, value, InvalidJob, limit=MAX_NAME)
    if not name.isprintable() or name != name.strip():
        raise InvalidJob(f"{field} must be printable, on one line and without outer spaces, not {shorten(name)}")
    return name


def check_user(field: str, value: object) -> str:
    """Check a user's id: 1 to 200 characters."""
    return checks.text(field, value, InvalidJob, limit=MAX_NAME)


def check_prompt(field: str, value: object) -> str:
    """Check a prompt: 1 to 1,000,000 characters. It may hold a secret, whatever it is."""
    if not isinstance(value, str):
        raise InvalidJob(f"{field} must be text, not {type(value).__name__}")
    return checks.text(field, value, InvalidJob, limit=MAX_PROMPT)


def check_delay(field: str, value: object) -> float:
    """Check a delay in seconds: 0 to a year."""
    return checks.number(field, value, InvalidJob, least=0, most=MAX_DELAY)


@attrs.frozen
class Delay:
    """A one-shot given as a delay: its moment is settled when the job is first added (``in_secs`` of agent.toml)."""

    in_secs: float = attrs.field(validator=_checked(check_delay))


def check_schedule(field: str, value: object) -> Schedule | Delay:
    """Check that a value is one of the kinds of schedule; its contents were checked when it was made."""
    if not isinstance(value, OneShot | Interval | Cron | Delay):
        raise InvalidJob(f"{field} must be OneShot, Interval or Cron, not {shorten(value)}")
    return value


def check_job_zone(field: str, value: object) -> str:
    """Check a job's time zone: an IANA name."""
    return check_zone(value, field=field, error=InvalidJob)


def check_misfire(field: str, value: object) -> Misfire:
    """Check a misfire policy."""
    if not isinstance(value, Misfire):
        raise InvalidJob(f"{field} must be a Misfire, not {shorten(value)}")
    return value


def check_overlap(field: str, value: object) -> Overlap:
    """Check an overlap policy."""
    return checks.member(field, value, InvalidJob, Overlap)


def check_session_mode(field: str, value: object) -> SessionMode:
    """Check a session mode."""
    return checks.member(field, value, InvalidJob, SessionMode)


def _session_mode(value: SessionMode) -> SessionMode:
    return check_session_mode("session_mode", value)


def _overlap(value: Overlap) -> Overlap:
    return check_overlap("overlap", value)


def _options(value: Mapping[str, Json]) -> ExecutorOptions:
    return check_executor_options("executor_options", value)


def check_retries(field: str, value: object, error: type[CronError] = InvalidJob) -> int:
    """Check a number of retries: 0 to 1,000."""
    return checks.whole(field, value, error, least=0, most=MAX_RETRIES)


def check_timeout(field: str, value: object, error: type[CronError] = InvalidJob) -> float:
    """Check a timeout in seconds: from a millisecond to ten years."""
    return checks.number(field, value, error, least=0.001, most=MAX_TIMEOUT)


def check_flag(field: str, value: object) -> bool:
    """Check a bool of a job."""
    return checks.flag(field, value, InvalidJob)


def _show_length(text: str) -> str:
    return f"<{len(text)} characters>"


@attrs.frozen
class JobSpec:
    """What a job is to be. None stands for the default of the handle or its configuration when the job is added.

    Args:
        name: 1 to 200 printable characters, unique among the user's jobs.
        prompt: 1 to 1,000,000 characters: what the executor is to do.
        schedule: `Cron`, `Interval` or `OneShot`.
        delete_after_run: Remove the job after its first moment succeeded or its retries are spent.
        timezone: IANA name of the zone in which the schedule is meant.
        max_retries: 0 to 1,000: how many failures and timeouts of one moment are tried again.
        timeout_secs: Seconds after which a run is cancelled.
        session_mode: Own session, or the user's main session: runs of one main session never overlap.
        user_id: Whose job it is; None for the agent's own.
        overlap: What becomes of a moment that comes due while a run of this job goes on.
        misfire: What becomes of missed moments.
        executor_options: What to say to the executor besides the prompt: a mapping of JSON values, at most 4,096 bytes as JSON. It is
            copied. The executor ``shell`` knows ``shell``, the absolute path of the shell to use.

    Raises:
        InvalidJob: A field has a wrong type or value; the message names both.
    """

    name: str = attrs.field(validator=_checked(check_name))
    prompt: str = attrs.field(validator=_checked(check_prompt), repr=_show_length)
    schedule: Schedule | Delay = attrs.field(validator=_checked(check_schedule))
    delete_after_run: bool = attrs.field(default=False, kw_only=True, validator=_checked(check_flag))
    timezone: str | None = attrs.field(default=None, kw_only=True, validator=_checked(check_job_zone, optional=True))
    max_retries: int | None = attrs.field(default=None, kw_only=True, validator=_checked(check_retries, optional=True))
    timeout_secs: float | None = attrs.field(default=None, kw_only=True, validator=_checked(check_timeout, optional=True))
    session_mode: SessionMode = attrs.field(default=SessionMode.ISOLATED, kw_only=True, converter=_session_mode)
    user_id: str | None = attrs.field(default=None, kw_only=True, validator=_checked(check_user, optional=True))
    overlap: Overlap = attrs.field(default=Overlap.SKIP, kw_only=True, converter=_overlap)
    misfire: Misfire = attrs.field(default=Misfire(), kw_only=True, validator=_checked(check_misfire))
    executor_options: ExecutorOptions = attrs.field(default=NO_OPTIONS, kw_only=True, repr=False, converter=_options)


class JobOptions(TypedDict, total=False):
    """The optional fields of a new job; see `JobSpec`."""

    delete_after_run: bool
    timezone: str | None
    max_retries: int | None
    timeout_secs: float | None
    session_mode: SessionMode
    user_id: str | None
    overlap: Overlap
    misfire: Misfire
    executor_options: Mapping[str, Json]


class JobChanges(TypedDict, total=False):
    """What `CronStore.update_job` can change."""

    name: str
    prompt: str
    schedule: Schedule
    timezone: str
    delete_after_run: bool
    max_retries: int
    timeout_secs: float
    session_mode: SessionMode
    overlap: Overlap
    misfire: Misfire
    executor_options: Mapping[str, Json]


def _delays(value: Iterable[float]) -> tuple[float, ...]:
    if isinstance(value, str | bytes) or not isinstance(value, Iterable):
        raise InvalidConfig(f"delays must be a list of seconds, not {shorten(value)}")
    delays = tuple(islice(value, MAX_RETRIES + 1))  # it may be without end
    if len(delays) > MAX_RETRIES:
        raise InvalidConfig(f"delays are too many: at most {MAX_RETRIES:,} are allowed, as retries are")
    return tuple(checks.number("delays", delay, InvalidConfig, least=0, most=MAX_DELAY) for delay in delays)


@attrs.frozen
class RetryPolicy:
    """How long to wait before a failed moment is tried again.

    Args:
        delays: Seconds before the first, second, ... retry; the last is repeated.
        jitter: Share of a delay, 0 to 1, by which it is lengthened at random, so that jobs which failed together do not return
            together.

    Raises:
        InvalidConfig: A field has a wrong type or value.
    """

    delays: tuple[float, ...] = attrs.field(default=(30, 60, 300, 900, 3600), converter=_delays)
    jitter: float = 0.0

    def __attrs_post_init__(self) -> None:
        """Check what the types leave open."""
        if not self.delays:
            raise InvalidConfig("delays must hold at least one number of seconds, not ()")
        checks.number("jitter", self.jitter, InvalidConfig, least=0, most=1)


def check_specs(field: str, value: object) -> tuple[JobSpec, ...]:
    """Check a list of job specifications."""
    if isinstance(value, str | bytes) or not isinstance(value, Iterable):
        raise InvalidJob(f"{field} must be a list of JobSpec, not {shorten(value)}")
    specs = tuple(islice(value, MAX_JOBS + 1))  # it may be without end
    if len(specs) > MAX_JOBS:
        raise InvalidJob(f"{field} holds {len(specs):,} jobs or more, at most {MAX_JOBS:,} are allowed in one call")
    for index, spec in enumerate(specs):
        if not isinstance(spec, JobSpec):
            raise InvalidJob(f"{field}[{index}] must be a JobSpec, not {type(spec).__name__}")
    return specs


def _specs(value: Iterable[JobSpec]) -> tuple[JobSpec, ...]:
    return check_specs("jobs", value)


@attrs.frozen(kw_only=True)
class CronConfig:
    """Settings of a scheduler, and the defaults that are stored with each new job.

    Args:
        timezone: IANA name of the zone of jobs that name none.
        default_max_retries: Retries of jobs that name no number, 0 to 1,000.
        default_timeout_secs: Seconds after which a run is cancelled, of jobs that name none.
        max_concurrent_runs: How many runs go on at a time in this scheduler, 1 to 10,000.
        max_concurrent_runs_total: How many runs go on at a time over all schedulers of the file; None: no limit.
        retry: Delays of retries.
        cancel_grace: Seconds a cancelled run has to end before it is reported.
        shutdown_grace: Seconds that runs have to end by themselves when the scheduler closes.
        jobs: Jobs that are upserted when the scheduler opens; jobs of the same origin that are not among them are removed.
        origin: The name of the list ``jobs``; None: the path of ``file`` relative to the folder of the database, and without a file
            the jobs are upserted and never removed.
        file: The file that lists the jobs; `load_config` sets it to its absolute path.
        database: The file to keep jobs in, for the command line.
        executor: ``"shell"`` or ``"package.module:function"``, for the command line.

    Raises:
        InvalidConfig: A field has a wrong type or value.
    """

    timezone: str = "UTC"
    default_max_retries: int = 3
    default_timeout_secs: float = 7200
    max_concurrent_runs: int = 1
    max_concurrent_runs_total: int | None = None
    retry: RetryPolicy = RetryPolicy()
    cancel_grace: float = 5.0
    shutdown_grace: float = 5.0
    jobs: tuple[JobSpec, ...] = attrs.field(default=(), converter=_specs)
    origin: str | None = None
    file: str | None = None
    database: str | None = None
    executor: str | None = None

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
        checks.number("cancel_grace", self.cancel_grace, InvalidConfig, least=0, most=MAX_TIMEOUT)
        checks.number("shutdown_grace", self.shutdown_grace, InvalidConfig, least=0, most=MAX_TIMEOUT)
        for field in ("origin", "file", "database", "executor"):
            if (value := getattr(self, field)) is not None:
                checks.text(field, value, InvalidConfig, limit=MAX_PATH)


_CHANGES: dict[str, Callable[[str, object], object]] = {
    "name": check_name,
    "prompt": check_prompt,
    "schedule": check_schedule,
    "timezone": check_job_zone,
    "delete_after_run": check_flag,
    "max_retries": check_retries,
    "timeout_secs": check_timeout,
    "session_mode": check_session_mode,
    "overlap": check_overlap,
    "misfire": check_misfire,
    "executor_options": check_executor_options,
}


def check_changes(changes: JobChanges) -> JobChanges:
    """Check the fields of an update; executor options are copied.

    Raises:
        InvalidJob: A field is unknown or has a wrong type or value.
    """
    for field, value in changes.items():
        check = _CHANGES.get(field)
        if check is None:
            raise InvalidJob(f"{shorten(field)} is no field that can be changed; those are {', '.join(_CHANGES)}")
        check(field, value)
    if "executor_options" in changes:
        changes = {**changes, "executor_options": _options(changes["executor_options"])}
    return changes


def job_spec(name: str, prompt: str, schedule: Schedule | Delay, options: JobOptions) -> JobSpec:
    """Make a `JobSpec` of the arguments of ``add_job``.

    Raises:
        InvalidJob: An option is unknown, or a field has a wrong type or value.
    """
    unknown = set(options) - JobOptions.__optional_keys__
    if unknown:
        raise InvalidJob(
            f"{shorten(min(unknown))} is no field of a job; those are {', '.join(sorted(JobOptions.__optional_keys__))}"
        )
    return JobSpec(name, prompt, schedule, **options)


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


def check_id(field: str, value: object) -> str:
    """Check the id of a job or a run: text. Whether it exists is up to the ledger."""
    return checks.text(field, value, InvalidJob, limit=MAX_NAME)


def check_lookup_name(value: object) -> str:
    """Check a name to look up: text. Whether a job has it is up to the ledger."""
    return checks.text("name", value, InvalidJob, limit=MAX_NAME)


def check_user_id(value: object) -> str:
    """Check a user_id, and return it as rows have it: "" is None, the agent itself."""
    return "" if value is None else check_user("user_id", value)


def check_instant(field: str, value: object) -> Millis:
    """Check an aware datetime of the years 1970 to 9997."""
    found = checks.instant(field, value, InvalidJob)
    if not EARLIEST <= found < LATEST:
        raise InvalidJob(f"{field} must lie in the years 1970 to 9997, not {shorten(value)}")
    return found
