"""Run all scenarios in turn, several rounds: medians, ratios, and a table of goals.

python benchmarks/bench.py                     the limits of this machine, and cronactors (some 15 minutes)
python benchmarks/bench.py --peers             the peers too; their environments are created first (see peers.py)
python benchmarks/bench.py --only throughput   scenarios with this in their name
python benchmarks/bench.py --rounds 1 --quick  a quick check with smaller sizes

Each scenario is a process of its own. The figures go to results.json, the table to the terminal.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import sqlite3
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import measuring

HERE = Path(__file__).parent
RESULTS = HERE / "results.json"
PEERS = ("apscheduler3", "apscheduler4", "huey", "dbos")
PEER_SCENARIOS = ("throughput", "lateness", "add_sequential", "stored", "weight", "every_second")

Figures = dict[str, dict[str, Any]]
"""The medians of a scenario's figures, by its name."""


class Scenario(NamedTuple):
    """A process that is started once a round.

    Attributes:
        name: The key of its figures.
        command: The script and its arguments.
        pinned: Whether it runs on one processor only.
        rounds: In how many of the last rounds it runs: few if it is large, or leaves the machine busy for a while.
    """

    name: str
    command: tuple[str, ...]
    pinned: bool = False
    rounds: int = 99


def ours(name: str, *numbers: int, label: str = "", pinned: bool = False, rounds: int = 99) -> Scenario:
    return Scenario(f"ours {name}{label}", ("ours.py", name, *map(str, numbers)), pinned, rounds)


def limit(name: str, *numbers: int, label: str = "", pinned: bool = False) -> Scenario:
    return Scenario(f"limit {name}{label}", ("limits.py", name, *map(str, numbers)), pinned)


def plan(*, quick: bool, peers: bool) -> Iterator[Scenario]:
    """Yield the scenarios. Those that are compared follow each other, when the machine is in the same state."""
    for pinned in (True, False) if shutil.which("taskset") else (False,):
        where = " pinned" if pinned else ""
        for slots in (100, 1):
            yield limit("bare_actor", slots, label=f" {slots}{where}", pinned=pinned)
            yield ours("throughput", slots, label=f" {slots}{where}", pinned=pinned)
    for variant in ("throughput", "throughput_with_notifier", "throughput_with_on_finish"):
        yield ours(variant, 100, label=" compared")
    for slots in (3, 10, 30, 300):
        yield limit("bare_actor", slots, label=f" {slots}")
        yield ours("throughput", slots, label=f" {slots}")
    yield limit("timers")
    yield ours("lateness")
    yield ours("every_second")
    yield limit("raw_commits")
    yield limit("hopped_commits")
    yield ours("add_sequential")
    yield ours("add_concurrent")
    yield limit("raw_bulk")
    yield ours("add_bulk")
    yield ours("burst")
    yield ours("heartbeat")
    yield limit("trio_alone")
    yield ours("weight")
    largest = 100_000 if quick else 1_000_000
    for stored in (1_000, 100_000, largest):
        yield ours("stored", stored, label=f" {stored}")
        yield ours("throughput", 100, 10_000, stored, label=f" beside {stored}")
    yield ours("history", 10 * largest, label=" long", rounds=1)
    for scenario in PEER_SCENARIOS if peers else ():
        for peer in PEERS:
            disturbing = (peer, scenario) == ("dbos", "every_second")
            yield Scenario(f"{peer} {scenario}", ("peers.py", peer, scenario), rounds=1 if disturbing else 99)


