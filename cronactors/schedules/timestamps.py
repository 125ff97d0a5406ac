"""The text of a one-shot's moment: a date and time by RFC 3339, with an offset or as local time. Pure."""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from functools import lru_cache

import attrs

from cronactors import checks
from cronactors.errors import InvalidSchedule, shorten
from cronactors.instants import Millis, to_millis
from cronactors.schedules.clock_changes import instant_reaching, is_skipped

_MAX_TEXT = 64
_FIRST_YEAR, _LAST_YEAR = 1970, 9997
_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001 - counts milliseconds off the wall
# A date-time of RFC 3339 (section 5.6). Seconds and the offset are optional here, and an offset may have seconds, as Python
# writes it.
_TIMESTAMP = re.compile(
    r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d([.,]\d{1,9})?)?(Z|[+-]\d\d(:?\d\d)?|[+-]\d\d:\d\d:\d\d)?",
    re.ASCII,
)


@attrs.frozen
class Timestamp:
    """A parsed date and time.

    Args:
        millis: An instant; or, if ``local``, milliseconds since 1970-01-01 00:00 on a clock without a zone.
        local: Whether this is a local time, because the text has no offset.
    """

    millis: Millis
    local: bool

    def instant(self, zone: str) -> Millis:
        """Find the instant in a zone: the first showing of a repeated time, the moment after the jump for a skipped one."""
        if not self.local:
            return self.millis
        found = instant_reaching(zone, self.millis // 1000) * 1000
        return found if self.is_skipped(zone) else found + self.millis % 1000

    def is_skipped(self, zone: str) -> bool:
        """Return whether this is a local time that the clock in a zone skips."""
        return self.local and is_skipped(zone, self.millis // 1000)


def timestamp_text(value: str | datetime) -> str:
    """Check a one-shot's moment and return it as text. A datetime is written in ISO 8601 and keeps its offset, if it has one.

    Raises:
        InvalidSchedule: It is not a date and time, or not in the years 1970 to 9997.
    """
    if isinstance(value, datetime):
        try:
            value = value.isoformat()
        except Exception:  # noqa: BLE001 - a user's tzinfo can raise anything, and then this value is wrong
            raise InvalidSchedule("at is a datetime whose zone gives no offset") from None
    text = checks.text("at", value, InvalidSchedule, limit=_MAX_TEXT)
    read_timestamp(text)
    return text


@lru_cache(maxsize=4096)
def read_timestamp(text: str) -> Timestamp:
    """Parse a one-shot's text. Fractions of a millisecond are cut off.

    Raises:
        InvalidSchedule: It is not a date and time, or not in the years 1970 to 9997.
    """
    try:
        if _TIMESTAMP.fullmatch(text.upper()) is None:
            raise ValueError
        found = datetime.fromisoformat(text.upper())
    except ValueError:
        raise InvalidSchedule(f"at {shorten(text)} is not an ISO 8601 date and time, such as 2026-03-29T09:00:00+02:00") from None
    if not _FIRST_YEAR <= found.year <= _LAST_YEAR:
        raise InvalidSchedule(f"at {shorten(text)} is not in the years {_FIRST_YEAR} to {_LAST_YEAR}")
    if found.tzinfo is not None:
        return Timestamp(to_millis(found), local=False)
    return Timestamp((found - _EPOCH) // timedelta(milliseconds=1), local=True)
