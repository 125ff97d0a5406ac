"""Job specifications, retry policies and settings: defaults, limits, and which lists are read how far."""

from __future__ import annotations

from itertools import count, repeat

import attrs
import pytest

from cronactors import spec
from cronactors.errors import InvalidConfig, InvalidJob
from cronactors.instants import EARLIEST, LATEST, from_millis
from cronactors.job_data import NO_DATA
from cronactors.json_value import JsonText
from cronactors.model import Misfire, Overlap, SessionMode
from cronactors.retention import History, history_from_text, history_to_text
from cronactors.schedules.schedule import Cron, Interval, OneShot
from cronactors.settings import CronConfig, RetryPolicy
from cronactors.spec import (
    Delay,
    JobSpec,
    check_changes,
    check_id,
    check_instant,
    check_lookup_name,
    check_specs,
    check_user_id,
    job_spec,
)

YEAR = 366 * 86_400


def job(**fields: object) -> JobSpec:
    return JobSpec(**{"name": "a", "prompt": "b", "schedule": Interval(1), **fields})  # type: ignore[arg-type]


# Defaults


def test_the_defaults_of_a_job():
    assert attrs.asdict(job(), recurse=False) == {
        "name": "a", "prompt": "b", "schedule": Interval(1), "delete_after_run": False, "timezone": None, "max_retries": None,
        "timeout_secs": None, "session_mode": SessionMode.ISOLATED, "user_id": None, "overlap": Overlap.SKIP, "misfire": Misfire(),
        "executor_options": {}, "description": "", "tags": (), "_data": NO_DATA, "history": None, "enabled": None,
    }  # fmt: skip


def test_the_defaults_of_the_settings():
    assert attrs.asdict(CronConfig(), recurse=False) == {
        "timezone": "UTC", "default_max_retries": 3, "default_timeout_secs": 7200, "max_concurrent_runs": 1,
        "max_concurrent_runs_total": None, "retry": RetryPolicy(delays=(30, 60, 300, 900, 3600), jitter=0), "cancel_grace": 5,
        "history": History(days=90, per_job=100_000, keep_last=100), "shutdown_grace": 5, "overdue_after": 300, "jobs": (),
        "origin": None, "file": None, "database": None, "executor": None, "schema": "cronactors",
    }  # fmt: skip


def test_specifications_are_values():
    for value, field in (
        (job(), "name"),
        (CronConfig(), "timezone"),
        (RetryPolicy(), "jitter"),
        (Delay(1), "in_secs"),
        (History(), "days"),
    ):
        with pytest.raises(attrs.exceptions.FrozenInstanceError):
            setattr(value, field, 0.5)
    assert job() == job()
    assert job() != job(prompt="c")


def test_options_of_a_job_and_settings_are_named_only():
    for field in (
        "delete_after_run",
        "timezone",
        "max_retries",
        "timeout_secs",
        "session_mode",
        "user_id",
        "overlap",
        "misfire",
        "executor_options",
    ):
        assert attrs.fields_dict(JobSpec)[field].kw_only
    with pytest.raises(TypeError):
        CronConfig("UTC")  # type: ignore[misc]


def test_no_prompt_and_no_options_are_shown():
    shown = repr(job(prompt="SECRET", executor_options={"shell": "/SECRET"}))
    assert "SECRET" not in shown
    assert "prompt=<6 characters>" in shown


# Limits


@pytest.mark.parametrize(
    ("field", "good", "bad"),
    [
        ("name", ["x", "x" * 200, "a b", "naïve"], ["x" * 201, "", " x", "x ", "a\nb", "a\tb"]),
        ("prompt", ["x", "x" * 1_000_000, " \n"], ["x" * 1_000_001, ""]),
        ("user_id", [None, "x", "x" * 200, " a\n"], ["x" * 201, ""]),
        ("timezone", [None, "UTC", "Europe/Rome"], ["Rome", ""]),
        ("max_retries", [None, 0, 1, 1_000], [-1, 1_001, 1.0, True]),
        ("timeout_secs", [None, 0.001, 1, 10 * YEAR], [0, 0.000_9, 10 * YEAR + 1, -1]),
        ("schedule", [Cron("@daily"), Interval(1), OneShot("2026-01-01 00:00"), Delay(0), Delay(YEAR)], [None, "@daily"]),
    ],
)  # fmt: skip
def test_the_limits_of_a_job(field, good, bad):
    for value in good:
        assert getattr(job(**{field: value}), field) == value
    for value in bad:
        with pytest.raises(InvalidJob, match=rf"^{field} "):
            job(**{field: value})


