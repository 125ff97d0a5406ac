"""The verb ``export``: write the jobs of a store as an agent.toml, or as JSON with the same keys."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Final

import attrs
import click
import trio

from cronactors import open_store
from cronactors.cli import describe
from cronactors.cli.stdout import print_json
from cronactors.cli.toml_output import print_toml
from cronactors.config_file import MAX_FILE
from cronactors.errors import CronError, InvalidConfig, InvalidJob, JobNotFound, one_line, shorten
from cronactors.json_value import Json
from cronactors.model import ALL, CronJob, Misfire, Overlap, SessionMode
from cronactors.schedules.schedule import Cron, Interval
from cronactors.shell.checks import check_shell_options, check_shell_prompt
from cronactors.spec import MAX_JOBS
from cronactors.storage.postgres.address import is_postgres
from cronactors.toml_text import toml_comment, toml_string, toml_table

_HEADER: Final = """\
The jobs of a store, written by `cronactors export`. Settings of a scheduler,
such as max_concurrent_runs, are not in a store."""
_NO_EXECUTOR: Final = """\
# A store does not know the executor: name it here, or with `run --executor`.
# executor = "shell\""""
_NO_ORIGIN: Final = """\
# A database on a server needs a name for this list of jobs:
# origin = "my agent\""""
_UNREADABLE: Final = ("its stored schedule cannot be read", "its stored settings cannot be read")
"""How `CronJob.last_error` of a job begins that shows other values than are stored."""


@attrs.frozen(kw_only=True)
class Defaults:
    """The values that most jobs have. They are written once, and only the other jobs have their own."""

    timezone: str = "UTC"
    max_retries: int = 3
    timeout_secs: float = 7200

    @classmethod
    def of(cls, jobs: Sequence[CronJob]) -> Defaults:
        """Find the values that most jobs have."""
        if not jobs:
            return cls()
        found = {field: Counter(getattr(job, field) for job in jobs).most_common(1)[0][0] for field in cls.__annotations__}
        return cls(**found)


@attrs.frozen(kw_only=True)
class Export:
    """The jobs of a store as a file has them.

    Attributes:
        defaults: The values that most jobs have.
        executor: The executor of all jobs; None: unknown.
        origin: The name of their list, where a file must have one; None: it has none.
        jobs: The jobs that a file can hold.
        left_out: Those that it cannot hold, each with the reason.
    """

    defaults: Defaults
    executor: str | None
    origin: str | None
    jobs: tuple[CronJob, ...]
    left_out: tuple[tuple[CronJob, str], ...] = ()


def export_jobs(database: str, *, as_json: bool, user_id: str | None, executor: str | None) -> int:
    """Print the jobs of a store.

    Args:
        database: The path or the address of the store.
        as_json: Whether to print JSON.
        user_id: The only user whose jobs are exported; "" is the agent itself, None all of them.
        executor: The executor that the file names; None: ``"shell"`` if a job has the option ``shell``, else none.

    Returns:
        How many jobs a file cannot hold; each is named on standard error, with the reason.

    Raises:
        JobNotFound: The user has no job.
        CronError: The store cannot be read, or has too many jobs for one file.
    """
    jobs = trio.run(_read, database, user_id)
    if user_id is not None and not jobs:
        raise JobNotFound(f"the user {shorten(user_id)} has no job" if user_id else "the agent itself has no job")
    if as_json:
        print_json(json_of(make_export(jobs, executor=executor, everything=True)))
        return 0
    origin = _common_origin(jobs) if is_postgres(database) and user_id is None else None
    found = make_export(jobs, executor=executor, origin=origin)
    text = toml_of(found)
    if len(found.jobs) > MAX_JOBS or len(text.encode()) > MAX_FILE:
        raise InvalidConfig(
            f"{len(found.jobs):,} jobs are too many for one file, which holds {MAX_JOBS:,} jobs and {MAX_FILE:,} bytes: "
            "export them by user with --user, or as --format json"
        )
    print_toml(text)
    for job, why in found.left_out:
        click.echo(f"cronactors: job {one_line(job.name, 60)} is left out: {why}", err=True)
    return len(found.left_out)


async def _read(database: str, user_id: str | None) -> list[CronJob]:
    async with open_store(database, create=False) as store:
        return await store.list_jobs(user_id=ALL if user_id is None else user_id or None)


def _common_origin(jobs: Sequence[CronJob]) -> str | None:
    """Return the list to which all jobs belong; None if there are several."""
    origins = {job.origin for job in jobs}
    return origins.pop() if len(origins) == 1 else None


def make_export(
    jobs: Sequence[CronJob], *, executor: str | None = None, origin: str | None = None, everything: bool = False
) -> Export:
    """Sort out which jobs a file can hold.

    Args:
        jobs: The jobs.
        executor: As for `export_jobs`.
        origin: The origin of all jobs.
        everything: Whether to keep the others too.
    """
    if executor is None and any("shell" in _options(job) for job in jobs):
        executor = "shell"
    kept, left_out = [], []
    for job in jobs:
        why = None if everything else _why_not(job, executor)
        if why is None:
            kept.append(job)
        else:
            left_out.append((job, why))
    # A start with a list removes the jobs of its origin that it does not name.
    origin = None if left_out else origin
    return Export(defaults=Defaults.of(kept), executor=executor, origin=origin, jobs=tuple(kept), left_out=tuple(left_out))


def _options(job: CronJob) -> dict[str, Json]:
    try:
        return job.executor_options.read()
    except InvalidJob:
        return {}


