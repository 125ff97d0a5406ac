"""docs/troubleshooting.md: each symptom is brought about, and each command and snippet below it shows what the page says."""

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
from cronactors.executors import CommandFailed, shell_executor
from cronactors.ledger import recovery
from cronactors.testing import VirtualClock, make_context
from tests.cli_command import COMMAND, ROOT
from tests.test_executors import posix
from tests.workers import Worker, nothing

PAGE = (ROOT / "docs/troubleshooting.md").read_text(encoding="utf-8")
START = "2026-03-02T08:00Z"  # a Monday


@attrs.frozen
class Block:
    """A block of code, and the output that stands under it, if any does."""

    language: str
    code: str
    output: str | None

    @property
    def asks(self) -> bool:
        """Whether it is a question to the scheduler of the world."""
        return self.code.startswith("await why(")


def blocks(text: str) -> list[Block]:
    found = re.findall(r"^```(\w+)\n(.*?)^```\n(?:\n```\n(.*?)^```\n)?", text, re.DOTALL | re.MULTILINE)
    outputs = re.findall(r"^```\w+\n.*?^```\n(\n```\n)?", text, re.DOTALL | re.MULTILINE)
    return [
        Block(language, code, output if shown else None) for (language, code, output), shown in zip(found, outputs, strict=True)
    ]


SECTIONS = dict(re.findall(r"^## (.*?)\n(.*?)(?=^## |\Z)", PAGE, re.DOTALL | re.MULTILINE))
LOOK = "Where to look"

# The worlds


