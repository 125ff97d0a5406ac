"""What looks like a mistake in a schedule that is allowed. Pure: the present is an argument."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from itertools import pairwise

import attrs

from cronactors import checks
from cronactors.errors import InvalidSchedule, shorten
from cronactors.instants import EARLIEST, LATEST, Millis, from_millis, to_millis
from cronactors.schedules.cron import (
    HOUR,
    MINUTE,
    MONTH,
    MONTH_DAY,
    SECOND,
    WEEKDAY,
    Field,
    Item,
    WrittenField,
    fields,
    parse_cron,
)
from cronactors.schedules.cron_advice import quartz_weekday
from cronactors.schedules.local_times import LocalTimes
from cronactors.schedules.preview import ClockChange, clock_changes, shown_twice, wall_text
from cronactors.schedules.schedule import ONE_SHOT_GRACE, Cron, Interval, OneShot, Schedule, check_is_schedule, next_moment
from cronactors.schedules.timestamps import read_timestamp
from cronactors.schedules.zones import DAY, MAX_OVERLAP, check_zone

LOOK_AHEAD = 5 * 366 * DAY
"""How far ahead of a given present clock changes are looked at, in seconds: five years, in which each recurring one comes by."""

_NO_PRESENT = (to_millis(datetime(2026, 1, 1, tzinfo=UTC)), to_millis(datetime(2105, 1, 1, tzinfo=UTC)))
"""What is looked at when no present is given: changes that zones list one by one, and five years of those that recur for ever."""
_ONE_SECOND: Millis = 1000
_DAY_HOURS, _HOUR_MINUTES = 24, 60
_ROUNDS = ((SECOND, "minute"), (MINUTE, "hour"), (HOUR, "day"), (MONTH_DAY, "month"), (MONTH, "year"), (WEEKDAY, "week"))
"""The fields, and after what each of them starts anew."""


@attrs.frozen
class Finding:
    """Something in a schedule that may not be meant.

    Args:
        rule: The stable name of the rule, such as ``"uneven-step"``.
        text: One sentence that names the part of the schedule and says what it does.
    """

    rule: str
    text: str


@attrs.frozen
class _Expression:
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
            return times.days.has_neighbours()
        # After December comes January; weeks and years always go on.
        return field is not MONTH_DAY or _in_a_row(tuple(sorted(times.days.months)), MONTH, lambda: True)


def _in_a_row(values: tuple[int, ...], field: Field, goes_on: Callable[[], bool]) -> bool:
    """Whether sorted values hold two in a row: also the last and the first, if the field's own rounds go on."""
    if any(after - before == 1 for before, after in pairwise(values)):
        return True
    return values[0] == field.least and values[-1] == field.most and goes_on()


def lint(schedule: Schedule, timezone: str | None = None, *, after: datetime | None = None) -> list[Finding]:
    """Look for what may not be meant in a schedule. It is allowed all the same: what is not cannot be made at all.

    The rules: ``never-fires``, ``rare-date``, ``missing-day``, ``nearest-weekday``, ``both-days``, ``star-step-day``,
    ``uneven-step``, ``many-runs``, ``seconds-first``, ``quartz-weekday``, ``skipped-time``, ``repeated-time``, ``short-interval``, ``in-the-past``.

    Args:
        schedule: When.
        timezone: IANA name of the zone in which the schedule is meant; None is UTC.
        after: The present, an aware datetime such as ``cronactors.now()``: clock changes of the five years from then on count,
            and a one-shot before it is past. None: the clock changes of the years 2026 to 2104, and no one-shot is past.

    Returns:
        The findings; empty if there is nothing to say.

    Raises:
        InvalidSchedule: An argument is not what it should be, or the zone is unknown.
    """
    check_is_schedule(schedule)
    zone = "UTC" if timezone is None else check_zone(timezone)
    present = None if after is None else checks.instant("after", after, InvalidSchedule)
    if isinstance(schedule, Interval):
        return list(_of_interval(schedule))
    if isinstance(schedule, OneShot):
        return list(_of_one_shot(schedule, zone, present))
    # A slip that is written twice is told once.
    return list(dict.fromkeys(_of_cron(schedule, zone, present)))


