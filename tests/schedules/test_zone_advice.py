"""Messages for names that are not zones: offsets, abbreviations, POSIX rules."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings, strategies as st

from cronactors.errors import CronError, InvalidSchedule
from cronactors.schedules.zones import check_zone

PLACES = "an offset does not include summer time, so a zone is a place, such as "
ZONES = [
    ("GMT+2", f"{PLACES}Europe/Berlin (in July), Europe/Athens (in January) or Africa/Johannesburg (all year); Etc/GMT-2 is"),
    ("GMT+2", "Etc/GMT-2 is always 2 hours ahead of Greenwich, since Etc zones have the sign of POSIX: Etc/GMT+2 is 2 hours behind it"),
    ("UTC+2", "Etc/GMT-2 is always 2 hours ahead of Greenwich"),
    ("utc +02:00", "Etc/GMT-2 is always 2 hours ahead of Greenwich"),
    ("+02:00", "Etc/GMT-2 is always 2 hours ahead of Greenwich, since Etc zones have the sign of POSIX"),
    ("+0200", "Etc/GMT-2 is always"),
    ("-5", "America/Chicago (in July), America/New_York (in January) or America/Bogota (all year); Etc/GMT+5 is always 5 hours behind"),
    ("GMT-1", "Etc/GMT+1 is always 1 hour behind Greenwich, since Etc zones have the sign of POSIX: Etc/GMT-1 is 1 hour ahead of it"),
    ("GMT\u22123", "Etc/GMT+3 is always 3 hours behind Greenwich"),
    ("GMT+14", "Pacific/Kiritimati (all year); Etc/GMT-14 is always 14 hours ahead of Greenwich, since Etc zones have the sign of POSIX"),
    ("+05:30", f"{PLACES}Asia/Kolkata (all year)"),
    ("-03:30", f"{PLACES}America/St_Johns (in January)"),
    ("+13:37", "an offset does not include summer time, so a zone is a place"),
    ("UTC-99", "an offset does not include summer time, so a zone is a place"),
    ("Etc/GMT+05", "did you mean Etc/GMT+5? It is 5 hours behind Greenwich, with the sign of POSIX"),
    ("Z", "; write UTC"),
    ("UTC+00:00", "; write UTC, or Europe/London for a place with summer time"),
    ("PST", "it is used in America/Los_Angeles (USA) or Asia/Manila (Philippines): write one of them"),
    ("IST", "it is used in Asia/Kolkata (India), Asia/Jerusalem (Israel) or Europe/Dublin (Ireland): write one of them"),
    ("CEST", "it is used in Europe/Berlin, Europe/Paris or Europe/Rome: write one of them"),
    ("edt", "it is used in America/New_York: write the place"),
    ("PST8", "America/Los_Angeles (USA)"),
    ("XYZ-1", "a POSIX rule is not a zone: write the place"),
    ("local", "the machine's own zone has no name here"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "advice"), ZONES)
def test_a_name_that_is_not_a_zone_gets_advice(name: str, advice: str) -> None:
    with pytest.raises(InvalidSchedule) as caught:
        check_zone(name)
    message = str(caught.value)
    assert advice in message
    check_zones(message)


def check_zones(message: str) -> None:
    """Check that every zone in a message exists."""
    assert len(message) <= 500
    assert message.isprintable()
    for zone in re.findall(r"[A-Z][A-Za-z]+/[A-Za-z_/]+[A-Za-z_]|Etc/GMT[-+][0-9]+", message.partition("IANA time zone")[2]):
        check_zone(zone)


@pytest.mark.parametrize("prefix", ["GMT", "UTC", ""])
@pytest.mark.parametrize("hours", [*range(-12, 0), *range(1, 15)])
def test_a_fixed_zone_has_the_offset_that_was_written(prefix: str, hours: int) -> None:
    with pytest.raises(InvalidSchedule) as caught:
        check_zone(f"{prefix}{hours:+}")
    message = str(caught.value)
    check_zones(message)
    fixed = re.search(r"(Etc/GMT[-+][0-9]+) is always", message)
    assert fixed is not None
    for zone, months in (
        (fixed[1], (1, 7)),
        *(
            (name, {"all year": (1, 7), "in July": (7,), "in January": (1,)}[when])
            for name, when in re.findall(r"(\S+) \(([^)]+)\)", message)
        ),
    ):
        for month in months:
            offset = datetime(2026, month, 15, tzinfo=UTC).astimezone(ZoneInfo(zone)).utcoffset()
            assert offset is not None
            assert offset.total_seconds() == hours * 3600, zone


@settings(max_examples=500, deadline=None, derandomize=True)
@given(
    st.one_of(
        st.text(max_size=20), st.text("GMTUCZ+-0123456789:ESPI/tc ", max_size=10), st.from_regex(r"\A[A-Z]{2,4}[+-]?[0-9]{0,2}\Z")
    )
)
def test_any_name_is_a_zone_or_refused_with_valid_proposals(name: str) -> None:
    try:
        check_zone(name)
    except CronError as refused:
        check_zones(str(refused))
