"""The protocol of a storage: notifications and episodes of alerts. Run against SQLite and against the plain dicts."""

from __future__ import annotations

import random

import pytest

from cronactors.storage.notifications import EpisodeRow, NotificationRow, Settlement
from cronactors.storage.protocol import Storage
from tests import storages

storage, store = storages.storage, storages.store


def news(run_id: int | None = 1, job_id: str = "a", receiver: str = "notifier", **fields: object) -> NotificationRow:
    """Return a notification of a run that is not stored yet."""
    row = NotificationRow(0, None, run_id, receiver, job_id, created_at=5)
    return row._replace(**fields)  # type: ignore[arg-type]  # the tests name the fields


def alert(key: str, job_id: str = "a", receiver: str = "on_alert", **fields: object) -> NotificationRow:
    return news(None, job_id, receiver, key=key, alert="{}", **fields)


def settlement(row: NotificationRow, status: str = "delivered", **fields: object) -> Settlement:
    values = {"attempts": 0, "ready_at": None, "error": None, **fields}
    return Settlement(row.id, status, receiver=row.receiver, job_id=row.job_id, **values)  # type: ignore[arg-type]


def ready(store: Storage, receiver: str = "notifier", *, owner: int = 0, now: int = 100, limit: int = 99) -> list[int]:
    return [row.id for row in store.notifications.ready(receiver, owner=owner, now=now, limit=limit)]


def test_a_notification_comes_back_as_it_was(store: Storage) -> None:
    full = news(2**40, "b", "on_finish", owner=7, job_state='{"enabled": 1}', job="{}")
    stored = store.notifications.insert([full, alert("overdue:a:5", owner=7)])
    assert stored == [full._replace(id=1), alert("overdue:a:5", owner=7)._replace(id=2)]
    assert store.notifications.find(f"run:{2**40}") == stored[:1]
    assert store.notifications.find("overdue:a:5") == stored[1:]
    assert [row.event_key for row in stored] == [f"run:{2**40}", "overdue:a:5"]
    for key in ("run:1", "run:", "run:x", "run:99999999999999999999", "", "overdue:a:6"):
        assert store.notifications.find(key) == []


@pytest.mark.parametrize("count", [2, 40, 300])
def test_of_one_job_and_receiver_one_is_ready_at_a_time(store: Storage, count: int) -> None:
    table = store.notifications
    rows = [news(run_id, f"job {run_id % 2}", receiver) for run_id in range(count) for receiver in ("notifier", "on_finish")]
    stored = table.insert(rows)
    assert [row.ready_at for row in stored] == [0 if run_id < 2 else None for run_id in range(count) for _ in "ab"]
    assert [row.id for row in table.insert([news(count, "job 0")]) if row.ready_at is None] == [2 * count + 1]
    delivered = []
    while row := next(iter(table.ready("notifier", owner=0, now=1, limit=1)), None):
        delivered.append(row.run_id)
        released = table.settle([settlement(row)], owner=0)
        assert len(released) <= 1
    assert delivered == list(range(count + 1))
    assert table.count_pending(most=9999) == count
    assert {row.receiver for row in table.page(before=None, status="pending", receiver=None, limit=9999)[0]} == {"on_finish"}


def test_many_are_settled_and_their_next_ones_released_together(store: Storage) -> None:
    table = store.notifications
    stored = table.insert([news(run_id, f"job {run_id % 50}") for run_id in range(100)])
    released = table.settle([settlement(row) for row in stored[:50]], owner=3)
    assert sorted(released) == [row._replace(ready_at=0, owner=3) for row in stored[50:]]
    assert ready(store, owner=3) == [row.id for row in stored[50:]]
    assert ready(store) == []


def test_a_failed_call_keeps_its_line_waiting_until_its_time(store: Storage) -> None:
    table = store.notifications
    first, held, other = table.insert([news(1), news(2), news(3, "b")])
    assert table.settle([settlement(first, "pending", attempts=1, ready_at=50, error="no")], owner=0) == []
    assert (ready(store, now=49), ready(store, now=50)) == ([other.id], [first.id, other.id])
    assert (table.next_retry("notifier", owner=0, now=49), table.next_retry("notifier", owner=0, now=50)) == (50, None)
    assert table.find("run:1") == [first._replace(attempts=1, ready_at=50, error="no")]
    assert table.settle([settlement(first, "given_up", attempts=5, error="no")], owner=0) == [held._replace(ready_at=0)]
    assert table.find("run:1") == [first._replace(status="given_up", attempts=5, ready_at=None, error="no")]


def test_a_second_settlement_changes_nothing(store: Storage) -> None:
    table = store.notifications
    first, second, third = table.insert([news(1), news(2), news(3)])
    assert table.settle([settlement(first)], owner=1) == [second._replace(ready_at=0, owner=1)]
    assert table.settle([settlement(first, "given_up", attempts=9)], owner=2) == []
    assert table.find("run:1")[0].status == "delivered"
    assert table.find("run:2") == [second._replace(ready_at=0, owner=1)]
    assert table.find("run:3") == [third]


