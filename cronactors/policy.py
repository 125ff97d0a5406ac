"""What a due moment, and the end of an attempt, become. Pure: every function is told the time."""

from __future__ import annotations

import attrs

from cronactors.instants import LATEST, Millis
from cronactors.model import Cause, RunStatus
from cronactors.schedule import Schedule, count_moments, latest_moment, next_moment
from cronactors.spec import RetryPolicy

COUNTED = 1_000
"""How far moments that one run stands for are counted."""
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
        crashed: The process ended; counted per job.
    """

    status: RunStatus
    cause: Cause | None = None
    result: str | None = None
    error: str | None = None
    session_id: str = ""
    retry_after: float | None = None
    spread: float = 0.0
    crashed: bool = False


@attrs.frozen(kw_only=True)
class Merged:
    """What a due moment becomes: one run at ``moment`` that stands for ``coalesced`` moments, and the first moment after it."""

    moment: Millis
    coalesced: int
    following: Millis | None


@attrs.frozen(kw_only=True)
class Again:
    """A further attempt: ready at ``ready_at`` with ``failures`` behind it."""

    ready_at: Millis
    failures: int
    recovery: bool


def merge_missed(schedule: Schedule, *, first: Millis, now: Millis, zone: str, anchor: Millis) -> Merged:
    """Merge the moments from ``first``, which is due, to ``now`` into the latest of them."""
    following = next_moment(schedule, after=first, zone=zone, anchor=anchor)
    if following is None or following > now:
        return Merged(moment=first, coalesced=1, following=following)
    latest = latest_moment(schedule, until=now, zone=zone, anchor=anchor)
    latest = first if latest is None else max(first, latest)
    return Merged(
        moment=latest,
        coalesced=count_moments(schedule, first=first, until=now, zone=zone, anchor=anchor, cap=COUNTED),
        following=next_moment(schedule, after=latest, zone=zone, anchor=anchor),
    )


def retry_delay(policy: RetryPolicy, *, failures: int, spread: float = 0.0) -> Millis:
    """How long to wait after the ``failures``-th failure of a moment; the last delay is repeated."""
    delay = policy.delays[min(failures, len(policy.delays)) - 1]
    return round(delay * (1 + policy.jitter * spread) * 1000)


def further_attempt(
    outcome: Outcome, *, failures: int, crashes: int, max_retries: int, policy: RetryPolicy, ready_at: Millis, now: Millis
) -> Again | None:
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
        return Again(ready_at=min(ready_at, now), failures=failures, recovery=True)
    if not interrupted and outcome.cause not in (Cause.ERROR, Cause.TIMEOUT):
        return None
    if failures >= max_retries:
        return None
    if outcome.retry_after is None:
        delay = retry_delay(policy, failures=failures + 1, spread=outcome.spread)
    else:
        delay = round(outcome.retry_after * 1000)
    return Again(ready_at=min(now + delay, LATEST), failures=failures + 1, recovery=interrupted)


def kept(text: str, limit: int) -> str:
    """Text as the history keeps it: cut to its limit, and what no UTF-8 file can hold replaced."""
    head = text[:limit] if len(text) <= limit else text[: limit - 1] + "…"
    return head.replace("\0", "\N{REPLACEMENT CHARACTER}").encode("utf-8", "replace").decode()
