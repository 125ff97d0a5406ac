"""The grammar of cron expressions: text becomes sorted times of day and a rule for days. Zone-less and pure.

Five fields as in POSIX crontab, or six with seconds first: seconds, minute, hour, day of month, month, day of week. On top of
POSIX come names, steps and ``@daily`` (Debian crontab(5)) and the special days ``L``, ``15W``, ``L5``, ``5#2``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from types import MappingProxyType

import attrs

from cronactors import checks
from cronactors.errors import InvalidSchedule, shorten
from cronactors.schedules import cron_advice
from cronactors.schedules.calendar import DayField, day_rule
from cronactors.schedules.local_times import LocalTimes

MAX_EXPRESSION = 500
"""Longest cron expression, in characters."""
MAX_SPECIAL_DAYS = 10
"""Most days of an expression that only a calendar knows, such as ``15W``: each costs some 2 ms when it is first seen."""

_MAX_PROPOSAL = 120
_NO_NAMES: Mapping[str, int] = MappingProxyType({})
_MONTH_NAMES = {
    name: number
    for number, name in enumerate(("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"), 1)
}
_WEEKDAY_NAMES = {name: number for number, name in enumerate(("sun", "mon", "tue", "wed", "thu", "fri", "sat"))}
_LONG_NAMES = frozenset(
    {
        "monday", "tues", "tuesday", "wednesday", "thur", "thurs", "thursday", "friday", "saturday", "sunday", "january", "february",
        "march", "april", "june", "july", "august", "sept", "september", "october", "november", "december",
    }
)  # fmt: skip
_ALIASES = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}
_ITEM = re.compile(r"(?P<low>\*|[0-9]+|[a-z]{3})(?:-(?P<high>[0-9]+|[a-z]{3}))?(?:/(?P<step>[0-9]+))?")
_WEEKDAY_OF_MONTH = re.compile(r"([0-9]+|[a-z]{3})#([0-9]+)")
_RANDOM = re.compile(r"[hr](?:[(/].*)?")


@attrs.frozen(eq=False)
class Field:
    """What may stand in one field: numbers from ``least`` to ``most``, and names for them."""

    name: str
    least: int
    most: int
    names: Mapping[str, int] = _NO_NAMES

    @property
    def highest(self) -> int:
        """The highest number that may be written: 7 is Sunday too."""
        return 7 if self is WEEKDAY else self.most

    @property
    def span(self) -> int:
        """How many numbers there are."""
        return self.most - self.least + 1


SECOND = Field("second", 0, 59)
MINUTE = Field("minute", 0, 59)
HOUR = Field("hour", 0, 23)
MONTH_DAY = Field("day of month", 1, 31)
MONTH = Field("month", 1, 12, _MONTH_NAMES)
WEEKDAY = Field("day of week", 0, 6, _WEEKDAY_NAMES)
_ORDER = (SECOND, MINUTE, HOUR, MONTH_DAY, MONTH, WEEKDAY)


@attrs.frozen
class Item:
    """One item of a field.

    Args:
        field: The field.
        text: As it was written.
        numbers: What it counts through; a week may go on beyond Saturday. Empty for a special day.
        special: A day that only a calendar knows, in croniter's spelling, see `DayField`; or empty.
    """

    field: Field
    text: str
    numbers: range
    special: str = ""

    @property
    def values(self) -> list[int]:
        """The numbers in their order, weekdays from 0 to 6."""
        return [number % 7 for number in self.numbers] if self.field is WEEKDAY else list(self.numbers)


@attrs.frozen
class WrittenField:
    """One field of an expression: its text as it was written, and the items of it; a ``?`` has none."""

    text: str
    items: tuple[Item, ...]

    @property
    def values(self) -> set[int]:
        """All its numbers."""
        return {value for item in self.items for value in item.values}

    @property
    def restricted(self) -> bool:
        """Whether it is more than a plain ``*`` or ``?``."""
        return self.text not in ("*", "?")


@lru_cache(maxsize=4096)
def parse_cron(expr: str) -> LocalTimes:
    """Read a cron expression.

    Only a plain ``*`` or ``?`` leaves a day field unrestricted; where both are restricted, either matches (POSIX crontab).

    Args:
        expr: Five fields, six with seconds first, or one of ``@hourly @daily @midnight @weekly @monthly @yearly @annually``.

    Raises:
        InvalidSchedule: It breaks the grammar, or means no day that exists. The message names the field and the value.
    """
    check_text(expr)
    try:
        return _parse(expr)
    except _Refused as refused:
        why = _advice(expr) or str(refused)
        raise InvalidSchedule(f"expr {shorten(cron_advice.visible(expr))}: {why}") from None


def check_text(expr: object) -> str:
    """Check that an expression is text, and short enough to be read.

    Raises:
        InvalidSchedule: It is not; of a crontab line that is too long the message shows how the times alone are written.
    """
    if isinstance(expr, str) and len(expr) > MAX_EXPRESSION:
        start = expr[:MAX_EXPRESSION]
        why = _advice(start) if start.isprintable() else None
        if why is not None:
            raise InvalidSchedule(f"expr {shorten(cron_advice.visible(start))}: {why}")
    return checks.text("expr", expr, InvalidSchedule, limit=MAX_EXPRESSION)


def _advice(expr: str) -> str | None:
    """Say what a refused expression seems to be, and show the one to write instead if it can be read."""
    mistake = cron_advice.diagnose(expr, _ALIASES, _accepts)
    if mistake is None or not mistake.times:
        return None if mistake is None else mistake.why
    times = repr(mistake.times)
    try:
        _parse(mistake.times)
    except _Refused as refused:
        return f"{mistake.why}; in {shorten(mistake.times)} {refused}" if mistake.show_refusal else mistake.why
    if len(times) > _MAX_PROPOSAL:
        return mistake.why
    return f"{mistake.why}; " + (f"write the expression as {times}" if mistake.certain else f"perhaps {times} is meant")


def _accepts(expr: str) -> bool:
    try:
        _parse(expr)
    except _Refused:
        return False
    return True


class _Refused(Exception):
    """Why an expression is refused; what `parse_cron` says after the expression itself."""


def fields(expr: str) -> dict[Field, WrittenField]:
    """Take a cron expression apart: five fields in their order, or six that begin with the second.

    Raises:
        InvalidSchedule: As `parse_cron`.
    """
    parse_cron(expr)
    return _read(expr)


def _parse(expr: str) -> LocalTimes:
    written = _read(expr)
    month_day, month, weekday = written[MONTH_DAY], written[MONTH], written[WEEKDAY]
    special = {item.special for day in (month_day, weekday) for item in day.items if item.special}
    if len(special) > MAX_SPECIAL_DAYS:
        raise _Refused(f"{len(special)} special days (L, 15W, L5, 5#2), at most {MAX_SPECIAL_DAYS} are allowed")
    days = day_rule(month.values, _day_field(month_day), _day_field(weekday))
    if not days.possible():
        raise _Refused(f"there is no such date: day of month {shorten(month_day.text)}, month {shorten(month.text)}")
    return LocalTimes(
        days=days,
        hours=tuple(sorted(written[HOUR].values)),
        minutes=tuple(sorted(written[MINUTE].values)),
        seconds=tuple(sorted(written[SECOND].values)) if SECOND in written else (0,),
        rhythm=any(written[field].text.startswith("*") for field in (SECOND, MINUTE, HOUR) if field in written),
    )


def _read(expr: str) -> dict[Field, WrittenField]:
    texts = _split(expr)
    order = _ORDER[len(_ORDER) - len(texts) :]
    return {field: WrittenField(text, _items(field, text)) for field, text in zip(order, texts, strict=True)}


def _split(expr: str) -> list[str]:
    if not expr.isascii():
        odd = next(char for char in expr if not char.isascii())
        raise _Refused(f"only ASCII characters are allowed, not {odd!a}")
    texts = cron_advice.split(expr)
    if len(texts) == 1 and texts[0].startswith("@"):
        alias = texts[0].lower()
        if alias == "@reboot":
            raise _Refused("@reboot is not a time; run the job when the program starts instead")
        if alias not in _ALIASES:
            raise _Refused(f"{_shown(alias)} is not known; there are {' '.join(_ALIASES)}")
        return _ALIASES[alias].split()
    if len(texts) not in (5, 6):
        hint = "; years are not supported" if len(texts) == 7 else ""  # noqa: PLR2004
        raise _Refused(f"5 fields are needed, or 6 with seconds first, not {len(texts)}{hint}")
    return texts


def _day_field(written: WrittenField) -> DayField | None:
    """Sum up one of the two day fields; None if it is unrestricted."""
    if not written.restricted:
        return None
    special = dict.fromkeys(item.special for item in written.items if item.special)
    return DayField(plain=frozenset(written.values), special=tuple(special))


def _items(field: Field, text: str) -> tuple[Item, ...]:
    """Read a field: a list of items."""
    days = field in (MONTH_DAY, WEEKDAY)
    if days and text == "?":
        return ()
    items = []
    for item in text.split(","):
        token = _special_day(field, item.lower()) if days else None
        numbers = _numbers(field, item.lower()) if token is None else range(0)
        items.append(Item(field, item, numbers, token or ""))
    return tuple(items)


def _special_day(field: Field, item: str) -> str | None:
    """Recognise ``L`` and ``15W`` in the day of the month, ``L5`` and ``5#2`` in the day of the week; None if it is another."""
    if field is MONTH_DAY:
        if item == "l":
            return "l"
        if re.fullmatch(r"[0-9]+w", item):
            return f"{_number(field, item[:-1])}w"
        return None
    if re.fullmatch(r"l[0-9]+", item):
        return f"l{_number(field, item[1:]) % 7}"
    if re.fullmatch(r"[0-9]l", item):
        raise _Refused(f"{field.name} {shorten(item)}: for the last such weekday write {shorten(f'L{item[0]}')}")
    nth = _WEEKDAY_OF_MONTH.fullmatch(item)
    if nth is None:
        return None
    if nth[2] not in ("1", "2", "3", "4", "5"):
        raise _Refused(f"{field.name} {shorten(item)}: a month has a weekday 1 to 5 times")
    return f"{_number(field, nth[1]) % 7}#{nth[2]}"


