"""Reads a run for the verb ``show-run``, with all that belongs to it. `ReadRunDetails.apply` runs on the storage thread."""

from __future__ import annotations

from datetime import datetime

import attrs

from cronactors.actors.mailbox import ReadRequest
from cronactors.ledger.runs import find_run
from cronactors.ledger.stored_values import read_time
from cronactors.ledger.views import notification_view, run_view
from cronactors.model import CronRun
from cronactors.notifications import Notification
from cronactors.storage.history import Place, RunFilter, Span
from cronactors.storage.protocol import Storage

MOST_ATTEMPTS = 1_000
"""How many attempts of a moment are read at most: the newest."""


@attrs.frozen(kw_only=True)
class RunDetails:
    """A run, with the other attempts of its moment and its notifications.

    Attributes:
        run: The run.
        ready_at: From when on it may start, or might have, UTC; None: the stored value cannot be read.
        waits_for: The reason why it waits, as it is stored; None: it does not.
        attempts: All attempts of its moment, the run among them, the first one first.
        notifications: Its notifications, the first one first.
    """

    run: CronRun
    ready_at: datetime | None
    waits_for: str | None
    attempts: list[CronRun]
    notifications: list[Notification]


@attrs.frozen
class ReadRunDetails(ReadRequest[RunDetails]):
    """Read a run, the other attempts of its moment and its notifications, in one transaction and by indexes.

    `CronStore.list_runs` would have to look for later attempts, and `CronStore.list_notifications` for those of one run.
    """

    run_id: str

    def apply(self, storage: Storage) -> RunDetails:
        """Read them.

        Raises:
            RunNotFound: There is no run with that id.
        """
        run = find_run(storage, self.run_id)
        ids = storage.pruning.run_ids()
        assert ids is not None
        moment = Place(0, run.scheduled_at, run.manual, 0)
        span = Span(0, ids[1] + 1, before=moment._replace(manual=run.manual + 1), down_to=moment)
        page = storage.history.page(RunFilter(job_id=run.job_id), span, limit=MOST_ATTEMPTS, read=MOST_ATTEMPTS)
        return RunDetails(
            run=run_view(run),
            ready_at=read_time(run.ready_at),
            waits_for=run.waits_for,
            attempts=[run_view(each) for each in reversed(page.rows)],
            notifications=[notification_view(row) for row in storage.notifications.find(f"run:{run.id}")],
        )
