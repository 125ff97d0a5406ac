"""The tags of a job: words by which users find jobs."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from functools import lru_cache
from itertools import islice
from typing import Final

from cronactors import checks
from cronactors.errors import InvalidJob, shorten

MAX_TAGS = 32
"""Most tags of a job."""
MAX_TAG = 100
"""Longest tag, in characters."""

NO_TAGS: Final = "[]"
"""The column of a job without tags."""

_MOST_GIVEN = 1_000


def check_tag(field: str, value: object) -> str:
    """Check a tag: 1 to 100 printable characters on one line, without outer spaces."""
    tag = checks.text(field, value, InvalidJob, limit=MAX_TAG)
    if not tag.isprintable() or tag != tag.strip():
        raise InvalidJob(f"{field} must be printable, on one line and without outer spaces, not {shorten(tag)}")
    return tag


def check_tags(field: str, value: object) -> tuple[str, ...]:
    """Check the tags of a job: at most 32 different ones; return them sorted, each once.

    Raises:
        InvalidJob: The value is no list of text, or a tag is refused.
    """
    if isinstance(value, str | bytes | Mapping) or not isinstance(value, Iterable):
        raise InvalidJob(f"{field} must be a list of text, not {type(value).__name__} ({shorten(value)})")
    given = list(islice(value, _MOST_GIVEN + 1))  # the iterable may be infinite
    if len(given) > _MOST_GIVEN:
        raise InvalidJob(f"{field} holds more than {_MOST_GIVEN:,} items, at most {MAX_TAGS} different tags are allowed")
    tags = {check_tag(f"{field}[{index}]", tag) for index, tag in enumerate(given)}
    if len(tags) > MAX_TAGS:
        raise InvalidJob(f"{field} holds {len(tags):,} different tags, at most {MAX_TAGS} are allowed")
    return tuple(sorted(tags))


def convert_tags(value: Iterable[str]) -> tuple[str, ...]:
    """Convert and check the field ``tags``."""
    return _check_tuple(value) if type(value) is tuple and {*map(type, value)} <= {str} else check_tags("tags", value)


@lru_cache(maxsize=256)
def _check_tuple(tags: tuple[str, ...]) -> tuple[str, ...]:
    """Check tags as `check_tags` does: few jobs have tags that no other has."""
    return check_tags("tags", tags)


def tags_to_column(tags: tuple[str, ...]) -> str:
    """Write checked tags for their column: a JSON list."""
    return json.dumps(tags, separators=(",", ":")) if tags else NO_TAGS


@lru_cache(maxsize=256)
def tags_from_column(text: str) -> tuple[str, ...]:
    """Read tags from their column.

    Raises:
        InvalidJob: They cannot be read, as the file is damaged.
    """
    if text == NO_TAGS:
        return ()
    try:
        return check_tags("tags", json.loads(text))
    except (ValueError, RecursionError):
        raise InvalidJob(f"tags {shorten(text)} cannot be read") from None


def tags_to_find(text: str) -> tuple[str, ...]:
    """Read the tags by which a job is found; one whose tags cannot be read is found by none."""
    try:
        return tags_from_column(text)
    except InvalidJob:
        return ()
