"""The columns of the tables, with their types."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from cronactors.storage.rows import SPEC, JobRow

STATE_COLUMNS: Final = ("id", *JobRow._fields[JobRow._fields.index("overlap") : SPEC])
"""Fields of a `JobRow` in the table job_state: those that a run changes, and those that the queue needs."""
JOB_COLUMNS: Final = tuple(name for name in JobRow._fields if name == "id" or name not in STATE_COLUMNS)
"""Fields of a `JobRow` in the table jobs: what users wrote."""

PENDING: Final = "status = 'pending' AND job_id <> ''"
RUNNING: Final = "status = 'running' AND job_id <> ''"
"""The conditions of the indexes runs_pending and runs_running. A statement that is not to use them says less, see `execution`."""

_INTEGERS = frozenset(
    [
        "delete_after_run",
        "enabled",
        "crashes",
        "next_run_at",
        "decided_local",
        "held_by",
        "last_run_at",
        "consecutive_failures",
        "pruned_until",
        "listed_enabled",
        "anchor_at",
        "max_retries",
        "delay_ms",
        "created_at",
        "manual",
        "scheduled_at",
        "attempt",
        "ready_at",
        "failures",
        "coalesced",
        "range_at",
        "owner",
        "cancel_requested",
        "started_at",
        "completed_at",
        "run_id",
        "now",
        "number",
    ]
)


def types(names: Iterable[str], **others: str) -> dict[str, str]:
    """Return columns with their types, for `Rows`. The column ``id`` is text; ``others`` name those that are different."""
    kinds = dict.fromkeys(_INTEGERS, "bigint") | {"timeout_secs": "float8"} | others
    return {name: kinds.get(name, "text") for name in names}


def quoted(names: Iterable[str], table: str = "") -> str:
    """Return the names as a list in a statement, each with its table if there is one."""
    prefix = f"{table}." if table else ""
    return ", ".join(f'{prefix}"{name}"' for name in names)


def assignments(names: Iterable[str]) -> str:
    """Return assignments from the table ``new`` to columns."""
    return ", ".join(f'"{name}" = new."{name}"' for name in names)
