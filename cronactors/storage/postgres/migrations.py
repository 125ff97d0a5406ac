"""Numbered steps from a missing schema to the newest one. Runs on the storage thread.

To add a step, add a script and a line in `STEPS`; never change an old step. A step may only add: tables, nullable columns, indexes of
small tables. Schedulers of the release before go on beside it, as long as its ``min_reader`` allows.
"""

from __future__ import annotations

import logging
import time
from importlib.resources import files
from typing import Final

import attrs
import psycopg

from cronactors.errors import StoreCorrupt, StoreUnavailable
from cronactors.storage.errors import Contended
from cronactors.storage.postgres.session import Session

logger = logging.getLogger("cronactors.store")

LOCK_LIMIT: Final = 3.0
"""How long (s) a step waits for a table that others use. Who comes later waits behind it, also who only reads."""
PAUSE: Final = 1.0
"""How long (s) others may work before a step that has waited in vain is tried again."""

_GUARD = "schema"
_GUARD_PAUSE = 0.1
_HAS_SCHEMA = "SELECT 1 FROM pg_namespace WHERE nspname = $1"
_VERSION = "SELECT version::bigint FROM @version"
_HAS_VERSION = (
    "SELECT 1 FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = relnamespace WHERE nspname = $1 AND relname = 'version'"
)


@attrs.frozen
class Step:
    """One step, which is taken in a transaction of its own.

    Attributes:
        number: The schema that it leads to.
        script: The statements. Tables are written ``@runs``.
        min_reader: The oldest release that may use the schema afterwards, by the newest schema that it knows.
    """

    number: int
    script: str
    min_reader: int


def _script(name: str) -> str:
    return files("cronactors.storage.postgres").joinpath(name).read_text(encoding="utf-8")


STEPS: tuple[Step, ...] = (
    Step(1, _script("schema_1.sql"), min_reader=1),
    Step(2, _script("schema_2.sql"), min_reader=1),
)


def newest() -> int:
    """Return the schema that this version writes."""
    return STEPS[-1].number


def migrate(session: Session) -> None:
    """Take the steps that a schema lacks; a missing one lacks them all. Several processes may do that at once: one works, others wait.

    A process that is killed leaves the schema as it was after the last step.

    Raises:
        Contended: Another process is taking a step, or uses a table that a step changes. The caller tries again.
        StoreUnavailable: The user has no right to. Nothing has changed.
        StoreCorrupt: There is a table of another application in the way. Nothing has changed.
    """
    for step in STEPS:
        try:
            _take(session, step)
        except Contended as error:
            is_locked = isinstance(error.__cause__, psycopg.errors.LockNotAvailable)
            time.sleep(PAUSE if is_locked else _GUARD_PAUSE)
            raise
        except psycopg.errors.UniqueViolation as error:  # two users have created the schema, of which neither sees the other's
            raise Contended(f"{session.name} is being created by another process") from error
        except (psycopg.errors.DuplicateTable, psycopg.errors.DuplicateObject) as error:
            reason = error.diag.message_primary
            raise StoreCorrupt(f"{session.name} is of another application, not of cronactors ({reason})") from error


def _take(session: Session, step: Step) -> None:
    """Take a step, unless it was taken before."""
    found = 0
    try:
        session.script(f"BEGIN ISOLATION LEVEL READ COMMITTED; SET LOCAL lock_timeout = '{LOCK_LIMIT:g}s'")
        if not session.hold({_GUARD}, wait=False):
            raise Contended(f"{session.name}: another process is changing the schema")
        found = _version(session)
        if found < step.number:
            if not session.fetch(_HAS_SCHEMA, [session.schema]):
                session.script(f'CREATE SCHEMA "{session.schema}"')
            session.script(step.script)
            session.execute("UPDATE @version SET version = $1, min_reader = $2", [step.number, step.min_reader])
            session.commit()
    except StoreUnavailable as error:
        if found and isinstance(error.__cause__, psycopg.errors.InsufficientPrivilege):
            raise older(session, found, f"this user may not change it ({error.__cause__.diag.message_primary})") from error
        raise
    finally:
        session.rollback()
    if 0 < found < step.number:
        logger.info("%s was brought from schema %d to %d", session.name, found, step.number)


def older(session: Session, found: int, reason: str) -> StoreUnavailable:
    """Return the error for a schema that is not brought up to date."""
    remedy = "start this version once as a user who may change it, such as its owner"
    return StoreUnavailable(f"{session.name} has schema {found}, this version needs {newest()}, and {reason}: {remedy}")


def _version(session: Session) -> int:
    """Return the number of the schema; 0 if it is missing."""
    if not session.fetch(_HAS_VERSION, [session.schema]):
        return 0
    ((version,),) = session.fetch(_VERSION)
    assert isinstance(version, int)
    return version