@pytest.mark.parametrize(
    ("field", "good", "bad"),
    [
        ("days", [None, 0.001, 1, 36_600], [0, -1, 36_601, "90", True, float("nan")]),
        ("per_job", [None, 1, 10**9], [0, -1, 1.5, True, "1", 10**9 + 1]),
        ("keep_last", [0, 1, 10**9], [None, -1, 1.5, True, "1", 10**9 + 1]),
    ],
)
def test_the_limits_of_a_history(field, good, bad):
    for value in good:
        assert getattr(History(**{field: value}), field) == value
    for value in bad:
        with pytest.raises(InvalidConfig, match=rf"^{field} "):
            History(**{field: value})


@pytest.mark.parametrize(
    ("history", "words"),
    [
        (History(), "runs older than 90 days or beyond the newest 100,000 of their job, but not the newest 100 of each job"),
        (History(days=0.5, per_job=None, keep_last=1), "runs older than 0.5 days, but not the newest 1 of each job"),
        (History(days=None, per_job=None), "no runs"),
    ],
)
def test_a_history_says_what_is_deleted(history, words):
    assert str(history) == words
    assert history_from_text(history_to_text(history)) == history


@pytest.mark.parametrize("text", ["", "x", "[]", "5", '{"days": 0}', '{"weeks": 1}', '{"days": "90"}', "[" * 100_000])
def test_a_history_that_cannot_be_read_is_refused(text):
    with pytest.raises(InvalidJob, match="history .* cannot be read"):
        history_from_text(text)


@pytest.mark.parametrize(("value", "fine"), [(0, True), (0.5, True), (YEAR, True), (-1, False), (YEAR + 1, False), (None, False)])
def test_the_limits_of_a_delay(value, fine):
    if fine:
        assert Delay(value).in_secs == value
        assert RetryPolicy((value,)).delays == (value,)
        return
    with pytest.raises(InvalidJob, match="in_secs"):
        Delay(value)
    with pytest.raises(InvalidConfig, match="delays"):
        RetryPolicy((value,))


@pytest.mark.parametrize(
    ("field", "good", "bad"),
    [
        ("default_max_retries", [0, 1_000], [-1, 1_001, None]),
        ("default_timeout_secs", [0.001, 10 * YEAR], [0, 10 * YEAR + 1, None]),
        ("max_concurrent_runs", [1, 10_000], [0, 10_001, None]),
        ("max_concurrent_runs_total", [None, 1, 10_000], [0, 10_001]),
        ("cancel_grace", [0, 10 * YEAR], [-0.1, 10 * YEAR + 1, None]),
        ("shutdown_grace", [0, 10 * YEAR], [-0.1, 10 * YEAR + 1, None]),
        ("overdue_after", [None, 1, 10 * YEAR], [0.9, 10 * YEAR + 1]),
        ("origin", [None, "x", "x" * 4_096], ["", "x" * 4_097]),
        ("file", [None, "x", "x" * 4_096], ["", "x" * 4_097]),
        ("database", [None, "x", "x" * 4_096], ["", "x" * 4_097]),
        ("executor", [None, "x", "x" * 4_096], ["", "x" * 4_097]),
        ("timezone", ["UTC", "Europe/Rome"], ["Rome", None]),
    ],
)
def test_the_limits_of_the_settings(field, good, bad):
    for value in good:
        assert getattr(CronConfig(**{field: value}), field) == value
    for value in bad:
        with pytest.raises(InvalidConfig, match=rf"^{field} "):
            CronConfig(**{field: value})


# Lists, which may be without end


def test_as_many_delays_as_retries():
    assert RetryPolicy(repeat(1.5, 1_000)).delays == (1.5,) * 1_000  # type: ignore[arg-type]
    for delays in (repeat(1, 1_001), count()):
        with pytest.raises(InvalidConfig, match=r"delays .*at most 1,000"):
            RetryPolicy(delays)  # type: ignore[arg-type]


@pytest.mark.parametrize("jitter", [0, 0.5, 1])
def test_jitter_is_a_share(jitter):
    assert RetryPolicy(jitter=jitter).jitter == jitter


def test_as_many_jobs_as_one_call_takes():
    jobs = tuple(repeat(job(), spec.MAX_JOBS))
    assert check_specs("jobs", iter(jobs)) == jobs
    assert CronConfig(jobs=iter(jobs[:3])).jobs == jobs[:3]  # type: ignore[arg-type]
    for more in ((*jobs, job()), repeat(job())):
        with pytest.raises(InvalidJob, match="jobs holds 10,001 jobs or more, at most 10,000 are allowed in one call"):
            check_specs("jobs", more)


