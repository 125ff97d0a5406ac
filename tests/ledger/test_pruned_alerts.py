"""Which alerts are deleted with the history."""

from __future__ import annotations

import pytest

from cronactors.ledger import pruning_clock
from cronactors.retention import EVERYTHING, History
from cronactors.storage.notifications import NotificationRow, Settlement
from tests.ledger_world import DAY, prune


def add_alert(world, key: str, receiver: str = "on_alert") -> int:
    row = NotificationRow(id=0, key=key, run_id=None, receiver=receiver, job_id="j", created_at=world.now)
    return world.do(lambda storage: storage.notifications.insert([row]))[0].id


def deliver(world, alert: int, receiver: str = "on_alert") -> None:
    settlement = Settlement(alert, "delivered", 1, None, None, receiver, "j")
    world.do(lambda storage: storage.notifications.settle([settlement], owner=0))


def alerts(world) -> list[tuple[str, str]]:
    rows = world.do(lambda storage: storage.notifications.page(before=None, status=None, receiver=None, limit=100)[0])
    return sorted((row.key, row.receiver) for row in rows)


def add_receiver(world) -> None:
    """Let an owner of ours, 2, have the receiver mail."""
    world.do(lambda storage: storage.insert_owner(storage.owners()[0]._replace(id=0, receivers='["mail"]')))


def test_old_alerts_go_but_for_those_that_a_receiver_waits_for(world):
    add_receiver(world)
    world.do(pruning_clock.start, History())
    for receiver in ("mail", "on_alert"):
        add_alert(world, "old", receiver)
    world.pass_time(2 * DAY)
    add_alert(world, "young")
    prune(world, History(days=1), owners={2})
    assert alerts(world) == [("old", "mail"), ("young", "on_alert")]


def test_an_alert_that_was_pending_goes_once_it_was_delivered(world):
    add_receiver(world)
    world.do(pruning_clock.start, History())
    alert = add_alert(world, "old", "mail")
    add_alert(world, "second")
    world.pass_time(2 * DAY)
    prune(world, History(days=1), owners={2})
    assert alerts(world) == [("old", "mail")]
    deliver(world, alert, "mail")
    world.pass_time(7 * DAY)
    prune(world, History(days=1), owners={2})
    assert alerts(world) == []


@pytest.mark.parametrize(
    ("limits", "kept"), [(History(days=None, per_job=10), 90), (History(days=5), 5), (EVERYTHING, 100), (History(), 90)]
)
def test_settled_alerts_go_by_age_also_where_no_run_does(world, limits, kept):
    world.do(pruning_clock.start, History())
    for day in range(100):
        deliver(world, add_alert(world, f"{day:03}"))
        world.pass_time(DAY)
    prune(world, limits)
    assert alerts(world) == [(f"{day:03}", "on_alert") for day in range(100 - kept + (kept < 100), 100)]
