"""The verb ``prune``: delete old runs now, or count those that would be deleted."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Sequence
from datetime import timedelta
from functools import partial

import attrs
import click
import trio

from cronactors import open_store
from cronactors.actors.mailbox import ReadRequest, Request
from cronactors.cli import describe
from cronactors.cli.amounts import count, length
from cronactors.cli.stdout import print_json, print_line
from cronactors.cli.tables import print_table
from cronactors.errors import one_line
from cronactors.instants import DAY, EARLIEST, Millis, from_millis, iso_utc
from cronactors.ledger.sweep import SweepReport, SweptJob, sweep
from cronactors.retention import EVERYTHING, NINETY_DAYS, History
from cronactors.settings import CronConfig
from cronactors.storage.postgres.address import is_postgres
from cronactors.storage.protocol import Storage
from cronactors.store import CronStore

_PIECE = 0.005
"""How long (s) others cannot write while a piece is deleted. After it they have as long."""
_COUNTED_AT_ONCE = 0.1
"""How long (s) a piece counts; nobody waits for it."""
_SHOWN = 20


@attrs.frozen
class DeletePiece(Request[SweepReport]):
    """Delete some runs beyond the limits."""

    limits: History
    time: Millis
    after: str

    def apply(self, storage: Storage) -> SweepReport:
        """Delete for 5 ms. Runs on the storage thread."""
        return _sweep_for(storage, self, _PIECE, only_count=False)


@attrs.frozen
class CountPiece(ReadRequest[SweepReport]):
    """Count some of the runs that `DeletePiece` would delete."""

    limits: History
    time: Millis
    after: str

    def apply(self, storage: Storage) -> SweepReport:
        """Count for 0.1 s, and to the end of a job. Runs on the storage thread."""
        return _sweep_for(storage, self, _COUNTED_AT_ONCE, only_count=True)


def _sweep_for(storage: Storage, piece: DeletePiece | CountPiece, seconds: float, *, only_count: bool) -> SweepReport:
    until = time.perf_counter() + seconds
    return sweep(
        storage,
        piece.limits,
        time=piece.time,
        after=piece.after,
        only_count=only_count,
        enough=lambda: time.perf_counter() >= until,
    )


def limits_of(config: CronConfig | None, older_than: timedelta | None, keep_last: int | None) -> History:
    """Return the limits of an agent.toml, or the default; with those that the command names.

    Raises:
        InvalidConfig: One is out of range.
    """
    limits = NINETY_DAYS if config is None else config.history or EVERYTHING
    if older_than is not None:
        limits = attrs.evolve(limits, days=older_than / timedelta(days=1))
    return limits if keep_last is None else attrs.evolve(limits, keep_last=keep_last)


def prune_history(database: str, limits: History, *, dry_run: bool, yes: bool, as_json: bool) -> None:
    """Delete runs beyond the limits, after a confirmation on the terminal unless ``yes``; with ``dry_run`` only count them.

    Raises:
        click.UsageError: There is no terminal to confirm on.
        click.Abort: The user did not confirm.
        CronError: The database cannot be used.
    """
    if not (dry_run or yes or (_is_terminal() and not as_json)):
        raise click.UsageError(
            "there is no terminal to confirm on: give --yes" if not as_json else "--json asks nothing: give --yes"
        )
    now, jobs, deleted = trio.run(partial(_prune, database, limits, dry_run=dry_run, yes=yes, as_json=as_json))
    if as_json:
        print_json(_as_json(jobs, limits, now, deleted=deleted))
    elif not jobs:
        print_line("no runs to delete")
    elif not deleted:
        print_line(f"{_total(jobs)} would be deleted: leave out --dry-run to delete them")
    else:
        print_line(f"deleted {_total(jobs)}")
        if not is_postgres(database):
            print_line("new runs will use the space; cronactors compact makes the file smaller")


def _is_terminal() -> bool:
    return sys.stdin.isatty()


async def _prune(
    database: str, limits: History, *, dry_run: bool, yes: bool, as_json: bool
) -> tuple[Millis, list[SweptJob], bool]:
    """Return the time from which ages count, the jobs with runs beyond the limits, and whether these are deleted."""
    async with open_store(database, create=False) as store:
        now = store._service.wall()
        if dry_run or not yes:
            jobs = await _sweep(store, limits, now, only_count=True)
            if not as_json:
                _print_counts(jobs, limits, now)
            if dry_run or not jobs:
                return now, jobs, False
            click.confirm(f"Delete {_total(jobs)}?", abort=True)
        jobs = await _sweep(store, limits, now, only_count=False)
        if yes and not as_json:
            _print_counts(jobs, limits, now)
        return now, jobs, True


async def _sweep(store: CronStore, limits: History, now: Millis, *, only_count: bool) -> list[SweptJob]:
    """Sweep all jobs, and return those with runs that were deleted or counted, the one with most first."""
    found: dict[str, SweptJob] = {}
    after, ended = "", False
    while not ended:
        began = trio.current_time()
        request = CountPiece if only_count else DeletePiece
        piece = await store._service.mailbox.call(request(limits, now, after))
        for job in piece.jobs:
            before = found[job.job_id].runs if job.job_id in found else 0
            found[job.job_id] = attrs.evolve(job, runs=before + job.runs)
        after, ended = piece.after, piece.ended
        if not only_count and not ended:
            await trio.sleep(trio.current_time() - began)
    return sorted(found.values(), key=lambda job: (-job.runs, job.name))


def _total(jobs: Sequence[SweptJob]) -> str:
    return f"{count(sum(job.runs for job in jobs), 'run')} of {count(len(jobs), 'job')}"


def _print_counts(jobs: Sequence[SweptJob], limits: History, now: Millis) -> None:
    """Print the limits, and how many runs of which job are beyond them."""
    for line in _in_words(limits, now):
        print_line(line)
    if not jobs:
        return
    print_line()
    users = any(job.user_id is not None for job in jobs)
    rows = [
        [one_line(job.name, 60), *([one_line(job.user_id or "-", 30)] if users else []), f"{job.runs:,}"] for job in jobs[:_SHOWN]
    ]
    print_table(["job", *(["user"] if users else []), "runs"], rows)
    if len(jobs) > _SHOWN:
        print_line(f"and {count(sum(job.runs for job in jobs[_SHOWN:]), 'run')} of {len(jobs) - _SHOWN:,} more jobs")
    print_line()


def _in_words(limits: History, now: Millis) -> Iterable[str]:
    if not limits.deletes:
        yield "only runs of jobs with a history of their own, by its limits"
        return
    if limits.days is not None:
        before = describe.local_time(from_millis(_cutoff(limits.days, now)), "UTC")
        ago = count(int(limits.days), "day") if limits.days == int(limits.days) else length(limits.days * 86_400)
        yield f"runs that finished before {before}, {ago} ago,"
    if limits.per_job is not None:
        yield f"{'or' if limits.days is not None else 'runs'} beyond the newest {limits.per_job:,} of their job,"
    yield f"but not the newest {limits.keep_last:,} of each job; jobs with a history of their own by its limits"


def _cutoff(days: float, now: Millis) -> Millis:
    return max(EARLIEST, now - round(days * DAY))


def _as_json(jobs: Sequence[SweptJob], limits: History, now: Millis, *, deleted: bool) -> dict[str, object]:
    return {
        "deleted": deleted,
        "runs": sum(job.runs for job in jobs),
        "jobs": [attrs.asdict(job) for job in jobs],
        "limits": attrs.asdict(limits),
        "finished_before": None if limits.days is None else iso_utc(_cutoff(limits.days, now)),
    }
