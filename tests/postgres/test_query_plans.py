"""The query plans of all statements on PostgreSQL: with a million jobs each one must use an index, whatever the planner has seen.

A connection keeps a plan until the server has analysed the tables again, so one that was made for an idle store is in use when a burst
comes. So each statement must have one plan in all states of a store.
"""

from __future__ import annotations

import pkgutil
import re
from collections.abc import Iterator, Mapping
from contextlib import closing
from importlib import import_module
from types import ModuleType
from typing import Any

import psycopg
import pytest

from cronactors.storage import postgres
from cronactors.storage.postgres import jobs, session
from cronactors.storage.postgres.execution import Named, Rows
from cronactors.storage.postgres.session import Session
from cronactors.storage.postgres.storage import PostgresStorage
from tests.postgres_store import worker_database

IS_STATEMENT = re.compile(r"(SELECT|INSERT|UPDATE|DELETE|WITH)\b")


def statements(module: ModuleType) -> dict[str, str]:
    """Return the statements of a module by name. One whose name begins with an underscore is a part of others, but for `session`."""
    values = {name: value for name, value in vars(module).items() if name.isupper() and (name[0] != "_" or module is session)}
    texts = {name.strip("_"): value.text if isinstance(value, Named | Rows) else value for name, value in values.items()}
    return {name: text for name, text in texts.items() if isinstance(text, str) and IS_STATEMENT.match(text)}


MODULES = [import_module(found.name) for found in pkgutil.iter_modules(postgres.__path__, f"{postgres.__name__}.")]
ALL = {name: text for module in MODULES for name, text in statements(module).items()}
LOCKING = {f"{name} locked": f"{ALL[name]} {jobs._LOCK}" for name in ("JOBS", "JOBS_NAMED", "JOBS_OF_ORIGIN")}
STATEMENTS = ALL | LOCKING

# Steps that read nothing by themselves.
SILENT = {
    *(
        "Aggregate",
        "Append",
        "CTE Scan",
        "Function Scan",
        "Limit",
        "LockRows",
        "Materialize",
        "Memoize",
        "Merge Append",
        "ModifyTable",
    ),
    *("Nested Loop", "Recursive Union", "Result", "Subquery Scan", "Unique", "WorkTable Scan"),
}

