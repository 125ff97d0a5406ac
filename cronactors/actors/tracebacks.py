"""Exceptions and stacks of tasks as text, for the history and the log. Nothing here raises, whatever a user's exception does."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from itertools import islice

import trio

from cronactors.actors.exception_groups import single_exceptions
from cronactors.errors import one_line

_MOST_TASKS = 20
_MOST_TEXT = 20_000
_MOST_TRACEBACKS = 5
_MOST_DESCRIBED = 10


def describe(error: BaseException) -> str:
    """Format an exception for the history: its type and text, of a group those of its first ten parts."""
    return "; ".join(_describe(leaf) for leaf in islice(single_exceptions(error), _MOST_DESCRIBED))


def _describe(error: BaseException) -> str:
    name = name_of(type(error))
    try:
        text = str.__str__(str(error))[:_MOST_TEXT]  # cut before it is copied: it may be as large as memory
    except BaseException:  # noqa: BLE001 - a user's exception may do anything, and its text must not end the program
        text = "(its text cannot be shown)"
    return f"{name}: {text}" if text else name


def name_of(kind: type) -> str:
    """Return the name of a class, even if its metaclass overrides ``__name__``."""
    name: str = type.__dict__["__name__"].__get__(kind)
    return name


def traceback_of(error: BaseException) -> str:
    """Format tracebacks for a log, of a group those of its first five parts.

    Texts are escaped and lines indented, so that no text of an exception can pass for a line of the log.
    """
    lines: list[str] = []
    try:
        for leaf in islice(single_exceptions(error), _MOST_TRACEBACKS):
            for link in islice(_chain(leaf), _MOST_TRACEBACKS):
                lines += traceback.StackSummary.extract(traceback.walk_tb(link.__traceback__)).format()
                lines.append(f"{one_line(_describe(link))}\n")
    except BaseException:  # noqa: BLE001 - as above
        lines.append("(the rest cannot be shown)")
    return "".join(f"\n  | {line}" for line in "".join(lines).splitlines())


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yield an exception, its cause or context, and so on."""
    link: BaseException | None = error
    while link is not None:
        yield link
        link = link.__cause__ or (None if link.__suppress_context__ else link.__context__)


def stack_of(task: trio.lowlevel.Task) -> str:
    """Format the stack of a task and of the tasks in its nurseries, however deep; of very many tasks only the first 20."""
    waiting, shown = [task], [task.name]
    for _ in range(_MOST_TASKS):
        if not waiting:
            break
        each = waiting.pop(0)
        if each is not task:
            shown.append(f"in a task of it, {one_line(each.name)}:")
        if each.coro.cr_frame is not None:  # None: the task has ended, but nurseries that it left open have not
            shown.append("".join(traceback.StackSummary.extract(each.iter_await_frames()).format()))
        waiting += [child for nursery in each.child_nurseries for child in nursery.child_tasks]
    return "\n".join(shown[1:])
