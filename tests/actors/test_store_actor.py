"""The store actor: batches, what a cancelled caller may rely on, refusals and failures of the storage."""

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
from tests.asked_store import CountedFake, CountedSqlite, Fails, GatedHop, MayEndRuns, Names, Put, Refused, asking, serving


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


async def test_an_idle_store_answers_at_once_with_one_hop_and_one_commit(storage):
    hop = GatedHop()
    async with serving(storage, hop) as (mailbox, _):
        assert await mailbox.call(Put("a")) == "A"
        assert (hop.count, storage.log) == (1, ["write", "commit"])
        assert await mailbox.call(Names()) == ["a"]
        assert (hop.count, storage.log[2:]) == (2, ["read", "commit"])


async def test_a_request_that_is_handed_in_ahead_waits_for_its_time(storage, monkeypatch):
    slept: list[float] = []
    monkeypatch.setattr(time, "sleep", slept.append)
    monkeypatch.setattr(time, "time", lambda: 1000.0)
    async with serving(storage, GatedHop()) as (mailbox, _):
        for ahead in (-5, 0, 1.5, 5000):
            await mailbox.call(Ahead("a", not_before=1_000_000 + ahead))
    assert slept == [pytest.approx(0.0015), EARLY / 1000]


async def test_what_is_asked_during_a_commit_shares_the_next_one(storage):
    hop = GatedHop()
    hop.before = trio.Event()
    async with asking(storage, hop) as asked:
        names = [f"n{number}" for number in range(20)]
        await asked.call(*map(Put, names))
        assert asked.answers == {}
        hop.open()
    assert asked.answers == {name: name.upper() for name in names}
    assert (hop.count, storage.log) == (2, ["write", "commit"] * 2)


async def test_a_batch_has_a_greatest_size(storage, monkeypatch):
    monkeypatch.setattr(store_module, "BATCH", 5)
    hop = GatedHop()
    hop.before = trio.Event()
    async with asking(storage, hop) as asked:
        await asked.call(*(Put(f"n{number}") for number in range(12)))
        hop.open()
    assert len(asked.answers) == 12
    assert storage.log.count("commit") == 4  # 1 + 5 + 5 + 1


async def test_an_answer_comes_after_the_commit(storage):
    hop = GatedHop()
    async with asking(storage, hop) as asked:
        hop.after = trio.Event()
        await asked.call(Put("a"))
        assert storage.log == ["write", "commit"]
        assert asked.answers == {}
        hop.open()
    assert asked.answers == {"a": "A"}


async def test_a_batch_of_reads_takes_no_write_lock_and_one_write_among_them_does(storage):
    hop = GatedHop()
    async with asking(storage, hop) as asked:
        hop.before = trio.Event()
        await asked.call(Names(), Names())
        hop.open()
        await trio.testing.wait_all_tasks_blocked()
        assert storage.log == ["read", "commit"] * 2
        hop.before = trio.Event()
        await asked.call(Names(), Put("a"), Names())
        hop.open()
    assert storage.log[4:] == ["read", "commit", "write", "commit"]


async def test_listeners_hear_of_commits_that_changed_something(storage):
    heard: list[Committed] = []
    async with serving(storage) as (mailbox, actor):
        actor.listeners.append(heard.append)
        await mailbox.call(Names())
        assert heard == []
        await mailbox.call(Put("a"))
        await mailbox.call(MayEndRuns("b"))
        with pytest.raises(StoreUnavailable):
            await mailbox.call(Fails("c", StoreUnavailable("no")))
    assert heard == [
        Committed(NextTimes(None, None), may_have_ended_runs=False),
        Committed(NextTimes(None, None), may_have_ended_runs=True),
    ]


# Cancelled means that it did not happen


async def test_cancelled_before_its_batch_begins_a_request_has_no_effect(storage):
    hop = GatedHop()
    hop.before = trio.Event()
    async with asking(storage, hop) as asked:
        await asked.call(Put("first"), Put("a"), Put("b"))
        asked.scopes["a"].cancel()
        await trio.testing.wait_all_tasks_blocked()
        assert asked.scopes["a"].cancelled_caught
        hop.open()
        await trio.testing.wait_all_tasks_blocked()
        await asked.call(Names())
    assert asked.answers == {"first": "FIRST", "b": "B", "names": ["b", "first"]}


async def test_a_batch_that_everybody_has_left_costs_nothing(storage):
    hop = GatedHop()
    hop.before = trio.Event()
    async with asking(storage, hop) as asked:
        await asked.call(Put("first"), Put("a"), Put("b"))
        for name in "ab":
            asked.scopes[name].cancel()
        await trio.testing.wait_all_tasks_blocked()
        hop.open()
    assert (hop.count, storage.log) == (1, ["write", "commit"])


