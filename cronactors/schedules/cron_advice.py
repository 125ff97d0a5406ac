"""Recognises the syntax of other schedulers in a refused cron expression: crontab lines, Go, Quartz, AWS, systemd. Pure.

People copy whole lines of a crontab, such as ``0 3 * * * /usr/bin/backup --password=...``, into an expression. We name the
mistake and propose a correct expression, but we show no more of the text than words that look like fields, because a command may
hold a password: see `without_command`. Where a text has two meanings (``2-6`` is Monday to Friday in Quartz and Tuesday to
Saturday here) we propose a guess and call it one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from types import MappingProxyType

import attrs

from cronactors.errors import shorten
from cronactors.instants import DAY
from cronactors.schedules.cron_fields import WEEKDAY
from cronactors.schedules.zones import is_zone

_DAY_NAMES = tuple(WEEKDAY.names)
_NAME = (
    r"(?:mon(?:day)?|tue(?:s|sday)?|wed(?:s|nesday)?|thu(?:r|rs|rsday)?|fri(?:day)?|sat(?:urday)?|sun(?:day)?|jan(?:uary)?"
    r"|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|may|june?|july?|aug(?:ust)?|sept?(?:ember)?|oct(?:ober)?|nov(?:ember)?|dec(?:ember)?)"
)
_FIELD = re.compile(rf"(?:[-*/,?#~0-9LWHR()]|{_NAME})++", re.IGNORECASE)
"""A word that looks like a field. The match is possessive, since ``thur`` is a name, and could be read as a name and an ``R``."""
_PLAIN_WORD = re.compile(r"[-*/,?#~0-9A-Za-z().+_]{1,40}")
_CLOCK = re.compile(r"[*0-9,./]+:[*0-9,./:]+")
_PATH = re.compile(r"[./~]|.*[A-Za-z0-9_.]/(?![0-9]|[A-Za-z]{3}$)")
_STANDARD, _WITH_SECONDS, _WITH_YEAR = 5, 6, 7
"""Numbers of fields."""
_YEAR = re.compile(r"(?:\*|[0-9]{4}(?:-[0-9]{4})?(?:/[0-9]+)?)(?:,[-*/0-9]+)*")
_SETTING = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)=(\S*)")
_DURATION = re.compile(r"(?:[0-9]+(?:\.[0-9]+)?(?:ns|us|ms|s|m|h))+")
_PART = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ns|us|ms|s|m|h)")
_UNITS_MS: Mapping[str, float] = MappingProxyType({"ns": 1e-6, "us": 1e-3, "ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000})
_LONGEST_MS = 366 * DAY
_AWS = re.compile(r"cron\((.*)\)", re.IGNORECASE)
_MAX_ZONE = 40
"""A word that is longer (characters) is not taken for a zone, since it may be a secret."""
_COMMAND = "the command belongs in the job's prompt"


@attrs.frozen
class Mistake:
    """A recognised mistake in a refused expression.

    Args:
        why: The mistake, in words.
        expr: The expression to write instead, or "" if there is none. The caller proposes it only if it is valid.
        guess: Whether ``expr`` may not be meant; the message then says "perhaps".
        show_error: Whether the message shows what is wrong with ``expr`` if it is not valid, because ``expr`` is part of the
            user's own text.
    """

    why: str
    expr: str = ""
    guess: bool = False
    show_error: bool = False


def without_command(text: str) -> str:
    """Cut a refused expression before the first word that may belong to a command, and mark the cut with an ellipsis."""
    words = split_words(text)
    most = len(words) if len(words) in range(_WITH_YEAR + 1) else _STANDARD
    if words and words[0].startswith("@"):
        most = 2 if words[0].lower() == "@every" and len(words) == 2 else 1  # noqa: PLR2004
    shown: list[str] = []
    for word in words[:most]:
        if not may_be_shown(word.removeprefix("@")) or (len(shown) >= _STANDARD and not _FIELD.fullmatch(word)):
            break
        shown.append(word)
    return text if len(shown) == len(words) else " ".join([*shown, "…"])


def split_words(text: str) -> list[str]:
    """Split an expression into its words, at ASCII white space only."""
    return re.findall(r"\S+", text, re.ASCII)


def may_be_shown(word: str) -> bool:
    """Return whether a message may show a word of a refused expression: a short one that is no path, setting or address."""
    return (
        not word
        or _CLOCK.fullmatch(word) is not None
        or (_PLAIN_WORD.fullmatch(word) is not None and (_FIELD.fullmatch(word) is not None or not _PATH.match(word)))
    )


def recognise(text: str, aliases: Mapping[str, str], accepts: Callable[[str], bool]) -> Mistake | None:
    """Recognise an expression that was written for another program.

    Args:
        text: A refused expression.
        aliases: The expression behind each word such as ``@daily``.
        accepts: Returns whether a text is a valid expression.

    Returns:
        The mistake; None if the text looks like an expression with a typing error.
    """
    words = split_words(text)
    if not words:
        return None
    found = _quoted(text) or _setting(text, words, aliases, accepts) or _every(words) or _aws(words, accepts)
    if found is None and words[0].startswith("@"):
        found = _after_alias(words, aliases)
    return found or _systemd(words) or _quartz(words) or _line(words, accepts)


# Crontabs


def _quoted(text: str) -> Mistake | None:
    """Recognise an expression in quotation marks of its own."""
    inside = text.strip()
    if (
        len(inside) > 1
        and inside[0] == inside[-1]
        and inside[0] in "'\"`"
        and all(map(_FIELD.fullmatch, split_words(inside[1:-1])))
    ):
        return Mistake("the quotation marks are part of the text", " ".join(split_words(inside[1:-1])), show_error=True)
    return None


def _setting(text: str, words: list[str], aliases: Mapping[str, str], accepts: Callable[[str], bool]) -> Mistake | None:
    """Recognise ``CRON_TZ=Europe/Rome 0 3 * * *`` and other settings of a crontab."""
    setting = _SETTING.fullmatch(words[0])
    if setting is None:
        return None
    name, value = setting.groups()
    if name not in ("TZ", "CRON_TZ"):
        return Mistake("a setting of a crontab is not part of an expression")
    zone = value.strip("'\"").removeprefix(":")
    cure = f"write it as timezone = {shorten(zone)}" if len(zone) < _MAX_ZONE and is_zone(zone) else "write it as timezone"
    why = f"the zone is a setting of its own: {cure}"
    rest = text.strip()[len(words[0]) :].strip()
    if not rest:
        return Mistake(why)
    if accepts(rest):
        return Mistake(why, " ".join(split_words(rest)))
    inner = None if _SETTING.match(rest) else recognise(rest, aliases, accepts)
    if inner is None:
        return Mistake(why)
    return attrs.evolve(inner, why=f"{why}; {inner.why}")


def _after_alias(words: list[str], aliases: Mapping[str, str]) -> Mistake | None:
    """Recognise ``@daily /usr/bin/backup``."""
    if len(words) == 1 or words[0].lower() not in (*aliases, "@reboot"):
        return None
    alias = words[0].lower()
    if alias == "@reboot":
        return Mistake(
            "this looks like a line of a crontab, and @reboot is not a time: run the job when the program starts instead"
        )
    return Mistake(f"this looks like a line of a crontab: {_COMMAND}", alias, show_error=True)


def _line(words: list[str], accepts: Callable[[str], bool]) -> Mistake | None:
    """Recognise ``0 3 * * * /usr/bin/backup.sh``, with a user before the command or without; seconds may come first."""
    fields = next((at for at, word in enumerate(words) if not _FIELD.fullmatch(word)), len(words))
    if fields == len(words) or fields == 0:
        return None
    rest = words[fields:]
    if len(rest) == 1 and fields in (_STANDARD, _WITH_SECONDS) and len(rest[0]) < _MAX_ZONE and is_zone(rest[0]):
        why = f"the zone is a setting of its own: write it as timezone = {shorten(rest[0])}"
        return Mistake(why, " ".join(words[:fields]), show_error=True)
    if fields in (_STANDARD, _WITH_SECONDS):
        times = " ".join(words[:fields])
        return Mistake(f"this looks like a line of a crontab: {_COMMAND}", times, show_error=True)
    if fields > _WITH_SECONDS and accepts(" ".join(words[:_STANDARD])):
        return Mistake(f"this looks like a line of a crontab: {_COMMAND}", " ".join(words[:_STANDARD]), guess=True)
    if fields < _STANDARD and _PATH.match(rest[0]):
        return Mistake(f"this looks like a line of a crontab with {fields} fields before the command: 5 are needed")
    return None


# Go


def _every(words: list[str]) -> Mistake | None:
    """Recognise ``@every 1h30m`` of Go's cron, which cuts a duration to whole seconds."""
    if words[0].lower() != "@every":
        return None
    why = "@every is an interval, not an expression"
    duration = "".join(words[1:2]).replace("\u00b5s", "us").replace("\u03bcs", "us")
    if len(words) > 2 or not _DURATION.fullmatch(duration):  # noqa: PLR2004
        return Mistake(f"{why}: write Interval.every(...), in agent.toml every_ms")
    total = round(sum(float(number) * _UNITS_MS[unit] for number, unit in _PART.findall(duration)), 6)
    if not 1 <= total <= _LONGEST_MS or total != int(total):
        return Mistake(f"{why}: write Interval.every(...), in agent.toml every_ms")
    write = f"write Interval({int(total)}), in agent.toml every_ms = {int(total)}"
    rounded = max(1, int(total) // 1000) * 1000
    if rounded != total:
        return Mistake(f"{why}: {write}, or {rounded}: Go's cron rounds down to whole seconds")
    return Mistake(f"{why}: {write}")


# Quartz and AWS: seven and six fields, with weekdays from Sunday = 1


def _quartz(words: list[str]) -> Mistake | None:
    """Recognise the seven fields of Quartz, with a year, and its weekdays such as ``6L``."""
    if not all(map(_FIELD.fullmatch, words)):
        return None
    if len(words) == _WITH_YEAR and _YEAR.fullmatch(words[6]):
        if words[6] != "*":
            return Mistake("years are not supported: 7 fields are those of Quartz; for a single date use a one-shot (at)")
        why = "7 fields are those of Quartz, with a year last, and years are not supported"
        return _with_weekday(why, words[:6])
    if (
        len(words) == _WITH_SECONDS
        and words[3] == "?"
        and re.search(r"(?:^|,)(?:[1-7]|[a-z]{3})?L(?:$|,)", words[5], re.IGNORECASE)
    ):
        return _with_weekday("a day of week such as 6L or L is Quartz's", words)
    return None


def _with_weekday(why: str, words: list[str], *, guess: bool = True) -> Mistake:
    """Propose the words as an expression, after translating the last one, the day of the week, from Quartz's numbers."""
    named = quartz_weekday(words[-1])
    if named is None:
        return Mistake(why, " ".join(words), guess=re.search("[0-9]", words[-1]) is not None)
    why = f"{why}; it counts weekdays from Sunday = 1"
    return Mistake(why, " ".join([*words[:-1], named]), guess=guess)


def _aws(words: list[str], accepts: Callable[[str], bool]) -> Mistake | None:
    """Recognise ``cron(15 10 ? * 2-6 *)`` of AWS, five fields and a year. Without ``cron()`` the ``?`` identifies it."""
    wrapped = _AWS.fullmatch(" ".join(words))
    inside = wrapped[1].split() if wrapped is not None else words
    if len(inside) != _WITH_SECONDS or not _YEAR.fullmatch(inside[5]) or not all(map(_FIELD.fullmatch, inside)):
        return None
    if wrapped is None and "?" not in (inside[2], inside[4]):
        return None
    if inside[5] != "*":
        return Mistake("years are not supported: the last of AWS's six fields is the year")
    why = "this looks like an expression of AWS, with the year last"
    found = _with_weekday(why, inside[:5], guess=wrapped is None)
    return found if accepts(found.expr) else Mistake(why)


def quartz_weekday(text: str) -> str | None:
    """Translate a day of the week from Quartz's numbers, Sunday = 1 to Saturday = 7, to names.

    Returns:
        The translation, such as ``mon-fri`` for ``2-6`` and ``L5`` for ``6L``; None if the text has no number to translate, or is
        not valid in Quartz.
    """
    if not re.search("[0-9L]", re.sub("/[0-9]+", "", text), re.IGNORECASE):
        return None
    items = [_quartz_item(item.lower()) for item in text.split(",")]
    translated = ",".join(item for item in items if item is not None)
    return translated if None not in items and translated != text.lower() else None


def _quartz_item(item: str) -> str | None:
    if item == "l":
        return "sat"
    last = re.fullmatch(rf"([1-7]|{'|'.join(_DAY_NAMES)})l", item)
    if last is not None:
        return f"L{int(last[1]) - 1 if last[1].isdigit() else _DAY_NAMES.index(last[1])}"
    match = re.fullmatch(r"(\*|[1-7]|[a-z]{3})(?:-([1-7]|[a-z]{3}))?(#[1-5]|/[0-9]+)?", item)
    if match is None:
        return None
    low, high = (_DAY_NAMES[int(day) - 1] if day and day.isdigit() else day for day in (match[1], match[2]))
    return low + (f"-{high}" if high else "") + (match[3] or "")


# systemd: calendar events, systemd.time(7)

_SYSTEMD_WORDS: Mapping[str, str] = MappingProxyType(
    {
        "minutely": "* * * * *", "hourly": "0 * * * *", "daily": "0 0 * * *", "weekly": "0 0 * * mon", "monthly": "0 0 1 * *",
        "quarterly": "0 0 1 1,4,7,10 *", "semiannually": "0 0 1 1,7 *", "yearly": "0 0 1 1 *", "annually": "0 0 1 1 *",
    }
)  # fmt: skip
_WEEKDAYS = re.compile(rf"{_NAME}(?:(?:\.\.|-|,){_NAME})*,?", re.IGNORECASE)
_DATE = re.compile(r"(?:([-*0-9,./]+)-)??([*0-9,./]+)[-~]([*0-9,./]+)")
_TIME = re.compile(r"([*0-9,./]+):([*0-9,./]+)(?::([*0-9,./]+))?")


def _systemd(words: list[str]) -> Mistake | None:
    """Recognise ``Mon..Fri 09:00`` and ``*-*-* 09:00:00``.

    In systemd a day must match both the date and the weekday, while in cron it must match either, so we propose nothing for an
    event with both.
    """
    why = "this looks like a calendar event of systemd"
    if len(words) == 1 and words[0].lower() in _SYSTEMD_WORDS:
        return Mistake(why, _SYSTEMD_WORDS[words[0].lower()], guess=words[0].lower() == "weekly")
    rest = list(words)
    weekday = rest.pop(0) if _WEEKDAYS.fullmatch(rest[0]) else ""
    date = _DATE.fullmatch(rest.pop(0)) if rest and _DATE.fullmatch(rest[0]) else None
    time = _TIME.fullmatch(rest.pop(0)) if rest and _TIME.fullmatch(rest[0]) else None
    if rest and len(rest[0]) < _MAX_ZONE and is_zone(rest[0]):
        why += f", with the zone, which is a setting of its own: write it as timezone = {shorten(rest.pop(0))}"
    # `1-5` alone could be a month and a day, or a range of anything.
    if rest or (time is None and (date is None or date[1] is None) and ".." not in weekday):
        return None
    year, month, day = date.groups() if date is not None else (None, "*", "*")
    hour, minute, second = time.groups() if time is not None else ("0", "0", None)
    if date is not None and "~" in date[0]:
        return Mistake(f"{why}: days from the end of a month are not supported; for the last day write L as the day of month")
    if year not in (None, "*"):
        return Mistake(f"{why}, with a year: years are not supported; for a single date use a one-shot (at)")
    if weekday and day != "*":
        return Mistake(f"{why}: no expression can require both a day of month and a day of week")
    fields = [_field_of(part) for part in (minute, hour, day, month)] + [_weekday_field(weekday)]
    if second is not None and _field_of(second) != "0":
        fields.insert(0, _field_of(second))
    return Mistake(why, " ".join(fields))


def _field_of(part: str) -> str:
    """Translate a part of a date or a time into a field: ``08..10`` becomes ``8-10``, ``0/15`` becomes ``*/15``."""
    text = re.sub(r"(?<![0-9])0+(?=[0-9])", "", part.replace("..", "-"))
    return re.sub(r"(?<![0-9])0/", "*/", text)


def _weekday_field(part: str) -> str:
    """Translate days of the week into a field."""
    days = re.sub(r"[a-z]+", lambda name: name[0][:3], part.lower().rstrip(","))
    return days.replace("..", "-") or "*"
