"""The checks of ``doctor``, each a function of the store that returns lines for people. They only read."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Sequence
from enum import IntEnum
from pathlib import Path
from typing import TYPE_CHECKING, Final

import attrs

from cronactors.actors.user_requests import ListOrigins
from cronactors.cli.amounts import count, more, size, span
from cronactors.cli.living import lives_here, living
from cronactors.errors import one_line
from cronactors.instants import DAY, LATEST, Millis, iso_utc
from cronactors.ledger.alert_texts import FIRST_FAILURES
from cronactors.ledger.owners import receivers_of
from cronactors.ledger.totals import SEEN_WITHIN
from cronactors.ledger.zone_changes import rules_of
from cronactors.model import RunStatus
from cronactors.notifications import NotificationStatus
from cronactors.owner import ProcessIdentity
from cronactors.policy import FREE_CRASHES
from cronactors.schedules.zone_rules import RULES, is_older
from cronactors.storage.protocol import Storage
from cronactors.storage.read_only import FileFigures
from cronactors.storage.rows import JobRow, OwnerRow, RunRow
from cronactors.storage.schema import SCHEMA_VERSION

if TYPE_CHECKING:
    from cronactors.storage.postgres.figures import ServerFigures

LATE: Final[Millis] = 60_000
"""How late (ms) a moment or a run may be before that is a warning."""
MUCH_TOO_LATE: Final[Millis] = 3_600_000
"""How late (ms) a moment may be before that is critical."""
WAITS_LONG: Final[Millis] = 600_000
"""How long (ms) a run may wait for its session or its job before that is a warning."""
OVERTIME: Final[Millis] = 30_000
"""How long (ms) a run may be running beyond its timeout before it counts as stuck."""
AHEAD: Final[Millis] = 60_000
"""How far (ms) a stored time may be ahead of now before the clock was set back."""
MOST: Final = 1_000
"""How far things are counted."""

_PAGE = 1_000
_MOST_PENDING = 10_000
_NAMES = 3
_NEWEST = 1_000
_PAGES_OF_NOTIFICATIONS = 10
_LARGE_LOG = 64 << 20
_LITTLE_DISK = 200 << 20
_NO_DISK = 20 << 20


class Level(IntEnum):
    """How bad it is; the number is the exit status of a monitoring plugin."""

    OK = 0
    WARNING = 1
    CRITICAL = 2


@attrs.frozen
class Check:
    """The result of a check: a name, how bad it is, a sentence, and figures for programs."""

    name: str
    level: Level
    text: str
    figures: dict[str, object] = attrs.field(factory=dict)


@attrs.frozen
class Jobs:
    """Figures of all jobs, and those among them that a check may report."""

    count: int
    enabled: int
    failing: Sequence[JobRow]
    crashed: Sequence[JobRow]
    unreadable: Sequence[JobRow]
    held_by: Sequence[int]


def check_store(storage: Storage, this_process: ProcessIdentity, *, file: str | None) -> list[Check]:
    """Carry out all checks.

    Args:
        storage: Inside a transaction.
        this_process: By which is decided which schedulers are alive.
        file: The path of the database; None: it is on a server, and no file of another machine can be looked for.
    """
    now, owners = storage.now(), storage.owners()
    alive, jobs = living(owners, this_process, now), _read_jobs(storage)
    return [
        _check_scheduler(storage, alive, jobs, this_process, now),
        _check_overdue(storage, now),
        _check_running(storage, alive, now),
        _check_waiting(storage, jobs, now),
        _check_crashed(jobs),
        _check_failing(jobs),
        _check_pending_notifications(storage, alive),
        _check_given_up(storage, now),
        *([] if file is None else [_check_origins(storage, file)]),
        _check_rules(storage),
        _check_clock(storage, owners, now),
    ]


def _read_jobs(storage: Storage) -> Jobs:
    count = enabled = after = 0
    failing, crashed, unreadable, held_by = [], [], [], []
    while page := storage.list_jobs(after=after, limit=_PAGE, user_id=None):
        after = page[-1][0]
        for _, job in page:
            count += 1
            enabled += bool(job.enabled and job.next_run_at is not None)
            if job.enabled and job.consecutive_failures >= FIRST_FAILURES:
                failing.append(job)
            elif not job.enabled and job.crashes > FREE_CRASHES:
                crashed.append(job)
            elif not job.enabled and (job.last_error or "").startswith("paused:"):
                unreadable.append(job)
            if job.held_by is not None:
                held_by.append(job.held_by)
    failing.sort(key=lambda job: -job.consecutive_failures)
    return Jobs(count, enabled, failing, crashed, unreadable, held_by)


def _check_scheduler(
    storage: Storage, alive: Sequence[OwnerRow], jobs: Jobs, this_process: ProcessIdentity, now: Millis
) -> Check:
    figures: dict[str, object] = {"alive": len(alive), "jobs": jobs.count}
    if alive:
        last = alive[0]
        where = f"process {last.pid}" if lives_here(last.process, this_process) else f"process {last.pid} elsewhere"
        seen = f"{where}, last seen {span(now - last.heartbeat_at)} ago"
        if last.heartbeat_at <= now - SEEN_WITHIN:
            return Check("scheduler", Level.WARNING, f"it is alive, but blocked or stopped: {seen}", figures)
        return Check("scheduler", Level.OK, f"{count(len(alive), 'scheduler')} alive ({seen})", figures)
    latest = max((row.heartbeat_at for row in storage.owners()), default=None)
    seen = "" if latest is None else f"; the last one was seen {span(now - latest)} ago"
    waiting = _waiting_for_a_scheduler(storage, jobs)
    if not waiting:
        return Check("scheduler", Level.OK, f"none is alive, and nothing waits for one{seen}", figures)
    return Check("scheduler", Level.CRITICAL, f"none is alive, and {waiting} for one{seen}", figures)


def _waiting_for_a_scheduler(storage: Storage, jobs: Jobs) -> str:
    """Count the jobs that have a next moment or a pause that ends, and the runs that may start; "" if there is none."""
    pauses = storage.pauses.to_end(now=LATEST, limit=MOST)
    paused = storage.read_jobs([pause.job_id for pause in pauses]).values() if pauses else ()
    waiting_jobs = jobs.enabled + sum(not job.enabled for job in paused)
    runs = len(storage.due(now=LATEST, limit=MOST, only_runs=True))
    parts = [*([count(waiting_jobs, "job")] if waiting_jobs else []), *([count(runs, "run", most=MOST)] if runs else [])]
    return f"{' and '.join(parts)} {'waits' if waiting_jobs + runs == 1 else 'wait'}" if parts else ""


def _check_overdue(storage: Storage, now: Millis) -> Check:
    found = storage.overdue(until=now - LATE, after=None, limit=MOST)
    if not found:
        return Check("overdue", Level.OK, "no moment is overdue", {"overdue": 0})
    late = now - found[0].at
    names = _names(storage.read_jobs([moment.job_id for moment in found[:_NAMES]]).values(), len(found))
    text = (
        f"{count(len(found), 'job', most=MOST)} {'is' if len(found) == 1 else 'are'} overdue, the first for {span(late)}: {names}"
    )
    level = Level.CRITICAL if late > MUCH_TOO_LATE else Level.WARNING
    return Check("overdue", level, text, {"overdue": len(found), "oldest": iso_utc(found[0].at)})


def _check_running(storage: Storage, alive: Sequence[OwnerRow], now: Millis) -> Check:
    running = storage.running()
    known = {row.id for row in alive}
    orphans = [run for run in running if run.owner not in known]
    jobs = storage.read_jobs([run.job_id for run in running]) if running else {}
    stuck = [run for run in running if run.owner in known and _is_stuck(run, jobs.get(run.job_id), now)]
    figures: dict[str, object] = {"running": len(running), "stuck": len(stuck), "orphans": len(orphans)}
    if stuck:
        text = f"{count(len(stuck), 'run')} did not end within the timeout: {_run_names(stuck)}"
        return Check("runs", Level.WARNING, text, figures)
    if orphans:
        text = f"{count(len(orphans), 'run')} of a scheduler that is gone, which the next start recovers: {_run_names(orphans)}"
        return Check("runs", Level.WARNING, text, figures)
    return Check("runs", Level.OK, f"{count(len(running), 'run')} running, none is stuck", figures)


def _is_stuck(run: RunRow, job: JobRow | None, now: Millis) -> bool:
    return job is not None and run.started_at is not None and now > run.started_at + job.timeout_secs * 1000 + OVERTIME


def _check_waiting(storage: Storage, jobs: Jobs, now: Millis) -> Check:
    """Find pending runs that could have started, or wait for their session, their job or a crash loop."""
    due = storage.due(now=now - LATE, limit=MOST, only_runs=True)
    late = list(storage.runs([item.run_id for item in due if item.run_id is not None]).values())
    held = storage.runs(jobs.held_by).values() if jobs.held_by else ()
    for run in held:
        is_waiting = run.status == RunStatus.PENDING and run.waits_for is not None
        if is_waiting and run.ready_at < now - WAITS_LONG:
            late.append(run)
    if not late:
        return Check("waiting", Level.OK, "no run waits for long", {"waiting": 0})
    late.sort(key=lambda run: run.ready_at)
    text = f"{count(len(late), 'run', most=MOST)} waiting, the first for {span(now - late[0].ready_at)}: {_run_names(late)}"
    return Check("waiting", Level.WARNING, text, {"waiting": len(late), "oldest": iso_utc(late[0].ready_at)})


def _check_crashed(jobs: Jobs) -> Check:
    figures: dict[str, object] = {"crashed": len(jobs.crashed), "unreadable": len(jobs.unreadable)}
    if jobs.crashed:
        text = f"{count(len(jobs.crashed), 'job')} paused because the process crashed: {_names(jobs.crashed, len(jobs.crashed))}"
        return Check("paused", Level.CRITICAL, text, figures)
    if jobs.unreadable:
        text = f"{count(len(jobs.unreadable), 'job')} paused that cannot be read: {_names(jobs.unreadable, len(jobs.unreadable))}"
        return Check("paused", Level.WARNING, text, figures)
    return Check("paused", Level.OK, "no job is paused by crashes", figures)


def _check_failing(jobs: Jobs) -> Check:
    if not jobs.failing:
        return Check("failing", Level.OK, f"no job has failed {FIRST_FAILURES} times in a row", {"failing": 0})
    worst = ", ".join(f"{_name(job)} ({job.consecutive_failures:,} times)" for job in jobs.failing[:_NAMES])
    text = f"{count(len(jobs.failing), 'job')} failing again and again: {worst}{more(len(jobs.failing), _NAMES)}"
    return Check("failing", Level.WARNING, text, {"failing": len(jobs.failing)})


def _check_pending_notifications(storage: Storage, alive: Iterable[OwnerRow]) -> Check:
    pending = storage.notifications.count_pending(most=_MOST_PENDING)
    served = {name for row in alive for name in receivers_of(row)}
    unserved = sorted({receiver for _, receiver in storage.notifications.ready_lines()} - served)
    figures: dict[str, object] = {"pending": pending, "unserved": unserved}
    text = f"{count(pending, 'notification', most=_MOST_PENDING)} pending"
    if pending and unserved:
        who = ", ".join(one_line(name, 60) for name in unserved[:_NAMES])
        return Check("notifications", Level.WARNING, f"{text}, and no running scheduler has the receiver {who}", figures)
    return Check("notifications", Level.WARNING if pending >= MOST else Level.OK, text, figures)


def _check_given_up(storage: Storage, now: Millis) -> Check:
    """Count the notifications of the last day that were given up, among the newest."""
    found, before = 0, None
    for _ in range(_PAGES_OF_NOTIFICATIONS):
        status = NotificationStatus.GIVEN_UP
        rows, before = storage.notifications.page(before=before, status=status, receiver=None, limit=MOST)
        found += sum(row.created_at > now - DAY for row in rows)
        if before is None or found >= MOST or (rows and rows[-1].created_at <= now - DAY):
            break
    text = (
        f"{count(found, 'notification', most=MOST)} of the last day given up"
        if found
        else "no notification of the last day was given up"
    )
    return Check("given up", Level.WARNING if found else Level.OK, text, {"given_up": found})


def _check_origins(storage: Storage, file: str) -> Check:
    origins = ListOrigins(str(Path(file).parent)).apply(storage)
    gone = [row for row, is_gone in origins if is_gone]
    if not gone:
        return Check("lists", Level.OK, f"{count(len(origins), 'list')} of jobs, no file is gone", {"gone": []})
    names = ", ".join(f"{one_line(row.name, 60)} ({count(row.jobs, 'job')})" for row in gone[:_NAMES])
    text = f"the file of {count(len(gone), 'list')} is gone, and the jobs keep running: {names}{more(len(gone), _NAMES)}"
    return Check("lists", Level.WARNING, text, {"gone": [row.name for row in gone]})


def _check_rules(storage: Storage) -> Check:
    stored = rules_of(storage)
    figures: dict[str, object] = {"installed": RULES, "store": None if stored is None else stored.rules}
    if stored is None or stored.rules == RULES:
        return Check("time zones", Level.OK, f"release {RULES}", figures)
    if is_older(RULES, stored.rules):
        text = f"the rules installed here ({RULES}) are older than those of the store ({stored.rules}): upgrade tzdata"
        return Check("time zones", Level.WARNING, text, figures)
    return Check("time zones", Level.OK, f"release {RULES}; the next start brings the store from {stored.rules} to it", figures)


def _check_clock(storage: Storage, owners: Iterable[OwnerRow], now: Millis) -> Check:
    latest = max([storage.latest_added_at(among=_NEWEST) or 0, *(row.heartbeat_at for row in owners)])
    figures: dict[str, object] = {"now": iso_utc(now)}
    if latest <= now + AHEAD:
        return Check("clock", Level.OK, f"it shows {iso_utc(now, short=True)}, and no stored time is ahead of it", figures)
    text = f"it shows {iso_utc(now, short=True)}, but the store has times {span(latest - now)} ahead: it was set back"
    return Check("clock", Level.WARNING, text, figures)


# The file or the tables themselves


def check_file_figures(figures: FileFigures, path: str) -> list[Check]:
    """Check the size of a file, and how much room its disk has."""
    values: dict[str, object] = attrs.asdict(figures)
    text = f"schema {figures.schema}, {size(figures.size)}, of which {size(figures.free)} free; -wal {size(figures.log)}"
    large = figures.log > _LARGE_LOG
    reason = ": some program has had the file open for reading all the time" if large else ""
    checks = [Check("file", Level.WARNING if large else Level.OK, f"{text}{reason}", values)]
    try:
        room = shutil.disk_usage(Path(path).parent).free
    except OSError:
        return checks
    level = Level.CRITICAL if room < _NO_DISK else Level.WARNING if room < _LITTLE_DISK else Level.OK
    return [*checks, Check("disk", level, f"{size(room)} free", {"free": room})]


def check_server_figures(figures: ServerFigures) -> Check:
    """Show the size of a store on a server. Nothing is known of its disk."""
    largest = max(figures.tables, key=lambda name: figures.tables[name])
    text = (
        f"schema {figures.schema} on PostgreSQL {figures.server.split()[0]}, {size(figures.size)} in {count(len(figures.tables), 'table')};"
        f" the largest is {largest} with {size(figures.tables[largest])}"
    )
    return Check("server", Level.OK, text, attrs.asdict(figures))


def older_schema(figures: FileFigures) -> Check:
    """Return the check of a file with an older schema, whose content is not read."""
    text = (
        f"schema {figures.schema} is older than {SCHEMA_VERSION}: the next program that opens the file upgrades it; jobs and runs"
    )
    return Check("schema", Level.WARNING, f"{text} were not checked", {"schema": figures.schema})


# Words


def _name(job: JobRow) -> str:
    return one_line(job.name, 60) + (f" of {one_line(job.user_id, 30)}" if job.user_id else "")


def _names(jobs: Iterable[JobRow], count: int) -> str:
    return ", ".join(_name(job) for job in list(jobs)[:_NAMES]) + more(count, _NAMES)


def _run_names(runs: Sequence[RunRow]) -> str:
    return ", ".join(f"run {run.id} of {one_line(run.job_name, 60)}" for run in runs[:_NAMES]) + more(len(runs), _NAMES)
