"""Advice on text that is no cron expression but is like one: lines of a crontab, of Go, Quartz, AWS or systemd. Pure.

An expression may be a whole crontab line, and its command may hold a password. So no message shows more of a refused text than the
words that look like fields of an expression: see `visible`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from types import MappingProxyType

import attrs

from cronactors.errors import shorten
from cronactors.schedules.zones import is_zone

_DAY_NAMES = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_NAME = (
    r"(?:mon(?:day)?|tue(?:s|sday)?|wed(?:s|nesday)?|thu(?:r|rs|rsday)?|fri(?:day)?|sat(?:urday)?|sun(?:day)?|jan(?:uary)?"
    r"|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|may|june?|july?|aug(?:ust)?|sept?(?:ember)?|oct(?:ober)?|nov(?:ember)?|dec(?:ember)?)"
)
_FIELD = re.compile(rf"(?:[-*/,?#~0-9LWHR()]|{_NAME})++", re.IGNORECASE)
"""A word that can be meant as a field; possessive, as ``thur`` is a name, or a name and an ``R``."""
_HARMLESS = re.compile(r"[-*/,?#~0-9A-Za-z().+_]{1,40}")
_CLOCK = re.compile(r"[*0-9,./]+:[*0-9,./:]+")
_PATH = re.compile(r"[./~]|.*[A-Za-z0-9_.]/(?![0-9]|[A-Za-z]{3}$)")
_FEW, _MOST, _WITH_YEAR = 5, 6, 7
_YEAR = re.compile(r"(?:\*|[0-9]{4}(?:-[0-9]{4})?(?:/[0-9]+)?)(?:,[-*/0-9]+)*")
_SETTING = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)=(\S*)")
_DURATION = re.compile(r"(?:[0-9]+(?:\.[0-9]+)?(?:ns|us|ms|s|m|h))+")
_PART = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ns|us|ms|s|m|h)")
_UNITS_MS: Mapping[str, float] = MappingProxyType({"ns": 1e-6, "us": 1e-3, "ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000})
_LONGEST_MS = 366 * 86_400_000
_AWS = re.compile(r"cron\((.*)\)", re.IGNORECASE)
_SECRETIVE = 40
_COMMAND = "the command belongs in the job's prompt"


@attrs.frozen
class Mistake:
    """What a refused text seems to be.

    Args:
        why: The mistake, in words.
        times: The expression to write instead, or empty if there is none. The caller shows it only if it can be read.
        certain: Whether ``times`` is what was meant; otherwise it is shown as a guess.
        show_refusal: Whether the reason why ``times`` cannot be read, if it cannot, says something of the text itself.
    """

    why: str
    times: str = ""
    certain: bool = True
    show_refusal: bool = False


def visible(text: str) -> str:
    """Cut a refused expression before the first word that may belong to a command."""
    words = split(text)
    most = len(words) if len(words) in range(_WITH_YEAR + 1) else _FEW
    if words and words[0].startswith("@"):
        most = 2 if words[0].lower() == "@every" and len(words) == 2 else 1  # noqa: PLR2004
    shown: list[str] = []
    for word in words[:most]:
        if not is_harmless(word.removeprefix("@")) or (len(shown) >= _FEW and not _FIELD.fullmatch(word)):
            break
        shown.append(word)
    return text if len(shown) == len(words) else " ".join([*shown, "…"])


def split(text: str) -> list[str]:
    """Split an expression into its words, at ASCII white space alone."""
    return re.findall(r"\S+", text, re.ASCII)


def is_harmless(word: str) -> bool:
    """Whether a word of a refused expression can be shown: short, and no path, setting, address or quotation."""
    return (
        not word
        or _CLOCK.fullmatch(word) is not None
        or (_HARMLESS.fullmatch(word) is not None and (_FIELD.fullmatch(word) is not None or not _PATH.match(word)))
    )


def diagnose(text: str, aliases: Mapping[str, str], accepts: Callable[[str], bool]) -> Mistake | None:
    """Recognise text that was written for something else.

    Args:
        text: An expression that was refused.
        aliases: Words such as ``@daily``.
        accepts: Whether a text is an expression.

    Returns:
        None if it looks like an expression with a slip.
    """
    words = split(text)
    if not words:
        return None
    found = _quoted(text) or _setting(text, words, aliases, accepts) or _every(words) or _aws(words, accepts)
    if found is None and words[0].startswith("@"):
        found = _after_alias(words, aliases)
    return found or _systemd(words) or _quartz(words) or _line(words, accepts)


# Crontabs


def _quoted(text: str) -> Mistake | None:
    """Recognise an expression in one more pair of quotes."""
    inside = text.strip()
    if len(inside) > 1 and inside[0] == inside[-1] and inside[0] in "'\"`" and all(map(_FIELD.fullmatch, split(inside[1:-1]))):
        return Mistake("the quotation marks are part of the text", " ".join(split(inside[1:-1])), show_refusal=True)
    return None


def _setting(text: str, words: list[str], aliases: Mapping[str, str], accepts: Callable[[str], bool]) -> Mistake | None:
    """Recognise ``CRON_TZ=Europe/Rome 0 3 * * *`` and other settings of a crontab."""
    setting = _SETTING.fullmatch(words[0])
    if setting is None:
        return None
    name, value = setting.groups()
    if name not in ("TZ", "CRON_TZ"):
        return Mistake("a setting of a crontab is no part of an expression")
    zone = value.strip("'\"").removeprefix(":")
    cure = f"write it as timezone = {shorten(zone)}" if len(zone) < _SECRETIVE and is_zone(zone) else "write it as timezone"
    why = f"the zone is a setting of its own: {cure}"
    rest = text.strip()[len(words[0]) :].strip()
    if not rest:
        return Mistake(why)
    if accepts(rest):
        return Mistake(why, " ".join(split(rest)))
    inner = None if _SETTING.match(rest) else diagnose(rest, aliases, accepts)
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
    return Mistake(f"this looks like a line of a crontab: {_COMMAND}", alias, show_refusal=True)


def _line(words: list[str], accepts: Callable[[str], bool]) -> Mistake | None:
    """Recognise ``0 3 * * * /usr/bin/backup.sh``, with a user before the command or without; seconds may come first."""
    fields = next((at for at, word in enumerate(words) if not _FIELD.fullmatch(word)), len(words))
    if fields == len(words) or fields == 0:
        return None
    rest = words[fields:]
    if len(rest) == 1 and fields in (_FEW, _MOST) and len(rest[0]) < _SECRETIVE and is_zone(rest[0]):
        why = f"the zone is a setting of its own: write it as timezone = {shorten(rest[0])}"
        return Mistake(why, " ".join(words[:fields]), show_refusal=True)
    if fields in (_FEW, _MOST):
        times = " ".join(words[:fields])
        return Mistake(f"this looks like a line of a crontab: {_COMMAND}", times, show_refusal=True)
    if fields > _MOST and accepts(" ".join(words[:_FEW])):
        return Mistake(f"this looks like a line of a crontab: {_COMMAND}", " ".join(words[:_FEW]), certain=False)
    if fields < _FEW and _PATH.match(rest[0]):
        return Mistake(f"this looks like a line of a crontab with {fields} fields before the command: 5 are needed")
    return None


# Go


def _every(words: list[str]) -> Mistake | None:
    """Recognise ``@every 1h30m`` of Go's cron, which keeps whole seconds of a duration."""
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
        return Mistake(f"{why}: {write}, or {rounded} to keep whole seconds only, as Go's cron does")
    return Mistake(f"{why}: {write}")


