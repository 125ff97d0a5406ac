"""Deletes history that `History` does not keep, in small steps. Runs on the storage thread.

A moment runs only once because its row is there, also after the clock was set back. So pruning forgets no decision: in the same
transaction the job keeps the latest moment among its pruned rows, ``pruned_until``, and nothing up to it is claimed again
(`pruning_clock.decided_until`).

We never walk over the whole history, which may have millions of rows. Ids grow with time, so runs that have become old are found by one
walk in order of id that stops at the first young one, and continues there the next time. It leads to a job, whose runs are then
deleted from its oldest on; so a run that one of the newest `History.keep_last` has kept goes when a later run of its job becomes old.
Jobs with too many runs are found by a second walk, over the new runs. Runs that neither finds, such as one that was open for ninety
days, or those of a job that had a `History` of its own until now, are found by new walks from the first id, once a week.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Generator, Iterator, Sequence
from itertools import groupby
from operator import attrgetter

import attrs

from cronactors.errors import InvalidJob
from cronactors.instants import DAY, LATEST, Millis
from cronactors.ledger import owners, pruning_clock
from cronactors.ledger.pruning_clock import Cursors
from cronactors.model import RunStatus
from cronactors.retention import DEFAULT_DAYS, EVERYTHING, History, history_from_text
from cronactors.storage.protocol import Storage
from cronactors.storage.pruning import KeptRun, PassedRun, Position
from cronactors.storage.rows import JobRow

WINDOW = 64
"""How many runs one step reads; reading takes less than 1 ms."""
FIRST_WINDOW = 8
"""How many runs the first step of a round deletes. Runs with 100 kB of output take up to 0.7 ms each, and others 0.03 ms."""
_MANY_STEPS = 4
"""After how many steps in one piece a step may delete more."""
COUNT = 5_000
"""How many runs of a job one step counts; it takes less than 1 ms."""
_PAGE_OF_JOBS = 1_000
"""How many jobs with a `History` of their own one round looks at; the next round continues behind them."""
_MOST_REMEMBERED = 10_000
"""How many jobs a round remembers to have counted already."""
_AGAIN: Millis = 7 * DAY
"""How often the searches begin at the first run again."""
TURN: Millis = 30_000
"""How long (ms) only one scheduler prunes, if its round takes so long."""
_TURN_FACT = "pruner"
_ENDED = frozenset(status.value for status in RunStatus if status.ended)
_AFTER_ALL: Millis = 2 * LATEST


def turn_of_other(storage: Storage, owner: int) -> Millis:
    """Return how long (ms) it is still the turn of another scheduler than ``owner``; 0: it is not.

    A piece keeps all others from writing, so schedulers that prune at the same time would slow down a store by as many times. Each
    carries out its rounds, since each has limits of its own, but one after another. A turn is not prolonged, so that none waits for a
    round that does not end under load; and it ends by itself, also if its scheduler was killed.
    """
    holder, left = _turn(storage)
    return 0 if holder == owner else left


def note_turn(storage: Storage, owner: int, *, ended: bool) -> None:
    """Store, after a piece of a round, that it is the turn of ``owner``, or that its round has ended. A round of one piece writes nothing."""
    holder, left = _turn(storage)
    if ended and holder == owner:
        storage.set_meta(_TURN_FACT, None)
    elif not ended and (holder != owner or not left):
        storage.set_meta(_TURN_FACT, json.dumps([owner, storage.now() + TURN]))


def _turn(storage: Storage) -> tuple[int | None, Millis]:
    """Return whose turn it was last, and how long it still lasts; a turn that ends later than any may is from before a clock was set."""
    try:
        owner, until = map(int, json.loads(storage.meta(_TURN_FACT) or "[]"))
    except (TypeError, ValueError, OverflowError, RecursionError):  # there was none, or the fact is damaged
        return None, 0
    left = until - storage.now()
    return owner, left if 0 < left <= TURN else 0


@attrs.define(eq=False)
class Round:
    """One search for history to prune, carried out in pieces, each in a transaction of its own.

    Between two pieces it holds no row. If a transaction fails, throw the round away: the next one begins at the stored cursors.

    Args:
        limits: The settings of the scheduler.
        owners: The owners of this process, which are alive.
        elapsed: How long ago (ms, by trio's clock) this process began its last round, or registered.
        only_counts: Whether it only counts the runs of jobs that it would delete.

    Attributes:
        deleted: How many runs it has deleted.
        deletes_from: When deletion begins, if the caller has to announce it; see `pruning_clock.start`.
    """

    limits: History
    owners: Collection[int]
    elapsed: Millis
    only_counts: bool = False
    deleted: int = 0
    deletes_from: Millis | None = None
    _steps: Iterator[None] | None = None
    _window: int = FIRST_WINDOW

    def carry_out(self, storage: Storage, enough: Callable[[], bool]) -> bool:
        """Carry out steps until it is enough; return whether the round has ended.

        Args:
            storage: Inside a transaction.
            enough: Called after each step.
        """
        if self._steps is None:
            self._steps = self._search(storage)
        for count, _ in enumerate(self._steps, 1):
            if enough():
                self._adapt(steps=count)
                return False
        return True

    def _adapt(self, steps: int) -> None:
        """Let the next steps delete fewer runs if one step filled a piece, and more if many did."""
        if steps == 1:
            self._window = max(1, self._window // 2)
        elif steps >= _MANY_STEPS:
            self._window = min(WINDOW, self._window * 2)

    def _search(self, storage: Storage) -> Iterator[None]:
        """Search by age, by number, and among jobs with limits of their own. Yields after each step."""
        self.deletes_from = pruning_clock.start(storage, self.limits, elapsed=self.elapsed)
        clock = pruning_clock.read(storage)
        if clock is None:
            return  # it keeps everything
        cursors = clock.cursors_of(self.limits)
        if clock.may_delete and clock.time >= cursors.started_at + _AGAIN:
            cursors = attrs.evolve(cursors, aged=0, counted=0, notified=0, started_at=clock.time)
        pruning_clock.write(storage, clock.with_cursors(self.limits, cursors))
        yield
        if not clock.may_delete:
            return
        if self.limits.days is not None:
            yield from self._search_by_age(storage, clock.time, clock.time - _length(self.limits.days))
        if self.limits.per_job is not None:
            yield from self._search_by_number(storage, clock.time, self.limits.per_job)
        if self.limits.deletes:  # nothing counts the alerts of a job
            days = DEFAULT_DAYS if self.limits.days is None else self.limits.days
            yield from self._search_alerts(storage, clock.time - _length(days))
        yield from self._search_own_limits(storage, clock.time)

    # The walks. The cursor of each is read and written by the step that moves it: other schedulers may have moved it between two steps.

    def _move(self, storage: Storage, **cursors: int) -> None:
        clock = pruning_clock.read(storage)
        if clock is not None:
            pruning_clock.write(storage, clock.with_cursors(self.limits, attrs.evolve(clock.cursors_of(self.limits), **cursors)))

    def _cursors(self, storage: Storage) -> Cursors:
        clock = pruning_clock.read(storage)
        return Cursors() if clock is None else clock.cursors_of(self.limits)

    def _search_by_age(self, storage: Storage, time: Millis, cutoff: Millis) -> Iterator[None]:
        """Walk over the runs that have become old, and prune their jobs."""
        while True:
            page = storage.pruning.runs_after(self._cursors(storage).aged, limit=WINDOW)
            passed = _passed(page, time, cutoff)
            for job_id in dict.fromkeys(run.job_id for run in passed if run.at <= cutoff):
                yield from self._prune_job(storage, job_id, time, counts=False)
            if passed:
                self._move(storage, aged=passed[-1].id)
            if len(passed) < WINDOW:
                break
            yield

    def _search_alerts(self, storage: Storage, cutoff: Millis) -> Iterator[None]:
        """Walk over the alerts that have become old. Those that stay because they are pending are looked at again within a week."""
        while self._prune_alerts(storage, cutoff):
            yield
        yield

    def _prune_alerts(self, storage: Storage, cutoff: Millis) -> bool:
        """Delete a page of old alerts, but for those that wait for a receiver that exists; return whether there may be more."""
        page = storage.pruning.notifications_after(self._cursors(storage).notified, limit=WINDOW)
        old = [each for each in page if each.created_at <= cutoff]
        if not old:
            return False
        existing = owners.receivers(storage, self.owners)
        gone = [each for each in old if each.run_id is None and not (each.status == "pending" and each.receiver in existing)]
        storage.pruning.delete_notifications([each.id for each in gone])
        for receiver, job_id in {(each.receiver, each.job_id) for each in gone if each.ready_at is not None}:
            storage.pruning.release_line(receiver, job_id)
        self._move(storage, notified=old[-1].id)
        return len(page) == WINDOW

    def _search_by_number(self, storage: Storage, time: Millis, per_job: int) -> Iterator[None]:
        """Walk over the new runs, and count the runs of their jobs."""
        ends = storage.pruning.run_ids()
        if ends is None or ends[1] - ends[0] < per_job:
            if ends is not None and ends[1] != self._cursors(storage).counted:
                self._move(storage, counted=ends[1])
            return  # there are not so many runs in all
        counted: set[str] = set()
        while page := storage.pruning.runs_after(self._cursors(storage).counted, limit=WINDOW):
            for job_id in dict.fromkeys(run.job_id for run in page):
                if job_id not in counted:
                    yield from self._prune_job(storage, job_id, time, counts=True)
                    counted.add(job_id)
            if len(counted) > _MOST_REMEMBERED:
                counted.clear()
            self._move(storage, counted=page[-1].id)
            yield

    def _search_own_limits(self, storage: Storage, time: Millis) -> Iterator[None]:
        """Prune jobs with a `History` of their own: the walks above go by the limits of the settings."""
        page = storage.pruning.jobs_with_history(after=self._cursors(storage).numbered, limit=_PAGE_OF_JOBS)
        for _, job_id in page:
            yield from self._prune_job(storage, job_id, time, counts=True)
        last = page[-1][0] if len(page) == _PAGE_OF_JOBS else 0
        if last != self._cursors(storage).numbered:
            self._move(storage, numbered=last)

    # One job

    def _prune_job(self, storage: Storage, job_id: str, time: Millis, *, counts: bool) -> Iterator[None]:
        """Delete the runs of a job from its oldest moment on.

        Args:
            storage: Inside a transaction.
            job_id: The job; it may have been removed.
            time: The time of the history's clock.
            counts: Whether its runs are counted, which takes 3 ms for 100,000.
        """
        limits = limits_of(storage.jobs([job_id]).get(job_id), self.limits)
        if not limits.deletes:
            return
        kept_from: Millis | None = _AFTER_ALL
        if limits.keep_last:
            kept_from = yield from _moment_of(storage, job_id, limits.keep_last)
        if kept_from is None:
            return  # it has no more runs than these
        beyond: Millis | None = None
        if counts and limits.per_job is not None:
            beyond = yield from _moment_of(storage, job_id, limits.per_job)
        old_at = None if limits.days is None else time - _length(limits.days)
        cutoffs = Cutoffs(time=time, old_at=old_at, beyond=beyond, kept_from=kept_from)
        after: Millis | None = -LATEST
        while after is not None:
            after = self._prune_window(storage, job_id, cutoffs, after)
            yield

    def _prune_window(self, storage: Storage, job_id: str, cutoffs: Cutoffs, after: Millis) -> Millis | None:
        """Prune the next window of runs of a job; return where the one after it begins, None if none follows."""
        job = storage.jobs([job_id]).get(job_id)
        undecided = None if job is None or not job.enabled else job.next_run_at
        until = min(cutoffs.kept_from, _AFTER_ALL if undecided is None else undecided, cutoffs.time + 1) - 1
        limit = self._window
        following: Millis | None = None
        while True:
            rows = storage.pruning.oldest_runs(job_id, after=after, until=until, limit=limit)
            moments = [list(runs) for _, runs in groupby(rows, key=attrgetter("scheduled_at"))]
            if len(rows) < limit:
                break
            if len(moments) > 1:  # the last of them may have more attempts
                moments.pop()
                following = moments[-1][-1].scheduled_at
                break
            limit *= 2  # a moment with more attempts than a window holds
        candidates: list[KeptRun] = []
        for attempts in moments:
            decision = is_pruned(attempts, cutoffs, undecided)
            if decision is None:
                following = None
                break
            if decision:
                candidates += attempts
        self._delete(storage, job_id, job, candidates)
        return following

    def _delete(self, storage: Storage, job_id: str, job: JobRow | None, candidates: Sequence[KeptRun]) -> None:
        """Delete runs, but for moments with a notification that waits for a receiver that exists; the job keeps their latest moment."""
        if not candidates:
            return
        moments = {run.id: run.scheduled_at for run in candidates}
        pending = storage.pruning.pending(list(moments))
        existing = owners.receivers(storage, self.owners) if pending else {}
        waiting = {moments[each.run_id] for each in pending if each.receiver in existing}
        gone = [run for run in candidates if run.scheduled_at not in waiting]
        self.deleted += len(gone)
        if self.only_counts:
            return
        storage.pruning.delete_runs(job_id, gone)
        deleted = [each for each in pending if moments[each.run_id] not in waiting]
        for receiver in {each.receiver for each in deleted if each.ready_at is not None}:
            storage.pruning.release_line(receiver, job_id)
        until = max((run.last_moment for run in gone if not run.manual), default=None)
        if until is not None and job is not None:
            known = pruning_clock.decided_until(storage, job, storage.now())
            storage.pruning.set_pruned_until(job_id, until if known is None else max(until, known))


@attrs.frozen(kw_only=True)
class Cutoffs:
    """The limits of one job, as the times and moments that they amount to now.

    Attributes:
        time: The time of the history's clock: no run from after it is pruned.
        old_at: Runs that finished by then are old; None: none is.
        beyond: Runs of moments before it are too many; None: none are.
        kept_from: The moment of the oldest of the newest runs that stay.
    """

    time: Millis
    old_at: Millis | None
    beyond: Millis | None
    kept_from: Millis


def is_pruned(attempts: Sequence[KeptRun], cutoffs: Cutoffs, undecided: Millis | None) -> bool | None:
    """Decide whether the attempts of a moment are pruned; None: neither they nor those of any later moment. Pure.

    Later moments have started later, and most have finished later.

    Args:
        attempts: All runs of the job with this moment.
        cutoffs: The limits of the job.
        undecided: The first moment of the job that is not decided: rows at it or later were decided while the clock was ahead, and
            moments before them were not.
    """
    finished_at = max(_finished_at(run) for run in attempts)
    until = max((run.last_moment for run in attempts if not run.manual), default=attempts[0].scheduled_at)
    if finished_at > cutoffs.time or until > cutoffs.time or (undecided is not None and until >= undecided):
        return False
    if cutoffs.beyond is not None and attempts[0].scheduled_at < cutoffs.beyond:
        return True
    if cutoffs.old_at is None:
        return None
    if finished_at <= cutoffs.old_at:
        return True
    began_at = min(run.completed_at or 0 if run.started_at is None else run.started_at for run in attempts)
    return False if began_at <= cutoffs.old_at else None  # one that took long: later moments may have finished before it


def _passed(page: Sequence[PassedRun], time: Millis, cutoff: Millis) -> list[PassedRun]:
    """Return the runs of a page up to the first that started lately.

    One that took long may finish after thousands of later runs have, so it does not end the walk. Nor does a run from ahead of the time,
    which shows no age.
    """
    passed: list[PassedRun] = []
    for run in page:
        if cutoff < run.began_at <= time:
            break
        passed.append(run)
    return passed


def limits_of(job: JobRow | None, settings: History) -> History:
    """Return the limits of a job; a column that cannot be read keeps everything."""
    if job is None:
        return settings
    try:
        return history_from_text(job.history) or settings
    except InvalidJob:
        return EVERYTHING


def _moment_of(storage: Storage, job_id: str, number: int) -> Generator[None, None, Millis | None]:
    """Return the moment of a job's newest, second newest, ... run; None if it has not so many. Yields while it counts."""
    place: Position | None = None
    while number > 0:
        skip = min(number, COUNT)
        place = storage.pruning.position(job_id, before=place, skip=skip - 1)
        if place is None:
            return None
        number -= skip
        if number > 0:
            yield
    return None if place is None else place.scheduled_at


def _finished_at(run: KeptRun) -> Millis:
    """Return when a run finished; later than any time if it is open."""
    return _AFTER_ALL if run.completed_at is None or run.status not in _ENDED else run.completed_at


def _length(days: float) -> Millis:
    return round(days * DAY)
