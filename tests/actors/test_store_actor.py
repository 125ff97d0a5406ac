"""The store actor: batches, cancelled callers, refused requests, and failures of the storage."""

from __future__ import annotations

import time

import attrs
import pytest
import trio
import trio.testing

from cronactors.actors import store as store_module
from cronactors.actors.mailbox import EARLY
from cronactors.actors.store import Committed
from cronactors.errors import InvalidJob, StoreCorrupt, StoreUnavailable
from cronactors.storage.rows import NextTimes
from tests.store_under_test import CountedFake, CountedSqlite, Fails, GatedHop, MayEndRuns, Names, Put, Refused, calling, serving


@attrs.frozen
class Ahead(Put):
    not_before: int = attrs.field(kw_only=True)


@pytest.fixture(params=["fake", "sqlite"])
def storage(request):
    if request.param == "fake":
        yield CountedFake()
        return
    sqlite = CountedSqlite()
    yield sqlite
    sqlite.close()


# Batches


async def test_an_idle_store_replies_at_once_with_one_hop_and_one_commit(storage):
    hop = GatedHop()
    async with serving(storage, hop) as (mailbox, _):
        assert await mailbox.call(Put("a")) == "A"
        assert (hop.count, storage.log) == (1, ["write", "commit"])
        assert await mailbox.call(Names()) == ["a"]
        assert (hop.count, storage.log[2:]) == (2, ["read", "commit"])


async def test_a_request_that_is_sent_ahead_waits_for_its_moment(storage, monkeypatch):
    slept: list[float] = []
    monkeypatch.setattr(time, "sleep", slept.append)
    monkeypatch.setattr(time, "time", lambda: 1000.0)
    async with serving(storage, GatedHop()) as (mailbox, _):
        for ahead in (-5, 0, 1.5, 5000):
            await mailbox.call(Ahead("a", not_before=1_000_000 + ahead))
    assert slept == [pytest.approx(0.0015), EARLY / 1000]


async def test_requests_that_arrive_during_a_commit_share_the_next_one(storage):
    hop = GatedHop()
    hop.before = trio.Event()
    async with calling(storage, hop) as callers:
        names = [f"n{number}" for number in range(20)]
        await callers.call(*map(Put, names))
        assert callers.replies == {}
        hop.open()
    assert callers.replies == {name: name.upper() for name in names}
    assert (hop.count, storage.log) == (2, ["write", "commit"] * 2)


async def test_a_batch_has_a_maximum_size(storage, monkeypatch):
    monkeypatch.setattr(store_module, "BATCH", 5)
    hop = GatedHop()
    hop.before = trio.Event()
    async with calling(storage, hop) as callers:
        await callers.call(*(Put(f"n{number}") for number in range(12)))
        hop.open()
    assert len(callers.replies) == 12
    assert storage.log.count("commit") == 4  # 1 + 5 + 5 + 1


async def test_the_reply_comes_after_the_commit(storage):
    hop = GatedHop()
    async with calling(storage, hop) as callers:
        hop.after = trio.Event()
        await callers.call(Put("a"))
        assert storage.log == ["write", "commit"]
        assert callers.replies == {}
        hop.open()
    assert callers.replies == {"a": "A"}


async def test_a_batch_of_reads_takes_no_write_lock_and_one_write_among_them_does(storage):
    hop = GatedHop()
    async with calling(storage, hop) as callers:
        hop.before = trio.Event()
        await callers.call(Names(), Names())
        hop.open()
        await trio.testing.wait_all_tasks_blocked()
        assert storage.log == ["read", "commit"] * 2
        hop.before = trio.Event()
        await callers.call(Names(), Put("a"), Names())
        hop.open()
    assert storage.log[4:] == ["read", "commit", "write", "commit"]


async def test_listeners_are_called_after_commits_that_changed_something(storage):
    commits: list[Committed] = []
    async with serving(storage) as (mailbox, actor):
        actor.listeners.append(commits.append)
        await mailbox.call(Names())
        assert commits == []
        await mailbox.call(Put("a"))
        await mailbox.call(MayEndRuns("b"))
        with pytest.raises(StoreUnavailable):
            await mailbox.call(Fails("c", StoreUnavailable("no")))
    assert commits == [
        Committed(NextTimes(None, None), may_have_finished_runs=False),
        Committed(NextTimes(None, None), may_have_finished_runs=True),
    ]


# Cancelled means that it did not happen


async def test_a_request_has_no_effect_if_its_caller_is_cancelled_before_its_batch_starts(storage):
    hop = GatedHop()
    hop.before = trio.Event()
    async with calling(storage, hop) as callers:
        await callers.call(Put("first"), Put("a"), Put("b"))
        callers.scopes["a"].cancel()
        await trio.testing.wait_all_tasks_blocked()
        assert callers.scopes["a"].cancelled_caught
        hop.open()
        await trio.testing.wait_all_tasks_blocked()
        await callers.call(Names())
    assert callers.replies == {"first": "FIRST", "b": "B", "names": ["b", "first"]}


