"""docs/scaling.md is true: its programs run on a file and on a server, its statements of SQL are accepted, and its numbers are the code's.

A deploy leaves no gap: a scheduler is started, the one before it is stopped, and no moment is missing, merged, skipped or interrupted.
"""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path

import attrs
import psycopg
import pytest
import trio

from cronactors import CronJob, CronRun, RunStatus, StoreUnavailable, now, open_scheduler, open_store
from cronactors.actors import lease_guard, patrol, store_lifetime
from cronactors.ledger import leases, totals
from cronactors.storage.postgres import address as addresses, connecting, storage as postgres_storage
from tests.cli_command import COMMAND, ROOT
from tests.deploy_child import EVERY, jobs
from tests.postgres.roles import RIGHTS, new_role, user_of, with_parameters
from tests.postgres_server import new_database, shared_server
from tests.postgres_store import worker_database
from tests.store_places import place, server
from tests.test_readme import environment, table_rows
from tests.workers import nothing

__all__ = ["place", "server"]

PAGE = (ROOT / "docs/scaling.md").read_text(encoding="utf-8")
TEXT = " ".join(PAGE.split())
JOBS = 60
"""Jobs of three seconds each, one after the other: there is a moment every 50 ms, and one is merged only if it is 3 s late."""


def blocks(language: str, text: str = PAGE) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


def marked(name: str) -> str:
    found = re.findall(rf"<!-- {name} -->\n(.*?)<!-- /{name} -->", PAGE, re.DOTALL)
    assert len(found) == 1, name
    return found[0]


# The programs; those of the page also run on a file, see test_readme.py


