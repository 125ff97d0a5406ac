"""What the queue leaves out because another transaction decides about it."""

from __future__ import annotations

from contextlib import closing
from typing import cast

from cronactors.actors.mailbox import Request
from cronactors.actors.store import Done, run_batch
from cronactors.actors.user_requests import AddJobs
from cronactors.ids import new_ids
from cronactors.spec import Delay, JobSpec
from cronactors.storage.postgres.storage import PostgresStorage
from tests.ledger_world import DEFAULTS
from tests.postgres_server import new_database, shared_server


def test_what_was_left_out_before_says_nothing_about_the_next_call() -> None:
    url, (job_id,) = new_database(shared_server()), new_ids(1)
    with closing(PostgresStorage(url, schema="x")) as one, closing(PostgresStorage(url, schema="x")) as other:
        request = AddJobs(((job_id, JobSpec("job", "it", Delay(0.001))),), DEFAULTS)
        assert isinstance(run_batch(one, [cast("Request[object]", request)]), Done)
        until = one.now() + 1_000
        assert other.begin(write=True, alone=False)
        assert other.jobs([job_id])
        assert one.begin(write=True, alone=False)
        assert not one.due(now=until, limit=1)
        assert one.left_out
        assert not one.due(now=until, limit=1, only_runs=True)
        assert not one.left_out
        assert not one.due(now=until, limit=1)
        assert one.left_out
        one.rollback()
        other.rollback()
        assert one.begin(write=True, alone=True)
        assert one.due(now=until, limit=1)
        assert not one.left_out
        one.rollback()
