"""The plain form of `watch`: which events follow from what was read, and how they are written."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import attrs

from cronactors import Cause, CronRun, RunProgress, RunStatus, Trigger
from cronactors.cli.watch_events import Event, Reported, events_of, failure_of
from cronactors.cli.watch_reader import Change, RunningRun, Snapshot

NOW = datetime(2026, 3, 2, 8, 30, tzinfo=UTC)
RUNNING = CronRun(
    id="7",
    job_id="j",
    job_name="report",
    user_id="ann",
    scheduled_at=NOW,
    attempt=1,
    trigger=Trigger.SCHEDULE,
    status=RunStatus.RUNNING,
    started_at=NOW,
)
FAILED = attrs.evolve(
    RUNNING, status=RunStatus.FAILED, cause=Cause.ERROR, error="no luck", completed_at=NOW + timedelta(seconds=2)
)
RETRY = attrs.evolve(RUNNING, id="8", attempt=2, trigger=Trigger.RETRY, status=RunStatus.PENDING, started_at=None)
WAITING = attrs.evolve(RETRY, attempt=1)


def seen(
    *changed: CronRun, running: Sequence[RunningRun] = (), schedulers: int = 1, after: float = 0, ready_at: datetime = NOW
) -> Snapshot:
    return Snapshot(
        now=NOW + timedelta(seconds=after),
        changes=[Change(run, ready_at) for run in changed],
        schedulers=schedulers,
        running=running,
        running_count=len(running),
    )


def lines(events: Sequence[Event]) -> list[str]:
    return [event.line("UTC").removeprefix("2026-03-02 ") for event in events]


def progress(fraction: float | None, note: str, after: float) -> RunningRun:
    return RunningRun(run=RUNNING, progress=RunProgress(fraction=fraction, note=note, at=NOW + timedelta(seconds=after)))


BEGUN = Reported(schedulers=1)


def test_the_first_snapshot_says_who_is_alive_and_what_is_running():
    events, reported = events_of(seen(running=[RunningRun(run=RUNNING)]), Reported())
    assert lines(events) == ["08:30:00 UTC  1 scheduler alive", "08:30:00 UTC  run 7  report  of ann  attempt 1  started"]
    assert events_of(seen(running=[RunningRun(run=RUNNING)]), reported) == ([], reported)


def test_changes_are_events_and_a_pending_run_is_one_only_if_it_is_a_retry():
    events, _ = events_of(seen(RUNNING, FAILED, WAITING, RETRY, ready_at=NOW + timedelta(minutes=5)), BEGUN)
    assert [event.kind for event in events] == ["started", "finished", "retry"]
    assert lines(events)[1:] == [
        "08:30:02 UTC  run 7  report  of ann  attempt 1  failed/error  2.00 s  no luck",
        "08:30:00 UTC  run 8  report  of ann  attempt 2  retry planned for 2026-03-02 08:35:00 UTC",
    ]


def test_progress_is_reported_now_and_then():
    printed, reported = [], BEGUN
    for fraction, note, after in (
        (0.1, "one", 1),  # too early after the start
        (0.2, "two", 11),
        (0.3, "three", 15),  # too early after the last one
        (0.4, "four\x1b[31m", 21),
        (0.4, "four\x1b[31m", 40),  # nothing new
        (None, "five", 60),
    ):
        events, reported = events_of(seen(running=[progress(fraction, note, after)]), reported)
        printed += lines(events)
    start = "UTC  run 7  report  of ann  attempt 1  running  "
    assert printed == [
        f"08:30:11 {start}  20%  two", f"08:30:21 {start}  40%  four\\x1b[31m", f"08:31:00 {start}  five",
    ]  # fmt: skip
    _, reported = events_of(seen(), reported)
    assert reported.progress == {}, "runs that have finished are forgotten"


def test_schedulers_that_come_and_go_are_events():
    events, reported = events_of(seen(schedulers=0, after=1), BEGUN)
    assert lines(events) == ["08:30:01 UTC  no scheduler is alive"]
    assert lines(events_of(seen(schedulers=2), reported)[0]) == ["08:30:00 UTC  2 schedulers alive"]


def test_a_store_that_cannot_be_read_is_reported_once_and_so_is_its_return():
    events, reported = failure_of("the server is gone", NOW, BEGUN)
    assert lines(events) == ["08:30:00 UTC  no answer: the server is gone"]
    assert failure_of("still gone", NOW, reported)[0] == []
    events, reported = events_of(seen(), reported)
    assert lines(events) == ["08:30:00 UTC  the store answers again"]
    assert events_of(seen(), reported)[0] == []


def test_events_as_json():
    events, _ = events_of(seen(RETRY, running=[progress(0.5, "half", 12)], schedulers=2), BEGUN)
    schedulers, retry, report = (event.as_json() for event in events)
    assert schedulers == {"event": "schedulers", "at": "2026-03-02T08:30:00.000Z", "schedulers": 2}
    assert (retry["event"], retry["planned_at"]) == ("retry", "2026-03-02T08:30:00.000Z")
    assert (report["event"], report["fraction"], report["note"]) == ("progress", 0.5, "half")
    for event, run_id in ((retry, "8"), (report, "7")):
        run = event["run"]
        assert isinstance(run, dict)
        assert (run["id"], run["job_name"]) == (run_id, "report")
    failed, reported = failure_of("gone", NOW, BEGUN)
    assert failed[0].as_json() == {"event": "store", "at": "2026-03-02T08:30:00.000Z", "error": "gone"}
    assert events_of(seen(), reported)[0][0].as_json()["error"] is None