def _why_not(job: CronJob, executor: str | None) -> str | None:
    """Explain why a file cannot hold a job; None if it can."""
    if job.last_error is not None and job.last_error.startswith(_UNREADABLE):
        return job.last_error
    try:
        options, data = job.executor_options.read(), job.data
        if executor == "shell":
            check_shell_options(options)
            check_shell_prompt(job.prompt)
        elif options:
            return f"a file cannot hold executor_options: it has {', '.join(map(shorten, options))}"
    except CronError as problem:
        return str(problem)
    return "TOML has no null, and its data has one" if data is not None and _has_null(data) else None


def _has_null(value: Json) -> bool:
    match value:
        case list():
            return any(map(_has_null, value))
        case dict():
            return any(map(_has_null, value.values()))
        case _:
            return value is None


def toml_of(export: Export) -> str:
    """Write an agent.toml."""
    parts = [toml_comment(_HEADER), toml_table("", [("timezone", export.defaults.timezone)]), _cron_table(export)]
    for job in export.jobs:
        table = toml_table("[[cron.jobs]]", _fields(job, export.defaults).items())
        note = _note(job)
        parts.append(table if note is None else f"{toml_comment(note)}\n{table}")
    parts += [toml_comment(f"left out: {one_line(job.name, 200)}: {why}") for job, why in export.left_out]
    return "\n\n".join(parts) + "\n"


def _cron_table(export: Export) -> str:
    lines = [
        "[cron]",
        _NO_EXECUTOR if export.executor is None else f"executor = {toml_string(export.executor)}",
        _NO_ORIGIN if export.origin is None else f"origin = {toml_string(export.origin)}",
        f"default_max_retries = {export.defaults.max_retries}",
        f"default_timeout_secs = {_plain(export.defaults.timeout_secs)!r}",
    ]
    return "\n".join(lines)


def json_of(export: Export) -> Json:
    """Make a JSON value with the keys of an agent.toml.

    A job has two more: ``executor_options`` if it has other options than ``shell``, and ``error`` if it cannot be read. ``enabled`` is
    false also for one that is done.
    """
    jobs: list[Json] = []
    for job in export.jobs:
        fields = _fields(job, export.defaults)
        options = {key: value for key, value in _options(job).items() if key != "shell"}
        unreadable = job.last_error is not None and job.last_error.startswith(_UNREADABLE)
        extra: dict[str, Json] = {
            **({} if job.enabled else {"enabled": False}),
            **({"executor_options": options} if options else {}),
            **({"error": job.last_error} if unreadable else {}),
        }
        jobs.append({**fields, **extra})
    cron: dict[str, Json] = {
        **({} if export.executor is None else {"executor": export.executor}),
        "default_max_retries": export.defaults.max_retries,
        "default_timeout_secs": _plain(export.defaults.timeout_secs),
        "jobs": jobs,
    }
    return {"timezone": export.defaults.timezone, "cron": cron}


def _note(job: CronJob) -> str | None:
    """Describe the facts about a job that a file cannot hold."""
    state = describe.state(job)
    if state == "done":
        return "done: in another store its moment is recorded as skipped, if it passed more than a minute ago"
    if job.pause is not None and (job.pause.until is not None or job.pause.note):
        return f"paused{describe.pause(job)}"
    return None


def _fields(job: CronJob, defaults: Defaults) -> dict[str, Json]:
    """Return the keys of a job and their values; those that have their default are left out."""
    fields: dict[str, Json] = {"name": job.name, "prompt": job.prompt}
    match job.schedule:
        case Cron(expr):
            fields["cron"] = expr
        case Interval(every_ms):
            fields["every_ms"] = every_ms
        case _:
            fields["at"] = job.schedule.at
    optional: list[tuple[str, Json, Json]] = [
        ("timezone", job.timezone, defaults.timezone),
        ("max_retries", job.max_retries, defaults.max_retries),
        ("timeout_secs", _plain(job.timeout_secs), defaults.timeout_secs),
        ("user_id", job.user_id, None),
        ("session_mode", job.session_mode.value, SessionMode.ISOLATED.value),
        ("overlap", job.overlap.value, Overlap.SKIP.value),
        ("misfire", _misfire(job.misfire), {}),
        ("delete_after_run", job.delete_after_run, False),
        ("history", _history(job), None),
        ("shell", _options(job).get("shell"), None),
        ("description", job.description, ""),
        ("tags", list(job.tags), []),
        ("data", _data(job), None),
        ("enabled", job.enabled or describe.state(job) == "done", True),
    ]
    return fields | {key: value for key, value, default in optional if value != default}


def _plain(number: float) -> float:
    """Return a whole number as an int, which people read more easily."""
    return int(number) if number == int(number) else number


def _data(job: CronJob) -> Json:
    try:
        return job.data
    except InvalidJob:
        return None


def _misfire(misfire: Misfire) -> Json:
    plain = Misfire()
    fields: dict[str, Json] = {}
    if misfire.window is not None:
        fields["window_secs"] = _plain(misfire.window.total_seconds())
    if misfire.coalesce is not plain.coalesce:
        fields["coalesce"] = misfire.coalesce.value
    if misfire.max_runs != plain.max_runs:
        fields["max_runs"] = misfire.max_runs
    return fields


def _history(job: CronJob) -> Json:
    """Return the history of a job as a file has it: ``false`` stands for no limit."""
    if job.history is None:
        return None
    days: Json = False if job.history.days is None else _plain(job.history.days)
    per_job: Json = False if job.history.per_job is None else job.history.per_job
    return {"days": days, "per_job": per_job, "keep_last": job.history.keep_last}
