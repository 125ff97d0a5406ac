"""Notifications: which finishes are notified, what receivers get when they are read back, and who takes them over."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime

import attrs
import pytest

from cronactors.actors.actor_requests import Finished, FinishRun, FinishSettings
from cronactors.alerts import Alert, AlertKind
from cronactors.errors import InvalidJob
from cronactors.ledger import jobs, leases, notifications, owners
from cronactors.ledger.notification_columns import (
    alert_from_column,
    alert_to_column,
    job_from_column,
    job_to_column,
    state_to_column,
    with_state,
)
from cronactors.ledger.notifications import CallResult, Deliverable
from cronactors.model import CronJob
from cronactors.notifications import NotificationStatus
from cronactors.policy import Outcome
from cronactors.schedules.schedule import Cron
from cronactors.storage.notifications import ANY_OWNER, NotificationRow
from cronactors.storage.rows import Claimed, JobRow
from tests.ledger_world import CANCELLED, FAILURE, HOUR, INTERRUPTED, MINUTE, SUCCESS, TIMEOUT, World, at, process
from tests.storages import job

BOTH = ("notifier", "on_finish")


def finish(
    world: World, claims: Sequence[Claimed], outcome: Outcome, receivers: tuple[str, ...] = BOTH, *, again: bool = False
) -> list[Finished]:
    settings = FinishSettings(owner=world.owner, policy=world.policy, total=None, receivers=receivers)
    requests = [FinishRun(claimed.run.id, outcome, False, settings, claimed, again=again) for claimed in claims]
    return world.do(FinishRun.apply_all, requests)


def claimed_run(world: World) -> Claimed:
    """Add a job that is due in a minute, and claim its run."""
    world.add(at(world.now + MINUTE))
    world.pass_time(MINUTE)
    return claim(world)


def claim(world: World) -> Claimed:
    run = world.claim_one()
    return world.claimed[run.id]


def stored(world: World) -> list[NotificationRow]:
    rows, _ = world.do(lambda storage: storage.notifications.page(before=None, status=None, receiver=None, limit=999))
    return rows[::-1]


def read(world: World) -> list[Deliverable]:
    rows = stored(world)
    return world.do(notifications.deliverables, rows)


@pytest.mark.parametrize(
    ("outcome", "is_notified"),
    [
        (SUCCESS, True),
        (FAILURE, True),
        (TIMEOUT, True),
        (CANCELLED, True),
        (INTERRUPTED, False),
        (attrs.evolve(SUCCESS, notify=False), False),
        (attrs.evolve(FAILURE, notify=False), False),
    ],
)
def test_what_is_notified(world: World, outcome: Outcome, is_notified: bool) -> None:
    claimed = claimed_run(world)
    (finished,) = finish(world, [claimed], outcome)
    assert [each.row for each in finished.notifications] == stored(world)
    assert [(row.receiver, row.run_id, row.owner, row.created_at) for row in stored(world)] == [
        (receiver, claimed.run.id, world.owner, world.now) for receiver in BOTH if is_notified
    ]


def test_without_receivers_nothing_is_written(world: World) -> None:
    for receivers in ((), ("on_alert",)):
        (finished,) = finish(world, [claimed_run(world)], SUCCESS, receivers)
        assert finished.notifications == stored(world) == []


def test_a_finish_that_is_sent_again_writes_no_second_row(world: World) -> None:
    claimed, other = claimed_run(world), claimed_run(world)
    finish(world, [claimed], FAILURE)
    first = stored(world)
    finished = finish(world, [claimed, other], FAILURE, again=True)
    assert [len(each.notifications) for each in finished] == [0, 2]
    assert stored(world)[:2] == first
    assert len(stored(world)) == 4


def test_a_finish_without_effect_writes_nothing(world: World) -> None:
    claimed = claimed_run(world)
    finish(world, [claimed], SUCCESS)
    assert finish(world, [claimed], FAILURE)[0] == Finished(run=None, notifications=[], next_claimed=None)
    assert len(stored(world)) == 2


def test_what_is_read_back_is_what_was_handed_over(world: World) -> None:
    finished = finish(world, [claimed_run(world) for _ in range(3)], SUCCESS)
    finished += finish(world, [claimed_run(world) for _ in range(3)], FAILURE)
    assert read(world) == [deliverable for each in finished for deliverable in each.notifications]
    jobs_shown = [each.job for each in read(world) if each.row.receiver == "on_finish"]
    assert [None if job is None else (job.enabled, job.retry_count) for job in jobs_shown] == [(False, 0)] * 3 + [(True, 1)] * 3


def test_a_job_that_went_on_is_shown_as_the_finish_left_it(world: World) -> None:
    job_id = world.add(at(world.now + MINUTE), max_retries=1)
    world.pass_time(MINUTE)
    (finished,) = finish(world, [claim(world)], FAILURE, ("on_finish",))
    world.pass_time(HOUR)
    finish(world, [claim(world)], SUCCESS, ())
    assert read(world) == finished.notifications
    world.do(jobs.remove_job, job_id)
    (removed,) = read(world)
    assert removed.row.job is not None
    assert removed.job == finished.notifications[0].job


def test_a_job_that_the_finish_removes_is_kept_with_its_row(world: World) -> None:
    world.add(at(world.now + MINUTE), delete_after_run=True)
    world.pass_time(MINUTE)
    (finished,) = finish(world, [claim(world)], SUCCESS)
    assert [row.job is not None for row in stored(world)] == [False, True]
    assert read(world) == finished.notifications


def test_what_cannot_be_read_has_a_problem_and_hides_nothing(world: World) -> None:
    rows = [
        NotificationRow(0, None, 99, "notifier", "a", 5),
        NotificationRow(0, None, None, "on_alert", "b", 5),
        NotificationRow(0, "x", None, "on_alert", "c", 5, job="{}"),
        NotificationRow(0, "y", None, "on_alert", "d", 5, job=job_to_column(job("d")), alert="[]"),
        NotificationRow(0, "z", None, "on_alert", "e", 5, job=job_to_column(job("e")), job_state="{}"),
    ]
    found = world.do(notifications.deliverables, rows)
    assert [each.problem for each in found] == [
        "its run is not in the history",
        "its job is not in the store",
        "job of a notification cannot be read",
        "alert of a notification cannot be read",
        "job_state of a notification cannot be read",
    ]


def test_results_are_stored_with_the_time_of_the_retry(world: World) -> None:
    finish(world, [claimed_run(world), claimed_run(world)], SUCCESS, ("notifier",))
    first, second = stored(world)
    results = [
        CallResult(first, NotificationStatus.PENDING, 1, 5_000, "no"),
        CallResult(second, NotificationStatus.DELIVERED, 0),
    ]
    assert world.do(notifications.settle, results, owner=world.owner) == []
    assert [(row.status, row.attempts, row.ready_at, row.error) for row in stored(world)] == [
        ("pending", 1, world.now + 5_000, "no"),
        ("delivered", 0, None, None),
    ]
    page = world.do(notifications.ready_page, "notifier", owner=world.owner, limit=5)
    assert (page.deliverables, page.is_full, page.next_retry) == ([], False, world.now + 5_000)
    world.pass_time(5_000)
    page = world.do(notifications.ready_page, "notifier", owner=world.owner, limit=1)
    assert ([each.row.id for each in page.deliverables], page.is_full, page.next_retry) == ([first.id], True, None)


def test_a_page_leaves_out_those_in_hand_and_says_which_are_still_ready(world: World) -> None:
    finish(world, [claimed_run(world) for _ in range(5)], SUCCESS, ("notifier",))
    ids = [row.id for row in stored(world)]

    def page(limit: int, *in_hand: int) -> tuple[list[int], set[int], bool]:
        found = world.do(notifications.ready_page, "notifier", owner=world.owner, limit=limit, in_hand=in_hand)
        return [each.row.id for each in found.deliverables], set(found.ready), found.is_full

    assert page(2, ids[0], ids[1]) == (ids[2:4], set(ids[:4]), True)
    assert page(4, ids[1]) == ([ids[0], *ids[2:]], set(ids), True)
    assert page(9, ids[1]) == ([ids[0], *ids[2:]], set(ids), False)
    assert page(4, 98, 99) == (ids[:4], set(ids), True), "those in hand are no longer ready"
    assert page(5, 98, 99) == (ids, set(ids), False)


# Taking over


def take_over(world: World, owner: int, *receivers: str, limit: int = 99, trust_leases: bool = False) -> dict[str, int]:
    return world.do(
        notifications.take_over,
        world.this_process,
        receivers=receivers,
        owner=owner,
        trust_leases=trust_leases,
        mine={owner},
        limit=limit,
    )


def test_only_notifications_of_owners_that_are_gone_are_taken_over(world: World) -> None:
    finish(world, [claimed_run(world) for _ in range(3)], SUCCESS)
    mine = world.register(process("elsewhere"))
    assert take_over(world, mine, *BOTH) == {}
    world.pass_time(HOUR)
    assert take_over(world, mine, *BOTH) == {}, "the end of its lease is not trusted"
    assert take_over(world, mine, "notifier", limit=2, trust_leases=True) == {"notifier": 2}
    assert take_over(world, mine, *BOTH, limit=2, trust_leases=True) == {"notifier": 1, "on_finish": 1}
    assert take_over(world, mine, *BOTH, trust_leases=True) == {"on_finish": 2}
    assert {row.owner for row in stored(world)} == {mine}


def test_a_living_owner_without_open_runs_keeps_its_notifications(world: World) -> None:
    """Its heartbeats come once a minute, and its lease lasts half of that."""
    finish(world, [claimed_run(world)], SUCCESS, ("notifier",))
    mine = world.register(process("elsewhere"))
    world.do(leases.renew_leases, [world.owner])
    world.pass_time(leases.LEASE + leases.HEARTBEAT_WHEN_IDLE - 1)
    assert take_over(world, mine, "notifier", trust_leases=True) == {}, "its next heartbeat is late, by less than a lease"
    world.pass_time(1)
    assert take_over(world, mine, "notifier", trust_leases=True) == {"notifier": 1}


def test_notifications_of_an_owner_that_signed_off_or_died_are_taken_over_at_once(world: World) -> None:
    finish(world, [claimed_run(world)], SUCCESS)
    mine = world.register(process("here", boot=2))
    world.this_process = process("here", boot=2)
    assert take_over(world, mine, "notifier") == {"notifier": 1}, "its machine has been started anew"
    world.do(owners.sign_off, world.owner)
    assert take_over(world, mine, "on_finish", trust_leases=True) == {"on_finish": 1}


def test_what_was_given_up_and_reopened_belongs_to_anyone(world: World) -> None:
    finish(world, [claimed_run(world)], SUCCESS, ("notifier",))
    world.do(notifications.settle, [CallResult(stored(world)[0], NotificationStatus.GIVEN_UP, 5)], owner=world.owner)
    (row,) = world.do(notifications.retry, f"run:{stored(world)[0].run_id}", None)
    assert (row.owner, row.status) == (ANY_OWNER, "pending")
    assert take_over(world, world.owner, "on_finish") == {}
    assert take_over(world, world.owner, "notifier") == {"notifier": 1}
    assert world.do(notifications.ready_page, "notifier", owner=world.owner, limit=5).deliverables[0].row.id == row.id


# Columns


def test_columns_come_back_as_they_were() -> None:
    moment = datetime(2026, 3, 1, 12, 0, 0, 123_000, tzinfo=UTC)
    now = CronJob(id="a", name="a", prompt="p", schedule=Cron("@daily"), created_at=moment)
    left = attrs.evolve(now, enabled=False, last_error="boom", retry_count=2, retry_at=moment, last_run_at=moment)
    assert with_state(now, state_to_column(left)) == left
    assert with_state(left, state_to_column(now)) == now
    row = job("a", prompt="Grüße", next_run_at=None, last_error="e")
    assert job_from_column(job_to_column(row)) == row
    alert = Alert(kind=AlertKind.FAILING, since=moment, count=3, text="3 in a row")
    assert alert_from_column(alert_to_column(alert)) == alert


def test_a_removed_job_is_read_whether_this_release_or_one_before_pauses_wrote_it() -> None:
    fields = {name for name in JobRow._fields if name != "listed_enabled"}
    assert set(json.loads(job_to_column(job("a", listed_enabled=0)))) == fields, "the release before knows no other field"
    assert job_from_column(job_to_column(job("a", listed_enabled=0))) == job("a")
    assert job_from_column(json.dumps(job("a")._asdict())) == job("a")


@pytest.mark.parametrize("column", ["", "null", "5", "[]", "{}", '{"kind": "new", "since": 0, "count": 1, "text": ""}'])
def test_a_damaged_column_is_refused(column: str) -> None:
    now = CronJob(id="a", name="a", prompt="p", schedule=Cron("@daily"), created_at=datetime(2026, 3, 1, tzinfo=UTC))
    with pytest.raises(InvalidJob, match="job_state"):
        with_state(now, column)
    with pytest.raises(InvalidJob, match="job of"):
        job_from_column(column)
    with pytest.raises(InvalidJob, match="alert of"):
        alert_from_column(column)
