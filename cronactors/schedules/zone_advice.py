"""Recognises offsets, abbreviations and POSIX rules in the name of an unknown time zone, and proposes zones. Pure.

We never translate an offset or an abbreviation silently. To most people ``GMT+2`` means two hours ahead of Greenwich, while the
IANA database gives its ``Etc`` zones the sign of POSIX: ``Etc/GMT+2`` is two hours behind Greenwich (see the file ``etcetera`` of
tzdata). And an offset does not describe summer time: in July ``+02:00`` is Berlin, in January it is Athens.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType

import attrs

_OFFSET = re.compile(r"(?:etc/)?(utc|gmt|ut|z)?\s*([+\-\u2212])\s*([0-9]{1,2})(?::?([0-9]{2}))?", re.IGNORECASE)
_POSIX_SIGN = re.compile(r"etc/gmt\s*([+-])0?([0-9]{1,2})", re.IGNORECASE)
_POSIX_RULE = re.compile(r"([A-Z]{3,5})[+-]?[0-9]{1,2}(?::[0-9]{2})?(?:[A-Z]{3,5}.*)?", re.IGNORECASE | re.DOTALL)
_HOUR = 3600
_WINTER, _SUMMER = 1_768_478_400, 1_784_116_800
"""Instants (s) in mid-January and mid-July 2026, at which we compare the offsets of places."""
_MOST_OFFSET = 14 * _HOUR
_OWN_ZONE = frozenset({"local", "localtime", "system", "systemdefault", "default"})
_UTC = frozenset({"z", "utc0", "gmt0", "ut"})

# One place for each offset of a continent, with the most people first.
_PLACES = (
    "Pacific/Honolulu", "America/Anchorage", "America/Los_Angeles", "America/Denver", "America/Phoenix", "America/Chicago",
    "America/Mexico_City", "America/New_York", "America/Bogota", "America/Halifax", "America/Caracas", "America/St_Johns",
    "America/Sao_Paulo", "America/Noronha", "Atlantic/Azores", "Atlantic/Cape_Verde", "Europe/London", "Africa/Abidjan",
    "Europe/Berlin", "Africa/Lagos", "Europe/Athens", "Africa/Johannesburg", "Europe/Istanbul", "Africa/Nairobi", "Asia/Tehran",
    "Asia/Dubai", "Asia/Kabul", "Asia/Karachi", "Asia/Kolkata", "Asia/Kathmandu", "Asia/Dhaka", "Asia/Yangon", "Asia/Bangkok",
    "Asia/Shanghai", "Australia/Eucla", "Asia/Tokyo", "Australia/Adelaide", "Australia/Darwin", "Australia/Sydney",
    "Australia/Brisbane", "Australia/Lord_Howe", "Pacific/Guadalcanal", "Pacific/Auckland", "Pacific/Fiji", "Pacific/Chatham",
    "Pacific/Apia", "Pacific/Kiritimati", "Pacific/Pago_Pago", "Pacific/Marquesas",
)  # fmt: skip

_ABBREVIATIONS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "ACDT": ("Australia/Adelaide",), "ACST": ("Australia/Adelaide", "Australia/Darwin"), "AEDT": ("Australia/Sydney",),
        "AEST": ("Australia/Sydney", "Australia/Brisbane"), "AKDT": ("America/Anchorage",), "AKST": ("America/Anchorage",),
        "ART": ("America/Argentina/Buenos_Aires",), "AST": ("America/Halifax", "America/Puerto_Rico", "Asia/Riyadh"),
        "ADT": ("America/Halifax",), "AWST": ("Australia/Perth",), "BRT": ("America/Sao_Paulo",),
        "BST": ("Europe/London", "Asia/Dhaka"), "CAT": ("Africa/Maputo",), "CDT": ("America/Chicago", "America/Havana"),
        "CEST": ("Europe/Berlin", "Europe/Paris", "Europe/Rome"), "CLT": ("America/Santiago",), "COT": ("America/Bogota",),
        "CST": ("America/Chicago", "Asia/Shanghai", "America/Havana"), "CT": ("America/Chicago",), "EAT": ("Africa/Nairobi",),
        "EDT": ("America/New_York",), "EEST": ("Europe/Athens", "Europe/Helsinki", "Europe/Kyiv"), "ET": ("America/New_York",),
        "GST": ("Asia/Dubai", "Atlantic/South_Georgia"), "HKT": ("Asia/Hong_Kong",), "ICT": ("Asia/Bangkok",),
        "IDT": ("Asia/Jerusalem",), "IRST": ("Asia/Tehran",), "IST": ("Asia/Kolkata", "Asia/Jerusalem", "Europe/Dublin"),
        "JST": ("Asia/Tokyo",), "KST": ("Asia/Seoul",), "MDT": ("America/Denver",), "MESZ": ("Europe/Berlin",),
        "MEZ": ("Europe/Berlin",), "MSK": ("Europe/Moscow",), "MT": ("America/Denver",), "NDT": ("America/St_Johns",),
        "NST": ("America/St_Johns",), "NZDT": ("Pacific/Auckland",), "NZST": ("Pacific/Auckland",), "PDT": ("America/Los_Angeles",),
        "PHT": ("Asia/Manila",), "PKT": ("Asia/Karachi",), "PST": ("America/Los_Angeles", "Asia/Manila"),
        "PT": ("America/Los_Angeles",), "SAST": ("Africa/Johannesburg",), "SGT": ("Asia/Singapore",), "SST": ("Pacific/Pago_Pago",),
        "TRT": ("Europe/Istanbul",), "WAT": ("Africa/Lagos",), "WEST": ("Europe/Lisbon",), "WIB": ("Asia/Jakarta",),
    }
)  # fmt: skip

_COUNTRIES: Mapping[str, str] = MappingProxyType(
    {
        "America/Chicago": "USA", "America/Halifax": "Canada", "America/Havana": "Cuba", "America/Los_Angeles": "USA",
        "America/Puerto_Rico": "Puerto Rico", "Asia/Dhaka": "Bangladesh", "Asia/Dubai": "Gulf", "Asia/Jerusalem": "Israel",
        "Asia/Kolkata": "India", "Asia/Manila": "Philippines", "Asia/Riyadh": "Saudi Arabia", "Asia/Shanghai": "China",
        "Europe/Dublin": "Ireland", "Europe/London": "United Kingdom",
    }
)  # fmt: skip


@attrs.frozen
class ZoneAdvice:
    """The mistake in a name, and zones to use instead.

    Args:
        why: The mistake and the correction, in words.
        zones: The zones that ``why`` proposes.
    """

    why: str
    zones: tuple[str, ...] = ()


def advise(name: str, is_zone: Callable[[str], bool], offset_at: Callable[[str, int], int]) -> ZoneAdvice | None:
    """Recognise an offset, an abbreviation, a POSIX rule, or a name for the machine's own zone.

    Args:
        name: The unknown name.
        is_zone: Returns whether a zone has a name.
        offset_at: Returns the offset from UTC (s) of a zone at an instant (s since 1970 UTC).

    Returns:
        The advice; None if the name is something else, such as a zone with a typing error.
    """
    name = name.strip()
    if name.casefold() in _UTC:
        return ZoneAdvice("write UTC", ("UTC",))
    if name.casefold() in _OWN_ZONE:
        return ZoneAdvice("the machine's own zone has no name here: write the place, such as Europe/Rome", ("Europe/Rome",))
    return _advise_on_offset(name, is_zone, offset_at) or _advise_on_abbreviation(name, is_zone)


def _advise_on_offset(name: str, is_zone: Callable[[str], bool], offset_at: Callable[[str, int], int]) -> ZoneAdvice | None:
    """Recognise ``Etc/GMT+05``, ``UTC+2`` and ``-03:30``."""
    posix = _POSIX_SIGN.fullmatch(name)
    if posix is not None and is_zone(zone := f"Etc/GMT{posix[1]}{posix[2]}"):
        side = "behind" if posix[1] == "+" else "ahead of"
        return ZoneAdvice(f"did you mean {zone}? It is {_hours(int(posix[2]))} {side} Greenwich, with the sign of POSIX", (zone,))
    offset = _OFFSET.fullmatch(name)
    if offset is not None:
        seconds = int(offset[3]) * _HOUR + int(offset[4] or 0) * 60
        return _places_at(seconds if offset[2] == "+" else -seconds, is_zone, offset_at, signed=offset[1] is not None)
    return None


def _advise_on_abbreviation(name: str, is_zone: Callable[[str], bool]) -> ZoneAdvice | None:
    """Recognise ``PST``, and rules such as ``PST8`` and ``CET-1CEST,M3.5.0``."""
    rule = _POSIX_RULE.fullmatch(name)
    known = _places_of(name, is_zone) or (_places_of(rule[1], is_zone) if rule is not None else ())
    if known:
        meant = "one of them" if len(known) > 1 else "the place"
        named = _listed([f"{zone} ({_COUNTRIES[zone]})" if zone in _COUNTRIES and len(known) > 1 else zone for zone in known])
        return ZoneAdvice(f"an abbreviation is not a zone; it is used in {named}: write {meant}", known)
    if rule is not None:
        return ZoneAdvice("a POSIX rule is not a zone: write the place, such as Europe/Rome", ("Europe/Rome",))
    return None


def _places_of(abbreviation: str, is_zone: Callable[[str], bool]) -> tuple[str, ...]:
    return tuple(filter(is_zone, _ABBREVIATIONS.get(abbreviation.upper(), ())))


def _places_at(seconds: int, is_zone: Callable[[str], bool], offset_at: Callable[[str, int], int], *, signed: bool) -> ZoneAdvice:
    """Name places that have an offset (s), and the zone that always has it.

    ``signed`` says that the offset was written after GMT or UTC, so that we also warn of the ``Etc`` zone with the opposite sign.
    """
    if seconds == 0:
        return ZoneAdvice(
            "write UTC, or Europe/London for a place with summer time", tuple(filter(is_zone, ("UTC", "Europe/London")))
        )
    places: dict[str, str] = {}
    for place in filter(is_zone, _PLACES):
        match offset_at(place, _WINTER) == seconds, offset_at(place, _SUMMER) == seconds:
            case True, True:
                places.setdefault("all year", place)
            case True, False:
                places.setdefault("in January", place)
            case False, True:
                places.setdefault("in July", place)
            case _:
                pass
    parts = [f"{place} ({when})" for when, place in places.items()]
    why = "an offset does not include summer time, so a zone is a place"
    why += f", such as {_listed(parts)}" if parts else ""
    zones = tuple(places.values())
    fixed = f"Etc/GMT{'-' if seconds > 0 else '+'}{abs(seconds) // _HOUR}"
    if abs(seconds) <= _MOST_OFFSET and seconds % _HOUR == 0 and is_zone(fixed):
        hours = _hours(abs(seconds) // _HOUR)
        side, opposite = ("ahead of", "behind") if seconds > 0 else ("behind", "ahead of")
        why += f"; {fixed} is always {hours} {side} Greenwich, since Etc zones have the sign of POSIX"
        other = f"Etc/GMT{'+' if seconds > 0 else '-'}{abs(seconds) // _HOUR}"
        why += f": {other} is {hours} {opposite} it" if signed and is_zone(other) else ""
        zones += (fixed,)
    return ZoneAdvice(why, zones)


def _hours(number: int) -> str:
    return "1 hour" if number == 1 else f"{number} hours"


def _listed(parts: Iterable[str]) -> str:
    *most, last = parts
    return f"{', '.join(most)} or {last}" if most else last
