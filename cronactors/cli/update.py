"""The verb ``update``: change a job, or show which of its times that would change."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

import attrs
import trio

from cronactors import open_store
from cronactors.actors.user_requests import TryUpdate, WouldBe
from cronactors.cli import describe
from cronactors.cli.amounts import count
from cronactors.cli.find import find_job
from cronactors.cli.jobs import refuse_listed
from cronactors.cli.listing import job_as_json
from cronactors.cli.stdout import print_json, print_line
from cronactors.errors import one_line
from cronactors.instants import iso_utc, to_millis
from cronactors.model import CronJob
from cronactors.schedules.comparison import FireTimeChanges, Timetable, compare_fire_times
from cronactors.schedules.words import schedule_in_words
from cronactors.schedules.zone_rules import depends_on_rules
from cronactors.schedules.zones import load_zone
from cronactors.spec import JobChanges, check_changes
from cronactors.store import CronStore
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
            given = changes
            if "executor_options" in changes:  # the option --shell is one of them
                given = {**changes, "executor_options": {**old.executor_options, **changes["executor_options"]}}
            if dry_run:
                return old, await _try(store, old.id, check_changes(given))
            await refuse_listed(store, old, "changed")
            return old, await store.update_job(old.id, **given)

    present = now()
    old, new = trio.run(update)
    changed = _compare(old, new, present) if _moves(old, new) else None
    if as_json:
        print_json({"job": job_as_json(new), "fire_times": None if changed is None else _as_json(changed)})
        return
    if changed is not None:
        print_line(f"from  {schedule_in_words(old.schedule)}, {old.timezone}")
        print_line(f"to    {schedule_in_words(new.schedule)}, {new.timezone}")
        for line in _changes_in_words(changed, new, present):
            print_line(line)
    same = attrs.evolve(new, last_error=old.last_error) == old
    if dry_run:
        how = (
            "leave out --dry-run to change it"
            if old.origin is None
            else f"it is listed in {one_line(old.origin, 100)}: edit it there"
        )
        print_line("nothing would change" if same else f"nothing was changed: {how}")
    else:
        print_line(f"{'nothing to change in' if same else 'changed'} {one_line(new.name, 60)}: {describe.next_start(new, now())}")


async def _try(store: CronStore, job_id: str, changes: JobChanges) -> CronJob:
    """Return the job as an update would leave it."""
    try:
        return await store._service.mailbox.call(TryUpdate(job_id, changes))
    except WouldBe as would:
        return would.job


def _moves(old: CronJob, new: CronJob) -> bool:
    """Return whether a change can move times: a zone has no effect on an interval, and none on a one-shot with an offset."""
    return old.schedule != new.schedule or (old.timezone != new.timezone and depends_on_rules(new.schedule))


def _compare(old: CronJob, new: CronJob, present: datetime) -> FireTimeChanges:
    """Compare the next year. A new schedule counts from now on."""
    return compare_fire_times(Timetable.of(old), Timetable.of(new), since=present, until=present + _YEAR)


def _changes_in_words(changed: FireTimeChanges, job: CronJob, present: datetime) -> list[str]:
    if not job.enabled:
        return [f"it is {describe.state(job)}, so it runs at none of its times"]
    zone = job.timezone
    until = changed.until.astimezone(load_zone(zone))
    if not changed.gone and not changed.new:
        return [f"until {until:%Y-%m-%d} it runs at the same times"]
    ended = "the next year" if changed.until == present + _YEAR else f"the time until {until:%Y-%m-%d %H:%M}"
    gone, new = len(changed.gone), len(changed.new)
    counts = f"{count(gone, 'time')} {'is' if gone == 1 else 'are'} gone, {new:,} {'is' if new == 1 else 'are'} new, {changed.kept:,} stay"
    return [f"in {ended} {counts}", *_listed("gone", changed.gone, zone), *_listed("new", changed.new, zone)]


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
