"""Numbers of things, and sizes, in words."""

from __future__ import annotations

_UNITS = ("bytes", "kB", "MB", "GB", "TB")
_STEP = 1_000


def count(number: int, noun: str, *, most: int | None = None) -> str:
    """Write a number and its noun; ``most`` is how far was counted."""
    return f"{number:,}{' or more' if number == most else ''} {noun}{'' if number == 1 else 's'}"


def size(amount: float) -> str:
    """Write a size (bytes) with three digits."""
    for unit in _UNITS[:-1]:
        if amount < _STEP:
            return f"{amount:.3g} {unit}"
        amount /= _STEP
    return f"{amount:.3g} {_UNITS[-1]}"