class World:
    """A folder with an ``agent.db``; the questions of the section are asked before its scheduler closes."""

    def __init__(self, folder: Path, clock: VirtualClock, questions: list[str]) -> None:
        self.folder, self.clock, self._questions = folder, clock, questions
        self.answers: list[str] = []

    @property
    def file(self) -> Path:
        return self.folder / "agent.db"

    async def call(self, scheduler: CronScheduler) -> None:
        names: dict[str, object] = {"scheduler": scheduler}
        exec(compile(blocks(SECTIONS[LOOK])[0].code, "why", "exec"), names)
        for question in self._questions:
            code = compile(question.strip(), "question", "eval", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
            assert isinstance(code, CodeType)
            self.answers.append(await eval(code, names))

    def crash(self) -> None:
        """Leave the file as a kill of the process would leave it now: copied, and put in its place later by `crashed`."""
        with closing(sqlite3.connect(self.file)) as live, closing(sqlite3.connect(f"{self.file}.crashed")) as copy:
            live.backup(copy)

    def crashed(self) -> None:
        shutil.move(f"{self.file}.crashed", self.file)


async def nights(world: World) -> None:
    pass


async def overlapping(world: World) -> None:
    async with open_scheduler(world.file, Worker(660)) as scheduler:
        await scheduler.store.add_job("sync", "Fetch the mail", Cron("*/5 * * * *"))
        await trio.sleep(33 * 60)
        await world.call(scheduler)


async def waiting(world: World) -> None:
    worker = Worker(3600)
    async with open_scheduler(world.file, worker, shutdown_grace=7200) as scheduler:
        await scheduler.store.add_job("first", "Think for an hour", Cron("0 8 2 3 *"))
        await trio.sleep(5)
        await scheduler.run_now((await scheduler.store.list_jobs())[0].id, wait=False)
        await scheduler.store.add_job("second", "Say hello", Cron("10 0 8 2 3 *"))
        await trio.sleep(60)
        await world.call(scheduler)
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
        patch.setattr(recovery, "certainly_dead", lambda owner, this_process: True)  # it is this process, which lives
        await _crashing(world)


async def _crashing(world: World) -> None:
    config = CronConfig(default_max_retries=0)
    for _ in range(3):
        begun = trio.Event()

        async def executor(ctx: JobContext, begun: trio.Event = begun) -> None:
            begun.set()
            await trio.sleep(100)

        with trio.CancelScope() as scope:
            async with open_scheduler(world.file, executor, config=config) as scheduler:
                if not await scheduler.store.list_jobs():
                    await scheduler.store.add_job("greedy", "Fill the memory", Cron("0 9 * * *"))
                    await scheduler.store.add_job("modest", "Say hello", Cron("0 10 * * *"))
                await begun.wait()
                await trio.sleep(7)
                world.crash()
                scope.cancel()
        world.crashed()
        await trio.sleep(60)
    async with open_scheduler(world.file, nothing):
        await trio.sleep(60)


async def restarted(world: World) -> None:
    async with open_scheduler(world.file, Worker(600)) as scheduler:
        await scheduler.store.add_job("report", "Write the report", Cron("5 8 * * *"))
        await trio.sleep(400)
        world.crash()
    world.crashed()


async def deployed(world: World) -> None:
    for _ in range(2):
        async with open_scheduler(world.file, Worker(600), shutdown_grace=5) as scheduler:
            if not await scheduler.store.list_jobs():
                await scheduler.store.add_job("long", "Think for ten minutes", Cron("5 8 * * *"))
            await trio.sleep(400)
    async with open_scheduler(world.file, Worker(600)):
        await trio.sleep(700)


async def used(world: World) -> None:
    async with open_scheduler(world.file, nothing) as scheduler:
        await scheduler.store.add_job("job", "it", Interval.every(hours=1))


Build: TypeAlias = Callable[[World], Awaitable[None]]
WORLDS: dict[str, Build] = {
    LOOK: used,
    "It did not run at 02:30": nights,
    "It did not run at all": overlapping,
    "It starts late": waiting,
    "It ran twice": retried,
    "It runs far too often": nights,
    "Times are an hour off": zones,
    "It says success but nothing happened": shells,
    "Output is cut": floods,
    "The job is paused and I did not pause it": crashing,
    "Nothing runs after the container restarts": restarted,
    "It is interrupted at each deploy": deployed,
    "Database is locked": used,
}

# The page


def test_each_section_has_a_world():
    assert list(SECTIONS) == list(WORLDS)


def run(folder: Path, block: Block) -> str:
    """Run the commands or the program of a block, and answer what it prints."""
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
        # `lint` answers 1 when it has found something.
        assert done.returncode == (1 if "cronactors lint" in block.code else 0), done.stderr
        assert done.stderr == ""
        text += done.stdout
    return text


def same(text: str | None) -> list[str]:
    """Lines as the page has them: seconds of real time do not count."""
    return [re.sub(r"\d+\.\d\d s", "0.00 s", line.rstrip()) for line in (text or "").splitlines()]


@pytest.mark.slow
@pytest.mark.parametrize("heading", WORLDS)
def test_what_the_page_says_of_a_symptom_is_what_it_shows(heading: str, tmp_path: Path) -> None:
    folder = tmp_path / "mail"
    folder.mkdir()
    found = blocks(SECTIONS[heading])
    clock = VirtualClock()
    clock.set_wall(START)
    world = World(folder, clock, [block.code for block in found if block.asks])
    trio.run(WORLDS[heading], world, clock=clock)
    answers = iter(world.answers)
    for block in found:
        printed = next(answers) if block.asks else run(folder, block)
        if block.output is not None:
            assert same(printed) == same(block.output)
    assert next(answers, None) is None, "a question of the page was not asked"


def cells(heading: str, columns: str) -> list[list[str]]:
    """The rows of a table in a section, each as its cells."""
    _, _, rest = SECTIONS[heading].partition(f"{columns}\n")
    rows = rest.split("\n\n")[0].splitlines()[1:]
    assert rows
    return [[cell.replace("\\|", "|").strip() for cell in re.split(r"(?<!\\)\|", row)[1:-1]] for row in rows]


SWALLOWED = [
    pytest.param(prompt, re.findall(r"`([^`]+)`", better)[0], id=prompt)
    for row, _, better in cells("It says success but nothing happened", "| Prompt | What happens | Write |")
    for prompt in re.findall(r"`([^`]+)`", row)
]


@posix
@pytest.mark.parametrize(("prompt", "better"), SWALLOWED)
async def test_a_prompt_that_hides_its_failure_succeeds_and_the_better_one_does_not(
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


def test_the_answers_of_explain_are_its_own():
    source = (ROOT / "cronactors/ledger/explain.py").read_text(encoding="utf-8")
    for answer, _ in cells("It did not run at all", "| Answer | Meaning |"):
        assert answer.removesuffix(" ...").replace("(misfire)", "({run.cause})") in source, answer


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs Linux")
def test_the_process_that_has_the_database_open_is_shown(tmp_path: Path) -> None:
    (block,) = blocks(SECTIONS["Database is locked"])
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
    commands = [re.findall(r"`(cronactors [^`]+)`", use) for _, use in cells(LOOK, "| To see | Use |")]
    filled = {"NAME": "job", "EXPR": "0 9 * * *", "ZONE": "Europe/Rome"}
    typed = [re.sub(r"[A-Z]{4}", lambda word: filled[word[0]], command) for (command,) in filter(None, commands)]
    assert len(typed) == 4
    assert all(run(tmp_path, Block("sh", f"{command}\n", None)) for command in typed if "lint" not in command)
    found = subprocess.run(
        [*COMMAND, "lint", "agent.toml"], cwd=tmp_path, capture_output=True, text=True, timeout=50, check=False
    )
    assert (found.returncode, found.stdout) == (0, "no findings\n"), found.stderr
