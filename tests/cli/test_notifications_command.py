"""The verb `notifications`."""

from __future__ import annotations

import json
import re
import shutil

import pytest
import trio

from cronactors import Interval, open_store
from cronactors.cli import listing
from tests.cli_history import address, call, filled

__all__ = ["address", "filled"]


@pytest.fixture
def own(filled, tmp_path):
    """A copy of the file with a history, to change."""
    return shutil.copy(filled, tmp_path / "own.db")


def listed(database, *args: str):
    status, output = call(database, "notifications", "--json", *args)
    assert status == 0, output
    return json.loads(output)


def test_the_table_is_newest_first_with_the_names_of_jobs(filled):
    status, output = call(filled, "notifications", "--limit", "100")
    assert status == 0
    header, *rows = [line.rstrip() for line in output.splitlines()]
    assert re.split("  +", header) == ["event", "job", "receiver", "in UTC", "status", "failed", "error"]
    assert len(rows) == 13
    assert (
        len([row for row in rows if re.search(r"  bad +on_finish .* given_up +2 +OSError: the mail server is down$", row)]) == 6
    )
    assert len([row for row in rows if re.match(r"run:\d+ +\(removed\) +on_finish .* delivered +0$", row)]) == 1
    times = [row["created_at"] for row in listed(filled, "--limit", "100")]
    assert times == sorted(times, reverse=True)


def test_the_error_is_cut_to_the_terminal(filled, monkeypatch):
    monkeypatch.setattr(listing, "terminal_width", lambda: 80)
    _, *rows = call(filled, "notifications", "--status", "given_up")[1].splitlines()
    assert {len(row) for row in rows} == {80}
    assert all(row.endswith("…") for row in rows)


@pytest.mark.parametrize(
    ("args", "count"),
    [
        ([], 10),
        (["--limit", "3"], 3),
        (["--status", "given_up"], 6),
        (["--status", "delivered"], 7),
        (["--status", "pending"], 0),
        (["--receiver", "on_finish", "--limit", "100"], 13),
        (["--receiver", "notifier"], 0),
    ],
)
def test_filters(filled, args, count):
    found = listed(filled, *args)
    assert len(found) == count
    assert all(re.fullmatch(r"2026-03-02T\d\d:\d\d:\d\d\.\d{3}Z", each["created_at"]) for each in found)


def test_those_that_were_given_up_are_pending_again(own):
    first, *others = listed(own, "--status", "given_up")
    status, output = call(own, "notifications", "--retry", first["key"])
    assert (status, output.splitlines()[-1]) == (0, "1 notification is pending again")
    assert re.search(rf"^{first['key']} +bad +on_finish .* pending +0", output, re.MULTILINE)
    assert [each["key"] for each in listed(own, "--status", "pending")] == [first["key"]]
    assert listed(own, "--status", "given_up") == others
    number = others[0]["run_id"]
    assert [each["key"] for each in listed(own, "--retry", number, "--receiver", "on_finish")] == [f"run:{number}"]
    assert len(listed(own, "--status", "pending")) == 2


def test_only_what_was_given_up_is_retried(own):
    delivered = listed(own, "--status", "delivered")[0]["key"]
    for args in (
        [delivered],
        ["999999"],
        ["nonsense"],
        [listed(own, "--status", "given_up")[0]["key"], "--receiver", "notifier"],
    ):
        status, text = call(own, "notifications", "--retry", *args)
        assert (status, text.startswith("cronactors: "), text.count("\n")) == (1, True, 0)
    assert listed(own, "--status", "pending") == []


def test_none(address):
    async def fill():
        async with open_store(address) as store:
            await store.add_job("job", "it", Interval.every(hours=1))

    trio.run(fill)
    assert call(address, "notifications") == (0, "no notifications\n")
    assert call(address, "notifications", "--status", "given_up") == (0, "no notifications match\n")
    assert listed(address) == []
    assert call(address, "notifications", "--retry", "run:1")[0] == 1


@pytest.mark.parametrize(
    "args",
    [
        ["--status", "lost"],
        ["--limit", "0"],
        ["--retry", "run:1", "--limit", "3"],
        ["--retry", "run:1", "--status", "pending"],
        ["x"],
    ],
)
def test_wrong_usage(tmp_path, args):
    assert call(tmp_path / "absent.db", "notifications", *args)[0] == 2
    assert not list(tmp_path.iterdir())
