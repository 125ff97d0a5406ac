"""Clock changes: each one is found, and local times map to instants across them."""

from __future__ import annotations

import struct
import zoneinfo
from datetime import UTC, datetime, timedelta
from importlib import resources
from itertools import pairwise
from pathlib import Path

import pytest

from cronactors.schedules.clock_changes import (
    clock_changes,
    instant_reaching,
    is_skipped,
    latest_local_shown,
    segment_at,
    shown_twice,
)
from tests import oracle

EPOCH = datetime(1970, 1, 1)
ROME = "Europe/Rome"
ALL_ZONES = sorted(zoneinfo.available_timezones() - {"localtime"})


def local(text):
    return int((datetime.fromisoformat(text) - EPOCH).total_seconds())


def utc(text):
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp())


def transitions(zone):
    """Read the clock changes in a zone's file (RFC 8536, second block): instant, offset before, offset after."""
    for folder in zoneinfo.TZPATH:
        path = Path(folder, zone)
        if path.is_file():
            data = path.read_bytes()
            break
    else:
        data = resources.files("tzdata").joinpath("zoneinfo", *zone.split("/")).read_bytes()

    def counts(at: int) -> tuple[int, ...]:
        return struct.unpack(">6l", data[at + 20 : at + 44])

    isut, isstd, leap, times, types, chars = counts(0)
    second = 44 + times * 5 + types * 6 + chars + leap * 8 + isstd + isut
    _, _, _, times, types, _ = counts(second)
    at = second + 44
    instants = struct.unpack(f">{times}q", data[at : at + 8 * times])
    kinds = data[at + 8 * times : at + 9 * times]
    at += 9 * times
    offsets = [struct.unpack(">l", data[at + 6 * n : at + 6 * n + 4])[0] for n in range(types)]
    found, before = [], offsets[0]
    for instant, kind in zip(instants, kinds, strict=True):
        if offsets[kind] != before:
            found.append((instant, before, offsets[kind]))
        before = offsets[kind]
    return found


def test_no_zone_changes_its_offset_twice_in_a_few_days():
    # The package compares offsets every 3.03 days, and could miss two changes between.
    shortest = min(
        (later[0] - one[0], zone)
        for zone in ALL_ZONES
        for one, later in pairwise(transitions(zone))
        if one[0] > -86400 * 400
    )  # fmt: skip
    assert shortest[0] > 6 * 86400, shortest


@pytest.mark.parametrize(
    "zone",
    ["Europe/Rome", "Pacific/Apia", "Australia/Lord_Howe", "Africa/Casablanca", "Africa/Monrovia", "America/Recife", "Asia/Gaza",
     "Antarctica/Casey", "Antarctica/Vostok", "Pacific/Kwajalein", "Europe/Dublin", "America/Argentina/Tucuman", "UTC"],
)  # fmt: skip
def test_every_change_in_a_zone_file_is_found(zone):
    for instant, before, after in transitions(zone):
        if 0 <= instant < utc("2100-01-01"):
            assert segment_at(zone, instant - 1).offset == before
            assert segment_at(zone, instant - 1).end == instant
            assert segment_at(zone, instant).offset == after
            assert segment_at(zone, instant).start == instant


@pytest.mark.parametrize("zone", ["Europe/Rome", "America/Sao_Paulo", "Antarctica/Troll"])
def test_segments_cover_all_instants(zone):
    segment = segment_at(zone, utc("2025-01-01"))
    while segment.start < utc("2031-01-01"):
        assert segment.start < segment.end
        for instant in (segment.start, (segment.start + segment.end) // 2, segment.end - 1):
            assert segment_at(zone, instant) == segment
            offset = datetime.fromtimestamp(instant, zoneinfo.ZoneInfo(zone)).utcoffset()
            assert offset == timedelta(seconds=segment.offset)
        following = segment_at(zone, segment.end)
        assert following.start == segment.end
        segment = following


@pytest.mark.parametrize(
    ("zone", "wall", "expected", "skipped"),
    [
        ("Europe/Rome", "2026-07-01 12:00:00", "2026-07-01 10:00:00", False),
        ("Europe/Rome", "2026-03-29 01:59:59", "2026-03-29 00:59:59", False),
        ("Europe/Rome", "2026-03-29 02:00:00", "2026-03-29 01:00:00", True),
        ("Europe/Rome", "2026-03-29 02:59:59", "2026-03-29 01:00:00", True),
        ("Europe/Rome", "2026-03-29 03:00:00", "2026-03-29 01:00:00", False),
        ("Europe/Rome", "2026-10-25 01:59:59", "2026-10-24 23:59:59", False),
        ("Europe/Rome", "2026-10-25 02:00:00", "2026-10-25 00:00:00", False),
        ("Europe/Rome", "2026-10-25 02:59:59", "2026-10-25 00:59:59", False),
        ("Europe/Rome", "2026-10-25 03:00:00", "2026-10-25 02:00:00", False),
        ("Pacific/Apia", "2011-12-30 00:00:00", "2011-12-30 10:00:00", True),
        ("Pacific/Apia", "2011-12-30 23:59:59", "2011-12-30 10:00:00", True),
        ("Pacific/Apia", "2011-12-31 00:00:00", "2011-12-30 10:00:00", False),
        ("Australia/Lord_Howe", "2026-10-04 02:29:59", "2026-10-03 15:30:00", True),
        ("Africa/Monrovia", "1972-01-07 00:10:00", "1972-01-07 00:44:30", True),
        ("Pacific/Kiritimati", "9997-12-31 23:59:59", "9997-12-31 09:59:59", False),
        ("Etc/GMT+12", "1970-01-01 00:00:00", "1970-01-01 12:00:00", False),
    ],
)
def test_instant_reaching_a_local_time(zone, wall, expected, skipped):
    assert instant_reaching(zone, local(wall)) == utc(expected)
    assert is_skipped(zone, local(wall)) is skipped


def test_the_latest_local_time_shown_stays_while_the_clock_catches_up():
    change = utc("2026-10-25 01:00")
    assert latest_local_shown("Europe/Rome", change - 1) == local("2026-10-25 02:59:59")
    for after in (0, 1, 1800, 3599):
        assert latest_local_shown("Europe/Rome", change + after) == local("2026-10-25 02:59:59")
    assert latest_local_shown("Europe/Rome", change + 3600) == local("2026-10-25 03:00:00")
    assert latest_local_shown("Europe/Rome", change + 3601) == local("2026-10-25 03:00:01")


@pytest.mark.parametrize(
    ("zone", "year"), [(ROME, 2026), ("Africa/Casablanca", 2026), ("Australia/Lord_Howe", 2026), ("UTC", 2026)]
)
def test_clock_changes_of_a_year_are_those_of_brute_force(zone, year):
    start, end = (int(datetime(by, 1, 1, tzinfo=UTC).timestamp()) for by in (year, year + 1))
    found = list(clock_changes(zone, start, end))
    assert [change.at for change in found] == oracle.changes(zone, year)
    for change in found:
        forward = change.after > change.before
        assert (change.skipped[0] < change.skipped[1]) == forward
        assert (change.repeated[0] < change.repeated[1]) != forward
        assert (shown_twice(zone, change.at) is None) == forward
        assert (shown_twice(zone, change.at - 1) is None) == forward
