"""A process that stops inside a transaction, with the store's lock and the row of a job; run by test_server_away.py."""

from __future__ import annotations

import os
import signal
import sys
from contextlib import closing

import attrs

from cronactors.actors.mailbox import Request
from cronactors.actors.store import run_batch
from cronactors.storage.postgres.storage import PostgresStorage
from cronactors.storage.protocol import Storage


@attrs.frozen
class Stop(Request[None]):
    """Locks a job and stops the process."""

    alone = False
    job_id: str

    def apply(self, storage: Storage) -> None:
        (job,) = storage.jobs([self.job_id]).values()
        storage.update_jobs([job._replace(prompt="changed by who was stopped")])
        sys.stdout.write("stopping\n")
        sys.stdout.flush()
        os.kill(os.getpid(), signal.SIGSTOP)


url, job_id = sys.argv[1:]
with closing(PostgresStorage(url, schema="cronactors", create=False)) as storage:
    sys.stdout.write(f"{type(run_batch(storage, [Stop(job_id)])).__name__}\n")
