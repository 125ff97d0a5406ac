"""What the end of a lease tells, and what a service does with owners that cannot sign off."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import trio

from cronactors import Interval, RunStatus, StoreUnavailable, open_store
from cronactors.actors import store_lifetime as service_module
from cronactors.actors.actor_requests import SignOff
from cronactors.actors.store_lifetime import LeaseTrust
from cronactors.ledger.leases import LEASE
from cronactors.storage.protocol import Storage


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


class Watch:
    """The time module as a service sees it, with a clock that the test sets."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now

    def time_ns(self) -> int:
        return 0


async def test_the_heart_beats_each_10_s_while_a_run_is_open_and_each_60_s_when_idle(tmp_path, monkeypatch) -> None:
    watch = Watch()
    monkeypatch.setattr(service_module, "time", watch)
    async with open_store(tmp_path / "a.db") as store:
        service = store._service
        heart = service_module._Heart(service)
        job_id = await store.add_job("job", "it", Interval.every(ms=3_600_000))
        beats: list[float] = []
        monkeypatch.setattr(service_module, "RenewLeases", noting(beats, watch, service_module.RenewLeases))

        async def pass_beats(count: int) -> list[float]:
            beats.clear()
            for _ in range(count):
                watch.now += 10
                assert await service.actor._hop(heart)
            return [beat - 1000 for beat in beats]

        assert await pass_beats(12) == []  # nobody is registered: an open store that only reads writes nothing
        run_id = await store.record_run_start(job_id)
        assert await pass_beats(5) == [130, 140, 150, 160, 170]
        await store.record_run_complete(run_id, RunStatus.SUCCESS)
        assert await pass_beats(13) == [230, 290]


def noting(beats: list[float], watch: Watch, request: Callable[[tuple[int, ...]], object]) -> Callable[[tuple[int, ...]], object]:
    def make(owners: tuple[int, ...]) -> object:
        beats.append(watch.now)
        return request(owners)

    return make


async def test_owners_that_could_not_sign_off_do_so_with_the_next_one(virtual_clock, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(self: SignOff, storage: Storage) -> None:
        raise StoreUnavailable("the disk is full")

    async with open_store(":memory:") as store:
        service = store._service
        with monkeypatch.context() as patch:
            patch.setattr(SignOff, "apply", failing)
            for _ in range(2):
                await service.sign_off((await service.register()).owner, trio.current_time() + 1)
        assert len(service.unsigned) == 2
        await service.sign_off((await service.register()).owner, trio.current_time() + 1)
        assert (service.owners, service.unsigned) == (set(), set())
