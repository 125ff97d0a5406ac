"""The notification that the current task is called for."""

from __future__ import annotations

from contextvars import ContextVar
from typing import Final, TypeVar, overload

from cronactors.ledger.views import notification_view
from cronactors.notifications import Notification
from cronactors.storage.notifications import NotificationRow

T = TypeVar("T")

delivering: ContextVar[NotificationRow] = ContextVar("delivering")
"""Set by the actor that calls a receiver. A thread of `trio.to_thread` inherits it."""

_REQUIRED: Final = object()


@overload
def current_notification() -> Notification: ...
@overload
def current_notification(*, default: T) -> Notification | T: ...
def current_notification(*, default: object = _REQUIRED) -> object:
    """Return the notification for which a receiver is being called: its key is the same each time that this event is delivered.

    It works in tasks and threads that the receiver starts.

    Args:
        default: Returned outside of a receiver.

    Raises:
        LookupError: Called outside of a receiver, without a default.
    """
    row = delivering.get(None)
    if row is not None:
        return notification_view(row)
    if default is _REQUIRED:
        raise LookupError("current_notification must be called in a receiver: no notification is being delivered here")
    return default
