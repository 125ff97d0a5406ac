"""PostgreSQL's errors, mapped in one place. Every call of psycopg in this package is made inside `ServerErrors`."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Final

import psycopg

from cronactors.errors import StoreCorrupt, StoreUnavailable
from cronactors.storage.errors import Contended

LOST: Final = frozenset({"25P03", "25P04", "57P01", "57P02", "57P04", "57P05"})
"""SQLSTATEs with which the server ends a connection."""
NOT_PREPARED: Final = frozenset({"26000", "42P05"})
"""SQLSTATEs of prepared statements that are missing or there already, as behind a pooler."""
_OUTDATED_PLAN = "0A000"  # an upgrade of the schema has changed what a prepared statement returns
_READ_ONLY = "25006"
_CONTENDED = NOT_PREPARED | {"55P03", "40P01", "40001", _OUTDATED_PLAN}  # a lock not available, a deadlock, a conflict
_UNIQUE_BESIDE_OTHERS = frozenset({"jobs_user_id_name_key", "runs_session"})
_GONE = frozenset({"42P01", "42703", "3F000"})  # a table, a column, a schema
_DAMAGED = frozenset({"XX001", "XX002"})  # a page of a table, of an index
_REFUSED = ("28", "3D", "42501")  # a user, a password, a database, a privilege: to try again at once does not help
_UNAVAILABLE = frozenset({_READ_ONLY, "55000", "55006", "XX000"})  # not in the state for it, in use, a bug of the server
_UNAVAILABLE_CLASSES = (
    "53",  # disk full, out of memory, too many connections
    "54",  # a limit of the server, such as a queue of notices that is full
    "57",  # an operator, who has cancelled it, stops the server or starts it
    "58",  # an error of the system, such as of its disk
    "72",  # a snapshot that is too old
)
_ENDS_CONNECTION = frozenset({"FATAL", "PANIC"})


class ServerErrors:
    """A context manager that raises errors of psycopg as `Contended`, `StoreUnavailable` or `StoreCorrupt`.

    Other errors of psycopg pass unchanged. They come from a wrong row or a wrong call, so they are bugs in cronactors and no state of
    the server: the scheduler ends as `SchedulerCrashed`.

    Args:
        name: The store, as messages name it.
        spoilt: Called if the connection is lost, or must not be used again.
    """

    def __init__(self, name: str, spoilt: Callable[[], None] = lambda: None) -> None:
        self._name = name
        self._spoilt = spoilt

    def __enter__(self) -> None:
        """Do nothing."""

    def __exit__(self, _type: type[BaseException] | None, error: BaseException | None, _traceback: TracebackType | None) -> None:
        """Raise the error that users know instead of this one."""
        if isinstance(error, psycopg.Error):
            if spoils(error):
                self._spoilt()
            mapped = _mapped(error, self._name)
            if mapped is not None:
                raise mapped from error


def is_lost(error: psycopg.Error) -> bool:
    """Return whether an error has ended the connection. An error that psycopg raises by itself has no SQLSTATE."""
    if error.sqlstate is None:
        return isinstance(error, psycopg.OperationalError)
    return error.sqlstate in LOST or error.sqlstate.startswith("08") or error.diag.severity_nonlocalized in _ENDS_CONNECTION


def spoils(error: psycopg.Error) -> bool:
    """Return whether the connection must not be used after an error: it is lost, or another one would be better.

    A server that has become read-only may have been replaced by another one, which a new connection finds.
    """
    return is_lost(error) or error.sqlstate in {_READ_ONLY, _OUTDATED_PLAN, *NOT_PREPARED}


def _mapped(error: psycopg.Error, name: str) -> StoreUnavailable | StoreCorrupt | None:
    """Return the error to raise instead; it names the store, and never the password."""
    state, reason = error.sqlstate, first_line(error)
    text = f"{name} cannot be used now ({state}: {reason})"
    if state is not None and state.startswith(_REFUSED):
        mapped: StoreUnavailable | StoreCorrupt | None = StoreUnavailable(text)
    elif is_lost(error):
        mapped = Contended(f"{name}: the connection was lost ({reason})")
    elif state is None:
        mapped = None
    elif state in _CONTENDED or (state == "23505" and error.diag.constraint_name in _UNIQUE_BESIDE_OTHERS):
        mapped = Contended(text)
    elif state in _GONE:
        mapped = StoreCorrupt(f"{name} is damaged, or a newer version has upgraded it meanwhile ({reason})")
    elif state in _DAMAGED:
        mapped = StoreCorrupt(f"{name} is damaged ({state}: {reason})")
    elif state in _UNAVAILABLE or state.startswith(_UNAVAILABLE_CLASSES):
        mapped = StoreUnavailable(text)
    else:
        mapped = None
    return mapped


def first_line(error: psycopg.Error) -> str:
    """Return the message of the server without its details, which quote values."""
    text = error.diag.message_primary or str(error)
    return text.strip().split("\n", 1)[0]