# What each statement reads: an index with the columns that are looked up in it. Those that are not here read no table.
PLANS: dict[str, list[str]] = {
    "HAS_USER": ["jobs_user_id_name_key (user_id)"],
    "WINDOW_BY_ID": ["runs_pkey (id)"],
    "WINDOW_UNSUCCESSFUL": ["runs_unsuccessful (status, id)"],
    "WINDOW_RUNNING": ["all of runs_running", "sort"],  # all running runs: the index holds nothing else
    "WINDOW_OF_JOB": ["runs_of_job (job_id, scheduled_at, manual, attempt)"],
    "PAGE_BY_ID": ["job_tags_pkey (tag, number)", "jobs_id_key (id)", "runs_pkey (id)"],
    "PAGE_UNSUCCESSFUL": ["job_tags_pkey (tag, number)", "jobs_id_key (id)", "runs_unsuccessful (status, id)"],
    "PAGE_RUNNING": ["all of runs_running", "job_tags_pkey (tag, number)", "jobs_id_key (id)", "sort"],
    "PAGE_OF_JOB": ["job_tags_pkey (tag, number)", "jobs_id_key (id)", "runs_of_job (job_id, scheduled_at, manual, attempt)"],
    "COUNT_BY_ID": ["job_tags_pkey (tag, number)", "jobs_id_key (id)", "runs_pkey (id)"],
    "COUNT_UNSUCCESSFUL": ["job_tags_pkey (tag, number)", "jobs_id_key (id)", "runs_unsuccessful (status, id)"],
    "COUNT_RUNNING_RUNS": ["all of runs_running", "job_tags_pkey (tag, number)", "jobs_id_key (id)"],
    "COUNT_OF_JOB": ["job_tags_pkey (tag, number)", "jobs_id_key (id)", "runs_of_job (job_id, scheduled_at, manual, attempt)"],
    "FIGURES_BY_ID": ["job_tags_pkey (tag, number)", "jobs_id_key (id)", "runs_pkey (id)"],
    "FIGURES_OF_JOB": ["job_tags_pkey (tag, number)", "jobs_id_key (id)", "runs_of_job (job_id, scheduled_at, manual, attempt)"],
    "PLACE_OF_RUN": ["runs_pkey (id)"],
    "TIMES_FROM": ["runs_pkey (id)"],
    "INSERT_JOBS": ["sort"],
    "UPDATE_JOBS": ["jobs_id_key (id)"],
    "UPDATE_WHOLE_STATES": ["job_state_pkey (id)"],
    "UPDATE_JOB_STATES": ["job_state_pkey (id)"],
    "SET_RULES": ["jobs_id_key (id)"],
    "DELETE_JOBS": ["jobs_id_key (id)"],
    "JOBS": ["job_state_pkey (id)", "jobs_id_key (id)", "sort"],
    "IDLE_JOBS": ["job_state_pkey (id)", "jobs_id_key (id)", "runs_pending (job_id)", "runs_running (job_id)"],
    "JOBS_NAMED": ["job_state_pkey (id)", "jobs_user_id_name_key (user_id, name)", "sort"],
    "JOBS_OF_ORIGIN": ["job_state_pkey (id)", "jobs_origin (md5(origin))", "sort"],
    "JOB_NAMES": ["jobs_user_id_name_key (user_id, name)"],
    "LIST_JOBS": ["job_state_pkey (id)", "jobs_pkey (number)"],
    "LIST_JOBS_OF_USER": ["job_state_pkey (id)", "jobs_of_user (user_id, number)"],
    "LIST_JOBS_TAGGED": ["job_state_pkey (id)", "job_tags_pkey (tag, number)", "jobs_pkey (number)"],
    "INSERT_TAGS": ["jobs_id_key (id)"],
    "DELETE_TAGS": ["job_tags_of_job (number)", "jobs_id_key (id)"],
    "LATEST_ADDED_AT": ["all of jobs_pkey", "all of runs_pkey"],  # backwards, and no further than its limit
    "DUE_RUNS": ["runs_due (ready_at)"],
    "DUE": ["job_state_due (next_run_at)", "runs_due (ready_at)"],
    "DUE_AND_LOCKED": ["job_state_due (next_run_at)", "runs_due (ready_at)", "sort"],
    "TRY_TO_LOCK_JOBS": ["job_state_pkey (id)", "sort"],
    "OVERDUE": ["job_state_due (next_run_at, number)"],
    "JOBS_TO_CANCEL": ["job_state_cancelling (next_run_at)"],
    "NEXT_TIMES": [  # one step from the end of each index
        "all of job_state_cancelling",
        "all of job_state_due",
        "all of pauses_end",
        "all of runs_due",
    ],
    "PAUSES": ["pauses_pkey (job_id)"],
    "PAUSES_TO_END": ["pauses_end (until_at)"],
    "INSERT_NOTIFICATIONS": ["notifications_line (receiver, job_id)", "sort"],
    "KNOWN_ALERTS": ["notifications_alert (key)"],
    "SETTLE_NOTIFICATIONS": ["notifications_pkey (id)"],
    "LINES_WITH_READY": ["notifications_line (receiver, job_id)"],
    "RELEASE_LINES": ["notifications_line (receiver, job_id)", "notifications_pkey (id)"],
    "REOPEN_NOTIFICATION": ["notifications_line (receiver, job_id)", "notifications_pkey (id)"],
    "READY": ["notifications_ready (owner, receiver, ready_at)", "notifications_ready (owner, receiver, ready_at)", "sort"],
    "NEXT_RETRY": ["notifications_ready (owner, receiver, ready_at)"],
    "READY_LINES": [  # one step, and one for each that is found
        "all of notifications_ready",
        "notifications_ready (owner, receiver)",
        "sort",
    ],
    "TAKE_OVER": ["notifications_pkey (id)", "notifications_ready (owner, receiver)"],
    "ADVANCE_RETRIES": ["all of notifications_ready (ready_at)"],  # once after the clock was set back
    "PENDING_RECEIVERS": ["all of notifications_line", "notifications_line (receiver)"],  # likewise
    "KEEP_JOBS": ["all of notifications_line", "notifications_line (receiver)", "notifications_line (receiver, job_id)"],
    "KEEP_JOBS_OF_GIVEN_UP": ["notifications_given_up (job_id)"],
    "COUNT_PENDING": ["all of notifications_line"],  # no further than its limit
    "OF_RUN": ["notifications_run (run_id)", "sort"],
    "OF_ALERT": ["notifications_alert (key)", "sort"],
    "LAST_BEFORE": ["notifications_pkey (id)"],
    "PAGE": ["notifications_pkey (id)"],
    "EPISODES": ["alert_episodes_pkey (job_id, kind)"],
    "END_EPISODES": ["alert_episodes_pkey (job_id, kind)"],
    "END_EPISODES_OF_JOBS": ["alert_episodes_pkey (job_id)"],
    "DELETE_PROGRESS": ["run_progress_pkey (run_id)"],
    "DELETE_REQUESTS": ["run_requests_pkey (job_id, scheduled_at)"],
    "RUN_IDS": ["all of runs_pkey", "all of runs_pkey"],  # one step from either end
    "RUNS_AFTER": ["runs_pkey (id)"],
    "NEXT_JOB": ["runs_of_job (job_id)"],
    "POSITION": ["runs_of_job (job_id, scheduled_at, manual, attempt)"],
    "OLDEST_RUNS": ["runs_of_job (job_id, scheduled_at)"],
    "PENDING_NOTIFICATIONS": ["notifications_run (run_id)"],
    "DELETE_RUNS": ["notifications_run (run_id)", "run_output_of_run (run_id)", "run_progress_pkey (run_id)", "runs_pkey (id)"],
    "SET_PRUNED_UNTIL": ["job_state_pkey (id)"],
    "JOBS_WITH_HISTORY": ["jobs_history (number)"],
    "NOTIFICATIONS_AFTER": ["notifications_pkey (id)"],
    "DELETE_NOTIFICATIONS": ["notifications_pkey (id)"],
    "RELEASE_LINE": ["notifications_line (receiver, job_id)", "notifications_pkey (id)"],
    "LAST_PIECES": ["run_output_of_run (run_id)"],
    "EXTEND_PIECES": ["run_output_pkey (id)"],
    "DELETE_PIECES": ["run_output_of_run (run_id, start)"],
    "PIECES": ["run_output_of_run (run_id)"],
    "PROGRESS": ["run_progress_pkey (run_id)"],
    "DELETE_OTHER_OF_KEY": ["run_requests_key (job_id, key)"],
    "REQUEST_OF_MOMENT": ["run_requests_pkey (job_id, scheduled_at)"],
    "REQUEST_OF_KEY": ["run_requests_key (job_id, key)"],
    "LAST_REQUESTED_RUN": ["runs_of_job (job_id, scheduled_at, manual)"],
    "INSERT_RUNS": ["sort"],
    "START_PENDING_RUNS": ["runs_pkey (id)"],
    "SET_WAITS_FOR": ["runs_pkey (id)"],
    "MARK_RUNS": ["runs_pkey (id)"],
    "STORE_FINISHES": ["runs_pkey (id)"],
    "ADVANCE_PENDING": ["all of runs_pending"],  # likewise
    "RUNS": ["runs_pkey (id)"],
    "OPEN_RUNS": ["runs_pending (job_id)", "runs_running (job_id)", "sort"],
    "RUNNING_RUNS": ["all of runs_running"],
    "RUNNING_OF_OWNER": ["all of runs_running (owner)"],  # the index holds hardly more
    "ANY_RUNNING": ["all of runs_running"],
    "COUNT_RUNNING": ["all of runs_running"],
    "BUSY_SESSIONS": ["runs_session (session)"],
    "FIRST_WAITING_RUN": ["runs_waiting (waits_for)"],
    "LIST_RUNS": ["runs_pkey (id)"],
    "LIST_RUNS_OF_JOB": ["runs_of_job (job_id, scheduled_at, manual, attempt)"],
    "LAST_RUN_UNTIL": ["runs_of_job (job_id, scheduled_at, manual)"],
    "FIRST_RUN_AFTER": ["runs_of_job (job_id, scheduled_at, manual)"],
    "INSERT_STARTED_RUNS": ["job_state_pkey (id)"],
    "STORE_PLAIN_FINISHES": [
        "job_state_pkey (id)",
        "job_state_pkey (id)",
        "runs_pending (job_id)",
        "runs_pkey (id)",
        "runs_pkey (id)",
        "runs_running (job_id)",
    ],
    "LOCK_JOBS": ["job_state_pkey (id)", "sort"],
    "LIFE": ["Seq Scan"],  # of one row
    "OWNERS": ["all of owners_pkey"],  # one row for each scheduler
    "OWNER": ["owners_pkey (id)"],
    "RENEW_LEASE": ["owners_pkey (id)"],
    "DELETE_OWNERS": ["owners_pkey (id)"],
    "META": ["meta_pkey (key)"],
    "DELETE_META": ["meta_pkey (key)"],
    "ORIGINS": [  # all jobs that have an origin, for a list that a user asks for
        "all of jobs_origin",
        "origins_name (md5(name))",
        "sort",
    ],
    "DELETE_ORIGIN": ["origins_name (md5(name))"],
    "STOPPING_OWNERS": ["all of stop_marks_pkey"],
    "UNMARK_STOPPING": ["stop_marks_pkey (owner)"],
    "JOBS locked": ["job_state_pkey (id)", "jobs_id_key (id)", "sort"],
    "JOBS_NAMED locked": ["job_state_pkey (id)", "jobs_user_id_name_key (user_id, name)", "sort"],
    "JOBS_OF_ORIGIN locked": ["job_state_pkey (id)", "jobs_origin (md5(origin))", "sort"],
}
HOT = [
    *("LOCK_JOBS", "STORE_PLAIN_FINISHES", "DUE_AND_LOCKED", "IDLE_JOBS", "INSERT_STARTED_RUNS", "NEXT_TIMES"),
    *(
        "TRY_TO_LOCK_JOBS",
        "START_PENDING_RUNS",
        "RUNS",
        "OPEN_RUNS",
        "JOBS locked",
        "STORE_FINISHES",
        "INSERT_RUNS",
        "UPDATE_JOB_STATES",
    ),
    *("JOBS_NAMED locked", "INSERT_JOBS", "INSERT_NOTIFICATIONS"),
]
"""Statements of finishing, claiming and adding. Others may do worse once a store was drained, until it is analysed again."""
ANY_ROW = {"HAS_ROWS"}
"""Statements that need one row, whichever it is, so that any index will do."""

