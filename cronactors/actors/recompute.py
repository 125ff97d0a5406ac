"""The task that computes next moments anew behind the start of a scheduler, after the rules of time zones have changed."""

from __future__ import annotations

import logging

import attrs
import trio

from cronactors.actors.exits import actor
from cronactors.actors.mailbox import Mailbox, Request
from cronactors.errors import StoreUnavailable
from cronactors.ledger import zone_changes
from cronactors.ledger.zone_changes import RulesOfFile
from cronactors.schedules.zone_rules import RULES, is_older
from cronactors.storage.protocol import Storage

logger = logging.getLogger("cronactors.clock")

PAGE = 500
"""How many jobs one request brings up to date."""
_AGAIN = 1.0  # seconds


@attrs.frozen
class RecomputePage(Request[tuple[int | None, int]]):
    """Bring one page of jobs up to date: where the next page begins, and how many next moments have moved."""

    after: int
    limit: int

    def apply(self, storage: Storage) -> tuple[int | None, int]:
        """Compute next moments that come of older rules."""
        return zone_changes.recompute_page(storage, after=self.after, limit=self.limit)


@attrs.frozen
class NoteRules(Request[RulesOfFile]):
    """Note the rules of this process, unless the file has newer ones."""

    def apply(self, storage: Storage) -> RulesOfFile:
        """Give those that the file has now."""
        return zone_changes.note_rules(storage)


@actor
async def recompute_moments(mailbox: Mailbox, rules: RulesOfFile) -> None:
    """Bring all jobs up to date, page by page, so that the store serves others in between. Cancelled, the next start goes on.

    Args:
        mailbox: The store's.
        rules: Those of the file.
    """
    if is_older(RULES, rules.rules):
        logger.warning(
            "the next moments in this file come of newer time zone rules (%s) than this process has (%s): they stay as they are",
            rules.rules,
            RULES,
        )
    after: int | None = None if rules.done or rules.rules != RULES else 0
    total = 0
    while after is not None:
        try:
            after, moved = await mailbox.call(RecomputePage(after, PAGE))
        except StoreUnavailable as error:  # the store has logged it
            logger.debug("next moments will be computed anew later: %s", error)
            await trio.sleep(_AGAIN)
        else:
            total += moved
    if total:
        logger.warning(
            "time zone rules changed from %s to %s: %d next moments moved", rules.before or "unknown ones", RULES, total
        )
