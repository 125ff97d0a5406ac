"""Due moments decided."""

from __future__ import annotations

import attrs

from cronactors.errors import CronError, InvalidJob, InvalidSchedule
from cronactors.instants import Millis
from cronactors.ledger.stored_values import check_policies, timing_of, unreadable
from cronactors.ledger.waiting import disable_job
from cronactors.model import Cause
from cronactors.policy import Decision, decide_due, misfire_from_text
from cronactors.storage.protocol import Storage
from cronactors.storage.rows import JobRow


def decide_due_moments(storage: Storage, job: JobRow, now: Millis) -> Decision | None:
    """What the due moments become; None if there are none, or if what is stored cannot be read, which stops the job."""
    try:
        decision = due_decision(job, now)
        beyond = None if decision is None else decided_ahead_of_clock(job, decision)
        if decision is not None and beyond is not None:
            decision = attrs.evolve(decision, following=timing_of(job).after_local(beyond), decided_local=beyond)
    except (InvalidSchedule, InvalidJob) as error:
        disable_unreadable(storage, job, error)
        return None
    return decision


def disable_unreadable(storage: Storage, job: JobRow, error: CronError) -> None:
    """Pause a job that is stored in a way that cannot be read."""
    disable_job(storage, job._replace(last_error=f"paused: {unreadable(error)}"), Cause.CANCELLED)


def due_decision(job: JobRow, now: Millis) -> Decision | None:
    """Decide the due moments of a job without touching the storage; None if there are none."""
    first = job.next_run_at
    if first is None or first > now:  # the index of a damaged file may say otherwise: nothing runs ahead of its time
        return None
    check_policies(job)
    return decide_due(timing_of(job), first=first, now=now, misfire=misfire_from_text(job.misfire))


def decided_ahead_of_clock(job: JobRow, decision: Decision) -> int | None:
    """Until when the job's times of day are decided, if the local clock is not as far: new rules have set the clock of its zone back."""
    decided, clock = job.decided_local, decision.decided_local
    return decided if decided is not None and clock is not None and decided > clock else None
