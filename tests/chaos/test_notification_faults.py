"""A fault at every SQL statement of a scheduler that notifies: each finish reaches each receiver, in order, and nothing else does."""

from __future__ import annotations

import json
import random
from collections import defaultdict
from collections.abc import Callable
from itertools import product

from cronactors import Cause, CronRun, RunStatus
from tests.chaos import notification_scenario
from tests.chaos.faults import EXIT_CODE, EXITS, FAILS, Faults, in_memory, talking
from tests.chaos.notification_scenario import Life
from tests.chaos.sizes import quick_and_full

RECEIVERS = {"notifier", "on_finish"}


def statements() -> list[str]:
    """Return the statements of an undisturbed life, and check that it calls nothing twice."""
    with in_memory() as folder:
        life = Life(folder)
        faults = Faults(life.db, at=10**9)
        life.live(faults)
        check(life, life.live_on())
        for receiver, steps in life.calls().items():
            assert len(steps["accepted"]) == len(set(steps["accepted"])), receiver
        return faults.seen


@quick_and_full("each", False, True)
def test_a_fault_at_any_statement_loses_no_notification_and_keeps_their_order(
    each: bool, seed: int, figures: Callable[[str], None]
):
    chance = random.Random(seed)
    cases = list(product(enumerate(statements()), FAILS + EXITS))
    if not each:
        sorts: dict[tuple[str, str], list[tuple[tuple[int, str], str]]] = defaultdict(list)
        for (at, statement), how in cases:
            sorts[statement, how].append(((at, statement), how))
        lost_answers = sorts.pop(("COMMIT", "works, then fails"))
        cases = [chance.choice(sort) for sort in sorts.values()]
        chance.shuffle(cases)
        cases = cases[:60] + chance.sample(lost_answers, 20)
    twice = 0
    with talking(notification_scenario.__file__) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for (at, statement), how in cases:
            with in_memory() as folder:
                life = Life(folder)
                try:
                    if how in EXITS:
                        print(json.dumps({"folder": str(folder), "at": at, "how": how}), file=process.stdin, flush=True)
                        assert int(process.stdout.readline()) == EXIT_CODE
                    else:
                        check(life, life.live(Faults(life.db, at, how)))
                    check(life, life.live_on())
                except BaseException as error:
                    error.add_note(f"statement {at} {how}: {statement[:100]}")
                    raise
                twice += sum(len(steps["accepted"]) - len(set(steps["accepted"])) for steps in life.calls().values())
    figures(f"{len(cases)} faults (statement x fault): 0 notifications lost, 0 out of order, {twice} delivered twice")


def check(life: Life, runs: list[CronRun]) -> None:
    """Check that each finish was accepted by each receiver, in order for each job, and nothing else was."""
    finished = {f"run:{run.id}": run for run in runs if is_notified(run)}
    calls = life.calls()
    assert set(calls) == RECEIVERS or not finished
    for receiver in RECEIVERS:
        assert set(calls[receiver]["accepted"]) == set(calls[receiver]["called"]) == finished.keys(), receiver
        by_job: dict[str, list[int]] = defaultdict(list)
        for key in dict.fromkeys(calls[receiver]["accepted"]):
            by_job[finished[key].job_id].append(int(finished[key].id))
        assert all(ids == sorted(ids) for ids in by_job.values()), receiver


def is_notified(run: CronRun) -> bool:
    return run.status in (RunStatus.SUCCESS, RunStatus.FAILED) and run.cause is not Cause.INTERRUPTED
