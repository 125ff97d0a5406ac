"""The times that users ask about, and lengths of time in words."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from cronactors.cli.living import span
from cronactors.cli.moments import read_when
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
    ("length", "text"),
    [(0, "0.0 s"), (-5, "0.0 s"), (9_999, "9.9 s"), (10_000, "10 s"), (59_999, "59 s"), (60_000, "1 min"), (150_000, "2 min 30 s"),
     (3_600_000, "1 h"), (19_200_000, "5 h 20 min"), (172_800_000, "2 days")],
)  # fmt: skip
def test_lengths_of_time(length: int, text: str) -> None:
    assert span(length) == text
