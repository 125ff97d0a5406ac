"""agent.toml: read the settings and jobs of one file.

The message of an error names the file, the key and the value. To know where it is, each level of the file wraps its checks in `_naming`.
"""

from __future__ import annotations

import difflib
import os
import stat
import tomllib
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypedDict, cast

import attrs

from cronactors import checks
from cronactors.errors import CronError, InvalidConfig, InvalidJob, one_line, shorten
from cronactors.model import MAX_WINDOW, Misfire
from cronactors.retention import EVERYTHING, NINETY_DAYS, History
from cronactors.schedules.schedule import Cron, Interval, OneShot, Schedule
from cronactors.settings import CronConfig, RetryPolicy
from cronactors.shell.checks import check_shell, check_shell_options, check_shell_prompt
from cronactors.spec import MAX_JOBS, MAX_PATH, Delay, JobOptions, JobSpec
from cronactors.storage.postgres.address import is_postgres, refuse_password

if TYPE_CHECKING:
    from _typeshed import StrPath

MAX_FILE = 10_000_000
"""Largest file that is read (bytes)."""

_MAX_SHOWN_PATH = 120


class _Settings(TypedDict, total=False):
    """Keys of ``[cron]`` that are fields of `CronConfig` of the same name and type."""

    default_max_retries: int
    default_timeout_secs: float
    max_concurrent_runs: int
    max_concurrent_runs_total: int
    cancel_grace: float
    shutdown_grace: float
    overdue_after: float | None
    executor: str
    origin: str
    schema: str


class _Limits(TypedDict, total=False):
    """Keys of ``history``, which are the fields of `History`."""

    days: float | None
    per_job: int | None
    keep_last: int


_SETTINGS: Final = tuple(_Settings.__annotations__)
_CRON_KEYS: Final = (*_SETTINGS, "database", "retry_delays", "history", "shell", "jobs")
_SCHEDULES: Final = ("cron", "every_ms", "at", "in_secs")
_OPTIONS: Final = tuple(key for key in JobOptions.__annotations__ if key not in ("misfire", "executor_options", "history"))
"""Keys of a job that are fields of `JobSpec` of the same name and type."""
_MISFIRE_KEYS: Final = ("window_secs", "coalesce", "max_runs")
_HISTORY_KEYS: Final = tuple(_Limits.__annotations__)
_JOB_KEYS: Final = ("name", "prompt", *_SCHEDULES, *_OPTIONS, "misfire", "history", "shell")


def load_config(path: StrPath) -> CronConfig:
    """Read settings and jobs from a TOML file.

    We read ``timezone`` at the top level and the table ``[cron]`` with its list ``[[cron.jobs]]``. Every other key at the top level
    belongs to the agent and is ignored; an unknown key inside ``[cron]`` is an error. A path in ``database`` is relative to the folder of
    the file.

    ``shell``, of a job or else of ``[cron]``, becomes an executor option of each job. If the file names the executor ``shell``, the
    prompts are checked too: Linux passes at most 131,071 bytes to a program.

    Args:
        path: The path of the file.

    Returns:
        The configuration; ``file`` is the absolute path of the file, and ``database`` is absolute if there is one. ``origin`` is None
        unless the file names one.

    Raises:
        InvalidConfig: The file cannot be read, is no TOML, or has a wrong setting. The message names file, key and value.
        InvalidJob: A field of a job is wrong. The message names file, job, key and value.
        InvalidSchedule: A schedule is wrong. The message names file, job, key and value.
    """
    file = _absolute(path)
    with _naming(_printable(file)):
        top = _parse(_read(file))
        cron = top.get("cron", {})
        if not isinstance(cron, dict):
            raise InvalidConfig(f"cron must be a table: write [cron], not cron = {shorten(cron)}")
        with _naming("[cron]"):
            _refuse_unknown(cron, _CRON_KEYS)
            settings = cast(_Settings, {key: cron[key] for key in _SETTINGS if key in cron})
            if cron.get("overdue_after") is False:  # TOML has no null
                settings["overdue_after"] = None
            retry = RetryPolicy(_retry_delays(cron["retry_delays"])) if "retry_delays" in cron else RetryPolicy()
            database = _database(cron["database"], file) if "database" in cron else None
            history = _history(cron["history"]) if "history" in cron else NINETY_DAYS
            config = CronConfig(**settings, retry=retry, history=history, database=database, file=str(file))
            if "shell" in cron:
                _refuse_shell_for_other_executor(config.executor)
                check_shell("shell", cron["shell"], InvalidConfig)
        zone = cast(str, top.get("timezone", config.timezone))
        jobs = _jobs(cron.get("jobs", []), config.executor, cast(str | None, cron.get("shell")))
        return attrs.evolve(config, timezone=zone, jobs=jobs)


