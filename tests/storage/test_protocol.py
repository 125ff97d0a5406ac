"""The protocol of a storage: transactions, jobs and owners. Run against SQLite and against the plain dicts.

Runs and the queue are in test_storage_runs.py, the comparison of both storages in test_storage_model.py.
"""

from __future__ import annotations

from hashlib import sha256

import pytest

from cronactors.instants import LATEST
from cronactors.storage.postgres.storage import PostgresStorage
from cronactors.storage.protocol import Storage
from cronactors.storage.rows import PAUSE, JobState, OriginRow, session_key
from cronactors.storage.sqlite import SqliteStorage
from cronactors.storage.tables import Tables
from tests import storages
from tests.fake_storage import FakeStorage
from tests.storages import NOT_UNIQUE, NOW, add_run, job, owner, run_finish

storage, store = storages.storage, storages.store

HARD_TEXTS = [
    "",
    "'; DROP TABLE jobs; --",
    "%_",
    "\x00 in the middle \x00",
    "Grüße, 世界 🕘",
    "e\u0301",
    "line\r\nline",
    "x" * 300_000,
]


def job_ids(store: Storage) -> list[str]:
    return [row.id for _, row in store.list_jobs(after=0, limit=100, user_id=None)]


# Transactions


def test_now_is_the_wall_clock(storage: Storage) -> None:
    assert storage.now() == NOW


def test_a_commit_stores_and_a_rollback_undoes(storage: Storage) -> None:
    assert storage.begin(write=True)
    storage.insert_jobs([job("kept")])
    storage.commit()
    assert storage.begin(write=True)
    storage.insert_jobs([job("forgotten")])
    storage.delete_jobs(["kept"])
    assert job_ids(storage) == ["forgotten"]
    storage.rollback()
    assert storage.begin(write=False)
    assert job_ids(storage) == ["kept"]


def test_rollback_without_a_transaction_is_harmless(storage: Storage) -> None:
    storage.rollback()
    assert storage.begin(write=True)
    storage.rollback()
    storage.rollback()
    assert storage.begin(write=False)


def test_a_transaction_that_reads_ends_either_way(storage: Storage) -> None:
    for end in (storage.commit, storage.rollback):
        assert storage.begin(write=False)
        assert storage.due(now=LATEST, limit=1) == []
        end()


def test_undo_returns_to_the_savepoint_and_release_keeps(storage: Storage) -> None:
    assert storage.begin(write=True)
    storage.insert_jobs([job("before")])
    storage.savepoint()
    storage.insert_jobs([job("undone")])
    storage.delete_jobs(["before"])
    storage.undo()
    storage.savepoint()
    storage.insert_jobs([job("released")])
    storage.release()
    storage.savepoint()
    storage.undo()
    storage.commit()
    assert storage.begin(write=False)
    assert job_ids(storage) == ["before", "released"]


def test_a_rollback_undoes_what_was_released(storage: Storage) -> None:
    assert storage.begin(write=True)
    storage.savepoint()
    storage.insert_jobs([job("a")])
    storage.release()
    storage.rollback()
    assert storage.begin(write=True)
    assert job_ids(storage) == []
    storage.savepoint()
    storage.insert_jobs([job("a")])
    storage.rollback()
    assert storage.begin(write=True)
    storage.savepoint()


def test_undo_covers_every_kind_of_row(store: Storage) -> None:
    store.insert_jobs([job("a")])
    run_id, owner_id = add_run(store), store.insert_owner(owner())
    before = (store.list_jobs(after=0, limit=9, user_id=None), store.runs([run_id]), store.owners())
    store.savepoint()
    store.update_jobs([job("a", prompt="other")])
    store.store_finishes([run_finish(run_id, "pending", status="cancelled", cause="removed", completed_at=9)])
    store.renew_lease(owner_id, now=9, until=9, unless_later_than=LATEST)
    store.undo()
    assert (store.list_jobs(after=0, limit=9, user_id=None), store.runs([run_id]), store.owners()) == before


