"""The verb `stats`."""

from __future__ import annotations

import json
import re

import pytest
import trio
from hypothesis import given, strategies as st

from cronactors import Cause, Interval, RunStatus, open_store, run_stats as figures
from cronactors.cli.stats import percent, success_rate
from cronactors.run_stats import RunStats, stats_of
from cronactors.storage.history import RunFigures
from tests.cli_history import address, call, filled

__all__ = ["address", "filled"]


def stats(database, *args: str):
    status, output = call(database, "stats", "--json", *args)
    assert status == 0, output
    return json.loads(output)


def test_the_table_of_all_jobs(filled):
    status, output = call(filled, "stats")
    assert status == 0
    lines = [line.rstrip() for line in output.splitlines()]
    assert lines[:2] == ["13 runs, from 2026-03-02 09:00:00 UTC on", ""]
    assert [re.split("  +", line) for line in lines[2:6]] == [
        ["outcome", "runs", "share"],
        ["success", "7", "53.8 %"],
        ["failed", "6", "46.2 %"],
        ["success rate", "53.8 %", "of those that succeeded or failed"],
    ]
    assert lines[6:8] == ["causes: error 6", ""]
    assert re.split("  +", lines[8]) == ["time", "half of them within", "95 % within", "99 % within", "longest"]
    assert re.fullmatch(r"took( +5\.\d\d s){4}", lines[9])
    assert re.fullmatch(r"started late( +0\.\d\d s){4}", lines[10])
    assert len(lines) == 11
    assert all(len(line) <= 80 for line in lines)


@pytest.mark.parametrize(
    ("args", "runs", "rate"),
    [
        (["report"], 2, 1.0),
        (["bad"], 6, 0.0),
        (["gone"], 1, 1.0),
        (["mail", "--user", "ann"], 2, 1.0),
        (["--user", "bob"], 2, 1.0),
        (["--user", ""], 2 + 6 + 1, 1 / 3),
        (["--tag", "flaky"], 6, 0.0),
        (["--since", "2026-03-02T10:00Z", "--until", "2026-03-02T10:00:30Z"], 4, 0.75),
        (["report", "--since", "2026-03-02T11:00"], 1, 1.0),  # of Rome
        (["--since", "2026-03-03"], 0, None),
    ],
)
def test_filters_and_json(filled, args, runs, rate):
    found = stats(filled, *args)
    assert found["runs"] == runs
    assert found["success_rate"] == (None if rate is None else pytest.approx(rate))
    assert set(found["by_status"]) == set(RunStatus)
    assert set(found["by_cause"]) == set(Cause)
    assert found["complete"] is True
    assert (found["oldest"] is None) is (found["duration_p50"] is None) is (found["lateness_max"] is None) is (runs == 0)


def test_the_zone_of_the_job_is_used(filled):
    assert call(filled, "stats", "report")[1].startswith("2 runs, from 2026-03-02 10:00:00 CET on\n")
    assert call(filled, "stats", "gone")[1].startswith("1 run, from 2026-03-02 09:00:00 UTC on\n")


def test_errors(filled):
    assert call(filled, "stats", "--since", "2026-03-03") == (0, "no runs match\n")
    assert call(filled, "stats", "mail") == (1, "cronactors: 2 users have a job named 'mail': give --user with one of ann, bob")
    assert call(filled, "stats", "absent")[0] == 1
    assert call(filled, "stats", "--since", "soon")[0] == 2


def test_only_the_newest_are_counted(address, monkeypatch):
    async def fill():
        async with open_store(address) as store:
            job_id = await store.add_job("job", "it", Interval.every(hours=1))
            for status in (RunStatus.FAILED, RunStatus.SUCCESS, RunStatus.SUCCESS):
                await store.record_run_complete(await store.record_run_start(job_id), status, "x")
                await trio.sleep(0.002)  # moments of runs of one job differ

    trio.run(fill)
    every = stats(address)["runs"]
    assert every >= 3
    monkeypatch.setattr(figures, "MOST_FIGURES", 2)
    monkeypatch.setattr("cronactors.cli.stats.MOST_FIGURES", 2)
    found = stats(address, "job")
    assert (found["runs"], found["complete"]) == (2, False)
    assert call(address, "stats")[1].startswith("2 runs: the newest 2, there are more, from ")


@pytest.mark.parametrize(
    ("share", "text"), [(0, "0.0 %"), (1, "100.0 %"), (0.5, "50.0 %"), (0.99999, "99.9 %"), (1e-9, "0.1 %"), (0.1234, "12.3 %")]
)
def test_a_percentage(share, text):
    assert percent(share) == text


@given(st.lists(st.sampled_from(RunStatus), max_size=40))
def test_the_rate_is_that_of_runs_that_succeeded_or_failed(statuses):
    rows = [RunFigures(status, None, 1, 0, 0, 0) for status in statuses]
    found: RunStats = stats_of(rows, complete=True)
    decided = [status for status in statuses if status in ("success", "failed")]
    assert success_rate(found) == (decided.count(RunStatus.SUCCESS) / len(decided) if decided else None)
