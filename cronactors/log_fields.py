"""The `extra` fields of log records about a job or a run: ``cron_job``, ``cron_run`` and ``cron_attempt``.

A program that logs JSON finds every record about a run by its id, whatever the message says. The values are those of the public
API: `CronJob.id`, `CronRun.id` and `CronRun.attempt`. A record carries only the fields that apply to it.
"""

from __future__ import annotations

from typing import TypeAlias

from cronactors.model import CronRun
from cronactors.storage.rows import RunRow

Fields: TypeAlias = dict[str, object]


def of_run(run: RunRow | CronRun) -> Fields:
    """Return the fields of a record about a run: its job, its id and its attempt."""
    return {"cron_job": run.job_id, "cron_run": str(run.id), "cron_attempt": run.attempt}


def of_run_id(run_id: int | str) -> Fields:
    """Return the fields of a record about a run of which only the id is known."""
    return {"cron_run": str(run_id)}
