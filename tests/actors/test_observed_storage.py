"""The events of a transaction are exactly its changes, whatever requests, crashes and clock changes come in which order."""

from __future__ import annotations

from collections.abc import Callable
from typing import Concatenate, ParamSpec, TypeVar, cast

from hypothesis import HealthCheck, settings

from cronactors.actors.observed_storage import ObservedStorage
from cronactors.events import Event, JobAdded, JobChanged, JobEvent, JobRemoved, RetryScheduled, RunEvent, RunInterrupted
from cronactors.instants import from_millis
from cronactors.ledger.views import run_view
from cronactors.model import Cause, RunStatus
from cronactors.storage.protocol import Storage
from tests.fake_storage import FakeStorage, Rows
from tests.ledger.test_state_machine import ClockSetBack, Machine
from tests.ledger_world import World, in_dicts
from tests.storages import job, run

P = ParamSpec("P")
R = TypeVar("R")


class ObservedWorld(World):
    """A world that observes each transaction, and compares its events with the rows before and after it."""

    def do(self, function: Callable[Concatenate[Storage, P], R], *args: P.args, **kwargs: P.kwargs) -> R:
        storage = self.storage
        assert isinstance(storage, FakeStorage)
        before, observed = storage._durable, ObservedStorage(storage)
        self.storage = cast("Storage", observed)
        try:
            return super().do(function, *args, **kwargs)
        finally:
            self.storage = storage
            check(before, storage._durable, observed.events)


def check(before: Rows, after: Rows, events: list[Event]) -> None:
    changed = {
        run_id for run_id, row in after.runs.items() if run_id not in before.runs or before.runs[run_id].status != row.status
    }
    of_runs = [event for event in events if isinstance(event, RunEvent)]
    assert {int(event.run_id) for event in of_runs} == changed
    for run_id in changed:
        mine, stored = [event for event in of_runs if event.run_id == str(run_id)], run_view(after.runs[run_id])
        assert len(mine) == len({event.status for event in mine}), "one event for each status"
        assert mine[-1] == type(mine[-1]).of(stored) or isinstance(mine[-1], RetryScheduled)
        assert isinstance(mine[-1], RunInterrupted) == ((stored.status, stored.cause) == (RunStatus.FAILED, Cause.INTERRUPTED))
        if isinstance(mine[0], RetryScheduled):
            assert mine[0].retry_at == from_millis(after.runs[run_id].ready_at)

    of_jobs = [event for event in events if isinstance(event, JobEvent)]
    assert {event.job_id for event in of_jobs if isinstance(event, JobAdded)} == after.jobs.keys() - before.jobs.keys()
    assert {event.job_id for event in of_jobs if isinstance(event, JobRemoved)} == before.jobs.keys() - after.jobs.keys()
    for job_id, (_, row) in after.jobs.items():
        enabled = before.jobs[job_id][1].enabled if job_id in before.jobs else None
        flips = [event.enabled for event in of_jobs if isinstance(event, JobChanged) and event.job_id == job_id]
        assert enabled in (None, row.enabled) or (flips and flips[-1] == row.enabled)


class ObservedMachine(Machine):
    make = staticmethod(in_dicts)
    kind_of_world = ObservedWorld


class ObservedClockSetBack(ClockSetBack):
    make = staticmethod(in_dicts)
    kind_of_world = ObservedWorld


_settings = settings(
    max_examples=30,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
TestEvents = ObservedMachine.TestCase
TestEvents.settings = _settings
TestEventsWithClockSetBack = ObservedClockSetBack.TestCase
TestEventsWithClockSetBack.settings = _settings


def observed(storage: Storage) -> tuple[Storage, list[Event]]:
    observed = ObservedStorage(storage)
    return cast("Storage", observed), observed.events


def test_what_is_undone_makes_no_event() -> None:
    fake = FakeStorage()
    storage, events = observed(fake)
    assert storage.begin(write=True)
    storage.savepoint()
    storage.insert_jobs([job("a")])
    storage.release()
    storage.savepoint()
    storage.insert_jobs([job("b")])
    storage.insert_runs([run()])
    storage.undo()
    storage.commit()
    assert [type(event) for event in events] == [JobAdded]


def test_what_is_computed_is_no_edit() -> None:
    storage, events = observed(FakeStorage())
    assert storage.begin(write=True)
    storage.insert_jobs([job("a")])
    del events[:]
    storage.update_jobs([job("a", next_run_at=5, rules="2026a", anchor_at=7, crashes=1)])
    assert events == []
    storage.update_jobs([job("a", prompt="other")])
    assert [type(event) for event in events] == [JobChanged]


def test_a_damaged_value_makes_an_event_all_the_same() -> None:
    storage, events = observed(FakeStorage())
    assert storage.begin(write=True)
    storage.insert_runs([run(status="odd", cause="odd", trigger="retry", scheduled_at=-1, ready_at=10**20)])
    (event,) = events
    assert isinstance(event, RetryScheduled)
    assert event.retry_at is None
