"""Refused expressions: messages that propose nothing, since what they could propose is too long or is refused itself."""

from __future__ import annotations

import pytest

from cronactors.errors import InvalidSchedule
from cronactors.schedules.cron import parse_cron

MINUTES = ",".join(map(str, range(0, 60, 2)))


def refusal(expr: str) -> str:
    with pytest.raises(InvalidSchedule) as caught:
        parse_cron(expr)
    return str(caught.value)


def test_times_of_a_crontab_line_are_proposed_up_to_120_characters():
    times = ",".join(map(str, range(10, 46))) + " 3 * * *"
    assert len(repr(times)) == 117
    for more, shown in ((",5", True), (",5,6", False)):
        longer = times.replace(" 3", f"{more} 3")
        message = refusal(f"{longer} /usr/bin/backup")
        assert (repr(longer) in message) is shown
        assert "the command belongs in the job's prompt" in message
        assert ("write the expression as" in message) is shown


@pytest.mark.parametrize(
    ("expr", "why"),
    [
        ("0 9 * january 1", "month 'january' cannot be read; write 'jan'"),
        ("0 9 * * monday-friday", "day of week 'monday-friday' cannot be read; write 'mon-fri'"),
        ("0 9 * december-january *", "month 'december-january' cannot be read"),  # dec-jan goes backwards
        ("0 9 * * monday-", "day of week 'monday-' cannot be read"),
        ("0 9 * * monday/9", "day of week 'monday/9' cannot be read"),  # a step must be 1 to 7
        ("0 9 * monday *", "month 'monday' cannot be read"),
    ],
)
def test_a_long_name_is_shortened_if_the_rest_can_be_read(expr, why):
    message = refusal(expr)
    assert message.endswith(why)
