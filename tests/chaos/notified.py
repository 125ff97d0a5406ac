"""Judges notifications: what receivers wrote down is compared with the store, which is read without the library."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Collection
from pathlib import Path

import attrs

from cronactors import CronJob, CronRun, current_notification
from tests.chaos.judge import append_line, read_rows

RECEIVERS = ("notifier", "on_finish")


@attrs.frozen
class Call:
    """A line of the log: a call that a receiver accepted."""

    receiver: str
    key: str


class Calls:
    """A file of one line for each call."""

    def __init__(self, file: str | Path) -> None:
        self.file = Path(file)

    async def notifier(self, _job: str, _session: str, _text: str, _success: bool) -> None:
        self.write()

    async def on_finish(self, _job: CronJob, run: CronRun) -> None:
        assert current_notification().key == f"run:{run.id}"
        self.write()

    def write(self) -> None:
        notification = current_notification()
        append_line(self.file, [notification.receiver, notification.key])

    def read(self) -> list[Call]:
        return [Call(*json.loads(line)) for line in self.file.read_text().splitlines()] if self.file.exists() else []


def judge_notifications(db: str | Path, calls: Calls, *, receivers: Collection[str] = RECEIVERS, delivered: bool = True) -> str:
    """Compare the store with the calls, and return the figures in words. Raises AssertionError if they disagree.

    Args:
        db: The file, or the address of the server.
        calls: The calls that the receivers accepted.
        receivers: The receivers of every scheduler that finished a run.
        delivered: Nothing may be pending any more.
    """
    found, rows = read_rows(
        db,
        "SELECT id FROM runs WHERE started_at IS NOT NULL AND status IN ('success', 'failed', 'cancelled')"
        " AND coalesce(cause, '') <> 'interrupted' AND coalesce(error, '') NOT LIKE 'interrupted: %'",
        "SELECT coalesce(\"key\", 'run:' || run_id), receiver, job_id, status FROM notifications ORDER BY id",
    )
    finished = {f"run:{run}" for (run,) in found}
    stored = Counter((key, receiver) for key, receiver, _, _ in rows)
    assert max(stored.values(), default=1) == 1, "an event has two rows for one receiver"
    expected = {(key, receiver) for key in finished for receiver in receivers}
    assert expected == stored.keys(), (
        f"lost: {sorted(expected - stored.keys())[:3]}, made up: {sorted(stored.keys() - expected)[:3]}"
    )
    accepted = Counter((call.key, call.receiver) for call in calls.read())
    assert accepted.keys() <= expected, f"never finished: {sorted(accepted.keys() - expected)[:3]}"
    status = {(key, receiver): status for key, receiver, _, status in rows}
    lost = [event for event, state in status.items() if state == "delivered" and event not in accepted]
    assert not lost, f"{len(lost)} are stored as delivered and never were: {lost[:3]}"
    if delivered:
        assert set(status.values()) <= {"delivered"}, Counter(status.values())
    _judge_order(rows, calls.read())
    return f"{len(expected)} notifications, {accepted.total() - len(accepted)} of them delivered again"


def _judge_order(rows: list[tuple[str, str, str, str]], calls: list[Call]) -> None:
    """Check that the first calls for a job and a receiver came in the order of its runs."""
    first: dict[tuple[str, str], int] = {}
    for place, call in enumerate(calls):
        first.setdefault((call.key, call.receiver), place)
    places: dict[tuple[str, str], list[int]] = defaultdict(list)
    for key, receiver, job, _ in rows:
        if (key, receiver) in first:
            places[job, receiver].append(first[key, receiver])
    for line, found in places.items():
        assert found == sorted(found), f"out of order: {line}"
