"""Hypothesis strategies for cron expressions and for zones with unusual clock changes."""

from __future__ import annotations

import zoneinfo
from functools import lru_cache

from hypothesis import strategies as st

from cronactors.errors import InvalidSchedule
from cronactors.schedules.schedule import Cron
from tests import oracle


# All times of these expressions are multiples of 15 s, so that brute force can take steps of that.
def items(low, high, plain):
    span = st.tuples(st.integers(low, high), st.integers(low, high)).map(lambda ends: f"{min(ends)}-{max(ends)}")
    stepped = st.tuples(st.one_of(st.just("*"), span, st.integers(low, high).map(str)), st.integers(1, (high - low) // 2)).map(
        lambda parts: f"{parts[0]}/{parts[1]}"
    )
    single = st.one_of(st.integers(low, high).map(str), st.integers(low, high).map(str), span, stepped)
    listed = st.lists(single, min_size=2, max_size=4).map(",".join)
    return st.one_of(plain, plain, single, listed)


star = st.just("*")
few_hours = st.sampled_from(["0", "1", "2", "3", "23", "0,1,2", "1-3", "*", "*/2", "0-23", "22-23", "12"])
month_days = st.one_of(
    star,
    star,
    star,
    st.just("?"),
    items(1, 31, star),
    st.just("L"),
    st.integers(1, 31).map(lambda n: f"{n}W"),
    st.just("1,15W,L"),
)
weekdays = st.one_of(
    star, star, star, st.just("?"), items(0, 6, star), st.integers(0, 7).map(str), st.integers(0, 7).map(lambda n: f"L{n}"),
    st.tuples(st.integers(0, 7), st.integers(1, 5)).map(lambda pair: f"{pair[0]}#{pair[1]}"),
    st.sampled_from(["mon-fri", "fri-mon", "sat-sun", "5-7", "5-1/2", "sun", "1,5#2"]),
)  # fmt: skip
quarters = st.sampled_from(["0", "15", "0,30", "*/15", "*/30", "45", "0-59/15", "30/15"])
five_fields = st.tuples(
    items(0, 59, st.sampled_from(["0", "30", "*", "*/15"])), st.one_of(few_hours, items(0, 23, star)), month_days,
    items(1, 12, star), weekdays,
).map(" ".join)  # fmt: skip
six_fields = st.tuples(quarters, five_fields).map(" ".join)
expressions = st.one_of(five_fields, five_fields, six_fields)

ODD = [
    ("Pacific/Apia", 2011), ("Pacific/Kwajalein", 1993), ("Australia/Lord_Howe", 2026), ("Antarctica/Troll", 2026),
    ("Europe/Dublin", 2026), ("Africa/Casablanca", 2026), ("Africa/Cairo", 2026), ("America/Havana", 2024), ("Asia/Beirut", 2026),
    ("America/Sao_Paulo", 2018), ("America/Caracas", 2007), ("Asia/Pyongyang", 2018), ("Asia/Kathmandu", 1986),
    ("America/St_Johns", 2010), ("Antarctica/Casey", 2020), ("Antarctica/Vostok", 1994), ("Europe/Rome", 2026), ("Asia/Gaza", 2040),
    ("America/New_York", 2026), ("America/Recife", 2000), ("Africa/Tripoli", 2013), ("Asia/Ust-Nera", 1981), ("UTC", 2026),
]  # fmt: skip
ZONES = sorted(zoneinfo.available_timezones() - {"localtime"})
places = st.one_of(st.sampled_from(ODD), st.sampled_from(ODD), st.tuples(st.sampled_from(ZONES), st.integers(1973, 2050)))


def parsed(expr):
    """Parse an expression; None if it names a date that does not exist, which is the only error the strategies can make."""
    try:
        return Cron(expr)
    except InvalidSchedule as refused:
        if "no such date" not in str(refused):
            raise
        return None


@lru_cache(maxsize=1024)
def changes(zone, year):
    """The clock changes of a year by brute force, cached."""
    return oracle.changes(zone, year)
