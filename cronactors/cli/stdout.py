"""Lines and JSON on standard output, in whatever encoding it has."""

from __future__ import annotations

import codecs
import json
import re
import sys
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from functools import cache
from typing import TypeAlias, cast

import attrs

JsonValue: TypeAlias = str | int | float | bool | list[str] | dict[str, object] | None

MOST_INDENTED = 500
"""How many items of a list are indented: the encoder that indents takes seven times as long, 0.25 s for 10,000 jobs."""
_CONTROLS = re.compile("[\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")


def encoding() -> str:
    """Return the encoding of standard output."""
    return sys.stdout.encoding or "utf-8"


def printable(text: str) -> str:
    """Replace each character that the encoding of standard output lacks by its backslash escape; do it before columns are aligned."""
    return text if text.isascii() else text.encode(encoding(), "backslashreplace").decode(encoding())


def print_line(line: str = "") -> None:
    """Print a line and flush it."""
    print_lines([line])


def print_lines(lines: Iterable[str]) -> None:
    """Print lines and flush them together: 10,000 flushes take 20 ms."""
    sys.stdout.write(printable("".join(f"{line}\n" for line in lines)))
    sys.stdout.flush()


def json_value(value: object) -> JsonValue:
    """Convert a value to one of JSON: a time in UTC, a value with fields as an object, any other object as its text."""
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    if value is None or isinstance(value, str | int | float):
        return value
    if attrs.has(type(value)):
        return {key: json_value(each) for key, each in attrs.asdict(cast(attrs.AttrsInstance, value), recurse=False).items()}
    return str(value)


def json_text(value: object, *, indent: int | None = None) -> str:
    """Write a value as JSON; without ``indent`` on one line.

    Letters stay readable, except in an encoding that is no Unicode, which gets JSON's own escapes (RFC 8259, section 7). So does each
    character that JSON allows in a string and that controls a terminal, ends a line or changes the direction of text.
    """
    text = _encoder(codecs.lookup(encoding()).name.startswith("utf"), indent)(value)
    return text if text.isascii() and "\x7f" not in text else _CONTROLS.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


@cache
def _encoder(unicode: bool, indent: int | None) -> Callable[[object], str]:
    return json.JSONEncoder(indent=indent, ensure_ascii=not unicode).encode


def print_json(value: object) -> None:
    """Print a value as JSON. Each item of a long list is one line."""
    if isinstance(value, list) and len(value) > MOST_INDENTED:
        items = ",\n".join(map(json_text, value))
        print_line(f"[\n{items}\n]")
    else:
        print_line(json_text(value, indent=2))
