"""The ends that runners tell, many at a time. Most find everything as the claim has left it, and are recorded without reading."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from cronactors.instants import Millis
from cronactors.ledger.close import finish_open_runs
from cronactors.ledger.new_rows import finish_values
from cronactors.model import Cause, RunStatus
from cronactors.policy import Outcome
from cronactors.spec import RetryPolicy
from cronactors.storage.protocol import Storage
from cronactors.storage.rows import Claimed, PlainFinish, RunRow


class End(Protocol):
    """The end of a run, as a runner tells it."""

    @property
    def run_id(self) -> int:
        """The run."""

    @property
    def outcome(self) -> Outcome:
        """How it ended."""

    @property
    def claimed(self) -> Claimed | None:
        """The run as its claim has left it; None: whoever tells the end does not know."""


def finish_runs(storage: Storage, ends: Sequence[End], *, owner: int, policy: RetryPolicy) -> list[RunRow | Millis | None]:
    """End runs that the owner's runners hold; a second time, after a commit whose answer was lost, changes nothing more.

    Returns:
        Each run as it is now; only when it ended, if nothing else has changed but what `ended_plainly` tells; None if it was taken over
        meanwhile, and the outcome has no effect.
    """
    now = storage.now()
    plain = {end.run_id: found for end in ends if (found := _plain_end(end, now)) is not None}
    twice = len({end.run_id for end in ends}) < len(ends)  # the first one counts
    if twice or not plain or not storage.store_plain_finishes(list(plain.values()), owner=owner):
        return [*_finish_others(storage, ends, owner=owner, policy=policy)]
    others = [end for end in ends if end.run_id not in plain]
    answers = iter(_finish_others(storage, others, owner=owner, policy=policy) if others else ())
    return [found.completed_at if (found := plain.get(end.run_id)) else next(answers) for end in ends]


def ended_plainly(run: RunRow, outcome: Outcome, at: Millis) -> RunRow:
    """A run that ended as it was told, at the moment that `finish_runs` has answered."""
    return run.finished(finish_values(run, outcome, at))


def _plain_end(end: End, now: Millis) -> PlainFinish | None:
    """What is to be written if nothing has changed since the claim; None if there is more to decide."""
    claimed = end.claimed
    if claimed is None or end.outcome.status is not RunStatus.SUCCESS:
        return None
    run, job, following, _, held_by = claimed
    if run.session is not None or held_by != run.id or job.crashes or job.delete_after_run or not job.enabled:
        return None
    if following is not None and following <= now:
        return None  # it has overlapped moments
    outcome = end.outcome
    return PlainFinish(run.id, max(now, run.started_at or 0), outcome.session_id, outcome.result, job.id, following)


def _finish_others(storage: Storage, ends: Sequence[End], *, owner: int, policy: RetryPolicy) -> list[RunRow | None]:
    """End runs as they and their jobs are now."""
    runs = storage.runs([end.run_id for end in ends])
    first: dict[int, Outcome] = {}
    for end in ends:
        run = runs.get(end.run_id)
        if run is not None and run.owner == owner and run.status == RunStatus.RUNNING:
            first.setdefault(end.run_id, end.outcome)
    closed = finish_open_runs(storage, [(runs[run_id], outcome) for run_id, outcome in first.items()], policy)
    told: list[RunRow | None] = []
    now_ended = dict(zip(first, closed, strict=True))
    for end in ends:
        run_id, outcome = end.run_id, end.outcome
        run = now_ended.get(run_id, runs.get(run_id))
        if run is None or run.owner != owner:
            told.append(None)
        else:
            as_said = (run.status, run.cause) == (outcome.status, outcome.cause)
            if outcome.cause is Cause.INTERRUPTED and run.cancel_requested:
                as_said |= run.status == RunStatus.CANCELLED  # as somebody had asked
            told.append(run if as_said or first.get(run_id) is outcome else None)
    return told
