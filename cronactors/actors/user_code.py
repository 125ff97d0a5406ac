"""Calling what users gave us: their exceptions become values, a cancellation from outside goes on as itself."""

from __future__ import annotations

import math
import traceback
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextvars import ContextVar
from itertools import islice
from typing import TypeVar, TypeVarTuple

import outcome
import trio

from cronactors.actors.forks import end_child, generation
from cronactors.errors import one_line

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

_MOST_PARTS = 100_000
_MOST_TASKS = 20
_MOST_TEXT = 20_000
_MOST_TRACEBACKS = 5
_POLL = 0.1  # seconds; what goes on although it was cancelled is in no hurry

inside_callback: ContextVar[str | None] = ContextVar("inside_callback", default=None)
"""In an executor or a notifier, and in the tasks that it starts: which one. Waiting for a run there could wait for ever."""


@trio.lowlevel.disable_ki_protection
async def _unprotected(function: Callable[[*Ts], Awaitable[T]], *args: *Ts) -> T:
    awaitable = function(*args)
    if not isinstance(awaitable, Awaitable):  # no type checker was asked
        raise TypeError(f"it must be an async function, but it returned {type(awaitable).__name__}, which cannot be awaited")
    return await awaitable


async def call(function: Callable[[*Ts], Awaitable[T]], *args: *Ts) -> outcome.Outcome[T] | None:
    """Call a user's function and catch whatever it raises, KeyboardInterrupt and SystemExit too.

    None: it was cancelled, as a scope around us asked for; the next checkpoint tells again. What else was in a group with that came
    of the ending and is dropped, unless it is meant for the whole program; a Cancelled that no scope asked for is an error of the
    function.

    If it has left a nursery open, the task has one in ``child_nurseries`` and must end at once, without another checkpoint: trio
    then cancels what is in the nursery, and ends the task with an error. Else a generator that holds the nursery could be closed
    first, in a task of trio's, which would wait for ever.

    A child that the function forks ends with it, see `forks`.
    """
    here = generation()
    try:
        value = await _unprotected(function, *args)
        if generation() != here:
            end_child(None)
        return outcome.Value(value)
    except BaseException as error:  # noqa: BLE001 - the caller decides what it means
        if generation() != here:
            end_child(escaping(error) or error)
        if _asked_for(error) and escaping(error) is None:
            return None
        return outcome.Error(error)


async def tasks_ended(abandoned: Sequence[trio.Nursery]) -> None:
    """Nothing of a call goes on after it: wait for the tasks of nurseries that it left open. Shielded."""
    with trio.CancelScope(shield=True):
        while any(nursery.child_tasks for nursery in abandoned):  # noqa: ASYNC110 - a nursery has no event that tells
            await trio.sleep(_POLL)


async def call_apart(function: Callable[[*Ts], Awaitable[T]], *args: *Ts) -> outcome.Outcome[T] | None:
    """The same in a task of its own, which costs some 50 us: what the function leaves open is an error, and ends with that task.

    So is an exception of a task that it has started in the nursery around it.
    """
    results: list[outcome.Outcome[T]] = []
    abandoned: list[trio.Nursery] = []

    @trio.lowlevel.enable_ki_protection
    async def act() -> None:
        result: outcome.Outcome[T] | None = None
        try:
            with trio.CancelScope():  # complains of what is left open in it
                result = await call(function, *args)
        except RuntimeError as misnested:
            result = outcome.Error(misnested)
        abandoned.extend(trio.lowlevel.current_task().child_nurseries)
        if result is not None:
            results.append(result)
        nursery.cancel_scope.cancel()  # tasks that the function has started beside it, through trio.lowlevel, end with it

    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(act)
    except BaseExceptionGroup as group:
        cancelled, strays = split_cancelled(group)
        if strays is not None and not abandoned:  # else it is trio's word on the nursery that was left open
            results[:] = [outcome.Error(strays)]
        elif cancelled is not None and not abandoned:
            raise cancelled from None
    await tasks_ended(abandoned)
    return results[0] if results else None