# Quartz and AWS: seven and six fields, with weekdays from Sunday = 1


def _quartz(words: list[str]) -> Mistake | None:
    """Recognise seven fields with a year, and weekdays such as ``6L`` that only Quartz has."""
    if not all(map(_FIELD.fullmatch, words)):
        return None
    if len(words) == _WITH_YEAR and _YEAR.fullmatch(words[6]):
        if words[6] != "*":
            return Mistake("years are not supported: 7 fields are those of Quartz; for a single date write a one-shot (at)")
        why = "7 fields are those of Quartz, with a year last, and years are not supported"
        return _with_weekday(why, words[:6])
    if len(words) == _MOST and words[3] == "?" and re.search(r"(?:^|,)(?:[1-7]|[a-z]{3})?L(?:$|,)", words[5], re.IGNORECASE):
        return _with_weekday("a day of week such as 6L or L is Quartz's", words)
    return None


def _with_weekday(why: str, words: list[str], *, certain: bool = False) -> Mistake:
    """Translate the last word, the day of the week, from Quartz's numbers."""
    named = quartz_weekday(words[-1])
    if named is None:
        return Mistake(why, " ".join(words), certain=not re.search("[0-9]", words[-1]))
    why = f"{why}; it counts weekdays from Sunday = 1"
    return Mistake(why, " ".join([*words[:-1], named]), certain=certain)


