"""The verb ``stats``: how many runs had which outcome, how long they took, how late they started."""

from __future__ import annotations

import attrs
import trio

from cronactors import open_store
from cronactors.cli import amounts, describe
from cronactors.cli.run_query import RunQuery, find_subject
from cronactors.cli.stdout import json_value, print_json, print_line
from cronactors.cli.tables import print_table
from cronactors.model import ALL, RunStatus
from cronactors.run_stats import MOST_FIGURES, RunStats


def show_stats(database: str, query: RunQuery, *, as_json: bool) -> None:
    """Print figures about the newest runs that a query asks for, at most 10,000; of a job that was removed, those of the newest one.

    Raises:
        JobNotFound: There is no such job, and no run of one; or several users have one.
        CronError: The database cannot be read.
    """

    async def read() -> tuple[str, RunStats]:
        async with open_store(database, create=False) as store:
            subject = await find_subject(store, query)
            since, until = query.times(subject.zone)
            job_id = None if subject.job_ids is None else subject.job_ids[0]
            user_id = query.user_id if job_id is None else ALL
            return subject.zone, await store.run_stats(job_id, tag=query.tag, user_id=user_id, since=since, until=until)

    zone, stats = trio.run(read)
    if as_json:
        print_json(stats_as_json(stats))
    else:
        _print_stats(zone, stats)


def success_rate(stats: RunStats) -> float | None:
    """Return the share of successes among the runs that succeeded or failed, 0 to 1; None if there are none.

    An interrupted run counts as a failure. Moments that were skipped, and runs that were cancelled, count as neither.
    """
    good, bad = stats.by_status[RunStatus.SUCCESS], stats.by_status[RunStatus.FAILED]
    return good / (good + bad) if good + bad else None


def _print_stats(zone: str, stats: RunStats) -> None:
    if not stats.runs:
        print_line("no runs match")
        return
    of_more = "" if stats.complete else f": the newest {MOST_FIGURES:,}, there are more"
    print_line(f"{amounts.count(stats.runs, 'run')}{of_more}, from {describe.local_time(stats.oldest, zone)} on")
    print_line()
    counted = [(status, count) for status, count in stats.by_status.items() if count]
    causes = ", ".join(f"{cause} {count:,}" for cause, count in stats.by_cause.items() if count)
    rate = success_rate(stats)
    rows = [
        *((status, f"{count:,}", percent(count / stats.runs)) for status, count in counted),
        *([("success rate", percent(rate), "of those that succeeded or failed")] if rate is not None else []),
    ]
    print_table(["outcome", "runs", "share"], rows)
    if causes:
        print_line(f"causes: {causes}")
    times = [
        ("took", (stats.duration_p50, stats.duration_p95, stats.duration_p99, stats.duration_max)),
        ("started late", (stats.lateness_p50, stats.lateness_p95, stats.lateness_p99, stats.lateness_max)),
    ]
    known = [
        [label, *(amounts.length(each) for each in seconds if each is not None)]
        for label, seconds in times
        if None not in seconds
    ]
    if known:
        print_line()
        print_table(["time", "half of them within", "95 % within", "99 % within", "longest"], known)


def percent(share: float) -> str:
    """Write a share as a percentage with one decimal; never 100.0 % or 0.0 % for one that is only near it."""
    shown = f"{share * 100:.1f}"
    if shown == "100.0" and share < 1:
        shown = "99.9"
    elif shown == "0.0" and share > 0:
        shown = "0.1"
    return f"{shown} %"


def stats_as_json(stats: RunStats) -> dict[str, object]:
    """Convert figures to values of JSON: times (s), counts, and the success rate (0 to 1)."""
    fields = attrs.asdict(stats, recurse=False)
    return {
        **{key: json_value(value) for key, value in fields.items() if key not in ("by_status", "by_cause")},
        "by_status": {status.value: count for status, count in stats.by_status.items()},
        "by_cause": {cause.value: count for cause, count in stats.by_cause.items()},
        "success_rate": success_rate(stats),
    }
