"""Find an executor by its name: ``"shell"``, or ``"package.module:function"``."""

from __future__ import annotations

import importlib
import inspect
import sys
import traceback
from collections.abc import Callable
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING, cast

from cronactors import checks
from cronactors.errors import InvalidConfig, one_line, shorten
from cronactors.model import JobExecutor
from cronactors.shell.executor import SHELL_GRACE, SHELL_OUTPUT, CommandFailed, shell_executor

if TYPE_CHECKING:
    from _typeshed import StrPath

__all__ = ["SHELL_GRACE", "SHELL_OUTPUT", "CommandFailed", "find_executor", "load_executor", "shell_executor"]


def find_executor(name: str, folder: StrPath) -> JobExecutor:
    """Find the executor that a configuration names.

    Args:
        name: ``"shell"`` or ``"package.module:function"``.
        folder: The working directory of shell commands.

    Raises:
        InvalidConfig: There is no such executor.
    """
    return shell_executor(folder) if name == "shell" else load_executor(name)


def load_executor(name: str) -> JobExecutor:
    """Import an executor by its name, ``"package.module:function"``; ``"package.module:object.method"`` works too.

    Raises:
        InvalidConfig: The name is malformed, its module cannot be imported, or the object is no async function of one argument.
    """
    checks.text("executor", name, InvalidConfig, limit=4096)
    module_name, colon, path = name.partition(":")
    parts = [*module_name.split("."), *path.split(".")]
    if not colon or not all(part.isidentifier() for part in parts):
        raise InvalidConfig(f'executor must be "shell" or "package.module:function", not {shorten(name)}')
    found = _import(name, module_name, path)
    if not callable(found):
        raise InvalidConfig(f"executor {shorten(name)} must be an async function, not {type(found).__name__}")
    if not _is_async(found):
        raise InvalidConfig(f"executor {shorten(name)} must be an async function: write async def")
    try:
        _signature(found).bind(None)
    except (TypeError, ValueError):
        raise InvalidConfig(f"executor {shorten(name)} must take one argument, the JobContext") from None
    return cast(JobExecutor, found)


def _import(name: str, module_name: str, path: str) -> object:
    """Import the object that a user names. Importing a module can raise anything, SystemExit too."""
    try:
        module = importlib.import_module(module_name)
    except (Exception, SystemExit) as problem:
        frames = [frame for frame in traceback.extract_tb(problem.__traceback__) if "importlib" not in frame.filename]
        place = f" ({Path(frames[-1].filename).name}, line {frames[-1].lineno})" if len(frames) > 1 else ""
        error = one_line(f"{type(problem).__name__}: {problem}", 300)
        raise InvalidConfig(f"executor {shorten(name)}: cannot import {module_name}: {error}{place}") from problem
    try:
        return reduce(getattr, path.split("."), cast(object, module))
    except Exception as problem:
        raise InvalidConfig(f"executor {shorten(name)}: {module_name} has no {path}") from problem


def _is_async(found: Callable[..., object]) -> bool:
    """Whether a call returns a coroutine: an async function, partial or method, decorated or not, or an object with async ``__call__``."""
    if isinstance(found, type):
        return False
    return any(map(inspect.iscoroutinefunction, (found, inspect.unwrap(found), type(found).__call__)))


def _signature(found: Callable[..., object]) -> inspect.Signature:
    """Return the signature of a function.

    Annotations may name types that only type checkers import. From Python 3.14 on `inspect.signature` evaluates annotations unless we
    request their text (PEP 649).
    """
    if sys.version_info >= (3, 14):
        from annotationlib import Format  # noqa: PLC0415 - new in 3.14

        return inspect.signature(found, annotation_format=Format.STRING)
    else:  # noqa: RET505 - type checkers for 3.14 would report unreachable code
        return inspect.signature(found)
