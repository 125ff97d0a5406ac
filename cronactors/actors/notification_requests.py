"""The requests about notifications: of the receivers' actors and of users. `apply` runs on the storage thread."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Self

import attrs

from cronactors.actors.mailbox import BatchRequest, ReadRequest, Request
from cronactors.ledger import notifications, views
from cronactors.ledger.notifications import CallResult, Deliverable, ReadyPage
from cronactors.notifications import Notification, NotificationStatus
from cronactors.owner import ProcessIdentity
from cronactors.storage.protocol import Storage


@attrs.frozen
class Settle(BatchRequest[list[Deliverable]]):
    """Store the results of calls, and return the notifications that have become ready."""

    alone: ClassVar[bool] = False
    results: tuple[CallResult, ...]
    owner: int

    @classmethod
    def apply_all(cls, storage: Storage, requests: Sequence[Self]) -> list[list[Deliverable]]:
        """Store the results of each request; one scheduler has one at a time."""
        return [notifications.settle(storage, each.results, owner=each.owner) for each in requests]


@attrs.frozen
class ReadReady(ReadRequest[ReadyPage]):
    """Read notifications that may be delivered to a receiver now, but for those that are in hand."""

    receiver: str
    owner: int
    limit: int
    in_hand: frozenset[int]

    def apply(self, storage: Storage) -> ReadyPage:
        return notifications.ready_page(storage, self.receiver, owner=self.owner, limit=self.limit, in_hand=self.in_hand)


@attrs.frozen
class TakeOver(Request[dict[str, int]]):
    """Take over notifications of owners that are gone, and return how many for each receiver.

    Attributes:
        receivers: The receivers that the scheduler has.
        owner: The scheduler.
        process: This process; the owners of others are compared with it.
        trust_leases: Whether an owner whose lease has run out is dead.
        own_owners: The owners of this process, which are alive.
        limit: How many at most.
    """

    receivers: tuple[str, ...]
    owner: int
    process: ProcessIdentity
    trust_leases: bool
    own_owners: frozenset[int]
    limit: int

    def apply(self, storage: Storage) -> dict[str, int]:
        return notifications.take_over(
            storage,
            self.process,
            receivers=self.receivers,
            owner=self.owner,
            trust_leases=self.trust_leases,
            mine=self.own_owners,
            limit=self.limit,
        )


@attrs.frozen
class PageOfNotifications(ReadRequest[tuple[list[Notification], int | None]]):
    """Read notifications, newest first, and where the next page begins; None after the last page."""

    before: int | None
    status: NotificationStatus | None
    receiver: str | None
    limit: int

    def apply(self, storage: Storage) -> tuple[list[Notification], int | None]:
        rows, following = storage.notifications.page(
            before=self.before, status=self.status, receiver=self.receiver, limit=self.limit
        )
        return list(map(views.notification_view, rows)), following


@attrs.frozen
class RetryNotification(Request[list[Notification]]):
    """Make notifications that were given up pending again, and return them."""

    key: str
    receiver: str | None

    def apply(self, storage: Storage) -> list[Notification]:
        return list(map(views.notification_view, notifications.retry(storage, self.key, self.receiver)))
