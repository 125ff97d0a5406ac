"""Requests for runs and the index of tags, on every storage."""

from __future__ import annotations

import pytest

from cronactors.storage.protocol import Storage
from cronactors.storage.run_requests import RunRequestRow
from tests import storages
from tests.storages import add_run, job

storage, store = storages.storage, storages.store


def request(at: int = 1, *, job_id: str = "a", key: str | None = None, data: str | None = None) -> RunRequestRow:
    return RunRequestRow(job_id, at, key, data)


def test_a_request_is_found_by_its_moment_and_by_its_key(store: Storage) -> None:
    rows = [request(1, key="k", data='{"x":1}'), request(2, data="null"), request(1, job_id="b", key="k"), request(3, key="l")]
    for row in rows:
        store.run_requests.insert(row)
    assert [store.run_requests.of_moment(row.job_id, at=row.scheduled_at) for row in rows] == rows
    assert store.run_requests.of_key("a", key="k") == rows[0]
    assert store.run_requests.of_key("b", key="k") == rows[2]
    assert store.run_requests.of_key("a", key="m") is None
    assert store.run_requests.of_moment("b", at=2) is None


def test_any_number_of_requests_has_no_key(store: Storage) -> None:
    rows = [request(moment, data=f"{moment}") for moment in range(3)]
    for row in rows:
        store.run_requests.insert(row)
    assert [store.run_requests.of_moment("a", at=moment) for moment in range(3)] == rows


def test_a_request_replaces_those_of_its_moment_and_of_its_key(store: Storage) -> None:
    for row in (request(1, key="k"), request(2, key="l"), request(1, job_id="b", key="k")):
        store.run_requests.insert(row)
    new = request(2, key="k", data="5")
    store.run_requests.insert(new)
    assert store.run_requests.of_moment("a", at=1) is None
    assert store.run_requests.of_key("a", key="l") is None
    assert store.run_requests.of_key("a", key="k") == store.run_requests.of_moment("a", at=2) == new
    assert store.run_requests.of_key("b", key="k") is not None


def test_requests_are_deleted_by_their_moments(store: Storage) -> None:
    for moment in range(3):
        store.run_requests.insert(request(moment))
        store.run_requests.insert(request(moment, job_id="b"))
    store.run_requests.delete([("a", 0), ("a", 2), ("b", 1), ("c", 1)])
    left = [(job_id, at) for job_id in "ab" for at in range(3) if store.run_requests.of_moment(job_id, at=at) is not None]
    assert left == [("a", 1), ("b", 0), ("b", 2)]


def test_the_last_run_of_a_request_is_its_last_attempt(store: Storage) -> None:
    store.insert_jobs([job("a"), job("b")])
    add_run(store, manual=1, scheduled_at=5, attempt=1)
    last = add_run(store, manual=1, scheduled_at=5, attempt=2)
    for other in ({"manual": 0, "scheduled_at": 5, "attempt": 3}, {"manual": 1, "scheduled_at": 6}):
        add_run(store, **other)
    add_run(store, job_id="b", manual=1, scheduled_at=5, attempt=9)
    found = store.run_requests.last_run("a", at=5)
    assert found == store.runs([last])[last]
    assert store.run_requests.last_run("a", at=7) is None


def test_requests_belong_to_the_transaction(storage: Storage) -> None:
    assert storage.begin(write=True)
    storage.run_requests.insert(request(1))
    storage.savepoint()
    storage.run_requests.insert(request(2))
    storage.undo()
    assert storage.run_requests.of_moment("a", at=1) is not None
    assert storage.run_requests.of_moment("a", at=2) is None
    storage.rollback()
    assert storage.begin(write=False)
    assert storage.run_requests.of_moment("a", at=1) is None


def test_the_repr_of_a_request_shows_no_data() -> None:
    assert repr(request(5, key="k", data="SECRET")) == "RunRequestRow(job_id='a', scheduled_at=5, key='k')"


# The index of tags


def tagged(store: Storage, tag: str) -> list[str]:
    return [row.id for _, row in store.jobs_tagged(tag, after=0, limit=100)]


def test_jobs_are_found_by_each_of_their_tags(store: Storage) -> None:
    store.insert_jobs([job("a", tags='["x","y"]'), job("b"), job("c", tags='["y"]'), job("d", tags='["y \\u00fc"]')])
    assert (tagged(store, "x"), tagged(store, "y"), tagged(store, "y ü"), tagged(store, "z")) == (["a"], ["a", "c"], ["d"], [])
    assert [row for _, row in store.jobs_tagged("x", after=0, limit=1)] == [store.jobs(["a"])["a"]]


def test_an_update_replaces_the_tags_of_its_jobs_only(store: Storage) -> None:
    store.insert_jobs([job("a", tags='["x","y"]'), job("b", tags='["x"]'), job("c")])
    store.update_jobs([job("a", tags='["y","z"]'), job("c", tags='["x"]')])
    assert (tagged(store, "x"), tagged(store, "y"), tagged(store, "z")) == (["b", "c"], ["a"], ["a"])
    store.update_jobs([job("a"), job("b", tags='["x"]', name="renamed")])
    assert (tagged(store, "x"), tagged(store, "y")) == (["b", "c"], [])


def test_a_deleted_job_leaves_no_tag(store: Storage) -> None:
    store.insert_jobs([job("a", tags='["x"]'), job("b", tags='["x"]')])
    store.delete_jobs(["a"])
    assert tagged(store, "x") == ["b"]
    store.insert_jobs([job("a")])
    assert tagged(store, "x") == ["b"]


@pytest.mark.parametrize("damaged", ["", "5", "{", '"x"', '["x",5]', '{"x": 1}', '[""]'])
def test_damaged_tags_find_nothing_and_refuse_no_write(store: Storage, damaged: str) -> None:
    store.insert_jobs([job("a", tags=damaged)])
    store.update_jobs([job("a", tags=damaged, name="renamed")])
    assert tagged(store, "x") == []
    assert store.jobs(["a"])["a"].tags == damaged


@pytest.mark.parametrize("limit", [1, 2, 3, 50])
def test_pages_of_jobs_with_a_tag(store: Storage, limit: int) -> None:
    store.insert_jobs([job(f"{n}", tags='["x"]' if n % 3 else "[]") for n in range(20)])
    found, after = [], 0
    while page := store.jobs_tagged("x", after=after, limit=limit):
        assert len(page) <= limit
        found += [row.id for _, row in page]
        after = page[-1][0]
    assert found == [f"{n}" for n in range(20) if n % 3]
