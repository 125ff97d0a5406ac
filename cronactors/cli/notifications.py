"""The verb ``notifications``: which were delivered, are pending or were given up; and trying again."""

from __future__ import annotations

from collections.abc import Sequence

import attrs
import trio

from cronactors import open_store
from cronactors.cli import describe
from cronactors.cli.find import find_by_id
from cronactors.cli.listing import Column, print_columns_and_text
from cronactors.cli.stdout import json_value, print_json, print_line
from cronactors.cli.tables import Cell
from cronactors.errors import one_line
from cronactors.notifications import Notification, NotificationStatus
from cronactors.store import CronStore

_COLOURS = {NotificationStatus.DELIVERED: "green", NotificationStatus.GIVEN_UP: "red"}
"""Other statuses are yellow."""


def list_notifications(
    database: str, *, status: NotificationStatus | None, receiver: str | None, limit: int, as_json: bool
) -> None:
    """Print notifications, newest first.

    Raises:
        CronError: The database cannot be read, or an argument is refused.
    """

    async def read() -> tuple[list[Notification], dict[str, str]]:
        async with open_store(database, create=False) as store:
            found = await store.list_notifications(status=status, receiver=receiver, limit=limit)
            return found, {} if as_json else await _job_names(store, found)

    found, names = trio.run(read)
    if as_json:
        print_json([notification_as_json(each) for each in found])
    elif found:
        _print_notifications(found, names)
    else:
        print_line("no notifications" if status is None and receiver is None else "no notifications match")


def retry_notifications(database: str, key: str, *, receiver: str | None, as_json: bool) -> None:
    """Make notifications that were given up pending again, and print them.

    Args:
        database: The path or address of the database.
        key: The key of the event; or the id of a run, which stands for ``run:ID``.
        receiver: Only that of one receiver.
        as_json: Whether to print JSON.

    Raises:
        NotificationNotFound: No notification of that key and receiver was given up.
        CronError: The database cannot be used.
    """

    async def retry() -> tuple[list[Notification], dict[str, str]]:
        async with open_store(database, create=False) as store:
            found = await store.retry_notification(f"run:{key}" if key.isascii() and key.isdigit() else key, receiver)
            return found, {} if as_json else await _job_names(store, found)

    found, names = trio.run(retry)
    if as_json:
        print_json([notification_as_json(each) for each in found])
        return
    _print_notifications(found, names)
    print_line(f"{len(found):,} {'notification is' if len(found) == 1 else 'notifications are'} pending again")


async def _job_names(store: CronStore, notifications: Sequence[Notification]) -> dict[str, str]:
    """Return the name of each job by its id, without those that were removed."""
    names: dict[str, str] = {}
    for job_id in dict.fromkeys(each.job_id for each in notifications):
        if (job := await find_by_id(store, job_id)) is not None:
            names[job_id] = job.name
    return names


def _print_notifications(notifications: Sequence[Notification], names: dict[str, str]) -> None:
    """Print a table, with times in UTC as the jobs may have several zones. On a terminal the error is cut to its width."""
    columns: list[Column] = [
        ("event", [Cell(one_line(each.key, 40)) for each in notifications]),
        ("job", [Cell(one_line(names.get(each.job_id, "(removed)"), 60)) for each in notifications]),
        ("receiver", [Cell(one_line(each.receiver, 40)) for each in notifications]),
        ("in UTC", [Cell(describe.local_time(each.created_at, "UTC")[:19]) for each in notifications]),
        ("status", [Cell(each.status, _COLOURS.get(each.status, "yellow")) for each in notifications]),
        ("failed", [Cell(str(each.attempts)) for each in notifications]),
    ]
    if any(each.retry_at is not None for each in notifications):
        columns.append(("next try", [Cell(describe.local_time(each.retry_at, "UTC")[:19]) for each in notifications]))
    errors = [describe.first_line(each.error, 80) for each in notifications]
    print_columns_and_text(columns, "error" if any(errors) else "", errors)


def notification_as_json(notification: Notification) -> dict[str, object]:
    """Convert a notification to values of JSON."""
    return {key: json_value(value) for key, value in attrs.asdict(notification, recurse=False).items()}
