"""Fixtures of chaos tests: a printed seed, printed figures, and a longer limit for full tests."""

from __future__ import annotations

import faulthandler
import os
import random
from collections.abc import Callable

import pytest

FULL_LIMIT = 3 * 3600  # after so long (s) a full test shows its stacks and ends the process


@pytest.fixture(autouse=True)
def longer_limit(request: pytest.FixtureRequest) -> None:
    """Give a full test a longer limit than that of all tests, which has been set before."""
    if request.node.get_closest_marker("chaos"):
        faulthandler.dump_traceback_later(FULL_LIMIT, exit=True)


@pytest.fixture
def seed(record_property: Callable[[str, object], None]) -> int:
    """The seed of everything random; CHAOS_SEED repeats one."""
    chosen = int(os.environ.get("CHAOS_SEED") or random.SystemRandom().randrange(10**9))
    record_property("seed", chosen)
    return chosen


@pytest.fixture
def figures(record_property: Callable[[str, object], None]) -> Callable[[str], None]:
    """A function that takes one line of measurements, printed at the end of the session."""

    def add_line(line: str) -> None:
        record_property("figures", line)

    return add_line