# Jobs


def test_a_job_comes_back_as_it_was(store: Storage) -> None:
    full = job(
        "full",
        anchor_at=1,
        enabled=0,
        delete_after_run=1,
        max_retries=0,
        timeout_secs=0.25,
        origin="/etc/agent.toml",
        delay_ms=0,
        last_run_at=2,
        last_error="",
        crashes=3,
        next_run_at=LATEST,
        held_by=2**62,
    )
    bare = job("bare", origin=None, delay_ms=None, last_run_at=None, last_error=None, next_run_at=None, held_by=None)
    store.insert_jobs([full, bare])
    assert store.jobs(["bare", "full"]) == {"full": full, "bare": bare}
    assert store.jobs_named([("", "full"), ("", "bare")]) == {("", "full"): full, ("", "bare"): bare}


@pytest.mark.parametrize("text", HARD_TEXTS, ids=range(len(HARD_TEXTS)))
def test_any_text_comes_back_as_it_was(store: Storage, text: str) -> None:
    if isinstance(store, PostgresStorage) and "\0" in text:
        pytest.skip("PostgreSQL stores no NUL, and what users write is checked for it")
    name, long = text[:256], text  # an entry of an index in PostgreSQL has at most 2,704 bytes, and a name 256 characters
    text = name
    hard = job(f"job {text[:50]}", user_id=text, name=text, prompt=long, last_error=long, origin=long)
    store.insert_jobs([hard])
    run_id = add_run(store, job_id=hard.id, user_id=text, job_name=text, session=session_key(text), waits_for=session_key(text))
    end = run_finish(run_id, "pending", status="failed", cause="error", completed_at=1, session_id=text, result=long, error=long)
    assert store.first_waiting_run(session_key(text)) == run_id
    assert store.store_finishes([end]) == [True]
    assert store.jobs([hard.id]) == {hard.id: hard}
    assert store.jobs_named([(text, text)]) == {(text, text): hard}
    assert store.jobs_of_origin(long) == [hard]
    assert [row for _, row in store.list_jobs(after=0, limit=9, user_id=text)] == [hard]
    ended = store.runs([run_id])[run_id]
    assert (ended.session_id, ended.result, ended.error, ended.job_name, ended.user_id) == (text, long, long, text, text)


def test_names_differ_by_every_character(store: Storage) -> None:
    names = ["a", "A", "a ", " a", "\u00e9", "e\u0301"]
    names += [] if isinstance(store, PostgresStorage) else ["a\x00", "a\x00b"]
    store.insert_jobs([job(str(n), name=name) for n, name in enumerate(names)])
    found = store.jobs_named([("", name) for name in names])
    assert [found["", name].id for name in names] == [str(n) for n in range(len(names))]


def test_an_id_is_unique(store: Storage) -> None:
    store.insert_jobs([job("a", name="one")])
    with pytest.raises(NOT_UNIQUE):
        store.insert_jobs([job("a", name="two")])


def test_a_name_is_unique_for_its_user(store: Storage) -> None:
    store.insert_jobs([job("a", name="same"), job("b", name="same", user_id="u")])
    store.savepoint()
    with pytest.raises(NOT_UNIQUE):
        store.insert_jobs([job("c", name="same", user_id="u")])
    store.undo()
    store.savepoint()
    with pytest.raises(NOT_UNIQUE):
        store.update_jobs([job("a", name="same", user_id="u")])
    store.undo()
    store.delete_jobs(["a"])
    store.insert_jobs([job("c", name="same")])


def test_a_refused_list_can_be_undone_whole(store: Storage) -> None:
    store.savepoint()
    with pytest.raises(NOT_UNIQUE):
        store.insert_jobs([job("a"), job("b"), job("a", name="again")])
    store.undo()
    assert job_ids(store) == []