def test_what_is_tried_again_comes_before_the_rest_and_a_page_has_its_limit(store: Storage) -> None:
    table = store.notifications
    rows = table.insert([news(run_id, f"job {run_id}") for run_id in range(6)])
    late = [settlement(rows[n], "pending", attempts=1, ready_at=at) for n, at in ((4, 20), (5, 10))]
    table.settle(late, owner=0)
    assert ready(store) == [rows[n].id for n in (5, 4, 0, 1, 2, 3)]
    assert ready(store, limit=3) == [rows[n].id for n in (5, 4, 0)]
    assert ready(store, now=10) == [rows[n].id for n in (5, 0, 1, 2, 3)]
    assert ready(store, "on_finish") == ready(store, owner=1) == []


def test_a_settled_one_is_pending_again_behind_those_of_its_line(store: Storage) -> None:
    table = store.notifications
    first, second, third = table.insert([news(1, owner=4), news(2, owner=4), news(3, owner=4)])
    table.settle([settlement(first, "given_up", attempts=5, error="no")], owner=4)
    assert table.take_woken() == frozenset()
    (stored,) = table.find("run:1")
    reopened = table.reopen(stored)
    assert reopened == stored._replace(status="pending", attempts=0, ready_at=None, owner=0)
    assert (table.find("run:1"), table.take_woken(), table.take_woken()) == ([reopened], {"notifier"}, frozenset())
    assert [row.id for row in table.settle([settlement(second)], owner=4)] == [first.id]
    assert [row.id for row in table.settle([settlement(first)], owner=4)] == [third.id]
    table.settle([settlement(third)], owner=4)
    assert table.reopen(table.find("run:2")[0]).ready_at == 0
    assert table.ready_lines() == [(0, "notifier")]


def test_a_second_settlement_releases_none_beside_one_that_is_ready(store: Storage) -> None:
    table = store.notifications
    first, second, third = table.insert([news(1), news(2), news(3)])
    table.settle([settlement(first, "given_up")], owner=0)
    table.settle([settlement(second)], owner=0)
    table.reopen(table.find("run:1")[0])
    assert table.settle([settlement(second)], owner=0) == table.settle([settlement(first)], owner=0) == []
    assert ready(store) == [third.id]
    assert [row.id for row in table.settle([settlement(third)], owner=0)] == [first.id]


@pytest.mark.parametrize("seed", range(30))
def test_each_line_has_one_that_is_ready_whatever_happens(store: Storage, seed: int) -> None:
    chance, table, stored = random.Random(seed), store.notifications, list[NotificationRow]()

    def pending() -> list[NotificationRow]:
        return table.page(before=None, status="pending", receiver=None, limit=9999)[0]

    for step in range(100):
        match chance.choice(["insert", "settle", "settle", "settle again", "reopen", "take over"]):
            case "insert":
                stored += table.insert([news(step * 4 + n, chance.choice("ab")) for n in range(chance.randint(1, 4))])
            case "settle" | "settle again" as which:
                rows = [row for row in pending() if row.ready_at is not None] if which == "settle" else stored
                chosen = chance.sample(rows, min(len(rows), chance.randint(1, 3)))
                statuses = [chance.choice(["delivered", "given_up", "pending"]) for _ in chosen]
                table.settle(
                    [
                        settlement(row, to, ready_at=9 if to == "pending" else None)
                        for row, to in zip(chosen, statuses, strict=True)
                    ],
                    owner=chance.choice([0, 1]),
                )
            case "reopen":
                if given_up := table.page(before=None, status="given_up", receiver=None, limit=99)[0]:
                    table.reopen(chance.choice(given_up))
            case _:
                table.take_over("notifier", owner=0, by=1, limit=1)
        left = pending()
        assert sorted(row.job_id for row in left if row.ready_at is not None) == sorted({row.job_id for row in left}), step


def test_an_alert_is_stored_once_for_each_receiver(store: Storage) -> None:
    table = store.notifications
    twice = table.insert([alert("failing:a"), alert("failing:a"), alert("failing:a", receiver="other"), alert("failing:b", "b")])
    assert [(row.key, row.receiver, row.ready_at) for row in twice] == [
        ("failing:a", "on_alert", 0),
        ("failing:a", "other", 0),
        ("failing:b", "on_alert", 0),
    ]
    assert table.take_woken() == {"on_alert", "other"}
    assert table.insert([alert("failing:a")]) == []
    assert [row.ready_at for row in table.insert([alert("failing:a:2")])] == [None]


