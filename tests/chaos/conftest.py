"""What chaos tests share: a seed that is printed, figures that are printed, and longer patience for the full ones."""

from __future__ import annotations

import faulthandler
import os
import random
from collections.abc import Callable

import pytest

FULL_LIMIT = 3 * 3600  # seconds after which a full test shows its stacks and ends the process


@pytest.fixture(autouse=True)
def patience(request: pytest.FixtureRequest) -> None:
    """A full test may take longer than the limit of all tests, which has been armed before."""
    if request.node.get_closest_marker("chaos"):
        faulthandler.dump_traceback_later(FULL_LIMIT, exit=True)


@pytest.fixture
def seed(record_property: Callable[[str, object], None]) -> int:
    """A number for all that is random; CHAOS_SEED repeats one."""
    chosen = int(os.environ.get("CHAOS_SEED") or random.SystemRandom().randrange(10**9))
    record_property("seed", chosen)
    return chosen


@pytest.fixture
def figures(record_property: Callable[[str, object], None]) -> Callable[[str], None]:
    """Takes one line of what was measured, printed at the end of the session."""

    def tell(line: str) -> None:
        record_property("figures", line)

    return tell
