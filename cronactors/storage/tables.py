"""The verbs of a storage that have a protocol of their own, because they are about one table each."""

from __future__ import annotations

from typing import Protocol

from cronactors.storage.history import HistoryTable
from cronactors.storage.notifications import NotificationTable
from cronactors.storage.pauses import PauseTable
from cronactors.storage.pruning import PruningTable
from cronactors.storage.run_output import OutputTable
from cronactors.storage.run_requests import RunRequestTable


class Tables(Protocol):
    """What a `Storage` has for them."""

    @property
    def pauses(self) -> PauseTable:
        """The pauses of jobs."""
        ...

    @property
    def run_requests(self) -> RunRequestTable:
        """The requests of runs."""
        ...

    @property
    def output(self) -> OutputTable:
        """The lines and the progress of runs."""
        ...

    @property
    def notifications(self) -> NotificationTable:
        """The notifications, and the episodes of alerts."""
        ...

    @property
    def history(self) -> HistoryTable:
        """The verbs that read the history by filters."""
        ...

    @property
    def pruning(self) -> PruningTable:
        """The verbs that prune the history."""
        ...
