"""Times and durations as people type them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, strategies as st

from cronactors.cli.times import parse_coming_time, parse_duration, parse_time, write_out_day

NOW = datetime(2026, 3, 28, 23, 30, tzinfo=UTC)  # in Rome it is 00:30 on the 29th, on which the clock skips 02:00 to 03:00


def utc(*fields: int) -> datetime:
    return datetime(*fields, tzinfo=UTC)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("90s", timedelta(seconds=90)),
        ("10m", timedelta(minutes=10)),
        ("2h", timedelta(hours=2)),
        ("3d", timedelta(days=3)),
        ("1w", timedelta(weeks=1)),
        ("250ms", timedelta(milliseconds=250)),
        ("1h30m", timedelta(minutes=90)),
        ("1h 30 min", timedelta(minutes=90)),
        (" 2 Days ", timedelta(days=2)),
        ("1.5h", timedelta(minutes=90)),
        ("0s", timedelta()),
        ("36600d", timedelta(days=36_600)),
    ],
)
def test_a_duration(text, expected):
    assert parse_duration(text) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is not a length of time, such as 90s"),
        ("90", "is not a length of time"),
        ("h", "is not a length of time"),
        ("-2h", "is not a length of time"),
        ("2h!", "is not a length of time"),
        ("٣h", "is not a length of time"),
        ("1e5s", "unknown unit 'e'"),
        ("2y", "unknown unit 'y': use s, m, h, d or w"),
        ("2 h 3 fortnights", "unknown unit 'fortnights'"),
        ("36601d", "longer than a hundred years"),
        ("999999999999w", "longer than a hundred years"),
    ],
)
def test_what_is_no_duration(text, message):
    with pytest.raises(ValueError, match=message):
        parse_duration(text)


@pytest.mark.parametrize(
    ("text", "zone", "expected"),
    [
        ("2026-03-28", "UTC", utc(2026, 3, 28)),
        ("2026-03-28", "Europe/Rome", utc(2026, 3, 27, 23)),
        ("2026-03-28 14:30", "Europe/Rome", utc(2026, 3, 28, 13, 30)),
        ("2026-03-28T14:30:15.5", "UTC", utc(2026, 3, 28, 14, 30, 15, 500_000)),
        ("2026-03-28t14:30z", "Europe/Rome", utc(2026, 3, 28, 14, 30)),
        ("2026-03-28T14:30+05:30", "Europe/Rome", utc(2026, 3, 28, 9)),
        ("2026-03-29 02:30", "Europe/Rome", utc(2026, 3, 29, 1)),  # skipped: the moment after the jump
        ("2026-10-25 02:30", "Europe/Rome", utc(2026, 10, 25, 0, 30)),  # shown twice: the first
        ("now", "UTC", NOW),
        ("2h", "Asia/Tokyo", utc(2026, 3, 28, 21, 30)),
        ("2h ago", "UTC", utc(2026, 3, 28, 21, 30)),
        (" 1d 12h AGO ", "UTC", utc(2026, 3, 27, 11, 30)),
        ("in 30m", "UTC", utc(2026, 3, 29)),
        ("today", "UTC", utc(2026, 3, 28)),
        ("today", "Europe/Rome", utc(2026, 3, 28, 23)),
        ("tomorrow", "Europe/Rome", utc(2026, 3, 29, 22)),  # that day has 23 hours
        ("Yesterday", "UTC", utc(2026, 3, 27)),
        ("yesterday 9:05", "Europe/Rome", utc(2026, 3, 28, 8, 5)),
        ("today 09:05:07", "UTC", utc(2026, 3, 28, 9, 5, 7)),
        ("90w", "UTC", NOW - timedelta(weeks=90)),
        ("90 y", "UTC", None),
        ("1970-01-01", "Asia/Tokyo", utc(1970, 1, 1)),
        ("5000w", "UTC", utc(1970, 1, 1)),
        ("9997-12-31T23:59-12:00", "UTC", utc(9997, 12, 31, 23, 59, 59, 999_000)),
    ],
)
def test_a_time(text, zone, expected):
    if expected is None:
        with pytest.raises(ValueError, match="is not a time, such as|unknown unit"):
            parse_time(text, zone=zone, now=NOW)
    else:
        found = parse_time(text, zone=zone, now=NOW)
        assert (found, found.tzinfo) == (expected, UTC)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "soon",
        "14:30",
        "2026-13-01",
        "2026-02-30",
        "yesterday 25:00",
        "today tomorrow",
        "2026",
        "1969-12-31",
        "9998-01-01",
        "-2h",
    ],
)
def test_what_is_no_time(text):
    with pytest.raises(ValueError, match="is not a time, such as 2026-03-28"):
        parse_time(text, zone="UTC", now=NOW)


@pytest.mark.parametrize("text", ["in", "in x", "in 2026-03-28", "in 5"])
def test_what_is_no_time_to_come(text):
    with pytest.raises(ValueError, match="is not a (time|length of time), such as"):
        parse_time(text, zone="UTC", now=NOW)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2h", NOW + timedelta(hours=2)),
        ("in 2h", NOW + timedelta(hours=2)),
        ("tomorrow", parse_time("tomorrow", zone="UTC", now=NOW)),
        (f"{NOW:%H:%M}", parse_time(f"tomorrow {NOW:%H:%M}", zone="UTC", now=NOW)),
        (f"{NOW + timedelta(minutes=1):%H:%M}", NOW.replace(second=0, microsecond=0) + timedelta(minutes=1)),
        ("2200-01-01", datetime(2200, 1, 1, tzinfo=UTC)),
    ],
)
def test_a_time_to_come(text, expected):
    assert parse_coming_time(text, zone="UTC", now=NOW) == expected


def test_what_is_no_coming_time_gets_examples_of_some():
    with pytest.raises(ValueError, match="'soon' is not a time, such as 2h, 09:00, tomorrow 09:00 or 2026-12-24T18:00"):
        parse_coming_time("soon", zone="UTC", now=NOW)


def test_a_day_is_written_out_in_its_zone():
    late = NOW
    assert write_out_day("tomorrow 9:00", zone="Europe/Rome", now=late) == "2026-03-30T09:00"
    assert write_out_day("tomorrow 09:00", zone="UTC", now=late) == "2026-03-29T09:00"
    for text in ("tomorrow", "2030-01-01 09:00", "soon"):
        assert write_out_day(text, zone="UTC", now=late) == text
    assert write_out_day("tomorrow 09:00", zone="no zone", now=late) == "tomorrow 09:00"


moments = st.datetimes(datetime(1971, 1, 1), datetime(2200, 1, 1), timezones=st.just(UTC))


@given(moments, st.sampled_from(["UTC", "Europe/Rome", "America/New_York", "Asia/Kathmandu"]))
def test_a_written_time_is_read_again(moment, zone):
    moment = moment.replace(microsecond=moment.microsecond // 1000 * 1000)
    assert parse_time(moment.astimezone(ZoneInfo(zone)).isoformat(), zone="Asia/Tokyo", now=NOW) == moment


@given(st.integers(0, 99), st.integers(0, 99), st.integers(0, 99))
def test_ago_and_in_are_as_far_from_now(days, hours, minutes):
    text = f"{days}d{hours}h{minutes}m"
    length = parse_duration(text)
    assert length == timedelta(days=days, hours=hours, minutes=minutes)
    assert NOW - parse_time(text, zone="UTC", now=NOW) == parse_time(f"in {text}", zone="UTC", now=NOW) - NOW == length


@given(st.text(max_size=30) | st.from_regex(r"(in )?(\d+ ?[a-z]{1,3} ?){1,3}( ago)?", fullmatch=True))
def test_any_text_is_a_time_or_refused_with_a_message_of_one_line(text):
    message = ""
    try:
        found = parse_time(text, zone="Europe/Rome", now=NOW)
    except ValueError as problem:
        found, message = NOW, str(problem)
    assert message.isprintable()
    assert len(message) < 250
    assert utc(1970, 1, 1) <= found < utc(9998, 1, 1)
