"""The verb ``copy``: what it prints and returns, its usage, and a move from one real scheduler to another."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import psycopg
import pytest
from click.testing import CliRunner

from cronactors.cli.commands import cronactors
from cronactors.cli.copy import copy_file
from cronactors.errors import CronError
from cronactors.storage.moved import Move
from cronactors.storage.postgres.address import split_schema
from cronactors.storage.postgres.copying import PostgresTarget
from cronactors.storage.sqlite_copying import SourceFile
from tests.cli_command import COMMAND, QUICK, ROOT, SLOW, Command, lines_of, start, write
from tests.cli_stores import server, with_ctrl_c
from tests.storages import filled

__all__ = ["server", "start", "with_ctrl_c", "write"]


def names(start: Callable[..., Command], *options: str) -> list[str]:
    code, text = start("list", "--json", *options).end()
    assert code == 0, text
    return sorted(job["name"] for job in json.loads(text))


@pytest.mark.slow
def test_a_file_is_moved_and_what_is_printed_says_how_to_undo_it(start, tmp_path: Path, server: str) -> None:
    filled(str(tmp_path / "a.db"))
    code, text = start("copy", "a.db", server).end()
    place = r"postgresql://\S*/cli_\d+"
    undo = r"a\.db is marked, `cronactors copy --unmark a\.db` undoes that"
    assert code == 0, text
    assert re.fullmatch(rf"moved 3 jobs and 0 runs from a\.db to {place}; {undo}", text)
    assert names(start, "--db", server) == ["000", "001", "002"]
    code, text = start("list", "--db", "a.db").end()
    assert code == 1
    moved = rf"was moved to {place} on \d{{4}}-\d\d-\d\d: open that instead; `cronactors copy --unmark .*/a\.db` undoes the mark"
    assert re.fullmatch(rf"cronactors: .*/a\.db {moved}", text)
    code, text = start("copy", "a.db", server).end()
    assert (code, bool(re.fullmatch(rf"a\.db had been moved to {place} already: finished", text))) == (0, True)
    code, text = start("copy", "--unmark", "a.db").end()
    assert (
        code,
        bool(re.fullmatch(rf"a\.db can be used again; if {place} has its jobs too, use only one of the two", text)),
    ) == (
        0,
        True,
    )
    assert names(start, "--db", "a.db") == ["000", "001", "002"]
    code, text = start("copy", "--unmark", "a.db").end()
    assert (code, text) == (1, "cronactors: a.db is not marked as moved")


@pytest.mark.slow
def test_the_jobs_of_one_user(start, tmp_path: Path, server: str) -> None:
    filled(str(tmp_path / "a.db"))
    code, text = start("copy", "a.db", server, "--user", "ann").end()
    assert (code, text) == (1, "cronactors: a.db has no job and no run of the user 'ann'")
    code, text = start("copy", "a.db", server, "--user", "").end()
    assert code == 0, text
    assert re.fullmatch(r"moved 3 jobs and 0 runs of the agent itself from a\.db to postgresql://\S+", text)
    assert (names(start, "--db", "a.db"), len(names(start, "--db", server))) == ([], 3)


@pytest.mark.slow
def test_the_target_is_found_as_any_database_is(start, write, tmp_path: Path, server: str) -> None:
    filled(str(tmp_path / "a.db"))
    filled(str(tmp_path / "b.db"))
    url, _, schema = server.rpartition("schema=")
    file = write(f'schema = "{schema}"')
    file.write_text(file.read_text().replace('database = "jobs.db"', f'database = "{url.rstrip("?&")}"'))
    code, text = start("copy", "a.db", "--config", "agent.toml").end()
    assert (code, text.startswith("moved 3 jobs")) == (0, True), text
    assert len(names(start, "--db", server)) == 3
    code, text = start("copy", "b.db", CRONACTORS_DB=server).end()
    assert code == 1
    assert "has jobs or a history of its own: move them into a schema without any, such as ?schema=NAME" in text
    assert len(names(start, "--db", "b.db")) == 3


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["a.db", "b.db"], "TARGET must be the address of a PostgreSQL database: postgresql://HOST/DATABASE"),
        (["postgresql://h/d", "postgresql://h/e"], "SOURCE must be a file: jobs cannot be moved away from a server"),
        (["absent.db", "postgresql://h/d"], "absent.db does not exist"),
        (["absent.db", "postgresql://h/d?schema=No"], "schema must be at most 63 lower-case letters"),
        (["--unmark", "absent.db"], "absent.db does not exist"),
        (["--unmark", "postgresql://h/d"], "SOURCE must be a file: only a file is marked"),
    ],
)
def test_what_is_refused(in_folder: Path, args: list[str], message: str) -> None:
    problem = CliRunner().invoke(cronactors, ["copy", *args]).exception
    assert isinstance(problem, CronError)
    assert str(problem).startswith(message)
    assert not list(in_folder.iterdir())


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ([], "Error: Missing argument 'SOURCE'"),
        (["a.db"], "Error: no database: give --db or --config"),
        (["--unmark", "a.db", "postgresql://h/d"], "Error: --unmark takes a file and nothing else"),
        (["--unmark", "a.db", "--user", "x"], "Error: --unmark takes a file and nothing else"),
        (["--unmark", "a.db", "--config", "x"], "Error: --unmark takes a file and nothing else"),
    ],
)
def test_wrong_usage(in_folder: Path, args: list[str], message: str) -> None:
    done = CliRunner().invoke(cronactors, ["copy", *args])
    assert done.exit_code == 2
    assert done.output.splitlines()[-1].startswith(message)


@pytest.fixture
def in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CRONACTORS_DB", raising=False)
    return tmp_path


@pytest.mark.slow
def test_jobs_go_on_on_the_server(start, write, tmp_path: Path, server: str) -> None:
    write(QUICK)
    running = start("run")
    running.wait_for("once .*success")
    code, text = start("copy", "jobs.db", server).end()
    assert code == 1
    in_use = rf"jobs\.db is in use by a scheduler \(process {running.process.pid}\): stop it first; "
    assert re.match(f"cronactors: {in_use}", text), text
    running.process.send_signal(signal.SIGTERM)
    assert running.end()[0] == 0
    assert start("copy", "jobs.db", server).end()[0] == 0
    before = json.loads(start("runs", "every", "--db", server, "--json", "--limit", "1000").end()[1])
    assert before
    code, text = start("run", "--for", "0.5").end()
    assert (code, lines_of(text, "was moved to")) == (1, [text]), "a service that was not changed does not run the jobs again"
    file = tmp_path / "agent.toml"
    text = file.read_text().replace("[cron]", '[cron]\norigin = "mine"')
    file.write_text(text[: text.rindex("[[cron.jobs]]")])
    code, text = start("run", "--for", "1.5", "--db", server).end()
    assert code == 0, text
    assert not lines_of(text, "once .*started")
    after = json.loads(start("runs", "every", "--db", server, "--json", "--limit", "1000").end()[1])
    assert after[-len(before) :] == before
    assert len(after) > len(before)
    assert names(start, "--db", server) == ["every", "once", "seconds"], (
        "a job that left the file is removed under its new name too"
    )
    assert (tmp_path / "once.txt").read_text() == "once\n"


@pytest.mark.slow
def test_a_run_that_a_kill_interrupted_runs_again_on_the_server(start, write, tmp_path: Path, server: str) -> None:
    write('origin = "mine"' + SLOW)
    first = start("run")
    first.wait_for("slow .*started")
    first.process.kill()
    first.end()
    code, text = start("copy", "jobs.db", server).end()
    assert (code, text.startswith("moved 1 job and 2 runs from")) == (0, True), text
    (tmp_path / "finish").touch()
    second = start("run", "--db", server)
    second.wait_for("slow .*attempt 2 .*success .*finished")
    second.process.send_signal(signal.SIGINT)
    assert second.end()[0] == 0


@pytest.mark.slow
def test_ctrl_c_while_rows_are_copied(start, with_ctrl_c, tmp_path: Path, server: str) -> None:
    filled(str(tmp_path / "a.db"))
    address, schema = split_schema(server, "")
    make_schema(start, tmp_path, server)
    with psycopg.connect(address) as other, psycopg.connect(address, autocommit=True) as watcher:
        other.execute(f"LOCK TABLE {schema}.job_state IN ACCESS EXCLUSIVE MODE".encode())
        command = start("copy", "a.db", server)
        deadline = time.monotonic() + 20
        waiting = "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock' AND query LIKE 'COPY%'"
        while not watcher.execute(waiting.encode()).fetchone():
            assert time.monotonic() < deadline
            time.sleep(0.01)
        command.process.send_signal(signal.SIGINT)
        code, text = command.end()
    assert (code, text) == (130, "cronactors: interrupted: nothing was moved")
    assert names(start, "--db", server) == []
    assert names(start, "--db", "a.db") == ["000", "001", "002"]
    assert start("copy", "a.db", server).end()[0] == 0


def test_ctrl_c_while_an_earlier_move_is_finished(
    tmp_path: Path, server: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The server may have the jobs, and has not said so yet."""
    path = str(tmp_path / "a.db")
    filled(path)
    address, schema = split_schema(server, "")
    with closing(SourceFile(path)) as file, closing(PostgresTarget(address, schema=schema)) as target:
        assert file.begin(write=True)
        file.mark(Move(id="1", to=target.name, at=1, user_id=None))
        file.commit()

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(PostgresTarget, "has", interrupted)
    with pytest.raises(SystemExit) as ended:
        copy_file(path, server, user_id=None)
    assert ended.value.code == 130
    said = f"an earlier move of {path} may have been carried out: repeat the command"
    assert capsys.readouterr().err == f"cronactors: interrupted: {said}\n"


def make_schema(start: Callable[..., Command], folder: Path, server: str) -> None:
    """Let the command create an empty store."""
    file = folder / "empty.toml"
    file.write_text('[cron]\nexecutor = "shell"\norigin = "nothing"')
    code, text = start("run", str(file), "--for", "0", "--db", server).end()
    assert code == 0, text


def test_a_terminal_shows_progress_and_a_pipe_does_not(tmp_path: Path, server: str) -> None:
    filled(str(tmp_path / "a.db"))
    leader, follower = pty.openpty()
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TERM": "xterm"}
    with subprocess.Popen(
        [*COMMAND, "copy", "a.db", server], cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=follower
    ) as process:
        os.close(follower)
        shown = b""
        try:
            while piece := os.read(leader, 65536):
                shown += piece
        except OSError:  # the other side is closed
            pass
        os.close(leader)
        assert process.stdout is not None
        printed = process.stdout.read().decode()
        assert process.wait() == 0
    assert shown.startswith(b"\r\x1b[Kjobs: 3 of 3")
    assert shown.endswith(b"\r\x1b[K")
    assert printed.startswith("moved 3 jobs")
    assert len(printed.splitlines()) == 1
