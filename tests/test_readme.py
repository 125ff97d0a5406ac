"""README.md and docs/ are true: their code runs, their links resolve, their numbers and expressions are those of the code."""

from __future__ import annotations

import importlib
import json
import os
import pkgutil
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import trio

import cronactors
from cronactors import Cron, CronConfig, InvalidSchedule, load_config, open_store
from cronactors.actors.stopping import AFTER_GRACE, STOP_LIMIT
from cronactors.cli.database import DATABASE_VARIABLE
from cronactors.ledger import leases
from tests.test_layers import EMPTY, MODULES, PURE, TREES, ours

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
PAGES = [README, *sorted((ROOT / "docs").glob("*.md"))]
TROUBLESHOOTING = ROOT / "docs/troubleshooting.md"  # tests/test_troubleshooting.py runs its code, which needs databases
FACTORS = {"s": 1, "ms": 0.001, "days": 86_400}
IN_MILLISECONDS = {
    "EARLY",
    "MAX_INTERVAL",
    "ONE_SHOT_GRACE",
    "LEASE",
    "HEARTBEAT_EVERY",
    "HEARTBEAT_WHEN_IDLE",
    "HEARTBEAT_WITH_CLAIM",
    "JUMP",
    "STALE",
    "SEEN_WITHIN",
    "NOTIFIED_AHEAD",
}


def marked(name: str) -> str:
    """Return the code between two comment marks of README.md."""
    found = re.findall(rf"<!-- {name} -->\n```python\n(.*?)```\n<!-- /{name} -->", README.read_text(encoding="utf-8"), re.DOTALL)
    assert len(found) == 1, name
    return found[0]


def environment() -> dict[str, str]:
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    ours = {name: value for name, value in os.environ.items() if name != DATABASE_VARIABLE}  # programs of the docs open it
    return {**ours, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1"}


def run(*args: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *args], cwd=cwd, env=environment(), capture_output=True, text=True, timeout=50, check=False
    )


def jobs_and_runs(database: Path) -> tuple[list[str], list[str]]:
    async def read() -> tuple[list[str], list[str]]:
        async with open_store(database, create=False) as store:
            return [job.name for job in await store.list_jobs()], [str(run.status) for run in await store.list_runs()]

    return trio.run(read)


# The code


