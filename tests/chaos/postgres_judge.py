"""Judges what the schedulers of one PostgreSQL store share: sessions, the total, the moments of cron jobs, and who may interrupt runs.

Executors have written a ledger, which is in order of time. A run that was taken over from a stopped process may still be running there:
so it counts until the last line that its process wrote before the run was taken over.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping

import attrs

from cronactors.instants import Millis
from tests.chaos.judge import Entry, read_rows

INTERRUPTED = "coalesce(cause = 'interrupted' OR error LIKE 'interrupted: %', false)"


@attrs.frozen
class Span:
    """When a run was with its executor: places in the ledger."""

    run: int
    pid: int
    session: str | None
    first: int
    last: int


def spans(db: str, entries: list[Entry]) -> list[Span]:
    """Return when each run of the ledger was with its executor."""
    (rows,) = read_rows(db, f"SELECT id, session, CASE WHEN {INTERRUPTED} THEN completed_at END FROM runs")
    facts = {run: (session, taken_over_at) for run, session, taken_over_at in rows}
    ended = {entry.run: place for place, entry in enumerate(entries) if entry.what != "start"}
    lines: dict[int, list[tuple[float, int]]] = defaultdict(list)
    for place, entry in enumerate(entries):
        lines[entry.pid].append((entry.wall * 1000, place))
    found = []
    for place, entry in enumerate(entries):
        if entry.what == "start":
            session, taken_over_at = facts[entry.run]
            if taken_over_at is None:
                last = ended[entry.run]
            else:
                last = max(place, *(line for wall, line in lines[entry.pid] if wall <= taken_over_at), place)
            found.append(Span(entry.run, entry.pid, session, place, last))
    return found


def judge_shared(found: Collection[Span], *, slots: int, total: int) -> tuple[int, int]:
    """Check that no two runs of a session overlap, and no limit is exceeded; return how many were running at most, in one and in all."""
    steps = sorted([(span.first, True, span) for span in found] + [(span.last + 0.5, False, span) for span in found], key=_place)
    sessions: dict[str, Span] = {}
    each: Counter[int] = Counter()
    most_each = most = 0
    for _, begins, span in steps:
        each[span.pid] += 1 if begins else -1
        if begins:
            most, most_each = max(most, each.total()), max(most_each, each[span.pid])
            if span.session is not None:
                assert span.session not in sessions, f"{span} began beside {sessions[span.session]}"
                sessions[span.session] = span
        elif span.session is not None:
            del sessions[span.session]
    assert most <= total, f"{most} runs at a time"
    assert most_each <= slots, f"{most_each} runs at a time in one scheduler"
    return most_each, most


def _place(step: tuple[float, bool, Span]) -> float:
    return step[0]


def judge_interruptions(
    db: str, entries: Collection[Entry], *, hit: Collection[int], outages: Collection[tuple[float, float]] = ()
) -> None:
    """Check that a run was only interrupted if its process was killed or stopped, or could not renew its lease in an outage."""
    (rows,) = read_rows(db, f"SELECT id, completed_at / 1000.0 FROM runs WHERE {INTERRUPTED}")
    pids = {entry.run: entry.pid for entry in entries}
    wrong = [
        (run, pids[run])
        for run, at in rows
        if run in pids and pids[run] not in hit and not any(began <= at <= ended for began, ended in outages)
    ]
    assert not wrong, f"interrupted although their processes were well: {wrong[:3]}"


def judge_crons(db: str, steps: Mapping[str, Millis]) -> int:
    """Check that each moment of cron jobs is in one row, by itself or merged, and return how many there were."""
    jobs, rows = read_rows(
        db,
        "SELECT id, anchor_at, next_run_at, schedule FROM jobs JOIN job_state USING (id)",
        "SELECT job_id, sum(coalesced) FROM runs WHERE attempt = 1 AND manual = 0 GROUP BY job_id",
    )
    decided = {job: int(count) for job, count in rows}
    moments = 0
    for job, anchor, following, schedule in jobs:
        step = steps.get(json.loads(schedule).get("expr", ""))
        if step is not None:
            expected = (following - 1) // step - anchor // step
            assert decided.get(job, 0) == expected, (
                f"{decided.get(job, 0)} of {expected} moments are in the history of {schedule}"
            )
            moments += expected
    return moments
