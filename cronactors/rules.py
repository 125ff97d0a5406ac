"""Which rules next moments are computed by, and where they move when the rules change. Pure.

A government may change the clock of a zone after a next moment was computed and stored. So each stored moment bears the release of
the rules that it comes from; a newer release computes it anew, from the local date and time until which the job's moments are decided.
"""

from __future__ import annotations

import tzdata

from cronactors.expression import parse
from cronactors.instants import Millis
from cronactors.moments import latest_instant, next_instant
from cronactors.schedule import Cron, OneShot, Schedule, next_moment
from cronactors.timestamps import read_timestamp
from cronactors.zones import first_reached

PARSER = 1
"""Goes up by one when an expression comes to mean other moments than before."""
RULES = f"{tzdata.IANA_VERSION}/{PARSER}"
"""The rules of this process, such as ``"2026f/1"``: the release of the IANA time zone database, and `PARSER`."""

_ALL_HOURS = 24


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


def next_by_new_rules(
    schedule: Schedule, *, zone: str, next_run_at: Millis, decided_local: int | None, now: Millis
) -> Millis | None:
    """Find where a next moment, computed by older rules and not due yet, lies by the rules of this process.

    A time of day follows its local date and time: the first one later than ``decided_local``, so that the change itself neither repeats
    a day nor loses one. If it lies before ``now`` by the new rules the job is due at once. A rhythm of all hours goes on from ``now``.

    Args:
        schedule: When.
        zone: A checked IANA name.
        next_run_at: The moment that is stored.
        decided_local: Until when the moments are decided, in seconds of the local clock by the older rules; None: nobody knows. Then
            the moment nearest to ``next_run_at`` is taken, since rules move a clock by an hour or two.
        now: The time.

    Returns:
        The moment; None if none is left.
    """
    if not isinstance(schedule, Cron):
        return next_moment(schedule, after=-1, zone=zone, anchor=0) if depends_on_rules(schedule) else next_run_at
    times = parse(schedule.expr)
    if times.rhythm and len(times.hours) == _ALL_HOURS:
        return next_moment(schedule, after=now, zone=zone, anchor=0)
    if decided_local is None:
        second = next_run_at // 1000
        near = [latest_instant(times, zone, second), next_instant(times, zone, second)]
        found = min((instant for instant in near if instant is not None), key=lambda instant: abs(instant - second), default=None)
    else:
        local = times.at_or_after(decided_local + 1)
        found = None if local is None else first_reached(zone, local)
    return None if found is None else found * 1000
