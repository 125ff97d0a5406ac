"""Zones that the system has and the package tzdata has not: they are found, and a damaged file makes no zone."""

from __future__ import annotations

import importlib.resources
import struct
import zoneinfo
from importlib import resources
from pathlib import Path

import pytest

from cronactors.errors import InvalidSchedule
from cronactors.schedules import zones
from cronactors.schedules.clock_changes import Segment, segment_at
from cronactors.schedules.zones import check_zone, is_zone

ROME = resources.files("tzdata").joinpath("zoneinfo", "Europe", "Rome").read_bytes()


def forget():
    for function in vars(zones).values():
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
