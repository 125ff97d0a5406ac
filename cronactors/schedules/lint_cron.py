"""The rules of `lint` that read a cron expression alone, without a zone. Pure."""

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
_ROUNDS = ((SECOND, "minute"), (MINUTE, "hour"), (HOUR, "day"), (MONTH_DAY, "month"), (MONTH, "year"), (WEEKDAY, "week"))
"""The fields, and after what each of them starts anew."""


@attrs.frozen
class Expression:
    """An expression: its fields as they are written, the second only if there are six, and the times that they mean."""

    written: dict[Field, WrittenField]
    times: LocalTimes

    def part(self, field: Field) -> str:
        """Name a field and what is written there."""
        return f"{field.name} {shorten(self.written[field].text)}"

    def goes_on(self, field: Field) -> bool:
        """Whether two rounds of a field ever follow each other: minutes, if there are two hours in a row."""
        times = self.times
        if field is SECOND:
            return _in_a_row(times.minutes, MINUTE, lambda: self.goes_on(MINUTE))
        if field is MINUTE:
            return _in_a_row(times.hours, HOUR, lambda: self.goes_on(HOUR))
        if field is HOUR:
            return times.days.has_consecutive_days()
        # After December comes January; weeks and years always go on.
        return field is not MONTH_DAY or _in_a_row(tuple(sorted(times.days.months)), MONTH, lambda: True)


def _in_a_row(values: tuple[int, ...], field: Field, goes_on: Callable[[], bool]) -> bool:
    """Whether sorted values hold two in a row: also the last and the first, if the field's own rounds go on."""
    if any(after - before == 1 for before, after in pairwise(values)):
        return True
    return values[0] == field.least and values[-1] == field.most and goes_on()


def lint_expression(cron: Expression) -> Iterator[Finding]:
    """Apply every rule of this module."""
    for rule in (
        _of_day_fields,
        _of_dates,
        _of_nearest_weekdays,
        _of_steps,
        _of_many_runs,
        _of_seconds_first,
        _of_quartz_weekday,
    ):
        yield from rule(cron)


# Days


def _of_day_fields(cron: Expression) -> Iterator[Finding]:
    """Either day field matches (POSIX crontab); in Debian's crontab(5) one that begins with ``*`` counts as unrestricted."""
    if not (cron.written[MONTH_DAY].restricted and cron.written[WEEKDAY].restricted):
        return
    day, weekday = cron.part(MONTH_DAY), cron.part(WEEKDAY)
    stars = [cron.part(field) for field in (MONTH_DAY, WEEKDAY) if cron.written[field].text.startswith("*")]
    if stars:
        yield Finding(
            "star-step-day",
            f"{day} and {weekday}: it runs on the days of either; Debian's cron takes {stars[0]}, which begins with *, for "
            "unrestricted, and runs on days that are in both",
        )
    else:
        yield Finding("both-days", f"{day} and {weekday} are both restricted: it runs on the days of either, not of both")


def _of_dates(cron: Expression) -> Iterator[Finding]:
    """Dates that some years do not have, such as 29 February; or else days that some months do not have."""
    days = cron.times.days
    if days.matches_every_year():
        yield from _of_absent_days(cron)
        if days.leaves_months_out():
            yield _of_months_left_out(cron)
        return
    parts = ", ".join(cron.part(field) for field in (MONTH_DAY, MONTH, WEEKDAY) if cron.written[field].restricted)
    yield Finding(
        "rare-date", f"{parts}: some years have no such date; there are {days.count_in_400_years()} of them in 400 years"
    )


def _of_absent_days(cron: Expression) -> Iterator[Finding]:
    """Days of the month that none of the months named has."""
    for item in cron.written[MONTH_DAY].items:
        # What goes on to the end of the field means whatever days there are, and so does a range over all of it.
        written_out = "/" not in item.text or "-" in item.text
        if written_out and not _is_whole(item):
            absent = [day for day in item.numbers if day > cron.times.days.longest_month]
            if absent:
                named = f"day of month {shorten(item.text)}: {cron.part(MONTH)}"
                yield Finding("missing-day", f"{named} never has {_ordinal(absent[0])}")


def _of_months_left_out(cron: Expression) -> Finding:
    """Months without any matching day: all days of the month are late ones, all weekdays are fifth ones."""
    day, weekday = cron.written[MONTH_DAY], cron.written[WEEKDAY]
    if not weekday.restricted:
        named = f"{cron.part(MONTH_DAY)}: months without {_ordinal(min(day.values))}"
        return Finding("missing-day", f"{named} are left out; for the last day write 'L'")
    if not day.restricted:
        last = shorten(",".join(dict.fromkeys(f"L{item.special[0]}" for item in weekday.items)))
        return Finding("missing-day", f"{cron.part(WEEKDAY)}: months without a fifth are left out; for the last write {last}")
    named = f"{cron.part(MONTH_DAY)}, {cron.part(WEEKDAY)}: months that have neither"
    return Finding("missing-day", f"{named} are left out; for the last day write 'L'")


