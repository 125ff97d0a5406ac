"""How much history is kept: `History`, and the text of its column."""

from __future__ import annotations

import json
from functools import lru_cache
from typing import Final

import attrs

from cronactors import checks
from cronactors.errors import InvalidConfig, InvalidJob, shorten

DEFAULT_DAYS: Final = 90
"""How long (days) runs are kept, and alerts also where age deletes no run."""
MAX_DAYS: Final = 36_600
"""Longest time (days) for which history can be kept by its age: a hundred years."""
MAX_ROWS: Final = 1_000_000_000
"""Most runs of a job that a limit can name."""

AS_SETTINGS: Final = "{}"
"""The column of a job that names no `History` of its own."""


@attrs.frozen(kw_only=True)
class History:
    """How much history a scheduler keeps. A finished run is deleted when it is older than ``days``, or beyond the newest ``per_job``.

    Whatever these limits say, a run stays while it is open, while it is one of the newest ``keep_last`` of its job, and while one of
    its notifications is pending for a receiver that exists. All attempts of a moment are deleted together. The history of removed
    jobs is deleted by the same limits.

    Args:
        days: How long a run is kept after it has finished, above 0 to 36,600 days. None: age deletes no run.
        per_job: How many runs of one job are kept, 1 to 1,000,000,000. None: their number deletes nothing.
        keep_last: How many of the newest runs of a job stay, however old they are: 0 to 1,000,000,000.

    Raises:
        InvalidConfig: A field has a wrong type or value.
    """

    days: float | None = DEFAULT_DAYS
    per_job: int | None = 100_000
    keep_last: int = 100

    def __attrs_post_init__(self) -> None:
        """Check every field."""
        if self.days is not None:
            checks.number("days", self.days, InvalidConfig, least=0, most=MAX_DAYS)
            if self.days == 0:
                raise InvalidConfig("days must be more than 0, or None (in a file: false) to keep runs of any age, not 0")
        if self.per_job is not None:
            checks.whole("per_job", self.per_job, InvalidConfig, least=1, most=MAX_ROWS)
        checks.whole("keep_last", self.keep_last, InvalidConfig, least=0, most=MAX_ROWS)

    @property
    def deletes(self) -> bool:
        """Whether it ever deletes anything."""
        return self.days is not None or self.per_job is not None

    def __str__(self) -> str:
        """Describe the runs that are deleted."""
        limits = []
        if self.days is not None:
            limits.append(f"older than {self.days:g} days")
        if self.per_job is not None:
            limits.append(f"beyond the newest {self.per_job:,} of their job")
        if not limits:
            return "no runs"
        return f"runs {' or '.join(limits)}, but not the newest {self.keep_last:,} of each job"


NINETY_DAYS: Final = History()
"""The default."""
EVERYTHING: Final = History(days=None, per_job=None)
"""Deletes nothing."""


def limits_of_store(history: History | None, *, in_memory: bool) -> History | None:
    """Return how much history a scheduler keeps. A store in memory lives no longer than its process: there only given limits delete."""
    return None if in_memory and history is NINETY_DAYS else history


@lru_cache(maxsize=256)
def history_to_text(history: History | None) -> str:
    """Write a job's own `History` for its column."""
    return AS_SETTINGS if history is None else json.dumps(attrs.asdict(history))


@lru_cache(maxsize=256)
def history_from_text(text: str) -> History | None:
    """Read a job's own `History` from its column; None: the job has none.

    Raises:
        InvalidJob: It cannot be read: another version wrote it, or it is damaged.
    """
    if text == AS_SETTINGS:
        return None
    try:
        return History(**json.loads(text))
    except (InvalidConfig, ValueError, TypeError, RecursionError):
        raise InvalidJob(f"history {shorten(text)} cannot be read") from None
