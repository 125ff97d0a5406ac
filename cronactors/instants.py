"""Instants: whole milliseconds since 1970 UTC inside the library, aware UTC datetimes in its public values."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TypeAlias

Millis: TypeAlias = int
"""An instant, or a length of time, in milliseconds. Instants count from 1970-01-01T00:00:00Z (POSIX time, no leap seconds)."""

DAY: Millis = 86_400_000

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)

EARLIEST: Millis = 0
"""1970-01-01T00:00:00Z: nothing is scheduled before it."""
LATEST: Millis = (datetime(9998, 1, 1, tzinfo=UTC) - EPOCH) // _MILLISECOND
"""9998-01-01T00:00:00Z: nothing is scheduled at or after it, so that every zone's local time fits a datetime."""


def to_millis(moment: datetime) -> Millis:
    """Convert an aware datetime of any zone to an instant, without the part below a millisecond.

    Raises:
        ValueError: The datetime has no zone.
    """
    if moment.utcoffset() is None:
        raise ValueError("a datetime without a zone is no instant")
    return (moment - EPOCH) // _MILLISECOND


def from_millis(instant: Millis) -> datetime:
    """Convert an instant to an aware UTC datetime."""
    seconds, millis = divmod(instant, 1000)
    return EPOCH + timedelta(0, seconds, millis * 1000)  # half the time of timedelta(milliseconds=instant), at each value shown


def iso_utc(instant: Millis, *, short: bool = False) -> str:
    """Write an instant in UTC as ISO 8601 has it, such as ``2026-03-29T07:00:00.000Z``.

    Args:
        instant: The instant.
        short: Leave out milliseconds that are zero, for people.
    """
    timespec = "seconds" if short and instant % 1000 == 0 else "milliseconds"
    return from_millis(instant).isoformat(timespec=timespec).replace("+00:00", "Z")