def check_jobs_for_shell(config: CronConfig) -> None:
    """Check that the executor ``shell`` can run the jobs of a file. `load_config` calls it itself if the file names that executor.

    Raises:
        InvalidJob: An option is unknown or a prompt is too long. The message names file and job.
    """
    for job in config.jobs:
        with _naming(_printable(Path(config.file or ""))), _naming(f"job {shorten(job.name)}"):
            _check_for_shell(job)


def _check_for_shell(job: JobSpec) -> None:
    check_shell_options(job.executor_options)
    check_shell_prompt(job.prompt)


def _refuse_shell_for_other_executor(executor: str | None) -> None:
    """Refuse the key ``shell`` if the file names another executor, which would ignore it."""
    if executor not in (None, "shell"):
        raise InvalidConfig(f'shell is for executor = "shell", not for executor {shorten(executor)}')


def _absolute(path: StrPath) -> Path:
    """Make a path absolute without following links: a link whose target is replaced by a new version is still the same file."""
    try:
        text = os.fspath(path)
    except Exception as problem:  # a user's object may do anything
        raise InvalidConfig(f"path must be a path, not {shorten(path)}") from problem
    checks.text("path", text, InvalidConfig, limit=MAX_PATH)
    try:
        return Path(_normalised(os.path.join(os.getcwd(), text)))  # noqa: PTH109, PTH118
    except OSError as problem:
        raise InvalidConfig(f"path {shorten(text)} has no folder: {problem.strerror}") from None


def _printable(file: Path) -> str:
    """Write a path on one line; of a long one the end, as the name of the file is there."""
    text = str(file)
    return one_line(text if len(text) <= _MAX_SHOWN_PATH else f"…{text[1 - _MAX_SHOWN_PATH :]}", 2 * _MAX_SHOWN_PATH)


@contextmanager
def _naming(where: str) -> Iterator[None]:
    """Prefix the message of an error with the place in the file."""
    try:
        yield
    except CronError as problem:
        raise type(problem)(f"{where}: {problem}") from None


def _read(file: Path) -> str:
    try:
        if not stat.S_ISREG(file.stat().st_mode):  # opening a pipe could block for ever
            raise InvalidConfig("is not a file")
        with file.open("rb") as opened:
            content = opened.read(MAX_FILE + 1)
    except OSError as problem:
        raise InvalidConfig(f"cannot be read: {problem.strerror or problem}") from None
    if len(content) > MAX_FILE:
        raise InvalidConfig(f"is too big, at most {MAX_FILE:,} bytes are read")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as problem:
        line = content.count(b"\n", 0, problem.start) + 1
        raise InvalidConfig(f"is not UTF-8 text (line {line})") from None


def _parse(text: str) -> Mapping[str, object]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as problem:
        # The message ends with the number of the line, except for a mistake at the end of the file.
        message = str(problem).replace("at end of document", f"at line {text.rstrip().count(chr(10)) + 1}, the end of the file")
        raise InvalidConfig(f"is not TOML: {message}") from None
    except (ValueError, OverflowError, RecursionError):
        raise InvalidConfig("is not TOML that can be read: a number is too long, or brackets are too deep") from None


def _refuse_unknown(table: Mapping[str, object], known: Collection[str]) -> None:
    for key in table:
        if key in known:
            continue
        near = difflib.get_close_matches(key[:100], known, n=1)
        if key == "timezone":
            hint = "write it at the top of the file, before any table"
        else:
            hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(known)}"
        raise InvalidConfig(f"unknown key {shorten(key)}: {hint}")


def _retry_delays(value: object) -> tuple[float, ...]:
    if not isinstance(value, list):
        raise InvalidConfig(f"retry_delays must be a list of seconds, not {shorten(value)}")
    with _naming("retry_delays"):
        return RetryPolicy(cast(tuple[float, ...], value)).delays


def _database(value: object, file: Path) -> str:
    name = checks.text("database", value, InvalidConfig, limit=MAX_PATH)
    if is_postgres(name):
        return refuse_password(name, "database")
    return name if name == ":memory:" else _normalised(os.path.join(file.parent, name))  # noqa: PTH118 - Path drops a trailing slash


