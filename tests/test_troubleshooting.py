"""Reproduce each symptom of docs/troubleshooting.md, and check that its commands and snippets print the output on the page."""

from __future__ import annotations

import ast
import os
import re
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Awaitable, Callable
from contextlib import closing
from pathlib import Path
from types import CodeType
from typing import TypeAlias

import attrs
import pytest
import trio

from cronactors import Cron, CronConfig, CronScheduler, Interval, JobContext, JobSpec, OneShot, open_scheduler
from cronactors.ledger import recovery
from cronactors.shell.executor import CommandFailed, shell_executor
from cronactors.testing import VirtualClock, make_context
from tests.cli_command import COMMAND, ROOT
from tests.test_executors import posix
from tests.workers import Worker, nothing

PAGE = (ROOT / "docs/troubleshooting.md").read_text(encoding="utf-8")
START = "2026-03-02T08:00Z"  # a Monday


@attrs.frozen
class Block:
    """A block of code, and the output below it if the page shows one."""

    language: str
    code: str
    output: str | None

    @property
    def calls_why(self) -> bool:
        """Whether it calls ``why`` of the overview, which needs the world's open scheduler."""
        return self.code.startswith("await why(")


def blocks(text: str) -> list[Block]:
    found = re.findall(r"^```(\w+)\n(.*?)^```\n(?:\n```\n(.*?)^```\n)?", text, re.DOTALL | re.MULTILINE)
    outputs = re.findall(r"^```\w+\n.*?^```\n(\n```\n)?", text, re.DOTALL | re.MULTILINE)
    return [
        Block(language, code, output if shown else None) for (language, code, output), shown in zip(found, outputs, strict=True)
    ]


SECTIONS = dict(re.findall(r"^## (.*?)\n(.*?)(?=^## |\Z)", PAGE, re.DOTALL | re.MULTILINE))
OVERVIEW = "Where to look"

# The worlds


class World:
    """A folder with an ``agent.db``, in which a symptom is reproduced.

    Attributes:
        texts: The results of the section's calls of ``why``, in order.
    """

    def __init__(self, folder: Path, clock: VirtualClock, calls: list[str]) -> None:
        self.folder, self.clock, self._calls = folder, clock, calls
        self.texts: list[str] = []

    @property
    def file(self) -> Path:
        return self.folder / "agent.db"

    async def call_why(self, scheduler: CronScheduler) -> None:
        """Evaluate the section's calls of ``why`` while the scheduler is open."""
        names: dict[str, object] = {"scheduler": scheduler}
        exec(compile(blocks(SECTIONS[OVERVIEW])[0].code, "why", "exec"), names)
        for call in self._calls:
            code = compile(call.strip(), "call", "eval", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
            assert isinstance(code, CodeType)
            self.texts.append(await eval(code, names))

    def copy_file(self) -> None:
        """Copy the file as a kill of the process would leave it now. `restore_copy` puts the copy in its place."""
        with closing(sqlite3.connect(self.file)) as live, closing(sqlite3.connect(f"{self.file}.crashed")) as copy:
            live.backup(copy)

    def restore_copy(self) -> None:
        shutil.move(f"{self.file}.crashed", self.file)


async def nights(world: World) -> None:
    pass


async def overlapping(world: World) -> None:
    async with open_scheduler(world.file, Worker(660)) as scheduler:
        await scheduler.store.add_job("sync", "Fetch the mail", Cron("*/5 * * * *"))
        await trio.sleep(33 * 60)
        await world.call_why(scheduler)


async def waiting(world: World) -> None:
    worker = Worker(3600)
    async with open_scheduler(world.file, worker, shutdown_grace=7200) as scheduler:
        await scheduler.store.add_job("first", "Think for an hour", Cron("0 8 2 3 *"))
        await trio.sleep(5)
        await scheduler.run_now((await scheduler.store.list_jobs())[0].id, wait=False)
        await scheduler.store.add_job("second", "Say hello", Cron("10 0 8 2 3 *"))
        await trio.sleep(60)
        await world.call_why(scheduler)
    async with open_scheduler(world.file, nothing) as scheduler:
        await scheduler.store.add_job("hourly", "Count", Cron("0 * * * *"))
        await trio.sleep(3600)
    await trio.sleep(12 * 3600)
    async with open_scheduler(world.file, nothing):
        await trio.sleep(3600)


async def retried(world: World) -> None:
    async def executor(ctx: JobContext) -> str:
        await trio.sleep(2)
        if ctx.attempt == 1:
            raise OSError("the mail server is down")
        return "sent"

    async with open_scheduler(world.file, executor, timezone="Europe/Rome") as scheduler:
        await scheduler.store.add_job("report", "Send the report", Cron("5 9 * * *"))
        await trio.sleep(600)


async def zones(world: World) -> None:
    async with open_scheduler(world.file, nothing) as scheduler:
        await scheduler.store.add_job("backup", "Back up", Cron("0 9 * * *"))
        await scheduler.store.add_job("report", "Report", Cron("0 9 * * *"), timezone="Europe/Rome")
        await trio.sleep(2 * 3600)


async def shells(world: World) -> None:
    async with open_scheduler(world.file, shell_executor(world.folder)) as scheduler:
        specs = [
            JobSpec("pipe", "false | cat", OneShot(world.clock.now())),
            JobSpec("environment", "pwd; env", OneShot(world.clock.now())),
        ]
        await scheduler.store.add_jobs(specs)
        await scheduler.wait_idle()


async def floods(world: World) -> None:
    async with open_scheduler(world.file, shell_executor(world.folder)) as scheduler:
        flood = "head -c 200000 /dev/zero | tr '\\0' x"
        await scheduler.run_now(await scheduler.store.add_job("flood", flood, Interval.every(hours=1)))


async def crashing(world: World) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recovery, "certainly_dead", lambda owner, this_process: True)  # its process is this one, which is alive
        await _crashing(world)


