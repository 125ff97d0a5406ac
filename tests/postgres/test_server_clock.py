"""The clock of the server, as a process estimates it between two transactions."""

from __future__ import annotations

import time
from contextlib import closing

import attrs
import pytest

from cronactors.actors.store import Done, run_batch
from cronactors.storage.postgres import server_clock
from cronactors.storage.postgres.connecting import ServerFacts
from cronactors.storage.postgres.server_clock import ServerClock
from cronactors.storage.postgres.storage import PostgresStorage
from tests.postgres_store import worker_database
from tests.store_under_test import Put

T0 = 1_767_225_600_000


class Monotonic:
    """A monotonic clock that a test moves (s)."""

    def __init__(self) -> None:
        self.now = 5_000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def local(monkeypatch: pytest.MonkeyPatch) -> Monotonic:
    made = Monotonic()
    monkeypatch.setattr(server_clock, "time", made)
    return made


def observe(clock: ServerClock, local: Monotonic, server: float, *, there: float, back: float) -> None:
    """Ask a server for its time (s after T0).

    Args:
        clock: Takes the answer.
        local: The monotonic clock, which goes on meanwhile.
        server: The time of the server when it is asked.
        there: How long the question is on its way.
        back: How long the answer is.
    """
    sent = local.now
    local.now += there + back
    clock.observe(int(T0 + (server + there) * 1000), sent, local.now)


def test_the_time_goes_on_as_the_monotonic_clock_does(local):
    clock = ServerClock()
    observe(clock, local, 100.0, there=0.001, back=0.001)
    assert clock.seconds() == pytest.approx(T0 / 1000 + 100.002, abs=0.001)
    local.now += 10
    assert clock.seconds() == pytest.approx(T0 / 1000 + 110.002, abs=0.001)
    assert clock() == int(clock.seconds() * 1000)


def test_an_answer_that_was_late_does_not_count(local):
    clock = ServerClock()
    observe(clock, local, 100.0, there=0.001, back=0.001)
    observe(clock, local, 100.002, there=0.001, back=1.0)
    assert clock.seconds() == pytest.approx(T0 / 1000 + 101.003, abs=0.001)  # it would be half a second off


def test_a_network_that_has_become_slower_is_noticed(local):
    """After some answers, of which the fastest counts for less and less."""
    clock = ServerClock()
    observe(clock, local, 0, there=0.001, back=0.001)
    server = 3_600.0  # it was set
    for _ in range(60):
        observe(clock, local, server, there=0.05, back=0.05)
        server += 0.1
    assert clock.seconds() == pytest.approx(T0 / 1000 + server, abs=0.002)


def test_a_clock_that_was_set_is_followed_at_the_next_answer(local):
    clock = ServerClock()
    observe(clock, local, 0, there=0.001, back=0.001)
    observe(clock, local, -3_600, there=0.001, back=0.001)
    assert clock.seconds() == pytest.approx(T0 / 1000 - 3_600 + 0.002, abs=0.001)


def test_an_answer_that_was_late_counts_if_the_clock_must_be_another_one(local):
    clock = ServerClock()
    observe(clock, local, 0, there=0.001, back=0.001)
    observe(clock, local, 7_200, there=0.5, back=0.5)
    assert clock.seconds() == pytest.approx(T0 / 1000 + 7_201, abs=0.002)


@pytest.mark.parametrize(("there", "back"), [(4, 0), (0, 4), (2, 2)])
def test_a_server_that_is_slow_after_a_new_connection_does_not_seem_to_have_been_set(local, there, back):
    """Else next moments would be computed again, as after a clock that was set back."""
    with closing(PostgresStorage(worker_database(), schema="clock")) as storage:
        session = storage._session
        clock = session.clock = ServerClock()
        observe(clock, local, 100, there=0.001, back=0.001)
        server = 100.002
        connection, facts = (
            session._connection,
            ServerFacts(database=1, is_durable=True, is_pooled=False, now=0, asked_at=0, answered_at=0),
        )
        for _ in range(3):
            sent = local.now
            local.now += there + back
            now = int(T0 + (server + there) * 1000)
            session._use(connection, attrs.evolve(facts, now=now, asked_at=sent, answered_at=local.now))
            server += there + back
            assert clock.seconds() == pytest.approx(T0 / 1000 + server, abs=0.002)


def test_a_store_knows_the_time_as_soon_as_it_is_open():
    with closing(PostgresStorage(worker_database(), schema="clock")) as storage:
        assert abs(storage.wall() - time.time() * 1000) < 5_000
    with closing(PostgresStorage(worker_database(), schema="clock")) as storage:  # nothing to create
        assert abs(storage.wall() - time.time() * 1000) < 5_000


def test_the_wall_clock_of_this_machine_does_not_matter(monkeypatch):
    really = time.time()
    monkeypatch.setattr(time, "time", lambda: 0.0)
    monkeypatch.setattr(time, "time_ns", lambda: 0)
    with closing(PostgresStorage(worker_database(), schema="clock")) as storage:
        assert abs(storage.now() - really * 1000) < 60_000
        assert isinstance(run_batch(storage, [Put("a")]), Done)
        assert storage.begin(write=True)
        assert abs(storage.now() - really * 1000) < 60_000
        storage.rollback()


def test_a_transaction_has_one_time(monkeypatch):
    with closing(PostgresStorage(worker_database(), schema="clock")) as storage:
        assert storage.begin(write=True)
        begun = storage.now()
        storage._session.script("SELECT pg_sleep(0.01)")
        assert storage.now() == begun
        storage.commit()
        assert storage.now() >= begun + 10
