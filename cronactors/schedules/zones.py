"""Time zones: which names are valid, and the rules behind a name. Pure.

We read the rules from the package tzdata, so that a job runs at the same instants on every machine; the system's files are used
only for zones that tzdata does not have.
"""

from __future__ import annotations

import difflib
import struct
import zoneinfo
from datetime import datetime, timedelta, tzinfo
from functools import lru_cache
from importlib import resources

from cronactors.checks import text
from cronactors.errors import CronError, InvalidSchedule, shorten
from cronactors.schedules import zone_advice

_MAX_NAME = 64
_NOT_ZONES = frozenset({"localtime", "posixrules", "Factory"})
"""Files among the zones of a system that are not zones of the IANA database: the machine's own zone, or a placeholder."""


def check_zone(name: object, *, field: str = "timezone", error: type[CronError] = InvalidSchedule) -> str:
    """Check the name of a time zone: a key of the IANA database, in its exact spelling.

    Args:
        name: Such as ``"Europe/Rome"`` or ``"UTC"``. There is no name for the machine's own zone.
        field: The name of the argument in the message.
        error: The class to raise.

    Returns:
        The same name.

    Raises:
        CronError: An instance of ``error``: the name is not text, or no zone has it. The message proposes similar names; for an
            offset or an abbreviation it names places that use it.
    """
    checked = text(field, name, error, limit=_MAX_NAME)
    if not is_zone(checked):
        advice = zone_advice.advise(checked, is_zone, lambda zone, instant: utc_offset(load_zone(zone), instant))
        near = _similar_names(checked) if advice is None else []
        hint = f"; did you mean {' or '.join(near)}?" if near else f"; {advice.why}" if advice is not None else ""
        raise error(f"{field} {shorten(checked)} is not the name of an IANA time zone{hint}")
    return checked


@lru_cache(maxsize=1024)
def is_zone(name: str) -> bool:
    """Return whether a zone has this name. Reads each list of zones once."""
    # We look the name up in a list: whether a file of that name can be opened depends on how the file system treats case and
    # paths.
    if name not in _packaged_names() and name not in _system_names():
        return False
    try:
        load_zone(name)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError, struct.error):  # struct.error: a file that is cut short
        return False
    return True


@lru_cache(maxsize=1024)
def load_zone(zone: str) -> tzinfo:
    """Load the rules of a zone: from the package tzdata, or from the system if tzdata does not have the zone."""
    if zone not in _packaged_names():
        return zoneinfo.ZoneInfo(zone)
    with resources.files("tzdata").joinpath("zoneinfo", *zone.split("/")).open("rb") as file:
        return zoneinfo.ZoneInfo.from_file(file, key=zone)


@lru_cache(maxsize=1)
def _packaged_names() -> frozenset[str]:
    try:
        listed = resources.files("tzdata").joinpath("zones").read_text(encoding="ascii")
    except (ModuleNotFoundError, OSError):
        return frozenset()
    return frozenset(listed.split()) - _NOT_ZONES


@lru_cache(maxsize=1)
def _system_names() -> frozenset[str]:
    """List the system's zones. This opens some 600 files, so we only do it for names that tzdata does not have."""
    return frozenset(zoneinfo.available_timezones()) - _NOT_ZONES


def _similar_names(name: str) -> list[str]:
    """Find up to three zones whose names differ from ``name`` by case, by a missing continent or by a typing error."""
    wanted = name.casefold().replace(" ", "_")
    names = sorted(_packaged_names() or _system_names())
    exact = [zone for zone in names if wanted in (zone.casefold(), zone.casefold().rsplit("/", 1)[-1])]
    if exact:
        return exact[:3]
    folded = {zone.casefold(): zone for zone in names}
    cities = {zone.casefold().rsplit("/", 1)[-1]: zone for zone in names}
    # We don't propose a zone without a place: CEST is similar to EST, and another zone.
    close = [zone for zone in difflib.get_close_matches(wanted, folded, n=3, cutoff=0.75) if "/" in zone]
    return [folded[zone] for zone in close] or [
        cities[city] for city in difflib.get_close_matches(wanted, cities, n=3, cutoff=0.75)
    ]


def utc_offset(zone_rules: tzinfo, instant: int) -> int:
    """Find the offset from UTC (s) that a zone's rules give an instant."""
    found = datetime.fromtimestamp(instant, zone_rules).utcoffset() or timedelta()
    return found.days * 86_400 + found.seconds
