"""An open store that ``watch`` inspects again and again, also while it is locked or its server is away."""

from __future__ import annotations

from pathlib import Path

import attrs
import trio

from cronactors.cli import describe
from cronactors.cli.run_query import read_runs
from cronactors.cli.watch_reader import MOST_CANDIDATES, Filter, Inspect, Snapshot
from cronactors.errors import StoreUnavailable
from cronactors.model import CronRun
from cronactors.owner import identify_this_process
from cronactors.storage.file_state import MEMORY, database_files, file_ids
from cronactors.storage.postgres.address import is_postgres
from cronactors.store import CronStore

PATIENCE = 5.0
"""How long (s) an inspection waits for a locked store."""
MOST_LAST = 200
"""How many runs that have finished are kept for the live view."""

_LIST_EVERY = 5.0
_LIST_SHARE = 20
"""The jobs of a tag or a user are listed again after 5 s, or after 20 times as long as that takes."""


class StoreReader:
    """Inspects a store.

    Args:
        store: The store.
        wanted: Which runs are wanted.
        for_view: Whether to read also the parts that only the live view shows: the next starts, and the runs that have finished last.

    Attributes:
        name: The name of the store: that of the file without its folder, or the address.
        last: The runs that have finished last, the newest first. None: they are yet to be read.
    """

    def __init__(self, store: CronStore, wanted: Filter, *, for_view: bool) -> None:
        self._store, self._filter, job_ids = store, wanted, wanted.subject.job_ids
        self._request = Inspect(filter=wanted, candidates=job_ids, for_view=for_view, process=identify_this_process())
        self._list_at = 0.0 if for_view and job_ids is None and not wanted.is_everything else None
        self._files = () if is_postgres(store.path) else database_files(store.path)
        self._opened = file_ids(self._files)
        self.name = store.path if is_postgres(store.path) or store.path == MEMORY else Path(store.path).name
        self.last: list[CronRun] | None = None

    async def read(self) -> tuple[Snapshot | None, str]:
        """Inspect the store.

        Returns:
            The snapshot, or None and why the store cannot be read now.

        Raises:
            StoreUnavailable: The file was deleted or replaced.
            CronError: It is damaged.
        """
        try:
            if self._list_at is not None and trio.current_time() >= self._list_at:
                await self._list_candidates()  # for a million jobs it takes longer than our patience
            with trio.move_on_after(PATIENCE) as waiting:
                snapshot = await self._inspect()
            if waiting.cancelled_caught:
                return None, f"{self._store.path} is locked, or has not answered for {PATIENCE:.0f} s"
            if self._request.for_view:
                await self._add_last(snapshot)
        except StoreUnavailable as error:
            if file_ids(self._files) != self._opened:
                raise
            return None, str(error)
        return snapshot, ""

    async def _inspect(self) -> Snapshot:
        snapshot = await self._store._service.mailbox.call(self._request)
        self._request = attrs.evolve(self._request, known=snapshot.known)
        return snapshot

    async def _list_candidates(self) -> None:
        """Find the jobs of the user or the tag that are next: no index has them in order of time."""
        started, query = trio.current_time(), self._filter.query
        jobs = await self._store.list_jobs(user_id=query.user_id, tag=query.tag, enabled=True)
        nearest = [job.id for job in describe.sort_by_next_time(jobs)[:MOST_CANDIDATES]]
        self._request = attrs.evolve(self._request, candidates=nearest)
        took = trio.current_time() - started
        self._list_at = trio.current_time() + max(_LIST_EVERY, _LIST_SHARE * took)

    async def _add_last(self, snapshot: Snapshot) -> None:
        """Add the runs that have finished: at first the newest of the history, then those that have changed, however old they are."""
        before = await read_runs(self._store, self._filter.query, self._filter.subject) if self.last is None else self.last
        runs = {run.id: run for run in [*before, *(change.run for change in snapshot.changes)] if run.status.ended}
        self.last = sorted(runs.values(), key=time_of, reverse=True)[:MOST_LAST]


def time_of(run: CronRun) -> tuple[float, int]:
    """Return the key by which runs are in order of time: when it finished, started or is planned; then its id."""
    moment = run.completed_at or run.started_at or run.scheduled_at
    return moment.timestamp(), int(run.id)
