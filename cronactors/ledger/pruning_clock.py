"""The time by which history is pruned, and until when pruned history decides moments. Runs on the storage thread.

A deletion cannot be undone, so a wall clock that is wrong for an hour must not cost a year of history. And a moment that is pruned while
the clock is three years ahead would be the latest pruned moment of its job: once the clock is right again, the job would stay silent for
three years. So the history has a clock of its own, kept in `Storage.meta`. It follows the wall clock while that goes evenly with
trio's. When the wall clock has jumped ahead of it, by being set or because no scheduler was running, it keeps pace with trio's clock,
and catches up once the wall clock has shown the later time for a day; a start believes what an earlier process was shown more than a
day before. No run from after its time is pruned, and ages count from it.

The limit of this: a wall clock that is ahead for more than a day is believed, since it cannot be distinguished from a program that was
off. Then runs are deleted too early. If more runs than `History.per_job` are added meanwhile, and the clock is then set back, moments of
that time whose runs were pruned can run again when their time comes (`decided_until`): otherwise their job would be silent until then.
"""

from __future__ import annotations

import json

import attrs

from cronactors.instants import DAY, Millis
from cronactors.retention import History
from cronactors.storage.protocol import Storage
from cronactors.storage.rows import JobRow

NOTICE: Millis = DAY
"""How long before the first deletion a start announces it; and how long a later time must be shown until it is believed."""
EVEN: Millis = 60_000
"""How far the wall clock may be ahead of the history's clock and still go evenly: a request may wait for a lock that long."""
LONGEST_LEAD: Millis = 31 * DAY
"""How far ahead of the wall clock pruned moments count in any case. Further ahead they count only if the clock of the history has gone
from now to them without a greater jump: otherwise the wall clock shows a time of its own, such as 1970, or was ahead before."""

_AT_ONCE: Millis = 0
HISTORY_FACT = "history"
_MOST_LIMITS = 4
_FIRST_RUNS = 64


@attrs.frozen(kw_only=True)
class Cursors:
    """How far the history has been searched for runs to prune, by one scheduler's limits. Each walk continues behind its cursor.

    Attributes:
        aged: The last run whose age was looked at, in order of id.
        counted: The last run whose job was counted.
        notified: The last notification whose age was looked at.
        numbered: The last job with a `History` of its own, by its number.
        started_at: When the searches last began at the first run.
    """

    aged: int = 0
    counted: int = 0
    notified: int = 0
    numbered: int = 0
    started_at: Millis = 0


@attrs.frozen(kw_only=True)
class HistoryClock:
    """The clock of the history, as it is stored.

    Attributes:
        announced_at: When a start first noted that history is deleted; None: none has. 0: there was none to announce.
        time: The time of this clock when it was last read.
        wall: The time of the wall clock then.
        doubted_at: The time of the wall clock when it was first found ahead; None: it goes evenly.
        jumped_to: Likewise, of the last jump that was believed.
        lived_since: Since when this clock has not jumped ahead by more than `LONGEST_LEAD`; None: not known.
        lived_until: The latest time that it has had since then.
        cursors: How far the history has been searched, for each scheduler's limits.
    """

    announced_at: Millis | None = None
    time: Millis
    wall: Millis
    doubted_at: Millis | None = None
    jumped_to: Millis | None = None
    lived_since: Millis | None = None
    lived_until: Millis | None = None
    cursors: dict[str, Cursors] = attrs.field(factory=dict)

    def advanced(self, wall: Millis, elapsed: Millis) -> HistoryClock:
        """Return the clock at a later time.

        Args:
            wall: The time that the wall clock shows now.
            elapsed: How long ago (ms, by trio's clock) this process last read it; 0 if it has not.
        """
        if self.doubted_at is not None and elapsed == 0 and wall >= self.wall + NOTICE:
            # The time that was doubted is more than a day old at this start. Without this, a program that runs for an hour a week
            # would never prune. In a process that has read the clock before, such a jump may be a second one within a minute.
            return self._believing(self.wall, self.doubted_at, self.time).advanced(wall, elapsed)
        # Another scheduler may have read it meanwhile: then no more time has passed than the wall clock shows.
        time = self.time + max(0, min(elapsed, wall - self.wall))
        if wall <= time + EVEN:
            return attrs.evolve(self, time=wall, wall=wall, doubted_at=None)._lived()
        jumps_again = wall - time > self.wall - self.time + NOTICE
        doubted_at = wall if self.doubted_at is None or jumps_again else min(wall, self.doubted_at)
        if wall >= doubted_at + NOTICE:
            return self._believing(wall, doubted_at, time)
        return attrs.evolve(self, time=time, wall=wall, doubted_at=doubted_at)._lived()

    def _believing(self, wall: Millis, jumped_to: Millis, time: Millis) -> HistoryClock:
        """Return the clock after a jump ahead from its time is believed."""
        clock = attrs.evolve(self, time=wall, wall=wall, doubted_at=None, jumped_to=jumped_to)
        if wall - max(time, self.lived_until or 0) > LONGEST_LEAD:
            return attrs.evolve(clock, lived_since=jumped_to, lived_until=wall)
        return clock._lived()

    def _lived(self) -> HistoryClock:
        since, until = self.lived_since, self.lived_until
        if since is None or until is None:
            since = until = self.time
        return attrs.evolve(self, lived_since=since, lived_until=max(until, self.time))

    def has_lived(self, since: Millis, until: Millis) -> bool:
        """Return whether this clock has gone from one time to another without a jump ahead by more than `LONGEST_LEAD`."""
        if self.lived_since is None or self.lived_until is None:
            return False
        return self.lived_since <= since and until <= self.lived_until

    @property
    def may_delete(self) -> bool:
        """Whether the announcement is old enough."""
        return self.announced_at is not None and self.time >= self.announced_at + NOTICE

    def cursors_of(self, limits: History) -> Cursors:
        """Return how far the history has been searched by these limits."""
        return self.cursors.get(_key(limits), Cursors())

    def with_cursors(self, limits: History, cursors: Cursors) -> HistoryClock:
        """Return the clock with the cursors of a search that has come further."""
        others = {key: each for key, each in self.cursors.items() if key != _key(limits)}
        kept = list(others.items())[1 - _MOST_LIMITS :]
        return attrs.evolve(self, cursors={**dict(kept), _key(limits): cursors})


