"""``--log-format json``: one JSON object on a line for each log record, as collectors of logs read them."""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Mapping

from cronactors.instants import iso_utc
from cronactors.model import JobContext
from cronactors.run_context import CurrentRun, current_run

_OF_EVERY_RECORD = frozenset((*vars(logging.makeLogRecord({})), "message", "asctime", "taskName"))
"""Attributes of a record that are no ``extra`` fields."""


class JsonFormatter(logging.Formatter):
    """Formats a record as ``time`` (UTC), ``level``, ``logger``, ``message``, and its ``extra`` fields that are plain values.

    Those of our own are ``cron_job``, ``cron_run`` and ``cron_attempt``, see `cronactors.log_fields`; a record that an executor logs gets
    those of its run. An exception is in ``exception``.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Format a record."""
        fields: dict[str, object] = {
            name: value
            for name, value in vars(record).items()
            if name not in _OF_EVERY_RECORD and isinstance(value, str | int | float | None)
        }
        if (run := current_run(default=None)) is not None:
            fields = ids_of(run) | fields
        if record.exc_info:
            fields["exception"] = self.formatException(record.exc_info)
        if record.stack_info:
            fields["stack"] = self.formatStack(record.stack_info)
        return json_line(record.levelname, record.name, record.getMessage(), fields, at=record.created)


def ids_of(run: JobContext | CurrentRun) -> dict[str, object]:
    """Return the fields of a line about a run that is being executed, by the names of `cronactors.log_fields`."""
    return {"cron_job": run.job_id, "cron_run": run.run_id, "cron_attempt": run.attempt}


def json_line(level: str, logger: str, message: str, fields: Mapping[str, object], *, at: float | None = None) -> str:
    """Write a line of the log.

    It is ASCII: then it is JSON in any encoding, and no character in a text ends the line.

    Args:
        level: The level, such as ``"INFO"``.
        logger: The name of the logger.
        message: The text for people.
        fields: Values for programs; a name that the line has already is left out.
        at: When it happened, in seconds since 1970; None: now.
    """
    line: dict[str, object] = {
        "time": iso_utc(round((time.time() if at is None else at) * 1000)),
        "level": level,
        "logger": logger,
        "message": message,
    }
    for name, value in fields.items():
        # JSON has no NaN and no infinity.
        line.setdefault(name, str(value) if isinstance(value, float) and not math.isfinite(value) else value)
    return json.dumps(line)


def set_up_logging(*, as_json: bool) -> None:
    """Let log records go to standard error: as text, or as JSON, then also warnings of Python."""
    if as_json:
        handler = logging.StreamHandler()
        handler.setFormatter(JsonFormatter())
        logging.basicConfig(handlers=[handler])
        logging.captureWarnings(capture=True)
    else:
        logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("cronactors.failures").setLevel(logging.ERROR)  # standard output has a line for each failed run
    logging.getLogger("cronactors.lists").setLevel(logging.ERROR)  # the report of the start has the same lines
