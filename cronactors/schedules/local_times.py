"""The local times that a cron expression matches: the next, the previous and the number of them. Without a zone. Pure."""

from __future__ import annotations

from bisect import bisect_left, bisect_right

import attrs

from cronactors.schedules.calendar import DayRule

_DAY = 86_400
_HOURS = 24


@attrs.frozen
class LocalTimes:
    """The local times that an expression matches: each matching day at each matching hour, minute and second.

    A local time is a number of seconds since 1970-01-01 00:00 on a clock without a zone.

    Args:
        days: The matching days.
        hours: Matching hours, ascending; ``minutes`` and ``seconds`` likewise.
        minutes: Matching minutes.
        seconds: Matching seconds.
        rhythm: Whether the second, minute or hour field begins with ``*``. Such a schedule follows the clock on the wall through
            clock changes (Debian cron(8): "wildcard jobs"), while a time of day runs exactly once. Hours that are written out,
            such as ``0-23``, are times of day.
    """

    days: DayRule
    hours: tuple[int, ...]
    minutes: tuple[int, ...]
    seconds: tuple[int, ...]
    rhythm: bool

    @property
    def per_day(self) -> int:
        """The number of times in a matching day."""
        return len(self.hours) * len(self.minutes) * len(self.seconds)

    @property
    def keeps_local_time(self) -> bool:
        """Whether the moments belong to local dates and times, rather than to instants.

        We need to know this when the rules of a zone change. ``30 2 * * *`` in Europe/Rome means 02:30 on the wall, and so does a
        rhythm within named hours, such as ``*/20 2 * * *``: if Italy moves its clocks, the next moment moves with them, and no
        date runs twice or is left out. A rhythm of all hours, such as ``*/15 * * * *``, has no date to miss: it continues from
        the present by the new rules.
        """
        return not (self.rhythm and len(self.hours) == _HOURS)

    def at_or_after(self, local: int) -> int | None:
        """Find the first matching local time from ``local`` on; None if there is none up to the end of 9998."""
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
        """Find the last matching local time up to ``local``; None if there is none back to 1969."""
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
        """Count the matching local times in ``start <= local < end``, up to ``cap``.

        We multiply the matching days by the times of a day and correct the first and the last day, so a schedule of every second
        costs no more than one of every day.
        """
        if start >= end:
            return 0
        (first_day, first_time), (last_day, last_time) = divmod(start, _DAY), divmod(end, _DAY)
        total = -self._count_before(first_time) if self.days.at_or_after(first_day) == first_day else 0
        if self.days.at_or_after(last_day) == last_day:
            total += self._count_before(last_time)
        return min(cap, total + self.days.count(first_day, last_day, cap + 1) * self.per_day)

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

    def _count_before(self, time: int) -> int:
        """Count the times of a matching day that are earlier than ``time``."""
        hour, minute, second = time // 3600, time // 60 % 60, time % 60
        at = bisect_left(self.hours, hour)
        total = at * len(self.minutes) * len(self.seconds)
        if at < len(self.hours) and self.hours[at] == hour:
            inner = bisect_left(self.minutes, minute)
            total += inner * len(self.seconds)
            if inner < len(self.minutes) and self.minutes[inner] == minute:
                total += bisect_left(self.seconds, second)
        return total
