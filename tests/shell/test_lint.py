"""Findings in commands: habits from a crontab and from bash."""

from __future__ import annotations

import json
import os
import subprocess

import pytest
from click.testing import CliRunner

from cronactors.cli.commands import cronactors
from cronactors.shell.lint import lint_command
from tests.cli_command import write

__all__ = ["write"]
BASH, BACKGROUND, PERCENT = "bash-redirect", "background-command", "crontab-percent"


@pytest.mark.parametrize(
    ("command", "rules"),
    [
        ("./nightly.sh &>> log", [BASH]),
        ("./nightly.sh &>log", [BASH]),
        ("a &> one; b &>> two", [BASH]),
        ("./nightly.sh >> log 2>&1", []),
        ("./nightly.sh >& log", []),
        ("cat <&0", []),
        ("nohup cmd &", [BACKGROUND]),
        ("cmd &\n", [BACKGROUND]),
        ("cmd & # in the background", [BACKGROUND]),
        ("cmd\\\\&", [BACKGROUND]),
        ("cmd > log 2>&1 &", [BACKGROUND]),
        ("cmd &>> log &", [BASH, BACKGROUND]),
        ("one & two & wait", []),
        ("one && two", []),
        ("one &&\ntwo", []),
        ("cmd\\&", []),
        ("echo '&>>' \"a & b &\"", []),
        ("echo 'it &'", []),
        ('echo "a \\" &>> &"', []),
        ("echo x # and &>> log &", []),
        ("echo a#b &", [BACKGROUND]),
        ("echo ${#x} &", [BACKGROUND]),
        ("mail -s report me%Hello", [PERCENT]),
        ("mail -s report me %Hello", [PERCENT]),
        ("mail -s 'a \\% b' me%Hello%there", [PERCENT]),
        ("tar czf $(date +%F).tgz /srv; mail me%done", [PERCENT]),
        ("date +%F", []),
        ("tar czf backup-$(date +%Y%m%d).tgz /srv", []),
        ("date '+%F'", []),
        ('mail -s "50 % off" me', []),
        ("git log --format=%h%n", []),
        ('cp "$f" ${f%.txt}.bak', []),
        ("exit $((n % 2))", []),
        ("date +\\%F", []),
        ("", []),
        ("&", [BACKGROUND]),
        ("'unclosed &", []),
        ('"unclosed &', []),
        ("cmd \\", []),
    ],
)  # fmt: skip
def test_findings_in_commands(command, rules):
    assert [each.rule for each in lint_command(command, "/bin/sh")] == rules


def test_a_redirection_of_bash_is_fine_in_bash():
    assert not lint_command("./nightly.sh &>> log", "/usr/local/bin/bash")
    assert [each.rule for each in lint_command("./nightly.sh &>> log &", "/bin/bash")] == [BACKGROUND]


@pytest.mark.parametrize(("operator", "replacement"), [("&>", "> FILE 2>&1"), ("&>>", ">> FILE 2>&1")])
def test_the_text_names_the_replacement(operator, replacement):
    (finding,) = lint_command(f"cmd {operator} log", "/bin/dash")
    assert f"{operator} is bash's: '/bin/dash' may" in finding.text
    assert replacement in finding.text


def test_no_finding_quotes_the_prompt():
    for finding in lint_command("SECRET %x &>> SECRET &", "/bin/sh"):
        assert "SECRET" not in finding.text


@pytest.mark.skipif("dash" not in os.path.realpath("/bin/sh"), reason="/bin/sh is not dash")
def test_dash_starts_a_background_process_at_a_redirection_of_bash(tmp_path):
    code = "sh -c 'sleep 0.2; echo late' &>> log; echo $?; wait; cat log"
    done = subprocess.run(["/bin/sh", "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout == "0\nlate\n"  # it went to standard output, from the background


JOBS = """
[[cron.jobs]]
name = "night"
prompt = "./nightly.sh &>> log"
every_ms = 60000
[[cron.jobs]]
name = "bash"
prompt = "./nightly.sh &>> log"
every_ms = 60000
shell = "/bin/bash"
[[cron.jobs]]
name = "delayed"
prompt = "nohup cmd &"
in_secs = 5
[[cron.jobs]]
name = "fine"
prompt = "true"
every_ms = 60000
"""


def test_lint_reports_commands_of_a_file(write):
    file = write(JOBS)
    result = CliRunner().invoke(cronactors, ["lint", str(file), "--json"])
    assert result.exit_code == 1
    assert [(each["job"], each["rule"]) for each in json.loads(result.output)] == [("night", BASH), ("delayed", BACKGROUND)]
    file.write_text(file.read_text().replace('executor = "shell"', 'executor = "shell"\nshell = "/bin/bash"'))
    result = CliRunner().invoke(cronactors, ["lint", str(file), "--json"])
    assert [(each["job"], each["rule"]) for each in json.loads(result.output)] == [("delayed", BACKGROUND)]
    file.write_text(
        file.read_text()
        .replace('executor = "shell"\nshell = "/bin/bash"', 'executor = "my:agent"')
        .replace('shell = "/bin/bash"\n', "")
    )
    assert CliRunner().invoke(cronactors, ["lint", str(file)]).output == "no findings\n"


def test_lint_refuses_a_prompt_that_is_too_long(write):
    file = write(f'[[cron.jobs]]\nname = "long"\nprompt = "{"x" * 131_072}"\nevery_ms = 60000')
    result = CliRunner().invoke(cronactors, ["lint", str(file)])
    assert result.exit_code == 1
    assert "job 'long': prompt is too long for a shell: 131,072 bytes" in str(result.exception)
