"""The three kinds of schedule: one-shot, interval, cron. Pure."""

from __future__ import annotations

import math
from typing import TypeAlias

import attrs

from cronactors import checks
from cronactors.errors import InvalidSchedule, shorten
from cronactors.instants import DAY, Millis
from cronactors.schedules.cron import check_text, parse_cron
from cronactors.schedules.timestamps import timestamp_text

MAX_INTERVAL: Millis = 36_525 * DAY
"""The longest interval (ms): 100 years."""


def _checked_every(value: int) -> int:
    return checks.whole("every_ms", value, InvalidSchedule, least=1, most=MAX_INTERVAL)


def _checked_expr(value: str) -> str:
    text = check_text(value)
    parse_cron(text)
    return text


@attrs.frozen
class OneShot:
    """A single moment.

    Args:
        at: A datetime, or text in ISO 8601 as restricted by RFC 3339, such as ``"2026-03-29T09:00:00+02:00"`` or
            ``"2026-03-29 09:00"``. With an offset, or ``Z``, it is an instant, whatever the job's zone. Without one it is local
            time in the job's zone: a time that the clock shows twice means the first showing, and one that the clock skips is
            refused when the job is added. Fractions of a millisecond are cut off.

    Raises:
        InvalidSchedule: It is not a date and time, or not in the years 1970 to 9997.
    """

    at: str = attrs.field(converter=timestamp_text)


@attrs.frozen
class Interval:
    """Moments at a fixed distance: k * ``every_ms`` after the job was added. They don't drift, however long a run takes.

    Args:
        every_ms: The distance (ms), from 1 ms to 100 years.

    Raises:
        InvalidSchedule: It is not a whole number, or out of range.
    """

    every_ms: int = attrs.field(converter=_checked_every)

    @classmethod
    def every(cls, *, hours: float = 0, minutes: float = 0, seconds: float = 0, ms: float = 0) -> Interval:
        """Make an interval that is the sum of the arguments.

        Raises:
            InvalidSchedule: An argument is not a number of at least 0, or the sum is not a whole number of milliseconds from 1 ms
                to 100 years.
        """
        total = 0.0
        for name, part, unit in (
            ("hours", hours, 3_600_000),
            ("minutes", minutes, 60_000),
            ("seconds", seconds, 1_000),
            ("ms", ms, 1),
        ):
            total += checks.number(name, part, InvalidSchedule, least=0, most=MAX_INTERVAL) * unit
        # In binary floating point 0.07 s is 70.00000000000001 ms.
        if not math.isclose(total, round(total), rel_tol=0, abs_tol=1e-5):
            raise InvalidSchedule(f"every_ms must be a whole number of milliseconds, not {shorten(total)}")
        return cls(round(total))


@attrs.frozen
class Cron:
    """A cron expression, read in the job's zone.

    A time of day (``30 2 * * *``) runs exactly once every day: at the first moment after the jump if the clock skips it, and only
    the
    first time if the clock shows it twice. A rhythm (the second, minute or hour field begins with ``*``) follows the clock on the
    wall: it does not run at times that are skipped, and runs again in an hour that is repeated. These are the rules of Debian
    cron(8).

    Args:
        expr: Five fields as in POSIX crontab, or six with SECONDS FIRST: ``"0 0 9 * * *"`` is nine o'clock. Weekday 0 or 7 is
            Sunday. Names (``mon``, ``jan``), ``@daily`` and the like, and the special days ``L``, ``15W``, ``L5`` and ``5#2`` are
            allowed. If both the day of month and the day of week are restricted, a day matches if either does; only a plain ``*``
            or ``?`` leaves a field unrestricted.

    Raises:
        InvalidSchedule: It breaks the grammar, or no day ever matches it.
    """

    expr: str = attrs.field(converter=_checked_expr)


Schedule: TypeAlias = OneShot | Interval | Cron
"""Any of the three kinds."""


def check_is_schedule(schedule: Schedule) -> Schedule:
    """Check that a value is a schedule, and return it.

    Raises:
        InvalidSchedule: It is not.
    """
    if not isinstance(schedule, OneShot | Interval | Cron):
        raise InvalidSchedule(f"schedule must be OneShot, Interval or Cron, not {shorten(schedule)}")
    return schedule
