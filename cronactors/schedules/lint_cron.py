"""The rules of `lint` that concern a cron expression alone, whatever the zone. Pure.

Each rule is a function that yields findings. We report only what surprises people who know another cron: a rule that fires on
ordinary schedules would be ignored, so tests hold a list of expressions on which none may fire.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise

import attrs

from cronactors.errors import InvalidSchedule, shorten
from cronactors.schedules.cron import parse_cron
from cronactors.schedules.cron_advice import quartz_weekday
from cronactors.schedules.cron_fields import HOUR, MINUTE, MONTH, MONTH_DAY, SECOND, WEEKDAY, Field, Item, WrittenField
from cronactors.schedules.finding import Finding
from cronactors.schedules.local_times import LocalTimes

_DAY_HOURS, _HOUR_MINUTES = 24, 60
_PERIODS = ((SECOND, "minute"), (MINUTE, "hour"), (HOUR, "day"), (MONTH_DAY, "month"), (MONTH, "year"), (WEEKDAY, "week"))
"""The fields, and the period after which each of them starts again."""


@attrs.frozen
class Expression:
    """A parsed expression.

    Args:
        written: Its fields; the second is there only if it has six.
        times: The local times that it matches.
    """

    written: dict[Field, WrittenField]
    times: LocalTimes

    def part(self, field: Field) -> str:
        """Quote a field for a message, with its name."""
        return f"{field.name} {shorten(self.written[field].text)}"

    def has_adjacent_periods(self, field: Field) -> bool:
        """Return whether a period of a field is ever followed at once by another in which the field applies.

        We need it because the last step of ``*/45 9,17 * * *`` is followed by no run, while ``*/45 9,10 * * *`` runs at 09:45 and
        10:00. Minutes have adjacent periods if the expression has two hours in a row. 23 and 0 are in a row if it has two days in
        a row.
        """
        times = self.times
        if field is SECOND:
            return _has_neighbours(times.minutes, MINUTE, lambda: self.has_adjacent_periods(MINUTE))
        if field is MINUTE:
            return _has_neighbours(times.hours, HOUR, lambda: self.has_adjacent_periods(HOUR))
        if field is HOUR:
            return times.days.has_consecutive_days()
        # January follows December, and weeks and years always have a next one.
        return field is not MONTH_DAY or _has_neighbours(tuple(sorted(times.days.months)), MONTH, lambda: True)


def _has_neighbours(values: tuple[int, ...], field: Field, wraps: Callable[[], bool]) -> bool:
    """Return whether sorted values hold two in a row. The last and the first of a field are in a row if ``wraps()``."""
    if any(later - earlier == 1 for earlier, later in pairwise(values)):
        return True
    return values[0] == field.least and values[-1] == field.most and wraps()


def lint_expression(cron: Expression) -> Iterator[Finding]:
    """Yield the findings of all rules of this module."""
    for rule in (
        _check_day_fields,
        _check_dates,
        _check_nearest_weekdays,
        _check_steps,
        _check_many_runs,
        _check_seconds_first,
        _check_quartz_weekday,
    ):
        yield from rule(cron)


# Days


def _check_day_fields(cron: Expression) -> Iterator[Finding]:
    """Report two restricted day fields, of which either matches (POSIX crontab).

    In Debian's crontab(5) a field that begins with ``*`` counts as unrestricted: ``0 0 */2 * 1`` runs there on Mondays with an
    odd date.
    """
    if not (cron.written[MONTH_DAY].restricted and cron.written[WEEKDAY].restricted):
        return
    day, weekday = cron.part(MONTH_DAY), cron.part(WEEKDAY)
    stars = [cron.part(field) for field in (MONTH_DAY, WEEKDAY) if cron.written[field].text.startswith("*")]
    if stars:
        yield Finding(
            "star-step-day",
            f"{day} and {weekday}: it runs on the days of either; Debian's cron takes {stars[0]}, which begins with *, as "
            "unrestricted, and runs on days that match both",
        )
    else:
        yield Finding("both-days", f"{day} and {weekday} are both restricted: it runs on the days of either, not of both")


def _check_dates(cron: Expression) -> Iterator[Finding]:
    """Report a date that some years do not have, such as 29 February, or else days that some months do not have."""
    days = cron.times.days
    if days.matches_every_year():
        yield from _check_absent_days(cron)
        if days.leaves_months_out():
            yield _months_left_out(cron)
        return
    parts = ", ".join(cron.part(field) for field in (MONTH_DAY, MONTH, WEEKDAY) if cron.written[field].restricted)
    yield Finding("rare-date", f"{parts}: some years have no such date; it occurs {days.count_in_400_years()} times in 400 years")


def _check_absent_days(cron: Expression) -> Iterator[Finding]:
    """Report days of the month that none of the months has."""
    for item in cron.written[MONTH_DAY].items:
        # `20/5` and `1-31` mean the days that a month has, while in `28-31` and `31` the 31st is meant.
        written_out = "/" not in item.text or "-" in item.text
        if written_out and not _is_whole(item):
            absent = [day for day in item.numbers if day > cron.times.days.longest_month]
            if absent:
                named = f"day of month {shorten(item.text)}: {cron.part(MONTH)}"
                yield Finding("missing-day", f"{named} never has {_ordinal(absent[0])}")


def _months_left_out(cron: Expression) -> Finding:
    """Make a finding for months without a matching day: all days of the month are after the 28th, all weekdays are fifth ones."""
    day, weekday = cron.written[MONTH_DAY], cron.written[WEEKDAY]
    if not weekday.restricted:
        named = f"{cron.part(MONTH_DAY)}: months without {_ordinal(min(day.values))}"
        return Finding("missing-day", f"{named} are left out; for the last day write 'L'")
    if not day.restricted:
        last = shorten(",".join(dict.fromkeys(f"L{item.special[0]}" for item in weekday.items)))
        return Finding("missing-day", f"{cron.part(WEEKDAY)}: months without a fifth are left out; for the last write {last}")
    named = f"{cron.part(MONTH_DAY)}, {cron.part(WEEKDAY)}: months that have neither"
    return Finding("missing-day", f"{named} are left out; for the last day write 'L'")


def _check_nearest_weekdays(cron: Expression) -> Iterator[Finding]:
    """Report ``31W`` and the like for months that do not have the day."""
    shortest = cron.times.days.shortest_month
    for item in cron.written[MONTH_DAY].items:
        day = int(item.special[:-1]) if item.special.endswith("w") else 0
        if day > shortest:
            yield Finding(
                "nearest-weekday",
                f"day of month {shorten(item.text)}: in a month without {_ordinal(day)} it means the weekday nearest to the last "
                "day; other schedulers may leave those months out",
            )


def _ordinal(day: int) -> str:
    """Write the 29th, 30th or 31st in words."""
    return "a 31st" if day == MONTH_DAY.most else f"a {day}th"


# Steps


def _check_steps(cron: Expression) -> Iterator[Finding]:
    """Report steps that do not divide their field, so that the last distance in each period differs from the others."""
    for field, period in _PERIODS:
        written = cron.written.get(field)
        for item in written.items if written is not None and not _is_even(written.values, field) else ():
            if item.numbers.step > 1 and ("-" not in item.text or _is_whole(item)):
                text = _describe_step(item, period, repeats=cron.has_adjacent_periods(field))
                if text is not None:
                    yield Finding("uneven-step", text)


def _describe_step(item: Item, period: str, *, repeats: bool) -> str | None:
    """Describe a step that is repeated to the end of its field; None if it is even.

    Args:
        item: The item.
        period: The period after which the field starts again.
        repeats: Whether such a period is ever followed at once by another.
    """
    field, numbers, step = item.field, item.numbers, item.numbers.step
    means = f"{field.name} {shorten(item.text)} means {_listed(item.values)}"
    last = numbers[0] + field.span - numbers[-1]
    if not repeats:
        return means if len(numbers) == 1 and numbers[0] != field.least else None
    if field is MONTH_DAY:  # months differ in length, so no step divides them
        return f"{means}, and starts anew each {period}" if len(numbers) > 1 else None
    return f"{means}, and starts anew each {period}: the last step is {last}, not {step}" if last != step else None


def _is_whole(item: Item) -> bool:
    """Return whether an item covers the whole field."""
    return item.numbers.stop - item.numbers.start == item.field.span


def _is_even(values: set[int], field: Field) -> bool:
    """Return whether several values have the same distance, also from the last to the first, whichever items they come from."""
    ordered = sorted(values)
    gaps = {after - before for before, after in pairwise([*ordered, ordered[0] + field.span])} if ordered else set()
    return len(ordered) > 1 and len(gaps) == 1 and field is not MONTH_DAY


def _listed(numbers: list[int]) -> str:
    few = 6
    if len(numbers) == 1:
        return f"{numbers[0]} alone"
    if len(numbers) <= few:
        return f"{', '.join(map(str, numbers[:-1]))} and {numbers[-1]}"
    return f"{', '.join(map(str, numbers[:3]))} and so on to {numbers[-1]}"


# Minutes and seconds


def _check_many_runs(cron: Expression) -> Iterator[Finding]:
    """Report a run every second, or every minute of some hours, where a single run was perhaps meant."""
    times = cron.times
    if len(times.seconds) > 1:
        yield Finding(
            "many-runs",
            f"{cron.part(SECOND)}: the first of six fields is the second, so it runs {times.per_day:,} times on each of its days",
        )
    elif len(times.minutes) == _HOUR_MINUTES and cron.written[MINUTE].text.startswith("*"):
        # `* 9-17 * * *` and `* * * * 1-5` mean every minute; `* 9 * * *` and `* * 9 * *` are probably a mistake.
        field = MINUTE if len(times.hours) < _DAY_HOURS else HOUR
        if not cron.has_adjacent_periods(field):
            yield Finding(
                "many-runs",
                f"{cron.part(MINUTE)}, {cron.part(HOUR)}: it runs every minute of its hours, {times.per_day:,} times on each of "
                f"its days, from {times.hours[0]:02}:00 on",
            )


def _check_seconds_first(cron: Expression) -> Iterator[Finding]:
    """Report six fields that were perhaps written for a scheduler without seconds first.

    By their documentation croniter reads a sixth field as the second, and Temporal as the year. Quartz has the second first, as
    we do.
    """
    times = cron.times
    if SECOND not in cron.written or len(times.seconds) > 1:
        return
    # `0 0 * * * *` and `0 */5 * * * *` are usual where seconds come first, and in `0 30 * * * *` 30 cannot be an hour.
    hourly = cron.written[HOUR].text == "*" and times.minutes[-1] in range(1, _DAY_HOURS)
    if (times.seconds != (0,) or hourly) and _is_valid_minute_first(cron):
        yield Finding(
            "seconds-first",
            f"{cron.part(SECOND)}, {cron.part(MINUTE)}, {cron.part(HOUR)}: the first of six fields is the second; other "
            "schedulers read the minute first, and a second (croniter) or a year (Temporal) last",
        )


def _is_valid_minute_first(cron: Expression) -> bool:
    """Return whether the first five fields are a valid expression, and the sixth could be a second or any year."""
    *five, last = (written.text for written in cron.written.values())
    if last not in ("*", "0", "00"):
        return False
    try:
        parse_cron(" ".join(five))
    except InvalidSchedule:
        return False
    return True


def _check_quartz_weekday(cron: Expression) -> Iterator[Finding]:
    """Report weekday numbers in an expression with ``?``: Quartz, which also has seconds first, counts from Sunday = 1."""
    if SECOND not in cron.written or cron.written[MONTH_DAY].text != "?":
        return
    named = quartz_weekday(cron.written[WEEKDAY].text)
    if named is not None:
        yield Finding(
            "quartz-weekday",
            f"{cron.part(WEEKDAY)} with '?' as day of month: weekdays count from Sunday = 0 here and from Sunday = 1 in Quartz; "
            f"if it comes from there write {shorten(named)}",
        )
