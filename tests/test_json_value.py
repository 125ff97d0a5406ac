"""JSON that cannot change: what is read is what was given, and what is no JSON or too long is refused without being shown."""

from __future__ import annotations

import copy
import json
import pickle
from collections.abc import Iterator, Mapping
from types import MappingProxyType

import pytest
from hypothesis import given, strategies as st

from cronactors.errors import InvalidJob
from cronactors.json_value import JsonCopy, JsonText

TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=20,
)


def frozen(value: object, limit: int = 1_000_000) -> JsonText:
    return JsonText(JsonCopy("data", limit).text(value), "data")


@given(VALUES)
def test_what_is_read_is_what_was_given(value: object) -> None:
    kept = frozen(value)
    assert kept.read() == value
    assert json.dumps(kept.read(), sort_keys=True) == json.dumps(value, sort_keys=True), "1, 1.0 and True are not the same"
    assert kept == frozen(copy.deepcopy(value))
    assert pickle.loads(pickle.dumps(kept)) == copy.deepcopy(kept) == kept
    assert hash(kept) == hash(frozen(value))


@given(VALUES)
def test_the_limit_is_the_length_of_the_json(value: object) -> None:
    length = len(json.dumps(value, separators=(",", ":")))
    assert frozen(value, length).read() == value
    with pytest.raises(InvalidJob, match="^data is too long: "):
        frozen(value, length - 1)


def test_the_error_of_a_long_value_gives_its_length() -> None:
    with pytest.raises(InvalidJob, match="^data is too long: 1,202 bytes of JSON, at most 1,000 are allowed$"):
        frozen("x" * 1_200, 1_000)
    with pytest.raises(InvalidJob, match="^data is too long: at most 1,000 bytes of JSON are allowed$"):
        frozen("x" * 100_000, 1_000)


def test_a_value_that_repeats_itself_is_refused_before_it_fills_the_memory() -> None:
    value: object = "x"
    for _ in range(60):
        value = [value] * 10
    with pytest.raises(InvalidJob, match="^data is too long"):
        frozen(value)


def test_a_reader_gets_a_copy() -> None:
    given_value = {"list": [1]}
    kept = frozen(given_value)
    given_value["list"].append(2)
    kept.read()["list"].append(3)  # type: ignore[index, call-overload, union-attr]
    assert kept.read() == {"list": [1]}


def test_tuples_and_any_mapping_are_taken() -> None:
    assert frozen((1, MappingProxyType({"a": ()}))).read() == [1, {"a": []}]


ENDLESS: list[object] = []
ENDLESS.append(ENDLESS)


class Broken(Mapping[str, str]):
    def __getitem__(self, key: str) -> str:
        raise RuntimeError("SECRET")

    def __iter__(self) -> Iterator[str]:
        return iter(["a"])

    def __len__(self) -> int:
        return 1


REFUSED: list[tuple[object, str]] = [
    (b"SECRET", "data must be a JSON value, not bytes"),
    ({"a": {"b": [b"SECRET"]}}, "data['a'] must be a JSON value, not bytes"),
    ({5: "SECRET"}, "data must have text as keys, not 5"),
    ([{5: "SECRET"}], "data must have text as keys, not 5"),
    ({"a": float("nan")}, "data['a'] must be a finite number"),
    ([float("-inf")], "data must be a finite number"),
    ("SECRET\0", "data contains a NUL character"),
    (["SECRET\ud800"], "data contains a lone surrogate"),
    ({"a\0": 1}, "a key of data contains a NUL character"),
    (ENDLESS, "data is too deep: at most 100 levels are allowed"),
    (10**5000, "data must be a JSON value: it cannot be read (ValueError)"),
    (Broken(), "data must be a JSON value: it cannot be read (RuntimeError)"),
]


@pytest.mark.parametrize(("value", "message"), REFUSED, ids=[message for _, message in REFUSED])
def test_what_is_no_json_is_refused_without_its_value(value: object, message: str) -> None:
    with pytest.raises(InvalidJob) as caught:
        frozen(value)
    assert str(caught.value) == message


def test_the_repr_shows_nothing_of_it() -> None:
    assert repr(frozen({"token": "SECRET"})) == "<data>"


@pytest.mark.parametrize("damaged", ["", "{", "[1", "[" * 100_000, "nul"])
def test_damaged_text_cannot_be_read(damaged: str) -> None:
    with pytest.raises(InvalidJob, match="^data cannot be read: what is stored is not JSON$"):
        JsonText(damaged, "data").read()
