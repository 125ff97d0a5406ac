"""A fault at every SQL statement of a job's life: the file has the old state or the new one, and the job continues."""

from __future__ import annotations

import json
import random
import subprocess
from collections import defaultdict
from collections.abc import Callable, Iterator
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import attrs
import pytest

from cronactors.instants import to_millis
from tests.chaos import fault_scenario
from tests.chaos.fault_scenario import ENDINGS, MOMENT, SCHEDULES, Life
from tests.chaos.faults import EXIT_CODE, EXITS, FAILS, Faults, State, committed, in_memory, talking
from tests.chaos.judge import judge, read_database
from tests.chaos.sizes import quick_and_full

QUICK = 110
_STATUS = 10  # its position among the columns of runs


@attrs.frozen
class Case:
    """A fault: the life, the statement, and how it fails."""

    kind: str
    ending: str
    at: int
    how: str
    statement: str
    expected: State

    def __str__(self) -> str:
        return f"{self.kind}, {self.ending}: statement {self.at} {self.how}: {self.statement[:60]}"


def cases_of(kind: str, ending: str) -> list[Case]:
    """Return every statement of an undisturbed life until its first moment has an outcome, each with every fault."""
    with in_memory() as folder:
        life = Life(folder)
        plain = Faults(life.db)
        life.live(kind, ending, plain)
    wanted = 1 if ending == "success" else 2
    last = next(n for n, state in enumerate(plain.states) if ended(state) == wanted)
    changes = sum(before != after for before, after in pairwise(plain.states[: last + 1]))
    assert changes == 1 + 2 * wanted, "adding, each claim and each finish are one step each"
    return [
        Case(kind, ending, at, how, statement, plain.states[at + (how in ("works, then fails", "exits after"))])
        for (at, statement), how in product(enumerate(plain.seen[:last]), FAILS + EXITS)
    ]


def ended(state: State) -> int:
    named = state[3]
    assert isinstance(named, dict)
    return sum(row[_STATUS] in ("success", "failed") for row in named["runs"])


class Server:
    """Carries out lives in processes of their own, which may exit half-way."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def live(self, folder: Path, case: Case) -> int:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        asked = {"folder": str(folder), "kind": case.kind, "ending": case.ending, "at": case.at, "how": case.how}
        print(json.dumps(asked), file=self._process.stdin, flush=True)
        return int(self._process.stdout.readline())


@pytest.fixture
def server() -> Iterator[Server]:
    with talking(fault_scenario.__file__) as process:
        yield Server(process)


@quick_and_full("each", False, True)
def test_a_fault_at_any_statement_leaves_the_old_state_or_the_new_one_and_loses_nothing(
    each: bool, seed: int, figures: Callable[[str], None], server: Server
):
    chance = random.Random(seed)
    cases = [case for kind, ending in product(SCHEDULES, ENDINGS) for case in cases_of(kind, ending)]
    chosen = cases if each else chance.sample(one_of_a_sort(cases, chance), QUICK)
    changed = 0
    for case in chosen:
        try:
            changed += check(case, server)
        except BaseException as error:
            error.add_note(str(case))
            raise
    figures(
        f"{len(chosen)} of {len(cases)} faults (statement x fault x kind of schedule x ending), "
        f"0 between old and new, 0 moments lost; {changed} had more attempts than an undisturbed life"
    )


def one_of_a_sort(cases: list[Case], chance: random.Random) -> list[Case]:
    """Choose one life for each pair of statement and fault."""
    sorts: dict[tuple[str, str], list[Case]] = defaultdict(list)
    for case in cases:
        sorts[case.statement, case.how].append(case)
    return [chance.choice(sort) for sort in sorts.values()]


def check(case: Case, server: Server) -> bool:
    """Cause the fault; return whether a run was interrupted by it, and retried."""
    with in_memory() as folder:
        life = Life(folder)
        if case.how in EXITS:
            assert server.live(folder, case) == EXIT_CODE
            assert committed(life.db) == case.expected
        else:
            faults = Faults(life.db, case.at, case.how)
            life.live(case.kind, case.ending, faults)
            assert faults.seen[case.at] == case.statement
            assert faults.afterwards == case.expected
            judge(life.db, life.ledger, acknowledged=life.acknowledged)  # a claim whose result was lost has an outcome too
        life.live_on()
        judge(life.db, life.ledger, acknowledged=life.acknowledged)
        return check_first_moment(case, life)


def check_first_moment(case: Case, life: Life) -> bool:
    """Check that the first moment has its outcome, or was merged after a crash, if the job was added; see `check`."""
    jobs, rows = read_database(life.db)
    if not jobs:
        assert case.how in EXITS
        assert not life.acknowledged
        return False
    moment = to_millis(MOMENT)
    attempts: list[Any] = [row for row in rows if row.at == moment]
    if not attempts:  # nothing was running when it came, and it was merged
        assert case.kind != "one-shot"
        assert case.how in EXITS
        assert any(row.coalesced > 1 for row in rows)
        return False
    last = attempts[-1]
    if case.ending == "success":
        assert (last.status, last.cause) == ("success", None)
    elif last.status != "cancelled" or last.cause != "replaced":  # the next moment replaces a retry
        assert (last.status, last.cause) == ("failed", case.ending)
        assert sum(row.cause == case.ending for row in attempts) == 2
    return any(row.cause == "interrupted" for row in attempts)