def _normalised(path: str) -> str:
    """Remove ``..`` from an absolute path if it names the same file without: not behind a symbolic link, nor with a slash at its end."""
    plain = os.path.abspath(path)  # noqa: PTH100 - resolve() follows links
    same = os.path.basename(path) not in ("", ".", "..") and os.path.realpath(plain) == os.path.realpath(path)  # noqa: PTH119
    return plain if same else path


def _jobs(value: object, executor: str | None, shell: str | None) -> tuple[JobSpec, ...]:
    if not isinstance(value, list):
        raise InvalidConfig(f"jobs must be a list of tables: write [[cron.jobs]], not {shorten(value)}")
    if len(value) > MAX_JOBS:
        raise InvalidConfig(f"jobs has too many items: {len(value):,} (at most {MAX_JOBS:,})")
    specs: list[JobSpec] = []
    seen: dict[tuple[str | None, str], int] = {}
    for number, table in enumerate(value, 1):
        if not isinstance(table, dict):
            raise InvalidConfig(f"job {number} must be a table: write [[cron.jobs]], not {shorten(table)}")
        name = table.get("name")
        with _naming(f"job {shorten(name) if isinstance(name, str) and name else number}"):
            spec = _job(table, executor, shell)
            if (first := seen.setdefault((spec.user_id, spec.name), number)) != number:
                raise InvalidConfig(f"name {shorten(spec.name)} is given twice, to the jobs {first} and {number} of the file")
        specs.append(spec)
    return tuple(specs)


def _job(table: Mapping[str, object], executor: str | None, shell: str | None) -> JobSpec:
    """Make the specification of a job from its table. `JobSpec` checks the values."""
    _refuse_unknown(table, _JOB_KEYS)
    for key in ("name", "prompt"):
        if key not in table:
            raise InvalidJob(f"{key} is missing")
    given = [key for key in _SCHEDULES if key in table]
    if len(given) != 1:
        found = f"not {len(given)} ({', '.join(given)})" if given else "not none"
        raise InvalidJob(f"exactly one of {', '.join(_SCHEDULES)} is needed, {found}")
    schedule = _schedule(given[0], table[given[0]])
    options = cast(JobOptions, {key: table[key] for key in _OPTIONS if key in table})
    if "misfire" in table:
        options["misfire"] = _misfire(table["misfire"])
    if "history" in table:
        try:
            options["history"] = _history(table["history"]) or EVERYTHING
        except InvalidConfig as problem:
            raise InvalidJob(str(problem)) from None
    if "shell" in table:
        _refuse_shell_for_other_executor(executor)
        shell = check_shell("shell", table["shell"])
    if shell is not None:
        options["executor_options"] = {"shell": shell}
    spec = JobSpec(cast(str, table["name"]), cast(str, table["prompt"]), schedule, **options)
    if executor == "shell":
        _check_for_shell(spec)
    return spec


def _misfire(value: object) -> Misfire:
    if not isinstance(value, dict):
        raise InvalidJob(f'misfire must be a table such as {{ coalesce = "all", max_runs = 5 }}, not {shorten(value)}')
    with _naming("misfire"):
        _refuse_unknown(value, _MISFIRE_KEYS)
        fields = {key: given for key, given in value.items() if key != "window_secs"}
        if "window_secs" in value:
            seconds = checks.number("window_secs", value["window_secs"], InvalidJob, least=0, most=MAX_WINDOW.total_seconds())
            fields["window"] = timedelta(seconds=seconds)
        return Misfire(**fields)


def _history(value: object) -> History | None:
    """Read how much history is kept. TOML has no null: ``false`` stands for no limit, and alone for all history."""
    if value is False:
        return None
    if not isinstance(value, dict):
        raise InvalidConfig(f"history must be a table such as {{ days = 30, per_job = false }}, or false, not {shorten(value)}")
    with _naming("history"):
        _refuse_unknown(value, _HISTORY_KEYS)
        limits = {key: None if given is False and key != "keep_last" else given for key, given in value.items()}
        return History(**cast(_Limits, limits))


def _schedule(key: str, value: object) -> Schedule | Delay:
    match key:
        case "cron":
            with _naming("cron"):  # the field of `Cron` has another name
                return Cron(cast(str, value))
        case "every_ms":
            return Interval(cast(int, value))
        case "at":
            return OneShot(cast(str | datetime, value))
        case _:
            return Delay(cast(float, value))
