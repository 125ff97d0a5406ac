"""The names of zones: valid ones, and the messages for unknown ones."""

from __future__ import annotations

import zoneinfo
from datetime import UTC, datetime
from importlib import resources

import pytest

from cronactors.errors import InvalidJob, InvalidSchedule
from cronactors.schedules.zones import check_zone

EPOCH = datetime(1970, 1, 1)
ALL_ZONES = sorted(zoneinfo.available_timezones() - {"localtime"})


@pytest.mark.parametrize(
    "zone", ["UTC", "Europe/Rome", "America/Argentina/Buenos_Aires", "Etc/GMT+12", "EST5EDT", "US/Eastern", "GMT0"]
)
def test_a_name_of_the_iana_database_is_accepted(zone):
    assert check_zone(zone, error=InvalidJob) == zone


def test_every_zone_of_tzdata_is_accepted():
    listed = resources.files("tzdata").joinpath("zones").read_text().split()
    for zone in listed:
        if zone != "Factory":
            assert check_zone(zone, error=InvalidJob) == zone


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("europe/rome", "did you mean Europe/Rome?"),
        ("Rome", "did you mean Europe/Rome?"),
        ("new york", "did you mean America/New_York?"),
        ("Europe/Rom", "did you mean Europe/Rome"),
        ("Eurpoe/Rome", "did you mean Europe/Rome"),
        ("utc", "UTC"),
        ("Europe/Rome ", ""), ("Europe//Rome", ""), ("Europe", ""), ("../Europe/Rome", ""), ("Europe/../Europe/Rome", ""),
        ("/etc/localtime", ""), ("/usr/share/zoneinfo/Europe/Rome", ""), ("localtime", ""), ("posixrules", ""), ("Factory", ""),
        ("posix/Europe/Rome", ""), ("right/Europe/Rome", ""), ("zone.tab", ""), ("tzdata.zi", ""), (".", ""), ("..", ""), ("~", ""),
        ("local", ""), ("+02:00", ""), ("UTC+2", ""), ("CEST", ""), ("Europe/R\u00f4me", ""), ("Europe\\Rome", ""), ("\x7f\n", ""),
    ],
)  # fmt: skip
def test_an_unknown_name_is_refused_with_similar_ones(name, hint):
    with pytest.raises(InvalidJob) as caught:
        check_zone(name, error=InvalidJob)
    message = str(caught.value)
    assert message.startswith("timezone '")
    assert "is not the name of an IANA time zone" in message
    assert hint in message
    assert message.isprintable()


@pytest.mark.parametrize(
    ("name", "why"),
    [
        (None, "zone must be text, not NoneType"),
        (5, "zone must be text, not int (5)"),
        (b"UTC", "zone must be text, not bytes"),
        (zoneinfo.ZoneInfo("Europe/Rome"), "zone must be text, not ZoneInfo"),
        (UTC, "zone must be text"),
        ("", "zone must not be empty"),
        ("Europe/Rome\0", "zone contains a NUL"),
        ("\ud800", "lone surrogate"),
        ("x" * 65, "zone is too long: 65 characters"),
        ("x" * 10**6, "too long"),
    ],
    ids=lambda value: ascii(value)[:30],
)
def test_other_values_are_refused(name, why):
    with pytest.raises(InvalidSchedule, match=r"^zone ") as caught:
        check_zone(name, field="zone", error=InvalidSchedule)
    assert why in str(caught.value)
