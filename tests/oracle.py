"""Brute force to compare with: computes when a cron expression fires by reading the local time at each step.

It shares no code and no method with the package. It has its own parser, for valid expressions only, walks through the instants of
a period with `zoneinfo`, and applies the two rules for clock changes literally.
"""

from __future__ import annotations

import calendar
from datetime import date, datetime, timedelta
from zoneinfo import ZoneInfo

MONTHS = ["", "jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"]
WEEKDAYS = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"]


def value(text: str) -> int:
    for names in (MONTHS, WEEKDAYS):
        if text.lower() in names:
            return names.index(text.lower())
    return int(text)


def numbers(text: str, low: int, high: int) -> set[int]:
    found = set()
    for item in text.split(","):
        span, _, step = item.partition("/")
        first, dash, last = span.partition("-")
        if span == "*":
            begin, end = low, high
        elif dash:
            begin, end = value(first), value(last)
        else:
            begin = value(first)
            end = high if step else begin
        found |= set(range(begin, end + 1)[:: int(step or 1)])
    return found


def day_of_month(text: str, day: date) -> bool:
    length = calendar.monthrange(day.year, day.month)[1]
    for item in text.upper().split(","):
        if item == "L":
            hit = day.day == length
        elif item.endswith("W"):
            target = min(int(item[:-1]), length)
            weekdays = [n for n in range(1, length + 1) if date(day.year, day.month, n).weekday() < 5]
            # The nearest weekday of the same month; from a Saturday Friday, from a Sunday Monday.
            saturday = date(day.year, day.month, target).weekday() == 5
            hit = day.day == min(weekdays, key=lambda n: (abs(n - target), n > target if saturday else n < target))
        else:
            hit = day.day in numbers(item, 1, 31)
        if hit:
            return True
    return False


def day_of_week(text: str, day: date) -> bool:
    number = day.isoweekday() % 7
    length = calendar.monthrange(day.year, day.month)[1]
    for item in text.upper().split(","):
        if item[0] == "L":
            hit = int(item[1:]) % 7 == number and day.day + 7 > length
        elif "#" in item:
            weekday, nth = item.split("#")
            hit = value(weekday) % 7 == number and (day.day + 6) // 7 == int(nth)
        elif "-" in item and value(item.split("/")[0].split("-")[0]) % 7 > value(item.split("/")[0].split("-")[1]):
            span, _, step = item.partition("/")
            first, last = (value(end) for end in span.split("-"))
            hit = number in {n % 7 for n in range(first % 7, last + 8, int(step or 1))}
        else:
            hit = number in {n % 7 for n in numbers(item, 0, 6)}
        if hit:
            return True
    return False


class Expression:
    """An expression that is compared with one local time after the other."""

    def __init__(self, text: str) -> None:
        fields = text.split()
        if len(fields) == 5:
            fields.insert(0, "0")
        self.rhythm = any(field[0] == "*" for field in fields[:3])
        self.seconds, self.minutes = numbers(fields[0], 0, 59), numbers(fields[1], 0, 59)
        self.hours, self.months = numbers(fields[2], 0, 23), numbers(fields[4], 1, 12)
        self.month_day, self.weekday = fields[3], fields[5]
        self.days: dict[date, bool] = {}

    def on(self, day: date) -> bool:
        if day not in self.days:
            free = [field in ("*", "?") for field in (self.month_day, self.weekday)]
            if all(free):
                hit = True
            elif free[0]:
                hit = day_of_week(self.weekday, day)
            elif free[1]:
                hit = day_of_month(self.month_day, day)
            else:
                hit = day_of_month(self.month_day, day) or day_of_week(self.weekday, day)
            self.days[day] = hit and day.month in self.months
        return self.days[day]

    def at(self, wall: datetime) -> bool:
        return wall.second in self.seconds and wall.minute in self.minutes and wall.hour in self.hours and self.on(wall.date())


def fire_instants(text: str, zone: str, start: int, end: int, step: int) -> list[int]:
    """Find the instants ``start < instant <= end`` at which an expression fires (s since 1970 UTC).

    Args:
        text: A valid expression. Its times and the zone's clock changes are multiples of ``step``.
        zone: An IANA name.
        start: The start of the period; a multiple of ``step``.
        end: The end of the period.
        step: The distance (s) between the instants that are tried.
    """
    expression = Expression(text)
    rules = ZoneInfo(zone)
    stride = timedelta(seconds=step)
    shown: set[datetime] = set()
    found = []
    before = None
    # We start early enough to know which local times have been shown already.
    for instant in range(start - 26 * 3600, end + 1, step):
        wall = datetime.fromtimestamp(instant, rules).replace(tzinfo=None)
        fires = False
        if expression.rhythm:
            fires = expression.at(wall)
        else:
            while before is not None and before + stride < wall:
                before += stride
                fires = fires or (before not in shown and expression.at(before))
            if wall not in shown and expression.at(wall):
                fires = True
            shown.add(wall)
        before = wall
        if fires and instant > start:
            found.append(instant)
    return found


def changes(zone: str, year: int) -> list[int]:
    """Find the instants in a year at which a zone's offset changes: in steps of three hours, a minute, a second."""
    rules = ZoneInfo(zone)

    def offset(instant: int) -> timedelta | None:
        return datetime.fromtimestamp(instant, rules).utcoffset()

    begin = int((datetime(year, 1, 1) - datetime(1970, 1, 1)).total_seconds())
    found = []
    for low in range(begin, begin + 366 * 86400, 3 * 3600):
        if offset(low) != offset(low + 3 * 3600):
            minute = next(at for at in range(low, low + 3 * 3600, 60) if offset(at + 60) != offset(low))
            found.append(next(at for at in range(minute, minute + 61) if offset(at) != offset(low)))
    return found
