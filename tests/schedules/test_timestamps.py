"""The text of a one-shot's moment."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone, tzinfo
from zoneinfo import ZoneInfo

import pytest

from cronactors.errors import InvalidSchedule
from cronactors.instants import to_millis
from cronactors.schedules.schedule import OneShot
from cronactors.schedules.timestamps import read_timestamp


def millis(text):
    return to_millis(datetime.fromisoformat(text))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-03-29T09:00:00+02:00", "2026-03-29T07:00:00+00:00"),
        ("2026-03-29T09:00:00Z", "2026-03-29T09:00:00+00:00"),
        ("2026-03-29t09:00:00z", "2026-03-29T09:00:00+00:00"),
        ("2026-03-29 09:00Z", "2026-03-29T09:00:00+00:00"),
        ("2026-03-29 09:00-0330", "2026-03-29T12:30:00+00:00"),
        ("2026-03-29 09:00+02", "2026-03-29T07:00:00+00:00"),
        ("2026-03-29T09:00:00.123Z", "2026-03-29T09:00:00.123+00:00"),
        ("2026-03-29T09:00:00.123999999Z", "2026-03-29T09:00:00.123+00:00"),
        ("2026-03-29T09:00:00,5Z", "2026-03-29T09:00:00.500+00:00"),
        ("1972-01-07T00:00:00-00:44:30", "1972-01-07T00:44:30+00:00"),
        # Local time in Rome: winter, summer, twice, seconds apart.
        ("2026-01-01T09:00", "2026-01-01T08:00:00+00:00"),
        ("2026-07-01 09:00:30.5", "2026-07-01T07:00:30.500+00:00"),
        ("2026-10-25T02:30:00.250", "2026-10-25T00:30:00.250+00:00"),
        # Skipped: the moment after the jump, without milliseconds.
        ("2026-03-29T02:30:00.250", "2026-03-29T01:00:00+00:00"),
    ],
)
def test_a_timestamp_is_an_instant(text, expected):
    assert read_timestamp(text).instant("Europe/Rome") == millis(expected)


@pytest.mark.parametrize(
    "text",
    ["2026-03-29", "2026-3-29T09:00", "20260329T090000Z", "2026-W13-7T09:00", "2026-03-29T09", "2026-02-30T09:00", "2026-03-29T24:00",
     "2026-03-29T23:59:60Z", "2026-03-29T09:60", "2026-13-01T09:00", "2026-03-29T09:00+24:00", "2026-03-29T09:00 Z", "tomorrow",
     "2026-03-29T09:00[Europe/Rome]", " 2026-03-29T09:00", "2026-03-29T09:00\n", "1774774800", "2026-03-29T09:00:00.Z",
     "٢٠٢٦-03-29T09:00", "2026-03-29T09:00+2", "-2026-03-29T09:00", "2026-03-29T09:00:00+02:00+02:00"],
)  # fmt: skip
def test_other_text_is_refused(text):
    with pytest.raises(InvalidSchedule, match=r"^at .*is not an ISO 8601 date and time") as caught:
        OneShot(text)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    "text", ["1969-12-31T23:59:59", "9998-01-01T00:00Z", "0001-01-01T00:00", "9999-12-31T23:59:59.999999-12:00"]
)
def test_years_outside_1970_to_9997_are_refused(text):
    with pytest.raises(InvalidSchedule, match=r"^at .* is not in the years 1970 to 9997"):
        OneShot(text)


class Broken(tzinfo):
    def utcoffset(self, _when):
        raise RuntimeError("broken")


@pytest.mark.parametrize(
    ("value", "why"),
    [(None, "at must be text"), (5, "at must be text, not int"), (1774774800.0, "at must be text"), (b"2026", "at must be text"),
     ("", "at must not be empty"), ("2026" * 30, "at is too long"), ("2026\0", "NUL"),
     (datetime(2026, 1, 1, tzinfo=Broken()), "gives no offset"),
     (datetime(2026, 1, 1).date(), "at must be text"), (timedelta(1), "at must be text")],
    ids=lambda value: ascii(value)[:30],
)  # fmt: skip
def test_other_values_are_refused(value, why):
    with pytest.raises(InvalidSchedule, match=r"^at ") as caught:
        OneShot(value)
    assert why in str(caught.value)


def test_a_datetime_becomes_text_and_keeps_its_offset():
    assert OneShot(datetime(2026, 7, 1, 9)).at == "2026-07-01T09:00:00"
    assert OneShot(datetime(2026, 7, 1, 9, tzinfo=UTC)).at == "2026-07-01T09:00:00+00:00"
    assert OneShot(datetime(2026, 7, 1, 9, tzinfo=ZoneInfo("Europe/Rome"))).at == "2026-07-01T09:00:00+02:00"
    assert (
        OneShot(datetime(2026, 7, 1, 9, 0, 0, 1500, tzinfo=timezone(timedelta(hours=-3)))).at
        == "2026-07-01T09:00:00.001500-03:00"
    )
    second = OneShot(datetime(2026, 10, 25, 2, 30, fold=1, tzinfo=ZoneInfo("Europe/Rome")))
    assert read_timestamp(second.at).instant("UTC") == millis("2026-10-25T01:30:00+00:00")