def test_jobs_and_runs_that_do_not_exist_are_left_out(store: Storage) -> None:
    store.insert_jobs([job("a")])
    assert list(store.jobs(["a", "no", ""])) == ["a"]
    assert list(store.jobs_named([("", "a"), ("u", "a"), ("", "A")])) == [("", "a")]
    assert store.jobs_of_origin("none") == []
    assert store.runs([1, 0, -1, 2**63 - 1, 2**63, 10**30, -(10**30)]) == {}


def test_jobs_and_runs_that_do_not_exist_are_not_changed(store: Storage) -> None:
    store.update_jobs([job("no")])
    store.update_job_states([JobState.of(job("no"))])
    store.delete_jobs(["no"])
    store.start_pending_runs([7], owner=1, now=1)
    store.set_waits_for([(7, PAUSE)])
    store.mark_runs([7], cause="timeout")
    store.renew_lease(7, now=1, until=1, unless_later_than=LATEST)
    store.delete_owners([7])
    assert (job_ids(store), store.list_runs(job_id=None, before=None, limit=9), store.owners()) == ([], [], [])


def test_empty_lists_are_fine(store: Storage) -> None:
    store.insert_jobs([])
    store.update_jobs([])
    store.update_job_states([])
    store.delete_jobs([])
    store.start_pending_runs([], owner=1, now=1)
    store.set_waits_for([])
    store.mark_runs([])
    store.delete_owners([])
    assert (store.insert_runs([]), store.store_finishes([]), store.open_runs([])) == ([], [], [])
    assert (store.jobs([]), store.jobs_named([]), store.runs([])) == ({}, {}, {})


def test_an_update_writes_every_column_and_leaves_the_order(store: Storage) -> None:
    store.insert_jobs([job("a"), job("b")])
    edited = job(
        "a",
        user_id="u",
        name="renamed",
        schedule="other",
        timezone="Europe/Rome",
        anchor_at=7,
        enabled=0,
        delete_after_run=1,
        max_retries=9,
        timeout_secs=1.5,
        session_mode="main",
        overlap="allow_all",
        misfire="other",
        origin="file",
        delay_ms=5,
        created_at=8,
        last_run_at=9,
        last_error="e",
        crashes=1,
        next_run_at=11,
        decided_local=13,
        held_by=12,
        rules="2026a/1",
        executor_options='{"shell": "/bin/bash"}',
        consecutive_failures=2,
        pruned_until=14,
        description="d",
        tags='["t"]',
        history='{"days": 1}',
        listed_enabled=0,
        data="{}",
        prompt="p",
    )
    same = [name for name, value in edited._asdict().items() if value == getattr(job("a"), name)]
    assert same == ["id"], "the update must change every other column"
    store.update_jobs([edited])
    assert [row for _, row in store.list_jobs(after=0, limit=9, user_id=None)] == [edited, job("b")]


def test_updating_a_state_writes_nothing_else(store: Storage) -> None:
    store.insert_jobs([job("a"), job("b")])
    state = JobState(
        id="a",
        next_run_at=None,
        decided_local=2,
        held_by=3,
        last_run_at=4,
        last_error="e",
        enabled=0,
        crashes=5,
        consecutive_failures=6,
    )
    store.update_job_states([state])
    expected = job(
        "a",
        next_run_at=None,
        decided_local=2,
        held_by=3,
        last_run_at=4,
        last_error="e",
        enabled=0,
        crashes=5,
        consecutive_failures=6,
    )
    assert store.jobs(["a", "b"]) == {"a": expected, "b": job("b")}


@pytest.mark.parametrize("count", [1, 2, 5, 128, 300])
def test_many_jobs_each_get_their_own_state(store: Storage, count: int) -> None:
    store.insert_jobs([job(f"{n}") for n in range(count)])
    store.update_job_states([JobState(f"{n}", n, n + 2, None, n + 1, f"e{n}", n % 2, n, n + 3) for n in range(count)])
    after = store.jobs([f"{n}" for n in range(count)])
    assert [JobState.of(after[f"{n}"]) for n in range(count)] == [
        JobState(f"{n}", n, n + 2, None, n + 1, f"e{n}", n % 2, n, n + 3) for n in range(count)
    ]


