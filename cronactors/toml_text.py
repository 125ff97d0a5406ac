"""Writes values as TOML 1.0, so that people can read the result and `tomllib` reads the same values. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable

from cronactors.json_value import Json

_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_ESCAPES = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\t": "\\t", "\r": "\\r"}
_LAST_OF_FOUR = 0xFFFF
"""The last character that ``\\uXXXX`` can name."""


def toml_string(text: str) -> str:
    """Write text as a string: without escapes if it can be, on several lines if it has several.

    Raises:
        ValueError: A lone surrogate is in it.
    """
    text.encode()
    if not text.translate({9: None, 10: None}).isprintable():
        return _basic(text)
    if "\n" in text:
        return f"'''\n{text}'''" if _fits_literal_lines(text) else _basic(text)
    if "\t" not in text and not re.search(r'["\\]', text):
        return f'"{text}"'
    if "'" not in text:
        return f"'{text}'"
    return f"'''{text}'''" if _fits_literal_lines(text) and not text.startswith("'") else _basic(text)


def _fits_literal_lines(text: str) -> bool:
    return "'''" not in text and not text.endswith("'")


def _basic(text: str) -> str:
    return f'"{"".join(_escaped(character) for character in text)}"'


def _escaped(character: str) -> str:
    if character in _ESCAPES:
        return _ESCAPES[character]
    if character.isprintable():
        return character
    number = ord(character)
    return f"\\u{number:04x}" if number <= _LAST_OF_FOUR else f"\\U{number:08x}"


def toml_value(value: Json) -> str:
    """Write a JSON value on one line; text may take several.

    Raises:
        ValueError: A null is in it, which TOML lacks, or a lone surrogate.
    """
    match value:
        case None:
            raise ValueError("TOML has no null")
        case bool():
            return "true" if value else "false"
        case int() | float():
            return repr(value)
        case str():
            return toml_string(value)
        case list():
            return f"[{', '.join(_on_one_line(each) for each in value)}]"
        case _:
            items = ", ".join(f"{toml_key(key)} = {_on_one_line(each)}" for key, each in value.items())
            return f"{{ {items} }}" if items else "{}"


def _on_one_line(value: Json) -> str:
    """Write a value inside a list or a table, where text on several lines would be hard to read."""
    return _basic(value) if isinstance(value, str) and "\n" in value else toml_value(value)


def toml_key(key: str) -> str:
    """Write a key, in quotes where it needs them."""
    return key if _BARE_KEY.fullmatch(key) else _basic(key)


def toml_comment(text: str) -> str:
    """Write text as a comment, one line for each of its lines. Control characters and lone surrogates become escapes."""
    return "\n".join(f"# {line}".rstrip() for line in map(_printable, text.split("\n")))


def _printable(line: str) -> str:
    return "".join(char if char == "\t" or char.isprintable() else ascii(char)[1:-1] for char in line)


def toml_table(header: str, items: Iterable[tuple[str, Json]]) -> str:
    """Write a table: its header and a line for each key; "" is the header of the table at the top of a file."""
    lines = [f"{toml_key(key)} = {toml_value(value)}" for key, value in items]
    return "\n".join([header, *lines] if header else lines)
