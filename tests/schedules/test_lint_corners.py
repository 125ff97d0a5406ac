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