# The states of a store

TABLES = [
    *(
        "jobs",
        "job_state",
        "job_tags",
        "pauses",
        "runs",
        "run_requests",
        "notifications",
        "alert_episodes",
        "run_output",
        "run_progress",
    )
]
JOBS = """INSERT INTO @jobs (id, user_id, name, origin, schedule, timezone, anchor_at, max_retries, timeout_secs, session_mode, misfire,
  created_at, rules, description, tags, history, executor_options, prompt)
 SELECT 'j' || n, 'u' || n % 20, 'n' || n, CASE WHEN n % 1000 = 0 THEN 'list' END, '{}', 'UTC', 0, 0, 1, 'isolated', '{}',
  0, '', '', '[]', CASE WHEN n % 1000 = 0 THEN '{"days": 1}' ELSE '{}' END, '{}', '' FROM"""
RUNS = """INSERT INTO @runs (id, job_id, job_name, user_id, "trigger", manual, scheduled_at, attempt, ready_at, failures, coalesced,
  cancel_requested, session_id, status, owner, session, waits_for)
 SELECT nextval('@run_ids'), 'j' || n, '', '', 'schedule', 0,"""
NOTIFICATIONS = """INSERT INTO @notifications (run_id, receiver, job_id, created_at, status, attempts, ready_at, owner)
 SELECT n, 'notifier', 'j' || n % 1000, 0,"""


