"""Each statement of a storage with a million jobs must use an index: the plans of all of them, at the schema that connect() makes."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator

import pytest

from cronactors.storage import statements
from cronactors.storage.connection import connect
from cronactors.storage.file_state import MEMORY

TEXTS = {name: text for name, text in vars(statements).items() if name.isupper() and isinstance(text, str) and name[0] != "_"}
WIDTHS = {"IDS_NAMED": 2, "ADVANCE_JOBS": 8, "BEGIN_RUNS": 9, "HOLD_JOBS": 5, "END_PLAINLY": 5, "LET_GO_ON": 3}
STATEMENTS = {name: text for name, text in TEXTS.items() if name not in WIDTHS}
TOGETHER = {
    (name, count): statements.together(TEXTS[name], width, count) for name, width in WIDTHS.items() for count in (1, 2, 128)
}

# A full walk is right where the table or the partial index is as small as what is asked for.
SCANS = {
    "RUNNING": ["SCAN runs USING INDEX runs_running"],  # all that goes on: the index holds nothing else
    "RUNNING_OF": ["SCAN runs USING INDEX runs_running"],  # hardly more than that: few schedulers share a file
    "COUNT_RUNNING": ["SCAN runs USING INDEX runs_running"],
    "SHIFT_PENDING": ["SCAN runs USING INDEX runs_pending"],  # all that waits, once after the clock was set back
    "LAST_JOB": ["SCAN sqlite_sequence"],
    "LAST_RUN": ["SCAN sqlite_sequence"],  # one row for each table; the largest id is one step from the end of runs
    "LATEST_ENTRY": ["SCAN job_specs", "SCAN runs"],  # backwards, and no further than its limit
    "HALF_JOB": ["SCAN jobs USING INDEX jobs_of_user", "SCAN job_specs"],  # only where the file seems to be damaged
    "OWNERS": ["SCAN owners"],  # one row for each scheduler
}
SEARCHES = {
    "EDIT_JOB": ["jobs USING INDEX sqlite_autoindex_jobs_1 (id=?)"],
    "ADVANCE_JOBS": ["jobs USING INDEX sqlite_autoindex_jobs_1 (id=?)"],
    "HOLD_JOBS": ["jobs USING INDEX sqlite_autoindex_jobs_1 (id=?)"],
    "DELETE_JOB": ["jobs USING INDEX sqlite_autoindex_jobs_1 (id=?)", "job_specs USING INTEGER PRIMARY KEY (rowid=?)"],
    "EDIT_SPEC": ["job_specs USING INTEGER PRIMARY KEY (rowid=?)", "jobs USING INDEX sqlite_autoindex_jobs_1 (id=?)"],
    "JOBS": ["jobs USING INDEX sqlite_autoindex_jobs_1 (id=?)", "job_specs USING INTEGER PRIMARY KEY (rowid=?)"],
    "IDLE_JOBS": [
        "jobs USING INDEX sqlite_autoindex_jobs_1 (id=?)",
        "runs USING INDEX runs_pending (job_id=?)",
        "runs USING INDEX runs_running (job_id=?)",
        "job_specs USING INTEGER PRIMARY KEY (rowid=?)",
    ],
    "IDS_NAMED": ["jobs USING INDEX sqlite_autoindex_jobs_2 (user_id=? AND name=?)"],
    "JOBS_OF_ORIGIN": ["jobs USING INDEX jobs_origin (origin=?)", "job_specs USING INTEGER PRIMARY KEY (rowid=?)"],
    "PAGE_OF_JOBS": ["jobs USING INTEGER PRIMARY KEY (rowid>?)", "job_specs USING INTEGER PRIMARY KEY (rowid=?)"],
    "PAGE_OF_USER": ["jobs USING INDEX jobs_of_user (user_id=? AND rowid>?)", "job_specs USING INTEGER PRIMARY KEY (rowid=?)"],
    "DUE": [
        "jobs USING INDEX jobs_due (next_run_at<?)",
        "runs USING INDEX runs_queue (waits_for=? AND ready_at<?)",
    ],
    "DUE_RUNS": ["runs USING INDEX runs_queue (waits_for=? AND ready_at<?)"],
    "CANCELLING": ["jobs USING INDEX jobs_cancelling (next_run_at<?)"],
    "UPCOMING": [
        "jobs USING INDEX jobs_due (next_run_at>?)",
        "runs USING INDEX runs_queue (waits_for=?)",
        "jobs USING INDEX jobs_cancelling (next_run_at>?)",
    ],
    "RUNS_SINCE": ["runs USING INTEGER PRIMARY KEY (rowid>?)"],
    "START_RUN": ["runs USING INTEGER PRIMARY KEY (rowid=?)"],
    "PARK_RUN": ["runs USING INTEGER PRIMARY KEY (rowid=?)"],
    "END_RUN": ["runs USING INTEGER PRIMARY KEY (rowid=?)"],
    "END_PLAINLY": ["runs USING INTEGER PRIMARY KEY (rowid=?)"],
    "LET_GO_ON": [
        "jobs USING INDEX sqlite_autoindex_jobs_1 (id=?)",
        "runs USING INDEX runs_pending (job_id=?)",
        "runs USING INDEX runs_running (job_id=?)",
    ],
    "MARK_RUN": ["runs USING INTEGER PRIMARY KEY (rowid=?)"],
    "RUNS": ["runs USING INTEGER PRIMARY KEY (rowid=?)"],
    # Not runs_of_job: that would walk the whole history of the job.
    "OPEN_RUNS": ["runs USING INDEX runs_pending (job_id=?)", "runs USING INDEX runs_running (job_id=?)"],
    "SESSION_BUSY": ["runs USING INDEX runs_session (session=?)"],
    "FIRST_WAITER": ["runs USING INDEX runs_queue (waits_for=?)"],
    "HISTORY": ["runs USING INTEGER PRIMARY KEY (rowid<?)"],
    "HISTORY_OF": ["runs USING INDEX runs_of_job (job_id=? AND (scheduled_at,manual,attempt)<(?,?,?))"],
    "RUN_UNTIL": ["runs USING INDEX runs_of_job (job_id=? AND scheduled_at<?)"],
    "RUN_AFTER": ["runs USING INDEX runs_of_job (job_id=? AND scheduled_at>?)"],
    "MARK_RULES": ["job_specs USING INTEGER PRIMARY KEY (rowid=?)", "jobs USING INDEX sqlite_autoindex_jobs_1 (id=?)"],
    "META": ["meta USING PRIMARY KEY (key=?)"],
    "DELETE_META": ["meta USING PRIMARY KEY (key=?)"],
    "ORIGINS": ["jobs USING INDEX jobs_origin (origin>?)", "origins USING PRIMARY KEY (name=?)"],
    "DELETE_ORIGIN": ["origins USING PRIMARY KEY (name=?)"],
    "RENEW_LEASE": ["owners USING INTEGER PRIMARY KEY (rowid=?)"],
    "DELETE_OWNER": ["owners USING INTEGER PRIMARY KEY (rowid=?)"],
}


@pytest.fixture(scope="module")
def db() -> Iterator[sqlite3.Connection]:
    connection = connect(MEMORY, create=True)
    yield connection
    connection.close()


def plan(db: sqlite3.Connection, statement: str) -> list[str]:
    """The steps of SQLite's plan; a covering index counts as an index."""
    named = re.findall(r":(\w+)", statement)
    values = dict.fromkeys(named, 0) if named else [0] * statement.count("?")
    steps = db.execute(f"EXPLAIN QUERY PLAN {statement}", values)
    return [str(step[3]).replace("COVERING INDEX", "INDEX") for step in steps]