def test_deleting_a_job_leaves_its_runs(store: Storage) -> None:
    store.insert_jobs([job("a"), job("b")])
    run_id = add_run(store, job_id="a")
    store.delete_jobs(["a"])
    assert job_ids(store) == ["b"]
    assert list(store.runs([run_id])) == [run_id]
    assert [row.id for row in store.open_runs(["a"])] == [run_id]


def test_the_jobs_of_an_origin(store: Storage) -> None:
    mine = [job("a", origin="/x/agent.toml"), job("c", origin="/x/agent.toml", enabled=0)]
    store.insert_jobs([*mine, job("b", origin="/y/agent.toml"), job("d", origin=None)])
    assert sorted(store.jobs_of_origin("/x/agent.toml"), key=lambda row: row.id) == mine


def test_jobs_in_pages(store: Storage) -> None:
    store.insert_jobs([job(f"{n}", user_id="u" if n % 3 == 0 else "") for n in (5, 3, 9, 1, 6, 2, 4)])
    store.delete_jobs(["9"])
    store.insert_jobs([job("0", user_id="u")])
    for user_id, expected in ((None, "5316240"), ("u", "360"), ("", "5124"), ("nobody", "")):
        found, after = "", 0
        while page := store.list_jobs(after=after, limit=2, user_id=user_id):
            assert len(page) <= 2
            assert page[0][0] > after
            found += "".join(row.id for _, row in page)
            after = page[-1][0]
        assert found == expected


def test_the_number_of_a_deleted_job_is_not_used_again(store: Storage) -> None:
    store.insert_jobs([job("a")])
    ((number, _),) = store.list_jobs(after=0, limit=9, user_id=None)
    store.delete_jobs(["a"])
    store.insert_jobs([job("b")])
    assert [row.id for _, row in store.list_jobs(after=number, limit=9, user_id=None)] == ["b"]


# Owners


def test_an_owner_is_read_as_it_was_inserted_and_deleted(store: Storage) -> None:
    one, two = store.insert_owner(owner(machine="m/b/p", pid=7, process_start="99")), store.insert_owner(owner())
    assert 0 < one < two
    assert sorted(store.owners(), key=lambda row: row.id) == [
        owner(id=one, machine="m/b/p", pid=7, process_start="99"),
        owner(id=two),
    ]
    store.delete_owners([two])
    assert [row.id for row in store.owners()] == [one]
    assert store.insert_owner(owner()) > two, "runs of the deleted owner would seem to belong to the new one"


@pytest.mark.parametrize(("ends", "limit", "renewed"), [(9, 10, True), (10, 10, False), (11, 10, False), (0, 1, True)])
def test_a_lease_is_renewed_unless_it_lasts_long_enough(store: Storage, ends: int, limit: int, renewed: bool) -> None:
    one, other = (
        store.insert_owner(owner(heartbeat_at=1, lease_until=ends)),
        store.insert_owner(owner(heartbeat_at=1, lease_until=0)),
    )
    store.renew_lease(one, now=5, until=30, unless_later_than=limit)
    rows = {row.id: row for row in store.owners()}
    assert (rows[one].heartbeat_at, rows[one].lease_until) == ((5, 30) if renewed else (1, ends))
    assert (rows[other].heartbeat_at, rows[other].lease_until) == (1, 0)


