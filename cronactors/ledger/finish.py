"""Finishing runs: the outcomes are stored, each job moves on, and runs that waited are released. Runs on the storage thread.

`finish_runs` is for runners, many at a time. `finish_open_run` is for everything else that finishes a run: recovery, a cancellation, a
moment that replaces another. The functions are in the order in which things happen.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice
from typing import NamedTuple, Protocol, assert_never

from cronactors.instants import Millis
from cronactors.ledger import alert_texts, alerting, pausing
from cronactors.ledger.after_run import Consequences, JobAction, after_run
from cronactors.ledger.new_rows import finish_values
from cronactors.ledger.open_runs import sessions_of
from cronactors.ledger.views import by_job
from cronactors.ledger.waiting import (
    cancel_pending,
    delete_jobs,
    disable_job,
    insert_moments,
    release_crash_loops,
    release_waiting,
)
from cronactors.model import Cause, RunStatus
from cronactors.policy import FREE_CRASHES, Outcome, in_crash_loop
from cronactors.schedules.schedule_json import is_one_shot
from cronactors.settings import RetryPolicy
from cronactors.storage.protocol import Storage
from cronactors.storage.rows import PAUSE, Claimed, JobRow, JobState, PlainFinish, RunRow


class RunnerReport(Protocol):
    """The outcome of a run, as a runner reports it."""

    @property
    def run_id(self) -> int:
        """The run."""

    @property
    def outcome(self) -> Outcome:
        """Its outcome."""

    @property
    def claimed(self) -> Claimed | None:
        """The run and its job as the claim left them; None: the runner does not know."""


class Finishes(NamedTuple):
    """What became of the reports of runners.

    Attributes:
        runs: For each report its run as it is stored now; None if another owner has taken it over, or it was finished with another
            outcome, so that this outcome has no effect.
        idle: Jobs that are known to have no other open run.
    """

    runs: list[RunRow | None]
    idle: frozenset[str]


def finish_runs(storage: Storage, reports: Sequence[RunnerReport], *, owner: int, policy: RetryPolicy) -> Finishes:
    """Finish runs of an owner. A second time, after a commit whose reply was lost, changes nothing more.

    Args:
        storage: Inside a transaction.
        reports: The outcomes; of two for one run the first counts.
        owner: The owner of the runs.
        policy: Delays of retries.
    """
    now = storage.now()
    plain = {report.run_id: found for report in reports if (found := _plain_finish(report, now)) is not None}
    twice = len({report.run_id for report in reports}) < len(reports)
    if twice or not plain or not storage.store_plain_finishes([finish for finish, _ in plain.values()], owner=owner):
        return Finishes(_finish_by_reading(storage, reports, owner=owner, policy=policy), frozenset())
    others = [report for report in reports if report.run_id not in plain]
    read = iter(_finish_by_reading(storage, others, owner=owner, policy=policy) if others else ())
    runs = [found[1] if (found := plain.get(report.run_id)) is not None else next(read) for report in reports]
    return Finishes(runs, frozenset(finish.job_id for finish, _ in plain.values()) if not others else frozenset())


# The fast path: most runs succeed and find their job as the claim left it. We store these without reading anything, which saves 25 us
# of CPU a run: the two statements themselves say what must hold, and store nothing unless it holds for every run.


def _plain_finish(report: RunnerReport, now: Millis) -> tuple[PlainFinish, RunRow] | None:
    """Make what is stored if nothing has changed since the claim, and the run as it is then.

    Returns:
        None if there is more to decide, so that the run and its job have to be read.
    """
    claimed, outcome = report.claimed, report.outcome
    if claimed is None or outcome.status is not RunStatus.SUCCESS:
        return None
    run, job, following, _, held_by, _ = claimed
    if (
        run.session is not None
        or held_by != run.id
        or job.crashes
        or job.consecutive_failures
        or job.delete_after_run
        or not job.enabled
    ):
        return None
    if following is None and not is_one_shot(job.schedule):
        return None  # its schedule has ended
    if following is not None and following <= now:
        return None  # it has overlapped moments
    finish = finish_values(run, outcome, now)
    plain = PlainFinish(run.id, finish.completed_at, outcome.session_id, outcome.result, job.id, following, outcome.result_data)
    return plain, run.finished(finish)


# Every other run is finished as it and its job are stored now.


def _finish_by_reading(
    storage: Storage, reports: Sequence[RunnerReport], *, owner: int, policy: RetryPolicy
) -> list[RunRow | None]:
    """Finish runs as they and their jobs are now; see `finish_runs`."""
    stored = storage.runs([report.run_id for report in reports])
    first: dict[int, Outcome] = {}
    for report in reports:
        run = stored.get(report.run_id)
        if run is not None and run.owner == owner and run.status == RunStatus.RUNNING:
            first.setdefault(report.run_id, report.outcome)
    finished = finish_open_runs(storage, [(stored[run_id], outcome) for run_id, outcome in first.items()], policy)
    finished_now = dict(zip(first, finished, strict=True))
    result: list[RunRow | None] = []
    for report in reports:
        run = finished_now.get(report.run_id, stored.get(report.run_id))
        has_effect = first.get(report.run_id) is report.outcome or _has_outcome(run, report.outcome)
        result.append(run if run is not None and run.owner == owner and has_effect else None)
    return result


def _has_outcome(run: RunRow | None, outcome: Outcome) -> bool:
    """Return whether a run is stored with an outcome, as it is when the same outcome is reported a second time."""
    if run is None:
        return False
    if outcome.cause is Cause.INTERRUPTED and run.cancel_requested and run.status == RunStatus.CANCELLED:
        return True  # see `_as_requested`
    return (run.status, run.cause) == (outcome.status, outcome.cause)


def finish_open_run(storage: Storage, run: RunRow, outcome: Outcome, policy: RetryPolicy) -> RunRow | None:
    """Finish an open run, pending or running, and store what follows for its job as the job is now.

    Returns:
        The finished run; None if the stored run has another status than ``run``, and nothing was changed.
    """
    return finish_open_runs(storage, [(run, outcome)], policy)[0]


def finish_open_runs(storage: Storage, outcomes: Sequence[tuple[RunRow, Outcome]], policy: RetryPolicy) -> list[RunRow | None]:
    """Finish several open runs; see `finish_open_run`.

    Runs of different jobs are read and written together. Two runs of one job are finished one after the other, as the first may change
    the job for the second.
    """
    job_ids = [run.job_id for run, _ in outcomes]
    if len(set(job_ids)) < len(job_ids):
        return [finish_open_run(storage, run, outcome, policy) for run, outcome in outcomes]
    now = storage.now()
    jobs = storage.jobs(job_ids)
    storage.hold(*{session for run, _ in outcomes for session in sessions_of(jobs.get(run.job_id), run)})
    requested = [(run, _as_requested(run, outcome, jobs.get(run.job_id))) for run, outcome in outcomes]
    finishes = [finish_values(run, outcome, now) for run, outcome in requested]
    took_effect = storage.store_finishes(finishes)
    storage.output.delete_progress([run.id for run, _ in outcomes if run.status == RunStatus.RUNNING])
    others = by_job(storage.open_runs(job_ids))
    result: list[RunRow | None] = []
    consequences: dict[str, Consequences] = {}
    counted: list[alerting.FinishedRun] = []
    for (run, outcome), finish, stored in zip(requested, finishes, took_effect, strict=True):
        row = run.finished(finish) if stored else None
        result.append(row)
        job = jobs.get(run.job_id)
        if row is not None and job is not None:
            each = after_run(job, row, outcome, policy=policy, others=others.get(job.id, ()), now=now)
            consequences[job.id] = each
            if each.state.consecutive_failures != job.consecutive_failures:
                counted.append(alerting.FinishedRun(job, row, each.state.consecutive_failures))
    owner = next((run.owner for run, _ in outcomes if run.owner is not None), None)
    alerting.report_failures(storage, counted, owner=owner)
    _store_consequences(storage, jobs, consequences, others, owner=owner)
    finished = [run for (run, _), stored in zip(requested, took_effect, strict=True) if stored]
    _release(storage, finished, jobs, consequences, others)
    return result


def _as_requested(run: RunRow, outcome: Outcome, job: JobRow | None) -> Outcome:
    """Turn the interruption of a run whose cancellation was requested into that cancellation: its moment is not put back."""
    if not run.cancel_requested or outcome.cause is not Cause.INTERRUPTED:
        return outcome
    replaced = run.cause == Cause.REPLACED
    if replaced and outcome.crashed and job is not None and job.crashes > FREE_CRASHES:
        return outcome  # a crash loop has to wait for its retry; the moment that replaces this run would crash at once
    cause = Cause.REPLACED if replaced else Cause.CANCELLED
    return Outcome(status=RunStatus.CANCELLED, cause=cause, error=outcome.error, crashed=outcome.crashed)


def _store_consequences(
    storage: Storage,
    jobs: dict[str, JobRow],
    consequences: dict[str, Consequences],
    others: dict[str, list[RunRow]],
    *,
    owner: int | None,
) -> None:
    """Insert the new runs, and write the jobs. The owner of the finished runs delivers the alerts that follow."""
    with_rows = [(jobs[job_id], each.rows) for job_id, each in consequences.items() if each.rows]
    alerting.report_missed(storage, [alerting.DecidedMoments.of_rows(job, rows) for job, rows in with_rows], owner=owner)
    inserted = iter(insert_moments(storage, jobs, [row for each in consequences.values() for row in each.rows]))
    states = []
    for job_id, each in consequences.items():
        state, rows = each.state, list(islice(inserted, len(each.rows)))
        match each.action:
            case JobAction.CONTINUE:
                if state.next_run_at is None and state.enabled and job_id not in others and not _any_pending(rows):
                    state = state.disabled()
                    alerting.report_ended(storage, jobs[job_id], owner=owner)
            case JobAction.HOLD_FOR_RETRY:
                state = state._replace(held_by=None if rows[-1] is None else rows[-1].id)
            case JobAction.DISABLE:
                state = JobState.of(disable_job(storage, jobs[job_id].with_state(state), Cause.INTERRUPTED))
                pausing.forget_pause(storage, job_id)
                alerting.report(storage, [alert_texts.paused_by_crashes(jobs[job_id], now=storage.now())], owner=owner)
            case JobAction.MARK_DONE:
                state = JobState.of(disable_job(storage, jobs[job_id].with_state(state), Cause.REMOVED))._replace(
                    next_run_at=None
                )
                paused = [run for run in storage.open_runs([job_id]) if run.waits_for == PAUSE]
                cancel_pending(storage, paused, Cause.REMOVED)
            case JobAction.DELETE:
                delete_jobs(storage, [jobs[job_id].with_state(state)])
                continue
            case _:
                assert_never(each.action)
        states.append(state)
    storage.update_job_states(states)


def _any_pending(rows: Sequence[RunRow | None]) -> bool:
    """Return whether any of the inserted rows is pending; None is a row whose moments have rows already."""
    return any(row is not None and row.status == RunStatus.PENDING for row in rows)


def _release(
    storage: Storage,
    runs: Iterable[RunRow],
    jobs: dict[str, JobRow],
    consequences: dict[str, Consequences],
    others: dict[str, list[RunRow]],
) -> None:
    """Release the runs that waited for these. A run without a session, of a job without other runs, keeps none waiting."""
    crash_loop_finished = False
    for run in runs:
        job, consequence = jobs.get(run.job_id), consequences.get(run.job_id)
        if run.session is not None or run.job_id in others or (consequence is not None and consequence.rows):
            release_waiting(storage, run, held=job is not None and job.held_by == run.id)
        crash_loop_finished |= run.status == RunStatus.RUNNING and (job is None or in_crash_loop(job.crashes))
    if crash_loop_finished:
        release_crash_loops(storage)
