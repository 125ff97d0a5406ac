"""Find the database of a verb."""

from __future__ import annotations

import os
from pathlib import Path

import click

from cronactors.errors import CronError
from cronactors.settings import CronConfig
from cronactors.storage.postgres.address import DEFAULT_SCHEMA, is_postgres, refuse_password, with_schema

DATABASE_VARIABLE = "CRONACTORS_DB"
"""The environment variable that names a database."""
DEFAULT_FILE = "agent.toml"
"""The file that is read if none is named."""
_DEFAULT_NAME = "agent.db"


def find_database(db: str | None, config: str | None, *, option: str = "--db") -> str:
    """Find the database of a verb other than ``run``: ``--db``, ``--config``, CRONACTORS_DB, ``./agent.toml``, in this order.

    Args:
        db: The value of ``--db``.
        config: The value of ``--config``.
        option: The argument that ``db`` comes from, if it is not ``--db``.

    Returns:
        A path or an address; one from CRONACTORS_DB may have a password in it.

    Raises:
        click.UsageError: None of them is there.
        InvalidConfig: An address that others can read has a password in it.
        CronError: The agent.toml cannot be read.
    """
    if db is not None:  # an empty path is refused when it is opened
        return _without_password(db, option)
    found = os.environ.get(DATABASE_VARIABLE)
    if config is None and found:
        return found
    try:
        loaded = config_of(db, config)
    except CronError as problem:
        raise type(problem)(f"{problem} ({option} names a database without this file)") from None
    if loaded is not None:
        return database_of(loaded)
    raise click.UsageError(
        f"no database: give --db or --config, set {DATABASE_VARIABLE}, or change to a folder with an {DEFAULT_FILE}"
    )


def config_of(db: str | None, config: str | None) -> CronConfig | None:
    """Read the agent.toml that names the database: that of ``--config``, or ``./agent.toml``; None: none does.

    Raises:
        CronError: The file is refused.
    """
    if config is None and (db is not None or os.environ.get(DATABASE_VARIABLE) or not Path(DEFAULT_FILE).exists()):
        return None
    from cronactors.config_file import load_config

    return load_config(DEFAULT_FILE if config is None else config)


def database_of(config: CronConfig, db: str | None = None) -> str:
    """Find the database of an agent.toml: ``--db``, the one that it names, CRONACTORS_DB, or agent.db in its folder.

    An address gets the schema that the file names, unless it names one itself.

    Raises:
        InvalidConfig: ``--db`` has a password in it.
    """
    if db is not None:
        database = _without_password(db, "--db")
    else:
        assert config.file is not None
        database = config.database or os.environ.get(DATABASE_VARIABLE) or str(Path(config.file).with_name(_DEFAULT_NAME))
    if is_postgres(database) and config.schema != DEFAULT_SCHEMA:
        return with_schema(database, config.schema)
    return database


def _without_password(database: str, option: str) -> str:
    return refuse_password(database, option) if is_postgres(database) else database