@pytest.mark.parametrize("value", [None, 5, "jobs", b"jobs", job()])
def test_no_list_of_jobs(value):
    with pytest.raises(InvalidJob, match="jobs must be a list of JobSpec, not "):
        check_specs("jobs", value)


def test_the_item_that_is_no_job_is_named():
    with pytest.raises(InvalidJob, match=r"^jobs\[1\] must be a JobSpec, not str$"):
        check_specs("jobs", [job(), "job"])


# Updates


@pytest.mark.parametrize(
    ("field", "good", "bad"),
    [
        ("name", "x", " x"), ("prompt", "x", ""), ("schedule", Interval(5), "5"), ("timezone", "Europe/Rome", None),
        ("delete_after_run", True, 1), ("max_retries", 0, None), ("timeout_secs", 1.5, None), ("session_mode", "main", "shared"),
        ("overlap", "skip", "never"), ("misfire", Misfire(max_runs=3), "latest"), ("executor_options", {"a": [1]}, {"a": object()}),
        ("description", "", None), ("tags", ("a", "b"), "ab"),
        ("history", History(days=1), 90), ("history", None, "{}"),
    ],
)  # fmt: skip
def test_each_field_of_an_update_is_checked(field, good, bad):
    changed = check_changes({field: good})  # type: ignore[misc]
    assert changed == {field: good}
    with pytest.raises(InvalidJob, match=field):
        check_changes({field: bad})  # type: ignore[misc]


def test_options_of_an_update_are_copied():
    options: dict[str, object] = {"a": [1]}
    given = {"name": "x", "executor_options": options}
    changed = check_changes(given)  # type: ignore[arg-type]
    options["a"] = 2
    assert changed == {"name": "x", "executor_options": {"a": [1]}}
    data: dict[str, object] = {"a": [1]}
    changed = check_changes({"data": data, "tags": iter(["b", "a", "b"])})  # type: ignore[typeddict-item]
    data["a"] = 2
    assert isinstance(changed["data"], JsonText)
    assert (changed["data"].read(), changed["tags"]) == ({"a": [1]}, ("a", "b"))
    plain = {"name": "x"}
    assert check_changes(plain) is plain  # type: ignore[arg-type]


def test_an_unknown_field_of_an_update_is_refused_with_those_that_there_are():
    with pytest.raises(InvalidJob) as caught:
        check_changes({"user_id": "ann"})  # type: ignore[typeddict-unknown-key]
    assert str(caught.value) == (
        "'user_id' is no field that can be changed; those are name, prompt, schedule, timezone, delete_after_run, max_retries, "
        "timeout_secs, session_mode, overlap, misfire, executor_options, description, tags, data, history"
    )


@pytest.mark.parametrize("value", [None, 5, b"SECRET", ["SECRET"]])
def test_a_prompt_that_is_no_text_is_not_shown(value):
    with pytest.raises(InvalidJob) as caught:
        job(prompt=value)
    assert str(caught.value) == f"prompt must be text, not {type(value).__name__}"


def test_an_unknown_option_of_a_job_is_refused_with_those_that_there_are():
    with pytest.raises(InvalidJob) as caught:
        job_spec("a", "b", Interval(1), {"retries": 3, "colour": "red"})  # type: ignore[typeddict-unknown-key]
    assert str(caught.value).startswith("'colour' is no field of a job; those are data, delete_after_run, description, ")


@pytest.mark.parametrize(("millis", "refused"), [(EARLIEST - 1, True), (EARLIEST, False), (LATEST - 1, False), (LATEST, True)])
def test_instants_lie_in_the_years_1970_to_9997(millis, refused):
    moment = from_millis(millis)
    if refused:
        with pytest.raises(InvalidJob, match=r"^at must lie in the years 1970 to 9997, not "):
            check_instant("at", moment)
    else:
        assert check_instant("at", moment) == millis


def test_none_is_the_agent_itself_in_rows():
    assert check_user_id(None) == ""
    assert check_user_id("ann") == "ann"
    with pytest.raises(InvalidJob, match="user_id"):
        check_user_id("")


def test_names_and_ids_that_are_looked_up_are_text():
    assert check_lookup_name("a") == check_id("job_id", "a") == "a"
    for check in (check_lookup_name, lambda value: check_id("job_id", value)):
        with pytest.raises(InvalidJob, match=r"^(name|job_id) must be text, not int"):
            check(5)
