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


@pytest.mark.parametrize(
    ("duration", "every_ms", "rounded"),
    [
        ("1ms", 1, 1000),
        ("1000us", 1, 1000),
        ("1000000ns", 1, 1000),
        ("2m", 120_000, None),
        ("500ms", 500, 1000),
        ("999ms", 999, 1000),
        ("1s", 1000, None),
        ("1001ms", 1001, 1000),
        ("1002500ms", 1_002_500, 1_002_000),
        ("8784h", 366 * 86_400_000, None),
        ("0s", None, None),
        ("0.5ms", None, None),
        ("1ms1us", None, None),
        ("8784h1ms", None, None),
        ("5", None, None),
        ("", None, None),
    ],
)
def test_an_interval_of_go_is_written_in_milliseconds(duration, every_ms, rounded):
    message = refusal(f"@every {duration}")
    why = "@every is an interval, not an expression: write "
    if every_ms is None:
        assert message.endswith(why + "Interval.every(...), in agent.toml every_ms")
    elif rounded is None:
        assert message.endswith(f"{why}Interval({every_ms}), in agent.toml every_ms = {every_ms}")
    else:
        assert message.endswith(f"every_ms = {every_ms}, or {rounded}: Go's cron rounds down to whole seconds")


def test_seven_fields_without_a_year_are_not_those_of_quartz():
    assert refusal("0 0 12 ? * 6L 99").endswith("5 fields are needed, or 6 with seconds first, not 7; years are not supported")


@pytest.mark.parametrize(
    ("expr", "shown"),
    [
        ("1 2 3 4", "1 2 3 4"),
        ("1 2 3 4 5 6 7", "1 2 3 4 5 6 7"),
        ("1 2 3 4 5 99", "1 2 3 4 5 99"),
        ("1 2 3 4 5 6 7 8", "1 2 3 4 5 …"),  # more than any scheduler has: it may be a command
        ("1 2 3 4 5 6 word", "1 2 3 4 5 6 …"),
        ("1 2 3 4 word", "1 2 3 4 word"),
        ("1 2 3 4 5 word", "1 2 3 4 5 …"),
        ("@every 5x", "@every 5x"),
        ("@every 5s 6", "@every …"),
        ("@never 5s", "@never …"),
    ],
)
def test_how_much_of_a_refused_expression_is_shown(expr, shown):
    assert refusal(expr).startswith(f"expr '{shown}': ")


@pytest.mark.parametrize(
    ("expr", "why"),
    [
        ("0 0 12 L * 6L", "day of week '6l': for the last such weekday write 'L6'"),  # Quartz has a ? in one day field
        ("1 2 3 4 5 6 7 8", "5 fields are needed, or 6 with seconds first, not 8"),
        ("\"0 3 * * *'", "expr '…': minute '…' cannot be read"),  # quotation marks that are no pair
        ("'0 3 * * *", "expr '…': minute '…' cannot be read"),
    ],
)
def test_what_only_resembles_another_scheduler_is_a_slip(expr, why):
    assert refusal(expr).endswith(why)


@pytest.mark.parametrize(
    ("expr", "why"),
    [
        ("*-*-* 25:00", ": this looks like a calendar event of systemd"),
        ("Mon 25:00", ": this looks like a calendar event of systemd"),
        ("'0 25 * * *'", "the quotation marks are part of the text; in '0 25 * * *' hour '25' is not in 0 to 23"),
        ("0 25 * * * /x", "the command belongs in the job's prompt; in '0 25 * * *' hour '25' is not in 0 to 23"),
    ],
)
def test_why_a_proposal_is_refused_is_said_only_if_its_words_were_written(expr, why):
    assert refusal(expr).endswith(why)
