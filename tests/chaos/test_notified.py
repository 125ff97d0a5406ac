"""Notifications across kills between every two SQL statements: none is lost, none is made up, each job's are in order."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable

from tests.chaos import notified_child
from tests.chaos.faults import EXIT_CODE, EXITS, in_memory, talking
from tests.chaos.notified import Calls, judge_notifications
from tests.chaos.sizes import quick_and_full

JOBS = 20
NO_FAULT = -1


def live(process: subprocess.Popen[str], **case: object) -> int:
    """Carry out a life; return how many statements it made, or the negative of its exit code."""
    assert process.stdin is not None
    assert process.stdout is not None
    print(json.dumps(case), file=process.stdin, flush=True)
    return int(process.stdout.readline())


@quick_and_full("size", (1_000, 5), (10_000, 1))
def test_killed_between_any_two_statements_no_notification_is_lost(size: tuple[int, int], figures: Callable[[str], None]):
    notifications, step = size
    with in_memory() as folder, talking(notified_child.__file__) as process:
        statements = live(process, folder=str(folder), number=0, jobs=JOBS, at=NO_FAULT, how=EXITS[0])
        assert statements > 0
        lives, kills, at = 1, 0, 0
        calls = Calls(folder / "calls")
        while len({(call.key, call.receiver) for call in calls.read()}) < notifications or at < statements:
            how = EXITS[lives % 2]
            result = live(process, folder=str(folder), number=lives, jobs=JOBS, at=at % (statements + 20), how=how)
            assert result > 0 or result == -EXIT_CODE
            kills += result < 0
            lives += 1
            at += step
            if lives % 3 == 0:  # else jobs whose process ends each time would be paused
                assert live(process, folder=str(folder), number=lives, jobs=0, at=NO_FAULT, how=how) > 0
                lives += 1
        for _ in range(3):
            assert live(process, folder=str(folder), number=lives, jobs=0, at=NO_FAULT, how=EXITS[0]) > 0
            lives += 1
        figures(f"{judge_notifications(folder / 'agent.db', calls)}; {kills} kills in {lives} lives of {statements} statements")
