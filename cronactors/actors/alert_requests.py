"""The requests that look for alerts. `apply` runs on the storage thread."""

from __future__ import annotations

import attrs

from cronactors.actors.mailbox import ReadRequest, Request
from cronactors.instants import Millis
from cronactors.ledger import alerting
from cronactors.ledger.alerting import OverdueJobs
from cronactors.storage.protocol import Storage
from cronactors.storage.rows import OverdueMoment


@attrs.frozen
class FindOverdue(ReadRequest[OverdueJobs]):
    """Read which jobs are overdue; see `alerting.find_overdue`."""

    overdue_after: Millis
    after: OverdueMoment | None

    def apply(self, storage: Storage) -> OverdueJobs:
        return alerting.find_overdue(storage, overdue_after=self.overdue_after, after=self.after)


@attrs.frozen
class ReportOverdue(Request[None]):
    """Report jobs that are overdue; see `alerting.report_overdue`."""

    ids: tuple[str, ...]
    overdue_after: Millis
    owner: int

    def apply(self, storage: Storage) -> None:
        alerting.report_overdue(storage, self.ids, overdue_after=self.overdue_after, owner=self.owner)