def _of_cron(schedule: Cron, zone: str, present: Millis | None) -> Iterator[Finding]:
    cron = _Expression(fields(schedule.expr), parse_cron(schedule.expr))
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
    start, end = _NO_PRESENT
    if present is not None:
        start = min(max(present, EARLIEST), LATEST)
        end = min(start + LOOK_AHEAD * 1000, LATEST)
    if next_moment(schedule, after=start, zone=zone, anchor=start) is None:
        yield Finding("never-fires", f"expr {shorten(schedule.expr)} never fires in {zone} before the year 9998")
    else:
        yield from _of_clock_changes(cron, zone, start // 1000, end // 1000)


# Days


def _of_day_fields(cron: _Expression) -> Iterator[Finding]:
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


def _of_dates(cron: _Expression) -> Iterator[Finding]:
    """Dates that some years do not have, such as 29 February; or else days that some months do not have."""
    days = cron.times.days
    if days.comes_every_year():
        yield from _of_absent_days(cron)
        if days.leaves_months_out():
            yield _of_months_left_out(cron)
        return
    parts = ", ".join(cron.part(field) for field in (MONTH_DAY, MONTH, WEEKDAY) if cron.written[field].restricted)
    yield Finding("rare-date", f"{parts}: some years have no such date; there are {days.in_400_years()} of them in 400 years")


def _of_absent_days(cron: _Expression) -> Iterator[Finding]:
    """Days of the month that none of the months named has."""
    for item in cron.written[MONTH_DAY].items:
        # What goes on to the end of the field means whatever days there are, and so does a range over all of it.
        written_out = "/" not in item.text or "-" in item.text
        if written_out and not _is_whole(item):
            absent = [day for day in item.numbers if day > cron.times.days.longest_month]
            if absent:
                named = f"day of month {shorten(item.text)}: {cron.part(MONTH)}"
                yield Finding("missing-day", f"{named} never has {_ordinal(absent[0])}")


def _of_months_left_out(cron: _Expression) -> Finding:
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


def _of_nearest_weekdays(cron: _Expression) -> Iterator[Finding]:
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


def _of_steps(cron: _Expression) -> Iterator[Finding]:
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


def _of_many_runs(cron: _Expression) -> Iterator[Finding]:
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


def _of_seconds_first(cron: _Expression) -> Iterator[Finding]:
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


def _is_readable(cron: _Expression) -> bool:
    """Whether the first five fields alone would be an expression, and the sixth a second or any year."""
    *five, last = (written.text for written in cron.written.values())
    if last not in ("*", "0", "00"):
        return False
    try:
        parse_cron(" ".join(five))
    except InvalidSchedule:
        return False
    return True


def _of_quartz_weekday(cron: _Expression) -> Iterator[Finding]:
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


# Clock changes


def _of_clock_changes(cron: _Expression, zone: str, start: int, end: int) -> Iterator[Finding]:
    """Hours that the clock skips or repeats; to a rhythm of all hours that happens as it is meant."""
    if cron.times.rhythm and len(cron.times.hours) == _DAY_HOURS:
        return
    untold = {"skipped-time", "repeated-time"}
    for change in clock_changes(zone, start, end):
        rule = "skipped-time" if change.after > change.before else "repeated-time"
        text = _of_change(cron.times, change) if rule in untold else None
        if text is not None:
            yield Finding(rule, f"{cron.part(HOUR)} in {zone}: {text}")
            untold.remove(rule)
        if not untold:
            return


def _of_change(times: LocalTimes, change: ClockChange) -> str | None:
    """Say what a clock change does to the first time that it touches."""
    forward = change.after > change.before
    low, high = change.skipped if forward else change.repeated
    first = times.at_or_after(low)
    if first is None or first >= high:
        return None
    time = wall_text(first, first - MAX_OVERLAP)
    if not forward:
        return f"{time} is shown twice, it runs {'both times' if times.rhythm else 'the first time only'}"
    return f"{time} does not exist, it {'is skipped' if times.rhythm else f'runs at {wall_text(high, first)}'}"


# Intervals and one-shots


def _of_interval(schedule: Interval) -> Iterator[Finding]:
    """Milliseconds that may have been meant as seconds."""
    if schedule.every_ms < _ONE_SECOND:
        yield Finding("short-interval", f"every_ms {schedule.every_ms} is less than a second; it is counted in milliseconds")


def _of_one_shot(schedule: OneShot, zone: str, present: Millis | None) -> Iterator[Finding]:
    """Local times that do not exist or are shown twice, and what `add_job` refuses as too old."""
    stamp = read_timestamp(schedule.at)
    at, part = stamp.instant(zone), f"at {shorten(schedule.at)}"
    if stamp.is_skipped(zone):
        yield Finding("skipped-time", f"{part} does not exist in {zone}: the clock is set forward over it, it cannot be added")
    elif stamp.local and shown_twice(zone, at // 1000):
        yield Finding(
            "repeated-time", f"{part} is shown twice in {zone}: it runs the first time; an offset would say which is meant"
        )
    if at >= LATEST:
        yield Finding("never-fires", f"{part} never fires in {zone} before the year 9998")
    if present is not None and at < present - ONE_SHOT_GRACE:
        yield Finding("in-the-past", f"{part} is in the past, it was {from_millis(at):%Y-%m-%d %H:%M:%S} UTC: it is not run")
