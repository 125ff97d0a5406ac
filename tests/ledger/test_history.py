"""The span of a filter holds every run that is wanted, and not much more, whatever order the times of runs have."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given, strategies as st

from cronactors.ledger.history import MARGIN, READ, span_of
from cronactors.storage.history import RunFilter, Span
from cronactors.storage.rows import RunRow
from tests.fake_history import time_of
from tests.fake_storage import FakeStorage
from tests.ledger_world import DAY, HOUR, T0
from tests.storages import run


def filled(rows: Sequence[RunRow]) -> FakeStorage:
    storage = FakeStorage()
    assert storage.begin(write=True)
    storage.insert_runs(rows)
    return storage


def hourly(count: int) -> list[RunRow]:
    return [
        run(scheduled_at=T0 + n * HOUR, started_at=T0 + n * HOUR, completed_at=T0 + n * HOUR, status="success")
        for n in range(count)
    ]


@st.composite
def histories(draw: st.DrawFn) -> list[RunRow]:
    """Rows in the order in which they were added. Runs wait for up to 12 hours, and the clock is set back once, by up to 6 hours."""
    rows: list[RunRow] = []
    now, set_back_at, by = T0, draw(st.integers(0, 30)), draw(st.integers(0, 6)) * HOUR
    for n in range(draw(st.integers(0, 30))):
        now += draw(st.integers(0, 20)) * HOUR - (by if n == set_back_at else 0)
        late, waits = draw(st.sampled_from([0, 0, 0, 1, 300])) * HOUR, draw(st.sampled_from([0, 0, 0, 1, 12])) * HOUR
        row = run(job_id=f"j{n}", scheduled_at=now - late, ready_at=now + waits)
        started = row._replace(status="running", started_at=now + waits)
        skipped = row._replace(status="skipped", completed_at=now)
        rows.append(draw(st.sampled_from([row, started, started, started, skipped])))
    return rows


TIMES = st.none() | st.integers(-10, 400).map(lambda hours: T0 + hours * HOUR)


@given(histories(), TIMES, TIMES)
def test_a_span_holds_every_run_that_is_wanted(rows: list[RunRow], since: int | None, until: int | None) -> None:
    span = span_of(filled(rows), RunFilter(since=since, until=until))
    for run_id, row in enumerate(rows, 1):
        if (since is None or time_of(row) >= since) and (until is None or time_of(row) < until):
            assert span.first <= run_id < span.end


def test_a_span_holds_little_more_than_the_margin() -> None:
    storage = filled(hourly(1_000))
    span = span_of(storage, RunFilter(since=T0 + 500 * HOUR, until=T0 + 510 * HOUR))
    assert MARGIN == DAY
    assert (span.first, span.end) == (501 - 24, 511 + 24)


def test_a_span_is_found_by_few_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    storage, reads = filled(hourly(1_000)), []
    times_from = storage.history.times_from
    monkeypatch.setattr(storage.history, "times_from", lambda run_id: reads.append(run_id) or times_from(run_id))  # type: ignore[func-returns-value]
    span_of(storage, RunFilter(since=T0 + 500 * HOUR, until=T0 + 510 * HOUR))
    assert len(reads) <= 2 * 10


def test_the_whole_history_is_a_span_without_bounds() -> None:
    assert span_of(filled([]), RunFilter(since=T0, until=T0)) == Span(0, 0)
    assert span_of(filled(hourly(9)), RunFilter()) == Span(0, 10)


def test_ids_that_are_gone_are_passed_over() -> None:
    storage = filled(hourly(2 * READ))
    for run_id in range(3, 2 * READ - 50):
        storage._changed.runs.pop(run_id)
    span = span_of(storage, RunFilter(since=T0 + (2 * READ - 10) * HOUR))
    assert span == Span(2 * READ - 9 - 24, 2 * READ + 1)


def test_a_page_begins_below_the_place_of_a_run_or_below_its_id_once_it_is_gone() -> None:
    storage = filled([run(scheduled_at=at, attempt=attempt) for at, attempt in ((5, 1), (9, 1), (5, 2))])
    assert span_of(storage, RunFilter(), after=2) == Span(0, 2)
    assert span_of(storage, RunFilter(), after=99) == Span(0, 4)
    retry = span_of(storage, RunFilter(job_id="a"), after=3)
    assert (retry.end, retry.before.scheduled_at, retry.before.attempt) == (4, 5, 2)
    storage._changed.runs.pop(3)
    assert span_of(storage, RunFilter(job_id="a"), after=3) == Span(0, 3)
