"""The lifetime of a store: owners that cannot sign off do so later."""

from __future__ import annotations

import pytest
import trio

from cronactors import StoreUnavailable, open_store
from cronactors.actors.actor_requests import SignOff
from cronactors.storage.protocol import Storage


async def test_an_owner_that_could_not_sign_off_does_so_with_the_next_one(virtual_clock, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(self: SignOff, storage: Storage) -> None:
        raise StoreUnavailable("the disk is full")

    async with open_store(":memory:") as store:
        service = store._service
        with monkeypatch.context() as patch:
            patch.setattr(SignOff, "apply", failing)
            for _ in range(2):
                await service.sign_off((await service.register()).owner, trio.current_time() + 1)
        assert len(service.not_signed_off) == 2
        await service.sign_off((await service.register()).owner, trio.current_time() + 1)
        assert (service.owners, service.not_signed_off) == (set(), set())
