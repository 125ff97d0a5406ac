"""Says in plain English when a schedule fires. Pure.

The words describe local times and days, as the schedule means them on a day without a clock change: what a change does to a moment is
said by the notes of `preview`. A test reads the words of any expression back, and compares their times and days with those of the
parser, so that a short sentence is never a wrong one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import Final

from cronactors.instants import Millis
from cronactors.schedules.cron import parse_cron, split_fields
from cronactors.schedules.cron_fields import MONTH, MONTH_DAY, WEEKDAY, WrittenField
from cronactors.schedules.local_times import LocalTimes
from cronactors.schedules.schedule import Cron, Interval, OneShot, Schedule

MOST: Final = 160
"""The longest sentence (characters): in place of a longer one we show the expression itself."""

_DAY = 86_400
_FIRST_NOT_IN_ALL_MONTHS = 29
_SHORTEST_RUN = 3
_MOST_TIMES = 6
_MOST_EVEN_TIMES = 4
_UNITS_OF_INTERVAL: tuple[tuple[Millis, str], ...] = ((3_600_000, "h"), (60_000, "min"), (1_000, "s"))
_DAYS_FROM: Millis = 48 * 3_600_000
_WEEKDAYS = ("Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday")
_MONTHS = (
    "January", "February", "March", "April", "May", "June",
    "July", "August", "September", "October", "November", "December",
)  # fmt: skip
_ORDINALS = ("", "first", "second", "third", "fourth", "fifth")


def schedule_in_words(schedule: Schedule) -> str:
    """Say when a schedule fires, such as "at 09:00, Monday to Friday". The zone is not named.

    "And" between days means that either matches. An interval has short units ("every 15 min"), since it counts from when the job was
    added, and an expression follows the clock ("every 15 minutes").
    """
    match schedule:
        case Interval(every_ms):
            return f"every {_interval(every_ms)}"
        case OneShot(at):
            return f"once, at {_timestamp(at)}"
        case Cron(expr):
            words = _cron(expr)
            return words if len(words) <= MOST else f"at the times of {' '.join(expr.split())}"


def _interval(every_ms: Millis) -> str:
    if every_ms >= _DAYS_FROM and every_ms % (24 * 3_600_000) == 0:
        return f"{every_ms // (24 * 3_600_000):,} days"
    for size, unit in _UNITS_OF_INTERVAL:
        if every_ms % size == 0:
            return f"{every_ms // size:,} {unit}"
    seconds, rest = divmod(every_ms, 1_000)
    return f"{seconds:,}.{rest:03d}".rstrip("0") + " s" if seconds else f"{every_ms} ms"


def _timestamp(text: str) -> str:
    """Write the time of a one-shot as it was given, with its offset if it has one."""
    found = datetime.fromisoformat(text.upper())
    timespec = "milliseconds" if found.microsecond else "seconds" if found.second else "minutes"
    local = found.replace(tzinfo=None).isoformat(sep=" ", timespec=timespec)
    if found.tzinfo is None:
        return local
    return f"{local} {found.isoformat(timespec='seconds')[19:] if found.utcoffset() else 'UTC'}"


def _cron(expr: str) -> str:
    fields = split_fields(expr)
    time, all_day = _time(parse_cron(expr))
    months = sorted(fields[MONTH].values)
    days, in_months = _days(fields[MONTH_DAY], fields[WEEKDAY], months)
    if not days and not all_day:
        days = " every day"
    return f"{time}{days}{in_months}"


# Times of day


def _time(times: LocalTimes) -> tuple[str, bool]:
    """Say at which times of a day, and return whether that is obviously all day."""
    hours, minutes, seconds = times.hours, times.minutes, times.seconds
    first = hours[0] * 3600 + minutes[0] * 60 + seconds[0]
    last = hours[-1] * 3600 + minutes[-1] * 60 + seconds[-1]
    step = _even_step(times, first, last)
    if step and first == 0 and last + step == _DAY and times.per_day > 2:  # noqa: PLR2004 - two times are better listed
        return f"every {_distance(step)}", True
    every_hour = len(hours) == 24  # noqa: PLR2004
    if every_hour and seconds == (0,) and len(minutes) <= _MOST_EVEN_TIMES:
        return f"at {_named('minute', minutes)} of every hour", True
    if times.per_day <= (_MOST_EVEN_TIMES if step else _MOST_TIMES):
        listed = [hour * 3600 + minute * 60 + second for hour in hours for minute in minutes for second in seconds]
        return f"at {_join(_clock(time, seconds=seconds != (0,)) for time in listed)}", False
    if step and not (every_hour and len(minutes) == 60):  # noqa: PLR2004
        ends = [_clock(time, seconds=seconds != (0,)) for time in (first, last)]
        return f"every {_distance(step)} from {ends[0]} to {ends[1]}", False
    return _product(hours, minutes, seconds), every_hour


def _even_step(times: LocalTimes, first: int, last: int) -> int:
    """Return the distance (s) between neighbours, if it is the same for all times of a day; else, or if there is one time, 0."""
    step = next(
        (
            (values[1] - values[0]) * unit
            for values, unit in ((times.seconds, 1), (times.minutes, 60), (times.hours, 3600))
            if len(values) > 1
        ),
        0,
    )
    if not step or (last - first) % step or (last - first) // step + 1 != times.per_day:
        return 0
    # So many different times between the ends are all that there can be, if each lies on the grid.
    on_grid = all(
        (value - values[0]) * unit % step == 0
        for values, unit in ((times.seconds, 1), (times.minutes, 60), (times.hours, 3600))
        for value in values
    )
    return step if on_grid else 0


def _product(hours: Sequence[int], minutes: Sequence[int], seconds: Sequence[int]) -> str:
    """List the values of each field."""
    parts = []
    if tuple(seconds) != (0,):
        parts.append("every second" if len(seconds) == 60 else _named("second", seconds))  # noqa: PLR2004
    parts.append("every minute" if len(minutes) == 60 else _named("minute", minutes))  # noqa: PLR2004
    if len(hours) < 24:  # noqa: PLR2004
        parts.append(_named("hour", hours))
    elif len(minutes) < 60:  # noqa: PLR2004
        parts.append("every hour")
    text = " of ".join(parts)
    return text if text.startswith("every") else f"at {text}"


def _distance(step: int) -> str:
    size, unit = next((size, unit) for size, unit in ((3600, "hour"), (60, "minute"), (1, "second")) if step % size == 0)
    return unit if step == size else f"{step // size} {unit}s"


def _clock(time: int, *, seconds: bool) -> str:
    text = f"{time // 3600:02d}:{time // 60 % 60:02d}"
    return f"{text}:{time % 60:02d}" if seconds else text


# Days


def _days(month_days: WrittenField, weekdays: WrittenField, months: Sequence[int]) -> tuple[str, str]:
    """Say on which days, "" for every day; and in which months, "" for all."""
    in_months = "" if len(months) == len(_MONTHS) else f", in {_join(_runs(months, lambda month: _MONTHS[month - 1]))}"
    restricted = [field for field in (month_days, weekdays) if field.restricted]
    if not restricted or _is_full(month_days, 31) or _is_full(weekdays, 7):
        return "", in_months
    plain_days, plain_weekdays = (sorted(field.values) if field.restricted else [] for field in (month_days, weekdays))
    special = dict.fromkeys(item.special for field in restricted for item in field.items if item.special)
    if plain_days and not plain_weekdays and not special and len(months) == 1:
        return f" on {_join(_runs(plain_days, str))} {_MONTHS[months[0] - 1]}", ""
    weekly = [day for day in special if "#" in day or day[1:].isdigit()]
    pieces = [f"on {_named('day', plain_days)} of the month"] if plain_days else []
    pieces += [f"on {_special_day(day)} of the month" for day in special if day not in weekly]
    if plain_weekdays:
        names = _weekdays(plain_weekdays)
        if not pieces and not weekly and " to " in names:
            return f", {names}", in_months
        pieces.append(f"on {names}")
    pieces += [f"on {_special_day(day)} of the month" for day in weekly]
    return f" {_join(pieces)}", in_months


def _is_full(field: WrittenField, count: int) -> bool:
    return field.restricted and len(field.values) == count


def _special_day(special: str) -> str:
    """Name a day that depends on the month, in the spelling of `DayField`."""
    if special == "l":
        return "the last day"
    if special.endswith("w"):
        day = int(special[:-1])
        short = " (or to the last day)" if day >= _FIRST_NOT_IN_ALL_MONTHS else ""
        return f"the weekday nearest to day {day}{short}"
    weekday, _, number = special.partition("#")
    if number:
        return f"the {_ORDINALS[int(number)]} {_WEEKDAYS[int(weekday)]}"
    return f"the last {_WEEKDAYS[int(special[1:])]}"


def _weekdays(values: Iterable[int]) -> str:
    """List weekdays from Monday on, or name the ends of a single run, which may pass Sunday."""
    days = {(value - 1) % 7 for value in values}
    starts = [day for day in days if (day - 1) % 7 not in days]
    if len(starts) == 1 and len(days) >= _SHORTEST_RUN:
        return f"{_weekday(starts[0])} to {_weekday((starts[0] + len(days) - 1) % 7)}"
    return _join(_weekday(day) for day in sorted(days))


def _weekday(day: int) -> str:
    return _WEEKDAYS[(day + 1) % 7]


# Lists


def _named(noun: str, values: Sequence[int]) -> str:
    return f"{noun}{'s' if len(values) > 1 else ''} {_join(_runs(values, str))}"


def _runs(values: Sequence[int], name: Callable[[int], str]) -> list[str]:
    """Name ascending values; three or more in a row by their ends."""
    found: list[list[int]] = []
    for value in values:
        if found and found[-1][-1] == value - 1:
            found[-1].append(value)
        else:
            found.append([value])
    named: list[str] = []
    for run in found:
        named += [f"{name(run[0])} to {name(run[-1])}"] if len(run) >= _SHORTEST_RUN else map(name, run)
    return named


def _join(parts: Iterable[str]) -> str:
    *before, last = parts
    return f"{', '.join(before)} and {last}" if before else last