def _numbers(field: Field, item: str) -> range:
    """Read one item of a list: ``*``, ``a``, ``a-b``, each with ``/step`` or without; ``a/step`` goes on to the field's end."""
    match = _ITEM.fullmatch(item)
    if match is None or (match["low"] == "*" and match["high"]):
        raise _Refused(_why(field, item))
    step = 1
    if match["step"] is not None:
        step = int(match["step"])
        if not 1 <= step <= field.span:
            raise _Refused(f"{field.name} {shorten(item)}: a step must be 1 to {field.span}")
    if match["low"] == "*":
        return range(field.least, field.most + 1, step)
    low = _number(field, match["low"])
    high = _number(field, match["high"]) if match["high"] else field.most if match["step"] else low
    if field is WEEKDAY:
        # A week has no first day that all agree on, so fri-mon goes round; 7 is Sunday at either end.
        if low == 7 and high != low:  # noqa: PLR2004
            low = 0
        if high < low:
            high += 7
    elif high < low:
        raise _Refused(f"{field.name} {shorten(item)}: the range goes backwards; write it as two")
    return range(low, high + 1, step)


def _number(field: Field, text: str) -> int:
    """Read a number or a name."""
    if not text.isdigit():
        if text not in field.names:
            raise _Refused(_why(field, text))
        return field.names[text]
    number = int(text)
    if not field.least <= number <= field.highest:
        raise _Refused(f"{field.name} {shorten(text)} is not in {field.least} to {field.highest}")
    return number


def _why(field: Field, item: str) -> str:
    """Say why an item cannot be read."""
    if not item:
        return f"{field.name}: something is missing beside a comma"
    named = f"{field.name} {_shown(item)}"
    if _RANDOM.fullmatch(item):
        return f"{named}: random times (H, R) are not supported; write the number"
    if "?" in item:
        return f"{named}: ? can only stand alone, in a day field"
    short = re.sub(r"[a-z]{4,}", lambda word: next((name for name in field.names if _begins(word[0], name)), word[0]), item)
    hint = f"; write {shorten(short)}" if short != item and _is_item(field, short) else ""
    return f"{named} cannot be read{hint}"


def _shown(word: str) -> str:
    """Show a word that cannot be read, unless it may belong to a command."""
    return shorten(word) if cron_advice.is_harmless(word.removeprefix("@")) else "'…'"


def _begins(word: str, name: str) -> bool:
    return word in _LONG_NAMES and word.startswith(name)


def _is_item(field: Field, item: str) -> bool:
    try:
        _numbers(field, item)
    except _Refused:
        return False
    return True
