"""PostgreSQL's errors, mapped in one place. Every call of psycopg in this package is made inside `ServerErrors`."""

from __future__ import annotations

from types import TracebackType
from typing import Final

import psycopg

from cronactors.errors import StoreCorrupt, StoreUnavailable
from cronactors.storage.errors import Contended

LOST: Final = frozenset({"25P03", "25P04", "57P01", "57P02", "57P05"})
"""SQLSTATEs with which the server ends a connection."""
_CONTENTION = frozenset({"55P03", "40P01", "40001"})  # a lock was not available, a deadlock, a conflict of transactions
_UNIQUE_BESIDE_OTHERS = frozenset({"jobs_user_id_name_key", "runs_session"})
_GONE = frozenset({"42P01", "42703", "3F000"})  # a table, a column, a schema
_UNAVAILABLE = frozenset({"57014", "25006", "57P03", "42501"})  # cancelled, read-only, starting up, no privilege
_RESOURCES = "53"  # the class of disk full, out of memory, too many connections


class ServerErrors:
    """A context manager that raises errors of psycopg as `Contended`, `StoreUnavailable` or `StoreCorrupt`.

    Other errors of psycopg pass unchanged. They come from a wrong row or a wrong call, so they are bugs in cronactors and no state of
    the server: the scheduler ends as `SchedulerCrashed`.

    Args:
        name: The store, as messages name it.
    """

    def __init__(self, name: str) -> None:
        self._name = name

    def __enter__(self) -> None:
        """Do nothing."""

    def __exit__(self, _type: type[BaseException] | None, error: BaseException | None, _traceback: TracebackType | None) -> None:
        """Raise the error that users know instead of this one."""
        if isinstance(error, psycopg.Error):
            mapped = _mapped(error, self._name)
            if mapped is not None:
                raise mapped from error


def is_lost(error: psycopg.Error) -> bool:
    """Return whether an error has ended the connection. An error that psycopg raises by itself has no SQLSTATE."""
    if error.sqlstate is None:
        return isinstance(error, psycopg.OperationalError)
    return error.sqlstate in LOST or error.sqlstate.startswith("08")


def _mapped(error: psycopg.Error, name: str) -> StoreUnavailable | StoreCorrupt | None:
    """Return the error to raise instead; it names the store, and never the password."""
    state, reason = error.sqlstate, first_line(error)
    if is_lost(error):
        return Contended(f"{name}: the connection was lost ({reason})")
    if state in _CONTENTION or (state == "23505" and error.diag.constraint_name in _UNIQUE_BESIDE_OTHERS):
        return Contended(f"{name} cannot be used now ({state}: {reason})")
    if state in _GONE:
        return StoreCorrupt(f"{name} is damaged, or a newer version has upgraded it meanwhile ({reason})")
    if state is not None and (state in _UNAVAILABLE or state.startswith(_RESOURCES)):
        return StoreUnavailable(f"{name} cannot be used now ({state}: {reason})")
    return None


def first_line(error: psycopg.Error) -> str:
    """Return the message of the server without its details, which quote values."""
    text = error.diag.message_primary or str(error)
    return text.strip().split("\n", 1)[0]
