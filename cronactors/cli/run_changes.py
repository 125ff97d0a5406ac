"""Finds the runs that have started, finished or been added since the inspection before. Runs on the storage thread.

We read new rows by their ids, and each run that was pending or running by its own id. So an inspection reads few rows of a history of
a million, and misses no run that is shorter than the time between two inspections.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import attrs

from cronactors.instants import LATEST
from cronactors.ledger.history import READ
from cronactors.model import RunStatus
from cronactors.storage.history import RunFilter, Span
from cronactors.storage.protocol import Storage
from cronactors.storage.rows import RunRow

PAGE = 2_000
"""How many new ids one inspection passes at most."""
MOST_OPEN = 1_000
"""How many pending runs are followed at most: the newest. The others are noticed when they are running."""


@attrs.frozen
class Known:
    """The runs that inspections have found.

    Attributes:
        last_id: The newest id that was passed.
        complete: Whether all new runs were passed. If not, inspect again at once.
        statuses: The pending and running runs by id, each with its status.
    """

    last_id: int = 0
    complete: bool = True
    statuses: Mapping[int, str] = attrs.field(factory=dict, repr=False)


def read_changes(storage: Storage, known: Known | None) -> tuple[Known, list[RunRow], list[RunRow]]:
    """Find the changes since an inspection.

    Args:
        storage: Inside a transaction.
        known: As the inspection before has returned it; None: this is the first one, and nothing has changed yet.

    Returns:
        The runs that are known now, all that are running, and those that are new or have a new status, as they are now, in no order.
    """
    ids, running = storage.pruning.run_ids(), storage.running()
    newest = 0 if ids is None else ids[1]
    if known is None:
        # Pending runs that wait for another run are found only if they are among the newest.
        due = storage.due(now=LATEST, limit=MOST_OPEN, only_runs=True)
        page = storage.history.page(RunFilter(status=RunStatus.PENDING), Span(0, newest + 1), limit=MOST_OPEN, read=READ)
        pending = [item.run_id for item in due if item.run_id is not None] + [run.id for run in page.rows]
        return Known(newest, statuses=_statuses(pending, running)), running, []
    after = known.last_id
    last_id = max(after, min(newest, after + PAGE))
    running_ids = {run.id for run in running}
    others = storage.runs([run_id for run_id in known.statuses if run_id not in running_ids])
    added = storage.history.page(RunFilter(), Span(after + 1, last_id + 1), limit=PAGE, read=PAGE).rows if last_id > after else ()
    # A run may be running that we have not found pending, and on a server an id may be committed after a greater one.
    started = [run for run in running if run.id <= after and known.statuses.get(run.id) != run.status]
    finished = [run for run in others.values() if run.status != known.statuses[run.id]]
    pending = sorted(run.id for run in (*others.values(), *added) if run.status == RunStatus.PENDING)[-MOST_OPEN:]
    statuses = _statuses(pending, [run for run in running if run.id <= last_id])
    return Known(last_id, last_id >= newest, statuses), running, [*finished, *started, *added]


def _statuses(pending: Sequence[int], running: Sequence[RunRow]) -> dict[int, str]:
    return dict.fromkeys(pending, str(RunStatus.PENDING)) | {run.id: run.status for run in running}