async def test_a_batch_of_which_all_callers_were_cancelled_costs_nothing(storage):
    hop = GatedHop()
    hop.before = trio.Event()
    async with calling(storage, hop) as callers:
        await callers.call(Put("first"), Put("a"), Put("b"))
        for name in "ab":
            callers.scopes[name].cancel()
        await trio.testing.wait_all_tasks_blocked()
        hop.open()
    assert (hop.count, storage.log) == (1, ["write", "commit"])


async def test_a_request_has_no_effect_if_its_caller_is_cancelled_between_two_attempts_at_a_locked_file(autojump_clock):
    storage = CountedFake()
    storage.locked = True
    async with calling(storage) as callers:
        await callers.call(Put("a"), Put("b"))
        await trio.sleep(1)
        callers.scopes["a"].cancel()
        await trio.testing.wait_all_tasks_blocked()
        assert callers.scopes["a"].cancelled_caught
        storage.locked = False
        await trio.sleep(1)
        await callers.call(Names())
    assert callers.replies == {"b": "B", "names": ["b"]}
    assert storage.log.count("write") == 1


async def test_a_request_has_no_effect_if_its_caller_is_cancelled_during_an_attempt_at_a_locked_file(autojump_clock):
    storage, hop = CountedFake(), GatedHop()
    storage.locked = True
    async with calling(storage, hop) as callers:
        hop.before = trio.Event()
        await callers.call(Put("a"))
        callers.scopes["a"].cancel()
        await trio.testing.wait_all_tasks_blocked()
        assert not callers.scopes["a"].cancelled_caught  # it may have started
        hop.open()
        await trio.testing.wait_all_tasks_blocked()
        assert callers.scopes["a"].cancelled_caught
        storage.locked = False
        await trio.sleep(1)
    assert storage.log == ["locked"]


async def test_a_caller_that_is_cancelled_after_its_transaction_has_started_gets_the_reply(storage):
    hop = GatedHop()
    async with calling(storage, hop) as callers:
        hop.after = trio.Event()
        await callers.call(Put("a"))
        assert storage.log == ["write", "commit"]
        callers.scopes["a"].cancel()
        await trio.testing.wait_all_tasks_blocked()
        assert callers.replies == {}
        hop.open()
    assert callers.replies == {"a": "A"}
    assert not callers.scopes["a"].cancelled_caught


async def test_a_cancelled_store_keeps_serving_until_it_is_closed(storage):
    """A run that finishes while everything is being cancelled is still recorded."""
    replies = []
    with trio.CancelScope() as scope:
        async with serving(storage) as (mailbox, _):
            scope.cancel()
            with trio.CancelScope(shield=True):
                replies.append(await mailbox.call(Put("a")))
    assert replies == ["A"]


# Refusals and failures


async def test_a_refused_request_is_undone_alone_and_its_neighbours_are_committed(storage):
    hop = GatedHop()
    hop.before = trio.Event()
    async with calling(storage, hop) as callers:
        await callers.call(Put("first"), Put("a"), Refused("x"), Put("b"), Refused("y"))
        hop.open()
        await trio.testing.wait_all_tasks_blocked()
        await callers.call(Names())
    assert callers.replies.pop("names") == ["a", "b", "first"]
    for name in "xy":
        error = callers.replies.pop(name)
        assert isinstance(error, InvalidJob)
        assert str(error) == name
    assert callers.replies == {"first": "FIRST", "a": "A", "b": "B"}
    assert storage.log.count("commit") == 3
    assert "rollback" not in storage.log


@pytest.mark.parametrize("error", [StoreUnavailable("the disk is full"), StoreCorrupt("damaged")])
async def test_an_error_of_the_storage_undoes_the_whole_batch(storage, error):
    hop = GatedHop()
    hop.before = trio.Event()
    async with calling(storage, hop) as callers:
        await callers.call(Put("first"), Put("a"), Refused("x"), Fails("f", error), Put("b"))
        hop.open()
        await trio.testing.wait_all_tasks_blocked()
        await callers.call(Names())
    assert callers.replies.pop("names") == ["first"]
    assert callers.replies.pop("first") == "FIRST"
    assert {name: (type(reply), str(reply)) for name, reply in callers.replies.items()} == {
        name: (type(error), str(error)) for name in ("a", "x", "f", "b")
    }


async def test_all_callers_get_the_error_of_a_commit_and_the_store_keeps_working(storage, monkeypatch):
    hop = GatedHop()
    async with serving(storage, hop) as (mailbox, actor):

        def commit() -> None:
            raise StoreUnavailable("the disk is full")

        monkeypatch.setattr(storage, "commit", commit)
        with pytest.raises(StoreUnavailable, match="full"):
            await mailbox.call(Put("a"))
        assert actor.last_error == "the disk is full"
        monkeypatch.undo()
        assert await mailbox.call(Names()) == []
        assert await mailbox.call(Put("b")) == "B"
        assert actor.last_error is None


async def test_a_rollback_that_fails_does_not_hide_the_first_error(storage, monkeypatch):
    async with serving(storage) as (mailbox, _):

        def rollback() -> None:
            raise StoreUnavailable("the rollback fails too")

        monkeypatch.setattr(storage, "rollback", rollback)
        with pytest.raises(StoreUnavailable, match=r"^first$"):
            await mailbox.call(Fails("a", StoreUnavailable("first")))
