"""What the scenarios of all peers share: planned moments, lateness, an idle while, files that hold many jobs."""

from __future__ import annotations

import gc
import math
import os
import resource
import sqlite3
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import measuring

DAYS_1000 = 86_400_000  # seconds


def database(folder: str) -> Path:
    return Path(folder) / "bench.db"


def planned(count: int, *, margin: float = 3) -> list[float]:
    """Moments for one-shots at 50 a second, in seconds since 1970; the margin leaves time to add them."""
    start = math.ceil(time.time() + margin)
    return [start + number / 50 for number in range(count)]


def ten_seconds(first: int, runs: Iterable[tuple[float, float]]) -> list[tuple[float, float]]:
    """The runs whose planned moment is one of ten from ``first`` on, and which began within 10.9 s from one second before it."""
    return [(due, began) for due, began in runs if first <= due < first + 10 and began < first + 9.9]


def of_lateness(runs: Sequence[tuple[float, float]], cpu_s: float) -> dict[str, Any]:
    """Figures of runs given as (due, began), in seconds since 1970."""
    late = [(began - due) * 1000 for due, began in runs]
    if not late:
        return {"runs": 0, "cpu_s": cpu_s}
    return {"runs": len(late), "p50_ms": measuring.quantile(late, 0.5), "p99_ms": measuring.quantile(late, 0.99), "cpu_s": cpu_s}


def cpu_during(until: float) -> float:
    """Sleep until a wall time and answer what the other threads of this process used meanwhile, in seconds."""
    used = time.process_time()
    time.sleep(max(0, until - time.time()))
    return time.process_time() - used


def of_idling(ready_s: float, cpu_s: float, seconds: float) -> dict[str, Any]:
    rss_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"ready_ms": ready_s * 1000, "idle_cpu_percent": 100 * cpu_s / seconds, "rss_mb": rss_mb}


def idle(began: float, seconds: float) -> dict[str, Any]:
    """Called when ready: do nothing for a while. ``began`` is a value of ``time.perf_counter``."""
    ready = time.perf_counter() - began
    gc.collect()
    return of_idling(ready, cpu_during(time.time() + seconds), seconds)


def in_child(function: Callable[..., object], *arguments: object) -> None:
    """Prepare a file in another process, which leaves neither memory nor threads behind in this one."""
    child = os.fork()
    if child == 0:
        try:
            function(*arguments)
        except BaseException as error:  # noqa: BLE001
            print(f"could not prepare: {error!r}", flush=True)
            os._exit(1)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0


def multiply(file: Path, table: str, key: str, moment: str, count: int, *, per_s: int = 1) -> None:
    """Copy the one job that the peer itself stored, until there are ``count``; ``per_s`` is the unit of its column of moments.

    Adding them one by one would take some peers minutes. Ids and moments differ from row to row; what else a row holds does not
    matter to a peer that has nothing to run.
    """
    with closing(sqlite3.connect(file)) as db, db:
        kinds = {name: kind for _, name, kind, *_ in db.execute(f"PRAGMA table_info({table})")}
        values = {name: f'"{name}"' for name in kinds}
        values[key] = "n" if kinds[key].upper() == "INTEGER" else "printf('%032x', n)"
        values[moment] = f'"{moment}" + n * {per_s}'
        db.execute(
            f"WITH RECURSIVE c(n) AS (SELECT 2 UNION ALL SELECT n + 1 FROM c WHERE n < {count}) "
            f"INSERT INTO {table} SELECT {', '.join(values.values())} FROM {table}, c"
        )
        (stored,) = db.execute(f"SELECT count(*) FROM {table}").fetchone()
        assert stored == count


def wait_for(runs: Sequence[object], file: Path, count: int, query: str) -> None:
    """Until ``count`` runs have begun, and then until a query says that as many are recorded."""
    while len(runs) < count:
        time.sleep(0.01)
    db = sqlite3.connect(file)
    while db.execute(query).fetchone()[0] < count:
        time.sleep(0.005)
    db.close()


def full_and_wal(engine: Any) -> None:
    """Say to an SQLAlchemy engine how its connections write: WAL, and a sync for every commit."""
    from sqlalchemy import event  # noqa: PLC0415 -- Huey's environment has none

    @event.listens_for(engine, "connect")
    def _(connection: Any, _record: object) -> None:
        cursor = connection.cursor()
        cursor.execute("PRAGMA journal_mode = WAL")
        cursor.execute("PRAGMA synchronous = FULL")
        cursor.close()
