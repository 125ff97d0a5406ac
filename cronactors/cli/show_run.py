"""The verb ``show-run``: one run, with all that is known of it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime

import attrs
import trio

from cronactors import open_store
from cronactors.cli import describe
from cronactors.cli.amounts import length
from cronactors.cli.find import find_by_id
from cronactors.cli.listing import run_as_json, status_cell
from cronactors.cli.notifications import notification_as_json
from cronactors.cli.run_details import ReadRunDetails, RunDetails
from cronactors.cli.run_words import sentence, waiting
from cronactors.cli.stdout import json_value, print_json, print_line
from cronactors.cli.tables import Cell, print_table
from cronactors.errors import InvalidJob, one_line
from cronactors.model import CronJob, CronRun
from cronactors.notifications import Notification
from cronactors.run_output import RunOutput
from cronactors.spec import check_id
from cronactors.wallclock import now

LAST_LINES = 20
"""How many lines of the output are printed without ``--output``."""
_INDENT = "  "


@attrs.frozen(kw_only=True)
class _ShownRun:
    """A run as it is shown; ``job`` is None if it was removed."""

    details: RunDetails
    job: CronJob | None
    output: RunOutput
    present: datetime

    @property
    def run(self) -> CronRun:
        return self.details.run

    @property
    def zone(self) -> str:
        """The zone of its job."""
        return "UTC" if self.job is None else self.job.timezone

    @property
    def late(self) -> float | None:
        """How late (s) it started: after its moment, a retry after the time from which on it could start. None: it has not started."""
        run = self.run
        planned = run.scheduled_at if run.attempt == 1 else self.details.ready_at
        return None if run.started_at is None or planned is None else (run.started_at - planned).total_seconds()

    @property
    def took(self) -> float | None:
        """How long (s) it took; of one that is running, so far."""
        run = self.run
        if run.started_at is None:
            return None
        return ((run.completed_at or self.present) - run.started_at).total_seconds()

    @property
    def others(self) -> list[CronRun]:
        """The other attempts of its moment."""
        return [each for each in self.details.attempts if each.id != self.run.id]

    def sentence(self) -> str:
        """Describe status and cause."""
        return sentence(self.run, waiting(self.details.waits_for))


def show_run(database: str, run_id: str, *, with_data: bool, whole_output: bool, as_json: bool) -> None:
    """Print a run: its times, its status in a sentence, the other attempts of its moment, its error, result, output and notifications.

    Args:
        database: The path or address of the database.
        run_id: The run.
        with_data: Whether to print the data of its result, which may hold a secret.
        whole_output: Whether to print all lines of its output that are stored, not only the last 20.
        as_json: Whether to print JSON.

    Raises:
        RunNotFound: There is no run with that id.
        CronError: The database cannot be read.
    """

    async def read() -> _ShownRun:
        async with open_store(database, create=False) as store:
            details = await store._service.mailbox.call(ReadRunDetails(check_id("run_id", run_id)))
            job = await find_by_id(store, details.run.job_id)
            return _ShownRun(details=details, job=job, output=await store.get_run_output(run_id), present=now())

    shown = trio.run(read)
    if as_json:
        print_json(_as_json(shown, with_data=with_data, whole_output=whole_output))
        return
    for label, text in _facts(shown):
        print_line(f"{label:<12}{text}".rstrip())
    _print_attempts(shown)
    _print_text("error", shown.run.error)
    _print_text("result", shown.run.result_summary)
    if with_data:
        _print_text("data", json.dumps(_data_of(shown.run), indent=2, ensure_ascii=False))
    _print_output(shown.output, whole=whole_output)
    _print_notifications(shown)


def _facts(shown: _ShownRun) -> list[tuple[str, str]]:
    run, details, zone = shown.run, shown.details, shown.zone
    named = "" if shown.job is None or shown.job.name == run.job_name else f", which is {one_line(shown.job.name, 200)} now"
    user = "" if run.user_id is None else f" of user {one_line(run.user_id, 60)}"
    late = "" if shown.late is None else f"  ({length(shown.late)} late)"
    took = "" if shown.took is None else f"  (took {length(shown.took)})"
    running = "" if shown.took is None else f"still running, for {length(shown.took)} so far"
    moments = f"  (and {run.coalesced - 1:,} more)" if run.coalesced > 1 else ""
    ready = details.ready_at if details.ready_at != run.scheduled_at else None
    facts = [
        ("run", run.id),
        ("job", f"{one_line(run.job_name, 200)}{user}{named}{'' if shown.job is not None else ', which was removed'}"),
        ("status", shown.sentence()),
        ("trigger", f"{run.trigger}, attempt {run.attempt}"),
        ("scheduled", f"{describe.local_time(run.scheduled_at, zone)}{moments}"),
        ("ready", "" if ready is None else describe.local_time(ready, zone)),
        ("started", "" if run.started_at is None else f"{describe.local_time(run.started_at, zone)}{late}"),
        ("completed", running if run.completed_at is None else f"{describe.local_time(run.completed_at, zone)}{took}"),
        ("session", one_line(run.session_id, 200)),
    ]
    return [(label, text) for label, text in facts if text]


def _print_attempts(shown: _ShownRun) -> None:
    if not shown.others:
        return
    print_line()
    print_line("all attempts of this moment:")
    rows = [
        [
            Cell(f"{each.id}{' *' if each.id == shown.run.id else ''}"),
            Cell(str(each.attempt)),
            Cell(each.trigger),
            Cell(describe.local_time(each.started_at, shown.zone)[:19]),
            status_cell(each),
            Cell(describe.duration(each)),
        ]
        for each in shown.details.attempts
    ]
    print_table(["run", "attempt", "trigger", "started", "status", "took"], rows)


def _print_text(label: str, text: str | None) -> None:
    if text:
        _print_lines(f"{label}:", describe.printable_lines(text))


def _print_lines(heading: str, lines: Sequence[str]) -> None:
    print_line()
    print_line(heading)
    for line in lines:
        print_line(f"{_INDENT}{line}".rstrip())


def _print_output(output: RunOutput, *, whole: bool) -> None:
    lines = describe.printable_lines(output.text)
    if not lines:
        return
    left_out = f", {output.left_out:,} bytes of it are not kept" if output.left_out else ""
    if whole or len(lines) <= LAST_LINES:
        _print_lines(f"output{left_out}:", lines)
    else:
        _print_lines(
            f"output, the last {LAST_LINES} of {len(lines):,} lines{left_out} (--output prints all):", lines[-LAST_LINES:]
        )


def _print_notifications(shown: _ShownRun) -> None:
    if not shown.details.notifications:
        return
    print_line()
    print_line("notifications:")
    for each in shown.details.notifications:
        print_line(f"{_INDENT}{each.receiver}  {_delivery(each, shown.zone)}")


def _delivery(notification: Notification, zone: str) -> str:
    failed = "" if not notification.attempts else f", {notification.attempts:,} failed"
    again = "" if notification.retry_at is None else f", next try {describe.local_time(notification.retry_at, zone)}"
    error = "" if notification.error is None else f": {describe.first_line(notification.error)}"
    return f"{notification.status.replace('_', ' ')}{failed}{again}{error}"


def _as_json(shown: _ShownRun, *, with_data: bool, whole_output: bool) -> dict[str, object]:
    lines = shown.output.text.splitlines(keepends=True)
    return {
        "run": {**run_as_json(shown.run), **({"result_data": _data_of(shown.run)} if with_data else {})},
        "zone": shown.zone,
        "sentence": shown.sentence(),
        "job_exists": shown.job is not None,
        "ready_at": json_value(shown.details.ready_at),
        "late_secs": shown.late,
        "took_secs": shown.took,
        "attempts": [run_as_json(each) for each in shown.details.attempts],
        "output": {
            "text": "".join(lines if whole_output else lines[-LAST_LINES:]),
            "lines": len(lines),
            "bytes_left_out": shown.output.left_out,
            "finished": shown.output.finished,
        },
        "notifications": [notification_as_json(each) for each in shown.details.notifications],
    }


def _data_of(run: CronRun) -> object:
    try:
        return run.result_data
    except InvalidJob as problem:
        return f"it cannot be read: {problem}"
