"""Findings in commands for the executor ``shell``: habits of a crontab, and of bash, that mean something else here. Pure."""

from __future__ import annotations

import re

from cronactors.errors import shorten
from cronactors.schedules.finding import Finding

# Quoted text and comments are skipped; the rest is looked at operator by operator. A backslash quotes the next character.
_TOKENS = re.compile(
    r"""(?P<skip>\\. | '[^']*'? | "(?:\\.|[^"\\])*"? | (?:(?<=[\s;&|()])|^)\#[^\n]*)
      | (?P<bash>&>>?)
      | (?P<other>&& | [<>]&)
      | (?P<background>&)
      | (?P<space>\s+)
      | (?P<word>.)""",
    re.VERBOSE | re.DOTALL,
)
_PERCENT = re.compile(r"(?<!\\)%")


def lint_command(command: str, shell: str) -> list[Finding]:
    """Look for what may not be meant in a command.

    Args:
        command: The prompt of a job.
        shell: The path of the shell that runs it.
    """
    found = []
    name = shell.rpartition("/")[2]
    bash_only, last = "", ""
    for match in _TOKENS.finditer(command):
        kind = match.lastgroup or ""
        if kind == "bash" and not bash_only:
            bash_only = match.group()
        if kind != "space" and not match.group().startswith("#"):
            last = kind
    if bash_only and name != "bash":
        again = ">> FILE 2>&1" if bash_only == "&>>" else "> FILE 2>&1"
        found.append(
            Finding(
                "bash-redirect",
                f"prompt: {bash_only} is bash's: {shorten(shell)} may start the command in the background and end it at once; write "
                f'{again}, or shell = "/bin/bash"',
            )
        )
    if last == "background":
        found.append(
            Finding(
                "background-command",
                "prompt: it ends in &: the shell exits at once, and the command is ended with it, its work undone; leave the & out",
            )
        )
    if _PERCENT.search(command):
        found.append(
            Finding(
                "crontab-percent",
                "prompt: a % is an ordinary character here; in a crontab one without a backslash ends the command and begins its "
                "standard input, so a line copied from there has to be rewritten",
            )
        )
    return found
