"""How many runs may be running over all schedulers, when they disagree: the smallest number of those that are alive counts.

Runs on the storage thread.
"""

from __future__ import annotations

import json
from typing import Final

from cronactors.instants import Millis
from cronactors.storage.protocol import Storage

SEEN_WITHIN: Final[Millis] = 120_000
"""How old (ms) the last heartbeat of a scheduler may be that counts: an idle one sends one a minute."""
_TOTALS = "totals"
"""The fact (`Storage.meta`) that says which owner was started with which total."""


def note_total(storage: Storage, owner: int, total: int | None) -> None:
    """Store the total of a new owner, and forget those of owners that are gone."""
    known = {row.id for row in storage.owners()}
    totals = {number: each for number, each in _totals(storage).items() if number in known}
    if total is not None:
        totals[owner] = total
    storage.set_meta(_TOTALS, json.dumps(totals) if totals else None)


def total_of_all(storage: Storage, own: int) -> int:
    """Return the smallest total of the living, given that of the owner that asks."""
    smaller = {number: total for number, total in _totals(storage).items() if total < own}
    if not smaller:
        return own
    since = storage.now() - SEEN_WITHIN
    living = {row.id for row in storage.owners() if row.lease_until > 0 and row.heartbeat_at > since}
    return min((total for number, total in smaller.items() if number in living), default=own)


def _totals(storage: Storage) -> dict[int, int]:
    """Return which owner has which total; none if the fact is damaged."""
    try:
        totals = {int(number): int(total) for number, total in json.loads(storage.meta(_TOTALS) or "{}").items()}
    except (TypeError, ValueError, AttributeError, OverflowError, RecursionError):
        return {}
    return {number: total for number, total in totals.items() if total > 0}
