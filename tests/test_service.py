"""What the end of a lease tells, and what a service does with owners that cannot sign off."""

from __future__ import annotations

import pytest
import trio

from cronactors.actors.service import LeaseTrust
from cronactors.ledger.claim import LEASE


@pytest.mark.parametrize("jump", [3_600_000, -3_600_000, 86_400_000])
async def test_a_lease_tells_nothing_until_the_clocks_have_gone_evenly_for_its_length(autojump_clock, jump: int) -> None:
    set_by = 0
    trust = LeaseTrust(lambda: 1_000_000 + set_by + round(trio.current_time() * 1000))
    assert not trust.trusted()
    await trio.sleep(LEASE / 1000 - 1)
    assert not trust.trusted()
    await trio.sleep(1)
    assert trust.trusted()
    set_by = jump  # or the machine was suspended
    assert not trust.trusted()
    await trio.sleep(LEASE / 1000 - 1)
    assert not trust.trusted()
    await trio.sleep(1)
    assert trust.trusted()


async def test_a_clock_that_is_slewed_is_trusted(autojump_clock) -> None:
    trust = LeaseTrust(lambda: round(trio.current_time() * 1010))
    for _ in range(40):
        await trio.sleep(1)
        trust.trusted()
    assert trust.trusted()
