"""Limits of the history in agent.toml."""

from __future__ import annotations

import pytest

from cronactors.config_file import load_config
from cronactors.errors import InvalidConfig, InvalidJob
from cronactors.retention import EVERYTHING, History
from tests.test_config_file import JOB, write

__all__ = ["write"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", History()),
        ("[cron]\nhistory = false", None),
        ("[cron.history]", History()),
        ("[cron.history]\ndays = false\nkeep_last = 0", History(days=None, keep_last=0)),
        ("[cron.history]\nper_job = 10", History(per_job=10)),
    ],
)
def test_limits_of_the_history_are_read(write, text, expected):
    assert load_config(write(text)).history == expected


@pytest.mark.parametrize(
    ("text", "expected"), [("", None), ("history = { days = 7 }", History(days=7)), ("history = false", EVERYTHING)]
)
def test_a_job_has_limits_of_its_own(write, text, expected):
    (spec,) = load_config(write(f"{JOB}every_ms = 1\n{text}")).jobs
    assert spec.history == expected


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("[cron]\nhistory = 30", InvalidConfig, "history must be a table such as .*not 30"),
        ("[cron]\nhistory = true", InvalidConfig, "history must be a table such as .*not True"),
        ("[cron.history]\ndays = 0", InvalidConfig, "history: days must be more than 0, or None"),
        ("[cron.history]\nper_job = 0", InvalidConfig, "history: per_job must be 1 to 1,000,000,000, not 0"),
        ("[cron.history]\nkeep_last = false", InvalidConfig, "history: keep_last must be a whole number"),
        ("[cron.history]\nper_jobs = 5", InvalidConfig, "history: unknown key 'per_jobs': did you mean per_job"),
        (f"{JOB}every_ms = 1\nhistory = {{ days = -1 }}", InvalidJob, "job 'a': history: days must be"),
    ],
)
def test_a_wrong_limit_is_named(write, text, error, message):
    with pytest.raises(error, match=message):
        load_config(write(text))


def test_false_turns_the_alert_of_overdue_moments_off(write):
    assert load_config(write("[cron]\noverdue_after = false")).overdue_after is None
    assert load_config(write("[cron]\noverdue_after = 60")).overdue_after == 60
