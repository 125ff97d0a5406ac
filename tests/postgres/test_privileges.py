"""The rights that suffice: one user owns the schema and another runs the schedulers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta

import psycopg
import pytest
import trio

from cronactors import (
    Alert,
    CronConfig,
    CronJob,
    CronRun,
    GiveUp,
    History,
    Interval,
    JobContext,
    JobSpec,
    OneShot,
    RetryPolicy,
    RunStatus,
    SessionMode,
    current_run,
    open_scheduler,
    open_store,
)
from cronactors.actors import pruner
from cronactors.actors.store import Done, run_batch
from cronactors.storage.postgres import migrations
from cronactors.storage.postgres.migrations import Step
from cronactors.storage.postgres.storage import PostgresStorage
from tests.postgres.injection import COMMIT, made_up, raise_at
from tests.postgres.roles import RIGHTS, new_role, user_of
from tests.postgres.test_query_plans import STATEMENTS
from tests.postgres_server import new_database, shared_server
from tests.store_under_test import Names, Put

Connection = psycopg.Connection[tuple[object, ...]]

LEAST = (
    "USAGE ON SCHEMA cronactors",
    "SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA cronactors",
    "USAGE ON SEQUENCE cronactors.run_ids, cronactors.jobs_number_seq",
)
"""Identity columns need no right to their sequences; the numbers of jobs and runs are drawn by name."""


@pytest.fixture(scope="module")
def url() -> str:
    return new_database(shared_server())


@pytest.fixture
def admin(url: str) -> Iterator[Connection]:
    with psycopg.connect(url, autocommit=True) as connection:
        yield connection


@pytest.fixture
def owner(url: str, admin: Connection) -> Iterator[str]:
    """The URL of a user who has created the store."""
    database = admin.info.dbname
    with new_role(admin, url, f'CREATE ON DATABASE "{database}"') as of_owner:
        PostgresStorage(of_owner, schema="cronactors").close()
        yield of_owner


@pytest.fixture(params=[RIGHTS, LEAST], ids=["all", "least"])
def runner(request: pytest.FixtureRequest, url: str, admin: Connection, owner: str) -> Iterator[str]:
    """The URL of a user who runs schedulers."""
    with new_role(admin, url, *request.param) as of_runner:
        if request.param is LEAST:
            admin.execute(f"REVOKE INSERT, UPDATE, DELETE ON cronactors.version FROM {user_of(of_runner)}".encode())
        yield of_runner


def test_the_user_owns_nothing(runner, admin):
    owned = "SELECT relname FROM pg_class JOIN pg_roles ON pg_roles.oid = relowner WHERE rolname = %s"
    assert not admin.execute(owned, [user_of(runner)]).fetchall()
    with psycopg.connect(runner) as connection, pytest.raises(psycopg.errors.InsufficientPrivilege):
        connection.execute("ALTER TABLE cronactors.jobs ADD COLUMN colour text")


def test_every_statement_is_allowed(runner):
    with closing(PostgresStorage(runner, schema="cronactors")) as storage:
        for text in STATEMENTS.values():
            storage._session.script(f"PREPARE allowed AS {text}")
            count = max((number for number in range(40) if f"${number}" in text), default=0)
            arguments = f"({', '.join(['NULL'] * count)})" if count else ""
            storage._session.script(f"EXPLAIN EXECUTE allowed{arguments}; DEALLOCATE allowed")


async def test_a_whole_scheduler(runner, monkeypatch, caplog):
    monkeypatch.setattr(pruner, "FIRST_LOOK", 0.1)
    finished: list[tuple[str, RunStatus]] = []
    alerts: list[Alert] = []

    async def executor(ctx: JobContext) -> str:
        run = current_run()
        run.log("a line")
        run.report_progress(0.5, "half")
        if ctx.job_name == "fails":
            raise GiveUp("no use")
        if ctx.job_name == "long":
            await trio.sleep_forever()
        return "done"

    async def on_finish(job: CronJob, run: CronRun) -> None:
        finished.append((job.name, run.status))

    async def on_alert(_job: CronJob, alert: Alert) -> None:
        alerts.append(alert)

    at = datetime.now(UTC) - timedelta(seconds=1)
    config = CronConfig(
        retry=RetryPolicy(delays=(0,)), max_concurrent_runs_total=10, history=History(days=None, per_job=2, keep_last=0)
    )
    jobs = [
        JobSpec("often", "it", Interval(200), tags=("a", "b")),
        JobSpec("fails", "it", Interval(200), max_retries=0),
        JobSpec("session", "it", OneShot(at), user_id="ann", session_mode=SessionMode.MAIN),
        JobSpec("session too", "it", OneShot(at), user_id="ann", session_mode=SessionMode.MAIN),
    ]
    with trio.fail_after(30):
        async with (
            open_store(runner) as store,
            open_scheduler(
                runner, executor, jobs=jobs, on_finish=on_finish, on_alert=on_alert, config=config, tick_interval=0.1
            ) as scheduler,
        ):
            long_id = await store.add_job("long", "it", Interval(3_600_000), data={"x": 1})
            run_id = await store.request_run(long_id, data={"y": 2}, key="once")
            while (await store.get_run(run_id)).status is not RunStatus.RUNNING:
                await trio.sleep(0.05)
            await scheduler.cancel_run(run_id)
            await store.pause_job(long_id)
            await store.resume_job(long_id)
            await store.update_job(long_id, prompt="something else", tags=("c",))
            assert [job.name for job in await store.list_jobs(tag="c")] == ["long"]
            await scheduler.run_now(await store.add_job("by hand", "it", Interval(3_600_000)))
            wanted = {("fails", RunStatus.FAILED), ("session", RunStatus.SUCCESS), ("session too", RunStatus.SUCCESS)}
            while not {*finished} >= wanted | {("often", RunStatus.SUCCESS), ("long", RunStatus.CANCELLED)} or not alerts:
                await trio.sleep(0.05)
            await store.remove_job(long_id)
    assert "42501" not in caplog.text
    assert "permission denied" not in caplog.text


def test_the_fate_of_a_commit_is_found_out(runner):
    with closing(PostgresStorage(runner, schema="cronactors")) as storage:
        assert storage._session._life is not None
        raise_at(storage, COMMIT, made_up(None), carry_out=True)
        assert isinstance(run_batch(storage, [Put("a")]), Done)


def test_the_life_of_the_server_may_be_unknown_to_who_may_only_read(url, admin, owner):
    admin.execute("DELETE FROM cronactors.server_life")
    with (
        new_role(admin, url, "USAGE ON SCHEMA cronactors", "SELECT ON ALL TABLES IN SCHEMA cronactors") as of_reader,
        closing(PostgresStorage(of_reader, schema="cronactors", create=False)) as storage,
    ):
        assert storage._session._life is None
        assert isinstance(run_batch(storage, [Names()]), Done)


def test_the_owner_upgrades_and_the_user_has_the_rights_to_what_is_new(url, admin, owner, monkeypatch):
    with new_role(admin, url, *RIGHTS) as of_runner:
        for kind, rights in (("TABLES", "SELECT, INSERT, UPDATE, DELETE"), ("SEQUENCES", "USAGE")):
            default = f"ALTER DEFAULT PRIVILEGES FOR ROLE {user_of(owner)} IN SCHEMA cronactors"
            admin.execute(f"{default} GRANT {rights} ON {kind} TO {user_of(of_runner)}".encode())
        script = (
            "CREATE TABLE @colours (id bigint GENERATED ALWAYS AS IDENTITY, name text NOT NULL); CREATE SEQUENCE @colour_ids;"
        )
        monkeypatch.setattr(migrations, "STEPS", (*migrations.STEPS, Step(migrations.newest() + 1, script, min_reader=1)))
        PostgresStorage(owner, schema="cronactors").close()
        with closing(PostgresStorage(of_runner, schema="cronactors")) as storage:
            storage._session.script("INSERT INTO @colours (name) VALUES ('red'); SELECT nextval('@colour_ids')")
