"""The verbs on notifications."""

from __future__ import annotations

from cronactors.actors.notification_requests import PageOfNotifications, RetryNotification
from cronactors.checks import member, text, whole
from cronactors.errors import InvalidJob
from cronactors.notifications import Notification, NotificationStatus
from cronactors.own_loop import MAX_LIMIT
from cronactors.spec import MAX_NAME
from cronactors.verbs.base import Verbs

_PAGE = 2_000


class NotificationVerbs(Verbs):
    """Reading notifications, and trying again those that were given up."""

    async def list_notifications(
        self, *, status: NotificationStatus | str | None = None, receiver: str | None = None, limit: int = 100
    ) -> list[Notification]:
        """Read notifications, newest first.

        Args:
            status: Only those with that status; None: all.
            receiver: Only those of that receiver; None: of all.
            limit: How many at most.
        """
        wanted = None if status is None else member("status", status, InvalidJob, NotificationStatus)
        name = None if receiver is None else text("receiver", receiver, InvalidJob, limit=MAX_NAME)
        whole("limit", limit, InvalidJob, least=1, most=MAX_LIMIT)
        found: list[Notification] = []
        before: int | None = None
        while len(found) < limit:
            size = min(limit - len(found), _PAGE)
            page, before = await self._mailbox.call(PageOfNotifications(before, wanted, name, size))
            found += page
            if before is None:
                break
        return found

    async def retry_notification(self, key: str, receiver: str | None = None) -> list[Notification]:
        """Make notifications that were given up pending again, with all their attempts, and return them.

        A scheduler that has their receiver delivers them, after those of the same job that are pending already.

        Args:
            key: The key of the event: ``run:ID`` for a finished run.
            receiver: Only that of one receiver; None: those of all receivers that gave it up.

        Raises:
            NotificationNotFound: No notification of that key and receiver was given up.
        """
        text("key", key, InvalidJob, limit=MAX_NAME)
        name = None if receiver is None else text("receiver", receiver, InvalidJob, limit=MAX_NAME)
        return await self._mailbox.call(RetryNotification(key, name))
