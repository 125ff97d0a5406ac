"""Which requests write alone, and which beside those of other machines; and what statements must not say because of that."""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
import re
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

import cronactors
from cronactors.actors.mailbox import BatchRequest, ReadRequest, Request
from cronactors.actors.user_requests import AddJobs, RequestRun
from cronactors.storage import postgres
from cronactors.storage.postgres import jobs, session
from cronactors.storage.postgres.execution import Named, Rows
from tests.ledger_world import DEFAULTS, FAILURE, MINUTE, World
from tests.postgres.two_connections import claim, connections, finish
from tests.postgres_store import in_postgres

BESIDE_OTHERS = {
    "AddJobs",
    "ClaimDue",
    "FinishRun",
    "MarkStuck",
    "Recompute",
    "RenewLeases",
    "RequestRun",
    "Settle",
    "SignOff",
    "StoreOutput",
}
"""Requests that are carried out beside those of other machines. Each is in docs of `Request.alone`: it holds all that it decides about,
and test_races.py plays it against those that could decide about the same."""
ALONE = {
    "AdoptOrigin",
    "DecideAndClaim",
    "DeletePiece",
    "EndPauses",
    "FinishOwnRun",
    "MarkRecomputed",
    "NoteRules",
    "PauseJob",
    "PrunePiece",
    "RecomputeAfterSetBack",
    "Recover",
    "Register",
    "RemoveJob",
    "RemoveJobByName",
    "RemoveOrigin",
    "ReportOverdue",
    "RequestCancel",
    "ResumeJob",
    "RetryNotification",
    "Revive",
    "StartOwnRun",
    "TakeOver",
    "TryUpdate",
    "UpdateJob",
    "UpsertJobs",
}
"""Requests that keep all others out until they are committed."""


def kinds(of: type) -> Iterator[type[Request[object]]]:
    for kind in of.__subclasses__():
        yield kind
        yield from kinds(kind)


def writing() -> list[type[Request[object]]]:
    """Return all requests of the package that write. Those are in modules that may not have been imported yet."""
    for module in pkgutil.walk_packages(cronactors.__path__, "cronactors."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    found = {kind for kind in kinds(Request) if kind.__module__.startswith("cronactors.")} - {ReadRequest, BatchRequest}
    return [kind for kind in found if not issubclass(kind, ReadRequest)]


def test_each_request_that_writes_has_chosen_whether_it_is_alone() -> None:
    """A new one that is not alone needs a race in test_races.py for each decision that another one could change."""
    chosen = {kind.__name__: kind.alone for kind in writing()}
    assert chosen == dict.fromkeys(BESIDE_OTHERS, False) | dict.fromkeys(ALONE, True)


def test_what_only_reads_is_no_reason_to_be_alone() -> None:
    """`run_batch` looks at `alone` of those that write; on another one it would have no effect."""
    assert [kind for kind in kinds(ReadRequest) if "alone" in vars(kind)] == []


# Statements


def modules() -> list[str]:
    return [module.name for module in pkgutil.iter_modules(postgres.__path__, "cronactors.storage.postgres.")]


def statements() -> Iterator[tuple[str, str]]:
    """Yield the names and texts of all statements that are written down, with those that are put together for a lock."""
    for name in modules():
        for constant, value in vars(importlib.import_module(name)).items():
            text = value.text if isinstance(value, Rows | Named) else value
            if isinstance(text, str) and re.match(r"\s*(WITH|SELECT|INSERT|UPDATE|DELETE)\b", text):
                yield f"{name}.{constant}", text
    for constant in ("JOBS", "JOBS_NAMED", "JOBS_OF_ORIGIN"):
        text = getattr(jobs, constant)
        yield f"{constant}, locked", f"{text.text if isinstance(text, Rows) else text} {jobs._LOCK}"
    yield "schema", Path(str(inspect.getfile(session))).with_name("schema_1.sql").read_text()


def texts() -> Iterator[str]:
    """Yield all literals of the package, and so also parts of statements; those in docstrings are not quoted by any other."""
    for name in modules():
        tree = ast.parse(Path(str(importlib.import_module(name).__file__)).read_text())
        documented = (ast.Module, ast.ClassDef, ast.FunctionDef)
        docstrings = {ast.get_docstring(node, clean=False) for node in ast.walk(tree) if isinstance(node, documented)}
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value not in docstrings:
                yield node.value


LOCKS = re.compile(r"\bFOR (NO KEY )?UPDATE\b")


def test_there_are_statements_that_lock() -> None:
    assert sum(bool(LOCKS.search(text)) for _, text in statements()) >= 7


def test_statements_take_the_time_from_the_clock_and_not_from_the_transaction() -> None:
    """``now()`` is when the transaction began, which may have waited for a lock since."""
    wrong = re.compile(
        r"\b(now|transaction_timestamp|statement_timestamp)\(\)|\bcurrent_timestamp\b|\blocaltimestamp\b", re.IGNORECASE
    )
    assert [text for text in texts() if wrong.search(text)] == []
    assert [name for name, text in statements() if wrong.search(text)] == []


def test_no_statement_locks_rows_and_looks_for_others() -> None:
    """A statement that waits for a row sees other tables as they were before it waited."""
    looks = re.compile(r"\bNOT EXISTS\b|\) IS NULL\b", re.IGNORECASE)
    assert [name for name, text in statements() if LOCKS.search(text) and looks.search(text)] == []


def test_statements_lock_rows_in_order_or_wait_for_none() -> None:
    for name, text in statements():
        for part in LOCKS.finditer(text):
            waits = not text[part.start() :].startswith((f"{part[0]} SKIP LOCKED", f"{part[0]} OF s SKIP LOCKED"))
            assert not waits or re.search(r"ORDER BY [sj.]*number $", text[: part.start()]), f"{name}: {text}"


@pytest.mark.parametrize("beside_others", [True, False])
def test_only_who_writes_beside_others_locks_rows(beside_others: bool) -> None:
    """The statements that were sent are among those above, or these would prove nothing."""
    with closing(World(in_postgres)) as world:
        world.storage._session._texts.clear()  # type: ignore[attr-defined]  # the storage may have served another test
        job_id = world.add(session_mode="main", user_id="ada")
        world.pass_time(MINUTE)
        if not beside_others:
            run = world.claim_one()
            world.finish(run, FAILURE)
            sent = list(world.storage._session._texts)  # type: ignore[attr-defined]
        else:
            with connections(world) as (one, _):
                one.carry_out(claim(world.owner))
                (run,) = world.history(job_id)
                one.carry_out(finish(world, run, FAILURE), AddJobs((world.spec(),), DEFAULTS), RequestRun(job_id, "key", None))
                sent = list(one.storage._session._texts)
    locking = {text for text in sent if LOCKS.search(text)}
    assert bool(locking) is beside_others
    assert locking <= {text for _, text in statements()}