def measure(scenarios: list[Scenario], rounds: int) -> dict[str, list[dict[str, Any]]]:
    taken: dict[str, list[dict[str, Any]]] = {scenario.name: [] for scenario in scenarios}
    for number in range(rounds):
        for scenario in scenarios:
            if number < rounds - scenario.rounds:
                continue
            os.sync()  # or writes that the last scenario has left would disturb this one
            pin = ["taskset", "-c", "0"] if scenario.pinned else []
            began = time.perf_counter()
            figures = measuring.run([*pin, sys.executable, str(HERE / scenario.command[0]), *scenario.command[1:]])
            taken[scenario.name].append(figures)
            shown = ", ".join(f"{key} {show(value)}" for key, value in figures.items())
            print(f"{number + 1}/{rounds} {scenario.name}: {shown} ({time.perf_counter() - began:.0f} s)", flush=True)
    return taken


def medians(taken: dict[str, list[dict[str, Any]]]) -> Figures:
    """Return the median of each figure over the rounds, or the error of a scenario that failed in all of them."""
    found: Figures = {}
    for name, rounds in taken.items():
        good = [figures for figures in rounds if "error" not in figures]
        if good:
            numbers = [key for key, first in good[0].items() if isinstance(first, int | float)]  # not the notes
            found[name] = {key: statistics.median(figures[key] for figures in good) for key in numbers}
        elif rounds:
            found[name] = rounds[0]
    return found


def show(value: object) -> str:
    if not isinstance(value, int | float):
        return str(value)
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


class Goal(NamedTuple):
    """A row of the table: a figure, the value that it must reach, the value to aim at, and whether more is better."""

    name: str
    must: float
    aim: float | None
    measure: Callable[[Figures], float]
    more: bool = True
    unit: str = ""


def ratio(over: str, under: str, key: str) -> Callable[[Figures], float]:
    return lambda f: f[over][key] / f[under][key]


def value(name: str, key: str) -> Callable[[Figures], float]:
    return lambda f: f[name][key]


def above(name: str, base: str, key: str) -> Callable[[Figures], float]:
    return lambda f: f[name][key] - f[base][key]


def _spread(key: str) -> Callable[[Figures], float]:
    def spread(f: Figures) -> float:
        sizes = [figures[key] for name, figures in f.items() if name.startswith("ours stored")]
        return max(sizes) - min(sizes)

    return spread


def _worst(key: str) -> Callable[[Figures], float]:
    return lambda f: max(figures[key] for name, figures in f.items() if name.startswith("ours stored"))


def _largest(f: Figures) -> float:
    beside = {int(name.rsplit(" ", 1)[1]): figures for name, figures in f.items() if name.startswith("ours throughput beside")}
    return beside[max(beside)]["runs_per_s"] / beside[1_000]["runs_per_s"]


