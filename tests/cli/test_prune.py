"""The verb `prune`."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import attrs
import pytest
import trio
from click.testing import CliRunner

from cronactors import Interval, InvalidConfig, open_store
from cronactors.actors.mailbox import Request
from cronactors.cli import prune
from cronactors.cli.commands import cronactors
from cronactors.cli.prune import limits_of
from cronactors.instants import DAY
from cronactors.storage.protocol import Storage
from cronactors.storage.rows import RunRow
from tests.cli_history import address

__all__ = ["address"]

AGES = {"report": range(1, 201), "mail": range(1, 6), "gone": range(100, 103)}
"""The ages (days) of the runs of each job. "mail" belongs to ann, "gone" is removed."""


@attrs.frozen
class AddOldRuns(Request[None]):
    """Add runs that have finished some days ago."""

    job_id: str
    name: str
    user_id: str
    days: range

    def apply(self, storage: Storage) -> None:
        times = [storage.now() - day * DAY for day in reversed(self.days)]
        storage.insert_runs(
            [
                RunRow(
                    id=0, job_id=self.job_id, job_name=self.name, user_id=self.user_id, trigger="schedule", manual=0,
                    scheduled_at=at, attempt=1, ready_at=at, status="success", started_at=at, completed_at=at,
                )
                for at in times
            ]
        )  # fmt: skip


async def fill(database: str) -> None:
    async with open_store(database) as store:
        for name, days in AGES.items():
            user = "ann" if name == "mail" else None
            job_id = await store.add_job(name, "it", Interval.every(hours=1), user_id=user)
            await store._service.mailbox.call(AddOldRuns(job_id, name, user or "", days))
            if name == "gone":
                await store.remove_job(job_id)


@pytest.fixture
def call(address: str) -> Callable[..., str]:
    trio.run(fill, address)

    def call(*args: str, status: int = 0, given: str = "") -> str:
        result = CliRunner().invoke(cronactors, ["prune", "--db", address, *args], input=given)
        assert result.exit_code == status, result.output
        return result.output

    return call


def runs_of(call: Callable[..., str], *args: str) -> dict[str, int]:
    return {job["name"]: job["runs"] for job in json.loads(call("--json", *args))["jobs"]}


def test_a_dry_run_says_what_would_be_deleted_and_deletes_nothing(call):
    output = call("--dry-run")
    assert re.match(r"runs that finished before \d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC, 90 days ago,\n", output)
    assert output.splitlines()[1:] == [
        "or beyond the newest 100,000 of their job,",
        "but not the newest 100 of each job; jobs with a history of their own by its limits",
        "",
        "job     runs",
        "report  100",
        "",
        "100 runs of 1 job would be deleted: leave out --dry-run to delete them",
    ]
    assert runs_of(call, "--dry-run", "--keep-last", "0") == {"report": 111, "gone": 3}
    assert runs_of(call, "--dry-run", "--older-than", "3d", "--keep-last", "2") == {"report": 198, "mail": 3, "gone": 1}


def test_what_was_counted_is_deleted(call, address):
    args = ("--older-than", "2d12h", "--keep-last", "0")
    counted = runs_of(call, *args, "--dry-run", "--yes")
    assert counted == {"report": 198, "mail": 3, "gone": 3}
    done = json.loads(call(*args, "--json", "--yes"))
    assert {job["name"]: job["runs"] for job in done["jobs"]} == counted
    assert (done["deleted"], done["runs"], done["limits"]["days"]) == (True, 204, 2.5)
    assert {job["name"]: job["user_id"] for job in done["jobs"]} == {"report": None, "mail": "ann", "gone": None}
    assert call(*args, "--yes").splitlines()[-1] == "no runs to delete"
    assert json.loads(call(*args, "--json", "--dry-run"))["jobs"] == []

    async def left() -> int:
        async with open_store(address) as store:
            return await store.count_runs()

    assert trio.run(left) == 4


def test_it_asks_on_a_terminal_only(call, monkeypatch):
    assert "there is no terminal to confirm on: give --yes" in call(status=2)
    assert "--json asks nothing: give --yes" in call("--json", status=2)
    monkeypatch.setattr(prune, "_is_terminal", lambda: True)
    assert "Delete 100 runs of 1 job? [y/N]: n" in call(status=1, given="n\n")
    assert runs_of(call, "--dry-run") == {"report": 100}
    assert "\ndeleted 100 runs of 1 job\n" in call(given="y\n")
    assert call().splitlines()[-1] == "no runs to delete"


def test_wrong_limits_are_refused(call):
    assert "is not a length of time" in call("--older-than", "soon", status=2)
    with pytest.raises(InvalidConfig, match="days must be more than 0"):
        limits_of(None, timedelta(0), None)


@pytest.mark.parametrize(
    ("history", "expected"),
    [
        ("", {"report": 100}),
        ("history = false\n", {}),
        ("[cron.history]\ndays = 150\nkeep_last = 0\n", {"report": 51}),
        ("[cron.history]\ndays = false\nper_job = 120\n", {"report": 80}),
    ],
)
def test_the_limits_of_the_file_that_names_the_database(tmp_path: Path, monkeypatch, history, expected):
    monkeypatch.chdir(tmp_path)
    trio.run(fill, "jobs.db")
    Path("agent.toml").write_text(f'[cron]\nexecutor = "shell"\ndatabase = "jobs.db"\n{history}')
    result = CliRunner().invoke(cronactors, ["prune", "--json", "--dry-run"])
    assert {job["name"]: job["runs"] for job in json.loads(result.output)["jobs"]} == expected
    other = CliRunner().invoke(cronactors, ["prune", "--json", "--dry-run", "--db", "jobs.db"])
    assert json.loads(other.output)["runs"] == 100, "the file does not name the database of --db"


def test_many_jobs_are_summed_up(tmp_path: Path):
    async def fill_many() -> None:
        async with open_store(tmp_path / "jobs.db") as store:
            for number in range(25):
                await store._service.mailbox.call(AddOldRuns(f"j{number}", f"job {number}", "", range(1, 4)))

    trio.run(fill_many)
    result = CliRunner().invoke(
        cronactors, ["prune", "--db", str(tmp_path / "jobs.db"), "--dry-run", "--older-than", "1h", "--keep-last", "1"]
    )
    lines = result.output.splitlines()
    assert len(lines) == 3 + 1 + 1 + 20 + 1 + 1 + 1
    assert lines[-3] == "and 10 runs of 5 more jobs"
    assert lines[-1].startswith("50 runs of 25 jobs would be deleted")
