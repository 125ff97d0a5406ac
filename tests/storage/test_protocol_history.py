"""The verbs that read the history: every storage returns what a plain list returns, in windows of any size."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import closing

from hypothesis import given, strategies as st

from cronactors.storage.history import HistoryPage, Place, RunFigures, RunFilter, Span
from cronactors.storage.protocol import Storage
from cronactors.storage.rows import RunRow
from cronactors.storage.sqlite import SqliteStorage
from tests.fake_history import in_order, time_of
from tests.fake_storage import FakeStorage
from tests.storages import add_run, job, run, storage, store

__all__ = ["storage", "store"]

EVERYTHING = Span(0, 1_000)
TAGS = {"a": ["x"], "b": ["x", "y"], "c": []}


def add_jobs(store: Storage) -> None:
    """Add jobs with tags. Their index is filled here, too, so that these tests concern the reading alone."""
    rows = [job(name, tags=json.dumps(tags)) for name, tags in TAGS.items()]
    store.insert_jobs(rows)
    if isinstance(store, SqliteStorage):
        for name, tags in TAGS.items():
            for tag in tags:
                store._execute("INSERT OR IGNORE INTO job_tags SELECT ?, number FROM jobs WHERE id = ?", (tag, name))


def pages(read: Callable[[Span], HistoryPage], span: Span | None = EVERYTHING) -> Iterator[list[RunRow]]:
    while span is not None:
        rows, span = read(span)
        yield list(rows)


def ids(store: Storage, *, limit: int = 99, read: int = 99, span: Span = EVERYTHING, **wanted: object) -> list[int]:
    """Return the ids of the runs that are wanted, read to the end."""
    chosen = RunFilter(**wanted)  # type: ignore[arg-type]  # the tests name the fields
    found = pages(lambda rest: store.history.page(chosen, rest, limit=limit, read=read), span)
    return [row.id for rows in found for row in rows]


# Examples


def test_runs_are_listed_in_pages_newest_first(store: Storage) -> None:
    added = [add_run(store, scheduled_at=n) for n in (5, 3, 4, 1, 2)]
    for limit in (1, 2, 5, 9):
        for read in (1, 2, 5, 9):
            assert ids(store, limit=limit, read=read) == added[::-1]
            assert ids(store, limit=limit, read=read, job_id="a") == [added[n] for n in (0, 2, 1, 4, 3)]
    assert ids(store, job_id="none") == []


def test_a_window_holds_no_more_rows_than_it_may_and_says_where_it_ended(store: Storage) -> None:
    wanted = add_run(store, scheduled_at=1, status="failed", cause="timeout")
    for n in range(2, 7):
        add_run(store, scheduled_at=n, status="success")
    timeouts = RunFilter(cause="timeout")
    first = store.history.page(timeouts, EVERYTHING, limit=9, read=4)
    assert (first.rows, first.rest) == ([], Span(0, 3))
    second = store.history.page(timeouts, Span(0, 3), limit=9, read=4)
    assert ([row.id for row in second.rows], second.rest) == ([wanted], None)
    of_job = store.history.page(RunFilter(job_id="a", cause="timeout"), EVERYTHING, limit=9, read=4)
    assert (of_job.rows, of_job.rest) == ([], EVERYTHING.below(Place(3, 3, 0, 1), of_job=True))


def test_rows_that_did_not_succeed_are_found_without_the_others(store: Storage) -> None:
    failed = [add_run(store, scheduled_at=n, status="failed") for n in (1, 2)]
    for n in range(3, 9):
        add_run(store, scheduled_at=n, status="success")
    running = add_run(store, scheduled_at=9, status="running", owner=1, started_at=9)
    assert ids(store, status="failed") == failed[::-1]
    assert ids(store, status="running") == [running]
    assert ids(store, status="skipped") == []
    if isinstance(store, SqliteStorage):
        assert store.history.page(RunFilter(status="failed"), EVERYTHING, limit=9, read=3) == HistoryPage(
            [store.runs(failed)[run_id] for run_id in failed[::-1]], None
        )


def test_the_time_of_a_run_is_its_start_else_when_it_was_recorded_else_when_it_may_start(store: Storage) -> None:
    started = add_run(store, scheduled_at=1, ready_at=1, status="success", started_at=10, completed_at=30)
    skipped = add_run(store, scheduled_at=2, ready_at=2, status="skipped", completed_at=20)
    pending = add_run(store, scheduled_at=3, ready_at=25)
    for since, until, expected in (
        (10, None, [pending, skipped, started]),
        (11, None, [pending, skipped]),
        (21, None, [pending]),
        (26, None, []),
        (None, 10, []),
        (None, 20, [started]),
        (10, 11, [started]),
        (10, 10, []),
    ):
        assert ids(store, since=since, until=until) == expected
        assert ids(store, since=since, until=until, job_id="a") == expected


def test_a_tag_is_that_of_a_job_that_exists_now(store: Storage) -> None:
    add_jobs(store)
    runs = {name: add_run(store, job_id=name) for name in (*TAGS, "gone")}
    assert ids(store, tag="x") == [runs["b"], runs["a"]]
    assert ids(store, tag="y", job_id="b") == [runs["b"]]
    assert ids(store, tag="y", job_id="a") == ids(store, tag="z") == []
    store.delete_jobs(["b"])
    assert ids(store, tag="x") == [runs["a"]]


def test_the_place_of_a_run_is_found_while_its_job_has_it(store: Storage) -> None:
    run_id = add_run(store, scheduled_at=7, manual=1, attempt=2)
    assert store.history.place(run_id, job_id="a") == Place(run_id, 7, 1, 2)
    assert store.history.place(run_id, job_id="b") is None
    assert store.history.place(run_id + 1, job_id="a") is None


def test_times_are_those_of_the_first_run_from_an_id_on(store: Storage) -> None:
    add_run(store, scheduled_at=1)
    add_run(store, scheduled_at=2, status="skipped", completed_at=5)
    add_run(store, scheduled_at=3, status="success", started_at=6, completed_at=9)
    assert [store.history.times_from(n) for n in range(1, 5)] == [(1, 1, None), (2, 2, 5), (3, 3, 6), None]


# Any history, against a list


TIMES = st.integers(0, 5)


@st.composite
def stored_runs(draw: st.DrawFn) -> RunRow:
    status = draw(st.sampled_from(["pending", "running", "success", "failed", "cancelled", "skipped"]))
    started = status in ("running", "success", "failed") or (status == "cancelled" and draw(st.booleans()))
    return run(
        job_id=draw(st.sampled_from(["a", "b", "c", "gone"])),
        user_id=draw(st.sampled_from(["", "u"])),
        trigger=draw(st.sampled_from(["schedule", "retry"])),
        manual=draw(st.integers(0, 1)),
        scheduled_at=draw(TIMES),
        attempt=draw(st.integers(1, 2)),
        ready_at=draw(TIMES),
        status=status,
        cause=draw(st.sampled_from([None, "error", "timeout"])),
        owner=1 if status == "running" else None,
        started_at=draw(TIMES) if started else None,
        completed_at=None if status in ("pending", "running") else draw(TIMES),
    )


FILTERS = st.builds(
    RunFilter,
    job_id=st.sampled_from([None, None, "a", "b"]),
    user_id=st.sampled_from([None, None, "", "u"]),
    status=st.sampled_from([None, None, "pending", "running", "success", "failed", "cancelled", "skipped"]),
    cause=st.sampled_from([None, None, "error", "timeout"]),
    trigger=st.sampled_from([None, None, "schedule", "retry"]),
    tag=st.sampled_from([None, None, "x", "y"]),
    since=st.none() | TIMES,
    until=st.none() | TIMES,
)
SPANS = st.tuples(st.integers(0, 3), st.integers(3, 13)).map(lambda ends: Span(*ends))


def is_wanted(row: RunRow, wanted: RunFilter) -> bool:
    given = {name: value for name, value in wanted._asdict().items() if value is not None}
    since, until, tag = given.pop("since", 0), given.pop("until", 99), given.pop("tag", None)
    has_tag = tag is None or tag in TAGS.get(row.job_id, [])
    return has_tag and since <= time_of(row) < until and all(getattr(row, name) == value for name, value in given.items())


def listed(rows: list[RunRow], wanted: RunFilter, span: Span) -> list[RunRow]:
    found = [row for row in rows if span.first <= row.id < span.end and is_wanted(row, wanted)]
    return sorted(found, key=lambda row: row.id if wanted.job_id is None else in_order(Place.of(row)), reverse=True)


@given(st.lists(stored_runs(), max_size=12), FILTERS, SPANS, st.integers(1, 5), st.integers(1, 5))
def test_any_filter_of_any_history_returns_what_a_list_returns(
    rows: list[RunRow], wanted: RunFilter, span: Span, limit: int, read: int
) -> None:
    with closing(SqliteStorage(":memory:", wall=lambda: 0)) as sqlite:
        for made in (FakeStorage(), sqlite):
            check_against_a_list(made, rows, wanted, span, limit, read)


def check_against_a_list(made: Storage, rows: list[RunRow], wanted: RunFilter, span: Span, limit: int, read: int) -> None:
    assert made.begin(write=True)
    add_jobs(made)
    made.insert_runs(rows)
    history = made.history
    expected = listed(made.list_runs(job_id=None, before=None, limit=99), wanted, span)

    found = list(pages(lambda rest: history.page(wanted, rest, limit=limit, read=read), span))
    assert [row for page in found for row in page] == expected
    assert max(map(len, found)) <= min(limit, read)

    total, rest = history.count(wanted, span, read=read)
    while rest is not None:
        count, rest = history.count(wanted, rest, read=read)
        total += count
    assert total == len(expected)

    figures, rest = history.figures(wanted, span, limit=limit, read=read)
    while rest is not None:
        more, rest = history.figures(wanted, rest, limit=limit, read=read)
        figures += more
    assert figures == [RunFigures(*(getattr(row, name) for name in RunFigures._fields)) for row in expected]