def _of_nearest_weekdays(cron: Expression) -> Iterator[Finding]:
    """Days that are moved to a weekday, in months that do not have them."""
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
    """Write one of the days that not all months have."""
    return "a 31st" if day == MONTH_DAY.most else f"a {day}th"


# Steps


def _of_steps(cron: Expression) -> Iterator[Finding]:
    """Steps after which the next round of the field begins too early."""
    for field, around in _ROUNDS:
        written = cron.written.get(field)
        for item in written.items if written is not None and not _is_even(written.values, field) else ():
            if item.numbers.step > 1 and ("-" not in item.text or _is_whole(item)):
                text = _of_step(item, around, goes_on=cron.goes_on(field))
                if text is not None:
                    yield Finding("uneven-step", text)


def _of_step(item: Item, around: str, *, goes_on: bool) -> str | None:
    """Say what is odd about a step that is repeated to the end of its field."""
    field, numbers, step = item.field, item.numbers, item.numbers.step
    means = f"{field.name} {shorten(item.text)} means {_listed(item.values)}"
    last = numbers[0] + field.span - numbers[-1]
    if not goes_on:
        return means if len(numbers) == 1 and numbers[0] != field.least else None
    if field is MONTH_DAY:  # months differ in length, so no step divides them
        return f"{means}, and starts anew each {around}" if len(numbers) > 1 else None
    return f"{means}, and starts anew each {around}: the last step is {last}, not {step}" if last != step else None


def _is_whole(item: Item) -> bool:
    """Whether an item goes through the whole field."""
    return item.numbers.stop - item.numbers.start == item.field.span


def _is_even(values: set[int], field: Field) -> bool:
    """Whether several numbers have the same distance all round, whichever items they come from."""
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


def _of_many_runs(cron: Expression) -> Iterator[Finding]:
    """Every second, or every minute, of a time at which one run may have been meant."""
    times = cron.times
    if len(times.seconds) > 1:
        yield Finding(
            "many-runs",
            f"{cron.part(SECOND)}: the first of six fields is the second, so it runs {times.per_day:,} times on each of its days",
        )
    elif len(times.minutes) == _HOUR_MINUTES and cron.written[MINUTE].text.startswith("*"):
        # For hours or days on end every minute is meant.
        lonely = MINUTE if len(times.hours) < _DAY_HOURS else HOUR
        if not cron.goes_on(lonely):
            yield Finding(
                "many-runs",
                f"{cron.part(MINUTE)}, {cron.part(HOUR)}: it runs every minute of its hours, {times.per_day:,} times on each of "
                f"its days, from {times.hours[0]:02}:00 on",
            )


def _of_seconds_first(cron: Expression) -> Iterator[Finding]:
    """Six fields that may have been written for another scheduler.

    By their documentation croniter reads a sixth field as the second, Temporal as the year. Quartz has the second first too.
    """
    times = cron.times
    if SECOND not in cron.written or len(times.seconds) > 1:
        return
    # `0 0 * * * *` and `0 */5 * * * *` are what those write who mean seconds; no hour is beyond 23.
    hourly = cron.written[HOUR].text == "*" and times.minutes[-1] in range(1, _DAY_HOURS)
    if (times.seconds != (0,) or hourly) and _is_readable(cron):
        yield Finding(
            "seconds-first",
            f"{cron.part(SECOND)}, {cron.part(MINUTE)}, {cron.part(HOUR)}: the first of six fields is the second; other "
            "schedulers read the minute first, and a second (croniter) or a year (Temporal) last",
        )


def _is_readable(cron: Expression) -> bool:
    """Whether the first five fields alone would be an expression, and the sixth a second or any year."""
    *five, last = (written.text for written in cron.written.values())
    if last not in ("*", "0", "00"):
        return False
    try:
        parse_cron(" ".join(five))
    except InvalidSchedule:
        return False
    return True


def _of_quartz_weekday(cron: Expression) -> Iterator[Finding]:
    """Numbers of weekdays beside a ``?``: by its documentation Quartz has seconds first too, and counts from Sunday = 1."""
    if SECOND not in cron.written or cron.written[MONTH_DAY].text != "?":
        return
    named = quartz_weekday(cron.written[WEEKDAY].text)
    if named is not None:
        yield Finding(
            "quartz-weekday",
            f"{cron.part(WEEKDAY)} beside '?': weekdays count from Sunday = 0 here and from Sunday = 1 in Quartz; if it comes from "
            f"there write {shorten(named)}",
        )
