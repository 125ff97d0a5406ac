"""Lists that are sent to PostgreSQL arrive as they are."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from cronactors.storage.postgres.arrays import ArrayDumper
from tests.postgres_store import worker_database

Roundtrip = Callable[[str, list[object]], list[object]]

TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))
INTEGERS = st.integers(-(2**63), 2**63 - 1)
FLOATS = st.floats(allow_nan=False, allow_infinity=False)


@pytest.fixture(scope="module")
def roundtrip() -> Iterator[Roundtrip]:
    with psycopg.connect(worker_database(), autocommit=True) as connection:
        connection.adapters.register_dumper(list, ArrayDumper)
        cursor = psycopg.RawCursor(connection)

        def sent_and_read(kind: str, values: list[object]) -> list[object]:
            found = cursor.execute(f"SELECT $1::{kind}[]".encode(), [values], prepare=True).fetchone()
            assert found is not None
            return found[0]  # type: ignore[no-any-return]

        yield sent_and_read


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        ("text", []),
        ("bigint", []),
        ("text", ["", " ", "NULL", "null", None, "None", "{}", "a,b", '"', '\\"', "\\", "\\\\", "it's", "\n\t", "é\U0001f600"]),
        ("text", [None, None]),
        ("text", [None, "a"]),
        ("bigint", [0, -1, None, 2**63 - 1, -(2**63)]),
        ("bigint", [None]),
        ("float8", [0.0, -1.5, None, 1e300, 1e-300, 7200]),
    ],
)
def test_a_list_arrives_as_it_is(roundtrip: Roundtrip, kind: str, values: list[object]) -> None:
    assert roundtrip(kind, values) == values


@given(values=st.lists(st.none() | TEXT) | st.lists(st.none() | INTEGERS) | st.lists(st.none() | FLOATS))
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_list_does(roundtrip: Roundtrip, values: list[object]) -> None:
    first = next((value for value in values if value is not None), "")
    kind = {str: "text", int: "bigint", float: "float8"}[type(first)]
    assert roundtrip(kind, values) == values


def test_a_nul_is_refused(roundtrip: Roundtrip) -> None:
    with pytest.raises(psycopg.DataError):
        roundtrip("text", ["a\0b"])