async def _crashing(world: World) -> None:
    config = CronConfig(default_max_retries=0)
    for _ in range(3):
        started = trio.Event()

        async def executor(ctx: JobContext, started: trio.Event = started) -> None:
            started.set()
            await trio.sleep(100)

        with trio.CancelScope() as scope:
            async with open_scheduler(world.file, executor, config=config) as scheduler:
                if not await scheduler.store.list_jobs():
                    await scheduler.store.add_job("greedy", "Fill the memory", Cron("0 9 * * *"))
                    await scheduler.store.add_job("modest", "Say hello", Cron("0 10 * * *"))
                await started.wait()
                await trio.sleep(7)
                world.copy_file()
                scope.cancel()
        world.restore_copy()
        await trio.sleep(60)
    async with open_scheduler(world.file, nothing):
        await trio.sleep(60)


async def restarted(world: World) -> None:
    async with open_scheduler(world.file, Worker(600)) as scheduler:
        await scheduler.store.add_job("report", "Write the report", Cron("5 8 * * *"))
        await trio.sleep(400)
        world.copy_file()
    world.restore_copy()


async def deployed(world: World) -> None:
    for _ in range(2):
        async with open_scheduler(world.file, Worker(600), shutdown_grace=5) as scheduler:
            if not await scheduler.store.list_jobs():
                await scheduler.store.add_job("long", "Think for ten minutes", Cron("5 8 * * *"))
            await trio.sleep(400)
    async with open_scheduler(world.file, Worker(600)):
        await trio.sleep(700)


async def not_delivered(world: World) -> None:
    async def notifier(job_name: str, session_id: str, result: str, success: bool) -> None:
        raise OSError("the mail server is down")

    async with open_scheduler(world.file, nothing, notifier=notifier) as scheduler:
        await scheduler.store.add_job("report", "Send the report", Cron("0 9,11 2 3 *"))
        await trio.sleep(3 * 3600 + 5)


async def used(world: World) -> None:
    async with open_scheduler(world.file, nothing) as scheduler:
        await scheduler.store.add_job("job", "it", Interval.every(hours=1))


Build: TypeAlias = Callable[[World], Awaitable[None]]
WORLDS: dict[str, Build] = {
    OVERVIEW: used,
    "A job did not run at 02:30": nights,
    "A job did not run at all": overlapping,
    "A job starts late": waiting,
    "A job ran twice": retried,
    "A job runs far too often": nights,
    "Times are an hour off": zones,
    "Success, but nothing happened": shells,
    "Output is cut": floods,
    "A job is paused, and I did not pause it": crashing,
    "Nothing runs after a container restarts": restarted,
    "A run is interrupted at each deploy": deployed,
    "A result did not arrive": not_delivered,
    "The database is locked": used,
    "The server cannot be used": used,
}

# The page


def test_every_section_has_a_world():
    assert list(SECTIONS) == list(WORLDS)


def test_the_table_of_symptoms_links_to_every_section_in_order():
    links = re.findall(r"^\| \[(.*?)\]\(#", PAGE, re.MULTILINE)
    assert [OVERVIEW, *links] == list(SECTIONS)


def run(folder: Path, block: Block) -> str:
    """Run the commands or the program of a block, and return its output."""
    env = {**os.environ, "PYTHONPATH": str(ROOT), "CRONACTORS_DB": str(folder / "agent.db")}
    if block.language == "python":
        commands = [[sys.executable, "-W", "error", "-c", block.code]]
    else:
        assert all(line.startswith("cronactors ") for line in block.code.splitlines())
        quoted = " ".join(f"'{word}'" for word in COMMAND)
        commands = [["/bin/sh", "-c", f'cronactors() {{ {quoted} "$@"; }}\n{line}'] for line in block.code.splitlines()]
    text = ""
    for command in commands:
        done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=50, check=False)
        # `lint` exits with 1 if it finds something.
        assert done.returncode == (1 if "cronactors lint" in block.code else 0), done.stderr
        assert done.stderr == ""
        text += done.stdout
    return text


