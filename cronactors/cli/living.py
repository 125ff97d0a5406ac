"""Which schedulers are alive, as far as this process can see."""

from __future__ import annotations

from collections.abc import Iterable

import attrs

from cronactors.actors.mailbox import ReadRequest
from cronactors.instants import Millis
from cronactors.ledger.totals import SEEN_WITHIN
from cronactors.owner import ProcessIdentity, certainly_dead, find_process_start, identify_this_process
from cronactors.storage.protocol import Storage
from cronactors.storage.rows import DECLARED_DEAD, OwnerRow
from cronactors.store import CronStore


def is_alive(row: OwnerRow, this_process: ProcessIdentity, now: Millis) -> bool:
    """Return whether an owner is running: its process lives in our own namespaces, else it was seen within 120 s."""
    if row.lease_until in (0, DECLARED_DEAD) or certainly_dead(row.process, this_process):
        return False
    return lives_here(row.process, this_process) or row.heartbeat_at > now - SEEN_WITHIN


def lives_here(process: ProcessIdentity, this_process: ProcessIdentity) -> bool:
    """Return whether a process certainly lives: it is in our boot and namespaces, and its id still has the same start."""
    is_ours = process.machine == this_process.machine and all(process.machine.split("/")[1:])
    return is_ours and bool(process.process_start) and find_process_start(process.pid) == process.process_start


def living(rows: Iterable[OwnerRow], this_process: ProcessIdentity, now: Millis) -> list[OwnerRow]:
    """Return the owners that are alive, the one that was seen last first."""
    alive = [row for row in rows if is_alive(row, this_process, now)]
    return sorted(alive, key=lambda row: row.heartbeat_at, reverse=True)


async def count_living(store: CronStore) -> int:
    """Count the schedulers of a store that are alive."""
    return await store._service.mailbox.call(_Living(identify_this_process()))


@attrs.frozen
class _Living(ReadRequest[int]):
    process: ProcessIdentity

    def apply(self, storage: Storage) -> int:
        """Read the owners. Runs on the storage thread."""
        return len(living(storage.owners(), self.process, storage.now()))
