"""What a due moment, and the end of an attempt, become. Pure: every function is told the time."""

from __future__ import annotations

import json
from datetime import timedelta
from functools import lru_cache

import attrs

from cronactors.errors import InvalidJob, shorten
from cronactors.instants import LATEST, Millis
from cronactors.model import MAX_COALESCED, Cause, Coalesce, Misfire, Overlap, RunStatus
from cronactors.schedules.clock_changes import instant_reaching, latest_local_shown
from cronactors.schedules.cron import parse_cron
from cronactors.schedules.fire_times import count_moments, latest_moment, next_moment
from cronactors.schedules.schedule import Cron, Schedule
from cronactors.spec import RetryPolicy

MAX_SUMMARY = 10_000
"""How many characters of a result are kept."""
MAX_ERROR = 2_000
"""How many characters of an error are kept."""
FREE_CRASHES = 2
"""How many crashes in a row a job has before an interruption costs a retry and waits."""


@attrs.frozen(kw_only=True)
class Outcome:
    """How an attempt ended.

    Attributes:
        status: SUCCESS, FAILED or CANCELLED.
        cause: Why, unless by success. INTERRUPTED: the attempt is made again and costs no retry.
        result: What the executor returned.
        error: What went wrong.
        session_id: The session that the executor named.
        retry_after: The delay that the executor asked for, in seconds.
        spread: From 0 to 1, drawn at random: the place within the jitter.
        crashed: The process ended; recovery counts it for the job.
    """

    status: RunStatus
    cause: Cause | None = None
    result: str | None = None
    error: str | None = None
    session_id: str = ""
    retry_after: float | None = None
    spread: float = 0.0
    crashed: bool = False


@attrs.frozen
class Moments:
    """Moments in a row, known by the first or the last of them; `Timing.merged` makes several.

    Attributes:
        at: The one by which they are known.
        count: How many there are, counted to 1,000.
        range_at: The other end; None: there is only one.
    """

    at: Millis
    count: int = 1
    range_at: Millis | None = None

    @property
    def by_first(self) -> Moments:
        """The same, known by the first: a row that stands for moments which do not run bears the first one's time."""
        if self.range_at is None or self.range_at > self.at:
            return self
        return Moments(self.range_at, self.count, self.at)


@attrs.frozen(kw_only=True)
class Decision:
    """What due moments become.

    Attributes:
        runs: What is run, in order of time; each stands for so many moments.
        skipped: What is not run.
        following: The first moment that is not decided; None: none is left.
        decided_local: Of times of day: until when they are decided, in seconds of the local clock.
    """

    runs: tuple[Moments, ...]
    skipped: tuple[Moments, ...] = ()
    following: Millis | None
    decided_local: int | None = None


