"""The verbs `next` and `lint`: output and exit status."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime

import pytest
from click.testing import CliRunner

from cronactors.cli import schedules
from cronactors.cli.commands import cronactors
from tests.cli_command import start, write

__all__ = ["start", "write"]


@pytest.fixture
def call(monkeypatch):
    monkeypatch.setattr(schedules, "now", lambda: datetime(2026, 3, 28, 12, tzinfo=UTC))

    def call(*args: str):
        result = CliRunner().invoke(cronactors, args)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result.exit_code, result.output

    return call


def test_next_prints_local_time_offset_and_note(call):
    status, output = call("next", "30 2 * * *", "--timezone", "Europe/Rome", "-n", "3")
    assert (status, output.splitlines()) == (0, [
        "Sun 2026-03-29 03:00:00 +02:00  02:30 does not exist: runs at 03:00",
        "Mon 2026-03-30 02:30:00 +02:00",
        "Tue 2026-03-31 02:30:00 +02:00",
    ])  # fmt: skip


def test_next_prints_five_in_utc_from_now_on(call):
    status, output = call("next", "@daily")
    assert (status, output.splitlines()) == (0, [
        "Sun 2026-03-29 00:00:00 +00:00", "Mon 2026-03-30 00:00:00 +00:00", "Tue 2026-03-31 00:00:00 +00:00",
        "Wed 2026-04-01 00:00:00 +00:00", "Thu 2026-04-02 00:00:00 +00:00",
    ])  # fmt: skip


@pytest.mark.parametrize("after", ["2026-10-25", "2026-10-25T00:00", "2026-10-24T22:00Z", "2026-10-25 00:00+02:00"])
def test_next_after_a_time(call, after):
    status, output = call("next", "30 2 * * *", "--timezone", "Europe/Rome", "-n", "1", "--after", after)
    assert (status, output) == (0, "Sun 2026-10-25 02:30:00 +02:00  02:30 is shown twice: runs the first time only\n")


def test_next_as_json(call):
    status, output = call("next", "30 2 * * *", "--timezone", "Europe/Rome", "-n", "2", "--json")
    assert (status, json.loads(output)) == (0, [
        {"at": "2026-03-29T01:00:00.000Z", "local": "2026-03-29T03:00:00.000+02:00",
         "note": "02:30 does not exist: runs at 03:00"},
        {"at": "2026-03-30T00:30:00.000Z", "local": "2026-03-30T02:30:00.000+02:00", "note": None},
    ])  # fmt: skip


def test_next_with_an_offset_of_seconds(call):
    _, output = call("next", "0 9 * * *", "--timezone", "Africa/Monrovia", "-n", "1", "--after", "1971-06-01")
    assert output == "Tue 1971-06-01 09:00:00 -00:44:30\n"


def test_lint_of_an_expression(call):
    assert call("lint", "0 9 * * *", "--timezone", "Europe/Rome") == (0, "no findings\n")
    status, output = call("lint", "30 2 1 * sun", "--timezone", "Europe/Rome")
    assert status == 1
    assert [line.partition(": ")[0] for line in output.splitlines()] == ["both-days", "skipped-time", "repeated-time"]
    status, output = call("lint", "*/45 * * * *", "--json")
    assert (status, [(each["job"], each["rule"]) for each in json.loads(output)]) == (1, [(None, "uneven-step")])
    assert call("lint", "@daily", "--json") == (0, "[]\n")


JOBS = """
[[cron.jobs]]
name = "night"
prompt = "x"
cron = "30 2 * * *"
[[cron.jobs]]
name = "night in Tokyo"
prompt = "x"
cron = "30 2 * * *"
timezone = "Asia/Tokyo"
[[cron.jobs]]
name = "quick"
prompt = "x"
every_ms = 60
[[cron.jobs]]
name = "late"
prompt = "x"
at = "2026-01-01 09:00"
[[cron.jobs]]
name = "soon"
prompt = "x"
in_secs = 0.1
"""


def test_lint_of_a_file_names_the_jobs(call, write):
    status, output = call("lint", str(write(JOBS)))
    assert status == 1
    assert [re.match("([^:]*): ([^:]*): ", line).groups() for line in output.splitlines()] == [
        ("night", "skipped-time"), ("night", "repeated-time"), ("quick", "short-interval"), ("late", "in-the-past"),
    ]  # fmt: skip
    _, output = call("lint", str(write(JOBS)), "--json")
    assert [each["job"] for each in json.loads(output)] == ["night", "night", "quick", "late"]
    assert call("lint", str(write(""))) == (0, "no findings\n")


@pytest.mark.parametrize(
    ("args", "status", "message"),
    [
        (["next"], 2, "Error: Missing argument 'EXPR'"),
        (["next", "0", "9", "*", "*", "*"], 2, "Error: Got unexpected extra arguments"),
        (["next", "@daily", "-n", "0"], 2, "Error: Invalid value for '-n'"),
        (["next", "@daily", "--after", "soon"], 2, "Error: Invalid value for --after: 'soon' is not a date or time"),
        (["next", "@daily", "--timezone", "Rome"], 1, "cronactors: timezone 'Rome' is not the name of an IANA time zone"),
        (["next", "@daily", "--after", "9998-01-01"], 1, "cronactors: expr '@daily' does not fire in UTC from then"),
        (["next", "0 0 30 2 *"], 1, "cronactors: expr '0 0 30 2 \\*': there is no such date"),
        (["lint", "0 0 30 2 *"], 1, "cronactors: expr '0 0 30 2 \\*': there is no such date"),
        (["lint", "absent.toml"], 1, "cronactors: .*absent.toml: cannot be read"),
        (["lint", "absent"], 1, "cronactors: .*absent: cannot be read"),
        (["lint", "my absent.toml"], 1, "cronactors: .*my absent.toml: cannot be read"),
        (["lint", "agent.toml", "--timezone", "UTC"], 2, "Error: --timezone is for an expression"),
        (["lint", ""], 1, "cronactors: expr must not be empty"),
        (["lint", " "], 1, "cronactors: expr ' ': 5 fields are needed"),
        (["lint", "@often"], 1, "cronactors: expr '@often': '@often' is unknown"),
    ],
)
def test_wrong_usage_and_refused_input(start, tmp_path, args, status, message):
    code, text = start(*args).end()
    assert code == status
    assert re.match(message, text.splitlines()[-1])
    assert "Traceback" not in text
    assert not list(tmp_path.iterdir())


def test_next_begins_now(start):
    code, text = start("next", "* * * * * *", "-n", "1").end()
    assert code == 0
    shown = datetime.strptime(text, "%a %Y-%m-%d %H:%M:%S +00:00").replace(tzinfo=UTC)
    assert abs((shown - datetime.now(UTC)).total_seconds()) < 60