async def test_cancelled_between_two_attempts_on_a_locked_file_a_request_has_no_effect(autojump_clock):
    storage = CountedFake()
    storage.locked = True
    async with asking(storage) as asked:
        await asked.call(Put("a"), Put("b"))
        await trio.sleep(1)
        asked.scopes["a"].cancel()
        await trio.testing.wait_all_tasks_blocked()
        assert asked.scopes["a"].cancelled_caught
        storage.locked = False
        await trio.sleep(1)
        await asked.call(Names())
    assert asked.answers == {"b": "B", "names": ["b"]}
    assert storage.log.count("write") == 1


async def test_cancelled_during_an_attempt_that_finds_the_file_locked_a_request_has_no_effect(autojump_clock):
    storage, hop = CountedFake(), GatedHop()
    storage.locked = True
    async with asking(storage, hop) as asked:
        hop.before = trio.Event()
        await asked.call(Put("a"))
        asked.scopes["a"].cancel()
        await trio.testing.wait_all_tasks_blocked()
        assert not asked.scopes["a"].cancelled_caught  # nobody knows yet whether it begins
        hop.open()
        await trio.testing.wait_all_tasks_blocked()
        assert asked.scopes["a"].cancelled_caught
        storage.locked = False
        await trio.sleep(1)
    assert storage.log == ["locked"]


async def test_from_the_beginning_to_the_answer_a_caller_waits_and_gets_the_outcome(storage):
    hop = GatedHop()
    async with asking(storage, hop) as asked:
        hop.after = trio.Event()
        await asked.call(Put("a"))
        assert storage.log == ["write", "commit"]
        asked.scopes["a"].cancel()
        await trio.testing.wait_all_tasks_blocked()
        assert asked.answers == {}
        hop.open()
    assert asked.answers == {"a": "A"}
    assert not asked.scopes["a"].cancelled_caught


async def test_a_cancelled_store_goes_on_answering_until_it_is_closed(storage):
    """An executor that ends cleanly while everything is cancelled has its end recorded."""
    answers = []
    with trio.CancelScope() as scope:
        async with serving(storage) as (mailbox, _):
            scope.cancel()
            with trio.CancelScope(shield=True):
                answers.append(await mailbox.call(Put("a")))
    assert answers == ["A"]


# Refusals and failures


async def test_a_refused_request_leaves_no_trace_and_its_neighbours_are_committed(storage):
    hop = GatedHop()
    hop.before = trio.Event()
    async with asking(storage, hop) as asked:
        await asked.call(Put("first"), Put("a"), Refused("x"), Put("b"), Refused("y"))
        hop.open()
        await trio.testing.wait_all_tasks_blocked()
        await asked.call(Names())
    assert asked.answers.pop("names") == ["a", "b", "first"]
    for name in "xy":
        error = asked.answers.pop(name)
        assert isinstance(error, InvalidJob)
        assert str(error) == name
    assert asked.answers == {"first": "FIRST", "a": "A", "b": "B"}
    assert storage.log.count("commit") == 3
    assert "rollback" not in storage.log


@pytest.mark.parametrize("error", [StoreUnavailable("the disk is full"), StoreCorrupt("damaged")])
async def test_an_error_of_the_storage_ends_the_whole_batch_and_nothing_is_applied(storage, error):
    hop = GatedHop()
    hop.before = trio.Event()
    async with asking(storage, hop) as asked:
        await asked.call(Put("first"), Put("a"), Refused("x"), Fails("f", error), Put("b"))
        hop.open()
        await trio.testing.wait_all_tasks_blocked()
        await asked.call(Names())
    assert asked.answers.pop("names") == ["first"]
    assert asked.answers.pop("first") == "FIRST"
    assert {name: (type(answer), str(answer)) for name, answer in asked.answers.items()} == {
        name: (type(error), str(error)) for name in ("a", "x", "f", "b")
    }


async def test_a_commit_that_fails_is_told_to_all_and_the_store_goes_on(storage, monkeypatch):
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


async def test_a_failing_rollback_hides_nothing(storage, monkeypatch):
    async with serving(storage) as (mailbox, _):

        def rollback() -> None:
            raise StoreUnavailable("the rollback fails too")

        monkeypatch.setattr(storage, "rollback", rollback)
        with pytest.raises(StoreUnavailable, match=r"^first$"):
            await mailbox.call(Fails("a", StoreUnavailable("first")))
