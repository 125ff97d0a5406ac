"""The requests of the actors: owners and leases, the clock's claims, finished runs. `apply` runs on the storage thread."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from operator import attrgetter
from typing import ClassVar, Self

import attrs

from cronactors.actors.mailbox import BatchRequest, ReadRequest, Request
from cronactors.instants import Millis
from cronactors.ledger import (
    alerting,
    claim,
    clock_set_back,
    finish,
    leases,
    notifications,
    owners,
    pruning_clock,
    recovery,
    run_output,
    totals,
    views,
)
from cronactors.ledger.claim import Claims
from cronactors.ledger.notifications import Deliverable
from cronactors.ledger.run_output import NewOutput
from cronactors.ledger.zone_changes import RulesOfStore, note_rules
from cronactors.model import Cause, CronRun
from cronactors.owner import ProcessIdentity
from cronactors.policy import Outcome
from cronactors.retention import History
from cronactors.settings import RetryPolicy
from cronactors.storage.protocol import Storage
from cronactors.storage.rows import Claimed, NextTimes, RunRow

MOST_COUNTED = 10_000
"""How far pending notifications are counted: of a million that would block the thread for 10 ms."""
STALE: Millis = 2_000
"""How old (ms) a request to recover runs may be and still trust that a lease has run out."""


@attrs.frozen
class Registered:
    """A new owner, and the facts about the file that its clock starts from.

    Attributes:
        owner: Its number.
        last_seen: When any earlier owner last renewed its lease.
        latest_added_at: The latest time at which users added or requested something.
        rules: The zone rules with which the next moments in the file are computed.
        pending: How many notifications are pending, counted to `MOST_COUNTED`.
        deletes_from: When history will be deleted, if this start has to announce it.
    """

    owner: int
    last_seen: Millis | None
    latest_added_at: Millis | None
    rules: RulesOfStore
    pending: int
    deletes_from: Millis | None


@attrs.frozen
class Register(Request[Registered]):
    """Register this process as an owner.

    Attributes:
        process: This process.
        receivers: The receivers of notifications that it has.
        limits: How much history its scheduler keeps; None: it is not a scheduler, and deletes nothing.
        total: How many runs may be running at a time over all schedulers; None: any number.
    """

    process: ProcessIdentity
    receivers: tuple[str, ...] = ()
    limits: History | None = None
    total: int | None = None

    def apply(self, storage: Storage) -> Registered:
        last_seen = owners.last_seen(storage)
        owner = owners.register(storage, self.process, self.receivers)
        totals.note_total(storage, owner, self.total)
        return Registered(
            last_seen=last_seen,
            latest_added_at=clock_set_back.latest_added_at(storage),
            owner=owner,
            rules=note_rules(storage),
            pending=storage.notifications.count_pending(most=MOST_COUNTED),
            deletes_from=None if self.limits is None else pruning_clock.start(storage, self.limits),
        )


@attrs.frozen
class Recover(Request[tuple[list[CronRun], bool]]):
    """Interrupt runs of dead owners, so that their moments run again; return these runs, and whether there are more.

    A request that has waited longer than `STALE` trusts no lease: other owners may have waited for the same lock, unable to renew
    theirs.

    Attributes:
        process: This process; the owners of others are compared with it.
        policy: Delays of retries.
        trust_leases: Whether an owner whose lease has run out is dead.
        own_owners: The owners of this process, which are alive.
        requested_at: When the request was made.
    """

    may_finish_runs: ClassVar[bool] = True
    process: ProcessIdentity
    policy: RetryPolicy
    trust_leases: bool
    own_owners: frozenset[int]
    requested_at: Millis

    def apply(self, storage: Storage) -> tuple[list[CronRun], bool]:
        trusted = self.trust_leases and abs(storage.now() - self.requested_at) < STALE
        recovered = recovery.recover(storage, self.process, policy=self.policy, trust_leases=trusted, mine=self.own_owners)
        return [views.run_view(run) for run in recovered.runs], recovered.more


@attrs.frozen
class RecomputeAfterSetBack(Request[int | None]):
    """Recompute one page of jobs after the wall clock was set back, and return where the next page begins; None after the last.

    The first page sets pending runs and leases back too.

    Its attributes are the arguments of `clock_set_back.recompute_page`.
    """

    waits_forever: ClassVar[bool] = True
    after: int
    limit: int
    owner: int
    by: Millis
    since: Millis
    earliest: Millis

    def apply(self, storage: Storage) -> int | None:
        return clock_set_back.recompute_page(
            storage,
            after=self.after,
            limit=self.limit,
            owner=self.owner,
            by=self.by,
            since=self.since,
            earliest=self.earliest,
        )


@attrs.frozen
class Snapshot:
    """The state of the store as the patrol needs it, from one read.

    Attributes:
        running: The scheduler's own running runs, each with the reason to cancel it, or None.
        idle: No owner has a running run.
        orphaned: There are running runs of a dead owner.
        next_times: When something is due next, and when something is to be decided next that needs no free slot.
        pauses_over: There are pauses that were to end by now.
        pending: How many notifications are pending, counted to `MOST_COUNTED`.
        orphaned_receivers: The receivers with notifications that no living owner delivers.
        declared_dead: The scheduler's lease had run out, and another one has taken over its runs.
    """

    running: dict[int, Cause | None]
    idle: bool
    orphaned: bool
    next_times: NextTimes
    pauses_over: bool
    pending: int
    orphaned_receivers: frozenset[str]
    declared_dead: bool


@attrs.frozen
class Inspect(ReadRequest[Snapshot]):
    """Read a snapshot: changes by other processes, runs to cancel, dead owners.

    Attributes:
        owner: The scheduler's owner number; 0 if there is none.
        process: This process; the owners of others are compared with it.
        trust_leases: Whether an owner whose lease has run out is dead.
        own_owners: The owners of this process, which are alive.
    """

    owner: int
    process: ProcessIdentity
    trust_leases: bool
    own_owners: frozenset[int]

    def apply(self, storage: Storage) -> Snapshot:
        running = storage.running(owner=self.owner)
        lines = notifications.orphaned(storage, self.process, trust_leases=self.trust_leases, mine=self.own_owners)
        elsewhere = storage.any_running(besides=[self.owner])
        next_times, now = storage.next_times(), storage.now()
        may_be_over = next_times.slotless is not None and next_times.slotless <= now
        return Snapshot(
            running={run.id: _cancel_cause(run) for run in running},
            idle=not running and not elsewhere,
            orphaned=elsewhere and storage.any_running(besides=self._living(storage)),
            next_times=next_times,
            pauses_over=may_be_over and bool(storage.pauses.to_end(now=now, limit=1)),
            pending=storage.notifications.count_pending(most=MOST_COUNTED),
            orphaned_receivers=frozenset(receiver for _, receiver in lines),
            declared_dead=leases.was_declared_dead(storage, self.owner),
        )

    def _living(self, storage: Storage) -> set[int]:
        return recovery.living_owners(storage, self.process, trust_leases=self.trust_leases, mine=self.own_owners)


def _cancel_cause(run: RunRow) -> Cause | None:
    if not run.cancel_requested:
        return None
    return Cause.REPLACED if run.cause == Cause.REPLACED else Cause.CANCELLED


@attrs.frozen
class ClaimDue(BatchRequest[Claims]):
    """Start due runs for free slots; see `claim.claim_due`, and `Request.not_before`."""

    alone: ClassVar[bool] = False
    owner: int
    limit: int
    total: int | None
    not_before: Millis
    slotless: ClassVar[bool] = False
    only_claims: ClassVar[bool] = True

    @classmethod
    def apply_all(cls, storage: Storage, requests: Sequence[Self]) -> list[Claims]:
        """Carry out each of them; there is rarely more than one."""
        return [
            claim.claim_due(storage, owner=each.owner, limit=each.limit, total=each.total, slotless=each.slotless)
            for each in requests
        ]


@attrs.frozen
class DecideAndClaim(ClaimDue):
    """Decide what needs no free slot, and start due runs; see `claim.claim_due`."""

    alone: ClassVar[bool] = True
    may_finish_runs: ClassVar[bool] = True
    slotless: ClassVar[bool] = True
    only_claims: ClassVar[bool] = False


@attrs.frozen(kw_only=True)
class Finished:
    """The reply to `FinishRun`.

    Attributes:
        run: The finished run; None if the outcome has no effect: another owner has taken the run over, or it was finished with
            another outcome.
        notifications: The new notifications for its receivers.
        next_claimed: The run that was claimed for the same slot, in the same transaction.
    """

    run: RunRow | None
    notifications: list[Deliverable]
    next_claimed: Claimed | None


@attrs.frozen(kw_only=True)
class FinishSettings:
    """The settings that all finished runs of a scheduler share.

    Attributes:
        owner: The scheduler's owner number.
        policy: Delays of retries.
        total: How many runs may be running at a time over all owners; None: no limit.
        receivers: The receivers of notifications that the scheduler has.
    """

    owner: int
    policy: RetryPolicy
    total: int | None
    receivers: tuple[str, ...]


@attrs.frozen
class FinishRun(BatchRequest[Finished]):
    """Finish a run and, in the same transaction, notify its receivers and claim the next run for its slot.

    Attributes:
        run_id: The run.
        outcome: Its outcome.
        claim_next: Whether to claim a run for its slot.
        settings: Shared by all finishes of the scheduler.
        claimed: The run and its job as the claim left them; None: the runner does not know.
        output: The output of the run that may not be stored yet; None: it has reported nothing.
        again: Whether the same request was sent before, and may have been carried out.
    """

    alone: ClassVar[bool] = False
    waits_forever: ClassVar[bool] = True
    run_id: int
    outcome: Outcome
    claim_next: bool
    settings: FinishSettings
    claimed: Claimed | None = None
    output: NewOutput | None = None
    again: bool = False

    @classmethod
    def apply_all(cls, storage: Storage, requests: Sequence[Self]) -> list[Finished]:
        """Finish all of them, then claim as many runs: reading and writing for many at a time costs a third (docs/performance.md)."""
        finished = []
        for settings, group in groupby(requests, key=attrgetter("settings")):
            finished += _finish(storage, settings, list(group))
        return finished


def _finish(storage: Storage, settings: FinishSettings, requests: Sequence[FinishRun]) -> list[Finished]:
    outputs = [request.output for request in requests if request.output is not None]
    if outputs:
        run_output.store_last_output(storage, outputs)
    finished = finish.finish_runs(storage, requests, owner=settings.owner, policy=settings.policy)
    written: dict[int, list[Deliverable]] = {}
    if settings.receivers:
        written = notifications.add_finished(storage, requests, finished, receivers=settings.receivers, owner=settings.owner)
    wanted = sum(request.claim_next for request in requests)
    started = claim.claim_due(storage, owner=settings.owner, limit=wanted, total=settings.total).runs if wanted else []
    next_claimed = iter(started)
    return [
        Finished(
            run=run,
            notifications=written.pop(run.id, []) if run is not None else [],
            next_claimed=next(next_claimed, None) if request.claim_next else None,
        )
        for request, run in zip(requests, finished.runs, strict=True)
    ]


@attrs.frozen
class MarkStuck(Request[None]):
    """Record, for runs that have not ended although they were cancelled, why they were; and report them."""

    alone: ClassVar[bool] = False
    stuck: tuple[alerting.StuckRun, ...]

    def apply(self, storage: Storage) -> None:
        for each in self.stuck:
            storage.mark_runs([each.run_id], cause=each.cause.value)
        alerting.report_stuck(storage, self.stuck)


@attrs.frozen
class OwnersBusy(ReadRequest[bool]):
    """Read whether any of the owners has a running run."""

    owners: tuple[int, ...]

    def apply(self, storage: Storage) -> bool:
        return any(storage.running(owner=owner) for owner in self.owners)


@attrs.frozen
class RenewLeases(Request[None]):
    """Give a heartbeat for each of the owners."""

    alone: ClassVar[bool] = False
    owners: tuple[int, ...]

    def apply(self, storage: Storage) -> None:
        leases.renew_leases(storage, self.owners)


@attrs.frozen
class Revive(Request[None]):
    """Let an owner that was declared dead start runs again."""

    owner: int
    process: ProcessIdentity
    receivers: tuple[str, ...]

    def apply(self, storage: Storage) -> None:
        leases.revive(storage, self.owner, self.process, self.receivers)


@attrs.frozen
class SignOff(Request[None]):
    """Record that owners have closed. Another owner may recover their runs at once, and deliver their notifications."""

    alone: ClassVar[bool] = False
    may_finish_runs: ClassVar[bool] = True
    owners: tuple[int, ...]

    def apply(self, storage: Storage) -> None:
        for owner in self.owners:
            owners.sign_off(storage, owner)