def contents(jobs: int) -> list[str]:
    """Return the statements that fill a store."""
    tenth, fifth = (f"generate_series(1, {jobs // part}) AS n" for part in (10, 5))
    return [
        f"{JOBS} generate_series(1, {jobs}) AS n",
        "INSERT INTO @job_state SELECT id, number, 'skip', 0, 1, 0, number, NULL, NULL, NULL, NULL, 0, NULL FROM @jobs",
        "INSERT INTO @job_tags SELECT 't' || number % 3, number FROM @jobs WHERE number % 10 = 0",
        f"""{RUNS} n, 1, n, 0, 1, 0, '', CASE WHEN n % 50 = 0 THEN 'failed' ELSE 'success' END, 1, NULL, NULL
 FROM generate_series(1, {jobs}) AS n""",
        f"""{RUNS} -n, 1, n, 0, 1, 0, '', 'pending', NULL, NULL, CASE WHEN n % 2 = 0 THEN 'session:' || n % 10 END FROM {fifth}""",
        f"""{RUNS} -n, 2, n, 0, 1, 0, '', 'running', n % 4, CASE WHEN n % 10 = 0 THEN 'session:' || n END, NULL
 FROM generate_series(1, 100) AS n""",
        f"{NOTIFICATIONS} CASE WHEN n % 100 = 0 THEN 'given_up' ELSE 'delivered' END, 0, NULL, 1 FROM {fifth}",
        f"{NOTIFICATIONS} 'pending', 0, CASE WHEN n <= 1000 THEN 0 END, 1 FROM {tenth}",
        f"""INSERT INTO @pauses SELECT 'j' || n, n, CASE WHEN n % 2 = 0 THEN n + 9 END, CASE WHEN n % 100 > 0 THEN n + 9 END, ''
 FROM {tenth}""",
        f"INSERT INTO @run_requests SELECT 'j' || n, n, CASE WHEN n % 2 = 0 THEN 'k' END, NULL FROM {tenth}",
        f"INSERT INTO @alert_episodes SELECT 'j' || n, 'failing', 0, 0, 0 FROM {tenth}",
        f"INSERT INTO @run_output (run_id, start, size, at, text) SELECT n / 10, n % 10, 1, 0, '' FROM {fifth}",
        f"INSERT INTO @run_progress SELECT n, 0, 0, '' FROM {tenth}",
    ]


