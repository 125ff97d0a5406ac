"""A world of the ledger in which someone listens to alerts."""

from __future__ import annotations

import json
from collections.abc import Sequence

from cronactors.alerts import Alert
from cronactors.instants import Millis
from cronactors.ledger.leases import LEASE
from cronactors.ledger.notification_columns import alert_from_column
from cronactors.ledger.owners import sign_off
from cronactors.policy import Outcome
from cronactors.storage.rows import OwnerRow, RunRow
from tests.ledger_world import FAILURE, MINUTE, SUCCESS, World


def listen(world: World, machine: str = "listens", receivers: Sequence[str] = ("notifier", "on_alert")) -> int:
    """Add an owner that has the receiver of alerts."""
    row = OwnerRow(0, machine, 1, "", world.now, world.now + LEASE, json.dumps(receivers))
    return world.do(lambda storage: storage.insert_owner(row))


def alerts(world: World) -> list[Alert]:
    """Return all alerts in the order in which they were written."""
    rows = world.do(lambda storage: storage.notifications.page(before=None, status=None, receiver="on_alert", limit=1_000))[0]
    return [alert_from_column(row.alert or "") for row in sorted(rows, key=lambda row: row.id)]


def alerted(world: World) -> list[tuple[str, int]]:
    """Return kind and count of all alerts."""
    return [(alert.kind.value, alert.count) for alert in alerts(world)]


def run_once(world: World, outcome: Outcome = SUCCESS) -> RunRow:
    """Let the next minute of a minutely job without retries run."""
    world.pass_time(MINUTE)
    run = world.claim_one()
    world.finish(run, outcome)
    return run


def fail(world: World, times: int) -> None:
    for _ in range(times):
        run_once(world, FAILURE)


def stop(world: World, *, down: Millis) -> None:
    """Close the scheduler, and start it again after a while; the new one listens."""
    world.do(sign_off, world.owner)
    world.pass_time(down)
    world.owner = world.register(world.this_process)
    listen(world)