def test_a_lease_is_shortened_if_the_last_heartbeat_is_in_the_future(store: Storage) -> None:
    ahead = store.insert_owner(owner(heartbeat_at=100, lease_until=130))
    store.renew_lease(ahead, now=99, until=129, unless_later_than=114)
    assert [(row.heartbeat_at, row.lease_until) for row in store.owners()] == [(99, 129)]
    store.renew_lease(ahead, now=99, until=7, unless_later_than=114)
    assert [(row.heartbeat_at, row.lease_until) for row in store.owners()] == [(99, 129)]


def test_a_lease_can_be_ended(store: Storage) -> None:
    one = store.insert_owner(owner(lease_until=LATEST))
    store.renew_lease(one, now=5, until=0, unless_later_than=2**62)
    assert [row.lease_until for row in store.owners()] == [0]


def test_names_are_read_by_page_in_order_of_user_and_name(store: Storage) -> None:
    rows = [("b", "z"), ("", "n"), ("b", "a"), ("a", "z")]
    store.insert_jobs([job(f"j{n}", user_id=user_id, name=name) for n, (user_id, name) in enumerate(rows)])
    assert store.job_names(after=("", ""), limit=9) == [("", "n"), ("a", "z"), ("b", "a"), ("b", "z")]
    assert store.job_names(after=("", ""), limit=2) == [("", "n"), ("a", "z")]
    assert store.job_names(after=("a", "z"), limit=1) == [("b", "a")]
    assert store.job_names(after=("b", "z"), limit=1) == []


def test_the_protocol_has_no_verb_that_a_storage_lacks() -> None:
    declared = {**vars(Tables), **vars(Storage)}
    verbs = {
        name for name, value in declared.items() if (callable(value) or isinstance(value, property)) and not name.startswith("_")
    }

    def public(kind: type) -> set[str]:
        return {name for name in dir(kind) if not name.startswith("_")}

    opened = {"close", "give_up_at", "lease_ends", "listen", "seconds", "watch", "wall"}
    of_instances = {name for name in verbs if isinstance(declared[name], property)} - {
        "name",
        "left_out",
        "writes_side_by_side",
    }
    assert public(SqliteStorage) - opened == verbs - of_instances == public(FakeStorage) == public(PostgresStorage) - opened


# Facts, and where lists of jobs come from


def test_a_fact_is_read_as_it_was_set_last_and_can_be_deleted(store: Storage) -> None:
    assert store.meta("colour") is None
    store.set_meta("colour", '"red"')
    store.set_meta("size", "3")
    store.set_meta("colour", '"blue"')
    assert (store.meta("colour"), store.meta("size")) == ('"blue"', "3")
    store.set_meta("colour", None)
    store.set_meta("shape", None)
    assert (store.meta("colour"), store.meta("size")) == (None, "3")


def test_an_origin_may_be_as_long_as_a_path(store: Storage) -> None:
    origin = "".join(
        sha256(bytes([number])).hexdigest() for number in range(64)
    )  # 4,096 characters that cannot be compressed to half of that
    store.insert_jobs([job("a", origin=origin)])
    store.set_origin(origin, origin)
    store.set_origin(origin, "other")
    assert store.origins() == [OriginRow(origin, "other", 1)]
    assert [row.id for row in store.jobs_of_origin(origin)] == ["a"]
    store.set_origin(origin, None)
    assert store.origins() == [OriginRow(origin, None, 1)]


def test_origins_are_those_that_jobs_have_each_with_its_file_and_number_of_jobs(store: Storage) -> None:
    assert store.origins() == []
    store.insert_jobs([job("a", origin="one"), job("b", origin="two"), job("c", origin="one"), job("d")])
    store.set_origin("one", "agent.toml")
    store.set_origin("gone", "gone.toml")
    assert store.origins() == [OriginRow("one", "agent.toml", 2), OriginRow("two", None, 1)]
    store.set_origin("one", "other.toml")
    store.set_origin("two", None)
    assert store.origins() == [OriginRow("one", "other.toml", 2), OriginRow("two", None, 1)]
    store.set_origin("one", None)
    assert store.origins()[0] == OriginRow("one", None, 2)
