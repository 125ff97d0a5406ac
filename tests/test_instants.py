"""Instants: whole milliseconds inside, aware datetimes and text outside."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest

from cronactors.instants import LATEST, from_millis, iso_utc, to_millis

NOON = to_millis(datetime(2026, 3, 2, 12, tzinfo=UTC))


@pytest.mark.parametrize(
    ("instant", "text", "short"),
    [
        (NOON, "2026-03-02T12:00:00.000Z", "2026-03-02T12:00:00Z"),
        (NOON + 5, "2026-03-02T12:00:00.005Z", "2026-03-02T12:00:00.005Z"),
        (0, "1970-01-01T00:00:00.000Z", "1970-01-01T00:00:00Z"),
        (-1, "1969-12-31T23:59:59.999Z", "1969-12-31T23:59:59.999Z"),
        (LATEST, "9998-01-01T00:00:00.000Z", "9998-01-01T00:00:00Z"),
    ],
)
def test_an_instant_is_written_in_utc(instant, text, short):
    assert (iso_utc(instant), iso_utc(instant, short=True)) == (text, short)
    assert to_millis(datetime.fromisoformat(text)) == instant


def test_an_instant_is_the_same_in_every_zone():
    rome = datetime(2026, 3, 2, 13, tzinfo=timezone(timedelta(hours=1)))
    assert from_millis(to_millis(rome)) == rome
    assert to_millis(rome) == NOON


def test_a_datetime_without_a_zone_is_no_instant():
    with pytest.raises(ValueError, match="without a zone"):
        to_millis(datetime(2026, 3, 2))
