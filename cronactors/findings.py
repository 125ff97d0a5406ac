"""What looks like a mistake in a schedule that is allowed. Pure: the present is an argument."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime

import attrs

from cronactors import expression
from cronactors.errors import InvalidSchedule, shorten
from cronactors.expression import CronTimes, parse
from cronactors.instants import EARLIEST, LATEST, Millis, from_millis, to_millis
from cronactors.preview import ClockChange, clock_changes, shown_twice, wall_text
from cronactors.schedule import GRACE, Cron, Interval, OneShot, Schedule, _checked_schedule, _instant, next_moment
from cronactors.timestamps import read_timestamp
from cronactors.zones import DAY, SETTLED, check_zone

LOOK_AHEAD = 5 * 366 * DAY
"""How far ahead clock changes are looked at, in seconds: five years, in which each recurring one comes by."""

_LASTING = datetime(2100, 1, 1, tzinfo=UTC)
"""By then every zone of the IANA database keeps its recurring rules; changes that are listed one by one, as Morocco's, end in the 2080s."""
_SECOND: Millis = 1000
_MONTH_LENGTHS = {month: 29 if month == 2 else 30 if month in (4, 6, 9, 11) else 31 for month in range(1, 13)}  # noqa: PLR2004
_SHORTEST, _LONGEST = 28, 31
_EVERY_YEAR_SHAPE = range(2000, 2028)
"""28 years hold every length of a year with every weekday of its first day."""
_ROUNDS = (
    (expression._SECOND, "minute"),
    (expression._MINUTE, "hour"),
    (expression._HOUR, "day"),
    (expression._MONTH_DAY, "month"),
    (expression._MONTH, "year"),
    (expression._WEEKDAY, "week"),
)
"""The fields, and after what each of them starts anew."""
_SIX = 6


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
    """An expression: the texts of its fields in their order, whether there are six of them, and what they mean."""

    second: str
    minute: str
    hour: str
    month_day: str
    month: str
    weekday: str
    six: bool
    times: CronTimes

    def both_days(self) -> bool:
        """Whether both day fields are restricted."""
        return self.month_day not in ("*", "?") and self.weekday not in ("*", "?")


