"""The command ``import-crontab``: where it reads, whose lines and which zone it takes, and that ``run`` takes what it prints."""

from __future__ import annotations

import io
import os
import pwd
import tomllib
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from cronactors.cli import import_crontab as module
from cronactors.cli.file_commands import import_crontab
from cronactors.cli.schedules import show_findings
from cronactors.cli.toml_output import print_toml
from cronactors.errors import CronError
from tests.cli_command import start, write

__all__ = ["start", "write"]

USER = pwd.getpwuid(os.geteuid()).pw_name


def call(*args: str, given: str | bytes | None = None) -> Result:
    result = CliRunner().invoke(import_crontab, args, input=given)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def prompts(result: Result) -> list[str]:
    assert result.exit_code == 0, result.output
    return [job["prompt"] for job in tomllib.loads(result.stdout_bytes.decode())["cron"].get("jobs", [])]


@pytest.mark.parametrize("args", [[], ["-"]])
def test_standard_input(args: list[str]) -> None:
    assert prompts(call(*args, given="@daily échapper\n")) == ["échapper"]


def test_a_file(tmp_path: Path) -> None:
    file = tmp_path / "crontab"
    file.write_text("\ufeff@daily a\n", encoding="utf-8")
    assert prompts(call(str(file), given="@daily b")) == ["a"]


def test_bytes_that_are_no_text_keep_their_line_out(tmp_path: Path) -> None:
    result = call(given=b"@daily caf\xe9\n@daily b\n")
    assert prompts(result) == ["b"]
    assert "# @daily caf\\udce9" in result.output


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("@daily a\n", ""),
        ("@daily a\n@reboot b\n", "1 line is not translated"),
        ("@daily a &\n", "1 job does not run quite as in cron"),
        ("@daily a &\n@daily b &\n@reboot b\nx\n", "2 lines are not translated and 2 jobs do not run quite as in cron"),
    ],
)
def test_standard_error_counts_what_needs_a_look(text: str, message: str) -> None:
    result = call("-", given=text)
    assert (result.exit_code, result.stderr) == (0, message and f"cronactors: {message}: comments in the file say why\n")


def test_a_terminal_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr("sys.stdin", Terminal())
    with pytest.raises(click.UsageError, match=r"no crontab: name a FILE, or pipe one: crontab -l \| cronactors import-crontab"):
        module.import_crontab(None, system=False, run_as=None, zone=None)


@pytest.mark.parametrize(
    ("args", "status", "message"),
    [
        (["--run-as", "root", "-"], 2, "--run-as is for a crontab of the system"),
        (["absent"], 1, "absent: cannot be read: No such file or directory"),
        (["."], 1, ".: is not a file"),
        (["--timezone", "Rome", "-"], 1, "timezone 'Rome' is not the name of an IANA time zone"),
        (["a", "b"], 2, "Got unexpected extra argument"),
    ],
)
def test_wrong_usage_and_refused_input(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, args: list[str], status: int, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    if status == 1:
        with pytest.raises(CronError, match=message):
            call(*args, given="")
    else:
        result = call(*args, given="")
        assert (result.exit_code, message in result.output) == (2, True), result.output


def test_a_crontab_that_is_too_big() -> None:
    with pytest.raises(CronError, match="standard input: is too big, at most 1,000,000 bytes are read"):
        call(given="#" * 1_000_001)


def test_the_user_of_the_process_is_the_default() -> None:
    text = f"@daily {USER} a\n@daily nobody-else b\n"
    assert prompts(call("--system", "-", given=text)) == ["a"]
    assert prompts(call("--system", "--run-as", "nobody-else", "-", given=text)) == ["b"]


def test_a_user_without_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 2**31 - 5)
    result = call("--system", "-", given="")
    assert (result.exit_code, "the user of this process has no name: give --run-as" in result.output) == (2, True)


@pytest.mark.parametrize(
    ("link", "text", "zone"),
    [
        ("usr/share/zoneinfo/Europe/Rome", "Asia/Tokyo\n", "Europe/Rome"),
        ("usr/share/zoneinfo/Etc/UTC", None, "UTC"),
        ("usr/share/zoneinfo/Nowhere", "Asia/Tokyo\n", "Asia/Tokyo"),
        (None, "Asia/Tokyo\n", "Asia/Tokyo"),
        (None, "nothing\n", None),
        (None, None, None),
    ],
)
def test_the_zone_of_the_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, link: str | None, text: str | None, zone: str | None
) -> None:
    monkeypatch.setattr(module, "_ZONE_LINK", tmp_path / "localtime")
    monkeypatch.setattr(module, "_ZONE_FILE", tmp_path / "timezone")
    if link is not None:
        target = tmp_path / link
        target.parent.mkdir(parents=True)
        target.touch()
        (tmp_path / "localtime").symlink_to(target)
    if text is not None:
        (tmp_path / "timezone").write_text(text)
    assert module.zone_of_machine() == zone
    assert tomllib.loads(call("-", given="").stdout)["timezone"] == (zone or "UTC")
    assert tomllib.loads(call("--timezone", "Asia/Tokyo", "-", given="").stdout)["timezone"] == "Asia/Tokyo"


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1", "ascii"])
def test_what_is_piped_is_utf_8_in_any_locale(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, encoding: str) -> None:
    crontab = tmp_path / "crontab"
    crontab.write_text("@daily échapper \u2603\n", encoding="utf-8")
    output = io.BytesIO()
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(output, encoding=encoding))
    module.import_crontab(str(crontab), system=False, run_as=None, zone="UTC")
    assert tomllib.loads(output.getvalue().decode())["cron"]["jobs"][0]["prompt"] == "échapper \u2603"


def test_a_terminal_shows_what_it_can(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.TextIOWrapper):
        def isatty(self) -> bool:
            return True

    output = io.BytesIO()
    monkeypatch.setattr("sys.stdout", Terminal(output, encoding="ascii"))
    print_toml("a = 'é'\n")
    assert output.getvalue() == b"a = '\\xe9'\n"


@pytest.mark.slow
def test_run_takes_what_is_printed_as_it_is(start, tmp_path: Path) -> None:
    text = call("-", given="A=it's\n@daily printf '\\%s é' \"$A\" > out.txt%\n*/5 9 * * 1 x\n@reboot y\n").stdout_bytes
    (tmp_path / "agent.toml").write_bytes(text)
    code, printed = start("run", "--for", "0").end()
    assert code == 0, printed
    assert [line.split()[0] for line in printed.splitlines() if line.startswith("  ") and " next " in line] == ["job", "x"]


@pytest.mark.parametrize(
    "command",
    [
        "mail -s report me%Hello%there",
        "mail -s 'a report' me%",
        r"tar czf /backup/$(date +\%Y\%m\%d).tgz /srv",
        r"echo '50\% off' %input",
        r"cp $f ${f\%.txt}.bak",
    ],
)
def test_lint_has_no_objection_to_the_result(tmp_path: Path, command: str) -> None:
    crontab = tmp_path / "crontab"
    crontab.write_text(f"0 1 * * * {command}\n")
    result = CliRunner().invoke(import_crontab, [str(crontab), "--timezone", "UTC"])
    file = tmp_path / "agent.toml"
    file.write_text(result.stdout)
    assert show_findings(str(file), zone=None, as_json=False) == 0
