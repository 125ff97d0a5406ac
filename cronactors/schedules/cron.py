"""The grammar of cron expressions: parses text into times of day and a rule for days, without a zone. Pure.

An expression has five fields as in POSIX crontab, or six with seconds first: second, minute, hour, day of month, month, day of
week. Beyond POSIX we accept names, steps and ``@daily`` and the like (Debian crontab(5)), and the special days ``L``, ``15W``,
``L5`` and ``5#2``.

We parse expressions ourselves because a misread one is noticed months later, on the wrong day. So anything ambiguous is refused,
and the message names the field and the value, and proposes a correction where `cron_advice` recognises the syntax of another
scheduler.
"""

from __future__ import annotations

import re
from functools import lru_cache

from cronactors import checks
from cronactors.errors import InvalidSchedule, shorten
from cronactors.schedules import cron_advice
from cronactors.schedules.calendar import DayField, DayRule, day_rule
from cronactors.schedules.cron_fields import FIELDS, HOUR, MINUTE, MONTH, MONTH_DAY, SECOND, WEEKDAY, Field, Item, WrittenField
from cronactors.schedules.local_times import LocalTimes

MAX_EXPRESSION = 500
"""The longest cron expression, in characters."""
MAX_SPECIAL_DAYS = 10
"""How many special days, such as ``15W``, an expression may have: each costs some 2 ms when it is first used."""

_MAX_PROPOSAL = 120
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


@lru_cache(maxsize=4096)
def parse_cron(expr: str) -> LocalTimes:
    """Parse a cron expression. Results are cached for the latest 4,096 expressions.

    Args:
        expr: Five fields, six with seconds first, or one of ``@hourly @daily @midnight @weekly @monthly @yearly @annually``.

    Raises:
        InvalidSchedule: It breaks the grammar, or no day ever matches it. The message names the field and the value.
    """
    check_text(expr)
    try:
        return _parse(expr)
    except _SyntaxError as error:
        why = _advice(expr) or str(error)
        raise InvalidSchedule(f"expr {shorten(cron_advice.without_command(expr))}: {why}") from None


def check_text(expr: object) -> str:
    """Check the type and the length of an expression, and return it.

    Raises:
        InvalidSchedule: It is not text, or is too long. If it is a long crontab line, the message proposes its expression alone.
    """
    if isinstance(expr, str) and len(expr) > MAX_EXPRESSION:
        start = expr[:MAX_EXPRESSION]
        why = _advice(start) if start.isprintable() else None
        if why is not None:
            raise InvalidSchedule(f"expr {shorten(cron_advice.without_command(start))}: {why}")
    return checks.text("expr", expr, InvalidSchedule, limit=MAX_EXPRESSION)


def _advice(expr: str) -> str | None:
    """Explain an expression that was written for another scheduler, and propose a correct one; None if it was not."""
    mistake = cron_advice.recognise(expr, _ALIASES, _accepts)
    if mistake is None or not mistake.expr:
        return None if mistake is None else mistake.why
    proposal = repr(mistake.expr)
    try:
        _parse(mistake.expr)
    except _SyntaxError as error:
        return f"{mistake.why}; in {shorten(mistake.expr)} {error}" if mistake.show_error else mistake.why
    if len(proposal) > _MAX_PROPOSAL:
        return mistake.why
    return f"{mistake.why}; " + (f"perhaps {proposal} is meant" if mistake.guess else f"write the expression as {proposal}")


def _accepts(expr: str) -> bool:
    try:
        _parse(expr)
    except _SyntaxError:
        return False
    return True


class _SyntaxError(Exception):
    """An expression breaks the grammar. The text becomes the second half of the message of `parse_cron`."""


def split_fields(expr: str) -> dict[Field, WrittenField]:
    """Split a cron expression into its fields: five in their order, or six that begin with the second.

    Raises:
        InvalidSchedule: As `parse_cron`.
    """
    parse_cron(expr)
    return _written_fields(expr)


def _parse(expr: str) -> LocalTimes:
    written = _written_fields(expr)
    return LocalTimes(
        days=_days(written[MONTH_DAY].text, written[MONTH].text, written[WEEKDAY].text),
        hours=tuple(sorted(written[HOUR].values)),
        minutes=tuple(sorted(written[MINUTE].values)),
        seconds=tuple(sorted(written[SECOND].values)) if SECOND in written else (0,),
        rhythm=any(written[field].text.startswith("*") for field in (SECOND, MINUTE, HOUR) if field in written),
    )


@lru_cache(maxsize=1024)
def _days(*texts: str) -> DayRule:
    """Join the day of month, the month and the day of week. Most expressions differ in their times of day only, so we keep the rules."""
    month_day, month, weekday = (
        WrittenField(text, _items(field, text)) for field, text in zip((MONTH_DAY, MONTH, WEEKDAY), texts, strict=True)
    )
    special = {item.special for day in (month_day, weekday) for item in day.items if item.special}
    if len(special) > MAX_SPECIAL_DAYS:
        raise _SyntaxError(f"{len(special)} special days (L, 15W, L5, 5#2), at most {MAX_SPECIAL_DAYS} are allowed")
    rule = day_rule(month.values, _day_field(month_day), _day_field(weekday))
    if not rule.ever_matches():
        raise _SyntaxError(f"there is no such date: day of month {shorten(month_day.text)}, month {shorten(month.text)}")
    return rule


