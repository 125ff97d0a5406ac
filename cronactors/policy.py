"""Whether a due moment runs, merges or is skipped, and whether a finished run is retried. Pure: every function takes the time."""

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
from cronactors.settings import RetryPolicy

MAX_SUMMARY = 10_000
"""Longest result in the history, in characters."""
MAX_ERROR = 2_000
"""Longest error in the history, in characters."""
FREE_CRASHES = 2
"""How many crashes in a row of a job are retried at once and for free; from the next one on each costs a retry and waits for its delay."""


@attrs.frozen(kw_only=True)
class Outcome:
    """The outcome of a run.

    Attributes:
        status: SUCCESS, FAILED or CANCELLED.
        cause: The reason; None for success. INTERRUPTED: the run is retried, and that costs no retry.
        result: The text that the executor returned.
        error: The reason in words.
        session_id: The session that the executor returned.
        result_data: The data that the executor returned: JSON.
        notify: Whether receivers are notified of the run.
        retry_after: The delay (s) that the executor requested.
        spread: A random number from 0 to 1: where in the jitter the delay is.
        crashed: The process ended during the run; recovery counts that for the job.
    """

    status: RunStatus
    cause: Cause | None = None
    result: str | None = None
    error: str | None = None
    session_id: str = ""
    result_data: str | None = attrs.field(default=None, repr=False)
    notify: bool = True
    retry_after: float | None = None
    spread: float = 0.0
    crashed: bool = False


@attrs.frozen
class Moments:
    """Consecutive moments, known by the first or the last of them; `Timing.merged` makes one of several.

    Attributes:
        at: The moment by which they are known.
        count: How many there are, counted to 1,000.
        range_at: The moment at the other end; None: there is only one.
    """

    at: Millis
    count: int = 1
    range_at: Millis | None = None

    @property
    def by_first(self) -> Moments:
        """The same moments, known by the first, as the rows of skipped moments are."""
        if self.range_at is None or self.range_at > self.at:
            return self
        return Moments(self.range_at, self.count, self.at)


@attrs.frozen(kw_only=True)
class Decision:
    """The decision on due moments.

    Attributes:
        runs: The runs, in order of time, each with the moments that it stands for.
        skipped: The moments that are not run.
        following: The first moment that is not decided; None: none is left.
        decided_local: Of times of day: until when they are decided (s of the local clock).
    """

    runs: tuple[Moments, ...]
    skipped: tuple[Moments, ...] = ()
    following: Millis | None
    decided_local: int | None = None