def _asked_for(error: BaseException) -> bool:
    """Whether a cancellation is in it, and a scope around us asked for one."""
    return cancelled_from_outside() and any(issubclass(type(leaf), trio.Cancelled) for leaf in leaves(error))


def cancelled_from_outside() -> bool:
    """Whether a scope around us has been cancelled; one whose deadline has just passed has not been yet."""
    return trio.current_effective_deadline() == -math.inf


def stack_of(task: trio.lowlevel.Task) -> str:
    """Where a task is, and the tasks of its nurseries, however deep; of very many only the first."""
    waiting, shown = [task], [task.name]
    for _ in range(_MOST_TASKS):
        if not waiting:
            break
        each = waiting.pop(0)
        if each is not task:
            shown.append(f"in a task of it, {one_line(each.name)}:")
        if each.coro.cr_frame is not None:  # it has ended, but not what it left behind
            shown.append("".join(traceback.StackSummary.extract(each.iter_await_frames()).format()))
        waiting += [child for nursery in each.child_nurseries for child in nursery.child_tasks]
    return "\n".join(shown[1:])


def leaves(error: BaseException) -> Iterator[BaseException]:
    """The exceptions in a group, however deep it is nested, or the one that is none; of a monstrous group only the first.

    Types are looked at by `type`: ``__class__`` of a user's exception may be a property that raises.
    """
    waiting = [error]
    for _ in range(_MOST_PARTS):
        if not waiting:
            return
        part = waiting.pop()
        if issubclass(type(part), BaseExceptionGroup):
            waiting.extend(reversed(BaseExceptionGroup.exceptions.__get__(part)))
        else:
            yield part


def split_cancelled(error: BaseException) -> tuple[BaseException | None, BaseException | None]:
    """Tell the cancellations in an exception apart from everything else in it."""
    if isinstance(error, BaseExceptionGroup):
        return error.split(trio.Cancelled)
    return (error, None) if isinstance(error, trio.Cancelled) else (None, error)


def escaping(error: BaseException) -> BaseException | None:
    """The KeyboardInterrupt or SystemExit in an error, alone or in a group: it is meant for the whole program."""
    return next((leaf for leaf in leaves(error) if issubclass(type(leaf), KeyboardInterrupt | SystemExit)), None)


def describe(error: BaseException) -> str:
    """An error as the history shows it: its type and text, of a group those of its first ten parts; never raises."""
    return "; ".join(_describe(leaf) for leaf in islice(leaves(error), 10))


def _describe(error: BaseException) -> str:
    name = name_of(type(error))
    try:
        text = str.__str__(str(error))[:_MOST_TEXT]  # cut before it is copied: it may be as large as memory
    except BaseException:  # noqa: BLE001 - a user's exception may do anything, and its text ends no program
        text = "(its text cannot be shown)"
    return f"{name}: {text}" if text else name


def name_of(kind: type) -> str:
    """The name of a class, whatever its metaclass makes of it."""
    name: str = type.__dict__["__name__"].__get__(kind)
    return name


def traceback_of(error: BaseException) -> str:
    """Tracebacks for a log, of a group those of its first parts; never raises.

    Texts are escaped and lines indented, so that no text of an error passes for a line of the log.
    """
    lines: list[str] = []
    try:
        for leaf in islice(leaves(error), _MOST_TRACEBACKS):
            for link in islice(_chain(leaf), _MOST_TRACEBACKS):
                lines += traceback.StackSummary.extract(traceback.walk_tb(link.__traceback__)).format()
                lines.append(f"{one_line(_describe(link))}\n")
    except BaseException:  # noqa: BLE001 - as above
        lines.append("(the rest cannot be shown)")
    return "".join(f"\n  | {line}" for line in "".join(lines).splitlines())


def _chain(error: BaseException) -> Iterator[BaseException]:
    """An error, what it came of, and so on."""
    link: BaseException | None = error
    while link is not None:
        yield link
        link = link.__cause__ or (None if link.__suppress_context__ else link.__context__)
