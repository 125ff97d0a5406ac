"""Lines, tables and JSON on standard output."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone

import pytest

from cronactors import History
from cronactors.cli.stdout import MOST_INDENTED, json_text, json_value, print_json, print_lines
from cronactors.cli.tables import Cell, print_table
from cronactors.model import RunStatus

AT = datetime(2026, 3, 2, 9, 30, 0, 120_000, tzinfo=timezone(timedelta(hours=1)))


@pytest.mark.parametrize("items", [0, 1, MOST_INDENTED, MOST_INDENTED + 1])
def test_json_is_the_same_however_long(capsys: pytest.CaptureFixture[str], items: int) -> None:
    values = {"name": "Übersicht", "at": AT, "status": RunStatus.SUCCESS, "history": History(days=1), "none": None}
    print_json([{name: json_value(value) for name, value in values.items()}] * items)
    text = capsys.readouterr().out
    shown = {
        "name": "Übersicht",
        "at": "2026-03-02T08:30:00.120Z",
        "status": "success",
        "history": {"days": 1, "per_job": 100_000, "keep_last": 100},
        "none": None,
    }
    assert json.loads(text) == [shown] * items
    if items > MOST_INDENTED:
        assert len(text.splitlines()) == items + 2, "each item is a line"
    elif items:
        assert '\n    "at": "2026-03-02T08:30:00.120Z",\n' in text


@pytest.mark.parametrize("items", [1, MOST_INDENTED + 1])
def test_json_keeps_letters_and_escapes_characters_that_control_a_terminal(
    capsys: pytest.CaptureFixture[str], items: int
) -> None:
    text = "\x1b[1m \x7f \x85 \x9b31m \u2028 \u202e é 日本 🕘"
    print_json([text] * items)
    printed = capsys.readouterr().out
    assert json.loads(printed) == [text] * items
    assert json.loads(json_text(text)) == text
    assert "é 日本 🕘" in json_text(text)
    assert "é 日本 🕘" in printed
    assert not [character for character in printed if character != "\n" and not character.isprintable()]
    assert json_text(["\x7f"]) == '["\\u007f"]'


@pytest.mark.parametrize("wide", ["日本", "é", "e\u0301", "x"])
def test_columns_are_aligned_whatever_is_in_them(capsys: pytest.CaptureFixture[str], wide: str) -> None:
    print_table(["name", "state"], [[wide, "on"], [Cell("plain", "red"), "off"]])
    columns = {"日本": 4, "é": 1, "e\u0301": 1, "x": 1}[wide]
    assert capsys.readouterr().out.splitlines() == ["name   state", f"{wide}{' ' * (7 - columns)}on", "plain  off"]


def test_lines_are_ended(capsys: pytest.CaptureFixture[str]) -> None:
    print_lines(["a", "", "b"])
    print_lines([])
    assert capsys.readouterr().out == "a\n\nb\n"


def test_a_time_in_json_is_utc_and_other_values_are_text() -> None:
    assert json_value(datetime(1970, 1, 1, tzinfo=UTC)) == "1970-01-01T00:00:00.000Z"
    assert json_value(timedelta(hours=1)) == "1:00:00"
