"""Find the database of a verb."""

from __future__ import annotations

import os
from pathlib import Path

import click

from cronactors.config_file import load_config
from cronactors.settings import CronConfig
from cronactors.storage.postgres.address import is_postgres, refuse_password, with_schema

DATABASE_VARIABLE = "CRONACTORS_DB"
"""The environment variable that names a database."""
DEFAULT_FILE = "agent.toml"
"""The file that is read if none is named."""
_DEFAULT_NAME = "agent.db"


def find_database(db: str | None, config: str | None) -> str:
    """Find the database of a verb other than ``run``: ``--db``, ``--config``, CRONACTORS_DB, ``./agent.toml``, in this order.

    Raises:
        click.UsageError: None of them is there.
        CronError: The agent.toml cannot be read.
    """
    if db is not None:  # an empty path is refused when it is opened
        return refuse_password(db, "--db") if is_postgres(db) else db
    if config is not None:
        return database_of(load_config(config))
    if found := os.environ.get(DATABASE_VARIABLE):
        return found
    if Path(DEFAULT_FILE).exists():
        return database_of(load_config(DEFAULT_FILE))
    raise click.UsageError(
        f"no database: give --db or --config, set {DATABASE_VARIABLE}, or change to a folder with an {DEFAULT_FILE}"
    )


def database_of(config: CronConfig) -> str:
    """Find the database of an agent.toml: the one that it names, CRONACTORS_DB, or agent.db in its folder."""
    assert config.file is not None
    database = config.database or os.environ.get(DATABASE_VARIABLE) or str(Path(config.file).with_name(_DEFAULT_NAME))
    return with_schema(database, config.schema) if is_postgres(database) else database