ANALYSED = [f"VACUUM ANALYZE @{table}" for table in TABLES]
STATES = {
    "empty": [f"ALTER TABLE @{table} SET (autovacuum_enabled = off)" for table in TABLES],
    "full": contents(100_000),
    "full, analysed": ANALYSED,
    "idle, analysed": [  # as a store is found most of the time
        "DELETE FROM @runs WHERE status IN ('pending', 'running')",
        "DELETE FROM @notifications WHERE status = 'pending'",
        *(f"{words} @{table}" for table in ("runs", "notifications") for words in ("VACUUM", "REINDEX TABLE", "VACUUM ANALYZE")),
    ],
}
DRAINED = [
    f"TRUNCATE {', '.join(f'@{table}' for table in TABLES)}",
    *contents(5_000),
    *(f"DELETE FROM @{table}" for table in reversed(TABLES)),
    *ANALYSED,
]
"""Another state: of a store of one-shots, whose jobs are deleted when they are done."""
INDEXES = """SELECT relname, ARRAY(SELECT pg_get_indexdef(indexrelid, number, true) FROM generate_series(1, indnkeyatts) AS number)
 FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid WHERE indrelid::regclass::text LIKE '{}.%'"""

Node = Mapping[str, Any]


class Explained:
    """The plans of all statements.

    Attributes:
        indexes: The columns of each index.
        steps: For each state what each statement reads.
        trees: The same as PostgreSQL shows it.
    """

    def __init__(self) -> None:
        self.indexes: dict[str, list[str]] = {}
        self.steps: dict[str, dict[str, list[str]]] = {}
        self.trees: dict[str, dict[str, Node]] = {}

    def explain(self, state: str, opened: Session) -> None:
        """Note the plans of all statements, each as it is made with the settings of a session."""
        trees = self.trees[state] = {name: tree(opened, text) for name, text in STATEMENTS.items()}
        self.steps[state] = {name: sorted(self._steps(plan)) for name, plan in trees.items()}

    def _steps(self, node: Node) -> Iterator[str]:
        """Yield what a plan reads: ``index (columns that are looked up)``, or a walk over a whole index, or whatever we don't want."""
        kind, condition = node["Node Type"], node.get("Index Cond")
        if "Index Name" in node:
            index = node["Index Name"]
            columns = looked_up(condition or "", self.indexes[index])
            whole = "" if columns[:1] == self.indexes[index][:1] else "all of "
            yield f"{whole}{index} ({', '.join(columns)})" if columns else f"all of {index}"
        elif "Sort" in kind:
            yield "sort"
        elif kind not in SILENT:
            yield kind
        if (
            kind == "Nested Loop"
            and "Join Filter" in node
            and not any("Index Cond" in inner for inner in nodes(node["Plans"][1]))
        ):
            yield "all pairs"
        for below in node.get("Plans", ()):
            yield from self._steps(below)


