"""The task that recomputes next moments after the rules of time zones have changed.

It runs in the background after a start, page by page, so that the store serves other requests in between.
"""

from __future__ import annotations

import logging
from typing import ClassVar, TypeVar

import attrs
import trio

from cronactors.actors.exits import actor
from cronactors.actors.mailbox import Mailbox, ReadRequest, Request
from cronactors.errors import StoreUnavailable
from cronactors.ledger import zone_changes
from cronactors.ledger.zone_changes import RulesOfStore
from cronactors.schedules.zone_rules import RULES, is_older
from cronactors.storage.protocol import Storage

R = TypeVar("R")

logger = logging.getLogger("cronactors.clock")

PAGE = 500
"""How many jobs one request reads, or recomputes."""
_RETRY_PAUSE = 1.0  # seconds


@attrs.frozen
class FindOlder(ReadRequest[tuple[int | None, list[str]]]):
    """Find the jobs of one page that older rules have computed; see `zone_changes.find_older`."""

    after: int
    limit: int

    def apply(self, storage: Storage) -> tuple[int | None, list[str]]:
        return zone_changes.find_older(storage, after=self.after, limit=self.limit)


@attrs.frozen
class Recompute(Request[int]):
    """Recompute the next moments of jobs; return how many have moved."""

    alone: ClassVar[bool] = False
    ids: list[str]

    def apply(self, storage: Storage) -> int:
        return zone_changes.recompute(storage, self.ids)


@attrs.frozen
class MarkRecomputed(Request[None]):
    """Record that all next moments have been recomputed."""

    def apply(self, storage: Storage) -> None:
        zone_changes.mark_recomputed(storage)


@attrs.frozen
class NoteRules(Request[RulesOfStore]):
    """Record the zone rules of this process in the store, unless it has newer ones, and return those of the store."""

    def apply(self, storage: Storage) -> RulesOfStore:
        return zone_changes.note_rules(storage)


@actor
async def recompute_moments(mailbox: Mailbox, rules: RulesOfStore) -> None:
    """Recompute the next moments of all jobs that older rules have computed. If it is cancelled, the next start continues.

    Args:
        mailbox: The store's mailbox.
        rules: The zone rules of the store, from `Register` or `NoteRules`.
    """
    if is_older(RULES, rules.rules):
        logger.warning(
            "the next moments in this store were computed with newer time zone rules (%s) than this process has (%s): they stay",
            rules.rules,
            RULES,
        )
    if rules.done or rules.rules != RULES:
        return
    after: int | None = 0
    moved = 0
    while after is not None:
        after, ids = await _call(mailbox, FindOlder(after, PAGE))
        if ids:
            moved += await _call(mailbox, Recompute(ids))
    await _call(mailbox, MarkRecomputed())
    if moved:
        logger.warning(
            "time zone rules changed from %s to %s: %d next moments moved", rules.before or "unknown ones", RULES, moved
        )


async def _call(mailbox: Mailbox, request: Request[R]) -> R:
    """Send a request until the store carries it out."""
    while True:
        try:
            return await mailbox.call(request)
        except StoreUnavailable as error:  # the store has logged it
            logger.debug("next moments will be recomputed later: %s", error)
            await trio.sleep(_RETRY_PAUSE)
