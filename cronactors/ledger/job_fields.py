"""The fields of a job that users set, in one table: how a value becomes a column, and how the column becomes an attribute of `CronJob`.

Each field has one name, in `JobSpec`, `JobOptions`, `JobChanges`, `JobRow` and `CronJob`. Adding, upserting, updating and showing a job
go through the table, so that none of them can forget a field; a test compares the table with the classes. Two are not in it: the
schedule fills two columns, and a new one starts at the current time (`cronactors.ledger.jobs`); ``enabled`` of a specification pauses and
resumes the job (`cronactors.ledger.pausing`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import StrEnum
from functools import cache
from operator import attrgetter
from typing import Final, Self, TypeAlias, TypeVar, cast

import attrs

from cronactors import checks
from cronactors.errors import CronError, InvalidJob
from cronactors.executor_options import NO_OPTIONS, ExecutorOptions, check_executor_options
from cronactors.job_data import NO_DATA, check_data, data_from_column, data_to_column
from cronactors.model import Misfire, Overlap, SessionMode
from cronactors.policy import misfire_from_text, misfire_to_text
from cronactors.retention import history_from_text, history_to_text
from cronactors.settings import CronConfig
from cronactors.spec import JobSpec
from cronactors.storage.rows import JobRow
from cronactors.tags import tags_from_column, tags_to_column

Column: TypeAlias = str | int | float | None
"""A value as the storage keeps it."""

_V = TypeVar("_V")
_C = TypeVar("_C", str, int, float)
_E = TypeVar("_E", bound=StrEnum)


@attrs.frozen(kw_only=True)
class Defaults:
    """Defaults of a handle or a list, stored with a job whose specification leaves these fields open.

    Attributes:
        timezone: An IANA name.
        max_retries: How many failures of a moment are retried.
        timeout_secs: Timeout of a run (s).
    """

    timezone: str
    max_retries: int
    timeout_secs: float

    @classmethod
    def of(cls, config: CronConfig, timezone: str | None = None) -> Self:
        """Take them from a configuration; ``timezone`` counts instead of its own."""
        return cls(
            timezone=timezone or config.timezone,
            max_retries=config.default_max_retries,
            timeout_secs=config.default_timeout_secs,
        )


@attrs.frozen(kw_only=True)
class JobField:
    """A field of a job.

    Attributes:
        name: Its name everywhere.
        attribute: The attribute of `JobSpec` that holds the value, where that is not its name.
        to_column: Makes the column of a value that `JobSpec` or `check_changes` has checked; None: the value is the column.
        from_column: Makes the attribute of `CronJob`; a `CronError` says that the column cannot be read. None: as above.
        if_unreadable: The attribute of `CronJob` where the column cannot be read.
        has_default: Whether None in a specification stands for the value in `Defaults`.
    """

    name: str
    attribute: str = attrs.field(default=attrs.Factory(lambda self: self.name, takes_self=True))
    to_column: Callable[[object], Column] | None = None
    from_column: Callable[[Column], object] | None = None
    if_unreadable: object = None
    has_default: bool = False


def _as_it_is(name: str, *, has_default: bool = False) -> JobField:
    return JobField(name=name, has_default=has_default)


def _converted(name: str, to_column: Callable[[_V], _C], from_column: Callable[[_C], _V], if_unreadable: _V) -> JobField:
    """Make a field of values of one type, checked before, and of columns of one type, as the schema is STRICT."""
    return JobField(
        name=name,
        to_column=cast(Callable[[object], Column], to_column),
        from_column=cast(Callable[[Column], object], from_column),
        if_unreadable=if_unreadable,
    )


def _member(name: str, kind: type[_E], if_unreadable: _E) -> JobField:
    @cache
    def from_column(text: str) -> _E:
        return checks.member(name, text, InvalidJob, kind)

    return _converted(name, str, from_column, if_unreadable)


def _user_to_column(user_id: str | None) -> str:
    return user_id or ""


def _user_from_column(text: str) -> str | None:
    return text or None


def _options_to_column(value: Mapping[str, object]) -> str:
    return check_executor_options("executor_options", value).text


def _data_to_column(value: object) -> str | None:
    return data_to_column(check_data("data", value))


def options_from_column(text: str) -> ExecutorOptions:
    """Make the options without reading them: they are read when they are used, so that damaged ones fail their own run only."""
    return NO_OPTIONS if text == NO_OPTIONS.text else ExecutorOptions(text)


_NO_TAGS: tuple[str, ...] = ()

JOB_FIELDS: Final = (
    _as_it_is("name"),
    _converted("user_id", _user_to_column, _user_from_column, None),
    _as_it_is("prompt"),
    _as_it_is("timezone", has_default=True),
    _converted("delete_after_run", int, bool, if_unreadable=False),
    _as_it_is("max_retries", has_default=True),
    _as_it_is("timeout_secs", has_default=True),
    _member("session_mode", SessionMode, SessionMode.ISOLATED),
    _member("overlap", Overlap, Overlap.SKIP),
    _converted("misfire", misfire_to_text, misfire_from_text, Misfire()),
    _converted("executor_options", _options_to_column, options_from_column, NO_OPTIONS),
    _as_it_is("description"),
    _converted("tags", tags_to_column, tags_from_column, _NO_TAGS),
    JobField(
        name="data",
        attribute="_data",  # `data` itself is a copy
        to_column=_data_to_column,
        from_column=cast(Callable[[Column], object], data_from_column),
        if_unreadable=NO_DATA,
    ),
    _converted("history", history_to_text, history_from_text, None),
)
"""Every field that users set, but for the schedule."""

_OF_SPEC = attrgetter(*(field.attribute for field in JOB_FIELDS))
"""The values of the fields of a `JobSpec`, in the order of the table."""
_OF_ROW = attrgetter(*(field.name for field in JOB_FIELDS))
"""The columns of the fields in a `JobRow`, in the order of the table."""
_TO_READ = tuple((field.name, field.from_column, field.if_unreadable) for field in JOB_FIELDS)
"""Field, conversion and replacement, in the order of the table: 10,000 jobs are listed 0.02 s sooner than with attributes."""


def columns_of_spec(spec: JobSpec, defaults: Defaults) -> dict[str, Column]:
    """Make the columns of a specification, with that of ``enabled``; what it leaves open is taken from the defaults."""
    columns: dict[str, Column] = {"listed_enabled": None if spec.enabled is None else int(spec.enabled)}
    for field, value in zip(JOB_FIELDS, _OF_SPEC(spec), strict=True):
        if value is None and field.has_default:
            columns[field.name] = getattr(defaults, field.name)
        else:
            columns[field.name] = field.to_column(value) if field.to_column else value
    return columns


def columns_of_changes(changes: Mapping[str, object]) -> dict[str, Column]:
    """Make the columns of the fields that an update changes."""
    columns: dict[str, Column] = {}
    for field in JOB_FIELDS:
        if field.name in changes:
            value = changes[field.name]
            columns[field.name] = field.to_column(value) if field.to_column else cast(Column, value)
    return columns


def row_of(columns: Mapping[str, Column]) -> JobRow:
    """Make a row of all its columns."""
    return JobRow._make(map(columns.__getitem__, JobRow._fields))


def with_columns(job: JobRow, columns: Mapping[str, Column]) -> JobRow:
    """Return a row with other columns."""
    return row_of({**job._asdict(), **columns})


def attributes_of_row(job: JobRow, read: Callable[[Callable[[Column], object], Column, object], object]) -> dict[str, object]:
    """Make the attributes of `CronJob` that the table holds.

    Args:
        job: The row.
        read: Called with a conversion, a column and the value that replaces one that cannot be read; returns the attribute.
    """
    columns = _OF_ROW(job)
    try:
        return {
            name: column if from_column is None else from_column(column)
            for (name, from_column, _), column in zip(_TO_READ, columns, strict=True)
        }
    except CronError:
        return {
            name: column if from_column is None else read(from_column, column, if_unreadable)
            for (name, from_column, if_unreadable), column in zip(_TO_READ, columns, strict=True)
        }
