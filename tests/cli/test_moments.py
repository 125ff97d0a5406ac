"""The times that users ask about, and lengths of time in words."""

from __future__ import annotations

from datetime import UTC, datetime

import click
import pytest

from cronactors.cli.amounts import length, span
from cronactors.cli.moments import read_when
from cronactors.errors import InvalidSchedule
from cronactors.instants import from_millis, to_millis


@pytest.mark.parametrize(
    ("text", "at", "within"),
    [
        ("02:30", "2026-03-09T02:30", 60_000),
        ("2:30:05", "2026-03-09T02:30:05", 1_000),
        ("23:00", "2026-03-08T23:00", 60_000),
        ("12:00", "2026-03-09T12:00", 60_000),
        ("2026-03-01 02:30", "2026-03-01T02:30", 60_000),
        ("2026-03-01T02:30:05+02:00", "2026-03-01T00:30:05", 1_000),
        ("2h", "2026-03-09T10:00", 1),
        ("3d ago", "2026-03-06T12:00", 1),
        ("2026-03-01", "2026-03-01", 86_400_000),
    ],
)
def test_times(text: str, at: str, within: int) -> None:
    when = read_when(text)
    assert when is not None
    asked = when("UTC", to_millis(datetime(2026, 3, 9, 12, tzinfo=UTC)))
    assert (from_millis(asked.at), asked.within) == (datetime.fromisoformat(at).replace(tzinfo=UTC), within)


@pytest.mark.parametrize(
    ("text", "at", "within"),
    [
        ("2026-10-25 02:30:00 CEST", "2026-10-25T00:30", 60_000),
        ("2026-10-25 02:30:00 CET", "2026-10-25T01:30", 60_000),
        ("2026-10-25 02:30:05 UTC", "2026-10-25T02:30:05", 1_000),
        ("Sun 2026-10-25 02:30:00 +01:00", "2026-10-25T01:30", 60_000),
        ("2026-10-25 02:30 -03", "2026-10-25T05:30", 60_000),
        ("2026-10-25T00:30:00.000Z", "2026-10-25T00:30", 60_000),
    ],
)
def test_times_as_tables_write_them(text: str, at: str, within: int) -> None:
    when = read_when(text)
    assert when is not None
    asked = when("Europe/Rome", 0)
    assert (from_millis(asked.at), asked.within) == (datetime.fromisoformat(at).replace(tzinfo=UTC), within)


def test_the_name_of_another_offset() -> None:
    when = read_when("2026-07-01 02:30:00 CET")
    assert when is not None
    with pytest.raises(InvalidSchedule, match="offset of Europe/Rome is not CET at that time"):
        when("Europe/Rome", 0)


@pytest.mark.parametrize("text", ["2026-13-01 02:30:00 CET", "2026-07-01 02:30 +99", "Foo 2026-07-01 02:30 +:::", "noon CET"])
def test_what_is_no_time(text: str) -> None:
    with pytest.raises(click.BadParameter, match="is not a time"):
        read_when(text)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0.00 s"), (-1.5, "-1.50 s"), (9.994, "9.99 s"), (9.996, "10 s"), (59.4, "59 s"), (59.6, "1 min"), (125, "2 min 5 s"),
        (3599.4, "59 min 59 s"), (3599.6, "1 h"), (12_000, "3 h 20 min"), (86_400, "1 d"), (349_200, "4 d 1 h"), (1e8, "1,157 d 9 h"),
    ],
)  # fmt: skip
def test_lengths_of_time(seconds: float, text: str) -> None:
    assert length(seconds) == text


@pytest.mark.parametrize(("millis", "text"), [(-5, "0.00 s"), (12, "0.01 s"), (150_000, "2 min 30 s")])
def test_spans(millis: int, text: str) -> None:
    assert span(millis) == text
