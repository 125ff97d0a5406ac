"""Which days of the calendar a cron expression means; zone-less. The only module that imports croniter.

A month looks one of 28 ways: it has 28 to 31 days and begins on one of seven weekdays. So a rule for days is a table of 28 bit
masks, worked out once. The days that are more than a number (``L``, ``15W``, ``L5``, ``5#2``) are croniter's answer for a month
of each shape; it is asked for one such day at a time, because it intersects what cron unites, and never for anything else,
because ranges and full fields are where it goes wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from datetime import date, datetime, timedelta
from functools import lru_cache

import attrs

from cronactors.errors import InvalidSchedule

_EPOCH_ORDINAL = date(1970, 1, 1).toordinal()
_LENGTHS = (31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
_SHORTEST = 28
_FEBRUARY = 2
_FIRST_YEAR, _LAST_YEAR = 1969, 9998
_SAMPLE_YEARS = range(2000, 2028)
"""28 years hold every length of a year with every weekday of its first day, and so months of all shapes."""
_SHAPES = tuple((length, first) for length in range(_SHORTEST, 32) for first in range(7))


@attrs.frozen
class DayField:
    """One of the two day fields of an expression.

    Args:
        plain: Days of the month 1 to 31, or weekdays 0 to 6 from Sunday.
        special: Days that only a calendar knows, in croniter's spelling: ``l``, ``15w``; ``l5``, ``5#2``.
    """

    plain: frozenset[int]
    special: tuple[str, ...] = ()


@attrs.frozen
class DayRule:
    """The days that an expression means. Days are counted from 1970-01-01.

    Args:
        months: Months 1 to 12.
        masks: For each of the 28 shapes of a month, the matching days as bits 1 to 31.
    """

    months: frozenset[int]
    masks: tuple[int, ...]

    @property
    def longest_month(self) -> int:
        """How many days the longest of the months ever has."""
        return max(_longest(month) for month in self.months)

    @property
    def shortest_month(self) -> int:
        """How many days the shortest of the months ever has."""
        return min(_LENGTHS[month - 1] for month in self.months)

    def possible(self) -> bool:
        """Whether any day of any year matches (30 February does not)."""
        return any(self._month_masks())

    def leaves_months_out(self) -> bool:
        """Whether one of the months has no matching day in some year."""
        return not all(self._month_masks())

    def comes_every_year(self) -> bool:
        """Whether each year has a matching day (29 February comes in leap years)."""
        return all(self.count(_month(year * 12)[0], _month(year * 12 + 12)[0], 1) for year in _SAMPLE_YEARS)

    def in_400_years(self) -> int:
        """Count the matching days of 400 years, after which the calendar repeats itself."""
        start, end = _month(2000 * 12)[0], _month(2400 * 12)[0]
        return self.count(start, end, end - start)

    def has_neighbours(self) -> bool:
        """Whether two matching days ever follow each other."""
        found = self.at_or_after(_month(_SAMPLE_YEARS.start * 12)[0])
        end = _month(_SAMPLE_YEARS.stop * 12)[0]
        while found is not None and found < end:
            before, found = found, self.at_or_after(found + 1)
            if found == before + 1:
                return True
        return False

    def _month_masks(self) -> Iterator[int]:
        """Give the masks of all shapes that the months can have."""
        for month in self.months:
            for shape, (length, _first) in enumerate(_SHAPES):
                if _LENGTHS[month - 1] <= length <= _longest(month):
                    yield self.masks[shape]

    def at_or_after(self, day: int) -> int | None:
        """Find the first matching day from ``day`` on, to the end of 9998."""
        month = _month_of(day)
        first, shape = _month(month)
        mask = self.masks[shape] & (-1 << (day - first + 1)) if month % 12 + 1 in self.months else 0
        while not mask:
            month += 1
            if month >= (_LAST_YEAR + 1) * 12:
                return None
            if month % 12 + 1 in self.months:
                first, shape = _month(month)
                mask = self.masks[shape]
        return first + (mask & -mask).bit_length() - 2

    def at_or_before(self, day: int) -> int | None:
        """Find the last matching day up to ``day``, back to 1969."""
        month = _month_of(day)
        first, shape = _month(month)
        mask = self.masks[shape] & ((2 << (day - first + 1)) - 1) if month % 12 + 1 in self.months else 0
        while not mask:
            month -= 1
            if month < _FIRST_YEAR * 12:
                return None
            if month % 12 + 1 in self.months:
                first, shape = _month(month)
                mask = self.masks[shape]
        return first + mask.bit_length() - 2

    def count(self, start: int, end: int, cap: int) -> int:
        """Count the matching days in ``start <= day < end``; stops soon after ``cap``."""
        total = 0
        month = _month_of(start)
        last = _month_of(end)
        while month <= last and total < cap:
            if month % 12 + 1 in self.months:
                first, shape = _month(month)
                mask = self.masks[shape] & ((1 << max(end - first + 1, 0)) - 1)
                if first < start:
                    mask &= -1 << (start - first + 1)
                total += mask.bit_count()
            month += 1
        return total


def day_rule(months: Iterable[int], month_days: DayField | None, weekdays: DayField | None) -> DayRule:
    """Join the three calendar fields to one rule.

    Where both day fields are restricted a day matches if either does (POSIX crontab).

    Args:
        months: Months 1 to 12.
        month_days: The day of the month; None if unrestricted.
        weekdays: The day of the week; None if unrestricted.

    Raises:
        InvalidSchedule: croniter does not know a special day.
    """
    masks = []
    for shape, (length, first) in enumerate(_SHAPES):
        every = (2 << length) - 2
        mask = every if month_days is None and weekdays is None else 0
        if month_days is not None:
            mask |= _bits(month_days.plain)
        if weekdays is not None:
            mask |= _bits(day for day in range(1, length + 1) if (first + day) % 7 in weekdays.plain)
        for field in (month_days, weekdays):
            for token in field.special if field is not None else ():
                mask |= special_days(token)[shape]
        masks.append(mask & every)
    return DayRule(months=frozenset(months), masks=tuple(masks))


@lru_cache(maxsize=128)
def special_days(token: str) -> tuple[int, ...]:
    """Ask croniter on which days of each shape of month a special day falls, as bits 1 to 31.

    In a month without a 31st, ``31W`` means the weekday nearest to its last day, as croniter has it.

    Args:
        token: ``l`` the last day; ``15w`` the weekday nearest to the 15th; ``l5`` the last Friday; ``5#2`` the second Friday.

    Raises:
        InvalidSchedule: croniter does not know it.
    """
    from croniter import croniter  # noqa: PLC0415 - 25 ms that few programs need; it ships no types, so its answers are checked here

    expression = f"0 0 * * {token}" if "#" in token or token[1:].isdigit() else f"0 0 {token} * *"
    try:
        asked = croniter(expression)
        return tuple(_ask(lambda start: asked.get_next(datetime, start_time=start), sample) for sample in _samples())
    except (ValueError, TypeError, KeyError, OverflowError):
        raise InvalidSchedule(f"expr names a special day that is not known: {token}") from None


def _ask(next_after: Callable[[datetime], object], sample: date) -> int:
    """Find the special day in the month that begins with ``sample``: one at most, as all special days are."""
    midnight = datetime(sample.year, sample.month, 1)  # noqa: DTZ001 - the calendar has no zone
    found = next_after(midnight - timedelta(seconds=1))
    if not isinstance(found, datetime) or (found.year, found.month) != (sample.year, sample.month):
        return 0
    return 1 << found.day


@lru_cache(maxsize=1)
def _samples() -> tuple[date, ...]:
    """Pick a month of each shape."""
    seen: dict[tuple[int, int], date] = {}
    for year in _SAMPLE_YEARS:
        for month in range(1, 13):
            seen.setdefault(_SHAPES[_month(year * 12 + month - 1)[1]], date(year, month, 1))
    return tuple(seen[shape] for shape in _SHAPES)


@lru_cache(maxsize=4096)
def _month(month: int) -> tuple[int, int]:
    """Give the first day and the shape of a month, which is numbered ``year * 12 + month - 1``."""
    year, index = divmod(month, 12)
    first = date(year, index + 1, 1).toordinal()
    leap = index + 1 == _FEBRUARY and year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)
    return first - _EPOCH_ORDINAL, (_LENGTHS[index] + leap - _SHORTEST) * 7 + (first - 1) % 7


def _longest(month: int) -> int:
    return _LENGTHS[month - 1] + (month == _FEBRUARY)


def _month_of(day: int) -> int:
    found = date.fromordinal(day + _EPOCH_ORDINAL)
    return found.year * 12 + found.month - 1


def _bits(days: Iterable[int]) -> int:
    return sum(1 << day for day in days)
