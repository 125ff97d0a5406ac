"""What is said of an offset: the sign of POSIX is explained only where a zone of that sign may have been meant."""

from __future__ import annotations

import pytest

from cronactors.errors import InvalidSchedule
from cronactors.schedules.zones import check_zone

ALWAYS = "Etc/GMT-2 is always 2 hours ahead of Greenwich, since Etc zones have the sign of POSIX"


@pytest.mark.parametrize(
    ("name", "end"),
    [
        ("+02:00", ALWAYS),
        ("+2", ALWAYS),
        ("UTC+2", f"{ALWAYS}: Etc/GMT+2 is 2 hours behind it"),
        ("GMT+02:00", f"{ALWAYS}: Etc/GMT+2 is 2 hours behind it"),
        ("-01", "Etc/GMT+1 is always 1 hour behind Greenwich, since Etc zones have the sign of POSIX"),
        ("UTC-1", "since Etc zones have the sign of POSIX: Etc/GMT-1 is 1 hour ahead of it"),
        (
            "UTC+14",
            "Etc/GMT-14 is always 14 hours ahead of Greenwich, since Etc zones have the sign of POSIX",
        ),  # no zone is 14 hours behind
        ("-15", "an offset does not include summer time, so a zone is a place"),
        ("UTC+0", "write UTC, or Europe/London for a place with summer time"),
    ],
)
def test_an_offset(name, end):
    with pytest.raises(InvalidSchedule) as caught:
        check_zone(name)
    assert str(caught.value).endswith(end)


def test_a_name_of_up_to_64_characters_is_looked_up():
    for length, why in ((64, "is not the name of an IANA time zone"), (65, "is too long: 65 characters, at most 64 are allowed")):
        with pytest.raises(InvalidSchedule, match=why):
            check_zone("x" * length)
