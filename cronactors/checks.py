"""Checks of values that users pass in.

Each takes the name of the field, the value and the class of the error to raise, whose message names field and value.
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import TypeVar

from cronactors.errors import CronError, shorten
from cronactors.instants import Millis, to_millis

_E = TypeVar("_E", bound=StrEnum)


def text(field: str, value: object, error: type[CronError], *, limit: int, empty: bool = False) -> str:
    """Check text: a str of 1 (or 0) to ``limit`` characters, without NUL and without lone surrogates.

    The message never shows the text, which may be a secret, only its length.
    """
    if not isinstance(value, str):
        raise error(f"{field} must be text, not {type(value).__name__} ({shorten(value)})")
    if not value and not empty:
        raise error(f"{field} must not be empty")
    if len(value) > limit:
        raise error(f"{field} is too long: {len(value):,} characters, at most {limit:,} are allowed")
    if "\0" in value:
        raise error(f"{field} contains a NUL character at position {value.index(chr(0))}")
    try:
        value.encode()
    except UnicodeEncodeError as problem:
        raise error(f"{field} contains a lone surrogate at position {problem.start}") from None
    return str(value)


def whole(field: str, value: object, error: type[CronError], *, least: int, most: int) -> int:
    """Check a whole number from ``least`` to ``most``; a bool is refused."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise error(f"{field} must be a whole number, not {type(value).__name__} ({shorten(value)})")
    if not least <= value <= most:
        raise error(f"{field} must be {least:,} to {most:,}, not {shorten(value)}")
    return int(value)


def number(field: str, value: object, error: type[CronError], *, least: float, most: float) -> float:
    """Check a finite int or float from ``least`` to ``most``; a bool is refused."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise error(f"{field} must be a number, not {type(value).__name__} ({shorten(value)})")
    if not least <= value <= most:  # also refuses NaN
        raise error(f"{field} must be {least:,} to {most:,}, not {shorten(value)}")
    return value


def instant(field: str, value: object, error: type[CronError]) -> Millis:
    """Check an aware datetime, and return its instant (ms)."""
    if not isinstance(value, datetime):
        raise error(f"{field} must be a datetime, not {shorten(value)}")
    try:
        return to_millis(value)
    except Exception:  # noqa: BLE001 - it has no zone, or a user's tzinfo raises
        raise error(f"{field} must be an aware datetime (one with a zone), not {shorten(value)}") from None


def flag(field: str, value: object, error: type[CronError]) -> bool:
    """Check a bool."""
    if not isinstance(value, bool):
        raise error(f"{field} must be True or False, not {shorten(value)}")
    return value


def member(field: str, value: object, error: type[CronError], kind: type[_E]) -> _E:
    """Check a member of an enumeration or its text, and return the member."""
    try:
        return kind(value)  # type: ignore[arg-type]  # the lookup refuses other types
    except Exception:  # noqa: BLE001 - the lookup hashes the value, and a user's object can raise anything
        allowed = ", ".join(kind)
        raise error(f"{field} must be one of {allowed}, not {shorten(value)}") from None
