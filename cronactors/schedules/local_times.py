"""The local times that a cron expression means: the next, the previous, and how many. Zone-less and pure."""

from __future__ import annotations

from bisect import bisect_left, bisect_right

import attrs

from cronactors.schedules.calendar import DayRule

_DAY = 86_400
_HOURS = 24


@attrs.frozen
class LocalTimes:
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

    @property
    def keeps_local_time(self) -> bool:
        """Whether these are times of day, which belong to a local date and time; a rhythm of all hours follows the wall."""
        return not (self.rhythm and len(self.hours) == _HOURS)

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