def run(folder: Path, command: list[str], **variables: str) -> str:
    done = subprocess.run(
        command, cwd=folder, env={**environment(), **variables}, capture_output=True, text=True, timeout=50, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_the_three_commands_move_a_program_to_the_server(server: str, tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(blocks("python")[0], encoding="utf-8")
    program = [sys.executable, "-W", "error", "app.py"]
    (output,) = re.findall(r"trio\.run\(main\)\n```\n\n```\n(.*?)```", PAGE, re.DOTALL)[:1]
    assert run(tmp_path, program) == output
    install, copy, export = blocks("sh")[0].splitlines()
    assert install.startswith('pip install "cronactors[postgres]"')
    assert export.startswith("export CRONACTORS_DB=")
    words = copy.partition("#")[0].split()
    assert words[:3] == ["cronactors", "copy", "agent.db"]
    assert run(tmp_path, [*COMMAND, "copy", "agent.db"], CRONACTORS_DB=server).startswith(
        "moved 1 job and 1 run from agent.db to "
    )
    assert run(tmp_path, program, CRONACTORS_DB=server) == output

    async def read() -> tuple[int, list[str]]:
        async with open_store(server, create=False) as store:
            return len(await store.list_jobs()), [str(run.status) for run in await store.list_runs()]

    assert trio.run(read) == (1, ["success", "success"])


def shard() -> tuple[dict[str, str], Callable[[str | None], str]]:
    (code,) = [each for each in blocks("python") if "def store_of" in each]
    names: dict[str, object] = {}
    exec(code, names)
    return names["STORES"], names["store_of"]  # type: ignore[return-value]


def test_each_user_has_one_store_and_a_new_store_gets_only_its_share():
    stores, store_of = shard()
    assert store_of(None) in stores.values()
    users = [f"user {number}" for number in range(3_000)]
    before = {user: store_of(user) for user in users}
    assert before == {user: shard()[1](user) for user in users}, "another process finds the same store"
    assert min(Counter(before.values()).values()) > len(users) / 2 * 0.9
    stores["three"] = "postgresql://jobs@db3.example/agent"
    after = {user: store_of(user) for user in users}
    moved = [user for user in users if after[user] != before[user]]
    assert {after[user] for user in moved} == {stores["three"]}
    assert 0.9 < len(moved) / (len(users) / 3) < 1.1
    stores["one"] = "postgresql://jobs@another.example/agent"
    assert {user for user in users if store_of(user) == stores["three"]} == set(moved), "the name decides, not the address"


# Deploys


@attrs.frozen
class Version:
    """A process of the program that is deployed."""

    process: subprocess.Popen[str]

    @classmethod
    def start(cls, store: str) -> Version:
        """Start one, and return once it has opened the store."""
        command = [sys.executable, "-W", "error", "-m", "tests.deploy_child", store, str(JOBS)]
        process = subprocess.Popen(command, cwd=ROOT, env=environment(), stdout=subprocess.PIPE, text=True)
        version = cls(process)
        assert process.stdout is not None
        if process.stdout.readline() != "ready\n":
            version.kill()
            raise AssertionError("the program did not start")
        return version

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        try:
            assert self.process.wait(20) == 0
        finally:
            self.kill()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()


async def add_one_after_the_other(store: str) -> None:
    """Add the jobs at intervals, so that they come due one after the other."""
    started = trio.current_time()
    async with open_store(store) as opened:
        for number, spec in enumerate(jobs(JOBS)):
            await trio.sleep_until(started + number * EVERY / 1000 / JOBS)
            await opened.add_jobs([spec])


async def read(store: str) -> tuple[list[CronJob], list[CronRun]]:
    async with open_store(store, create=False) as opened:
        runs: list[CronRun] = []
        while page := await opened.list_runs(limit=1_000, after=runs[-1].id if runs else None):
            runs += page
        return await opened.list_jobs(), runs


@attrs.frozen
class Deploy:
    """When a version began to start, when it had opened the store, and when the one before it had ended."""

    start: datetime
    ready: datetime
    end: datetime


async def deploy(store: str, times: int) -> list[Deploy]:
    """Deploy the program several times, and once more to end it."""
    await add_one_after_the_other(store)
    version = await trio.to_thread.run_sync(Version.start, store)
    try:
        await until_nothing_is_late(store)
        deploys: list[Deploy] = []
        for _ in range(times):
            await trio.sleep(0.3)
            start, old = now(), version
            version = await trio.to_thread.run_sync(Version.start, store)
            ready = now()
            await trio.to_thread.run_sync(old.stop)
            deploys.append(Deploy(start, ready, now()))
        await trio.sleep(0.3)
        await trio.to_thread.run_sync(version.stop)
    finally:
        version.kill()
    return deploys


async def until_nothing_is_late(store: str) -> None:
    """Wait until the first version has executed what came due before it was there, of which several moments of a job are merged."""
    async with open_store(store) as opened:
        while await opened.get_due_jobs(limit=1):
            await trio.sleep(0.05)


def moments_between(job: CronJob, began: datetime, ended: datetime) -> set[tuple[str, datetime]]:
    every = timedelta(milliseconds=EVERY)
    first = -((job.created_at - began) // every)
    moments = (job.created_at + number * every for number in range(first, first + (ended - began) // every + 1))
    return {(job.name, moment) for moment in moments if began <= moment < ended}


def lateness(runs: list[CronRun]) -> list[float]:
    """Return how late (ms) each run started, in order."""
    return sorted((run.started_at - run.scheduled_at) / timedelta(milliseconds=1) for run in runs if run.started_at is not None)


@pytest.mark.slow
async def test_a_deploy_leaves_no_gap(place: str, record_property: Callable[[str, object], None]) -> None:
    deploys = await deploy(place, times=2)
    began, ended = deploys[0].start, deploys[-1].end
    stored, runs = await read(place)
    runs = [run for run in runs if began <= run.scheduled_at < ended]
    assert {(run.status, run.cause, run.coalesced, run.attempt) for run in runs} == {(RunStatus.SUCCESS, None, 1, 1)}
    moments = set().union(*(moments_between(job, began, ended) for job in stored))
    assert {(run.job_name, run.scheduled_at) for run in runs} == moments
    assert len(runs) == len(moments)

    in_time = []  # of the moments in the first half of a start: whether the version before has executed them meanwhile
    for each in deploys:
        half = each.start + (each.ready - each.start) / 2
        in_time += [
            run.started_at is not None and run.started_at < each.ready for run in runs if each.start <= run.scheduled_at < half
        ]
    assert in_time
    assert sum(in_time) / len(in_time) > 0.5
    during = lateness([run for run in runs if any(each.start <= run.scheduled_at < each.end for each in deploys)])
    record_property(
        "figures",
        f"{len(deploys)} deploys, {len(during)} moments, one every {EVERY // JOBS} ms: 0 missing, 0 merged, 0 skipped, 0 interrupted;"
        f" the worst was {during[-1]:.0f} ms late, p99 {during[int(len(during) * 0.99)]:.0f} ms",
    )


# The statements


def statements(name: str) -> list[str]:
    """Return the SQL statements between two marks."""
    text = re.sub(r"^--.*\n", "", "\n".join(blocks("sql", marked(name))), flags=re.MULTILINE)
    return [each.strip() for each in text.split(";\n") if each.strip()]


def test_the_rights_of_the_docs_are_those_that_are_tested_elsewhere():
    grants = [each for each in statements("privileges") if each.startswith("GRANT") and "ON DATABASE" not in each]
    assert grants == [f"GRANT {right} TO jobs" for right in RIGHTS]


async def test_the_owner_of_the_docs_creates_the_schema_and_the_other_role_runs_on_it():
    url = new_database(shared_server())
    with psycopg.connect(url, autocommit=True) as admin:
        on_database, *_ = [each for each in statements("privileges") if "ON DATABASE" in each]
        assert on_database == "GRANT CREATE ON DATABASE agent TO jobs_owner"
        with new_role(admin, url, f'CREATE ON DATABASE "{admin.info.dbname}"') as owner, new_role(admin, url) as runner:
            with pytest.raises(StoreUnavailable, match="permission denied for database"):
                async with open_store(runner):
                    pass
            async with open_store(owner):
                pass
            with psycopg.connect(owner, autocommit=True) as connection:
                for each in statements("privileges")[3:]:
                    connection.execute(re.sub(r"\bjobs\b", user_of(runner), each).encode())
                connection.execute("CREATE TABLE cronactors.later (n int GENERATED ALWAYS AS IDENTITY)")
            async with open_scheduler(runner, nothing, jobs=jobs(1)) as scheduler:
                (job,) = await scheduler.store.list_jobs()
                assert (await scheduler.run_now(job.id)).status is RunStatus.SUCCESS
            with psycopg.connect(runner, autocommit=True) as connection:
                connection.execute("INSERT INTO cronactors.later DEFAULT VALUES")
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    connection.execute("DROP TABLE cronactors.later")
            with psycopg.connect(owner, autocommit=True) as connection:
                connection.execute("DROP SCHEMA cronactors CASCADE")


async def test_the_statements_that_look_after_the_server_show_its_tables(server: str) -> None:
    async with open_store(server) as store:
        await store.add_jobs(jobs(1))
    schema = addresses.split_schema(server, "")[1]
    tables, transactions = statements("care")
    with psycopg.connect(worker_database(), autocommit=True) as connection:
        shown = connection.execute(tables.replace("'cronactors'", f"'{schema}'").encode()).fetchall()
        assert {"job_state", "runs"} <= {name for name, *_ in shown}
        connection.execute("BEGIN; SELECT 1 FROM pg_class")
        assert connection.info.backend_pid in {pid for pid, *_ in connection.execute(transactions.encode()).fetchall()}


# The numbers


def test_the_settings_of_the_docs_are_those_of_a_connection():
    cells = [cell.strip() for row in table_rows("docs/scaling.md", "| Setting | | Setting | |") for cell in row.split("|")]
    found = dict(re.findall(r"`(\w+)`(?: \(17 and newer\))?\n(\S+)", "\n".join(filter(None, cells))))
    assert found == connecting._SETTINGS | connecting._SINCE_17


CANCELLED_AFTER = leases.LEASE / 1000 - lease_guard.BEFORE_THE_END


@pytest.mark.parametrize(
    "sentence",
    [
        f"PostgreSQL {connecting.OLDEST_SERVER // 10_000} or newer",
        f"its runs are taken over {leases.LEASE // 1000} s after its last heartbeat",
        f"cancels its runs {lease_guard.BEFORE_THE_END:g} s before its lease ends",
        f"cancels its runs {CANCELLED_AFTER:g} s after its last heartbeat",
        f"That is {CANCELLED_AFTER - (leases.HEARTBEAT_EVERY + leases.HEARTBEAT_WITH_CLAIM) / 1000:g} to {CANCELLED_AFTER:g} s after",
        f"those that were seen within {totals.SEEN_WITHIN // 1000} s",
        f"a scheduler looks every {patrol.DEAF_TICK:g} s",
        f"at most {postgres_storage.NOTIFIED_AHEAD // 1000} s ahead",
        f"delays the others by at most {connecting._SETTINGS['idle_in_transaction_session_timeout'].removesuffix('s')} s and a batch",
    ],
)
def test_periods_and_versions_of_the_docs_are_those_of_the_code(sentence: str) -> None:
    assert sentence in TEXT


def test_the_databases_that_are_refused_are_those_of_the_code():
    (listed,) = re.findall(r"protocol\.\*\* (.*?) are refused by name", TEXT)
    assert set(re.split(r", | and ", listed)) == set(connecting._NOT_POSTGRES.values())


def test_the_name_of_a_schema_has_the_length_of_the_docs():
    (length,) = re.findall(r"at most (\d+) lower-case letters, digits and underscores", TEXT)
    assert addresses.check_schema("a" * int(length))
    with pytest.raises(addresses.InvalidConfig):
        addresses.check_schema("a" * (int(length) + 1))
    assert f"a schema `{addresses.DEFAULT_SCHEMA}`" in TEXT


# The compose file


def test_the_compose_file_starts_a_pinned_server_and_the_example():
    text = (ROOT / "examples/compose.yaml").read_text(encoding="utf-8")
    assert re.search(r"^    image: postgres:\d+\.\d+$", text, re.MULTILINE)
    assert "CRONACTORS_DB: postgresql://" in text
    dockerfile = re.findall(r"^        (FROM|COPY|RUN|CMD) (.*)$", text, re.MULTILINE)
    assert [word for word, _ in dockerfile] == ["FROM", "COPY", "COPY", "COPY", "RUN", "CMD"]
    for word, rest in dockerfile:
        if word == "COPY":
            for source in rest.split()[:-1]:
                assert (ROOT / source).exists(), source
    assert (ROOT / "examples/many_machines.py").is_file()
    assert 'CMD ["python", "/src/examples/many_machines.py"]' in text


# The messages that docs/troubleshooting.md lists

SECTION = (ROOT / "docs/troubleshooting.md").read_text(encoding="utf-8").partition("## The server cannot be used\n")[2]
OF_OTHERS = {"Connection refused", "failed to resolve host", "timeout expired", "too many clients", "too many connections"}
"""Words of PostgreSQL and psycopg."""


def listed() -> set[str]:
    rows = re.findall(r"^\| (`.*?) \|", SECTION, re.MULTILINE)
    return {word for row in rows for word in re.findall(r"`([^`]+)`", row)}


def test_each_message_of_ours_that_the_docs_list_is_in_the_code():
    source = "".join(file.read_text(encoding="utf-8") for file in (ROOT / "cronactors").rglob("*.py"))
    of_ours = {word for word in listed() if not re.search(r"\(\d{5}: ", word)} - OF_OTHERS - PROVOKED_WORDS
    assert len(of_ours) >= 9
    assert {word for word in of_ours if word not in source} == set()


PROVOKED: list[tuple[dict[str, str], str, str]] = [
    ({"host": "127.0.0.1", "port": "1"}, "cannot be reached", "Connection refused"),
    ({"host": "nobody.invalid"}, "cannot be reached", "failed to resolve host"),
    ({"dbname": "no_such_database"}, "cannot be reached", "database"),
    ({"options": "-c default_transaction_read_only=on"}, "cannot be reached", "session is read-only"),
]
PROVOKED_WORDS = {"role", "password", "no pg_hba.conf entry", *(word for *_, word in PROVOKED)}


@pytest.mark.parametrize(("changed", "ours", "theirs"), PROVOKED)
async def test_an_address_at_which_there_is_no_store(changed, ours, theirs, monkeypatch):
    monkeypatch.setattr(store_lifetime, "OPEN_TIMEOUT", 0)
    assert {ours, theirs} <= listed()
    with pytest.raises(StoreUnavailable, match=f" {ours}: .*{theirs}"):
        async with open_store(with_parameters(worker_database(), **changed), create=False):
            pass


async def test_a_schema_that_does_not_exist(server):
    assert "does not exist" in listed()
    with pytest.raises(StoreUnavailable, match="^postgresql://.* does not exist$"):
        async with open_store(server, create=False):
            pass


async def test_a_user_whom_the_server_does_not_know_or_lets_in_too_often_is_told_so():
    url = worker_database()
    with pytest.raises(StoreUnavailable, match="cannot be reached: .*(role|password|no pg_hba.conf entry)"):
        async with open_store(with_parameters(url, user="no_such_role"), create=False):
            pass
    with psycopg.connect(url, autocommit=True) as admin, new_role(admin, url) as runner:
        admin.execute(f"ALTER ROLE {user_of(runner)} CONNECTION LIMIT 0".encode())
        with pytest.raises(StoreUnavailable, match="cannot be reached: .*too many connections"):
            async with open_store(runner, create=False):
                pass