def _aws(words: list[str], accepts: Callable[[str], bool]) -> Mistake | None:
    """Recognise ``cron(15 10 ? * 2-6 *)``: five fields and a year, which ``?`` in a month or in the third field gives away too."""
    wrapped = _AWS.fullmatch(" ".join(words))
    inside = wrapped[1].split() if wrapped is not None else words
    if len(inside) != _MOST or not _YEAR.fullmatch(inside[5]) or not all(map(_FIELD.fullmatch, inside)):
        return None
    if wrapped is None and "?" not in (inside[2], inside[4]):
        return None
    if inside[5] != "*":
        return Mistake("years are not supported: the last of AWS's six fields is the year")
    why = "this looks like an expression of AWS, with the year last"
    found = _with_weekday(why, inside[:5], certain=wrapped is not None)
    return found if accepts(found.times) else Mistake(why)


def quartz_weekday(text: str) -> str | None:
    """Translate a day of the week from Quartz's numbers, Sunday = 1 to Saturday = 7, to names.

    Returns:
        Such as ``mon-fri`` for ``2-6`` and ``L5`` for ``6L``; None if there is no such number in it, or it is not Quartz's.
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
    """Recognise ``Mon..Fri 09:00`` and ``*-*-* 09:00:00``; all its parts must hold, where cron takes either of two day fields."""
    why = "this looks like a calendar event of systemd"
    if len(words) == 1 and words[0].lower() in _SYSTEMD_WORDS:
        return Mistake(why, _SYSTEMD_WORDS[words[0].lower()], certain=words[0].lower() != "weekly")
    rest = list(words)
    weekday = rest.pop(0) if _WEEKDAYS.fullmatch(rest[0]) else ""
    date = _DATE.fullmatch(rest.pop(0)) if rest and _DATE.fullmatch(rest[0]) else None
    time = _TIME.fullmatch(rest.pop(0)) if rest and _TIME.fullmatch(rest[0]) else None
    if rest and len(rest[0]) < _SECRETIVE and is_zone(rest[0]):
        why += f", with the zone, which is a setting of its own: write it as timezone = {shorten(rest.pop(0))}"
    # A month and a day alone, such as `1-5`, may be anything.
    if rest or (time is None and (date is None or date[1] is None) and ".." not in weekday):
        return None
    year, month, day = date.groups() if date is not None else (None, "*", "*")
    hour, minute, second = time.groups() if time is not None else ("0", "0", None)
    if date is not None and "~" in date[0]:
        return Mistake(f"{why}: days from the end of a month are not supported; for the last day write L as the day of month")
    if year not in (None, "*"):
        return Mistake(f"{why}, with a year: years are not supported; for a single date write a one-shot (at)")
    if weekday and day != "*":
        return Mistake(f"{why}: that a day of month and a day of week must both match cannot be written in an expression")
    fields = [_plain(part) for part in (minute, hour, day, month)] + [_weekday(weekday)]
    if second is not None and _plain(second) != "0":
        fields.insert(0, _plain(second))
    return Mistake(why, " ".join(fields))


def _plain(part: str) -> str:
    """Write a part of a date or a time as a field: ``08..10`` is ``8-10``, ``0/15`` is ``*/15``."""
    text = re.sub(r"(?<![0-9])0+(?=[0-9])", "", part.replace("..", "-"))
    return re.sub(r"(?<![0-9])0/", "*/", text)


def _weekday(part: str) -> str:
    """Write days of the week as a field."""
    days = re.sub(r"[a-z]+", lambda name: name[0][:3], part.lower().rstrip(","))
    return days.replace("..", "-") or "*"