@attrs.frozen(kw_only=True)
class Timing:
    """A schedule in its place: the zone it is meant in, and where an interval began."""

    schedule: Schedule
    zone: str
    anchor: Millis

    def after(self, instant: Millis) -> Millis | None:
        """The first moment later than an instant."""
        return next_moment(self.schedule, after=instant, zone=self.zone, anchor=self.anchor)

    def until(self, instant: Millis) -> Millis | None:
        """The latest moment not later than an instant."""
        return latest_moment(self.schedule, until=instant, zone=self.zone, anchor=self.anchor)

    def count(self, first: Millis, until: Millis) -> int:
        """How many moments lie between, both ends included, counted to 1,000."""
        return count_moments(self.schedule, first=first, until=until, zone=self.zone, anchor=self.anchor, cap=MAX_COALESCED)

    def merged(self, first: Millis, until: Millis, *, by_last: bool = False) -> Moments:
        """The moments from ``first``, which is one of them, to the latest not later than ``until``, as one."""
        last = max(first, self.until(until) or first)
        if last == first:
            return Moments(first)
        at, range_at = (last, first) if by_last else (first, last)
        return Moments(at, self.count(first, until), range_at)

    def local_until(self, instant: Millis) -> int | None:
        """The latest time that the local clock has shown up to an instant, in seconds; None for moments that are no times of day."""
        if not isinstance(self.schedule, Cron) or not parse_cron(self.schedule.expr).keeps_local_time:
            return None
        return latest_local_shown(self.zone, instant // 1000)

    def after_local(self, local: int) -> Millis | None:
        """The first moment of a cron schedule whose date and time is later than a local one, in seconds."""
        assert isinstance(self.schedule, Cron)
        found = parse_cron(self.schedule.expr).at_or_after(local + 1)
        return None if found is None else instant_reaching(self.zone, found) * 1000

    def listed(self, first: Millis, until: Millis, most: int) -> list[Millis]:
        """The moments between, both ends included, the first ``most`` of them."""
        found: list[Millis] = []
        moment: Millis | None = first
        while moment is not None and moment <= until and len(found) < most:
            found.append(moment)
            moment = self.after(moment)
        return found


@attrs.frozen(kw_only=True)
class RetryPlan:
    """A further attempt: ready at ``ready_at`` with ``failures`` behind it."""

    ready_at: Millis
    failures: int
    recovery: bool


def is_outside_window(misfire: Misfire, moment: Millis, now: Millis) -> bool:
    """Whether a moment is older than the window within which it is worth a run; without a window none ever is."""
    return misfire.window is not None and now - moment > misfire.window // timedelta(milliseconds=1)


def decide_due(timing: Timing, *, first: Millis, now: Millis, misfire: Misfire) -> Decision:
    """Decide what becomes of the moments from ``first``, which is due, to ``now``: on time, late, or too late."""
    following, decided_local = timing.after(first), timing.local_until(now)
    late = is_outside_window(misfire, first, now)
    if (following is None or following > now) and not late:
        return Decision(runs=(Moments(first),), following=following, decided_local=decided_local)
    start: Millis | None = first
    skipped: tuple[Moments, ...] = ()
    if late and misfire.window is not None:
        too_late = now - misfire.window // timedelta(milliseconds=1) - 1
        skipped = (timing.merged(first, too_late),)
        start = timing.after(too_late)
    if start is None or start > now:
        return Decision(runs=(), skipped=skipped, following=start, decided_local=decided_local)
    latest = timing.until(now)
    latest = start if latest is None else max(start, latest)
    if misfire.coalesce is Coalesce.ALL:
        runs, left_out = _each(timing, start, latest, misfire.max_runs)
        skipped += left_out
    else:
        runs = (timing.merged(start, latest, by_last=misfire.coalesce is Coalesce.LATEST),)
    return Decision(runs=runs, skipped=skipped, following=timing.after(latest), decided_local=decided_local)


def _each(timing: Timing, start: Millis, latest: Millis, most: int) -> tuple[tuple[Moments, ...], tuple[Moments, ...]]:
    """A run for each of the last ``most`` moments; those before them are left out."""
    moments = [latest]
    while len(moments) < most and moments[-1] > start:
        before = timing.until(moments[-1] - 1)
        if before is None or before < start:
            break
        moments.append(before)
    moments.reverse()
    left_out = (timing.merged(start, moments[0] - 1),) if moments[0] > start else ()
    return tuple(map(Moments, moments)), left_out


def decide_overlapped(timing: Timing, *, first: Millis, now: Millis, overlap: Overlap, waiting: int) -> Decision:
    """Decide what becomes of the moments from ``first`` to ``now`` that came due while a run of the job went on, which has ended.

    Args:
        timing: The schedule.
        first: The first of them.
        now: The time.
        overlap: SKIP, BUFFER_ONE or BUFFER_ALL; the others decide when the moment comes.
        waiting: How many moments of the job wait already.
    """
    most = {Overlap.BUFFER_ONE: max(0, 1 - waiting), Overlap.BUFFER_ALL: MAX_COALESCED}.get(overlap, 0)
    buffered = timing.listed(first, now, most)
    rest = timing.after(buffered[-1]) if buffered else first
    skipped = (timing.merged(rest, now),) if rest is not None and rest <= now else ()
    return Decision(
        runs=tuple(map(Moments, buffered)), skipped=skipped, following=timing.after(now), decided_local=timing.local_until(now)
    )


@lru_cache(maxsize=256)
def misfire_from_text(text: str) -> Misfire:
    """Read a misfire policy as the storage keeps it: what is not the default, as JSON.

    Raises:
        InvalidJob: It cannot be read: another version wrote it, or it is damaged.
    """
    try:
        stored = json.loads(text)
        window = stored.pop("window_ms", None)
        return Misfire(window=None if window is None else timedelta(milliseconds=window), **stored)
    except (ValueError, TypeError, AttributeError, OverflowError, RecursionError):
        raise InvalidJob(f"misfire {shorten(text)} cannot be read") from None


@lru_cache(maxsize=256)
def misfire_to_text(misfire: Misfire) -> str:
    """Write a misfire policy as the storage keeps it."""
    stored: dict[str, str | int] = {}
    if misfire.window is not None:
        stored["window_ms"] = misfire.window // timedelta(milliseconds=1)
    if misfire.coalesce is not Coalesce.LATEST:
        stored["coalesce"] = misfire.coalesce.value
    if misfire.max_runs != Misfire().max_runs:
        stored["max_runs"] = misfire.max_runs
    return json.dumps(stored)


def retry_delay(policy: RetryPolicy, *, failures: int, spread: float = 0.0) -> Millis:
    """How long to wait after the ``failures``-th failure of a moment; the last delay is repeated."""
    delay = policy.delays[min(failures, len(policy.delays)) - 1]
    return round(delay * (1 + policy.jitter * spread) * 1000)


def plan_retry(
    outcome: Outcome, *, failures: int, crashes: int, max_retries: int, policy: RetryPolicy, ready_at: Millis, now: Millis
) -> RetryPlan | None:
    """Decide whether the moment is tried again.

    Args:
        outcome: How the attempt ended.
        failures: How many earlier attempts of the moment failed or timed out.
        crashes: How many runs of the job in a row, this one included, ended with their process.
        max_retries: The job's budget for a moment.
        policy: Delays.
        ready_at: The ended attempt's place in the queue; an interrupted one returns to it.
        now: The time.

    Returns:
        None if the moment has been decided.
    """
    interrupted = outcome.cause is Cause.INTERRUPTED
    if interrupted and not (outcome.crashed and crashes > FREE_CRASHES):
        return RetryPlan(ready_at=min(ready_at, now), failures=failures, recovery=True)
    if not interrupted and outcome.cause not in (Cause.ERROR, Cause.TIMEOUT):
        return None
    if failures >= max_retries:
        return None
    if outcome.retry_after is None:
        delay = retry_delay(policy, failures=failures + 1, spread=outcome.spread)
    else:
        delay = round(outcome.retry_after * 1000)
    return RetryPlan(ready_at=min(now + delay, LATEST), failures=failures + 1, recovery=interrupted)


def in_crash_loop(crashes: int) -> bool:
    """Whether the next crash costs a retry, so that the job's runs have to start one at a time with those of other suspects.

    Then a crash costs nobody else. A job that ends its process each time was running at every crash that it caused, and each crash
    counts for all that were running: so it is a suspect as soon as any other that suffers from it, and never runs beside that one.

    Args:
        crashes: How many times in a row the job's runs ended with their process.
    """
    return crashes >= FREE_CRASHES


def truncated(text: str, limit: int) -> str:
    """Text as the history keeps it: cut to its limit, and what no UTF-8 file can hold replaced."""
    head = text[:limit] if len(text) <= limit else text[: limit - 1] + "…"
    if type(head) is str and head.isascii() and "\0" not in head:
        return head
    return head.replace("\0", "\N{REPLACEMENT CHARACTER}").encode("utf-8", "replace").decode()
