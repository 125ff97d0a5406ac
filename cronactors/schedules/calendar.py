"""The days of the calendar that a cron expression matches, without a zone. Pure; the only module that imports croniter.

We store a rule for days as 28 bit masks, because months have only 28 shapes: 28 to 31 days, and a first day on one of seven
weekdays. February 2026 begins on a Sunday and has 28 days, and so does February 2015: the rule ``13 * 5`` matches the same days
in both. The masks are computed once for each expression, so the next matching day of ``0 0 29 2 *`` costs at most 96 steps of a
month.

We compute plain numbers, ranges and steps ourselves. Only the days that depend on the month (``L``, ``15W``, ``L5``, ``5#2``)
come from croniter, one at a time. We don't give croniter a whole expression: in ``0 0 1 * 5#2`` it requires both day fields to
match and finds no date, it refuses ``1,5#2`` and ``4W,19W``, and it goes wrong with some ranges and full fields.
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
"""In 28 years without a skipped leap year, each kind of year begins on each weekday, so months of all shapes occur."""
_SHAPES = tuple((length, first) for length in range(_SHORTEST, 32) for first in range(7))


@attrs.frozen
class DayField:
    """One of the two day fields of an expression.

    Args:
        plain: Days of the month 1 to 31, or weekdays 0 to 6 from Sunday.
        special: Days that depend on the month, in croniter's spelling: ``l``, ``15w``; ``l5``, ``5#2``.
    """

    plain: frozenset[int]
    special: tuple[str, ...] = ()


@attrs.frozen
class DayRule:
    """The days that an expression matches. A day is a number: 0 is 1970-01-01.

    Args:
        months: Months 1 to 12.
        masks: For each of the 28 shapes of a month, the matching days as bits 1 to 31.
    """

    months: frozenset[int]
    masks: tuple[int, ...]

    @property
    def longest_month(self) -> int:
        """The most days that any of the months can have."""
        return max(_longest(month) for month in self.months)

    @property
    def shortest_month(self) -> int:
        """The fewest days that any of the months can have."""
        return min(_LENGTHS[month - 1] for month in self.months)

    def ever_matches(self) -> bool:
        """Return whether a day of some year matches; 30 February never does."""
        return any(self._month_masks())

    def leaves_months_out(self) -> bool:
        """Return whether one of the months has no matching day in some year."""
        return not all(self._month_masks())

    def matches_every_year(self) -> bool:
        """Return whether each year has a matching day; 29 February occurs in leap years only."""
        return all(self.count(_month(year * 12)[0], _month(year * 12 + 12)[0], 1) for year in _SAMPLE_YEARS)

    def count_in_400_years(self) -> int:
        """Count the matching days of 400 years, after which the Gregorian calendar repeats."""
        start, end = _month(2000 * 12)[0], _month(2400 * 12)[0]
        return self.count(start, end, end - start)

    def has_consecutive_days(self) -> bool:
        """Return whether a matching day is ever followed by another."""
        found = self.at_or_after(_month(_SAMPLE_YEARS.start * 12)[0])
        end = _month(_SAMPLE_YEARS.stop * 12)[0]
        while found is not None and found < end:
            previous, found = found, self.at_or_after(found + 1)
            if found == previous + 1:
                return True
        return False

    def _month_masks(self) -> Iterator[int]:
        """Yield the masks of all shapes that the months can have."""
        for month in self.months:
            for shape, (length, _first) in enumerate(_SHAPES):
                if _LENGTHS[month - 1] <= length <= _longest(month):
                    yield self.masks[shape]

    def at_or_after(self, day: int) -> int | None:
        """Find the first matching day from ``day`` on; None if there is none up to the end of 9998."""
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
        """Find the last matching day up to ``day``; None if there is none back to 1969."""
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
        """Count the matching days in ``start <= day < end``. Stops after the month in which the count reaches ``cap``."""
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
    """Join the three calendar fields into one rule.

    We follow the POSIX crontab utility (IEEE 1003.1): if both day fields are restricted, a day matches if either field does. So
    ``0 0 13 * 5`` runs on each 13th and on each Friday: in July 2026 on the 13th, a Monday, and on the 3rd, 10th, 17th, 24th and
    31st.

    Args:
        months: Months 1 to 12.
        month_days: The day of the month; None if unrestricted.
        weekdays: The day of the week; None if unrestricted.

    Raises:
        InvalidSchedule: croniter does not accept a special day.
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
    """Compute with croniter the day on which a special day falls in each shape of month, as bits 1 to 31.

    In a month without a 31st, ``31W`` is the weekday nearest to its last day, by croniter's rule. A token costs some 2 ms when it
    is first used.

    Args:
        token: ``l`` the last day; ``15w`` the weekday nearest to the 15th; ``l5`` the last Friday; ``5#2`` the second Friday.

    Raises:
        InvalidSchedule: croniter does not accept it.
    """
    from croniter import croniter  # noqa: PLC0415 - importing it costs 25 ms, and few programs need it

    expression = f"0 0 * * {token}" if "#" in token or token[1:].isdigit() else f"0 0 {token} * *"
    try:
        iterator = croniter(expression)
        return tuple(
            _special_day_of(lambda start: iterator.get_next(datetime, start_time=start), month) for month in _sample_months()
        )
    except (ValueError, TypeError, KeyError, OverflowError):
        raise InvalidSchedule(f"expr has an unknown special day: {token}") from None


def _special_day_of(next_after: Callable[[datetime], object], first: date) -> int:
    """Find the special day in the month that begins with ``first``. A month has at most one; 0 if it has none."""
    midnight = datetime(first.year, first.month, 1)  # noqa: DTZ001 - the calendar has no zone
    found = next_after(midnight - timedelta(seconds=1))
    # croniter has no type hints, so we check the type of its result.
    if not isinstance(found, datetime) or (found.year, found.month) != (first.year, first.month):
        return 0
    return 1 << found.day


@lru_cache(maxsize=1)
def _sample_months() -> tuple[date, ...]:
    """Return the first day of a month of each shape."""
    seen: dict[tuple[int, int], date] = {}
    for year in _SAMPLE_YEARS:
        for month in range(1, 13):
            seen.setdefault(_SHAPES[_month(year * 12 + month - 1)[1]], date(year, month, 1))
    return tuple(seen[shape] for shape in _SHAPES)


@lru_cache(maxsize=4096)
def _month(month: int) -> tuple[int, int]:
    """Return the first day and the shape of a month, which is numbered ``year * 12 + month - 1``."""
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
