"""Helpers of all benchmarks: figures as JSON, quantiles, imports and memory of other processes, processes that start together."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any


def answer(arguments: Sequence[str], *functions: Callable[..., dict[str, Any]]) -> None:
    """Call the function that the first argument names, with the other arguments as numbers, and print its figures as JSON."""
    scenarios = {function.__name__: function for function in functions}
    if not arguments or arguments[0] not in scenarios:
        sys.exit(f"one of: {', '.join(scenarios)}")
    name, *numbers = arguments
    print(json.dumps(scenarios[name](*map(int, numbers))))


def quantile(values: Sequence[float], part: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(part * len(ordered)))]


def import_ms(module: str, times: int = 11) -> float:
    """Return the median time (ms) of an import in a fresh process, less that of an empty one. Byte code is there, as in any installation."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}

    def once(code: str) -> float:
        began = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], check=True, env=environment)
        return (time.perf_counter() - began) * 1000

    once(f"import {module}")  # writes the byte code
    pairs = [(once("pass"), once(f"import {module}")) for _ in range(times)]
    return statistics.median(full - empty for empty, full in pairs)


def rss_of(code: str) -> float:
    """Return the largest resident memory (MB) of a program."""
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport resource\nprint(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"],
        check=True,
        capture_output=True,
        text=True,
    )
    return int(done.stdout.split()[-1]) / 1024


def run(command: Sequence[str], *, limit: float = 900) -> Any:
    """Return the figures that another process prints."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=limit, check=False)
    if done.returncode:
        return {"error": (done.stderr.strip().splitlines() or ["it ended without a word"])[-1]}
    return json.loads(done.stdout.splitlines()[-1])


# Processes that start together: each says that it is ready, and then waits for a line.


def wait_for_start() -> None:
    """Say that this process is ready, and wait for a line."""
    print("ready", flush=True)
    sys.stdin.readline()


def ready(commands: Sequence[Sequence[str]]) -> list[subprocess.Popen[str]]:
    """Start processes, and wait until all of them are ready."""
    children = [subprocess.Popen(each, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for each in commands]
    for child in children:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
    return children


def released(children: Sequence[subprocess.Popen[str]], *, limit: float = 300) -> list[Any]:
    """Send each process its line, and return the figures that they print."""
    for child in children:
        assert child.stdin is not None
        child.stdin.write("\n")
        child.stdin.flush()
    outputs = [child.communicate(timeout=limit)[0] for child in children]
    assert not any(child.returncode for child in children)
    return [json.loads(output.splitlines()[-1]) for output in outputs]
