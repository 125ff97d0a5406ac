"""The grammar of cron expressions: text becomes sorted times of day and a rule for days. Zone-less and pure.

Five fields as in POSIX crontab, or six with seconds first: seconds, minute, hour, day of month, month, day of week. On top of
POSIX come names, steps and ``@daily`` (Debian crontab(5)) and the special days ``L``, ``15W``, ``L5``, ``5#2``.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Mapping
from functools import lru_cache
from types import MappingProxyType

import attrs

from cronactors import checks
from cronactors.days import DayField, DayRule, day_rule
from cronactors.errors import InvalidSchedule, shorten

MAX_EXPRESSION = 500
"""Longest cron expression, in characters."""

_DAY = 86_400
_NO_NAMES: Mapping[str, int] = MappingProxyType({})
_MONTH_NAMES = {
    name: number
    for number, name in enumerate(("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"), 1)
}
_WEEKDAY_NAMES = {name: number for number, name in enumerate(("sun", "mon", "tue", "wed", "thu", "fri", "sat"))}
_ALIASES = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}
_ITEM = re.compile(r"(?P<low>\*|[0-9]+|[a-z]{3})(?:-(?P<high>[0-9]+|[a-z]{3}))?(?:/(?P<step>[0-9]+))?")
_WEEKDAY_OF_MONTH = re.compile(r"([0-9]+|[a-z]{3})#([0-9]+)")
_RANDOM = re.compile(r"[hr](?:[(/].*)?")


@attrs.frozen
class _Field:
    """What may stand in one field: numbers from ``least`` to ``most``, and names for them."""

    name: str
    least: int
    most: int
    names: Mapping[str, int] = _NO_NAMES

    @property
    def highest(self) -> int:
        """The highest number that may be written: 7 is Sunday too."""
        return 7 if self is _WEEKDAY else self.most


_SECOND = _Field("second", 0, 59)
_MINUTE = _Field("minute", 0, 59)
_HOUR = _Field("hour", 0, 23)
_MONTH_DAY = _Field("day of month", 1, 31)
_MONTH = _Field("month", 1, 12, _MONTH_NAMES)
_WEEKDAY = _Field("day of week", 0, 6, _WEEKDAY_NAMES)


@attrs.frozen
class CronTimes:
    """The local times that an expression means: each matching day at each matching hour, minute and second.

    Local times are seconds since 1970-01-01 00:00 on a clock without a zone.

    Args:
        days: The matching days.
        hours: Matching hours, ascending; ``minutes`` and ``seconds`` likewise.
        minutes: Matching minutes.
        seconds: Matching seconds.
        rhythm: Second, minute or hour field begins with ``*``: the schedule follows the wall through clock changes
            (Debian cron(8): "wildcard jobs"), while a time of day runs exactly once.
    """

    days: DayRule
    hours: tuple[int, ...]
    minutes: tuple[int, ...]
    seconds: tuple[int, ...]
    rhythm: bool

    @property
    def per_day(self) -> int:
        """How many times a matching day has."""
        return len(self.hours) * len(self.minutes) * len(self.seconds)

    def at_or_after(self, local: int) -> int | None:
        """Find the first matching local time from ``local`` on; None beyond the calendar."""
        day, time = divmod(local, _DAY)
        matching = self.days.at_or_after(day)
        if matching == day:
            found = self._time_from(time)
            if found is not None:
                return day * _DAY + found
            matching = self.days.at_or_after(day + 1)
        if matching is None:
            return None
        return matching * _DAY + self.hours[0] * 3600 + self.minutes[0] * 60 + self.seconds[0]

    def at_or_before(self, local: int) -> int | None:
        """Find the last matching local time up to ``local``; None before the calendar."""
        day, time = divmod(local, _DAY)
        matching = self.days.at_or_before(day)
        if matching == day:
            found = self._time_until(time)
            if found is not None:
                return day * _DAY + found
            matching = self.days.at_or_before(day - 1)
        if matching is None:
            return None
        return matching * _DAY + self.hours[-1] * 3600 + self.minutes[-1] * 60 + self.seconds[-1]

    def count(self, start: int, end: int, cap: int) -> int:
        """Count the matching local times in ``start <= local < end``, to ``cap``; costs no more for many than for few."""
        if start >= end:
            return 0
        (first, begin), (last, stop) = divmod(start, _DAY), divmod(end, _DAY)
        total = -self._rank(begin) if self.days.at_or_after(first) == first else 0
        if self.days.at_or_after(last) == last:
            total += self._rank(stop)
        return min(cap, total + self.days.count(first, last, cap + 1) * self.per_day)

    def _time_from(self, time: int) -> int | None:
        """Find the first time of day from ``time`` on."""
        hour, minute, second = time // 3600, time // 60 % 60, time % 60
        at = bisect_left(self.hours, hour)
        if at < len(self.hours) and self.hours[at] == hour:
            inner = bisect_left(self.minutes, minute)
            if inner < len(self.minutes) and self.minutes[inner] == minute:
                innermost = bisect_left(self.seconds, second)
                if innermost < len(self.seconds):
                    return hour * 3600 + minute * 60 + self.seconds[innermost]
                inner += 1
            if inner < len(self.minutes):
                return hour * 3600 + self.minutes[inner] * 60 + self.seconds[0]
            at += 1
        if at < len(self.hours):
            return self.hours[at] * 3600 + self.minutes[0] * 60 + self.seconds[0]
        return None

    def _time_until(self, time: int) -> int | None:
        """Find the last time of day up to ``time``."""
        hour, minute, second = time // 3600, time // 60 % 60, time % 60
        at = bisect_right(self.hours, hour) - 1
        if at >= 0 and self.hours[at] == hour:
            inner = bisect_right(self.minutes, minute) - 1
            if inner >= 0 and self.minutes[inner] == minute:
                innermost = bisect_right(self.seconds, second) - 1
                if innermost >= 0:
                    return hour * 3600 + minute * 60 + self.seconds[innermost]
                inner -= 1
            if inner >= 0:
                return hour * 3600 + self.minutes[inner] * 60 + self.seconds[-1]
            at -= 1
        if at >= 0:
            return self.hours[at] * 3600 + self.minutes[-1] * 60 + self.seconds[-1]
        return None

    def _rank(self, time: int) -> int:
        """Count the times of a matching day that are earlier than ``time``."""
        hour, minute, second = time // 3600, time // 60 % 60, time % 60
        at = bisect_left(self.hours, hour)
        rank = at * len(self.minutes) * len(self.seconds)
        if at < len(self.hours) and self.hours[at] == hour:
            inner = bisect_left(self.minutes, minute)
            rank += inner * len(self.seconds)
            if inner < len(self.minutes) and self.minutes[inner] == minute:
                rank += bisect_left(self.seconds, second)
        return rank


@lru_cache(maxsize=4096)
def parse(expr: str) -> CronTimes:
    """Read a cron expression.

    Only a plain ``*`` or ``?`` leaves a day field unrestricted; where both are restricted, either matches (POSIX crontab).

    Args:
        expr: Five fields, six with seconds first, or one of ``@hourly @daily @midnight @weekly @monthly @yearly @annually``.

    Raises:
        InvalidSchedule: It breaks the grammar, or means no day that exists. The message names the field and the value.
    """
    checks.text("expr", expr, InvalidSchedule, limit=MAX_EXPRESSION)
    try:
        return _parse(expr)
    except _Refused as refused:
        raise InvalidSchedule(f"expr {shorten(expr)}: {refused}") from None


class _Refused(Exception):
    """Why an expression is refused; what `parse` says after the expression itself."""


def _parse(expr: str) -> CronTimes:
    fields = _split(expr)
    second, minute, hour, month_day, month, weekday = fields if len(fields) == 6 else ["0", *fields]  # noqa: PLR2004
    days = day_rule(_numbers(_MONTH, month), _day_field(_MONTH_DAY, month_day), _day_field(_WEEKDAY, weekday))
    if not days.possible():
        raise _Refused(f"there is no such date: day of month {shorten(month_day)}, month {shorten(month)}")
    return CronTimes(
        days=days,
        hours=tuple(sorted(_numbers(_HOUR, hour))),
        minutes=tuple(sorted(_numbers(_MINUTE, minute))),
        seconds=tuple(sorted(_numbers(_SECOND, second))),
        rhythm=any(field.startswith("*") for field in (second, minute, hour)),
    )


def _split(expr: str) -> list[str]:
    if not expr.isascii():
        odd = next(char for char in expr if not char.isascii())
        raise _Refused(f"only ASCII characters are allowed, not {odd!a}")
    fields = re.findall(r"\S+", expr.lower(), re.ASCII)
    if len(fields) == 1 and fields[0].startswith("@"):
        if fields[0] == "@reboot":
            raise _Refused("@reboot is not a time; run the job when the program starts instead")
        if fields[0] not in _ALIASES:
            raise _Refused(f"{shorten(fields[0])} is not known; there are {' '.join(_ALIASES)}")
        return _ALIASES[fields[0]].split()
    if len(fields) not in (5, 6):
        hint = "; years are not supported" if len(fields) == 7 else ""  # noqa: PLR2004
        raise _Refused(f"5 fields are needed, or 6 with seconds first, not {len(fields)}{hint}")
    return fields


def _day_field(field: _Field, text: str) -> DayField | None:
    """Read one of the two day fields; None if it is unrestricted."""
    if text in ("*", "?"):
        return None
    plain: set[int] = set()
    special = []
    for item in text.split(","):
        token = _special_day(field, item)
        if token is None:
            plain |= _item(field, item)
        else:
            special.append(token)
    return DayField(plain=frozenset(plain), special=tuple(dict.fromkeys(special)))


def _special_day(field: _Field, item: str) -> str | None:
    """Recognise ``L`` and ``15W`` in the day of the month, ``L5`` and ``5#2`` in the day of the week; None if it is another."""
    if field is _MONTH_DAY:
        if item == "l":
            return "l"
        if re.fullmatch(r"[0-9]+w", item):
            return f"{_number(field, item[:-1])}w"
        return None
    if re.fullmatch(r"l[0-9]+", item):
        return f"l{_number(field, item[1:]) % 7}"
    if re.fullmatch(r"[0-9]l", item):
        raise _Refused(f"{field.name} {shorten(item)}: for the last such weekday write {shorten(f'L{item[0]}')}")
    nth = _WEEKDAY_OF_MONTH.fullmatch(item)
    if nth is None:
        return None
    if nth[2] not in ("1", "2", "3", "4", "5"):
        raise _Refused(f"{field.name} {shorten(item)}: a month has a weekday 1 to 5 times")
    return f"{_number(field, nth[1]) % 7}#{nth[2]}"


