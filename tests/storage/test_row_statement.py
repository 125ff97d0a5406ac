"""One statement for many rows: its texts, and that each number of rows gives what one row after the other gives."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator

import pytest

from cronactors.storage.execution import Execution
from cronactors.storage.row_statement import MANY, WIDTHS, RowStatement
from cronactors.storage.rows import PlainFinish

UPDATE = RowStatement("UPDATE numbers SET square = :square FROM new WHERE numbers.n = :n")
FIND = RowStatement("SELECT n FROM numbers WHERE n IN (SELECT :n FROM new)")
COUNTS = sorted({0, 1, 2, MANY - 1, *WIDTHS, *(width + 1 for width in WIDTHS), 2 * WIDTHS[-1] + 3})


@pytest.fixture
def execution() -> Iterator[Execution]:
    db = sqlite3.connect(":memory:", isolation_level=None)
    db.execute("CREATE TABLE numbers (n INTEGER PRIMARY KEY, square INTEGER)")
    db.executemany("INSERT INTO numbers (n) VALUES (?)", [(n,) for n in range(300)])
    yield Execution(db, "file")
    db.close()


def test_the_text_for_one_row_takes_its_values_in_order() -> None:
    assert UPDATE.columns == ("square", "n")
    assert UPDATE.for_one == "UPDATE numbers SET square = ?  WHERE numbers.n = ?"


def test_the_text_for_many_rows_reads_them_from_a_table() -> None:
    text = UPDATE.for_many(2)
    assert text == (
        "UPDATE numbers SET square = new.square FROM (WITH new (square, n) AS (VALUES (?, ?), (?, ?)) SELECT * FROM new LIMIT ?) AS new "
        "WHERE numbers.n = new.n"
    )
    assert UPDATE.for_many(2) is text


@pytest.mark.parametrize("count", COUNTS)
def test_each_row_is_written_once_and_no_other(execution: Execution, count: int) -> None:
    assert execution._write(UPDATE, [(n * n, n) for n in range(count)]) == count
    assert execution._fetch("SELECT square FROM numbers") == [(n * n if n < count else None,) for n in range(300)]


@pytest.mark.parametrize("count", COUNTS)
def test_only_rows_that_exist_count_as_written(execution: Execution, count: int) -> None:
    assert execution._write(UPDATE, [(0, n + 290) for n in range(count)]) == min(count, 10)


@pytest.mark.parametrize("count", COUNTS)
def test_each_row_is_found_once(execution: Execution, count: int) -> None:
    keys = [(2 * n,) for n in range(count)]
    assert sorted(execution._read(FIND, keys + keys[:1])) == [key for key in keys if key[0] < 300]


@pytest.mark.parametrize("count", COUNTS)
def test_few_calls_carry_out_many_rows(execution: Execution, count: int) -> None:
    calls: list[str] = []
    execution._db.set_trace_callback(calls.append)
    execution._write(UPDATE, [(n, n) for n in range(count)])
    execution._db.set_trace_callback(None)
    assert len([call for call in calls if call.startswith("UPDATE")]) == (count if count < MANY else -(-count // WIDTHS[-1]))


def test_rows_are_made_by_name() -> None:
    statement = RowStatement("UPDATE t SET a = :session_id, b = :job WHERE id = :run_id")
    finish = PlainFinish(run_id=1, completed_at=2, session_id="s", result=None, job_id="j", next_run_at=3)
    assert statement.row_maker(job="job_id")(finish) == ("s", "j", 1)


def test_a_parameter_that_occurs_twice_is_a_bug() -> None:
    with pytest.raises(AssertionError, match="occurs twice"):
        RowStatement("UPDATE t SET a = :a, b = :a WHERE id = :id")
