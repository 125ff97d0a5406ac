"""`CronStore` is made by functions only."""

from __future__ import annotations

import pytest

from cronactors import CronStore, open_store
from cronactors.testing import VirtualClock


@pytest.mark.parametrize("args", [(), ("agent.db",)])
def test_a_store_has_no_public_constructor(args: tuple[str, ...]) -> None:
    with pytest.raises(TypeError, match=r"no public constructor: use open_store\(\)"):
        CronStore(*args)


async def test_a_store_is_what_open_store_yields(virtual_clock: VirtualClock) -> None:
    async with open_store(":memory:") as store:
        assert type(store) is CronStore
