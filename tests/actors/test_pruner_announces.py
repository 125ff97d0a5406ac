"""History is deleted only after a scheduler has announced it."""

from __future__ import annotations

import pytest
import trio

from cronactors import CronConfig, CronJob, CronRun, History, Interval, JobSpec, StoreUnavailable, open_scheduler, open_store
from cronactors.actors.actor_requests import Register, Registered
from cronactors.actors.notification_requests import TakeOver
from cronactors.actors.store_lifetime import StoreService
from cronactors.storage.protocol import Storage
from cronactors.testing import VirtualClock
from tests.workers import nothing

DAY = 86_400
SHORT = CronConfig(history=History(days=1, keep_last=1))


async def on_finish(job: CronJob, run: CronRun) -> None:
    pass


@pytest.mark.parametrize("request_type", [Register, TakeOver])
async def test_a_start_that_fails_before_it_has_announced_the_deletion_leaves_it_to_the_next_one(
    virtual_clock: VirtualClock, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, request_type: type
) -> None:
    """It fails after its registration is committed, or its answer is lost."""
    jobs = [JobSpec("job", "it", Interval.every(hours=1))]
    async with open_store(":memory:") as store:
        async with open_scheduler(store, nothing, jobs=jobs, config=CronConfig(history=None)):
            await trio.sleep(10 * DAY)
        register = StoreService.register

        async def fail_after_commit(*args: object) -> Registered:
            await register(*args)  # type: ignore[arg-type]
            raise StoreUnavailable("its answer was lost")

        def fail(self: object, storage: Storage) -> object:
            raise StoreUnavailable("the disk was full")

        with monkeypatch.context() as patch:
            if request_type is Register:
                patch.setattr(StoreService, "register", fail_after_commit)
            else:
                patch.setattr(TakeOver, "apply", fail)
            with pytest.raises(StoreUnavailable):
                async with open_scheduler(store, nothing, config=SHORT, on_finish=on_finish):
                    pass
        assert ("will be deleted" in caplog.text) == (request_type is TakeOver)
        caplog.clear()
        async with open_scheduler(store, nothing, config=SHORT, on_finish=on_finish) as scheduler:
            assert caplog.text.count("will be deleted") == 1
            await trio.sleep(0.9 * DAY)
            assert await scheduler.store.count_runs() > 240
            assert caplog.text.count("will be deleted") == 1
            await trio.sleep(0.2 * DAY)
            assert await scheduler.store.count_runs() < 30
