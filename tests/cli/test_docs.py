"""docs/cli.md lists every command, and every option with the commands that have it."""

from __future__ import annotations

import re

import click

from cronactors.cli.commands import cronactors
from tests.cli_command import ROOT

PAGE = (ROOT / "docs/cli.md").read_text(encoding="utf-8")


def rows(heading: str) -> list[list[str]]:
    """Return the rows of the table under a heading row, each as its cells."""
    _, _, rest = PAGE.partition(f"{heading}\n")
    found = rest.split("\n\n")[0].splitlines()[1:]
    assert found
    return [row.strip("| ").split(" | ") for row in found]


def test_every_command_is_listed():
    listed = [re.findall(r"^`cronactors ([a-z][\w-]*)", row[0]) for row in rows("| Command | |")]
    assert sorted(name for names in listed for name in names) == sorted(cronactors.commands)


def test_every_option_is_listed_with_its_commands():
    listed = {
        (option, command)
        for options, commands, _ in rows("| Option | Of | |")
        if commands != "all"
        for option in re.findall(r"`(-[\w-]+)", options)
        for command in re.findall(r"`([\w-]+)`", commands)
    }
    declared = {
        (option, name)
        for name, command in cronactors.commands.items()
        for parameter in command.params
        if isinstance(parameter, click.Option)
        for option in parameter.opts
    }
    assert listed == declared