def _written_fields(expr: str) -> dict[Field, WrittenField]:
    texts = _split_texts(expr)
    order = FIELDS[len(FIELDS) - len(texts) :]
    return {field: WrittenField(text, _items(field, text)) for field, text in zip(order, texts, strict=True)}


def _split_texts(expr: str) -> list[str]:
    if not expr.isascii():
        odd = next(char for char in expr if not char.isascii())
        raise _SyntaxError(f"only ASCII characters are allowed, not {odd!a}")
    texts = cron_advice.split_words(expr)
    if len(texts) == 1 and texts[0].startswith("@"):
        alias = texts[0].lower()
        if alias == "@reboot":
            raise _SyntaxError("@reboot is not a time; run the job when the program starts instead")
        if alias not in _ALIASES:
            raise _SyntaxError(f"{_shown(alias)} is unknown; known are {' '.join(_ALIASES)}")
        return _ALIASES[alias].split()
    if len(texts) not in (5, 6):
        hint = "; years are not supported" if len(texts) == 7 else ""  # noqa: PLR2004
        raise _SyntaxError(f"5 fields are needed, or 6 with seconds first, not {len(texts)}{hint}")
    return texts


def _day_field(written: WrittenField) -> DayField | None:
    """Make a `DayField` of one of the two day fields; None if it is unrestricted."""
    if not written.restricted:
        return None
    special = dict.fromkeys(item.special for item in written.items if item.special)
    return DayField(plain=frozenset(written.values), special=tuple(special))


@lru_cache(maxsize=1024)
def _items(field: Field, text: str) -> tuple[Item, ...]:
    """Parse a field, which is a list of items."""
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
    """Parse ``L`` and ``15W`` in the day of the month, ``L5`` and ``5#2`` in the day of the week; None for any other item."""
    if field is MONTH_DAY:
        if item == "l":
            return "l"
        if re.fullmatch(r"[0-9]+w", item):
            return f"{_number(field, item[:-1])}w"
        return None
    if re.fullmatch(r"l[0-9]+", item):
        return f"l{_number(field, item[1:]) % 7}"
    if re.fullmatch(r"[0-9]l", item):
        raise _SyntaxError(f"{field.name} {shorten(item)}: for the last such weekday write {shorten(f'L{item[0]}')}")
    nth = _WEEKDAY_OF_MONTH.fullmatch(item)
    if nth is None:
        return None
    if nth[2] not in ("1", "2", "3", "4", "5"):
        raise _SyntaxError(f"{field.name} {shorten(item)}: a month has a weekday 1 to 5 times")
    return f"{_number(field, nth[1]) % 7}#{nth[2]}"


def _numbers(field: Field, item: str) -> range:
    """Parse one item: ``*``, ``a`` or ``a-b``, each with or without ``/step``. ``a/step`` runs to the end of the field."""
    match = _ITEM.fullmatch(item)
    if match is None or (match["low"] == "*" and match["high"]):
        raise _SyntaxError(_explain(field, item))
    step = 1
    if match["step"] is not None:
        step = int(match["step"])
        if not 1 <= step <= field.span:
            raise _SyntaxError(f"{field.name} {shorten(item)}: a step must be 1 to {field.span}")
    if match["low"] == "*":
        return range(field.least, field.most + 1, step)
    low = _number(field, match["low"])
    high = _number(field, match["high"]) if match["high"] else field.most if match["step"] else low
    if field is WEEKDAY:
        # Weeks don't begin on the same day everywhere, so we accept fri-mon. 7 is Sunday at either end of a range.
        if low == 7 and high != low:  # noqa: PLR2004
            low = 0
        if high < low:
            high += 7
    elif high < low:
        raise _SyntaxError(f"{field.name} {shorten(item)}: the range goes backwards; write it as two")
    return range(low, high + 1, step)


def _number(field: Field, text: str) -> int:
    """Parse a number or a name."""
    if not text.isdigit():
        if text not in field.names:
            raise _SyntaxError(_explain(field, text))
        return field.names[text]
    number = int(text)
    if not field.least <= number <= field.highest:
        raise _SyntaxError(f"{field.name} {shorten(text)} is not in {field.least} to {field.highest}")
    return number


def _explain(field: Field, item: str) -> str:
    """Explain why an item is not valid."""
    if not item:
        return f"{field.name}: an item is missing next to a comma"
    named = f"{field.name} {_shown(item)}"
    if _RANDOM.fullmatch(item):
        return f"{named}: random times (H, R) are not supported; write a number"
    if "?" in item:
        return f"{named}: ? can only stand alone, in a day field"
    short = re.sub(r"[a-z]{4,}", lambda word: next((name for name in field.names if _is_long_form(word[0], name)), word[0]), item)
    hint = f"; write {shorten(short)}" if short != item and _is_item(field, short) else ""
    return f"{named} cannot be read{hint}"


def _shown(word: str) -> str:
    """Quote a word for a message, unless it may belong to a command."""
    return shorten(word) if cron_advice.may_be_shown(word.removeprefix("@")) else "'…'"


def _is_long_form(word: str, name: str) -> bool:
    return word in _LONG_NAMES and word.startswith(name)


def _is_item(field: Field, item: str) -> bool:
    try:
        _numbers(field, item)
    except _SyntaxError:
        return False
    return True
