"""The verb ``doctor``: checks on a store, which they do not change; the worst result comes first."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from cronactors.cli.checks import Check, Level, check_file_figures, check_server_figures, check_store, older_schema
from cronactors.cli.stdout import print_json, print_line
from cronactors.errors import CronError, StoreCorrupt, StoreUnavailable, one_line
from cronactors.owner import identify_this_process
from cronactors.storage.file_state import absolute
from cronactors.storage.postgres.address import DEFAULT_SCHEMA, MISSING_EXTRA, is_postgres, split_schema
from cronactors.storage.protocol import Storage
from cronactors.storage.read_only import ReadOnlyStorage, read_file

_T = TypeVar("_T")

UNKNOWN = 3
"""The exit status if the store could not be looked at."""


def doctor(database: str, *, as_json: bool, deep: bool) -> int:
    """Print one line for each check.

    Args:
        database: The path or address of the database.
        as_json: Whether to print JSON.
        deep: Whether SQLite checks the whole file, which reads all of it.

    Returns:
        The exit status: 0 all is well, 1 warnings, 2 something is critical, 3 the store could not be read.
    """
    try:
        checks = sorted(examine(database, deep=deep), key=lambda check: -check.level)
    except (CronError, OSError) as error:
        if as_json:
            print_json({"status": "unknown", "error": str(error), "checks": []})
        else:
            print_line(f"UNKNOWN   {error}")
        return UNKNOWN
    worst = checks[0].level
    if as_json:
        print_json({"status": worst.name.lower(), "error": None, "checks": [_as_json(check) for check in checks]})
    else:
        for check in checks:
            print_line(f"{check.level.name:<8}  {check.name}: {check.text}")
    return int(worst)


def _as_json(check: Check) -> dict[str, object]:
    return {"check": check.name, "status": check.level.name.lower(), "text": check.text, **check.figures}


def examine(database: str, *, deep: bool = False) -> list[Check]:
    """Check a store. A SQLite file is opened only to be read; of one with an older schema only the file itself is checked.

    Raises:
        CronError: It could not be read.
    """
    if not is_postgres(database):
        return read_file(absolute(database), lambda storage: _examine_file(storage, deep=deep))
    try:
        from cronactors.storage.postgres.figures import read_figures
        from cronactors.storage.postgres.storage import PostgresStorage
    except ImportError as error:
        raise CronError(MISSING_EXTRA) from error
    url, schema = split_schema(database, DEFAULT_SCHEMA)
    storage = PostgresStorage(url, schema=schema, create=False)
    try:
        return [*_examine(storage, None), check_server_figures(_reading(storage, lambda: read_figures(storage._session)))]
    finally:
        storage.close()


def _examine_file(storage: ReadOnlyStorage, *, deep: bool) -> list[Check]:
    figures = storage.figures()
    file = check_file_figures(figures, storage.name)
    if not storage.is_current:
        return [older_schema(figures), *file]
    try:
        damage = storage.check() if deep else None
        checks = _examine(storage, storage.name)
    except StoreCorrupt as error:
        return [Check("integrity", Level.CRITICAL, one_line(str(error))), *file]
    if damage is not None:
        file.append(Check("integrity", Level.CRITICAL, f"the file is damaged ({one_line(damage, 200)})"))
    elif deep:
        file.append(Check("integrity", Level.OK, "SQLite finds no damage"))
    return checks + file


def _examine(storage: Storage, file: str | None) -> list[Check]:
    return _reading(storage, lambda: check_store(storage, identify_this_process(), file=file))


def _reading(storage: Storage, read: Callable[[], _T]) -> _T:
    """Read inside a transaction."""
    if not storage.begin(write=False):
        raise StoreUnavailable(f"{storage.name} is locked by another process")
    try:
        return read()
    finally:
        storage.rollback()
