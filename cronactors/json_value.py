"""Values of JSON that cannot change, as jobs, requests and results carry them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Final, TypeAlias

from cronactors.errors import InvalidJob, shorten

Json: TypeAlias = "str | int | float | bool | list[Json] | dict[str, Json] | None"
"""A value of JSON, as it is read."""

JsonInput: TypeAlias = "str | int | float | bool | Sequence[JsonInput] | Mapping[str, JsonInput] | None"
"""A value of JSON, as it is given: any mapping with text as keys, lists, tuples, and plain values."""

MAX_DEPTH = 100
"""Most levels of lists and mappings in a value."""


_SIMPLE: Final = frozenset({int, bool, type(None)})
"""Types whose values need no check; to copy long lists of them without calls takes a third of the time."""


class JsonText:
    """A value of JSON, kept as its text.

    We store the text and parse it at each `read`. So a caller gets copies of lists and dicts, which no run can change for the others,
    and a run that does not read it pays nothing. The value may hold a secret: neither repr nor errors show it.

    Args:
        text: The JSON.
        field: How errors name the value.
    """

    __slots__ = ("_field", "text")

    def __init__(self, text: str, field: str) -> None:
        self.text: Final = text
        self._field: Final = field

    def read(self) -> Json:
        """Return a copy of the value.

        Raises:
            InvalidJob: The text is no JSON, as the file is damaged.
        """
        try:
            found: Json = json.loads(self.text)
        except (ValueError, RecursionError):
            raise InvalidJob(f"{self._field} cannot be read: what is stored is not JSON") from None
        return found

    def __eq__(self, other: object) -> bool:
        """Whether the other has the same JSON. 1 and 1.0 differ, as their JSON does; the order of keys does not matter."""
        return isinstance(other, JsonText) and self.text == other.text

    def __hash__(self) -> int:
        """Hash the text."""
        return hash(self.text)

    def __repr__(self) -> str:
        """Show that there is a value, and nothing of it."""
        return f"<{self._field}>"


class JsonCopy:
    """Copies a user's value to JSON text, and refuses it as soon as the text would be too long.

    Every value takes at least two characters, with its comma or bracket. So a list that holds one list ten times, which holds one ten
    times and so on, is refused after as many steps as the limit has characters, and not when memory is full.

    Args:
        field: How errors name the value.
        limit: The longest text (bytes).
        kind: What errors call a value of the right type.
    """

    def __init__(self, field: str, limit: int, kind: str = "a JSON value") -> None:
        self._field = field
        self._limit = limit
        self._kind = kind
        self._left = 2 * limit + 1  # up to twice the limit the message can give the size

    def text(self, value: object) -> str:
        """Return the JSON of a value, with sorted keys.

        Raises:
            InvalidJob: The value is refused; the message names the field and the key in it, never the value.
        """
        field = self._field
        try:
            copied = self._copy(field, value, 0)
            text = json.dumps(copied, allow_nan=False, sort_keys=True, separators=(",", ":"))
        except InvalidJob:
            raise
        except Exception as problem:  # a user's mapping can raise anything
            raise InvalidJob(f"{field} must be {self._kind}: it cannot be read ({type(problem).__name__})") from problem
        if len(text) > self._limit:
            raise InvalidJob(f"{field} is too long: {len(text):,} bytes of JSON, at most {self._limit:,} are allowed")
        return text

    def _copy(self, field: str, value: object, depth: int) -> Json:
        self._spend(2)
        if depth > MAX_DEPTH:
            raise InvalidJob(f"{field} is too deep: at most {MAX_DEPTH} levels are allowed")
        match value:
            case None | bool() | int():
                return value
            case str():
                self._spend(len(value))
                _check_text(field, value)
                return str(value)
            case float():
                if value - value != 0:  # not finite
                    raise InvalidJob(f"{field} must be a finite number")
                return value
            case Mapping():
                return {
                    self._key(field, key): self._copy(field if depth else f"{field}[{shorten(key)}]", each, depth + 1)
                    for key, each in value.items()
                }
            case list() | tuple():
                self._spend(2 * sum(type(each) in _SIMPLE for each in value))
                return [each if type(each) in _SIMPLE else self._copy(field, each, depth + 1) for each in value]
            case _:
                raise InvalidJob(f"{field} must be a JSON value, not {type(value).__name__}")

    def _key(self, field: str, key: object) -> str:
        if not isinstance(key, str):
            raise InvalidJob(f"{field} must have text as keys, not {shorten(key)}")
        self._spend(len(key))
        _check_text(f"a key of {field}", key)
        return key

    def _spend(self, characters: int) -> None:
        self._left -= characters
        if self._left < 0:
            raise InvalidJob(f"{self._field} is too long: at most {self._limit:,} bytes of JSON are allowed")


def _check_text(field: str, text: str) -> None:
    if "\0" in text:
        raise InvalidJob(f"{field} contains a NUL character")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise InvalidJob(f"{field} contains a lone surrogate") from None
