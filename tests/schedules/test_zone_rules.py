"""Releases of the rules of time zones, in their order."""

from __future__ import annotations

from itertools import combinations

import pytest
import tzdata

from cronactors.schedules.schedule import Cron, Interval, OneShot
from cronactors.schedules.zone_rules import RULES, NextMoment, depends_on_rules, is_older, recompute_moment

IN_ORDER = ["", "2024b/1", "2025a/0", "2025a/1", "2025a/2", "2025a/10", "2025b/1", "2026a/1"]
ROME = "Europe/Rome"
NINE = 1_772_438_400_000  # 2026-03-02T08:00:00Z, 09:00 in Rome
HOUR, DAY = 3_600_000, 86_400_000


def test_releases_are_ordered_by_year_letter_and_parser():
    for older, newer in combinations(IN_ORDER, 2):
        assert is_older(older, newer)
        assert not is_older(newer, older)
    for rules in (*IN_ORDER, RULES):
        assert not is_older(rules, rules)


def test_rules_without_a_readable_parser_are_those_of_parser_0():
    for rules in ("2025a", "2025a/", "2025a/x"):
        assert not is_older(rules, "2025a/0")
        assert not is_older("2025a/0", rules)
        assert is_older(rules, "2025a/1")


def test_the_rules_of_this_process_are_the_default():
    assert is_older("")
    assert is_older("2020a/1")
    assert not is_older(RULES)
    assert not is_older("9999z/1")


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        (Cron("0 9 * * *"), True),
        (Cron("* * * * *"), True),
        (OneShot("2026-03-02 09:00"), True),
        (OneShot("2026-03-02 09:00Z"), False),
        (OneShot("2026-03-02 09:00+01:00"), False),
        (Interval(1), False),
    ],
)
def test_which_schedules_depend_on_rules(schedule, expected):
    assert depends_on_rules(schedule) is expected


@pytest.mark.parametrize(
    ("stored", "decided_local", "due", "expected"),
    [
        # Stored by rules that had Rome an hour off: the date and time stays that of the job.
        (NINE + HOUR, None, False, NextMoment(NINE, None)),
        (NINE - HOUR, None, False, NextMoment(NINE, None)),
        (NINE, None, False, NextMoment(NINE, None)),
        (NINE + 13 * HOUR, None, False, NextMoment(NINE + DAY, None)),  # nearer to the day after
        (NINE + 11 * HOUR, None, False, NextMoment(NINE, None)),
        # What was decided decides which date it is.
        (NINE + HOUR, NINE // 1000, False, NextMoment(NINE, NINE // 1000)),
        (NINE + HOUR, (NINE + HOUR) // 1000 - 1, False, NextMoment(NINE, (NINE + HOUR) // 1000 - 1)),
        (NINE + HOUR, (NINE + HOUR) // 1000, False, NextMoment(NINE + DAY, (NINE + HOUR) // 1000)),
        # A moment that is due stays, and counts as decided.
        (NINE + HOUR, None, True, NextMoment(NINE + HOUR, (NINE + HOUR) // 1000)),
        (NINE + HOUR, (NINE + HOUR) // 1000 - 1, True, NextMoment(NINE + HOUR, (NINE + HOUR) // 1000)),
    ],
)
def test_a_time_of_day_keeps_its_local_date_and_time(stored, decided_local, due, expected):
    found = recompute_moment(Cron("0 9 * * *"), NextMoment(stored, decided_local), zone=ROME, due=due, now=NINE - 5 * HOUR)
    assert found == expected


def test_a_time_of_day_stays_if_the_calendar_ends_before_the_next():
    after_9996 = NextMoment(NINE, 253_300_000_000)
    assert recompute_moment(Cron("0 9 29 2 *"), after_9996, zone=ROME, due=False, now=0) == NextMoment(NINE, None)


@pytest.mark.parametrize(
    ("stored", "due", "now", "expected"),
    [
        (NINE + HOUR + 1, False, NINE, NextMoment(NINE + 60_000, None)),  # a rhythm goes by the instant
        (NINE, False, NINE, NextMoment(NINE, 7)),  # it has come already
        (NINE + 1, False, NINE, NextMoment(NINE + 60_000, None)),
        (NINE + HOUR, True, NINE, NextMoment(NINE + HOUR, 7)),
    ],
)
def test_a_rhythm_continues_from_now(stored, due, now, expected):
    assert recompute_moment(Cron("* * * * *"), NextMoment(stored, 7), zone=ROME, due=due, now=now) == expected


def test_a_one_shot_moves_only_if_it_is_in_local_time():
    found = NextMoment(NINE + HOUR, None)
    local, fixed = OneShot("2026-03-02 09:00"), OneShot("2026-03-02 09:00Z")
    assert recompute_moment(local, found, zone=ROME, due=False, now=NINE + 5 * HOUR) == NextMoment(NINE, None)
    assert recompute_moment(local, found, zone=ROME, due=True, now=NINE) == found
    assert recompute_moment(fixed, NextMoment(5, 6), zone=ROME, due=False, now=NINE) == NextMoment(5, 6)
    assert recompute_moment(Interval(1), NextMoment(5, None), zone=ROME, due=False, now=NINE) == NextMoment(5, None)
    assert recompute_moment(OneShot("1970-01-01 00:00"), NextMoment(0, None), zone="UTC", due=False, now=9) == NextMoment(0, None)


def test_the_rules_of_this_process_are_those_of_the_package_tzdata() -> None:
    assert f"{tzdata.IANA_VERSION}/1" == RULES
