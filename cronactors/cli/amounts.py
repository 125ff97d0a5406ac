"""Numbers of things, sizes and lengths of time, in words."""

from __future__ import annotations

_UNITS = ("bytes", "kB", "MB", "GB", "TB")
_STEP = 1_000
_TIMES = ((86_400, 3_600, "d", "h"), (3_600, 60, "h", "min"), (60, 1, "min", "s"))
_SHORT = 9.995
"""From here on (s) a length of time is written in whole seconds: with two decimals it would be shown as 10.00."""


def count(number: int, noun: str, *, most: int | None = None) -> str:
    """Write a number and its noun; ``most`` is how far was counted."""
    return f"{number:,}{' or more' if number == most else ''} {noun}{'' if number == 1 else 's'}"


def more(number: int, shown: int) -> str:
    """Write how many things of a list are not shown, to be written after those that are; "" if all are."""
    return f" and {number - shown:,} more" if number > shown else ""


def size(amount: float) -> str:
    """Write a size (bytes) with three digits."""
    for unit in _UNITS[:-1]:
        if amount < _STEP:
            return f"{amount:.3g} {unit}"
        amount /= _STEP
    return f"{amount:.3g} {_UNITS[-1]}"


def length(seconds: float) -> str:
    """Write a length of time in two units at most: ``0.01 s``, ``59 s``, ``2 min 5 s``, ``3 h 20 min``, ``4 d 1 h``."""
    if seconds < 0:
        return f"-{length(-seconds)}"
    if seconds < _SHORT:
        return f"{seconds:.2f} s"
    rest = round(seconds)
    for unit, part, name, part_name in _TIMES:
        if rest >= unit:
            left = rest % unit // part
            return f"{rest // unit:,} {name}{f' {left} {part_name}' if left else ''}"
    return f"{rest} s"


def span(millis: int) -> str:
    """Write how long (ms) something lasts or is ago; 0 if a clock that was set back makes it negative."""
    return length(max(0, millis) / 1000)
