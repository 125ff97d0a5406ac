"""Scenarios of other schedulers, the same as in ours.py, each in an environment of its own.

python benchmarks/peers.py --prepare [PEER]
python benchmarks/peers.py PEER SCENARIO [NUMBER ...]

The first creates all environments under benchmarks/.venvs, or one; the second creates the one it needs if it is missing. Figures are one line
of JSON with the keys of ours.py; ``note`` explains in words how a figure differs, and ``error`` is the only key where the peer has no
such feature. The settings of each peer are in the docstring of its module in benchmarks/peers. Versions are pinned here.
Procrastinate needs a PostgreSQL server, which postgres.py starts for it.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import venv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
LIMIT_S = 120  # after this long (s) a scenario and all its children are killed

REQUIREMENTS = {
    "apscheduler3": ["APScheduler==3.11.3", "SQLAlchemy==2.1.9", "tzlocal==5.4.5"],
    "apscheduler4": [
        "APScheduler==4.0.0a6",
        "SQLAlchemy==2.1.9",
        "aiosqlite==0.22.1",
        "anyio==4.16.0",
        "greenlet==3.5.6",  # SQLAlchemy's asynchronous engines
        "sniffio==1.3.1",  # imported, and no longer a dependency of anyio
    ],
    "huey": ["huey==3.5.4"],
    "procrastinate": ["procrastinate==3.10.0", "psycopg[binary]==3.3.9"],
    "dbos": ["dbos==3.4.0", "SQLAlchemy==2.1.9", "croniter==7.0.0"],
}


def python_of(peer: str) -> Path:
    return HERE / ".venvs" / peer / "bin" / "python"


def prepare(peer: str) -> None:
    """Create the environment of a peer, unless it is there with exactly these versions."""
    folder, wanted = HERE / ".venvs" / peer, "\n".join(REQUIREMENTS[peer])
    stamp = folder / "installed.txt"
    if stamp.exists() and stamp.read_text() == wanted:
        return
    print(f"preparing {folder.relative_to(HERE)}", file=sys.stderr)
    venv.create(folder, with_pip=True, clear=True)
    pip = [str(python_of(peer)), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, *REQUIREMENTS[peer]], check=True, stdout=sys.stderr)
    stamp.write_text(wanted)


def measure(peer: str, arguments: Sequence[str]) -> dict[str, Any]:
    """Return the figures of one scenario, which runs in a process of its own. Its files are removed even if it is killed."""
    with tempfile.TemporaryDirectory() as folder:
        return started(peer, arguments, folder)


def started(peer: str, arguments: Sequence[str], folder: str) -> dict[str, Any]:
    command = [str(python_of(peer)), str(HERE / "peers" / f"with_{peer}.py"), *arguments]
    child = subprocess.Popen(
        command,
        env={**os.environ, "PYTHONPATH": str(HERE), "TMPDIR": folder},  # for measuring.py
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        output, errors = child.communicate(timeout=LIMIT_S)
    except subprocess.TimeoutExpired:
        return {"error": f"not done after {LIMIT_S} s"}
    finally:
        end(child)
    if child.returncode:
        return {"error": (errors.strip().splitlines() or ["it ended without a word"])[-1]}
    figures: dict[str, Any] = json.loads(output.splitlines()[-1])
    return figures


def end(child: subprocess.Popen[str]) -> None:
    """Kill all that is left of a scenario, its children too."""
    try:
        os.killpg(child.pid, signal.SIGKILL)
    except ProcessLookupError:
        return
    child.wait()


def main(arguments: Sequence[str]) -> None:
    if arguments[:1] == ["--prepare"]:
        for peer in arguments[1:] or REQUIREMENTS:
            prepare(peer)
    elif len(arguments) > 1 and arguments[0] in REQUIREMENTS:
        peer, *rest = arguments
        prepare(peer)
        print(json.dumps(measure(peer, rest)))
    else:
        sys.exit(f"--prepare, or one of {', '.join(REQUIREMENTS)} and a scenario")


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # which ends the scenario too
    main(sys.argv[1:])
