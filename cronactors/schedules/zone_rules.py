"""Which rules next moments are computed by, and where they move when the rules change. Pure.

A government may change the clock of a zone after a next moment was computed and stored. So each stored moment bears the release of
the rules that it comes from; a newer release computes it anew, from the local date and time until which the job's moments are decided.
"""

from __future__ import annotations

import attrs
import tzdata

from cronactors.instants import Millis
from cronactors.schedules.cron import parse_cron
from cronactors.schedules.fire_times import latest_instant, next_instant
from cronactors.schedules.schedule import Cron, OneShot, Schedule, next_moment
from cronactors.schedules.timestamps import read_timestamp
from cronactors.schedules.zones import instant_reaching, latest_local_shown

PARSER = 1
"""Goes up by one when an expression comes to mean other moments than before."""
RULES = f"{tzdata.IANA_VERSION}/{PARSER}"
"""The rules of this process, such as ``"2026f/1"``: the release of the IANA time zone database, and `PARSER`."""


def is_older(rules: str, than: str = RULES) -> bool:
    """Whether the first rules are of an earlier release; ``""``, the unknown ones, are older than any."""
    return _order(rules) < _order(than)


def _order(rules: str) -> tuple[str, int]:
    # IANA names its releases by year and letter, "2026a" to "2026z": in the order of the alphabet.
    release, _, parser = rules.partition("/")
    return release, int(parser) if parser.isdigit() else 0


def depends_on_rules(schedule: Schedule) -> bool:
    """Whether other rules can mean another moment: of an expression, and of a one-shot in local time."""
    return isinstance(schedule, Cron) or (isinstance(schedule, OneShot) and read_timestamp(schedule.at).local)


@attrs.frozen
class NextMoment:
    """The next moment of a job, and until when its moments are decided, in seconds of the local clock."""

    at: Millis
    decided_local: int | None


def recompute_moment(schedule: Schedule, found: NextMoment, *, zone: str, due: bool, now: Millis) -> NextMoment:
    """Find where a next moment, computed by older rules, lies by the rules of this process.

    A time of day follows its local date and time: the first one later than ``decided_local``, so that the change itself neither repeats
    a day nor loses one. If it lies before ``now`` by the new rules the job is due at once. A rhythm of all hours continues from ``now``; its moment that came meanwhile stays.
    A moment that is due already stays, and its local date and time counts as decided.

    Args:
        schedule: When.
        found: As it is stored. Without ``decided_local`` the moment that is now nearest is taken, since rules move a clock by hours.
        zone: A checked IANA name.
        due: Whether the moment was due before the rules changed.
        now: The time.
    """
    if isinstance(schedule, Cron) and parse_cron(schedule.expr).keeps_local_time:
        local = _local_time_of(schedule, found, zone)
        if local is None or due:
            return NextMoment(found.at, local)
        return NextMoment(instant_reaching(zone, local) * 1000, found.decided_local)
    passed = isinstance(schedule, Cron) and found.at <= now  # of a rhythm, whose moments are instants: the claim decides it
    if due or passed or not depends_on_rules(schedule):
        return found
    moment = next_moment(schedule, after=now if isinstance(schedule, Cron) else -1, zone=zone, anchor=0)
    return found if moment is None else NextMoment(moment, None)


def _local_time_of(schedule: Cron, found: NextMoment, zone: str) -> int | None:
    """The local time that the schedule names for a next moment of older rules."""
    times = parse_cron(schedule.expr)
    if found.decided_local is not None:
        return times.at_or_after(found.decided_local + 1)
    second = found.at // 1000
    near = [latest_instant(times, zone, second), next_instant(times, zone, second)]
    nearest = min((instant for instant in near if instant is not None), key=lambda instant: abs(instant - second), default=None)
    return None if nearest is None else latest_local_shown(zone, nearest)
