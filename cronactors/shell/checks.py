"""Checks the prompt and the options of a job for the executor ``shell``, without running anything. Pure."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Final

from cronactors import checks
from cronactors.errors import CronError, InvalidJob, shorten

DEFAULT_SHELL: Final = "/bin/sh"
MAX_COMMAND = 131_072
"""The longest argument (bytes) of a program on Linux, with the NUL at its end (MAX_ARG_STRLEN, execve(2))."""
MAX_SHELL_PATH = 4_096
"""The longest path of a shell, in characters."""
_KEYS: Final = ("shell",)


def check_shell(field: str, value: object, error: type[CronError] = InvalidJob) -> str:
    """Check the path of a shell, and return it. It is absolute, so that it depends neither on PATH nor on the folder of the job.

    Raises:
        CronError: As the class in ``error``; the message begins with ``field``.
    """
    path = checks.text(field, value, error, limit=MAX_SHELL_PATH)
    if not path.startswith("/"):
        raise error(f"{field} must be an absolute path, not {shorten(path)}: write {shorten(f'/bin/{path}')}")
    return path


def check_shell_options(options: Mapping[str, object]) -> str:
    """Check the options of a job for the executor ``shell``.

    Returns:
        The path of the shell.

    Raises:
        InvalidJob: An option is unknown, or has a wrong type or value.
    """
    for key in options:
        if key not in _KEYS:
            near = difflib.get_close_matches(str(key)[:100], _KEYS, n=1)
            hint = f"did you mean {near[0]}?" if near else f'the executor "shell" has {", ".join(_KEYS)}'
            raise InvalidJob(f"executor_options: unknown key {shorten(key)}: {hint}")
    return check_shell("executor_options: shell", options["shell"]) if "shell" in options else DEFAULT_SHELL


def check_shell_prompt(prompt: str) -> None:
    """Check that a prompt is short enough for the system to start a shell with it.

    Raises:
        InvalidJob: It is too long. The message holds its length, not its text.
    """
    size = len(prompt.encode()) + 1
    if size > MAX_COMMAND:
        raise InvalidJob(
            f"prompt is too long for a shell: {size - 1:,} bytes, and Linux takes less than {MAX_COMMAND:,}; "
            "write it into a file and run that"
        )