def _key(limits: History) -> str:
    return f"{limits.days}/{limits.per_job}"


def read(storage: Storage) -> HistoryClock | None:
    """Return the clock of the history; None: no scheduler with a `History` has used this storage, or the fact cannot be read."""
    try:
        fields = json.loads(storage.meta(HISTORY_FACT) or "null")
        if fields is None:
            return None
        cursors = {str(key): Cursors(**each) for key, each in fields.pop("cursors").items()}
        found = HistoryClock(**fields, cursors=cursors)
        optional = (found.announced_at, found.doubted_at, found.jumped_to, found.lived_since, found.lived_until)
        numbers = [found.time, found.wall, *(number for number in optional if number is not None)]
        numbers += [number for each in cursors.values() for number in attrs.astuple(each)]
        return found if all(type(number) is int for number in numbers) else None
    except (TypeError, ValueError, KeyError, AttributeError, RecursionError):  # damaged, or of a later release with more fields
        return None


def write(storage: Storage, clock: HistoryClock) -> None:
    """Store the clock of the history."""
    storage.set_meta(HISTORY_FACT, json.dumps(attrs.asdict(clock)))


def start(storage: Storage, limits: History, *, elapsed: Millis = 0) -> Millis | None:
    """Read the clock of the history at the start of a scheduler or of a round, and note that history is deleted from now on.

    Args:
        storage: Inside a transaction.
        limits: The settings of the scheduler.
        elapsed: See `HistoryClock.advanced`.

    Returns:
        When the deletion begins, if the caller has to announce it. That is each caller until it begins: one that was killed after its
        transaction has announced nothing. None: it needs no announcement, since there were no runs before the first start.
    """
    now, clock = storage.now(), read(storage)
    if clock is not None:
        clock = clock.advanced(now, elapsed)
        if clock.announced_at is not None and clock.announced_at <= now:
            write(storage, clock)
            return None if clock.may_delete or not _deletes(storage, limits) else clock.announced_at + NOTICE
    if not _deletes(storage, limits):
        return None
    has_runs = any(
        abs(now - at) > EVEN for run in storage.pruning.runs_after(0, limit=_FIRST_RUNS) for at in (run.at, run.began_at)
    )
    clock = HistoryClock(time=now, wall=now) if clock is None else clock
    write(storage, attrs.evolve(clock, announced_at=now if has_runs else _AT_ONCE))
    return now + NOTICE if has_runs else None


def _deletes(storage: Storage, limits: History) -> bool:
    return limits.deletes or bool(storage.pruning.jobs_with_history(after=0, limit=1))


def decided_until(storage: Storage, job: JobRow, now: Millis) -> Millis | None:
    """Return until when all moments of a job are decided, as far as its pruned runs show; None if they show nothing.

    Pruned moments ahead of now were run before the clock was set back, and must not run again. They don't count if the clock was ahead
    of the time then, so that moments between now and them have not been run.
    """
    pruned = job.pruned_until
    if pruned is None or pruned <= now:
        return pruned
    clock = read(storage)
    if pruned > now + LONGEST_LEAD:
        return pruned if clock is not None and clock.has_lived(now, pruned) else None
    jumped_to = None if clock is None else clock.jumped_to
    return None if jumped_to is not None and now < jumped_to <= pruned else pruned
