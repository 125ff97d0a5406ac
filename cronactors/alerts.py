"""Alerts: the reports of a scheduler about jobs that need attention."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

import attrs


class AlertKind(StrEnum):
    """What an alert is about.

    FAILING: the job has failed several times in a row. RECOVERED: it has succeeded again. OVERDUE: a moment is due and has not started.
    STUCK: a run is still running although it was cancelled. MISSED: moments were merged or skipped because no scheduler was running.
    PAUSED: the job was paused because its process crashed each time that it ran, or because its stored settings cannot be read. ENDED:
    its schedule has no more moments.
    """

    FAILING = "failing"
    RECOVERED = "recovered"
    OVERDUE = "overdue"
    STUCK = "stuck"
    MISSED = "missed"
    PAUSED = "paused"
    ENDED = "ended"


@attrs.frozen(kw_only=True)
class Alert:
    """An alert about a job.

    Attributes:
        kind: What it is about.
        since: Since when that is so, UTC.
        count: How many runs or moments it is about.
        text: A sentence for people.
    """

    kind: AlertKind
    since: datetime
    count: int
    text: str