@attrs.frozen(kw_only=True)
class Timing:
    """A schedule with all that its moments depend on.

    Attributes:
        schedule: The schedule.
        zone: The zone in which it is meant.
        anchor: Where an interval's moments are counted from.
    """

    schedule: Schedule
    zone: str
    anchor: Millis

    def after(self, instant: Millis) -> Millis | None:
        """Return the first moment later than an instant."""
        return next_moment(self.schedule, after=instant, zone=self.zone, anchor=self.anchor)

    def until(self, instant: Millis) -> Millis | None:
        """Return the latest moment not later than an instant."""
        return latest_moment(self.schedule, until=instant, zone=self.zone, anchor=self.anchor)

    def count(self, first: Millis, until: Millis) -> int:
        """Return how many moments lie between two instants, both included, counted to 1,000."""
        return count_moments(self.schedule, first=first, until=until, zone=self.zone, anchor=self.anchor, cap=MAX_COALESCED)

    def merged(self, first: Millis, until: Millis, *, by_last: bool = False) -> Moments:
        """Return the moments from ``first``, which is one of them, to the latest not later than ``until``, as one."""
        last = max(first, self.until(until) or first)
        if last == first:
            return Moments(first)
        at, range_at = (last, first) if by_last else (first, last)
        return Moments(at, self.count(first, until), range_at)

    def local_until(self, instant: Millis) -> int | None:
        """Return the latest time (s) that the local clock has shown up to an instant; None for moments that are no times of day."""
        if not isinstance(self.schedule, Cron) or not parse_cron(self.schedule.expr).keeps_local_time:
            return None
        return latest_local_shown(self.zone, instant // 1000)

    def after_local(self, local: int) -> Millis | None:
        """Return the first moment of a cron schedule whose local date and time is later than a given one (s)."""
        assert isinstance(self.schedule, Cron)
        found = parse_cron(self.schedule.expr).at_or_after(local + 1)
        return None if found is None else instant_reaching(self.zone, found) * 1000

    def listed(self, first: Millis, until: Millis, most: int) -> list[Millis]:
        """Return the first ``most`` moments between two instants, both included."""
        found: list[Millis] = []
        moment: Millis | None = first
        while moment is not None and moment <= until and len(found) < most:
            found.append(moment)
            moment = self.after(moment)
        return found


@attrs.frozen(kw_only=True)
class RetryPlan:
    """A retry.

    Attributes:
        ready_at: When it is due.
        failures: How many attempts of the moment have failed or timed out.
        recovery: Whether it follows an interruption.
    """

    ready_at: Millis
    failures: int
    recovery: bool


def is_outside_window(misfire: Misfire, moment: Millis, now: Millis) -> bool:
    """Return whether a moment is older than the misfire window; without a window none is."""
    return misfire.window is not None and now - moment > misfire.window // timedelta(milliseconds=1)


def decide_due(timing: Timing, *, first: Millis, now: Millis, misfire: Misfire) -> Decision:
    """Decide the moments from ``first``, which is due, to ``now``.

    A single moment inside the window runs. Of several, those outside the window are skipped, and the others make one run at the latest
    or the earliest of them, or a run each.

    Args:
        timing: The schedule.
        first: The first moment that is not decided.
        now: The time.
        misfire: The window, and how many runs late moments make.
    """
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
    """Make a run of each of the last ``most`` moments.

    Returns:
        The runs, and the moments before them as one, if there are any.
    """
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
    """Decide the moments from ``first`` to ``now`` that came due while a run of the job was running, now that it has finished.

    Args:
        timing: The schedule.
        first: The first of them.
        now: The time.
        overlap: SKIP, BUFFER_ONE or BUFFER_ALL; the other policies decide each moment when it comes.
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
    """Read a misfire policy from its column: JSON of the fields that are not the default.

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
    """Write a misfire policy for its column."""
    stored: dict[str, str | int] = {}
    if misfire.window is not None:
        stored["window_ms"] = misfire.window // timedelta(milliseconds=1)
    if misfire.coalesce is not Coalesce.LATEST:
        stored["coalesce"] = misfire.coalesce.value
    if misfire.max_runs != Misfire().max_runs:
        stored["max_runs"] = misfire.max_runs
    return json.dumps(stored)


def retry_delay(policy: RetryPolicy, *, failures: int, spread: float = 0.0) -> Millis:
    """Return how long (ms) to wait after the ``failures``-th failure of a moment; the last delay is repeated."""
    delay = policy.delays[min(failures, len(policy.delays)) - 1]
    return round(delay * (1 + policy.jitter * spread) * 1000)


def plan_retry(
    outcome: Outcome, *, failures: int, crashes: int, max_retries: int, policy: RetryPolicy, ready_at: Millis, now: Millis
) -> RetryPlan | None:
    """Plan the retry of a finished run, if its moment is to be retried.

    Args:
        outcome: Its outcome.
        failures: How many earlier attempts of the moment failed or timed out.
        crashes: How many runs of the job in a row, this one included, were interrupted by the end of their process.
        max_retries: How many failures of a moment the job retries.
        policy: Delays of retries.
        ready_at: When the run was due; an interrupted run keeps that, and so its order in the queue.
        now: The time.

    Returns:
        None if the moment is not retried.
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
    """Return whether a job is in a crash loop: its next crash costs a retry, so its runs must not run together with other such jobs.

    We cannot see which run has ended the process, so a crash counts for every job that was running. But the job that ends its process each
    time was running at every crash that it caused. So it is in a crash loop as soon as any job that suffers from it; from then on the two
    never run at the same time, and a crash costs no retry of another job.

    Args:
        crashes: How many times in a row the job's runs were interrupted by the end of their process.
    """
    return crashes >= FREE_CRASHES


def truncated(text: str, limit: int) -> str:
    """Return text for the history: cut to a limit (characters), and without characters that a UTF-8 file cannot hold."""
    head = text[:limit] if len(text) <= limit else text[: limit - 1] + "…"
    if type(head) is str and head.isascii() and "\0" not in head:
        return head
    return head.replace("\0", "\N{REPLACEMENT CHARACTER}").encode("utf-8", "replace").decode()
