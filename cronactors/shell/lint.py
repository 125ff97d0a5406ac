"""The rules of `lint` for shell commands: habits from a crontab or from bash that mean something else here. Pure."""

from __future__ import annotations

import re

from cronactors.errors import shorten
from cronactors.schedules.finding import Finding

# We skip quoted text, comments, ${..} and $((..)) and read the rest operator by operator. A backslash quotes the next character.
# In a crontab no working command has a % in any of these, nor in a format such as +%F or --format=%h: it would end the command there.
_TOKENS = re.compile(
    r"""(?P<skip>\\. | '[^']*'? | "(?:\\.|[^"\\])*"? | (?:(?<=[\s;&|()])|^)\#[^\n]*)
      | (?P<expansion>\$\{[^}]*\} | \$\(\(.*?\)\))
      | (?P<format>[+=]%[^\s;&|()'"]*)
      | (?P<percent>%)
      | (?P<bash>&>>?)
      | (?P<other>&& | [<>]&)
      | (?P<background>&)
      | (?P<space>\s+)
      | (?P<word>.)""",
    re.VERBOSE | re.DOTALL,
)


def lint_command(command: str, shell: str) -> list[Finding]:
    """Find likely mistakes in a command. The findings don't quote it, since it may hold a password.

    Args:
        command: The prompt of a job.
        shell: The path of the shell that runs it.
    """
    found = []
    name = shell.rpartition("/")[2]
    bash_operator, last, has_percent = "", "", False
    for match in _TOKENS.finditer(command):
        kind = match.lastgroup or ""
        has_percent = has_percent or kind == "percent"
        if kind == "bash" and not bash_operator:
            bash_operator = match.group()
        if kind != "space" and not match.group().startswith("#"):
            last = kind
    if bash_operator and name != "bash":
        replacement = ">> FILE 2>&1" if bash_operator == "&>>" else "> FILE 2>&1"
        found.append(
            Finding(
                "bash-redirect",
                f"prompt: {bash_operator} is bash's: {shorten(shell)} may start the command in the background and end it at once; "
                f'write {replacement}, or shell = "/bin/bash"',
            )
        )
    if last == "background":
        found.append(
            Finding(
                "background-command",
                "prompt: it ends in &: the shell exits at once, and the command is ended with it, its work undone; remove the &",
            )
        )
    if has_percent:
        found.append(
            Finding(
                "crontab-percent",
                "prompt: a % is an ordinary character here; in a crontab a % without a backslash ends the command and begins its "
                "standard input, so a line copied from there has to be rewritten",
            )
        )
    return found
