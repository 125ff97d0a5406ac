"""Which database a verb works on."""

from __future__ import annotations

import os
from pathlib import Path

import click

from cronactors.config_file import load_config
from cronactors.spec import CronConfig

DATABASE_VARIABLE = "CRONACTORS_DB"
"""The environment variable that names a database."""
DEFAULT_FILE = "agent.toml"
_DEFAULT_NAME = "agent.db"


def find_database(db: str | None, config: str | None) -> str:
    """Find the database of a verb that only looks: ``--db``, ``--config``, CRONACTORS_DB, ``./agent.toml``, in this order.

    Raises:
        click.UsageError: There is none of them.
        CronError: The file that is to name it cannot be read.
    """
    if db is not None:  # an empty one is refused when it is opened
        return db
    if config is not None:
        return database_of(load_config(config))
    if found := os.environ.get(DATABASE_VARIABLE):
        return found
    if Path(DEFAULT_FILE).exists():
        return database_of(load_config(DEFAULT_FILE))
    raise click.UsageError(f"no database: give --db or --config, set {DATABASE_VARIABLE}, or go where an {DEFAULT_FILE} is")


def database_of(config: CronConfig) -> str:
    """Find the database of a file: what it names, CRONACTORS_DB, or agent.db beside it."""
    assert config.file is not None
    return config.database or os.environ.get(DATABASE_VARIABLE) or str(Path(config.file).with_name(_DEFAULT_NAME))
