"""The options of a job for its executor: a small, immutable mapping of JSON values."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final, final

from cronactors.errors import InvalidJob
from cronactors.json_value import Json, JsonCopy, JsonText

MAX_OPTIONS = 4_096
"""Longest executor options of a job (bytes of JSON)."""


@final
class ExecutorOptions(JsonText, Mapping[str, Json]):
    """The options of a job for its executor: a `JsonText` that is a mapping.

    Args:
        text: A JSON object.
    """

    __slots__ = ()

    def __init__(self, text: str = "{}") -> None:
        super().__init__(text, "executor_options")

    def read(self) -> dict[str, Json]:
        """Return a copy of the options.

        Raises:
            InvalidJob: The text is not a JSON object, as the file is damaged.
        """
        if self.text == "{}":
            return {}
        found = super().read()
        if not isinstance(found, dict):
            raise InvalidJob("executor_options cannot be read: what is stored is not a JSON object")
        return found

    def __getitem__(self, key: str) -> Json:
        """Return the value of a key."""
        return self.read()[key]

    def __iter__(self) -> Iterator[str]:
        """Iterate over the keys."""
        return iter(self.read())

    def __len__(self) -> int:
        """Return the number of options."""
        return len(self.read())

    def __eq__(self, other: object) -> bool:
        """Whether the other has equal keys and values. Compared with other options 1 and 1.0 differ, as their JSON text does."""
        if isinstance(other, ExecutorOptions):
            return self.text == other.text
        return isinstance(other, Mapping) and self.read() == dict(other)

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
    return ExecutorOptions(JsonCopy(field, MAX_OPTIONS, "a mapping of JSON values").text(value))