def test_others_take_over_what_is_ready(store: Storage) -> None:
    table = store.notifications
    rows = table.insert([news(run_id, f"job {run_id % 4}", owner=run_id % 2 + 1) for run_id in range(6)])
    assert table.ready_lines() == [(1, "notifier"), (2, "notifier")]
    assert table.take_over("notifier", owner=1, by=9, limit=1) == 1
    assert (ready(store, owner=9), ready(store, owner=1)) == ([rows[0].id], [rows[2].id])
    assert table.take_over("notifier", owner=1, by=9, limit=99) == 1
    assert table.take_over("on_finish", owner=2, by=9, limit=99) == 0
    assert table.ready_lines() == [(2, "notifier"), (9, "notifier")]
    assert [row.id for row in table.settle([settlement(rows[0])], owner=9)] == [rows[4].id]
    assert ready(store, owner=9) == [rows[2].id, rows[4].id]


def test_times_of_retries_move_when_the_clock_is_set_back(store: Storage) -> None:
    table = store.notifications
    rows = table.insert([news(run_id, f"job {run_id}") for run_id in range(4)])
    times = (60, 500, 1500)
    table.settle([settlement(row, "pending", ready_at=at) for row, at in zip(rows, times, strict=False)], owner=0)
    table.advance_retries(now=100, by=1000)
    assert table.take_woken() == {"notifier"}
    assert [row.ready_at for run_id in range(4) for row in table.find(f"run:{run_id}")] == [60, 100, 500, 0]


def test_a_job_that_is_removed_is_kept_for_what_is_pending_or_was_given_up(store: Storage) -> None:
    table = store.notifications
    done, *pending = table.insert([news(1), news(2), news(3, receiver="on_finish"), news(4, receiver="z", job="own")])
    other = table.insert([news(5, "b")])
    given_up = table.insert([news(6, receiver="x"), news(7, "b", "x")])
    (delivered,) = table.insert([news(8, receiver="y")])
    table.settle([settlement(delivered), *[settlement(row, "given_up") for row in (done, *given_up)]], owner=0)
    table.keep_jobs({"a": "snapshot", "none": "other"}, without="notifier")
    kept = [row.job for run_id in range(1, 9) for row in table.find(f"run:{run_id}")]
    assert kept == [None, None, "snapshot", "own", None, "snapshot", None, None]
    assert len(pending) + len(other) == table.count_pending(most=99) == 4
    assert table.count_pending(most=3) == 3


def test_pages_show_the_newest_first(store: Storage) -> None:
    table = store.notifications
    rows = table.insert([news(run_id, f"job {run_id}", ("notifier", "on_finish")[run_id % 2]) for run_id in range(7)])
    table.settle([settlement(row) for row in rows[:4]], owner=0)

    def pages(status: str | None = None, receiver: str | None = None) -> list[list[int]]:
        found, before = [], None
        while True:
            page, before = table.page(before=before, status=status, receiver=receiver, limit=2)
            found.append([row.id for row in page])
            if before is None:
                return [each for each in found if each]

    assert pages() == [[7, 6], [5, 4], [3, 2], [1]]
    assert pages("pending") == [[7, 6], [5]]
    assert pages("pending", "on_finish") == [[6]]
    assert pages("delivered", "notifier") == [[3, 1]]
    assert pages("given_up") == []


def test_what_is_said_of_a_job_is_kept_until_it_is_unsaid(store: Storage) -> None:
    table = store.notifications
    first, second = EpisodeRow("a", "failing", 1, 2, 3), EpisodeRow("b", "failing", 4, 5, 6)
    table.store_episodes([first, second, EpisodeRow("a", "overdue", 7, 8, 9)])
    assert table.episodes(["a", "b", "c"], "failing") == {"a": first, "b": second}
    table.store_episodes([first._replace(alerted_count=10)])
    table.end_episodes(["b", "c"], "failing")
    assert table.episodes(["a", "b"], "failing") == {"a": first._replace(alerted_count=10)}
    assert table.episodes(["a"], "overdue") == {"a": EpisodeRow("a", "overdue", 7, 8, 9)}
    assert table.episodes([f"job {n}" for n in range(300)], "failing") == {}
    table.end_episodes(["a", "c"])
    assert table.episodes(["a"], "failing") == table.episodes(["a"], "overdue") == {}


def test_undo_and_rollback_cover_them(storage: Storage) -> None:
    assert storage.begin(write=True)
    storage.notifications.insert([news(1)])
    storage.notifications.store_episodes([EpisodeRow("a", "failing", 1, 2, 3)])
    storage.savepoint()
    storage.notifications.insert([news(2, "b")])
    storage.notifications.end_episodes(["a"], "failing")
    storage.undo()
    storage.commit()
    assert storage.begin(write=True)
    storage.notifications.insert([news(3, "c")])
    storage.rollback()
    assert storage.begin(write=False)
    assert ready(storage) == [1]
    assert len(storage.notifications.episodes(["a"], "failing")) == 1
