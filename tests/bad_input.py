"""Bad values for each field of the public API, and a check of the error that one gives."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import pytest

from cronactors import Cron, CronError
from cronactors.errors import shorten

NUL, LONE, SECRET = "a\0b", "a\ud800b", "SECRET"
HUGE = 10**400
NOT_TEXT: tuple[object, ...] = (None, 5, True, b"x", ["x"], {}, object())
BAD_TEXT: tuple[object, ...] = (*NOT_TEXT, "", NUL, LONE)
BAD_ID: tuple[object, ...] = (*BAD_TEXT, "x" * 201)
BAD_ZONE: tuple[object, ...] = (5, b"UTC", [], "", "Europe/Atlantis", "../etc/passwd", "/UTC", NUL, LONE, "x" * 10_000)
BAD_FLAG: tuple[object, ...] = (None, 0, 1, "yes", [])
BAD_LIMIT: tuple[object, ...] = (0, -1, True, 1.5, "10", b"1", [], 10**7, HUGE, 10**5000)
NUMBERS = [str(number) for number in range(33)]
NESTED: list[object] = []
NESTED.append(NESTED)

SPEC_FIELDS: Mapping[str, Sequence[object]] = {
    "name": (*BAD_TEXT, "x" * 201, " x", "x ", "a\nb", "\u2028"),
    "prompt": (*BAD_TEXT, SECRET * 200_000),
    "schedule": (None, 5, "* * * * *", {"kind": "cron"}, Cron, datetime(2026, 1, 1, tzinfo=UTC)),
    "delete_after_run": BAD_FLAG,
    "timezone": BAD_ZONE,
    "max_retries": (-1, 1_001, 1.0, "3", True, [], HUGE, 10**5000),
    "timeout_secs": (0, -1, math.nan, math.inf, "5", True, [], 10**9, HUGE),
    "session_mode": (None, 5, [], "", "shared", "MAIN", {}),
    "user_id": (5, b"x", True, [], "", NUL, LONE, "x" * 201),
    "overlap": (None, 5, [], "", "never"),
    "misfire": (None, 5, "latest", {}),
    "history": (5, "90", {}, True, [90]),
    "enabled": tuple(value for value in BAD_FLAG if value is not None),
    "executor_options": (None, 5, True, [], "{}", b"{}", object()),
    "description": (*NOT_TEXT, NUL, LONE, "x" * 1_001),
    "tags": (
        None,
        5,
        True,
        "x",
        b"x",
        {"x": 1},
        object(),
        [""],
        [5],
        [None],
        ["x" * 101],
        ["a\nb"],
        [" a"],
        [NUL],
        [LONE],
        NUMBERS,
    ),
    "data": (b"x", object(), {1, 2}, math.nan, math.inf, NUL, LONE, {5: SECRET}, {"a": [object()]}, SECRET * 200_000, NESTED),
}


def cases(fields: Mapping[str, Sequence[object]]) -> list[Any]:
    """One parameter set for each field and bad value."""
    return [
        pytest.param(field, value, id=f"{field}-{number}")
        for field, values in fields.items()
        for number, value in enumerate(values)
    ]


def check(error: CronError, field: str, value: object) -> None:
    """The message is one printable line with the field and the value; texts, prompts and options may be secret, so it shows no value."""
    message = str(error)
    assert field in message
    assert message.isprintable()
    assert len(message) <= 500
    assert SECRET not in message
    if not isinstance(value, str):
        if field == "data":
            return
        if field in ("prompt", "executor_options"):
            assert f"not {type(value).__name__}" in message
            return
        if field == "tags" and isinstance(value, list):
            assert "tags[0]" in message or "33 different tags" in message
            return
        assert shorten(value) in message
