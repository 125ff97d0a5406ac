"""Addresses in place of files: every verb works on a server, no password is accepted where others can read it, and none is printed."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
import trio
from click.testing import CliRunner

from cronactors import Interval, InvalidConfig, JobSpec, load_config, open_store
from cronactors.cli.commands import cronactors
from cronactors.cli.database import database_of, find_database
from cronactors.errors import StoreUnavailable
from cronactors.storage.postgres.address import has_password
from cronactors.storage.postgres.session import Session
from tests.cli_command import QUICK, ROOT, Command, lines_of, start, write
from tests.cli_stores import server
from tests.postgres_server import OwnServer

__all__ = ["server", "start", "write"]

SECRET = "hush-hush"
HOURLY = Interval.every(hours=1)


async def add_list(database: str, origin: str, *names: str) -> None:
    async with open_store(database) as store:
        await store.upsert_jobs([JobSpec(name, "p", HOURLY) for name in names], origin=origin)


def stored(start: Callable[..., Command], *options: str) -> list[str]:
    code, text = start("list", "--json", *options).end()
    assert code == 0, text
    return sorted(job["name"] for job in json.loads(text))


# Finding the database


@pytest.mark.parametrize(
    "url",
    [
        f"postgresql://me:{SECRET}@host/db",
        f"postgres://:{SECRET}@host/db",
        "postgresql://me:@host/db",
        f"postgresql://me:{SECRET}?@host/db",
        f"postgresql://host/db?user=me&password={SECRET}",
        f"postgresql:///?PassWord={SECRET}",
        f"postgresql:///?pass%77ord={SECRET}",
        f"postgresql://host/db?sslpassword={SECRET}",
    ],
)
def test_a_password_is_refused_where_others_can_read_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.chdir(tmp_path)
    Path("agent.toml").write_text("[cron]", encoding="utf-8")
    ways = "CRONACTORS_DB, or the password into a PGPASSFILE or PGSERVICEFILE"
    for field, args in (
        ("--db", ["list", "--db", url]),
        ("--db", ["runs", "x", "--db", url]),
        ("--db", ["remove", "--yes", "--origin", "x", "--db", url]),
        ("FILE", ["compact", url]),
        ("TARGET", ["copy", "agent.db", url]),
    ):
        done = CliRunner().invoke(cronactors, args)
        assert isinstance(done.exception, InvalidConfig)
        assert str(done.exception) == f"{field} must not name a password: put the address into the variable {ways}"
    with pytest.raises(InvalidConfig, match="--db must not name a password"):
        database_of(load_config("agent.toml"), url)  # the verb run
    Path("agent.toml").write_text(f'[cron]\ndatabase = "{url}"', encoding="utf-8")
    with pytest.raises(InvalidConfig, match=r"agent\.toml: \[cron\]: database must not name a password: put") as refused:
        load_config("agent.toml")
    assert SECRET not in str(refused.value)
    monkeypatch.setenv("CRONACTORS_DB", url)
    assert find_database(None, None) == url, "others cannot read the environment"


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://me@host/db",
        "postgresql:///?service=x",
        "postgresql://host:5432/db?sslmode=require",
        "postgresql://[::1]:5432/db",
        "postgresql://a:1,b:2/db?passfile=/srv/pgpass",
    ],
)
def test_an_address_without_a_password_is_accepted(url: str) -> None:
    assert not has_password(url)
    assert find_database(url, None) == url


def test_a_password_with_a_slash_in_it_is_refused_without_a_part_of_it() -> None:
    """libpq takes what is before the slash for a port, and would show it."""
    with pytest.raises(StoreUnavailable) as refused:
        Session(f"postgresql://me:{SECRET}/more@host/db", "x")
    assert "is not one of a PostgreSQL server that libpq can read" in str(refused.value)
    assert SECRET not in str(refused.value)
    assert Session("postgresql://a:1,b:2/db", "x").name == "postgresql://a,b/db/x"
    assert Session("postgresql://a,b/db", "x").name == "postgresql://a,b/db/x"


def test_the_schema_of_a_file_counts_for_every_address_but_one_that_names_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CRONACTORS_DB", "postgresql://env/db?a=b")
    file = tmp_path / "agent.toml"
    file.write_text('[cron]\nschema = "mine"', encoding="utf-8")
    config = load_config(file)
    assert database_of(config) == find_database(None, str(file)) == "postgresql://env/db?a=b&schema=mine"
    assert database_of(config, "postgresql://given/db") == "postgresql://given/db?schema=mine"
    assert database_of(config, "postgresql://given/db?schema=own") == "postgresql://given/db?schema=own"
    assert database_of(config, "a.db") == "a.db"
    file.write_text('[cron]\ndatabase = "postgresql://file/db"', encoding="utf-8")
    assert database_of(load_config(file)) == "postgresql://file/db"


def test_without_psycopg_the_error_says_what_to_install(tmp_path: Path) -> None:
    code = "import sys; sys.modules['psycopg'] = None; from cronactors.cli import main; main()"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    (tmp_path / "agent.toml").write_text('[cron]\norigin = "x"\nexecutor = "shell"', encoding="utf-8")
    url = "postgresql://host/db"
    for args in (["list", "--db", url], ["run", "--db", url], ["copy", "a.db", url]):
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", code, *args],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        message = 'cronactors: a store on PostgreSQL needs psycopg: pip install "cronactors[postgres]"\n'
        assert (done.returncode, done.stdout, done.stderr) == (1, "", message)
    done = subprocess.run(
        [sys.executable, "-c", code, "run", "--for", "0"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, (tmp_path / "agent.db").exists()) == (0, True), "a file needs no psycopg"


def test_compact_says_that_it_is_for_files() -> None:
    done = CliRunner().invoke(cronactors, ["compact", "postgresql://host/db"])
    assert isinstance(done.exception, InvalidConfig)
    assert str(done.exception).startswith(
        "compact is for a file: a PostgreSQL server uses the space of deleted rows again by itself"
    )


# Every verb on a server


@pytest.mark.slow
def test_every_verb_takes_the_address_as_an_option(start, write, server: str) -> None:
    write('origin = "mine"' + QUICK)
    code, text = start("run", "--for", "1", "--db", server).end()
    assert code == 0, text
    name = re.search(r"^database  (postgresql://\S+/cli_\d+)$", text, re.MULTILINE)
    assert name, text
    assert "?" not in name[1]
    assert lines_of(text, "^  cronactors list --db ")
    assert lines_of(text, "once .*success .* hello")
    assert stored(start, "--db", server) == ["every", "fails", "once", "seconds"]
    code, text = start("runs", "once", "--db", server, "--json").end()
    assert [run["result_summary"] for run in json.loads(text)] == ["hello"]
    code, text = start("remove", "--origin", "mine", "--yes", "--db", server).end()
    assert (code, text.splitlines()) == (
        0,
        ["as long as agent.toml lists jobs, its next start adds them as new ones, one-shots too", "removed 4 jobs of mine"],
    )
    assert start("list", "--db", server).end() == (0, "no jobs")
    code, text = start("runs", "once", "--db", server, "--json").end()
    assert len(json.loads(text)) == 1, "the history stays"


@pytest.mark.slow
def test_the_address_from_the_environment_may_have_a_password_which_is_never_printed(start, write, server: str) -> None:
    with_password = re.sub("//([^@/]*)@", rf"//\1:{SECRET}@", server)
    assert has_password(with_password)
    file = write('origin = "mine"' + QUICK)
    file.write_text(file.read_text().replace('database = "jobs.db"', ""))
    if "PGPASSWORD" in os.environ:
        pytest.skip("the server asks for another password")
    code, text = start("run", "--for", "1", CRONACTORS_DB=with_password).end()
    assert (code, SECRET in text) == (0, False), text
    assert re.search(r"^database  postgresql://.*/cli_\d+$", text, re.MULTILINE)
    assert lines_of(text, "^  cronactors list --config agent.toml")
    code, text = start("list", CRONACTORS_DB=with_password).end()
    assert (code, SECRET in text, len(lines_of(text, "^every "))) == (0, False, 1)
    elsewhere = with_password.replace("cli_", "absent_")
    code, text = start("list", CRONACTORS_DB=elsewhere).end()
    assert (code, SECRET in text) == (1, False)
    assert re.fullmatch(r"cronactors: postgresql://.*/absent_\d+ does not exist", text)
    code, text = start("list", CRONACTORS_DB=f"postgresql://me:{SECRET}@/db?host=/dev/null/none").end()
    assert (code, SECRET in text) == (1, False)
    assert text.startswith("cronactors: postgresql:///dev/null/none/db/cronactors cannot be reached: ")


@pytest.mark.slow
def test_a_list_is_adopted_on_a_server_in_the_schema_of_the_file(start, write, server: str) -> None:
    url, _, schema = server.rpartition("&schema=") if "&schema=" in server else server.rpartition("?schema=")
    trio.run(add_list, server, "old list", "every", "other")
    write(f'origin = "mine"\nschema = "{schema}"' + QUICK)
    code, text = start("run", "--for", "0.3", "--db", url, "--adopt", "old list").end()
    assert code == 0, text
    assert lines_of(text, "^took over 2 jobs of old list")
    assert stored(start, "--db", server) == ["every", "fails", "once", "seconds"], "a job that the file does not name is removed"
    (line,) = lines_of(text, "^  cronactors list")
    assert f"schema={schema}" in line, "the printed command finds the same jobs"


def test_a_file_must_name_its_origin_on_a_server(start, write, server: str, tmp_path: Path) -> None:
    trio.run(add_list, server, "old list", "other")
    write(QUICK)
    for args in ([], ["--adopt", "old list"]):
        code, text = start("run", "--db", server, *args).end()
        why = "machines that share a server may have the file at different paths"
        assert (code, text) == (
            1,
            f'cronactors: {tmp_path}/agent.toml: [cron]: origin must be named, such as origin = "my agent": {why}',
        )
    code, text = start("remove", "--origin", "nothing", "--yes", "--db", server).end()
    assert (code, text) == (1, "cronactors: no job has the origin nothing; there are old list (1)"), "nothing was adopted"


@pytest.mark.slow
def test_two_lists_on_a_server_are_not_taken_for_one_that_was_renamed(start, write, server: str, tmp_path: Path) -> None:
    """Files of one name on two machines: their paths are not known."""
    for origin in ("of one machine", "of another"):
        write(f'origin = "{origin}"' + QUICK.replace('name = "', f'name = "{origin} '))
        code, text = start("run", "--for", "0", "--db", server).end()
        assert (code, lines_of(text, "--adopt|has another origin")) == (0, [])
    assert len(stored(start, "--db", server)) == 8


# Passwords and addresses in files


@pytest.fixture(scope="module")
def guarded() -> Iterator[OwnServer]:
    """A server with a user "guarded" who needs a password."""
    with OwnServer() as server:
        rules = server.data / "pg_hba.conf"
        rules.write_text(f"local all guarded scram-sha-256\n{rules.read_text()}")
        with psycopg.connect(server.url(), autocommit=True) as connection:
            connection.execute(f"CREATE ROLE guarded LOGIN PASSWORD '{SECRET}'".encode())
            connection.execute(b"GRANT CREATE ON DATABASE postgres TO guarded; SELECT pg_reload_conf()")
            connection.execute(b"SELECT pg_reload_conf()")
        yield server


@pytest.mark.slow
def test_the_password_comes_from_a_pgpassfile(start, write, tmp_path: Path, guarded: OwnServer) -> None:
    url = f"postgresql://guarded@/postgres?host={guarded.folder}"
    write('origin = "mine"' + QUICK)
    code, text = start("run", "--db", url, PGPASSFILE=str(tmp_path / "absent")).end()
    assert code == 1
    assert text.startswith(f"cronactors: postgresql://{guarded.folder}/postgres/cronactors cannot be reached: ")
    passwords = tmp_path / "pgpass"
    passwords.write_text(f"*:*:*:guarded:{SECRET}\n")
    passwords.chmod(0o600)
    code, text = start("run", "--for", "0.5", "--db", url, PGPASSFILE=str(passwords)).end()
    assert (code, SECRET in text) == (0, False), text
    assert lines_of(text, "once .*success")
    assert len(stored(start, "--db", f"{url}&passfile={passwords}")) == 4


@pytest.mark.slow
def test_the_whole_address_comes_from_a_service_file(start, write, tmp_path: Path, guarded: OwnServer) -> None:
    services = tmp_path / "services"
    services.write_text(f"[jobs]\nhost={guarded.folder}\ndbname=postgres\nuser=guarded\npassword={SECRET}\n")
    environment = {"PGSERVICEFILE": str(services)}
    file = write('origin = "mine"\nschema = "by_service"' + QUICK)
    file.write_text(file.read_text().replace("jobs.db", "postgresql:///?service=jobs"))
    code, text = start("run", "--for", "0.5", **environment).end()
    assert (code, SECRET in text) == (0, False), text
    assert lines_of(text, f"^database  postgresql://{guarded.folder}/postgres/by_service$")
    code, text = start("list", "--db", "postgresql:///?service=jobs&schema=by_service", **environment).end()
    assert (code, len(lines_of(text, "^every "))) == (0, 1)
    code, text = start("list", "--db", "postgresql:///?service=absent", **environment).end()
    assert (code, SECRET in text) == (1, False)
    assert 'definition of service "absent" not found' in text