GOALS = (
    Goal("1 throughput, 100 slots / bare actor", 0.5, 0.8, ratio("ours throughput 100", "limit bare_actor 100", "runs_per_s")),
    Goal(
        "1 the same, on one processor",
        0.5,
        0.8,
        ratio("ours throughput 100 pinned", "limit bare_actor 100 pinned", "runs_per_s"),
    ),
    Goal("1 throughput, 1 slot / bare actor", 1.0, 1.5, ratio("ours throughput 1", "limit bare_actor 1", "runs_per_s")),
    Goal(
        "1 the same, on one processor",
        1.0,
        1.5,
        ratio("ours throughput 1 pinned", "limit bare_actor 1 pinned", "runs_per_s"),
    ),
    Goal(
        "1 throughput with a notifier / without",
        0.6,
        0.9,
        ratio("ours throughput_with_notifier compared", "ours throughput compared", "runs_per_s"),
    ),
    Goal(
        "1 throughput with an on_finish / without",
        0.6,
        0.9,
        ratio("ours throughput_with_on_finish compared", "ours throughput compared", "runs_per_s"),
    ),
    Goal("2 lateness at 50/s, p99 over the timer's", 1.5, 0.7, above("ours lateness", "limit timers", "p99_ms"), False, "ms"),
    Goal("2 1,000 due each second: runs of 10,000", 10_000, None, value("ours every_second", "runs")),
    Goal("2 their lateness, p99", 100, 60, value("ours every_second", "p99_ms"), False, "ms"),
    Goal("2 their CPU for 10 s", 2, 1, value("ours every_second", "cpu_s"), False, "s"),
    Goal("3 adds one by one / raw commits", 0.4, None, ratio("ours add_sequential", "limit raw_commits", "adds_per_s")),
    Goal("3 adds of 100 callers", 8_000, 15_000, value("ours add_concurrent", "adds_per_s"), True, "/s"),
    Goal("3 adds in one call of 10,000", 40_000, 100_000, value("ours add_bulk", "adds_per_s"), True, "/s"),
    Goal("4 ready, with up to 1,000,000 stored", 50, None, _worst("ready_ms"), False, "ms"),
    Goal("4 idle CPU", 0.1, None, _worst("idle_cpu_percent"), False, "%"),
    Goal("4 memory, most less least", 5, None, _spread("rss_mb"), False, "MB"),
    Goal("4 throughput beside the most stored / 1,000", 0.85, None, _largest),
    Goal(
        "4 throughput beside the longest history / none",
        0.85,
        None,
        lambda f: f["ours history long"]["runs_per_s"] / f["ours history long"]["without_runs_per_s"],
    ),
    Goal("6 import / import trio", 1.7, None, ratio("ours weight", "limit trio_alone", "import_ms"), False),
    Goal("6 memory of an idle scheduler over trio", 12, None, above("ours weight", "limit trio_alone", "rss_mb"), False, "MB"),
    Goal("7 heartbeat during 1, p99", 20, None, value("ours heartbeat", "heartbeat_p99_ms"), False, "ms"),
)


def table(figures: Figures, goals: Sequence[Goal] = GOALS) -> Iterator[str]:
    """Yield the goals whose scenarios were run, as lines of Markdown."""
    yield "| what | must | aim | measured | reached |"
    yield "|---|---|---|---|---|"
    for goal in goals:
        try:
            got = goal.measure(figures)
        except (KeyError, ValueError):
            continue
        reached = [
            bound for bound in (goal.must, goal.aim) if bound is not None and (got >= bound if goal.more else got <= bound)
        ]
        word = "falls short" if goal.must not in reached else "aim" if goal.aim in reached else "must"
        unit = f" {goal.unit}" if goal.unit else ""
        aim = "" if goal.aim is None else f"{show(goal.aim)}{unit}"
        yield f"| {goal.name} | {show(goal.must)}{unit} | {aim} | {show(got)}{unit} | {word} |"


def peers_table(figures: Figures) -> Iterator[str]:
    yield f"| | {' | '.join(('cronactors', *PEERS))} |"
    yield "|---|" + "---|" * (len(PEERS) + 1)
    for scenario in PEER_SCENARIOS:
        mine = {"throughput": "ours throughput 100", "stored": "ours stored 100000"}.get(scenario, f"ours {scenario}")
        for key in figures.get(mine, {}):
            cells = [figures.get(name, {}).get(key) for name in (mine, *(f"{peer} {scenario}" for peer in PEERS))]
            if any(cell is not None for cell in cells[1:]):
                yield f"| {scenario}: {key} | {' | '.join('-' if cell is None else show(cell) for cell in cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default="")
    parser.add_argument("--peers", action="store_true")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--table", action="store_true", help="only show what was measured last")
    chosen = parser.parse_args()
    if not chosen.table:
        scenarios = [each for each in plan(quick=chosen.quick, peers=chosen.peers) if chosen.only in each.name]
        taken = measure(scenarios, chosen.rounds)
        machine = f"{platform.machine()}, Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}"
        RESULTS.write_text(json.dumps({"machine": machine, "rounds": taken}, indent=1) + "\n")
    stored = json.loads(RESULTS.read_text())
    figures = medians(stored["rounds"])
    print(stored["machine"], *table(figures), "", *peers_table(figures), sep="\n")


if __name__ == "__main__":
    main()
