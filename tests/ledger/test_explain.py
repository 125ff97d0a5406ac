"""Which row stands for a moment: rows know it, whatever schedule, zone or policy the job has now."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta

import pytest

from cronactors.ledger import jobs
from cronactors.ledger.explain import explain
from cronactors.model import Explanation, Fate, Misfire, Overlap
from cronactors.schedules.schedule import Cron, Interval
from cronactors.storage.postgres.storage import PostgresStorage
from cronactors.storage.sqlite import SqliteStorage
from tests.ledger_world import DAY, HOUR, MINUTE, MINUTELY, SECOND, T0, World


def explained(world: World, job: str, moment: int) -> Explanation:
    return world.do(lambda storage: explain(storage, jobs.find_job(storage, job), moment))


def fates(world: World, job: str, moments: range) -> list[str]:
    return [explained(world, job, T0 + moment).outcome.value for moment in moments]


def each_once(world: World, job: str, moments: range) -> None:
    """Check that each row is named for as many of the moments as it stands for."""
    named = Counter(explained(world, job, T0 + moment).run_id for moment in moments)
    rows = {str(run.id): run.coalesced for run in world.history(job) if run.attempt == 1 and not run.manual}
    assert named == rows


def finish_all(world: World) -> None:
    while claimed := world.claim():
        for each in claimed:
            world.finish(each.run)


CHANGES = [
    {"schedule": Interval(7 * MINUTE)},
    {"schedule": Cron("0 0 1 1 *")},
    {"timezone": "Asia/Kathmandu"},
    {"misfire": Misfire(coalesce="earliest")},
]


@pytest.mark.parametrize("changes", CHANGES, ids=["interval", "cron", "zone", "policy"])
@pytest.mark.parametrize("overlap", list(Overlap))
def test_after_an_edit_the_moments_before_it_are_found_once_each(world, overlap, changes):
    """Missed, merged, overlapped and replaced: all of them before the edit."""
    job = world.add(MINUTELY, overlap=overlap)
    world.pass_time(5 * MINUTE)
    run = world.claim_one()
    world.pass_time(4 * MINUTE)
    world.finish(run)
    world.pass_time(3 * MINUTE)
    moments = range(MINUTE, 12 * MINUTE + 1, MINUTE)
    world.update(job, changes)
    finish_all(world)
    assert set(fates(world, job, moments)) <= {"run", "merged", "skipped"}
    each_once(world, job, moments)


def test_a_time_between_moments_of_an_earlier_schedule_is_explained_with_reserve(world):
    job = world.add(MINUTELY)
    world.pass_time(3 * MINUTE)
    world.finish(world.claim_one())
    assert explained(world, job, T0 + 90 * SECOND).outcome is Fate.NO_MOMENT
    world.update(job, {"schedule": Interval(HOUR)})
    unsure = explained(world, job, T0 + 90 * SECOND)
    assert unsure.outcome is Fate.MERGED
    assert "it is not known whether this was one of its moments" in unsure.text
    assert "not known" not in explained(world, job, T0 + MINUTE).text
    assert explained(world, job, T0 + 3 * MINUTE + 1).outcome is Fate.NO_MOMENT


def test_between_two_merged_moments_there_is_none(world):
    job = world.add(MINUTELY)
    world.pass_time(2 * MINUTE)
    world.finish(world.claim_one())
    world.update(job, {"schedule": Interval(HOUR)})
    assert fates(world, job, range(MINUTE, 2 * MINUTE + 1, 30 * SECOND)) == ["merged", "no_moment", "run"]


def test_moments_that_came_due_before_a_pause_are_explained(world):
    job = world.add(MINUTELY)
    world.pass_time(3 * MINUTE)
    world.pause(job)
    world.pass_time(3 * MINUTE)
    expected = ["skipped"] * 3 + ["not_planned"] * 3
    assert fates(world, job, range(MINUTE, 6 * MINUTE + 1, MINUTE)) == expected
    world.resume(job)
    assert fates(world, job, range(MINUTE, 7 * MINUTE + 1, MINUTE)) == [*expected, "will_run"]


@pytest.mark.parametrize(
    ("misfire", "expected"),
    [
        (Misfire(), ["merged"] * 9 + ["run"]),
        (Misfire(coalesce="earliest"), ["run"] + ["merged"] * 9),
        (Misfire(coalesce="all"), ["run"] * 10),
        (Misfire(coalesce="all", max_runs=3), ["skipped"] * 7 + ["run"] * 3),
        (Misfire(window=timedelta(minutes=4)), ["skipped"] * 5 + ["merged"] * 4 + ["run"]),
        (Misfire(window=timedelta(minutes=4), coalesce="earliest"), ["skipped"] * 5 + ["run"] + ["merged"] * 4),
        (Misfire(window=timedelta(minutes=4), coalesce="all", max_runs=2), ["skipped"] * 8 + ["run"] * 2),
    ],
)
def test_missed_moments_are_explained_whatever_the_policy_is_later(world, misfire, expected):
    job = world.add(MINUTELY, misfire=misfire)
    world.pass_time(10 * MINUTE)
    finish_all(world)
    moments = range(MINUTE, 10 * MINUTE + 1, MINUTE)
    for later in (misfire, Misfire(), Misfire(coalesce="earliest"), Misfire(coalesce="all")):
        world.update(job, {"misfire": later})
        assert fates(world, job, moments) == expected
        each_once(world, job, moments)


def test_merged_moments_of_a_retry_that_was_too_late_are_explained(world):
    job = world.add(MINUTELY, misfire=Misfire(window=timedelta(minutes=3)))
    world.pass_time(2 * MINUTE)
    world.claim_one()
    world.pass_time(HOUR)
    world.crash()
    world.claim()
    found = explained(world, job, T0 + 2 * MINUTE)
    assert found.text == "2026-03-02T00:02:00Z was run; attempt 2 did not start (misfire). It stands for 2 moments."
    assert (found.outcome, found.cause) == (Fate.RUN, "misfire")
    assert explained(world, job, T0 + MINUTE).outcome is Fate.MERGED


def test_moments_are_explained_after_the_clock_was_set_back(world):
    """The row of the merged moments lies behind the rows of moments that came due a second time."""
    job = world.add(MINUTELY)
    world.pass_time(10 * MINUTE)
    world.finish(world.claim_one())
    world.set_back(5 * MINUTE + SECOND)
    for _ in range(3):
        world.pass_time(MINUTE)
        finish_all(world)
    moments = range(MINUTE, 11 * MINUTE + 1, MINUTE)
    #        1 to 4: merged; 5 to 7: run a second time; 8, 9: will run a second time; 10: has a row
    expected = ["merged"] * 4 + ["run"] * 3 + ["will_run"] * 2 + ["run", "will_run"]
    assert fates(world, job, moments) == expected
    world.update(job, {"schedule": Interval(HOUR)})
    assert fates(world, job, moments)[:7] == expected[:7]


def test_a_moment_is_found_behind_many_rows_of_the_time_before_the_clock_was_set_back(world):
    job = world.add(Interval(SECOND))
    world.pass_time(90 * SECOND)
    world.finish(world.claim_one())
    world.set_back(80 * SECOND)
    for _ in range(70):
        world.pass_time(SECOND)
        finish_all(world)
    assert fates(world, job, range(SECOND, 10 * SECOND, SECOND)) == ["merged"] * 9


def test_rows_of_an_older_version_know_only_how_many_moments_they_stand_for(world):
    """Their moments are counted by the present schedule, from its anchor on."""
    job = world.add(MINUTELY)
    world.pass_time(4 * MINUTE)
    run = world.claim_one()
    world.pass_time(3 * MINUTE)
    world.finish(run)
    for row in world.history(job):
        forget_range(world, row.id)
    moments = range(MINUTE, 8 * MINUTE + 1, MINUTE)
    assert fates(world, job, moments) == ["merged"] * 3 + ["run"] + ["skipped"] * 3 + ["will_run"]
    world.pass_time(DAY)
    world.update(job, {"schedule": Interval(HOUR)})
    assert fates(world, job, range(MINUTE, 3 * MINUTE, MINUTE)) == ["no_moment"] * 2


def forget_range(world: World, run_id: int) -> None:
    def forget(storage) -> None:
        if isinstance(storage, PostgresStorage):
            storage._execute("UPDATE @runs SET range_at = NULL WHERE id = $1", [run_id])
        elif isinstance(storage, SqliteStorage):
            storage._execute("UPDATE runs SET range_at = NULL WHERE id = ?", (run_id,))
        else:
            storage._put_run(storage.runs([run_id])[run_id]._replace(range_at=None))

    world.do(forget)
