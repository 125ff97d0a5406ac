"""The verb ``update``: change a job, or show which of its times that would change."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

import attrs
import trio

from cronactors import open_store
from cronactors.cli import describe
from cronactors.cli.find import find_job
from cronactors.cli.jobs import refuse_listed
from cronactors.cli.listing import job_as_json
from cronactors.cli.stdout import print_json, print_line
from cronactors.errors import one_line
from cronactors.instants import iso_utc, to_millis
from cronactors.model import CronJob
from cronactors.schedules.comparison import FireTimeChanges, Timetable, compare_fire_times
from cronactors.schedules.words import schedule_in_words
from cronactors.schedules.zones import check_zone, load_zone
from cronactors.spec import JobChanges
from cronactors.wallclock import now

_YEAR = timedelta(days=365)
_SHOWN = 5


def update_job(database: str, name: str, user: str | None, changes: JobChanges, *, dry_run: bool, as_json: bool) -> None:
    """Change a job and print which of its times in the next year that changes; with ``dry_run`` only print them.

    Raises:
        CronError: There is no such job, a list names it, a change is refused, or the database cannot be used.
    """

    async def update() -> tuple[CronJob, CronJob]:
        async with open_store(database, create=False) as store:
            old = await find_job(store, name, user)
            await refuse_listed(store, old, "changed")
            if not dry_run:
                return old, await store.update_job(old.id, **changes)
            zone = check_zone(changes.get("timezone", old.timezone))
            return old, attrs.evolve(old, schedule=changes.get("schedule", old.schedule), timezone=zone)

    present = now()
    old, new = trio.run(update)
    moves = (old.schedule, old.timezone) != (new.schedule, new.timezone)
    changed = _compare(old, new, present) if moves else None
    if as_json:
        print_json({"job": job_as_json(new), "fire_times": None if changed is None else _as_json(changed)})
        return
    if changed is not None:
        print_line(f"from  {schedule_in_words(old.schedule)}, {old.timezone}")
        print_line(f"to    {schedule_in_words(new.schedule)}, {new.timezone}")
        for line in _changes_in_words(changed, new.timezone, present):
            print_line(line)
    if dry_run:
        print_line("nothing was changed: leave out --dry-run to change it")
    else:
        print_line(f"changed {one_line(new.name, 60)}: {describe.next_start(new, now())}")


def _compare(old: CronJob, new: CronJob, present: datetime) -> FireTimeChanges:
    """Compare the next year. A new interval counts from now on, as does any other schedule that is given."""
    return compare_fire_times(
        Timetable.of(old), Timetable(new.schedule, new.timezone, present), since=present, until=present + _YEAR
    )


def _changes_in_words(changed: FireTimeChanges, zone: str, present: datetime) -> list[str]:
    until = changed.until.astimezone(load_zone(zone))
    if not changed.gone and not changed.new:
        return [f"until {until:%Y-%m-%d} it runs at the same {changed.kept:,} times"]
    ended = "the next year" if changed.until == present + _YEAR else f"the time until {until:%Y-%m-%d %H:%M}"
    return [
        f"in {ended} {len(changed.gone):,} times are gone, {len(changed.new):,} are new, {changed.kept:,} stay",
        *_listed("gone", changed.gone, zone),
        *_listed("new", changed.new, zone),
    ]


def _listed(what: str, times: Sequence[datetime], zone: str) -> list[str]:
    lines = [f"  {what:<4}  {at.astimezone(load_zone(zone)):%a %Y-%m-%d %H:%M:%S %Z}" for at in times[:_SHOWN]]
    return [*lines, f"  {what:<4}  and {len(times) - _SHOWN:,} more"] if len(times) > _SHOWN else lines


def _as_json(changed: FireTimeChanges) -> dict[str, object]:
    return {
        "gone": [iso_utc(to_millis(at)) for at in changed.gone],
        "new": [iso_utc(to_millis(at)) for at in changed.new],
        "kept": changed.kept,
        "until": iso_utc(to_millis(changed.until)),
    }
