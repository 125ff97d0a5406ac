"""The JSON form of schedules: round trips, and refused input."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest

from cronactors.errors import InvalidSchedule
from cronactors.schedules.schedule import MAX_INTERVAL, Cron, Interval, OneShot
from cronactors.schedules.schedule_json import schedule_from_dict, schedule_from_json, schedule_to_dict, schedule_to_json

NOON = datetime(2026, 5, 5, 12, tzinfo=UTC)
SCHEDULES = [
    Cron("0 0 9 * * *"),
    Cron("@daily"),
    Interval(2000),
    Interval(MAX_INTERVAL),
    OneShot("2026-07-01 09:00"),
    OneShot("2026-07-01T09:00Z"),
]


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_schedule_survives_its_json_form(schedule):
    assert schedule_from_dict(schedule_to_dict(schedule)) == schedule
    assert schedule_from_json(schedule_to_json(schedule)) == schedule
    assert json.loads(schedule_to_json(schedule)) == schedule_to_dict(schedule)


def test_the_text_is_that_of_the_original_project():
    assert schedule_to_json(Cron("0 0 9 * * *")) == '{"kind":"cron","expr":"0 0 9 * * *"}'
    assert schedule_to_json(Interval(2000)) == '{"kind":"interval","every_ms":2000}'
    assert schedule_to_json(OneShot(NOON)) == '{"kind":"one_shot","at":"2026-05-05T12:00:00+00:00"}'


@pytest.mark.parametrize(
    ("mapping", "why"),
    [
        ({}, "kind must be one of cron, interval, one_shot, not None"),
        ({"kind": "Cron", "expr": "@daily"}, "kind must be one of"),
        ({"kind": ["cron"]}, "kind must be one of"),
        ({"kind": "cron"}, "expr is missing in a schedule of kind cron"),
        ({"kind": "cron", "exp": "@daily"}, "'exp' is not a key of a schedule of kind cron; did you mean expr?"),
        ({"kind": "cron", "expr": "@daily", "every_ms": 5}, "'every_ms' is not a key"),
        ({"kind": "cron", "expr": "@daily", 5: 5}, "5 is not a key"),
        ({"kind": "cron", "expr": 5}, "expr must be text"),
        ({"kind": "cron", "expr": "60 * * * *"}, "expr '60 * * * *': minute '60'"),
        ({"kind": "interval", "every_ms": "5"}, "every_ms must be a whole number"),
        ({"kind": "interval", "every_ms": 0}, "every_ms must be 1 to"),
        ({"kind": "one_shot", "at": "soon"}, "at 'soon' is not an ISO 8601"),
        ({"kind": "one_shot", "at": NOON}, "at must be text"),
        ([], "schedule must be a mapping"),
        (None, "schedule must be a mapping"),
        ("cron", "schedule must be a mapping"),
    ],
)
def test_a_wrong_mapping_is_refused(mapping, why):
    with pytest.raises(InvalidSchedule) as caught:
        schedule_from_dict(mapping)
    assert why in str(caught.value)


@pytest.mark.parametrize(
    ("text", "why"),
    [("", "schedule must not be empty"), ("{", "schedule is not JSON"), ("[]", "must be a mapping"), ("[" * 1999, "schedule is not JSON"),
     ("9" * 1999, "schedule must be a mapping"), ("x" * 2001, "too long"), (None, "must be text"), (5, "must be text"), ([], "must be text"),
     ('{"kind":"interval","every_ms":1e3}', "every_ms must be a whole number"), ('{"kind":"interval","every_ms":NaN}', "every_ms")],
    ids=lambda value: ascii(value)[:30],
)  # fmt: skip
def test_wrong_json_is_refused(text, why):
    with pytest.raises(InvalidSchedule) as caught:
        schedule_from_json(text)
    assert why in str(caught.value)


def test_other_values_than_schedules_are_refused():
    with pytest.raises(InvalidSchedule, match="schedule must be OneShot, Interval or Cron"):
        schedule_to_dict("0 9 * * *")
