"""The plain form of ``watch`` and ``runs --follow``: the events of a store as lines, or as JSON objects. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

import attrs

from cronactors.cli import describe
from cronactors.cli.amounts import count
from cronactors.cli.listing import run_as_json
from cronactors.cli.stdout import json_value
from cronactors.cli.watch_reader import Change, RunningRun, Snapshot
from cronactors.errors import one_line
from cronactors.model import CronRun, RunStatus
from cronactors.run_output import RunProgress

PROGRESS_EVERY = 10.0
"""How long (s) after the start of a run, or after a line about its progress, there is no line about its progress."""


@attrs.frozen(kw_only=True)
class Event:
    """Something that happened.

    Attributes:
        kind: ``started``, ``progress``, ``finished`` (or skipped), ``retry`` (it is planned), ``schedulers`` or ``store``.
        at: When.
        run: The run.
        progress: The progress of the run.
        planned_at: When the run starts.
        schedulers: How many are alive now.
        error: Why the store cannot be read; "": it can be read again.
    """

    kind: str
    at: datetime
    run: CronRun | None = None
    progress: RunProgress | None = None
    planned_at: datetime | None = None
    schedulers: int | None = None
    error: str | None = None

    def line(self, zone: str) -> str:
        """Write it on one line, with its time in a zone."""
        words = [describe.local_time(self.at, zone)]
        if self.run is not None:
            whose = [] if self.run.user_id is None else [f"of {one_line(self.run.user_id, 30)}"]
            words += [f"run {self.run.id}", one_line(self.run.job_name, 30), *whose, f"attempt {self.run.attempt}"]
        match self.kind:
            case "started" | "finished" if self.run is not None:
                started = self.run.status is RunStatus.RUNNING and self.run.cause is None
                words.append("started" if started else f"{describe.status(self.run):<9}")
                words += [describe.duration(self.run), describe.result(self.run)]
            case "progress" if self.progress is not None:
                share = "" if self.progress.fraction is None else f"{self.progress.fraction:.0%}"
                words += ["running  ", share, one_line(self.progress.note)]
            case "retry":
                when = "" if self.planned_at is None else f" for {describe.local_time(self.planned_at, zone)}"
                words.append(f"retry planned{when}")
            case "schedulers":
                words.append(f"{count(self.schedulers, 'scheduler')} alive" if self.schedulers else "no scheduler is alive")
            case "store":
                words.append(f"no answer: {one_line(self.error)}" if self.error else "the store answers again")
        return "  ".join(word for word in words if word).rstrip()

    def as_json(self) -> dict[str, object]:
        """Write it as a JSON object; ``run`` is as `runs --json` has it."""
        found: dict[str, object] = {"event": self.kind, "at": json_value(self.at)}
        if self.run is not None:
            found["run"] = run_as_json(self.run)
        if self.progress is not None:
            found |= {"fraction": self.progress.fraction, "note": self.progress.note}
        if self.kind == "retry":
            found["planned_at"] = json_value(self.planned_at)
        if self.schedulers is not None:
            found["schedulers"] = self.schedulers
        if self.error is not None:
            found["error"] = self.error or None
        return found


@attrs.frozen
class Reported:
    """The state that the lines before have reported.

    Attributes:
        schedulers: How many schedulers are alive; None: nothing was said.
        progress: The progress of running runs by id, and when it was printed.
        error: Why the store cannot be read; "": it can.
    """

    schedulers: int | None = None
    progress: Mapping[str, RunProgress] = attrs.field(factory=dict)
    error: str = ""


def events_of(seen: Snapshot, reported: Reported) -> tuple[list[Event], Reported]:
    """Return the events that follow from a snapshot, in order of time, and the state that is reported then.

    In the first snapshot the runs that are running have started. Of a run that has started and finished between two snapshots there is
    only the second event.
    """
    events = []
    if reported.error:
        events.append(Event(kind="store", at=seen.now, error=""))
    if reported.schedulers != seen.schedulers:
        events.append(Event(kind="schedulers", at=seen.now, schedulers=seen.schedulers))
    if reported.schedulers is None:
        events += [event_of(each.run) for each in seen.running]
    events += [event for change in seen.changes if (event := _change_of(change, seen.now)) is not None]
    reports, progress = _progress(seen.running, reported.progress)
    return events + reports, Reported(seen.schedulers, progress)


def failure_of(error: str, at: datetime, reported: Reported) -> tuple[list[Event], Reported]:
    """Return the event of a store that cannot be read; none if the lines before have said so."""
    events = [] if reported.error else [Event(kind="store", at=at, error=error)]
    return events, attrs.evolve(reported, error=error)


def event_of(run: CronRun) -> Event:
    """Return the event of a run that has started or finished."""
    kind = "started" if run.status is RunStatus.RUNNING else "finished"
    return Event(kind=kind, at=run.completed_at or run.started_at or run.scheduled_at, run=run)


def _change_of(change: Change, now: datetime) -> Event | None:
    run = change.run
    if run.status is not RunStatus.PENDING:
        return event_of(run)
    return Event(kind="retry", at=now, run=run, planned_at=change.ready_at) if run.attempt > 1 else None


def _progress(running: Sequence[RunningRun], before: Mapping[str, RunProgress]) -> tuple[list[Event], dict[str, RunProgress]]:
    """Return the events of progress that is new and comes long enough after the last one, and the progress that is reported of each run then."""
    events, said = [], {}
    for each in running:
        run, progress, last = each.run, each.progress, before.get(each.run.id)
        if progress is not None:
            differs = last is None or (progress.fraction, progress.note) != (last.fraction, last.note)
            since = run.started_at if last is None else last.at
            if differs and (since is None or (progress.at - since).total_seconds() >= PROGRESS_EVERY):
                events.append(Event(kind="progress", at=progress.at, run=run, progress=progress))
                last = progress
        if last is not None:
            said[run.id] = last
    return events, said