def without_real_time(text: str | None) -> list[str]:
    """Return the lines with durations replaced by 0.00 s: what takes real time differs from run to run."""
    return [re.sub(r"\d+\.\d\d s", "0.00 s", line.rstrip()) for line in (text or "").splitlines()]


@pytest.mark.slow
@pytest.mark.parametrize("heading", WORLDS)
def test_the_commands_of_a_symptom_print_the_output_on_the_page(heading: str, tmp_path: Path) -> None:
    folder = tmp_path / "mail"
    folder.mkdir()
    found = blocks(SECTIONS[heading])
    clock = VirtualClock()
    clock.set_wall(START)
    world = World(folder, clock, [block.code for block in found if block.calls_why])
    trio.run(WORLDS[heading], world, clock=clock)
    texts = iter(world.texts)
    for block in found:
        printed = next(texts) if block.calls_why else run(folder, block)
        if block.output is not None:
            assert without_real_time(printed) == without_real_time(block.output)
    assert next(texts, None) is None, "a call of why has no block on the page"


def cells(heading: str, columns: str) -> list[list[str]]:
    """Return the rows of a table in a section, each as its cells."""
    _, _, rest = SECTIONS[heading].partition(f"{columns}\n")
    rows = rest.split("\n\n")[0].splitlines()[1:]
    assert rows
    return [[cell.replace("\\|", "|").strip() for cell in re.split(r"(?<!\\)\|", row)[1:-1]] for row in rows]


HIDDEN_FAILURES = [
    pytest.param(prompt, re.findall(r"`([^`]+)`", better)[0], id=prompt)
    for row, _, better in cells("Success, but nothing happened", "| Prompt | What happens | Write |")
    for prompt in re.findall(r"`([^`]+)`", row)
]


@posix
@pytest.mark.parametrize(("prompt", "better"), HIDDEN_FAILURES)
async def test_a_prompt_that_hides_a_failure_succeeds_and_its_replacement_fails(
    prompt: str, better: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if "&>>" in prompt and "bash" in Path(os.path.realpath("/bin/sh")).name:
        pytest.skip("/bin/sh is bash, which knows &>>")
    if "bash" in better and shutil.which("bash") is None:
        pytest.skip("no bash")
    for name, script in (("make", "exit 2"), ("nightly.sh", "sleep 0.3; echo worked >worked; exit 2")):
        (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    executor = shell_executor(tmp_path)
    await executor(make_context(prompt))
    assert not (tmp_path / "worked").exists()
    with pytest.raises(CommandFailed):
        await executor(make_context(better))
    assert (tmp_path / "worked").exists() == ("nightly" in better)


def test_the_texts_of_explain_on_the_page_are_in_the_code():
    source = (ROOT / "cronactors/ledger/explain.py").read_text(encoding="utf-8")
    for text, _ in cells("A job did not run at all", "| The text says | Cause, and remedy |"):
        assert text.removesuffix(" ...").replace("(misfire)", "({run.cause})") in source, text


def test_the_errors_of_interrupted_runs_on_the_page_are_in_the_code():
    source = "".join(file.read_text(encoding="utf-8") for file in (ROOT / "cronactors/ledger").glob("*.py"))
    for error, *_ in cells("A run is interrupted at each deploy", "| You see | Cause | Remedy |"):
        assert f'"{error}"' in source, error


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs Linux")
def test_the_snippet_shows_the_process_that_has_the_database_open(tmp_path: Path) -> None:
    (block,) = blocks(SECTIONS["The database is locked"])
    with closing(sqlite3.connect(tmp_path / "agent.db", isolation_level=None)) as db:
        db.execute("CREATE TABLE t (x)")
        db.execute("BEGIN IMMEDIATE")
        found = [line.split()[0] for line in run(tmp_path, block).splitlines()]
    assert str(os.getpid()) in found


@pytest.mark.slow
def test_the_commands_of_the_overview_run(tmp_path: Path) -> None:
    clock = VirtualClock()
    trio.run(used, World(tmp_path, clock, []), clock=clock)
    text = '[cron]\ndatabase = "agent.db"\n[[cron.jobs]]\nname = "job"\nprompt = "it"\ncron = "0 9 * * *"\n'
    (tmp_path / "agent.toml").write_text(text)
    commands = [re.findall(r"`(cronactors [^`]+)`", use) for _, use in cells(OVERVIEW, "| To see | Use |")]
    filled = {"NAME": "job", "EXPR": "0 9 * * *", "ZONE": "Europe/Rome"}
    typed = [re.sub(r"[A-Z]{4}", lambda word: filled[word[0]], command) for (command,) in filter(None, commands)]
    assert len(typed) == 4
    assert all(run(tmp_path, Block("sh", f"{command}\n", None)) for command in typed if "lint" not in command)
    found = subprocess.run(
        [*COMMAND, "lint", "agent.toml"], cwd=tmp_path, capture_output=True, text=True, timeout=50, check=False
    )
    assert (found.returncode, found.stdout) == (0, "no findings\n"), found.stderr
