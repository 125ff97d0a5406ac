"""`Health`: how a scheduler is doing."""

from __future__ import annotations

from datetime import datetime

import attrs


@attrs.frozen(kw_only=True)
class Health:
    """How a scheduler is doing.

    Attributes:
        last_tick: When it last inspected the store, or found it unchanged, UTC.
        next_wake: When the clock means to wake next, UTC; None: nothing is planned.
        clock_lag: How much later (s) than planned it woke the last time: the event loop was busy or blocked.
        runs_in_flight: How many runs are running in this scheduler.
        free_slots: How many more could.
        store_queue: How many requests wait for the store.
        store_latency: How long (s) the store took for its last transaction, with the commit and the wait for a due moment; None before
            the first.
        last_store_error: The last error of the store; None once it works again.
        notifications_pending: How many notifications are yet to be delivered, of all receivers of the file: as counted at the
            last inspection, to 10,000, plus the changes by commits of this scheduler since.
    """

    last_tick: datetime | None
    next_wake: datetime | None
    clock_lag: float
    runs_in_flight: int
    free_slots: int
    store_queue: int
    store_latency: float | None
    last_store_error: str | None
    notifications_pending: int