def tree(opened: Session, text: str) -> Node:
    """Return the plan of a statement."""
    count = max(map(int, re.findall(r"\$(\d+)", text)), default=0)
    opened.script(f"PREPARE explained AS {text}")
    arguments = f"({', '.join(['NULL'] * count)})" if count else ""
    ((explained,),) = opened.script(f"EXPLAIN (FORMAT JSON, COSTS OFF) EXECUTE explained{arguments}")
    opened.script("DEALLOCATE explained")
    return explained[0]["Plan"]  # type: ignore[index, return-value]


def nodes(node: Node) -> Iterator[Node]:
    yield node
    for below in node.get("Plans", ()):
        yield from nodes(below)


def looked_up(condition: str, columns: list[str]) -> list[str]:
    """Return the columns of an index that a condition names. PostgreSQL writes those of other tables with the table."""
    condition = re.sub(r"\w+ IS NOT NULL", "", condition)  # up to version 16 for min()
    return [column for column in columns if re.search(rf"(?<![\w.\"'$]){re.escape(column)}(?!\w)", condition)]


@pytest.fixture(scope="module")
def explained() -> Iterator[Explained]:
    schema, url, found = "query_plans", worker_database(), Explained()
    with closing(PostgresStorage(url, schema=schema)), psycopg.connect(url, autocommit=True) as connection:
        found.indexes = dict(connection.execute(INDEXES.format(schema)).fetchall())
        for state, changes in (STATES | {"drained": DRAINED}).items():
            for change in changes:
                connection.execute(change.replace("@", f"{schema}.").encode())
            with closing(Session(url, schema)) as opened:
                opened.connect()
                found.explain(state, opened)
        yield found
        connection.execute(f"SET client_min_messages = error; DROP SCHEMA {schema} CASCADE".encode())


@pytest.mark.slow
def test_each_statement_uses_the_index_made_for_it(explained: Explained) -> None:
    """One test, since it takes seconds to fill a store."""
    for state in STATES:
        steps = {name: read for name, read in explained.steps[state].items() if name not in ANY_ROW}
        assert steps == {name: PLANS.get(name, []) for name in steps}, f"{state}: add a new statement to the table above"
        trees = explained.trees[state]
        # The queue is a merge of two walks in order.
        assert [node["Node Type"] for node in nodes(trees["DUE"])] == ["Limit", "Merge Append", *["Limit", "Index Scan"] * 2]
        assert [trees[name]["Node Type"] for name in ANY_ROW] == ["Limit"] * len(ANY_ROW)
    assert {name: explained.steps["drained"][name] for name in HOT} == {name: PLANS[name] for name in HOT}
    used = {node.get("Index Name") for trees in explained.trees.values() for plan in trees.values() for node in nodes(plan)}
    assert {name for name in explained.indexes if not name.endswith("_pkey")} <= used


def test_the_tables_above_name_only_statements_that_exist() -> None:
    assert (PLANS.keys() | ANY_ROW) <= STATEMENTS.keys()
    assert not PLANS.keys() & ANY_ROW


def test_no_two_statements_have_one_name() -> None:
    assert all(ALL[name] == text for module in MODULES for name, text in statements(module).items())
