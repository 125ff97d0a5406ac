"""Requests and replies, with the test in the role of the store: when callers wait, are cancelled, and get their reply."""

from __future__ import annotations

import attrs
import outcome
import pytest
import trio
import trio.testing

from cronactors.actors import mailbox as mailbox_module
from cronactors.actors.mailbox import Envelope, Mailbox, Refused, Request
from cronactors.errors import InvalidJob, SchedulerClosed, SchedulerCrashed


@attrs.frozen
class Echo(Request[str]):
    text: str = "?"


class Caller:
    """A task that makes a call, and the result of that call."""

    def __init__(self, mailbox: Mailbox, text: str = "?") -> None:
        self.scope = trio.CancelScope()
        self.result: outcome.Outcome[str] | None = None
        self.ended = trio.Event()
        self._mailbox = mailbox
        self._text = text

    async def run(self) -> None:
        with self.scope:
            try:
                self.result = outcome.Value(await self._mailbox.call(Echo(self._text)))
            except Exception as error:
                self.result = outcome.Error(error)
        self.ended.set()

    def error(self) -> BaseException:
        assert isinstance(self.result, outcome.Error)
        return self.result.error


def text_of(envelope: Envelope) -> str:
    assert isinstance(envelope.request, Echo)
    return envelope.request.text


async def waiting(nursery: trio.Nursery, mailbox: Mailbox, text: str = "?") -> Caller:
    """Start a caller whose request is in the mailbox, or who waits for room in it."""
    caller = Caller(mailbox, text)
    nursery.start_soon(caller.run)
    await trio.testing.wait_all_tasks_blocked()
    return caller


async def test_each_caller_gets_its_reply():
    mailbox = Mailbox()
    async with trio.open_nursery() as nursery:
        callers = [await waiting(nursery, mailbox, text) for text in "abc"]
        envelopes = [await mailbox.receive(), *mailbox.receive_waiting(10)]
        assert [text_of(envelope) for envelope in envelopes] == ["a", "b", "c"]
        for envelope in reversed(envelopes):
            assert envelope.start()
            envelope.reply(text_of(envelope).upper())
    assert [caller.result for caller in callers] == [outcome.Value("A"), outcome.Value("B"), outcome.Value("C")]


async def test_a_refused_caller_gets_the_error_itself():
    mailbox, refusal = Mailbox(), InvalidJob("no")
    async with trio.open_nursery() as nursery:
        caller = await waiting(nursery, mailbox)
        envelope = await mailbox.receive()
        envelope.start()
        envelope.reply(Refused(refusal))
    assert caller.error() is refusal


async def test_a_reply_that_comes_before_the_caller_waits_is_not_lost():
    envelope = Envelope(Echo())
    assert envelope.start()
    envelope.reply("early")
    assert await envelope.wait() == "early"


async def test_only_the_first_reply_counts():
    mailbox = Mailbox()
    async with trio.open_nursery() as nursery:
        caller = await waiting(nursery, mailbox)
        envelope = await mailbox.receive()
        envelope.start()
        envelope.reply("first")
        envelope.reply("second")
    assert caller.result == outcome.Value("first")
    assert not envelope.start()


# Cancelled means that it did not happen


async def test_a_request_is_withdrawn_if_its_caller_is_cancelled_before_the_store_starts_it():
    mailbox = Mailbox()
    async with trio.open_nursery() as nursery:
        caller = await waiting(nursery, mailbox)
        caller.scope.cancel()
        await caller.ended.wait()
        envelope = await mailbox.receive()
        assert not envelope.start()
        envelope.reply("too late")
    assert caller.result is None
    assert caller.scope.cancelled_caught


async def test_a_caller_that_is_already_cancelled_sends_nothing():
    mailbox = Mailbox()
    with trio.CancelScope() as scope:
        scope.cancel()
        await mailbox.call(Echo())
    assert scope.cancelled_caught
    assert mailbox._send.statistics().current_buffer_used == 0


async def test_a_caller_that_is_cancelled_after_the_start_gets_the_reply():
    mailbox = Mailbox()
    async with trio.open_nursery() as nursery:
        caller = await waiting(nursery, mailbox)
        envelope = await mailbox.receive()
        assert envelope.start()
        caller.scope.cancel()
        await trio.testing.wait_all_tasks_blocked()
        assert not caller.ended.is_set()
        envelope.reply("done")
    assert caller.result == outcome.Value("done")
    assert not caller.scope.cancelled_caught


async def test_a_caller_that_is_cancelled_after_the_start_gets_the_error():
    mailbox = Mailbox()
    async with trio.open_nursery() as nursery:
        caller = await waiting(nursery, mailbox)
        envelope = await mailbox.receive()
        envelope.start()
        caller.scope.cancel()
        envelope.reply(Refused(InvalidJob("no")))
    assert isinstance(caller.error(), InvalidJob)


async def test_a_caller_that_is_cancelled_during_an_attempt_is_released_when_that_is_postponed():
    mailbox = Mailbox()
    async with trio.open_nursery() as nursery:
        caller = await waiting(nursery, mailbox)
        envelope = await mailbox.receive()
        envelope.start()
        caller.scope.cancel()
        envelope.postpone()
        await caller.ended.wait()
        assert not envelope.start()
    assert caller.scope.cancelled_caught


@pytest.mark.parametrize("attempts", [1, 3])
async def test_a_request_is_withdrawn_if_its_caller_is_cancelled_between_two_attempts(attempts: int):
    mailbox = Mailbox()
    async with trio.open_nursery() as nursery:
        caller = await waiting(nursery, mailbox)
        envelope = await mailbox.receive()
        for _ in range(attempts):
            assert envelope.start()
            envelope.postpone()
        caller.scope.cancel()
        await caller.ended.wait()
        assert not envelope.start()
    assert caller.scope.cancelled_caught


