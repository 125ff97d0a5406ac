"""Steps that look uneven alone, and are even together with the other items of their field."""

from __future__ import annotations

import pytest

from cronactors.schedules.lint import lint
from cronactors.schedules.schedule import Cron


@pytest.mark.parametrize("expr", ["5/40,25 * * * *", "7/40,27 * * * *", "0 1/16,9 * * *"])
def test_items_that_fill_each_other_up_are_even(expr):
    assert lint(Cron(expr)) == []


@pytest.mark.parametrize(
    ("expr", "text"),
    [
        ("5/40 * * * *", "minute '5/40' means 5 and 45, and starts anew each hour: the last step is 20, not 40"),
        ("5/40,26 * * * *", "minute '5/40' means 5 and 45, and starts anew each hour: the last step is 20, not 40"),
    ],
)
def test_an_uneven_step(expr, text):
    assert [(finding.rule, finding.text) for finding in lint(Cron(expr))] == [("uneven-step", text)]


@pytest.mark.parametrize(
    ("expr", "found"),
    [
        ("30 9 9 * * *", ["seconds-first"]),  # 09:30 on the 9th for those who write the minute first
        ("30 59 9 * * *", []),  # there is no hour 59
        ("30 5 9 L * *", []),  # there is no month L
        ("30 5 9 1 * 0", ["seconds-first"]),
        ("30 5 9 1 * 1", []),  # neither any year nor second 0
    ],
)
def test_six_fields_are_ambiguous_only_if_the_first_five_can_be_read_alone(expr, found):
    assert [finding.rule for finding in lint(Cron(expr)) if finding.rule == "seconds-first"] == found
