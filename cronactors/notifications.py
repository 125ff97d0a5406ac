"""Values of notifications: what users read of them, and the receivers that users write."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import datetime
from enum import StrEnum
from typing import Final, Generic, TypeAlias, TypeVar

import attrs

from cronactors import checks
from cronactors.alerts import Alert
from cronactors.errors import InvalidConfig, shorten
from cronactors.model import CronJob
from cronactors.settings import RetryPolicy

F_co = TypeVar("F_co", bound=Callable[..., Awaitable[None]], covariant=True)

NOTIFIER: Final = "notifier"
ON_FINISH: Final = "on_finish"
ON_ALERT: Final = "on_alert"

CALL_LIMIT: Final = 30.0
"""How long (s) a call may take by default."""
MAX_ATTEMPTS: Final = 1_000
"""Most calls for one notification."""
MAX_CALL_LIMIT: Final = 86_400
"""Longest timeout (s) of a call."""
MAX_CONCURRENCY: Final = 100
"""Most calls of one receiver at a time."""

AlertObserver: TypeAlias = Callable[[CronJob, Alert], Awaitable[None]]
"""Called with the job and the alert, under the same rules as a `NotificationSender`."""


class NotificationStatus(StrEnum):
    """The status of a notification.

    PENDING: it is yet to be delivered. DELIVERED: a call of the receiver returned. GIVEN_UP: every attempt failed.
    """

    PENDING = "pending"
    DELIVERED = "delivered"
    GIVEN_UP = "given_up"


@attrs.frozen(kw_only=True)
class Notification:
    """One event for one receiver, as it is stored.

    Attributes:
        key: The same in each call for this event, also after a crash: ``run:ID`` for a finished run. Use it to notice repetitions.
        receiver: The name of the receiver: ``notifier``, ``on_finish`` or ``on_alert``.
        job_id: The job; it may have been removed since.
        run_id: The finished run; None for an alert.
        created_at: When the event happened, UTC.
        status: Its status.
        attempts: How many calls have failed.
        retry_at: When it is tried again, UTC; None: it is not waiting for a retry.
        error: Why the last call failed; None: none has.
    """

    key: str
    receiver: str
    job_id: str
    run_id: str | None
    created_at: datetime
    status: NotificationStatus
    attempts: int
    retry_at: datetime | None = None
    error: str | None = attrs.field(default=None, repr=False)


@attrs.frozen
class Receiver(Generic[F_co]):
    """A function that is notified, and how often it is tried. It may be given wherever the function itself may.

    Args:
        function: The async function.
        retry: The delays (s) before the second, third, ... call for one notification.
        attempts: After how many failed calls a notification is given up, 1 to 1,000.
        timeout: How long (s) a call may take before it is cancelled, which counts as a failure: a millisecond to a day.
        concurrency: How many calls may be running at a time, 1 to 100. Two of one job never are.

    Raises:
        InvalidConfig: An argument has a wrong type or value.
    """

    function: F_co
    retry: RetryPolicy = attrs.field(default=RetryPolicy(delays=(10, 60, 300, 1800)), kw_only=True)
    attempts: int = attrs.field(default=5, kw_only=True)
    timeout: float = attrs.field(default=CALL_LIMIT, kw_only=True)
    concurrency: int = attrs.field(default=1, kw_only=True)

    def __attrs_post_init__(self) -> None:
        """Check every field."""
        if not callable(self.function):
            raise InvalidConfig(f"function must be an async function, not {shorten(self.function)}")
        if not isinstance(self.retry, RetryPolicy):
            raise InvalidConfig(f"retry must be a RetryPolicy, not {shorten(self.retry)}")
        checks.whole("attempts", self.attempts, InvalidConfig, least=1, most=MAX_ATTEMPTS)
        checks.number("timeout", self.timeout, InvalidConfig, least=0.001, most=MAX_CALL_LIMIT)
        checks.whole("concurrency", self.concurrency, InvalidConfig, least=1, most=MAX_CONCURRENCY)


def as_receiver(field: str, value: F_co | Receiver[F_co] | None) -> Receiver[F_co] | None:
    """Make a receiver of a function; None stays None.

    Raises:
        InvalidConfig: It is neither.
    """
    if value is None or isinstance(value, Receiver):
        return value
    if not callable(value):
        raise InvalidConfig(f"{field} must be an async function or a Receiver, not {shorten(value)}")
    return Receiver(value)
