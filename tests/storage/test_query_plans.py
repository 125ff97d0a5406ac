"""The query plans of all statements: with a million jobs each one must use an index."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator

import pytest

from cronactors.storage import (
    sqlite_history,
    sqlite_notifications,
    sqlite_pauses,
    sqlite_pruning,
    sqlite_run_output,
    sqlite_run_requests,
    statements,
)
from cronactors.storage.connection import connect
from cronactors.storage.file_state import MEMORY
from cronactors.storage.row_statement import WIDTHS, RowStatement

HOMES = [
    statements,
    sqlite_history,
    sqlite_notifications,
    sqlite_pauses,
    sqlite_pruning,
    sqlite_run_output,
    sqlite_run_requests,
]
ALL = {
    name: value
    for home in HOMES
    for name, value in vars(home).items()
    if name.isupper() and name[0] != "_" and isinstance(value, str | RowStatement)
}
ROW_STATEMENTS = {name: value for name, value in ALL.items() if isinstance(value, RowStatement)}
TEXTS = {name: text for name, text in ALL.items() if isinstance(text, str)}
STATEMENTS = TEXTS | {name: statement.for_one for name, statement in ROW_STATEMENTS.items()}
FOR_MANY = {
    (name, width): statement.for_many(width)
    for name, statement in ROW_STATEMENTS.items()
    if statement.takes_many
    for width in WIDTHS
}

OF_JOB = "(scheduled_at,manual,attempt)"
ORDER_OF_JOB = f"runs USING INDEX runs_of_job (job_id=? AND {OF_JOB}>(?,?,?) AND {OF_JOB}<(?,?,?))"
HAS_TAG = ["jobs USING INDEX sqlite_autoindex_jobs_1 (id=?)", "job_tags USING INDEX job_tags_of_job (number=? AND tag=?)"]

# A scan is right where the table or the partial index holds hardly more than the rows that are wanted.
SCANS = {
    "RUNNING": ["SCAN runs USING INDEX runs_running"],  # all running runs: the index holds nothing else
    "RUNNING_OF_OWNER": ["SCAN runs USING INDEX runs_running"],  # hardly more than that: few schedulers share a file
    "RUNNING_OWNERS": ["SCAN runs USING INDEX runs_running"],
    "COUNT_RUNNING": ["SCAN runs USING INDEX runs_running"],
    "WINDOW_RUNNING": ["SCAN runs USING INDEX runs_running"],
    "PAGE_RUNNING": ["SCAN runs USING INDEX runs_running"],
    "COUNT_RUNNING_RUNS": ["SCAN runs USING INDEX runs_running"],
    "ADVANCE_PENDING": ["SCAN runs USING INDEX runs_pending"],  # all pending runs, once after the clock was set back
    "LAST_JOB": ["SCAN sqlite_sequence"],
    "LAST_RUN": ["SCAN sqlite_sequence"],  # one row for each table; the largest id is one step from the end of runs
    "LATEST_ADDED_AT": ["SCAN job_specs", "SCAN runs"],  # backwards, and no further than its limit
    "INCOMPLETE_JOB": ["SCAN jobs USING INDEX jobs_of_user", "SCAN job_specs"],  # only where the file seems to be damaged
    "OWNERS": ["SCAN owners"],  # one row for each scheduler
    "LAST_NOTIFICATION": ["SCAN sqlite_sequence"],
    "ADVANCE_RETRIES": ["SCAN notifications USING INDEX notifications_ready"],  # as ADVANCE_PENDING
    "COUNT_PENDING": ["SCAN notifications USING INDEX notifications_line", "SCAN (subquery-1)"],  # no further than its limit
}
SEARCHES = {
    "UPDATE_JOB": [  # SQLite looks for what refers to the id
        "jobs USING INDEX sqlite_autoindex_jobs_1 (id=?)",
        "pauses USING PRIMARY KEY (job_id=?)",
        "pauses USING PRIMARY KEY (job_id=?)",
    ],
    "UPDATE_JOB_STATE": ["jobs USING INDEX sqlite_autoindex_jobs_1 (id=?)"],
    "HOLD_JOB": ["jobs USING INDEX sqlite_autoindex_jobs_1 (id=?)"],
    "DELETE_JOB": [
        "jobs USING INDEX sqlite_autoindex_jobs_1 (id=?)",
        "pauses USING PRIMARY KEY (job_id=?)",
        "job_tags USING INDEX job_tags_of_job (number=?)",
        "job_specs USING INTEGER PRIMARY KEY (rowid=?)",
    ],
    "UPDATE_SPEC": ["job_specs USING INTEGER PRIMARY KEY (rowid=?)", "jobs USING INDEX sqlite_autoindex_jobs_1 (id=?)"],
    "JOBS": ["jobs USING INDEX sqlite_autoindex_jobs_1 (id=?)", "job_specs USING INTEGER PRIMARY KEY (rowid=?)"],
    "IDLE_JOBS": [
        "jobs USING INDEX sqlite_autoindex_jobs_1 (id=?)",
        "runs USING INDEX runs_pending (job_id=?)",
        "runs USING INDEX runs_running (job_id=?)",
        "job_specs USING INTEGER PRIMARY KEY (rowid=?)",
    ],
    "IDS_NAMED": ["jobs USING INDEX sqlite_autoindex_jobs_2 (user_id=? AND name=?)"],
    "JOBS_OF_ORIGIN": ["jobs USING INDEX jobs_origin (origin=?)", "job_specs USING INTEGER PRIMARY KEY (rowid=?)"],
    "JOB_NAMES": ["jobs USING INDEX sqlite_autoindex_jobs_2 ((user_id,name)>(?,?))"],
    "LIST_JOBS": ["jobs USING INTEGER PRIMARY KEY (rowid>?)", "job_specs USING INTEGER PRIMARY KEY (rowid=?)"],
    "LIST_JOBS_OF_USER": [
        "jobs USING INDEX jobs_of_user (user_id=? AND rowid>?)",
        "job_specs USING INTEGER PRIMARY KEY (rowid=?)",
    ],
    "LIST_JOBS_TAGGED": [
        "job_tags USING PRIMARY KEY (tag=? AND number>?)",
        "jobs USING INTEGER PRIMARY KEY (rowid=?)",
        "job_specs USING INTEGER PRIMARY KEY (rowid=?)",
    ],
    "DELETE_TAGS": ["job_tags USING INDEX job_tags_of_job (number=?)", "jobs USING INDEX sqlite_autoindex_jobs_1 (id=?)"],
    "REQUEST_OF_MOMENT": ["run_requests USING INDEX run_requests_of_job (job_id=? AND scheduled_at=?)"],
    "REQUEST_OF_KEY": ["run_requests USING INDEX run_requests_key (job_id=? AND key=?)"],
    "LAST_REQUESTED_RUN": ["runs USING INDEX runs_of_job (job_id=? AND scheduled_at=? AND manual=?)"],
    "DELETE_REQUEST": ["run_requests USING INDEX run_requests_of_job (job_id=? AND scheduled_at=?)"],
    "DUE": [
        "jobs USING INDEX jobs_due (next_run_at<?)",
        "runs USING INDEX runs_queue (waits_for=? AND ready_at<?)",
    ],
    "OVERDUE": ["jobs USING INDEX jobs_due (next_run_at>? AND next_run_at<?)"],
    "DUE_RUNS": ["runs USING INDEX runs_queue (waits_for=? AND ready_at<?)"],
    "JOBS_TO_CANCEL": ["jobs USING INDEX jobs_cancelling (next_run_at<?)"],
    "NEXT_TIMES": [
        "jobs USING INDEX jobs_due (next_run_at>?)",
        "runs USING INDEX runs_queue (waits_for=?)",
        "jobs USING INDEX jobs_cancelling (next_run_at>?)",
        "pauses USING INDEX pauses_end (until_at>?)",
    ],
    "PAUSES": ["pauses USING PRIMARY KEY (job_id=?)"],
    "PAUSES_TO_END": ["pauses USING INDEX pauses_end (until_at<?)"],
    "PUT_PAUSE": [],
    "RUN_IDS_FROM": ["runs USING INTEGER PRIMARY KEY (rowid>?)"],
    "START_PENDING_RUN": ["runs USING INTEGER PRIMARY KEY (rowid=?)"],
    "SET_WAITS_FOR": ["runs USING INTEGER PRIMARY KEY (rowid=?)"],
    "STORE_FINISH": ["runs USING INTEGER PRIMARY KEY (rowid=?)"],
    "STORE_PLAIN_FINISH": ["runs USING INTEGER PRIMARY KEY (rowid=?)"],
    "RELEASE_JOB": [
        "jobs USING INDEX sqlite_autoindex_jobs_1 (id=?)",
        "runs USING INDEX runs_pending (job_id=?)",
        "runs USING INDEX runs_running (job_id=?)",
    ],
    "MARK_RUN": ["runs USING INTEGER PRIMARY KEY (rowid=?)"],
    "RUNS": ["runs USING INTEGER PRIMARY KEY (rowid=?)"],
    # Not runs_of_job: that would walk the whole history of the job.
    "PENDING_RUNS_OF_JOBS": ["runs USING INDEX runs_pending (job_id=?)"],
    "OWNER": ["owners USING INTEGER PRIMARY KEY (rowid=?)"],
    "RUNNING_RUNS_OF_JOBS": ["runs USING INDEX runs_running (job_id=?)"],
    "BUSY_SESSIONS": ["runs USING INDEX runs_session (session=?)"],
    "FIRST_WAITING_RUN": ["runs USING INDEX runs_queue (waits_for=?)"],
    "LIST_RUNS": ["runs USING INTEGER PRIMARY KEY (rowid<?)"],
    "LIST_RUNS_OF_JOB": ["runs USING INDEX runs_of_job (job_id=? AND (scheduled_at,manual,attempt)<(?,?,?))"],
    "LAST_RUN_UNTIL": ["runs USING INDEX runs_of_job (job_id=? AND scheduled_at<?)"],
    "FIRST_RUN_AFTER": ["runs USING INDEX runs_of_job (job_id=? AND scheduled_at>?)"],
    "WINDOW_BY_ID": ["runs USING INTEGER PRIMARY KEY (rowid>? AND rowid<?)"],
    "PAGE_BY_ID": ["runs USING INTEGER PRIMARY KEY (rowid>? AND rowid<?)", *HAS_TAG],
    "COUNT_BY_ID": ["runs USING INTEGER PRIMARY KEY (rowid>? AND rowid<?)", *HAS_TAG],
    "FIGURES_BY_ID": ["runs USING INTEGER PRIMARY KEY (rowid>? AND rowid<?)", *HAS_TAG],
    "WINDOW_UNSUCCESSFUL": ["runs USING INDEX runs_unsuccessful (status=? AND id>? AND id<?)"],
    "PAGE_UNSUCCESSFUL": ["runs USING INDEX runs_unsuccessful (status=? AND id>? AND id<?)", *HAS_TAG],
    "COUNT_UNSUCCESSFUL": ["runs USING INDEX runs_unsuccessful (status=? AND id>? AND id<?)", *HAS_TAG],
    "WINDOW_OF_JOB": [ORDER_OF_JOB],
    "PAGE_OF_JOB": [ORDER_OF_JOB, *HAS_TAG],
    "COUNT_OF_JOB": [ORDER_OF_JOB, *HAS_TAG],
    "FIGURES_OF_JOB": [ORDER_OF_JOB, *HAS_TAG],
    "PLACE_OF_RUN": ["runs USING INTEGER PRIMARY KEY (rowid=?)"],
    "TIMES_FROM": ["runs USING INTEGER PRIMARY KEY (rowid>?)"],
    "SET_RULES": ["job_specs USING INTEGER PRIMARY KEY (rowid=?)", "jobs USING INDEX sqlite_autoindex_jobs_1 (id=?)"],
    "META": ["meta USING PRIMARY KEY (key=?)"],
    "DELETE_META": ["meta USING PRIMARY KEY (key=?)"],
    "ORIGINS": ["jobs USING INDEX jobs_origin (origin>?)", "origins USING PRIMARY KEY (name=?)"],
    "DELETE_ORIGIN": ["origins USING PRIMARY KEY (name=?)"],
    "RENEW_LEASE": ["owners USING INTEGER PRIMARY KEY (rowid=?)"],
    "DELETE_OWNER": ["owners USING INTEGER PRIMARY KEY (rowid=?)"],
    "LAST_PIECES": ["run_output USING INDEX run_output_of_run (run_id=?)"],
    "EXTEND_PIECE": ["run_output USING INTEGER PRIMARY KEY (rowid=?)"],
    "DELETE_PIECES": ["run_output USING INDEX run_output_of_run (run_id=? AND start>?)"],
    "PIECES": ["run_output USING INDEX run_output_of_run (run_id=?)"],
    "PROGRESS": ["run_progress USING INTEGER PRIMARY KEY (rowid=?)"],
    "DELETE_PROGRESS": ["run_progress USING INTEGER PRIMARY KEY (rowid=?)"],
    "SMALLEST_RUN": ["runs"],  # a step from either end of the table
    "GREATEST_RUN": ["runs"],
    "RUNS_AFTER": ["runs USING INTEGER PRIMARY KEY (rowid>?)"],
    "NEXT_JOB": ["runs USING INDEX runs_of_job (job_id>?)"],
    "POSITION": ["runs USING INDEX runs_of_job (job_id=? AND (scheduled_at,manual,attempt)<(?,?,?))"],
    "OLDEST_RUNS": ["runs USING INDEX runs_of_job (job_id=? AND scheduled_at>? AND scheduled_at<?)"],
    "PENDING_NOTIFICATIONS": ["notifications USING INDEX notifications_run (run_id=?)"],
    "DELETE_RUNS": ["runs USING INTEGER PRIMARY KEY (rowid=?)"],
    "DELETE_OUTPUT": ["run_output USING INDEX run_output_of_run (run_id=?)"],
    "DELETE_NOTIFICATIONS_OF_RUNS": ["notifications USING INDEX notifications_run (run_id=?)"],
    "SET_PRUNED_UNTIL": ["jobs USING INDEX sqlite_autoindex_jobs_1 (id=?)"],
    "JOBS_WITH_HISTORY": [
        "job_specs USING INDEX job_specs_history (number>?)",
        "jobs USING INTEGER PRIMARY KEY (rowid=?)",
    ],
    "NOTIFICATIONS_AFTER": ["notifications USING INTEGER PRIMARY KEY (rowid>?)"],
    "DELETE_NOTIFICATIONS": ["notifications USING INTEGER PRIMARY KEY (rowid=?)"],
    "RELEASE_LINE": [
        "notifications USING INTEGER PRIMARY KEY (rowid=?)",
        "notifications USING INDEX notifications_line (receiver=? AND job_id=?)",
    ],
    "SETTLE_NOTIFICATION": ["notifications USING INTEGER PRIMARY KEY (rowid=?)"],
    "FIRST_OF_LINES": [
        "notifications USING INTEGER PRIMARY KEY (rowid=?)",
        "line USING INDEX notifications_line (receiver=? AND job_id=?)",
    ],
    "RELEASE_NOTIFICATION": ["notifications USING INTEGER PRIMARY KEY (rowid=?)"],
    "READY_OF_LINE": ["notifications USING INDEX notifications_line (receiver=? AND job_id=?)"],
    "REOPEN_NOTIFICATION": ["notifications USING INTEGER PRIMARY KEY (rowid=?)"],
    "READY_AT_ONCE": ["notifications USING INDEX notifications_ready (owner=? AND receiver=? AND ready_at=?)"],
    "READY_AGAIN": ["notifications USING INDEX notifications_ready (owner=? AND receiver=? AND ready_at>? AND ready_at<?)"],
    "NEXT_RETRY": ["notifications USING INDEX notifications_ready (owner=? AND receiver=? AND ready_at>?)"],
    "NEXT_READY_LINE": ["notifications USING INDEX notifications_ready ((owner,receiver)>(?,?))"],
    "TAKE_OVER": [
        "notifications USING INTEGER PRIMARY KEY (rowid=?)",
        "notifications USING INDEX notifications_ready (owner=? AND receiver=? AND ready_at>?)",
    ],
    "NEXT_RECEIVER": ["notifications USING INDEX notifications_line (receiver>?)"],
    "KEEP_JOB": ["notifications USING INDEX notifications_line (receiver=? AND job_id=?)"],
    "KEEP_JOB_OF_GIVEN_UP": ["notifications USING INDEX notifications_given_up (job_id=?)"],
    "OF_RUN": ["notifications USING INDEX notifications_run (run_id=?)"],
    "OF_ALERT": ["notifications USING INDEX notifications_alert (key=?)"],
    "LAST_BEFORE": ["notifications USING INTEGER PRIMARY KEY (rowid<?)"],
    "PAGE": ["notifications USING INTEGER PRIMARY KEY (rowid>? AND rowid<?)"],
    "EPISODES": ["alert_episodes USING PRIMARY KEY (job_id=? AND kind=?)"],
    "STORE_EPISODE": [],
    "END_EPISODE": ["alert_episodes USING PRIMARY KEY (job_id=? AND kind=?)"],
    "END_EPISODES_OF_JOB": ["alert_episodes USING PRIMARY KEY (job_id=?)"],
}


@pytest.fixture(scope="module")
def db() -> Iterator[sqlite3.Connection]:
    connection = connect(MEMORY, create=True)
    yield connection
    connection.close()


def plan(db: sqlite3.Connection, statement: str) -> list[str]:
    """Return the steps of SQLite's plan; a covering index counts as an index."""
    named = re.findall(r":(\w+)", statement)
    values = dict.fromkeys(named, 0) if named else [0] * statement.count("?")
    steps = db.execute(f"EXPLAIN QUERY PLAN {statement}", values)
    return [str(step[3]).replace("COVERING INDEX", "INDEX") for step in steps]