async def test_a_postponed_request_can_be_started_again():
    mailbox = Mailbox()
    async with trio.open_nursery() as nursery:
        caller = await waiting(nursery, mailbox)
        envelope = await mailbox.receive()
        for _ in range(3):
            assert envelope.start()
            envelope.postpone()
        assert envelope.start()
        envelope.reply("at last")
    assert caller.result == outcome.Value("at last")


async def test_a_second_cancellation_from_an_outer_scope_changes_nothing():
    """trio calls the abort function of a task once; the reply must come whatever else is cancelled meanwhile."""
    mailbox = Mailbox()
    with trio.CancelScope() as outer:
        async with trio.open_nursery() as nursery:
            caller = await waiting(nursery, mailbox)
            envelope = await mailbox.receive()
            envelope.start()
            caller.scope.cancel()
            outer.cancel()
            with trio.CancelScope(shield=True):
                await trio.testing.wait_all_tasks_blocked()
            assert not caller.ended.is_set()
            envelope.reply("done")
    assert caller.result == outcome.Value("done")


# Bounded


async def test_callers_wait_for_room_in_a_full_mailbox(monkeypatch):
    monkeypatch.setattr(mailbox_module, "CAPACITY", 2)
    mailbox = Mailbox()
    async with trio.open_nursery() as nursery:
        callers = [await waiting(nursery, mailbox, text) for text in "abcd"]
        assert mailbox._send.statistics().current_buffer_used == 2
        seen = ""
        for _ in range(4):
            envelope = await mailbox.receive()
            assert mailbox._send.statistics().current_buffer_used <= 2
            seen += text_of(envelope)
            envelope.start()
            envelope.reply(text_of(envelope))
    assert seen == "abcd"
    assert [caller.result for caller in callers] == [outcome.Value(text) for text in "abcd"]


async def test_a_caller_that_is_cancelled_while_it_waits_for_room_sends_nothing(monkeypatch):
    monkeypatch.setattr(mailbox_module, "CAPACITY", 1)
    mailbox = Mailbox()
    async with trio.open_nursery() as nursery:
        first, second, third = [await waiting(nursery, mailbox, text) for text in "abc"]
        second.scope.cancel()
        await second.ended.wait()
        left = [await mailbox.receive(), await mailbox.receive()]
        assert [text_of(envelope) for envelope in left] == ["a", "c"]
        for envelope in left:
            envelope.start()
            envelope.reply("ok")
    assert second.scope.cancelled_caught
    assert first.result == third.result == outcome.Value("ok")


async def test_the_store_receives_no_more_requests_than_its_limit():
    mailbox = Mailbox()
    async with trio.open_nursery() as nursery:
        for text in "abcde":
            await waiting(nursery, mailbox, text)
        assert len(mailbox.receive_waiting(3)) == 3
        assert len(mailbox.receive_waiting(3)) == 2
        assert mailbox.receive_waiting(3) == []
        assert mailbox.receive_waiting(0) == []
        nursery.cancel_scope.cancel()


# Closed


async def test_a_closed_mailbox_still_delivers_its_requests_and_refuses_new_ones(monkeypatch):
    monkeypatch.setattr(mailbox_module, "CAPACITY", 2)
    mailbox = Mailbox()
    async with trio.open_nursery() as nursery:
        accepted = [await waiting(nursery, mailbox, text) for text in "ab"]
        blocked = await waiting(nursery, mailbox, "c")
        mailbox.close(SchedulerClosed("the end"))
        await blocked.ended.wait()
        late = await waiting(nursery, mailbox, "d")
        for envelope in [await mailbox.receive(), await mailbox.receive()]:
            envelope.start()
            envelope.reply(text_of(envelope))
        with pytest.raises(trio.EndOfChannel):
            await mailbox.receive()
        assert mailbox.receive_waiting(5) == []
    assert [caller.result for caller in accepted] == [outcome.Value("a"), outcome.Value("b")]
    for caller in (blocked, late):
        assert isinstance(caller.error(), SchedulerClosed)
        assert str(caller.error()) == "the end"


async def test_closing_wakes_a_store_that_waits_for_requests():
    mailbox = Mailbox()

    async def receive() -> None:
        with pytest.raises(trio.EndOfChannel):
            await mailbox.receive()

    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(receive)
            await trio.testing.wait_all_tasks_blocked()
            mailbox.close(SchedulerClosed("the end"))


@pytest.mark.parametrize("again", [SchedulerClosed("again"), SchedulerCrashed("again")])
async def test_the_first_reason_for_closing_counts(again):
    mailbox = Mailbox()
    mailbox.close(SchedulerClosed("first"))
    mailbox.close(again)
    with pytest.raises(SchedulerClosed, match=r"^first$"):
        await mailbox.call(Echo())


async def test_each_caller_gets_an_error_of_its_own_with_the_bug_as_cause():
    """One exception raised in many tasks would collect all their tracebacks."""
    mailbox, bug, errors = Mailbox(), ZeroDivisionError(), []
    reason = SchedulerCrashed("a bug")
    reason.__cause__ = bug
    mailbox.close(reason)
    for _ in range(2):
        with pytest.raises(SchedulerCrashed, match=r"^a bug$") as caught:
            await mailbox.call(Echo())
        errors.append(caught.value)
    assert errors[0] is not errors[1]
    assert errors[0].__cause__ is errors[1].__cause__ is bug
