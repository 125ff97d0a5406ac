"""Values that users write: the specification of a job, and the checks of its fields.

Each checks its fields when it is created, so that a mistake is found where it was made.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from itertools import islice
from typing import Final, TypedDict, TypeVar, cast

import attrs

from cronactors import checks
from cronactors.errors import CronError, InvalidJob, shorten
from cronactors.executor_options import NO_OPTIONS, ExecutorOptions, check_executor_options
from cronactors.instants import EARLIEST, LATEST, Millis
from cronactors.job_data import WithData, check_data
from cronactors.json_value import Json, JsonInput
from cronactors.model import Misfire, Overlap, SessionMode, convert_options, show_length
from cronactors.retention import History
from cronactors.schedules.schedule import Cron, Interval, OneShot, Schedule
from cronactors.schedules.zones import check_zone
from cronactors.tags import check_tags, convert_tags

MAX_NAME = 200
"""Longest name of a job, user or session, in characters."""
MAX_JOBS = 10_000
"""Most jobs in one call, or in one file."""
MAX_PATH = 4_096
"""Longest path of a file, in characters."""
MAX_PROMPT = 1_000_000
"""Longest prompt, in characters."""
MAX_DESCRIPTION = 1_000
"""Longest description of a job, in characters."""
MAX_RETRIES = 1_000
"""Most retries of one moment."""
MAX_TIMEOUT = 10 * 366 * 86_400
"""Longest timeout (s): ten years."""
MAX_DELAY = 366 * 86_400
"""Longest delay of a retry (s): a year."""

_T = TypeVar("_T")


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
    """Check a prompt: 1 to 1,000,000 characters. As it may hold a secret, no error shows the value, even one of a wrong type."""
    if not isinstance(value, str):
        raise InvalidJob(f"{field} must be text, not {type(value).__name__}")
    return checks.text(field, value, InvalidJob, limit=MAX_PROMPT)


def check_description(field: str, value: object) -> str:
    """Check a description: at most 1,000 characters."""
    return checks.text(field, value, InvalidJob, limit=MAX_DESCRIPTION, empty=True)


def check_delay(field: str, value: object) -> float:
    """Check a delay (s): 0 to a year."""
    return checks.number(field, value, InvalidJob, least=0, most=MAX_DELAY)


def _check_delay(_delay: object, attribute: attrs.Attribute[_T], value: _T) -> None:
    check_delay(attribute.name, value)


@attrs.frozen
class Delay:
    """A one-shot that is due ``in_secs`` seconds after the job is first added (``in_secs`` of agent.toml)."""

    in_secs: float = attrs.field(validator=_check_delay)


def check_schedule(field: str, value: object) -> Schedule | Delay:
    """Check that a value is a schedule; its own fields were checked when it was created."""
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


def check_history(field: str, value: object) -> History | None:
    """Check how much history of a job is kept; None: as the settings say."""
    if value is not None and not isinstance(value, History):
        raise InvalidJob(f"{field} must be a History or None, not {shorten(value)}")
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


def check_retries(field: str, value: object, error: type[CronError] = InvalidJob) -> int:
    """Check a number of retries: 0 to 1,000."""
    return checks.whole(field, value, error, least=0, most=MAX_RETRIES)


def check_timeout(field: str, value: object, error: type[CronError] = InvalidJob) -> float:
    """Check a timeout (s): a millisecond to ten years."""
    return checks.number(field, value, error, least=0.001, most=MAX_TIMEOUT)


def check_flag(field: str, value: object) -> bool:
    """Check a bool of a job."""
    return checks.flag(field, value, InvalidJob)


_FIELD_CHECKS: Final[Mapping[str, Callable[[str, object], object]]] = {
    "name": check_name,
    "prompt": check_prompt,
    "schedule": check_schedule,
    "delete_after_run": check_flag,
    "timezone": check_job_zone,
    "max_retries": check_retries,
    "timeout_secs": check_timeout,
    "session_mode": check_session_mode,
    "user_id": check_user,
    "overlap": check_overlap,
    "misfire": check_misfire,
    "executor_options": check_executor_options,
    "description": check_description,
    "tags": check_tags,
    "data": check_data,
    "history": check_history,
    "enabled": check_flag,
}
"""The fields of a job, each with its check: `JobSpec` and `check_changes` use it."""


def _check_field(_spec: object, attribute: attrs.Attribute[_T], value: _T) -> None:
    """Check a field of `JobSpec`; a field whose default is None may be None."""
    if value is not None or attribute.default is not None:
        _FIELD_CHECKS[attribute.name](attribute.name, value)


@attrs.frozen
class JobSpec(WithData):
    """The specification of a job. A field that is None takes the default of the store or scheduler to which the job is added.

    Args:
        name: 1 to 200 printable characters, unique among the user's jobs.
        prompt: The text for the executor: 1 to 1,000,000 characters.
        schedule: `Cron`, `Interval` or `OneShot`.
        delete_after_run: Whether to remove the job once its first moment has succeeded or used up its retries.
        timezone: IANA name of the zone in which the schedule is meant.
        max_retries: How many failures and timeouts of one moment are retried: 0 to 1,000.
        timeout_secs: How long (s) a run may take before it is cancelled: a millisecond to ten years.
        session_mode: Own session, or the user's main session: runs of one main session never overlap.
        user_id: Whose job it is; None for the agent's own.
        overlap: The policy for a moment that comes due while a run of this job is still running.
        misfire: The policy for missed moments.
        executor_options: Options for the executor besides the prompt: a mapping of JSON values, at most 4,096 bytes as JSON. It is
            copied. The executor ``shell`` takes the option ``shell``, the absolute path of the shell to use.
        description: What the job is for, at most 1,000 characters.
        tags: Words by which `CronStore.list_jobs` finds it: at most 32, of 1 to 100 printable characters each.
        data: A JSON value for its runs, `JobContext.data`: at most 1,000,000 bytes as JSON. It is copied.
        history: How much history of this job is kept; None: as the settings of the scheduler say.
        enabled: False: the job is added paused. In an upsert True resumes it and False pauses it, where that is another value than that
            of the upsert before; None leaves it as users have set it.

    Raises:
        InvalidJob: A field has a wrong type or value; the message names both.
    """

    name: str = attrs.field(validator=_check_field)
    prompt: str = attrs.field(validator=_check_field, repr=show_length)
    schedule: Schedule | Delay = attrs.field(validator=_check_field)
    delete_after_run: bool = attrs.field(default=False, kw_only=True, validator=_check_field)
    timezone: str | None = attrs.field(default=None, kw_only=True, validator=_check_field)
    max_retries: int | None = attrs.field(default=None, kw_only=True, validator=_check_field)
    timeout_secs: float | None = attrs.field(default=None, kw_only=True, validator=_check_field)
    session_mode: SessionMode = attrs.field(default=SessionMode.ISOLATED, kw_only=True, converter=_session_mode)
    user_id: str | None = attrs.field(default=None, kw_only=True, validator=_check_field)
    overlap: Overlap = attrs.field(default=Overlap.SKIP, kw_only=True, converter=_overlap)
    misfire: Misfire = attrs.field(default=Misfire(), kw_only=True, validator=_check_field)
    executor_options: ExecutorOptions = attrs.field(default=NO_OPTIONS, kw_only=True, repr=False, converter=convert_options)
    description: str = attrs.field(default="", kw_only=True, validator=_check_field)
    tags: tuple[str, ...] = attrs.field(default=(), kw_only=True, converter=convert_tags)
    history: History | None = attrs.field(default=None, kw_only=True, validator=_check_field)
    enabled: bool | None = attrs.field(default=None, kw_only=True, validator=_check_field)


class JobOptions(TypedDict, total=False):
    """The optional fields of `JobSpec`, for type checkers."""

    delete_after_run: bool
    timezone: str | None
    max_retries: int | None
    timeout_secs: float | None
    session_mode: SessionMode
    user_id: str | None
    overlap: Overlap
    misfire: Misfire
    executor_options: Mapping[str, Json]
    description: str
    tags: Iterable[str]
    data: JsonInput
    history: History | None
    enabled: bool | None


class JobChanges(TypedDict, total=False):
    """The fields of a job that `CronStore.update_job` can change."""

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
    description: str
    tags: Iterable[str]
    data: JsonInput
    history: History | None


def check_specs(field: str, value: object) -> tuple[JobSpec, ...]:
    """Check a list of job specifications."""
    if isinstance(value, str | bytes) or not isinstance(value, Iterable):
        raise InvalidJob(f"{field} must be a list of JobSpec, not {shorten(value)}")
    specs = tuple(islice(value, MAX_JOBS + 1))  # the iterable may be infinite
    if len(specs) > MAX_JOBS:
        raise InvalidJob(f"{field} holds {len(specs):,} jobs or more, at most {MAX_JOBS:,} are allowed in one call")
    for index, spec in enumerate(specs):
        if not isinstance(spec, JobSpec):
            raise InvalidJob(f"{field}[{index}] must be a JobSpec, not {type(spec).__name__}")
    return specs


_CHANGEABLE: Final = tuple(JobChanges.__annotations__)
_COPIED: Final = ("executor_options", "tags", "data")


def check_changes(changes: JobChanges) -> JobChanges:
    """Check the fields of an update.

    Returns:
        The changes, with copies of executor options, tags and data.

    Raises:
        InvalidJob: A field is unknown or has a wrong type or value.
    """
    copies = {}
    for field, value in changes.items():
        if field not in _CHANGEABLE:
            raise InvalidJob(f"{shorten(field)} is no field that can be changed; those are {', '.join(_CHANGEABLE)}")
        checked = _FIELD_CHECKS[field](field, value)
        if field in _COPIED:  # later changes of the value must not count, and an iterator can be read once
            copies[field] = checked
    return cast(JobChanges, {**changes, **copies}) if copies else changes


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
