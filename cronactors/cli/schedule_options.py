"""The options of a schedule, which `add` and `update` have in common."""

from __future__ import annotations

from datetime import timedelta

import click

from cronactors.cli.times import write_out_day
from cronactors.schedules.schedule import Cron, Interval, OneShot, Schedule
from cronactors.wallclock import now

_NAMES = "--cron, --every, --at or --in"


def read_schedule(
    cron: str | None, every: timedelta | None, at: str | None, after: timedelta | None, *, zone: str | None = None
) -> Schedule | None:
    """Make the schedule of the one option that is given; None if none is.

    Args:
        cron: A cron expression.
        every: A duration.
        at: A date and time; without an offset in the zone of the job.
        after: A duration from now on.
        zone: The zone of the job, in which ``at`` may also be "tomorrow 09:00"; None: it is not known.

    Raises:
        click.UsageError: More than one is given.
        InvalidSchedule: It is no schedule.
    """
    given = [each for each in (cron, every, at, after) if each is not None]
    if len(given) > 1:
        raise click.UsageError(f"give only one of {_NAMES}")
    if cron is not None:
        return Cron(cron)
    if every is not None:
        return Interval.every(seconds=every.total_seconds())
    if after is not None:
        return OneShot(now() + after)
    if at is None:
        return None
    return OneShot(at if zone is None else write_out_day(at, zone=zone, now=now()))


def need_schedule(schedule: Schedule | None) -> Schedule:
    """Return the schedule.

    Raises:
        click.UsageError: There is none.
    """
    if schedule is None:
        raise click.UsageError(f"when does it run? Give one of {_NAMES}")
    return schedule