def lint(schedule: Schedule, timezone: str | None = None, *, after: datetime | None = None) -> list[Finding]:
    """Look for what may not be meant in a schedule. It is allowed all the same: what is not cannot be made at all.

    The rules: ``never-fires``, ``rare-date``, ``missing-day``, ``nearest-weekday``, ``both-days``, ``star-step-day``,
    ``uneven-step``, ``many-runs``, ``seconds-first``, ``skipped-time``, ``repeated-time``, ``short-interval``, ``in-the-past``.

    Args:
        schedule: When.
        timezone: IANA name of the zone in which the schedule is meant; None is UTC.
        after: The present, an aware datetime: clock changes of the five years from then on count, and a one-shot before it is
            past. None: the changes that the zone makes in the long run, and no one-shot is past.

    Returns:
        The findings; empty if there is nothing to say.

    Raises:
        InvalidSchedule: An argument is not what it should be, or the zone is unknown.
    """
    _checked_schedule(schedule)
    zone = "UTC" if timezone is None else check_zone(timezone)
    present = None if after is None else _instant("after", after)
    if isinstance(schedule, Interval):
        return list(_of_interval(schedule))
    if isinstance(schedule, OneShot):
        return list(_of_one_shot(schedule, zone, present))
    cron = _read(schedule)
    findings = [*_of_days(cron), *_of_steps(cron), *_of_seconds(cron)]
    start = to_millis(_LASTING) if present is None else min(max(present, EARLIEST), LATEST)
    if next_moment(schedule, after=start, zone=zone, anchor=start) is None:
        return [*findings, Finding("never-fires", f"expr {shorten(schedule.expr)} never fires in {zone} before the year 9998")]
    return [*findings, *_of_clock_changes(cron, zone, start // 1000)]


def _read(schedule: Cron) -> _Expression:
    """Take an expression apart."""
    fields = expression._split(schedule.expr)
    six = len(fields) == _SIX
    second, minute, hour, month_day, month, weekday = fields if six else ["0", *fields]
    return _Expression(second, minute, hour, month_day, month, weekday, six=six, times=parse(schedule.expr))


# Days


def _of_days(cron: _Expression) -> Iterator[Finding]:
    """Either day field matches (POSIX crontab); in Debian's crontab(5) one that begins with ``*`` counts as unrestricted."""
    day, weekday = f"day of month {shorten(cron.month_day)}", f"day of week {shorten(cron.weekday)}"
    if cron.both_days():
        if cron.month_day.startswith("*") or cron.weekday.startswith("*"):
            star = day if cron.month_day.startswith("*") else weekday
            yield Finding(
                "star-step-day",
                f"{day} and {weekday}: it runs on the days of either; Debian's cron takes {star}, which begins with *, for "
                "unrestricted, and runs on days that are in both",
            )
        else:
            yield Finding("both-days", f"{day} and {weekday} are both restricted: it runs on the days of either, not of both")
    rare = _rare_date(cron)
    if rare is not None:
        yield rare
    else:
        yield from _of_missing_days(cron)


def _rare_date(cron: _Expression) -> Finding | None:
    """A date that some years do not have, such as 29 February."""
    days = cron.times.days
    if all(days.count(_first_day(year), _first_day(year + 1), 1) for year in _EVERY_YEAR_SHAPE):
        return None
    named = [("day of month", cron.month_day), ("month", cron.month), ("day of week", cron.weekday)]
    parts = ", ".join(f"{name} {shorten(text)}" for name, text in named if text not in ("*", "?"))
    # The calendar repeats itself every 400 years.
    found = days.count(_first_day(2000), _first_day(2400), 400 * 366)
    return Finding("rare-date", f"{parts}: some years have no such date; there are {found} of them in 400 years")


def _first_day(year: int) -> int:
    """Count the days from 1970-01-01 to the first day of a year."""
    return (datetime(year, 1, 1, tzinfo=UTC) - from_millis(0)).days


def _of_missing_days(cron: _Expression) -> Iterator[Finding]:
    """Days of the month that some of the months do not have."""
    months = cron.times.days.months
    for item in cron.month_day.split(","):
        match = re.fullmatch(r"([0-9]+)(w?)", item)
        day = int(match[1]) if match else 0
        short = [month for month in sorted(months) if day > (_SHORTEST if month == 2 else _MONTH_LENGTHS[month])]  # noqa: PLR2004
        if match is None or not short:
            continue
        part, named = f"day of month {shorten(item)}", f"a {day}{'st' if day == _LONGEST else 'th'}"
        if match[2]:
            nearest = "it means the weekday nearest to the last day; other schedulers may leave those months out"
            yield Finding("nearest-weekday", f"{part}: in a month without {named} {nearest}")
        elif all(day > _MONTH_LENGTHS[month] for month in months):
            yield Finding("missing-day", f"{part}: month {shorten(cron.month)} never has {named}")
        else:
            yield Finding("missing-day", f"{part}: months without {named} are left out; for the last day write 'L'")
    for item in cron.weekday.split(","):
        if item.endswith("#5"):
            yield Finding(
                "missing-day",
                f"day of week {shorten(item)}: months without a fifth are left out; for the last write {_last(item)}",
            )


def _last(item: str) -> str:
    """Write the last such weekday of a month as our grammar has it."""
    weekday = item.partition("#")[0]
    return shorten(f"L{expression._WEEKDAY.names.get(weekday, weekday)}")


# Steps and seconds


def _of_steps(cron: _Expression) -> Iterator[Finding]:
    """Steps after which the next round of the field begins too early."""
    texts = (cron.second, cron.minute, cron.hour, cron.month_day, cron.month, cron.weekday)
    for (field, around), text in zip(_ROUNDS, texts, strict=True):
        for item in text.split(","):
            match = re.fullmatch(r"[^-/]+/([0-9]+)", item)
            if match is None or match[1].lstrip("0") == "1":
                continue
            numbers = sorted(expression._item(field, item))
            means = f"{field.name} {shorten(item)} means {_listed(numbers)}, and starts anew each {around}"
            step, last = int(match[1]), numbers[0] + field.most - field.least + 1 - numbers[-1]
            if field is expression._MONTH_DAY:
                if len(numbers) > 1:  # months differ in length, so no step divides them
                    yield Finding("uneven-step", means)
            elif last != step:
                yield Finding("uneven-step", f"{means}: the last step is {last}, not {step}")


def _listed(numbers: list[int]) -> str:
    few = 6
    if len(numbers) == 1:
        return f"{numbers[0]} alone"
    if len(numbers) <= few:
        return f"{', '.join(map(str, numbers[:-1]))} and {numbers[-1]}"
    return f"{', '.join(map(str, numbers[:3]))} and so on to {numbers[-1]}"


def _of_seconds(cron: _Expression) -> Iterator[Finding]:
    """Seconds that were not meant: six fields may have been written for another scheduler, or for five.

    By their documentation croniter reads a sixth field as the second, Temporal as the year.
    """
    if not cron.six:
        return
    second = f"second {shorten(cron.second)}"
    if len(cron.times.seconds) > 1:
        number = cron.times.per_day
        yield Finding(
            "many-runs", f"{second}: the first of six fields is the second, so it runs {number:,} times on each of its days"
        )
        return
    # `0 0 * * * *` and `0 */5 * * * *` are what those write who mean seconds.
    odd = cron.second != "0" or (cron.hour == "*" and cron.minute != "0" and "*" not in cron.minute)
    if odd and _readable(cron):
        yield Finding(
            "seconds-first",
            f"{second}, minute {shorten(cron.minute)}, hour {shorten(cron.hour)}: the first of six fields is the second; other "
            "schedulers read the minute first, and a second (croniter) or a year (Temporal) last",
        )


def _readable(cron: _Expression) -> bool:
    """Whether the first five fields alone would be an expression, and the sixth a second or any year."""
    if cron.weekday not in ("*", "?", "0"):
        return False
    try:
        parse(f"{cron.second} {cron.minute} {cron.hour} {cron.month_day} {cron.month}")
    except InvalidSchedule:
        return False
    return True


# Clock changes


def _of_clock_changes(cron: _Expression, zone: str, start: int) -> Iterator[Finding]:
    """Named hours that the clock skips or repeats; to a rhythm of all hours that happens as it is meant."""
    if cron.hour.startswith("*"):
        return
    told: set[str] = set()
    for change in clock_changes(zone, start, min(start + LOOK_AHEAD, LATEST // 1000)):
        rule = "skipped-time" if change.after > change.before else "repeated-time"
        text = None if rule in told else _of_change(cron.times, change)
        if text is not None:
            told.add(rule)
            yield Finding(rule, f"hour {shorten(cron.hour)} in {zone}: {text}")


def _of_change(times: CronTimes, change: ClockChange) -> str | None:
    """Say what a clock change does to the first time that it touches."""
    forward = change.after > change.before
    low, high = change.skipped if forward else change.repeated
    first = times.at_or_after(low)
    if first is None or first >= high:
        return None
    time = wall_text(first, first - SETTLED)
    if not forward:
        return f"{time} is shown twice, it runs {'both times' if times.rhythm else 'the first time only'}"
    return f"{time} does not exist, it {'is skipped' if times.rhythm else f'runs at {wall_text(high, first)}'}"


# Intervals and one-shots


def _of_interval(schedule: Interval) -> Iterator[Finding]:
    """Milliseconds that may have been meant as seconds."""
    if schedule.every_ms < _SECOND:
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
    if present is not None and at < present - GRACE:
        yield Finding("in-the-past", f"{part} is in the past, it was {from_millis(at):%Y-%m-%d %H:%M:%S} UTC: it cannot be added")