def touches_a_table(step: str) -> bool:
    return step.startswith(("SCAN", "SEARCH")) and "CONSTANT ROW" not in step


@pytest.mark.parametrize("name", STATEMENTS)
def test_no_large_table_is_scanned_or_sorted(db: sqlite3.Connection, name: str) -> None:
    steps = plan(db, STATEMENTS[name])
    walks = [step for step in steps if step.startswith("SCAN") and touches_a_table(step)]
    assert walks == SCANS.get(name, [])
    assert not any("TEMP B-TREE" in step for step in steps)


@pytest.mark.parametrize("name", [name for name in STATEMENTS if name not in SCANS and not name.startswith("INSERT_")])
def test_each_search_uses_the_index_made_for_it(db: sqlite3.Connection, name: str) -> None:
    found = [step.removeprefix("SEARCH ") for step in plan(db, STATEMENTS[name]) if touches_a_table(step)]
    assert found == SEARCHES[name], "add a new statement to the table above"


@pytest.mark.parametrize(("name", "width"), FOR_MANY)
def test_a_statement_for_many_rows_scans_only_them(db: sqlite3.Connection, name: str, width: int) -> None:
    steps = [step for step in plan(db, FOR_MANY[name, width]) if touches_a_table(step)]
    assert [step.removeprefix("SEARCH ") for step in steps if step != "SCAN new"] == SEARCHES.get(name, [])
    assert steps.count("SCAN new") in (1, 2), "for the LIMIT, and where the rows are used"


def test_the_queue_is_a_merge_of_two_walks_in_order(db: sqlite3.Connection) -> None:
    assert plan(db, statements.DUE) == [
        "MERGE (UNION ALL)",
        "LEFT",
        "SEARCH jobs USING INDEX jobs_due (next_run_at<?)",
        "RIGHT",
        "SEARCH runs USING INDEX runs_queue (waits_for=? AND ready_at<?)",
    ]


def test_the_tables_above_name_only_statements_that_exist() -> None:
    assert (SCANS.keys() | SEARCHES.keys()) <= STATEMENTS.keys()
    assert not SCANS.keys() & SEARCHES.keys()


def test_every_index_is_used(db: sqlite3.Connection) -> None:
    made = {name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL")}
    used = {
        name
        for text in (*STATEMENTS.values(), *FOR_MANY.values())
        for name in re.findall(r"USING INDEX (\w+)", " ".join(plan(db, text)))
    }
    assert {name for name in used if not name.startswith("sqlite_autoindex")} == made
