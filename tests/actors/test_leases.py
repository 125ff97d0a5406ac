"""When the end of a lease can be trusted, and how often heartbeats are given."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import trio

from cronactors import Interval, RunStatus, open_store
from cronactors.actors import leases as leases_module
from cronactors.actors.leases import Heartbeats, LeaseTrust
from cronactors.ledger.leases import LEASE


@pytest.mark.parametrize("jump", [3_600_000, -3_600_000, 86_400_000])
async def test_leases_are_trusted_once_the_clocks_have_gone_evenly_for_the_length_of_one(autojump_clock, jump: int) -> None:
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


async def test_a_wall_clock_that_is_slewed_does_not_count_as_set(autojump_clock) -> None:
    trust = LeaseTrust(lambda: round(trio.current_time() * 1010))
    for _ in range(40):
        await trio.sleep(1)
        trust.trusted()
    assert trust.trusted()


class FakeTime:
    """The time module as `actors.leases` sees it, with a clock that the test sets."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now

    def time_ns(self) -> int:
        return 0


async def test_heartbeats_come_every_10_s_while_a_run_is_open_and_every_60_s_when_idle(tmp_path, monkeypatch) -> None:
    fake_time = FakeTime()
    monkeypatch.setattr(leases_module, "time", fake_time)
    async with open_store(tmp_path / "a.db") as store:
        service = store._service
        heartbeats = Heartbeats(service.actor.storage, service.owners)
        job_id = await store.add_job("job", "it", Interval.every(ms=3_600_000))
        beats: list[float] = []
        monkeypatch.setattr(leases_module, "RenewLeases", recording(beats, fake_time, leases_module.RenewLeases))

        async def call_heartbeats(count: int) -> list[float]:
            beats.clear()
            for _ in range(count):
                fake_time.now += 10
                assert await service.actor._hop(heartbeats)
            return [beat - 1000 for beat in beats]

        assert await call_heartbeats(12) == []  # no owner is registered: an open store that only reads writes nothing
        run_id = await store.record_run_start(job_id)
        assert await call_heartbeats(5) == [130, 140, 150, 160, 170]
        await store.record_run_complete(run_id, RunStatus.SUCCESS)
        assert await call_heartbeats(13) == [230, 290]


def recording(
    beats: list[float], fake_time: FakeTime, request: Callable[[tuple[int, ...]], object]
) -> Callable[[tuple[int, ...]], object]:
    def make(owners: tuple[int, ...]) -> object:
        beats.append(fake_time.now)
        return request(owners)

    return make