def touches_a_table(step: str) -> bool:
    return step.startswith(("SCAN", "SEARCH")) and "CONSTANT ROW" not in step


@pytest.mark.parametrize("name", STATEMENTS)
def test_nothing_is_walked_or_sorted_that_may_be_large(db: sqlite3.Connection, name: str) -> None:
    steps = plan(db, STATEMENTS[name])
    walks = [step for step in steps if step.startswith("SCAN") and touches_a_table(step)]
    assert walks == SCANS.get(name, [])
    assert not any("TEMP B-TREE" in step for step in steps)


@pytest.mark.parametrize("name", [name for name in STATEMENTS if name not in SCANS and not name.startswith("INSERT_")])
def test_each_search_uses_the_index_made_for_it(db: sqlite3.Connection, name: str) -> None:
    found = [step.removeprefix("SEARCH ") for step in plan(db, STATEMENTS[name]) if touches_a_table(step)]
    assert found == SEARCHES[name], "a new statement belongs into the table above"


@pytest.mark.parametrize(("name", "count"), TOGETHER)
def test_rows_that_are_written_together_are_walked_once_and_searched_for_each(
    db: sqlite3.Connection, name: str, count: int
) -> None:
    steps = [step for step in plan(db, TOGETHER[name, count]) if touches_a_table(step)]
    assert [step.removeprefix("SEARCH ") for step in steps if step != "SCAN given"] == SEARCHES.get(name, [])
    assert steps.count("SCAN given") == (count > 1)


def test_the_queue_is_a_merge_of_two_walks_in_order(db: sqlite3.Connection) -> None:
    assert plan(db, statements.DUE) == [
        "MERGE (UNION ALL)",
        "LEFT",
        "SEARCH jobs USING INDEX jobs_due (next_run_at<?)",
        "RIGHT",
        "SEARCH runs USING INDEX runs_queue (waits_for=? AND ready_at<?)",
    ]


def test_the_lists_above_name_only_statements_that_exist() -> None:
    assert (SCANS.keys() | SEARCHES.keys()) <= TEXTS.keys()
    assert not SCANS.keys() & SEARCHES.keys()


def test_every_index_is_used(db: sqlite3.Connection) -> None:
    made = {
        name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'index' AND tbl_name IN ('jobs', 'runs')")
    }
    used = {
        name
        for text in (*STATEMENTS.values(), *TOGETHER.values())
        for name in re.findall(r"USING INDEX (\w+)", " ".join(plan(db, text)))
    }
    assert used == made
