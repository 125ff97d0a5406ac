"""The version of the zone rules by which next moments are computed, and the recomputation when it changes. Pure.

A government may change the clock of a zone after we computed and stored a next moment. Release 2022f of the IANA database, of
October 2022, ended summer time in most of Mexico from that month on: a job for 09:00 in America/Mexico_City on 1 May 2023 had
been computed as 14:00 UTC, and was due at 15:00 UTC by the new rules. So each job stores the release by which its next moment was
computed, and a process with a newer release computes it again, from the local date and time up to which the job's moments are
decided.
"""

from __future__ import annotations

import attrs
import tzdata

from cronactors.instants import Millis
from cronactors.schedules.clock_changes import instant_reaching, latest_local_shown
from cronactors.schedules.cron import parse_cron
from cronactors.schedules.cron_in_zone import latest_instant, next_instant
from cronactors.schedules.fire_times import next_moment
from cronactors.schedules.schedule import Cron, OneShot, Schedule
from cronactors.schedules.timestamps import read_timestamp

PARSER = 1
"""The version of our own reading of expressions: raise it by one when an expression comes to mean other moments."""
RULES = f"{tzdata.IANA_VERSION}/{PARSER}"
"""The version of the rules of this process, such as ``"2026f/1"``: the release of the IANA time zone database, and `PARSER`."""


def is_older(rules: str, than: str = RULES) -> bool:
    """Return whether ``rules`` are an earlier version than ``than``. Unknown rules, ``""``, are older than any."""
    return _sort_key(rules) < _sort_key(than)


def _sort_key(rules: str) -> tuple[str, int]:
    # IANA names its releases by year and letter, "2026a" to "2026z", so they sort as text.
    release, _, parser = rules.partition("/")
    return release, int(parser) if parser.isdigit() else 0


def depends_on_rules(schedule: Schedule) -> bool:
    """Return whether other zone rules can move the moments of a schedule: true of expressions, and of one-shots in local time."""
    return isinstance(schedule, Cron) or (isinstance(schedule, OneShot) and read_timestamp(schedule.at).local)


@attrs.frozen
class NextMoment:
    """The next moment of a job.

    Attributes:
        at: The instant.
        decided_local: The local time (s) up to which the job's moments are decided; None if it is unknown, or if the schedule
            does not keep local time.
    """

    at: Millis
    decided_local: int | None


def recompute_moment(schedule: Schedule, found: NextMoment, *, zone: str, due: bool, now: Millis) -> NextMoment:
    """Compute a next moment again by the rules of this process.

    We don't start from the present, because that would run a date twice or leave one out. A daily job for 02:30 that ran today at
    the old 02:30 must not run today at the new one, and a job that did not run today must. So a time of day takes the first local
    date and time later than ``decided_local``, wherever the new rules put it; if that is before ``now``, the job is due at once.
    A rhythm of all hours has no dates to keep and continues from ``now``; if its stored moment has passed it stays, and the claim
    decides it. A moment that was already due stays as well, and its local date and time counts as decided.

    Args:
        schedule: The job's schedule.
        found: The stored next moment. If it has no ``decided_local``, we take the moment of the schedule that is nearest by the
            new rules, since a change of rules moves a clock by hours at most.
        zone: A checked IANA name.
        due: Whether the moment was due before the rules changed.
        now: The present.
    """
    if isinstance(schedule, Cron) and parse_cron(schedule.expr).keeps_local_time:
        local = _local_time_of(schedule, found, zone)
        if local is None or due:
            return NextMoment(found.at, local)
        return NextMoment(instant_reaching(zone, local) * 1000, found.decided_local)
    passed = isinstance(schedule, Cron) and found.at <= now
    if due or passed or not depends_on_rules(schedule):
        return found
    moment = next_moment(schedule, after=now if isinstance(schedule, Cron) else -1, zone=zone, anchor=0)
    return found if moment is None else NextMoment(moment, None)


def _local_time_of(schedule: Cron, found: NextMoment, zone: str) -> int | None:
    """Find the local time for which a next moment was computed by older rules."""
    times = parse_cron(schedule.expr)
    if found.decided_local is not None:
        return times.at_or_after(found.decided_local + 1)
    second = found.at // 1000
    near = [latest_instant(times, zone, second), next_instant(times, zone, second)]
    nearest = min((instant for instant in near if instant is not None), key=lambda instant: abs(instant - second), default=None)
    return None if nearest is None else latest_local_shown(zone, nearest)