def assert_test_passes(folder: Path) -> None:
    done = run("-m", "pytest", "-q", "-o", "trio_mode=true", "-p", "no:cacheprovider", "app.py", cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 passed" in done.stdout


# Python ignores Ctrl-C in a process that was started in the background, unless the handler is set again.
AS_TYPED = """
import runpy, signal
signal.signal(signal.SIGINT, signal.default_int_handler)
runpy.run_path("app.py", run_name="__main__")
"""


def start_and_interrupt(folder: Path, runs: int) -> str:
    """Start the embedding example, press Ctrl-C when it has printed a line and so many runs are in the file; return the line."""
    with subprocess.Popen(
        [sys.executable, "-c", AS_TYPED],
        cwd=folder,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        time_limit = threading.Timer(25, process.kill)
        time_limit.start()
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            while jobs_and_runs(folder / "agent.db")[1] != ["success"] * runs:  # it may be the line of the start before
                time.sleep(0.05)
            process.send_signal(signal.SIGINT)
            rest, errors = process.communicate(timeout=20)
        finally:
            time_limit.cancel()
            process.kill()
    assert rest in ("", line), "Ctrl-C may cut off the notifier, which is then called again at the next start"
    assert process.returncode in (-signal.SIGINT, 128 + signal.SIGINT), errors
    assert errors.rstrip().endswith("KeyboardInterrupt")
    assert "ExceptionGroup" not in errors
    return line


@pytest.mark.slow
def test_the_embedding_example_runs_twice_on_one_file(tmp_path):
    (tmp_path / "app.py").write_text(marked("embedding"), encoding="utf-8")
    for count in (1, 2):
        assert start_and_interrupt(tmp_path, count) == "morning-check ok done: Summarize overnight alerts\n"
        assert jobs_and_runs(tmp_path / "agent.db") == (["morning-check"], ["success"] * count)


@pytest.mark.slow
def test_the_example_of_blocking_work_runs(tmp_path):
    use = "\nfrom cronactors.testing import make_context\nprint(trio.run(executor, make_context('x')))\n"
    (tmp_path / "app.py").write_text(marked("thread") + use, encoding="utf-8")
    done = run("app.py", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, "done: x\n"), done.stderr


@pytest.mark.slow
def test_the_example_of_virtual_time_passes(tmp_path):
    (tmp_path / "app.py").write_text(marked("virtual"), encoding="utf-8")
    assert_test_passes(tmp_path)


DOC_CODE = [
    pytest.param(code, output, id=f"{page.name}-{number}")
    for page in PAGES
    if page not in (README, TROUBLESHOOTING)
    for number, (code, output) in enumerate(
        re.findall(r"```python\n(.*?)```(?:\n\n```\n(.*?)```)?", page.read_text(encoding="utf-8"), re.DOTALL), 1
    )
]


@pytest.mark.slow
@pytest.mark.parametrize(("code", "output"), DOC_CODE)
def test_the_code_of_the_docs_runs_and_prints_the_output_below_it(code, output, tmp_path):
    (tmp_path / "app.py").write_text(code, encoding="utf-8")
    done = run("-W", "error", "app.py", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    if output:
        assert done.stdout.replace(" \n", "\n") == output
    if "async def test_" in code:
        assert_test_passes(tmp_path)


def test_the_agent_toml_of_the_docs_can_be_loaded(tmp_path):
    whole, shell = re.findall(r"```toml\n(.*?)```", (ROOT / "docs/cli.md").read_text(encoding="utf-8"), re.DOTALL)
    (tmp_path / "agent.toml").write_text(whole, encoding="utf-8")
    config = load_config(tmp_path / "agent.toml")
    assert config.timezone == "Europe/Rome"
    assert [job.name for job in config.jobs] == ["disk"]
    (tmp_path / "agent.toml").write_text(shell, encoding="utf-8")
    shells = {job.name: job.executor_options["shell"] for job in load_config(tmp_path / "agent.toml").jobs}
    assert shells == {"nightly": "/bin/bash", "disk": "/bin/sh"}


def test_the_dockerfile_of_the_docs_runs_the_command_without_a_shell():
    (text,) = re.findall(r"```dockerfile\n(.*?)```", (ROOT / "docs/containers.md").read_text(encoding="utf-8"), re.DOTALL)
    lines = dict(line.split(maxsplit=1) for line in text.splitlines())
    assert json.loads(lines["CMD"]) == ["cronactors", "run"]  # Docker would run a string by a shell
    assert lines["ENV"].split("=")[0] == DATABASE_VARIABLE
    assert lines["ENV"].split("=")[1].startswith(lines["VOLUME"])


def test_each_pair_of_marks_in_the_readme_holds_one_command():
    text = README.read_text(encoding="utf-8")
    for name, begins in (("run-it", "# run it"), ("test-it", "# test it")):
        (block,) = re.findall(rf"<!-- {name} -->\n```sh\n(.*?)```\n<!-- /{name} -->", text, re.DOTALL)
        comment, command = block.splitlines()
        assert comment.startswith(begins)
        assert command.startswith("python3 -m venv .venv && .venv/bin/pip install -q -e ")


# Promise and links


def quoted(page: Path) -> str:
    found = re.search(r"(?:^> .*\n)+", page.read_text(encoding="utf-8"), re.MULTILINE)
    assert found is not None
    return found[0]


def test_the_promise_is_the_same_in_both_places():
    assert quoted(README) == quoted(ROOT / "docs/promise.md")
    assert "A job that `add_job` returned is never lost." in quoted(README)


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_internal_links_resolve(page):
    targets = re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8"))
    for target in targets:
        if re.match(r"\w+:", target):
            continue
        name, _, anchor = target.partition("#")
        file = (page.parent / name).resolve() if name else page
        assert file.is_file(), target
        assert not anchor or anchor in anchors(file), target


def test_every_page_is_linked_from_the_readme():
    text = README.read_text(encoding="utf-8")
    assert [page.name for page in PAGES[1:] if f"(docs/{page.name})" not in text] == []


# The numbers and the expressions


def constants() -> dict[str, set[float]]:
    """Return the numeric constants of all modules, by name: an upper-case name may have several values."""
    found: dict[str, set[float]] = {}
    for module in pkgutil.walk_packages(cronactors.__path__, "cronactors."):
        if module.name.startswith("cronactors.cli"):
            continue
        for name, value in vars(importlib.import_module(module.name)).items():
            if name.isupper() and isinstance(value, int | float):
                found.setdefault(name, set()).add(value)
    return found


def test_the_limits_of_the_docs_are_those_of_the_code():
    rows = re.findall(
        r"^\|.*\| ([\d,.]+) (\w+) \| `(\w+)` \|$", (ROOT / "docs/limits.md").read_text(encoding="utf-8"), re.MULTILINE
    )
    assert len(rows) > 20
    known = constants()
    for number, unit, name in rows:
        written = float(number.replace(",", "")) * FACTORS.get(unit, 1)
        in_code = {value / 1000 if name in IN_MILLISECONDS else value for value in known[name]}
        assert in_code == {written}, name


SENTENCES = [
    ("docs/promise.md", "when its lease has run out: {LEASE} s after its last heartbeat"),
    ("docs/promise.md", "For {LEASE} s after either, and after a start, no lease is trusted."),
    ("docs/promise.md", "an idle process gives one every {HEARTBEAT_WHEN_IDLE} s."),
    ("docs/limits.md", "lasts at most {STOP_LIMIT} s by default"),
    ("docs/limits.md", "So a stop lasts at most `max({STOP_LIMIT}, shutdown_grace + {AFTER_GRACE})` seconds."),
    ("docs/promise.md", "share what is left of {STOP_LIMIT} s from the beginning, or of {AFTER_GRACE} s beyond a longer grace"),
    ("docs/promise.md", "and at least {LEAST_LEFT} s after the last executor has ended."),
    ("docs/architecture.md", "wall clock and trio's have gone evenly for {LEASE} s:"),
]


@pytest.mark.parametrize(("page", "sentence"), SENTENCES)
def test_periods_in_sentences_of_the_docs_are_those_of_the_code(page, sentence):
    text = " ".join((ROOT / page).read_text(encoding="utf-8").split())
    known = {
        name: f"{next(iter(values)) / (1000 if name in IN_MILLISECONDS else 1):g}"
        for name, values in constants().items()
        if values
    }
    assert sentence.format(**known) in text


def test_how_long_a_process_may_be_stopped_follows_from_the_leases():
    longest_stop = (leases.LEASE - leases.HEARTBEAT_EVERY - leases.HEARTBEAT_WITH_CLAIM) / 1000
    oldest = (leases.HEARTBEAT_EVERY + leases.HEARTBEAT_WITH_CLAIM) / 1000
    text = " ".join((ROOT / "docs/promise.md").read_text(encoding="utf-8").split())
    assert f"a heartbeat is at most {oldest:g} s old, so that a process which is stopped for {longest_stop:g} s" in text


def test_the_proposed_graces_fit_into_the_time_that_platforms_grant():
    rows = table_rows("docs/limits.md", "| Platform | Kills after SIGTERM after | To change it | `shutdown_grace`, at most |")
    assert len(rows) == 3
    for row in rows:
        cells = row.split("|")
        grants, grace = (float(re.findall(r"\d+", cells[column])[0]) for column in (2, 4))
        assert max(STOP_LIMIT, grace + AFTER_GRACE) + 2 <= grants, row  # 2 s for the interpreter to exit
    text = (ROOT / "docs/limits.md").read_text(encoding="utf-8")
    assert f"`shutdown_grace` by default | {CronConfig().shutdown_grace:g} s |" in text


def table_rows(page: str, heading: str) -> list[str]:
    """Return the rows of the table with this heading row."""
    _, _, rest = (ROOT / page).read_text(encoding="utf-8").partition(f"{heading}\n")
    rows = rest.split("\n\n")[0].splitlines()[1:]
    assert rows
    return rows


def table(page: str, heading: str) -> list[str]:
    """Return the texts in backticks of the first column of a table."""
    return [code for row in table_rows(page, heading) for code in re.findall(r"`([^`]+)`", row.split("|")[1])]


def test_the_layers_of_the_docs_are_those_of_the_code():
    rows = [re.findall(r"`([^`]+)`", row.split("|")[1]) for row in table_rows("docs/architecture.md", "| Modules | |")]
    named = {"__init__": "cronactors", "cli/": "cli"}
    layers = [[named.get(module, module.replace("/", ".")) for module in row] for row in rows]
    order = [module for row in layers for module in row]
    assert sorted(order) == sorted({"cli" if name.startswith("cli") else name for name in MODULES} - EMPTY)
    assert {module for row in layers[:3] for module in row} == PURE
    for module in order:
        above = order[: order.index(module)]
        if module != "cli":
            assert set(ours(TREES[module])) <= set(above), module


def test_the_files_to_touch_exist():
    files = re.findall(r"`([\w/]+\.(?:py|md|sql))`", "\n".join(table_rows("docs/architecture.md", "| To add | Touch |")))
    assert len(files) > 30
    missing = [file for file in files if not (ROOT / file).is_file() and not (ROOT / "cronactors" / file).is_file()]
    assert missing == []


def test_the_expressions_of_the_docs_are_accepted_or_refused_as_stated():
    accepted = table("docs/schedules.md", "| Expression | Meaning |")
    refused = table("docs/schedules.md", "| Expression | Why |")
    assert len(accepted) > 20
    assert len(refused) > 15
    for expr in accepted:
        Cron(expr)
    for expr in refused:
        with pytest.raises(InvalidSchedule):
            Cron(expr)
