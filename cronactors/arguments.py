"""Arguments of public calls: checked at the door, and put into the form in which the inside wants them."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from typing import TypeAlias

from cronactors.checks import instant, member, text
from cronactors.errors import InvalidConfig, InvalidJob, StoreUnavailable, shorten
from cronactors.instants import EARLIEST, LATEST, Millis
from cronactors.model import Cause, CronJob, JobOptions, RunStatus
from cronactors.policy import MAX_ERROR, MAX_SUMMARY, Outcome, truncated
from cronactors.schedules.schedule import Schedule
from cronactors.schedules.zones import check_zone
from cronactors.spec import MAX_NAME, MAX_PATH, CronConfig, Delay, JobSpec, check_specs, check_user

StrPath: TypeAlias = "str | os.PathLike[str]"


_LOW = (1 << 62) - 1  # the last bits of a UUID, behind its variant


def job_spec(name: str, prompt: str, schedule: Schedule | Delay, options: JobOptions) -> JobSpec:
    """Make a specification of the arguments of ``add_job``; an unknown option is refused."""
    unknown = set(options) - JobOptions.__optional_keys__
    if unknown:
        raise InvalidJob(
            f"{shorten(min(unknown))} is no field of a job; those are {', '.join(sorted(JobOptions.__optional_keys__))}"
        )
    return JobSpec(name, prompt, schedule, **options)


def with_ids(specs: Iterable[JobSpec]) -> tuple[tuple[str, JobSpec], ...]:
    """Give each specification an id of its own."""
    checked = check_specs("specs", specs)
    return tuple(zip(_new_ids(len(checked)), checked, strict=True))


def _new_ids(count: int) -> list[str]:
    """Ids that grow (RFC 9562, UUID version 7, section 6.2, method 2): what is added together stands together in every index.

    With random ones each run would write a page of its own of the history's index: 8 us more, of some 90.
    """
    head = f"{time.time_ns() // 1_000_000:012x}"
    first = int.from_bytes(os.urandom(10), "big") >> 7  # 73 bits, so that there is room to grow in 74
    return [f"{head}7{tail >> 62:03x}{0b10 << 62 | tail & _LOW:016x}" for tail in range(first, first + count)]


def check_id(field: str, value: object) -> str:
    """Check an id: text, whether or not anything has it."""
    return text(field, value, InvalidJob, limit=MAX_NAME)


def check_instant(field: str, value: object) -> Millis:
    """Check an aware datetime of the years 1970 to 9997."""
    found = instant(field, value, InvalidJob)
    if not EARLIEST <= found < LATEST:
        raise InvalidJob(f"{field} must lie in the years 1970 to 9997, not {shorten(value)}")
    return found


def check_target(job: object) -> CronJob | str:
    """Check what is to be started: a job as the store gave it, or an id."""
    if not isinstance(job, CronJob):
        return check_id("job", job)
    check_id("job.id", job.id)
    moments: dict[str, object] = {"next_run_at": job.next_run_at, "retry_at": job.retry_at}
    for field, moment in moments.items():
        if moment is not None:
            check_instant(f"job.{field}", moment)
    return job


def check_lookup_name(value: object) -> str:
    """Check a name to look for: text, whether or not a job has it."""
    return text("name", value, InvalidJob, limit=MAX_NAME)


def check_user_id(value: object) -> str:
    """Check a user_id; rows have "" for None, the agent itself."""
    return "" if value is None else check_user("user_id", value)


def ending_of(status: object, result: object, *, session_id: object, error: object) -> Outcome:
    """Make an outcome of the arguments of ``record_run_complete``.

    Raises:
        InvalidJob: One of them has a wrong type or value.
    """
    checked = member("status", status, InvalidJob, RunStatus)
    if checked not in (RunStatus.SUCCESS, RunStatus.FAILED, RunStatus.CANCELLED):
        raise InvalidJob(f"status must be success, failed or cancelled, not {checked}")
    if checked is RunStatus.FAILED and error is None:
        result, error = None, result
    return Outcome(
        status=checked,
        cause={RunStatus.FAILED: Cause.ERROR, RunStatus.CANCELLED: Cause.CANCELLED}.get(checked),
        result=None if result is None else truncated(_any_text("result", result), MAX_SUMMARY),
        error=None if error is None else truncated(_any_text("error", error), MAX_ERROR),
        session_id=text("session_id", session_id, InvalidJob, limit=MAX_NAME, empty=True),
    )


def _any_text(field: str, value: object) -> str:
    if not isinstance(value, str):
        raise InvalidJob(f"{field} must be text, not {shorten(value)}")
    return value


def check_path(value: object) -> str:
    """Check the path of a store.

    Raises:
        StoreUnavailable: It is no path.
    """
    path, cause = value, None
    try:
        if isinstance(value, os.PathLike):
            path = os.fspath(value)
    except Exception as problem:  # noqa: BLE001 - it calls itself a path, and a user's object may do anything
        path, cause = None, problem
    if not isinstance(path, str):
        raise StoreUnavailable(f"store must be a path, not {shorten(value)}") from cause
    return text("store", path, StoreUnavailable, limit=MAX_PATH)


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
