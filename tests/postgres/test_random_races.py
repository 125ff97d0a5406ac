"""Machines that carry out random requests beside each other; see `random_races`."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.postgres.random_races import play
from tests.postgres.two_connections import Locks


@pytest.mark.slow
@pytest.mark.parametrize(("machines", "seed"), [(2, 1), (3, 2)])
def test_machines_beside_each_other(machines: int, seed: int, record_property: Callable[[str, object], None]) -> None:
    record_property("seed", seed)
    record_property("figures", play(seed, machines=machines, steps=80))


@pytest.mark.slow
def test_without_locks_they_go_wrong() -> None:
    """What goes wrong depends on how they meet, and nearly each seed does."""
    with pytest.raises(Exception) as caught:
        for seed in range(10):
            play(seed, steps=200, locks=Locks.NONE)
    assert any("seed" in note for note in caught.value.__notes__)


@pytest.mark.chaos
@pytest.mark.parametrize("machines", [2, 3, 4])
@pytest.mark.parametrize("seed", range(40))
def test_many_machines_beside_each_other(machines: int, seed: int) -> None:
    play(seed, machines=machines, steps=200)
