"""Writes the command of a crontab line for the executor ``shell``, to run as cron runs it, and makes a name of it. Pure.

The rules are those of Debian's cron (crontab(5), and ``do_command.c`` where that is silent).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from shlex import quote
from typing import Final

import attrs

from cronactors.errors import InvalidJob
from cronactors.shell.checks import DEFAULT_SHELL, check_shell

_LIKE_SH: Final = frozenset({"sh", "ash", "bash", "dash", "ksh", "ksh93", "mksh", "posh", "rbash", "yash", "zsh"})
"""Shells that have ``export NAME='value'``."""
_READ_AT_START: Final = frozenset({"BASH_ENV", "ENV", "IFS", "OLDPWD", "PWD", "ZDOTDIR"})
"""Variables whose value a shell takes from its environment when it starts, or not at all: to set them later is not the same."""
_OF_SHELLS: Final = frozenset({"BASHOPTS", "BASH_VERSINFO", "EUID", "PPID", "SHELLOPTS", "UID"})
"""Variables that a shell sets itself and that cannot be assigned."""
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_FIRST_PERCENT = re.compile(r"(?<!\\)%")
_LONGEST_NAME: Final = 40


@attrs.frozen
class ShellCommand:
    """A command for the executor ``shell``.

    Attributes:
        prompt: The text for ``shell -c``.
        shell: The path of the shell; None: the default one.
    """

    prompt: str
    shell: str | None


def why_not_exported(name: str) -> str | None:
    """Explain why commands do not get a variable of a crontab; None if they do."""
    if not _NAME.fullmatch(name):
        return "a shell cannot export a variable of this name"
    if name == "LOGNAME":
        return "it cannot be changed in a crontab"
    return "the shell sets it itself" if name in _OF_SHELLS else None


def split_input(text: str) -> tuple[str, str | None]:
    r"""Split the command of a line at its first ``%`` without a backslash.

    Returns:
        The command; and its standard input, in which each further ``%`` is the end of a line. None if there is none. Each ``\%`` is a
        ``%``; other backslashes stay.
    """
    command, *rest = _FIRST_PERCENT.split(text, maxsplit=1)
    if not rest or not rest[0]:
        return command.replace("\\%", "%"), None
    lines = _FIRST_PERCENT.sub("\n", rest[0]).replace("\\%", "%")
    return command.replace("\\%", "%"), lines if lines.endswith("\n") else f"{lines}\n"


def shell_command(command: str, given: str | None, variables: Mapping[str, str], shell: str) -> ShellCommand:
    """Write a command so that it runs as cron would run it.

    Variables are exported in front of it; HOME is also the folder. A shell of its own, after that, gets a command that reads standard input, one for a shell that
    has no ``export``, and one with variables that a shell reads when it starts.

    Args:
        command: The command.
        given: Its standard input; None: empty.
        variables: The environment that the crontab gives it; names that a shell can export.
        shell: The SHELL of the crontab.

    Raises:
        InvalidJob: The shell is no absolute path.
    """
    check_shell("SHELL", shell)
    exports = f"export {' '.join(f'{name}={_quoted(value)}' for name, value in variables.items())}\n" if variables else ""
    if "HOME" in variables:
        exports += 'cd "$HOME" || exit\n'
    inside = shell.rpartition("/")[2] in _LIKE_SH and not variables.keys() & _READ_AT_START
    if given is None and (inside or not variables):
        # A newline at the end makes a text of several lines readable in a file; after a backslash it would count.
        end = "\n" if exports and not command.endswith("\\") else ""
        return ShellCommand(f"{exports}{command}{end}", None if shell == DEFAULT_SHELL else shell)
    own = f"{quote(shell)} -c {quote(command)}"
    if given is None:
        return ShellCommand(f"{exports}exec {own}\n", None)
    lines = " ".join(map(_quoted, given.removesuffix("\n").split("\n")))
    return ShellCommand(f"{exports}printf '%s\\n' {lines} | {own}\n", None)


def _quoted(value: str) -> str:
    """Quote a word for a shell, always: people look for the quotation marks."""
    found = quote(value)
    return found if found.startswith("'") else f"'{value}'" if "'" not in value else found


# Names

_SEPARATORS = re.compile(r"&&|\|\||[;|&(){}\n]")
_ARITHMETIC = re.compile(r"\$\(\([^()]*\)\)")
_EXTENSION = re.compile(r"\.(?:sh|bash|py|pl|php|rb|js)$")
_ASSIGNMENT = re.compile(r"[A-Za-z_][A-Za-z0-9_]*=")
_NOT_NAMED: Final = frozenset(
    {
        "",
        ".",
        ":",
        "[",
        "[[",
        "cd",
        "echo",
        "export",
        "false",
        "if",
        "printf",
        "set",
        "sleep",
        "source",
        "test",
        "then",
        "true",
        "umask",
    }
)
"""Commands that only prepare for the one that a line is about."""
_WRAPPERS: Final[Mapping[str, int]] = {
    **dict.fromkeys(("chronic", "command", "cronic", "env", "exec", "ionice", "nice", "nohup", "setsid", "sudo", "time"), 0),
    **dict.fromkeys(("chrt", "flock", "taskset", "timeout"), 1),
}
"""Commands that run another, and how many words stand between their options and that."""
_WITH_VALUE: Final = frozenset({"-c", "-g", "-k", "-n", "-p", "-s", "-u", "-w"})
"""Options of those that take a value, most of the time. Where one does not, the name is a worse one."""
_WITHOUT_VALUE: Final = frozenset({("flock", "-n"), ("flock", "-s"), ("sudo", "-n")})
_INTERPRETERS = re.compile(r"(?:ba|da|z|k)?sh|python[0-9.]*|perl|php[0-9.]*|ruby|node|run-parts")


def name_of_command(command: str) -> str:
    """Make a name of a command: that of its program or script, without folder and extension, at most 40 characters."""
    for part in _SEPARATORS.split(_ARITHMETIC.sub("0", command)):
        words = iter(part.split())
        name = _program(words)
        if name not in _NOT_NAMED:
            clean = re.sub(r"[^A-Za-z0-9._+-]+", "-", name).strip("-.")[:_LONGEST_NAME].strip("-.")
            if clean:
                return clean
    return "job"


def _program(words: Iterator[str]) -> str:
    """Return the program or script that words call."""
    for word in words:
        if _ASSIGNMENT.match(word):
            continue
        name = _base(word)
        if name in _WRAPPERS:
            for _ in range(_WRAPPERS[name]):
                _skip_options(name, words)
            following = _skip_options(name, words)
            return _program(iter([following, *words])) if following else name
        return _script(name, words) if _INTERPRETERS.fullmatch(name) else _EXTENSION.sub("", name)
    return ""


def _skip_options(name: str, words: Iterator[str]) -> str:
    """Return the first word after options; "" if there is none."""
    for word in words:
        if not word.startswith("-"):
            return word
        if word in _WITH_VALUE and (name, word) not in _WITHOUT_VALUE:
            next(words, "")
    return ""


def _script(name: str, words: Iterator[str]) -> str:
    """Return the script that an interpreter runs, or the module; if it is in no file, the interpreter."""
    for word in words:
        if word == "-m":
            return next(words, name)
        if word in ("-c", "-e", "-r", "-lc"):
            break
        if not word.startswith("-"):
            return _EXTENSION.sub("", _base(word)) or name
    return name


def _base(word: str) -> str:
    return word.strip("'\"`").rstrip("/").rpartition("/")[2]


def check_is_command(command: str) -> None:
    """Check that there is a command at all.

    Raises:
        InvalidJob: There is none.
    """
    if not command.strip():
        raise InvalidJob("there is no command after the time")
