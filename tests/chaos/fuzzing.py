"""Bad input by construction: for each kind of parameter a maker of values that must be refused."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

from cronactors import Cron, Interval, JobSpec, RunStatus
from cronactors.settings import MAX_SLOTS
from cronactors.spec import MAX_DELAY, MAX_DESCRIPTION, MAX_JOBS, MAX_NAME, MAX_PATH, MAX_PROMPT, MAX_RETRIES, MAX_TIMEOUT

Chance = random.Random
Maker = Callable[[Chance], object]
HOSTILE = (
    "'; DROP TABLE jobs; --",
    '" OR 1=1 --',
    "%s%n{}{0.__class__}",
    "\u202egnp.exe",
    "\x1b[31mred\x1b[0m\x1b]0;title\x07",
    "a\r\n2026-01-01 CRITICAL forged",
    "\ufeff",
    "\u2028\u2029\x85",
    "🤖\u200d\u0301" * 3,
    "\x7f\x00",
    "\ud800",
    "../../../etc/passwd",
    "${HOME}`id`",
    "null",
    "١٢",
)


class Exploding:
    """An object whose every use raises."""

    def _explode(self, *_: object) -> Any:
        raise RuntimeError("boom")

    __repr__ = __str__ = __eq__ = __ne__ = __hash__ = __len__ = __bool__ = __index__ = __int__ = __float__ = _explode  # type: ignore[assignment]
    __lt__ = __le__ = __gt__ = __ge__ = __getattr__ = __contains__ = _explode


class NoPath:
    """A path-like object that is no path."""

    def __fspath__(self) -> Any:
        return 5


def hostile_text(chance: Chance) -> str:
    """Return text of any characters, with pieces that are known to cause trouble."""
    drawn = [chance.choice(HOSTILE), *(chr(chance.randrange(0x110000)) for _ in range(chance.randrange(6)))]
    chance.shuffle(drawn)
    return "".join(drawn)


_THINGS: tuple[Maker, ...] = (
    lambda c: c.randrange(-10, 10),
    lambda c: -(10 ** c.randrange(1, 400)),
    lambda c: 10 ** c.randrange(13, 5000),
    lambda c: c.uniform(-1e9, -1e-9),
    lambda c: c.choice([math.nan, math.inf, -math.inf, 1e308]),
    lambda c: c.choice([True, False, Ellipsis, NotImplemented, None]),
    lambda c: c.randbytes(c.randrange(9)),
    lambda c: [hostile_text(c)] * c.randrange(3),
    lambda c: {hostile_text(c): 1},
    lambda c: {c.random()},
    lambda c: (hostile_text(c), c.random()),
    lambda c: c.choice([object(), object, int, Exploding(), NoPath(), Decimal(1), 1j, range(3), len]),
    lambda c: c.choice([datetime(2026, 1, 1), date(2026, 1, 1), timedelta(1)]),
    lambda c: hostile_text(c),
    lambda c: c.choice([bytearray(b"x"), memoryview(b"x"), frozenset([1]), iter([]), Exploding]),
)


def thing(chance: Chance, *refused: type, but: Callable[[Any], bool] = lambda _: False) -> object:
    """Return an object of none of the types, for which ``but`` is false."""
    while True:
        found = chance.choice(_THINGS)(chance)
        if not isinstance(found, refused) and (isinstance(found, Exploding) or not but(found)):
            return found


def refused_text(chance: Chance) -> str:
    """Return text with a character that a store refuses."""
    text = hostile_text(chance).replace("\0", "").encode(errors="ignore").decode()
    at = chance.randrange(len(text) + 1)
    return text[:at] + chance.choice(["\0", chr(chance.randrange(0xD800, 0xE000))]) + text[at:]


def bad_text(limit: int, *, none_is_bad: bool = True, empty_is_bad: bool = True) -> Maker:
    def make(chance: Chance) -> object:
        kinds: list[Maker] = [
            lambda c: thing(c, str, *(() if none_is_bad else (type(None),))),
            refused_text,
            *([lambda c: ""] if empty_is_bad else []),
        ]
        if chance.randrange(50) == 0:
            return "x" * (limit + 1 + chance.randrange(1000))
        return chance.choice(kinds)(chance)

    return make


def bad_name(chance: Chance) -> object:
    if chance.randrange(2):
        return bad_text(MAX_NAME)(chance)
    inner = "".join(c for c in hostile_text(chance) if c.isprintable())
    return chance.choice(
        [" " + inner, inner + " ", inner + "\n", "\t" + inner, inner + "\u202e", inner + "\x1b[0m", "\u00a0" + inner]
    )


def bad_number(least: float, most: float, *, none_is_bad: bool = True) -> Maker:
    def make(chance: Chance) -> object:
        if chance.randrange(2):
            numbers = [least - chance.random() - 1e-9, -chance.random() * 1e12 - 1, most * (1.001 + chance.random()), math.nan]
            numbers += [math.inf, -math.inf, 10 ** chance.randrange(20, 5000)]
            return chance.choice([number for number in numbers if not least <= number <= most])
        return thing(chance, int, float, *(() if none_is_bad else (type(None),)))

    return make


def bad_whole(least: int, most: int, *, none_is_bad: bool = True) -> Maker:
    def make(chance: Chance) -> object:
        if chance.randrange(2):
            return chance.choice(
                [least - 1 - chance.randrange(1000), most + 1 + chance.randrange(10**9), 10 ** chance.randrange(30, 5000)]
            )
        return thing(chance, *(() if none_is_bad else (type(None),)), but=lambda v: type(v) is int and least <= v <= most)

    return make


def bad_flag(chance: Chance) -> object:
    return thing(chance, bool)


def bad_member(*allowed: str) -> Maker:
    return lambda chance: thing(chance, but=lambda v: isinstance(v, str) and v in allowed)


def bad_zone(*, none_is_bad: bool = True) -> Maker:
    def make(chance: Chance) -> object:
        if chance.randrange(2):
            near = chance.choice(["Europe/Rome", "UTC", "America/New_York"])
            at = chance.randrange(len(near))
            return near[:at] + chance.choice(["#", "\0", "/..", "ß", " ", "\ud800"]) + near[at + 1 :]
        return thing(chance, *(() if none_is_bad else (type(None),)))

    return make


def bad_expression(chance: Chance) -> object:
    if chance.randrange(4) == 0:
        return thing(chance)
    fields = [chance.choice(["*", "5", "1-5", "*/5"]) for _ in range(5)]
    worst = [
        "60",
        "-1",
        "a",
        "*/0",
        "5-",
        ",",
        "1,,2",
        "H",
        "R",
        "5-1",
        "1/",
        "٣",
        "0x1",
        "1.5",
        "\0",
        "99999999999",
        "L-3",
        "?*",
        "**",
    ]
    fields[chance.choice([0, 1, 3])] = chance.choice(worst)
    kinds = [
        " ".join(fields),
        "* * *",
        "0 0 0 * * * *",
        "@reboot",
        "@every 5m",
        "0 0 30 2 *",
        "0 0 31 4,6,9 *",
        " ".join(fields * 200),
    ]
    return chance.choice([*kinds[:1] * 8, *kinds, hostile_text(chance)])


def bad_timestamp(chance: Chance) -> object:
    texts = [
        "2026-13-01 00:00",
        "2026-02-30T00:00Z",
        "tomorrow",
        "09:00",
        "2026-01-01 24:61",
        "10000-01-01",
        "2026-01-01T00:00+99:99",
    ]
    texts += [
        "0001-01-01T00:00Z",
        "٢٠٢٦-01-01",
        "2026-01-01T00:00:00.1234567890123Z[Europe/Rome]",
        hostile_text(chance),
        "1" * 5000,
    ]
    return chance.choice(texts) if chance.randrange(2) else thing(chance, datetime)


def bad_instant(*, none_is_bad: bool = True, any_year: bool = False) -> Maker:
    def make(chance: Chance) -> object:
        odd = [datetime(2026, 1, 1), datetime(1, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, 23, tzinfo=UTC)]
        return (
            chance.choice(odd[: 1 if any_year else 3])
            if chance.randrange(4) == 0
            else thing(chance, *(() if none_is_bad else (type(None),)))
        )

    return make


def bad_id(chance: Chance) -> object:
    """Return a text that is no id, or something that is no text."""
    if chance.randrange(3) == 0:
        return chance.choice([hostile_text(chance), "0", "-1", "9" * 30, "\uff11", "1.0", " 1", "1 ", "0x1", str(10**18)])
    return bad_text(MAX_NAME)(chance)


def bad_specs(chance: Chance) -> object:
    """Return good specs with a bad one among them."""
    good = [JobSpec(f"new {n}", "it", Interval(60_000)) for n in range(chance.randrange(3))]
    if chance.randrange(100) == 0:
        return (JobSpec(str(n), "it", Interval(60_000)) for n in iter(int, MAX_JOBS))  # endless
    if chance.randrange(3) == 0:
        return thing(chance, list, tuple, dict, set, frozenset, range, type(iter([])))
    taken = JobSpec("old", "it", Cron("@daily"))
    return [*good, chance.choice([thing(chance), (taken, taken)[chance.randrange(2)], "text"]), *good, *good]


def bad_delays(chance: Chance) -> object:
    if chance.randrange(3) == 0:
        return chance.choice([(), [], "30", b"30", iter(float, None), range(MAX_RETRIES + 1), None, 5])
    return [*[30] * chance.randrange(3), bad_number(0, MAX_DELAY)(chance)]


def bad_mapping(chance: Chance) -> object:
    kinds: list[Maker] = [
        lambda c: thing(c),
        lambda c: {"kind": thing(c)},
        lambda c: {"kind": "cron", "expr": bad_expression(c)},
        lambda c: {"kind": "interval", "every_ms": bad_whole(1, 36_525 * 86_400_000)(c)},
        lambda c: {"kind": "one_shot", "at": bad_timestamp(c)},
        lambda c: {"kind": "cron", "expr": "@daily", hostile_text(c): 1},
        lambda c: {hostile_text(c): thing(c)},
    ]
    return chance.choice(kinds)(chance)


def bad_data(chance: Chance) -> object:
    return thing(chance, str, int, float, list, tuple, dict, type(None))


SPEC: Mapping[str, Maker] = {
    "name": bad_name,
    "prompt": bad_text(MAX_PROMPT),
    "schedule": lambda c: thing(c),
    "delete_after_run": bad_flag,
    "timezone": bad_zone(none_is_bad=False),
    "max_retries": bad_whole(0, MAX_RETRIES, none_is_bad=False),
    "timeout_secs": bad_number(0.001, MAX_TIMEOUT, none_is_bad=False),
    "session_mode": bad_member("isolated", "main"),
    "user_id": bad_text(MAX_NAME, none_is_bad=False),
    "overlap": bad_member("skip", "buffer_one", "buffer_all", "cancel_other", "allow_all"),
    "misfire": lambda c: thing(c),
    "history": lambda c: thing(c, dict, bool, type(None)),
    "executor_options": lambda c: thing(c, dict),
    "description": bad_text(MAX_DESCRIPTION, empty_is_bad=False),
    "tags": lambda c: thing(c, list, tuple, dict, set, frozenset, range, type(iter([]))),
    "data": bad_data,
    "enabled": lambda c: thing(c, bool, type(None)),
}
CONFIG: Mapping[str, Maker] = {
    "schema": bad_text(63),
    "timezone": bad_zone(),
    "default_max_retries": bad_whole(0, MAX_RETRIES),
    "default_timeout_secs": bad_number(0.001, MAX_TIMEOUT),
    "max_concurrent_runs": bad_whole(1, MAX_SLOTS),
    "max_concurrent_runs_total": bad_whole(1, MAX_SLOTS, none_is_bad=False),
    "retry": lambda c: thing(c),
    "history": lambda c: thing(c, dict, bool, type(None)),
    "cancel_grace": bad_number(0, MAX_TIMEOUT),
    "shutdown_grace": bad_number(0, MAX_TIMEOUT),
    "overdue_after": bad_number(1, MAX_TIMEOUT, none_is_bad=False),
    "jobs": lambda c: thing(c, list, tuple, dict, set, frozenset, range, type(iter([]))),
    "origin": bad_text(MAX_PATH, none_is_bad=False),
    "file": bad_text(MAX_PATH, none_is_bad=False),
    "database": bad_text(MAX_PATH, none_is_bad=False),
    "executor": bad_text(MAX_PATH, none_is_bad=False),
}
STATUS = bad_member(*(status.value for status in RunStatus))
LIMIT = bad_whole(1, 1_000_000)
LIMIT_OR_NONE = bad_whole(1, 1_000_000, none_is_bad=False)
USER = bad_text(MAX_NAME, none_is_bad=False)
