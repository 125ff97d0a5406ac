"""The options of a job for its executor: a small, immutable mapping of JSON values."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Final, TypeAlias, cast, final

from cronactors.errors import InvalidJob, shorten

Json: TypeAlias = "str | int | float | bool | list[Json] | dict[str, Json] | None"
"""A value of JSON."""

MAX_OPTIONS = 4_096
"""Longest executor options of a job (bytes of JSON)."""
_MAX_DEPTH = 20


@final
class ExecutorOptions(Mapping[str, Json]):
    """The options of a job for its executor.

    We store JSON text and parse it at each access. So a caller gets copies of lists and dicts, which no run can change for the others,
    and a run without options costs nothing. Options may hold a secret: neither repr nor errors show values.

    Args:
        text: A JSON object.
    """

    __slots__ = ("text",)

    def __init__(self, text: str = "{}") -> None:
        self.text: Final = text

    def _read(self) -> dict[str, Json]:
        """Parse the text.

        Raises:
            InvalidJob: It is not a JSON object, as the file is damaged.
        """
        if self.text == "{}":
            return {}
        try:
            found = json.loads(self.text)
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, dict):
            raise InvalidJob("executor_options cannot be read: what is stored is not a JSON object")
        return found

    def __getitem__(self, key: str) -> Json:
        """Return the value of a key."""
        return self._read()[key]

    def __iter__(self) -> Iterator[str]:
        """Iterate over the keys."""
        return iter(self._read())

    def __len__(self) -> int:
        """Return the number of options."""
        return len(self._read())

    def __eq__(self, other: object) -> bool:
        """Whether the other has equal keys and values. Compared with other options 1 and 1.0 differ, as their JSON text does."""
        if isinstance(other, ExecutorOptions):
            return self.text == other.text
        return isinstance(other, Mapping) and self._read() == dict(other)

    def __hash__(self) -> int:
        """Hash the text."""
        return hash(self.text)

    def __repr__(self) -> str:
        """Show whether there are options, and none of them."""
        return "<executor options>" if self.text != "{}" else "{}"


NO_OPTIONS: Final = ExecutorOptions()


def check_executor_options(field: str, value: object) -> ExecutorOptions:
    """Check and copy options: a mapping of text to JSON values, at most 4,096 bytes as JSON.

    Raises:
        InvalidJob: The value is refused; the message names the key, never the value of an option.
    """
    if isinstance(value, ExecutorOptions):
        return value
    if not isinstance(value, Mapping):
        raise InvalidJob(f"{field} must be a mapping of JSON values, not {type(value).__name__}")
    try:
        copied = {key: _copy(f"{field}[{shorten(key)}]", each, 1) for key, each in value.items() if _is_key(field, key)}
        text = json.dumps(copied, allow_nan=False, sort_keys=True, separators=(",", ":"))
    except InvalidJob:
        raise
    except Exception as problem:  # a user's mapping can raise anything
        raise InvalidJob(f"{field} must be a mapping of JSON values: it cannot be read ({type(problem).__name__})") from problem
    if len(text) > MAX_OPTIONS:
        raise InvalidJob(f"{field} is too long: {len(text):,} bytes of JSON, at most {MAX_OPTIONS:,} are allowed")
    return ExecutorOptions(text)


def _is_key(field: str, key: object) -> bool:
    if not isinstance(key, str):
        raise InvalidJob(f"{field} must have text as keys, not {shorten(key)}")
    _check_text(f"a key of {field}", key)
    return True


def _check_text(field: str, text: str) -> None:
    if "\0" in text:
        raise InvalidJob(f"{field} contains a NUL character")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise InvalidJob(f"{field} contains a lone surrogate") from None


def _copy(field: str, value: object, depth: int) -> Json:
    """Copy one JSON value; the limit on depth also stops at a value that contains itself."""
    if depth > _MAX_DEPTH:
        raise InvalidJob(f"{field} is too deep: at most {_MAX_DEPTH} levels are allowed")
    match value:
        case None | bool() | int():
            return value
        case str():
            _check_text(field, value)
            return str(value)
        case float():
            if value - value != 0:  # not finite
                raise InvalidJob(f"{field} must be a finite number")
            return value
        case Mapping():
            return {cast(str, key): _copy(field, each, depth + 1) for key, each in value.items() if _is_key(field, key)}
        case list() | tuple():
            return [_copy(field, each, depth + 1) for each in value]
        case _:
            raise InvalidJob(f"{field} must be a JSON value, not {type(value).__name__}")
