"""The fixture that the tests of the ledger share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import pytest

from tests.ledger_world import KINDS, World


@pytest.fixture(params=KINDS)
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    """Give a world on each kind of storage."""
    with closing(World(request.param)) as made:
        yield made
