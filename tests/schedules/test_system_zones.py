"""Zones that the system has and the package tzdata has not: they are found, and a damaged file makes no zone."""

from __future__ import annotations

import importlib.resources
import struct
import zoneinfo
from datetime import UTC, datetime
from importlib import resources
from pathlib import Path

import pytest

from cronactors.errors import InvalidSchedule
from cronactors.schedules import clock_changes, zones
from cronactors.schedules.clock_changes import Segment, segment_at
from cronactors.schedules.fire_times import count_moments, latest_moment, next_moment
from cronactors.schedules.lint import lint
from cronactors.schedules.preview import preview
from cronactors.schedules.schedule import Cron
from cronactors.schedules.zones import check_zone, is_zone

ROME = resources.files("tzdata").joinpath("zoneinfo", "Europe", "Rome").read_bytes()


def forget():
    for function in (*vars(zones).values(), *vars(clock_changes).values()):
        if hasattr(function, "cache_clear"):
            function.cache_clear()


@pytest.fixture
def system(tmp_path):
    """The folder in which the system keeps its zones, empty at first."""
    forget()
    zoneinfo.reset_tzpath(to=[tmp_path])
    yield tmp_path
    zoneinfo.reset_tzpath(to=())
    zoneinfo.ZoneInfo.clear_cache()
    forget()


def tzif(*changes: tuple[int, int, int]) -> bytes:
    """A zone's file (RFC 8536) of changes ``(instant, offset before, offset after)``; after the last its offset holds for ever."""
    offsets = [changes[0][1], *(after for _, _, after in changes)]

    def block(form: str) -> bytes:
        counts = struct.pack(">4sc15x6l", b"TZif", b"2", 0, 0, 0, len(changes), len(offsets), 4)
        instants = struct.pack(f">{len(changes)}{form}", *(at for at, _, _ in changes))
        return (
            counts
            + instants
            + bytes(range(1, len(offsets)))
            + b"".join(struct.pack(">lbb", each, 0, 0) for each in offsets)
            + b"ABC\0"
        )

    hours = -offsets[-1] // 3600
    return block("l") + block("q") + f"\nABC{hours}\n".encode()


def test_a_zone_of_the_system_alone_is_good(system):
    (system / "Moon").mkdir()
    (system / "Moon" / "Base").write_bytes(ROME)
    assert check_zone("Moon/Base") == "Moon/Base"
    summer = 1_784_116_800
    assert segment_at("Moon/Base", summer) == segment_at("Europe/Rome", summer)
    assert segment_at("Moon/Base", summer).offset == 7200


@pytest.mark.parametrize("name", ["localtime", "posixrules", "Factory"])
def test_files_beside_the_zones_are_no_zones(system, name):
    (system / name).write_bytes(ROME)
    assert not is_zone(name)


@pytest.mark.parametrize("length", [4, 30, 60, 400])
def test_a_damaged_file_is_no_zone(system, length):
    (system / "Torn").write_bytes(ROME[:length])
    assert "Torn" in zoneinfo.available_timezones()
    assert not is_zone("Torn")
    with pytest.raises(InvalidSchedule, match="timezone 'Torn' is not the name of an IANA time zone"):
        check_zone("Torn")


@pytest.mark.parametrize("missing", [ModuleNotFoundError, FileNotFoundError])
def test_without_the_package_tzdata_the_system_names_the_zones(system, monkeypatch, missing):
    (system / "Europe").mkdir()
    (system / "Europe" / "Rome").write_bytes(ROME)

    def files(package: str) -> Path:
        raise missing(package)

    monkeypatch.setattr(importlib.resources, "files", files)
    assert check_zone("Europe/Rome") == "Europe/Rome"
    with pytest.raises(InvalidSchedule, match=r"did you mean Europe/Rome\?"):
        check_zone("europe/rome")
    with pytest.raises(InvalidSchedule):
        check_zone("Europe/Paris")


