"""Reads the time that a user asks about: a time of day, a date and time, or how long ago."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import TypeAlias

import attrs
import click

from cronactors.cli.times import parse_time
from cronactors.errors import InvalidSchedule, shorten
from cronactors.instants import Millis, from_millis, to_millis
from cronactors.schedules.clock_changes import DAY, clock_changes, instant_reaching, is_skipped, segment_at
from cronactors.schedules.preview import local_text
from cronactors.schedules.timestamps import Timestamp, read_timestamp
from cronactors.schedules.zones import load_zone

_TIME_OF_DAY = re.compile(r"(\d{1,2}):(\d\d)(?::(\d\d))?", re.ASCII)
_SHOWN = re.compile(r"(?:[A-Z][a-z]{2} )?(\d{4}-\d\d-\d\d \d\d:\d\d(?::\d\d)?) ([A-Z]{3,5}|[+-][\d:]{2,8})", re.ASCII)
"""A time as our tables write it: "2026-03-29 03:00:00 CEST" or "Sun 2026-03-29 03:00:00 +02:00"."""
_DAY = re.compile(r"\d{4}-\d\d-\d\d|yesterday|today|tomorrow", re.ASCII)
_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001 - counts milliseconds off the wall
_MINUTE: Millis = 60_000
_SECOND: Millis = 1_000


@attrs.frozen
class Asked:
    """The instant that is asked about.

    Attributes:
        at: The instant.
        within: How long (ms) it is: a time without seconds means the whole minute.
        note: How a clock change affects it; None if none does.
    """

    at: Millis
    within: Millis
    note: str | None = None


When: TypeAlias = Callable[[str, Millis], Asked]
"""Finds the instant, given the zone of the job and the present."""


def read_when(text: str) -> When | None:
    """Read a time; None for "now".

    It is "02:30" (the last one that has passed), "2026-03-29 02:30" with or without an offset, a day (its first moment), a time as our
    tables write it, or another one that `parse_time` reads, such as "2h".

    Raises:
        click.BadParameter: It is none of these.
    """
    text = " ".join(text.split())
    if text.lower() == "now":
        return None
    if (found := _TIME_OF_DAY.fullmatch(text)) is not None:
        hour, minute, second = (int(part or 0) for part in found.groups())
        if hour < 24 and minute < 60 and second < 60:  # noqa: PLR2004
            within = _MINUTE if found[3] is None else _SECOND
            return lambda zone, now: _last(hour * 3600 + minute * 60 + second, within, zone, now)
        raise _refusal(text)
    name = ""
    if (shown := _SHOWN.fullmatch(text)) is not None:
        text, name = shown.groups()
        if name == "UTC" or not name.isalpha():
            text, name = f"{text}{'Z' if name == 'UTC' else name}", ""
    try:
        stamp = read_timestamp(text)
    except InvalidSchedule:
        try:
            parse_time(text, zone="UTC", now=from_millis(DAY * 1000))
        except ValueError:
            raise _refusal(text) from None
        within = _MINUTE if ":" in text else DAY * 1000 if _DAY.fullmatch(text.lower()) else 1
        return lambda zone, now: Asked(to_millis(parse_time(text, zone=zone, now=from_millis(now))), within)
    within = 1 if stamp.millis % _SECOND else _SECOND if stamp.millis % _MINUTE else _MINUTE
    if name:
        return lambda zone, _now: Asked(_of_offset(stamp, name, zone), within)
    return lambda zone, _now: _of_stamp(stamp, within, zone)


def _refusal(text: str) -> click.BadParameter:
    message = f'{shorten(text)} is not a time, such as 02:30, "2026-03-29 02:30", 2h (ago) or now'
    return click.BadParameter(message, param_hint="WHEN")


def _last(time: int, within: Millis, zone: str, now: Millis) -> Asked:
    """Find the last day whose time of day ``time`` (s) has passed."""
    seconds = now // 1000
    today = (seconds + segment_at(zone, seconds).offset) // DAY
    local = next(day * DAY + time for day in range(today, today - 4, -1) if instant_reaching(zone, day * DAY + time) <= seconds)
    return _of_stamp(Timestamp(local * 1000, local=True), within, zone)


def _of_stamp(stamp: Timestamp, within: Millis, zone: str) -> Asked:
    return Asked(stamp.instant(zone), within, _note(stamp.millis // 1000, zone) if stamp.local else None)


def _of_offset(stamp: Timestamp, name: str, zone: str) -> Millis:
    """Find the instant at which the clocks of a zone show a time, while their offset has a name, such as CEST.

    Raises:
        InvalidSchedule: They never do.
    """
    for fold in (0, 1):
        local = (_EPOCH + timedelta(milliseconds=stamp.millis)).replace(tzinfo=load_zone(zone), fold=fold)
        if local.tzname() == name:
            return to_millis(local)
    raise InvalidSchedule(f"the offset of {zone} is not {name} at that time: give it in hours, such as +02:00")


def _note(local: int, zone: str) -> str | None:
    """Describe the clock change that skips a local time (s)."""
    if not is_skipped(zone, local):
        return None
    reached = instant_reaching(zone, local)
    for change in clock_changes(zone, reached - 1, reached + 1):
        low, high = change.skipped
        day, time = local_text(local).split()
        jump = f"from {local_text(low, same_day_as=local)} to {local_text(high, same_day_as=local)}"
        return f"{time} does not exist on {day}: the clock goes {jump}"
    return None
