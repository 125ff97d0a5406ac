"""Ids: of jobs, which are UUIDs of version 7 and grow with time; of runs and owners, which are the numbers of their rows."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable

from cronactors.spec import JobSpec, check_specs

_LOW = (1 << 62) - 1  # the last bits of a UUID, behind its variant
_DIGITS = 18  # of a row's number, at most: more would not fit into SQLite's integers


def with_ids(specs: Iterable[JobSpec]) -> tuple[tuple[str, JobSpec], ...]:
    """Give each specification an id of its own.

    Raises:
        InvalidJob: Something in ``specs`` is no `JobSpec`, or there are too many.
    """
    checked = check_specs("specs", specs)
    return tuple(zip(new_ids(len(checked)), checked, strict=True))


def new_ids(count: int) -> list[str]:
    """Make ids that grow with time (RFC 9562, UUID version 7, section 6.2, method 2): jobs added together are index neighbours.

    With random ids each run would write a page of its own of the history's index: 8 us more, of some 90.
    """
    head = f"{time.time_ns() // 1_000_000:012x}"
    first = int.from_bytes(os.urandom(10), "big") >> 7  # 73 bits, so that there is room to grow in 74
    return [f"{head}7{tail >> 62:03x}{0b10 << 62 | tail & _LOW:016x}" for tail in range(first, first + count)]


def row_number(text: str) -> int | None:
    """Read the number of a row; None: it is none."""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= _DIGITS else None
