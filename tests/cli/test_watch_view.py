"""The live view as lines: it fits every terminal, and shows what matters most where there is little room."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import attrs
import pytest
from hypothesis import given, strategies as st

from cronactors import Cause, CronRun, RunProgress, RunStatus, Trigger
from cronactors.cli import stdout
from cronactors.cli.tables import text_width
from cronactors.cli.watch_reader import MOST_NEXT, NextRun, RunningRun, Snapshot
from cronactors.cli.watch_view import View, lines_of

NOW = datetime(2026, 3, 2, 8, 30, tzinfo=UTC)
WIDE_NAME = "日本語の長い名前のレポート"


def run(number: int = 1, name: str = "report", status: RunStatus = RunStatus.SUCCESS, **fields: object) -> CronRun:
    made = CronRun(
        id=str(number),
        job_id="j",
        job_name=name,
        user_id=None,
        scheduled_at=NOW - timedelta(minutes=5),
        attempt=1,
        trigger=Trigger.SCHEDULE,
        status=status,
        started_at=NOW - timedelta(minutes=5),
        completed_at=NOW - timedelta(minutes=4) if status.ended else None,
        result_summary="all is well" if status is RunStatus.SUCCESS else None,
    )
    return attrs.evolve(made, **fields)  # type: ignore[misc]


def running(name: str = "import", **fields: object) -> RunningRun:
    return RunningRun(run=run(2, name, RunStatus.RUNNING, **fields))


def shown(view: View, width: int, height: int) -> list[str]:
    return ["".join(cell.text for cell in line) for line in lines_of(view, width, height)]


SEEN = Snapshot(
    now=NOW,
    schedulers=1,
    running=[attrs.evolve(running(), progress=RunProgress(fraction=0.45, note="page 9 of 20", at=NOW)), running(WIDE_NAME)],
    running_count=2,
    due=3,
    retries=1,
    next=[
        NextRun(name="bad", user_id="ann", at=NOW + timedelta(seconds=30), is_retry=True),
        NextRun(name="import", at=NOW - timedelta(seconds=1), is_busy=True),
        NextRun(name="report", at=NOW + timedelta(days=2)),
    ],
)
FULL = View(
    title="jobs.db",
    now=NOW,
    snapshot=SEEN,
    last=[run(), run(3, "bad", RunStatus.FAILED, cause=Cause.ERROR, error="the disk is full", attempt=2, user_id="ann")],
)


def test_a_view_of_80_columns():
    assert shown(FULL, 80, 20) == [
        "jobs.db                                                  2026-03-02 08:30:00 UTC",
        "1 scheduler alive  3 starts due  1 run to be retried",
        "",
        "Running (2)",
        "  import                      5 min  45%  [####......]  page 9 of 20",
        "  日本語の長い名前のレポート  5 min",
        "",
        "Next",
        "  08:30:30     in 30 s  bad of ann  retry",
        "  08:29:59     due      import      still running",
        "  03-04 08:30  in 2 d   report",
        "",
        "Last",
        "  08:26:00  success          1 min  report      all is well",
        "  08:26:00  failed/error #2  1 min  bad of ann  the disk is full",
        "",
        "",
        "",
        "",
        "q: quit",
    ]  # fmt: skip


def test_a_view_of_40_columns_and_10_lines():
    assert shown(FULL, 40, 10) == [
        "jobs.db                         08:30:00",
        "1 scheduler alive  3 starts due  1 run …",
        "Running (2)",
        "  import         5 min  45%  page 9 of …",
        "  日本語の長い…  5 min",
        "Next",
        "  in 30 s  bad of ann  retry",
        "  due      import      still running",
        "Last",
        "  success    report      all is well",
    ]  # fmt: skip


texts = st.text(max_size=30) | st.sampled_from(["", WIDE_NAME, "a" * 200, "e\u0301" * 30, "\x1b[31m\n\t", "❤️⏰👨‍👩‍👧"])
moments = st.datetimes(datetime(2020, 1, 1), datetime(2030, 1, 1), timezones=st.just(UTC))
runs = st.builds(
    run,
    st.integers(1, 9),
    texts,
    st.sampled_from(RunStatus),
    cause=st.none() | st.sampled_from(Cause),
    error=st.none() | texts,
    user_id=st.none() | texts,
    attempt=st.integers(1, 3),
    started_at=st.none() | moments,
    coalesced=st.integers(1, 1000),
)
reports = st.builds(RunProgress, fraction=st.none() | st.floats(0, 1), note=texts, at=moments)
snapshots = st.builds(
    Snapshot,
    now=moments,
    schedulers=st.integers(0, 9),
    last_seen=st.none() | moments,
    running=st.lists(st.builds(RunningRun, run=runs, progress=st.none() | reports, is_orphan=st.booleans()), max_size=9),
    running_count=st.integers(0, 10**6),
    due=st.none() | st.integers(0, 1000),
    retries=st.none() | st.integers(0, 1000),
    next=st.lists(
        st.builds(NextRun, name=texts, user_id=st.none() | texts, at=moments, is_retry=st.booleans(), is_busy=st.booleans()),
        max_size=MOST_NEXT,
    ),
)
full_views = st.builds(
    View,
    title=texts,
    now=moments,
    zone=st.sampled_from(["UTC", "Europe/Rome", "no/zone"]),
    snapshot=snapshots,
    last=st.lists(runs, max_size=9),
    problem=texts,
)
views = full_views | full_views.map(lambda view: attrs.evolve(view, snapshot=None))


@given(view=views, width=st.integers(1, 130), height=st.integers(0, 40))
def test_no_line_is_too_wide_and_there_are_not_too_many(view, width, height):
    lines = shown(view, width, height)
    assert len(lines) <= height
    assert all(text_width(line) <= width for line in lines), lines
    assert all(line.isprintable() for line in lines)


@pytest.mark.parametrize(("width", "height"), [(80, 24), (40, 10), (7, 3)])
def test_a_terminal_without_unicode_gets_escapes_that_fit(monkeypatch, width, height):
    monkeypatch.setattr(stdout, "encoding", lambda: "ascii")
    lines = shown(FULL, width, height)
    assert all(line.isascii() and text_width(line) <= width for line in lines)
    assert len(lines) == height


@given(view=full_views, width=st.integers(7, 130), height=st.integers(20, 40))
def test_a_full_view_fills_the_screen_down_to_its_last_line(view, width, height):
    lines = shown(view, width, height)
    assert len(lines) == height
    assert lines[-1] == "q: quit"


@given(
    width=st.integers(20, 130),
    height=st.integers(8, 60),
    counts=st.tuples(st.integers(0, 30), st.integers(0, MOST_NEXT), st.integers(0, 30)),
)
def test_rows_are_left_out_only_where_there_is_no_room(width, height, counts):
    seen = Snapshot(
        now=NOW,
        schedulers=1,
        running=[running("running")] * counts[0],
        running_count=counts[0],
        next=[NextRun(name="next", at=NOW + timedelta(hours=1))] * counts[1],
    )
    view = View(title="t", now=NOW, snapshot=seen, last=[run(1, "last")] * counts[2])
    lines = shown(view, width, height)
    rows = [sum(name in line for line in lines) for name in ("  runn", "  next", "  last")]
    left_out = rows != list(counts)
    assert not left_out or (len(lines) == height and lines[-3 if height >= 20 else -1] != "")
    assert all(row >= min(most, 1) for row, most in zip(rows, counts, strict=True)), "each part has a row"


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"schedulers": 0}, "no scheduler is alive"),
        ({"schedulers": 0, "last_seen": NOW - timedelta(minutes=3)}, "no scheduler is alive, the last was seen 3 min ago"),
        ({"schedulers": 2, "due": 1000, "retries": 0}, "2 schedulers alive  1,000 or more starts due"),
    ],
)
def test_the_second_line_says_whether_a_scheduler_is_alive(change, line):
    assert shown(View(title="a", now=NOW, snapshot=Snapshot(now=NOW, **change)), 80, 24)[1] == line


def test_a_problem_is_shown_above_all_and_leaves_the_rest():
    lines = shown(attrs.evolve(FULL, problem="jobs.db is locked"), 80, 24)
    assert lines[2] == "jobs.db is locked"
    assert "Running (2)" in lines


def test_a_store_that_is_yet_to_be_read_shows_nothing_that_might_be_wrong():
    assert shown(View(title="jobs.db", now=NOW), 40, 24) == ["jobs.db                         08:30:00", "reading the store"]
    assert shown(View(title="a", now=NOW, problem="it is locked"), 40, 24)[1:] == ["reading the store", "it is locked"]
    empty = shown(View(title="a", now=NOW, snapshot=Snapshot(now=NOW, schedulers=1)), 40, 24)
    assert {"Running: nothing", "Next: nothing", "Last: nothing yet"} <= set(empty)


def test_a_run_whose_scheduler_is_gone_or_which_is_being_stopped_says_so():
    odd = [attrs.evolve(running("a"), is_orphan=True), running("b", cause=Cause.TIMEOUT, attempt=2)]
    view = attrs.evolve(FULL, snapshot=attrs.evolve(SEEN, running=odd))
    lines = shown(view, 80, 20)
    assert lines[4:6] == ["  a  5 min  its scheduler is gone", "  b  5 min  attempt 2, being stopped (timeout)"]
