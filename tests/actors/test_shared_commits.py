"""Requests that can wait: they share the next commit of others, or have one of their own in the end."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from cronactors.errors import SchedulerClosed, StoreUnavailable
from tests.store_under_test import CountedFake, Fails, GatedHop, Names, Put, serving

WITHIN = 5.0


class Storage(CountedFake):
    def stored(self) -> list[str]:
        """Return the stored names, in the order in which they were."""
        return [row.machine for row in self._durable.owners.values()]


@pytest.fixture
def storage() -> Storage:
    return Storage()


async def test_it_joins_the_next_commit_in_front_of_the_others(storage, autojump_clock):
    async with serving(storage, GatedHop()) as (mailbox, _), trio.open_nursery() as nursery:
        start = trio.current_time()
        nursery.start_soon(lambda: mailbox.share_commit(Put("waits"), within=WITHIN))
        await trio.testing.wait_all_tasks_blocked()
        assert storage.log == []
        await mailbox.call(Put("a"))
        assert storage.log == ["write", "commit"]
        assert storage.stored() == ["waits", "a"]
    assert trio.current_time() == start


async def test_a_batch_that_only_reads_leaves_it_waiting(storage, autojump_clock):
    async with serving(storage, GatedHop()) as (mailbox, _), trio.open_nursery() as nursery:
        nursery.start_soon(lambda: mailbox.share_commit(Put("waits"), within=WITHIN))
        await trio.testing.wait_all_tasks_blocked()
        assert await mailbox.call(Names()) == []
        assert storage.log == ["read", "commit"]


async def test_without_a_commit_of_others_it_has_one_of_its_own_in_time(storage, autojump_clock):
    async with serving(storage, GatedHop()) as (mailbox, _):
        start = trio.current_time()
        assert await mailbox.share_commit(Put("a"), within=WITHIN) == "A"
        assert trio.current_time() - start == WITHIN
        assert await mailbox.share_commit(Put("b"), within=0) == "B"
        assert trio.current_time() - start == WITHIN
        assert storage.log == ["write", "commit"] * 2


async def test_its_reply_is_handed_on_in_the_order_of_commits(storage, autojump_clock):
    replies: list[str] = []
    async with serving(storage, GatedHop()) as (mailbox, _), trio.open_nursery() as nursery:
        nursery.start_soon(lambda: mailbox.share_commit(Put("waits"), replies.append, within=WITHIN))
        await trio.testing.wait_all_tasks_blocked()
        await mailbox.call(Put("a"), replies.append)
    assert replies == ["WAITS", "A"]


async def test_cancelled_before_the_commit_it_has_no_effect(storage, autojump_clock):
    async with serving(storage, GatedHop()) as (mailbox, _), trio.open_nursery() as nursery:
        scope = trio.CancelScope()

        async def share() -> None:
            with scope:
                await mailbox.share_commit(Put("waits"), within=WITHIN)

        nursery.start_soon(share)
        await trio.testing.wait_all_tasks_blocked()
        scope.cancel()
        await trio.testing.wait_all_tasks_blocked()
        await mailbox.call(Put("a"))
        assert await mailbox.call(Names()) == ["a"]
        assert scope.cancelled_caught


async def test_while_the_file_is_locked_it_waits_with_the_others(storage, autojump_clock):
    async with serving(storage, GatedHop()) as (mailbox, _):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lambda: mailbox.share_commit(Put("waits"), within=WITHIN))
            await trio.testing.wait_all_tasks_blocked()
            storage.locked = True
            nursery.start_soon(mailbox.call, Put("a"))
            await trio.sleep(2 * WITHIN)
            storage.locked = False
        assert sorted(storage.stored()) == ["a", "waits"]


async def test_it_fails_with_the_batch_that_it_joined(storage, autojump_clock):
    async with serving(storage, GatedHop()) as (mailbox, _), trio.open_nursery() as nursery:
        errors: list[StoreUnavailable] = []

        async def share() -> None:
            try:
                await mailbox.share_commit(Put("waits"), within=WITHIN)
            except StoreUnavailable as error:
                errors.append(error)

        nursery.start_soon(share)
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(StoreUnavailable):
            await mailbox.call(Fails("a", StoreUnavailable("the disk is full")))
        await trio.testing.wait_all_tasks_blocked()
        assert [str(error) for error in errors] == ["the disk is full"]


async def test_a_store_that_closes_meanwhile_refuses_it(storage, autojump_clock):
    async with trio.open_nursery() as nursery:
        refused: list[bool] = []

        async def share() -> None:
            with pytest.raises(SchedulerClosed):
                await mailbox.share_commit(Put("waits"), within=WITHIN)
            refused.append(True)

        async with serving(storage, GatedHop()) as (mailbox, _):
            nursery.start_soon(share)
            await trio.testing.wait_all_tasks_blocked()
    assert refused == [True]
    assert storage.log == []