def _numbers(field: _Field, text: str) -> set[int]:
    """Read a field of numbers: a list of items."""
    numbers: set[int] = set()
    for item in text.split(","):
        numbers |= _item(field, item)
    return numbers


def _item(field: _Field, item: str) -> set[int]:
    """Read one item of a list: ``*``, ``a``, ``a-b``, each with ``/step`` or without; ``a/step`` goes on to the field's end."""
    match = _ITEM.fullmatch(item)
    if match is None or (match["low"] == "*" and match["high"]):
        raise _Refused(_why(field, item))
    step = 1
    if match["step"] is not None:
        step = int(match["step"])
        span = field.most - field.least + 1
        if not 1 <= step <= span:
            raise _Refused(f"{field.name} {shorten(item)}: a step must be 1 to {span}")
    if match["low"] == "*":
        return set(range(field.least, field.most + 1, step))
    low = _number(field, match["low"])
    high = _number(field, match["high"]) if match["high"] else field.most if match["step"] else low
    if field is not _WEEKDAY:
        if high < low:
            raise _Refused(f"{field.name} {shorten(item)}: the range goes backwards; write it as two")
        return set(range(low, high + 1, step))
    # A week has no first day that all agree on, so fri-mon goes round; 7 is Sunday at either end.
    if low == 7 and high != low:  # noqa: PLR2004
        low = 0
    return {day % 7 for day in range(low, (high if high >= low else high + 7) + 1, step)}


def _number(field: _Field, text: str) -> int:
    """Read a number or a name."""
    if not text.isdigit():
        if text not in field.names:
            raise _Refused(_why(field, text))
        return field.names[text]
    number = int(text)
    if not field.least <= number <= field.highest:
        raise _Refused(f"{field.name} {shorten(text)} is not in {field.least} to {field.highest}")
    return number


def _why(field: _Field, item: str) -> str:
    """Say why an item cannot be read."""
    if not item:
        return f"{field.name}: something is missing beside a comma"
    if _RANDOM.fullmatch(item):
        return f"{field.name} {shorten(item)}: random times (H, R) are not supported; write the number"
    if "?" in item:
        return f"{field.name} {shorten(item)}: ? can only stand alone, in a day field"
    return f"{field.name} {shorten(item)} cannot be read"