def test_a_change_on_the_border_between_two_blocks_is_found(system):
    border = 60 << 24  # the library remembers the changes of 2**24 s together
    (system / "Border").write_bytes(tzif((border, 3600, 7200)))
    assert [segment_at("Border", border + by).offset for by in (-1, 0, 1)] == [3600, 7200, 7200]
    before, after = segment_at("Border", border - 1), segment_at("Border", border)
    assert before == Segment(59 << 24, border, 3600)
    assert after == Segment(border, 61 << 24, 7200)


def test_changes_just_inside_both_ends_of_a_block_are_found(system):
    start, end = 60 << 24, 61 << 24
    (system / "Inside").write_bytes(tzif((start + 1, 0, 3600), (end - 1, 3600, -3600)))
    assert segment_at("Inside", start) == Segment(start, start + 1, 0)
    assert segment_at("Inside", start + 1) == Segment(start + 1, end - 1, 3600)
    assert segment_at("Inside", end - 1) == Segment(end - 1, end, -3600)
    assert segment_at("Inside", end).offset == -3600


def test_a_rhythm_that_is_shown_again_soon_after_a_border_is_counted_both_times(system):
    border = 60 << 24  # 2001-11-24T20:16:00Z: half an hour later the clock is set back by an hour
    (system / "Soon").write_bytes(tzif((border + 1_800, 0, -3_600)))
    minute = Cron("* 10 20 24 11 *")
    first = (border - 360) * 1000
    assert next_moment(minute, after=first - 1, zone="Soon", anchor=0) == first
    assert count_moments(minute, first=first, until=first + 7_200_000, zone="Soon", anchor=0) == 120
    assert next_moment(minute, after=first + 59_000, zone="Soon", anchor=0) == first + 3_600_000
    assert latest_moment(minute, until=first + 3_599_999, zone="Soon", anchor=0) == first + 59_000


def test_names_of_files_beside_the_zones_are_not_proposed():
    with pytest.raises(InvalidSchedule) as caught:
        check_zone("PosixRules")
    assert str(caught.value).endswith("'PosixRules' is not the name of an IANA time zone")


@pytest.mark.parametrize("after", [datetime(1960, 1, 1, tzinfo=UTC), datetime(1969, 12, 31, 23, 59, 59, tzinfo=UTC)])
def test_a_clock_change_at_the_first_instant_of_all_is_noted(system, after):
    (system / "Zero").write_bytes(tzif((0, 0, 3_600)))
    (first, second) = preview(Cron("* * * * *"), after=after, timezone="Zero", count=2)
    assert (first.at, first.note) == (datetime(1970, 1, 1, tzinfo=UTC), "00:00 to 01:00 does not exist: skipped")
    assert (second.at, second.note) == (datetime(1970, 1, 1, 0, 1, tzinfo=UTC), None)


@pytest.mark.parametrize(
    "start", [datetime(2026, 1, 1, tzinfo=UTC), datetime(2031, 7, 5, 13, 57, 1, tzinfo=UTC), datetime(2000, 2, 29, tzinfo=UTC)]
)
@pytest.mark.parametrize(("late", "found"), [(-1, ["skipped-time"]), (0, []), (3_600, [])])
def test_clock_changes_of_five_years_are_looked_for(system, start, late, found):
    change = int(start.timestamp()) + 5 * 366 * 86_400 + late
    (system / "Late").write_bytes(tzif((change, 0, 7_200)))
    skipped = datetime.fromtimestamp(change + 3_600, UTC)  # local time was UTC until then
    minute = Cron(f"{skipped.minute} {skipped.hour} * * *")
    assert [finding.rule for finding in lint(minute, "Late", after=start)] == found


@pytest.mark.parametrize("change", [1_000_000_000, 1_000_000_001])
def test_a_skipped_time_is_noted_at_the_very_instant_of_the_change(system, change):
    (system / "Exact").write_bytes(tzif((change, 0, 3_600)))
    before = datetime.fromtimestamp(change - 2, UTC)
    notes = [each.note for each in preview(Cron("* * * * * *"), after=before, timezone="Exact", count=3)]
    assert (notes[0], notes[2]) == (None, None)
    assert notes[1] is not None
    assert notes[1].endswith("does not exist: skipped")
