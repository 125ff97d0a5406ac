"""The task that recomputes next moments after the rules of time zones have changed.

It runs in the background after a start, page by page, so that the store serves other requests in between.
"""

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
"""How many jobs one request recomputes."""
_RETRY_PAUSE = 1.0  # seconds


@attrs.frozen
class RecomputePage(Request[tuple[int | None, int]]):
    """Recompute one page of jobs; return where the next page begins (None after the last), and how many next moments moved."""

    after: int
    limit: int

    def apply(self, storage: Storage) -> tuple[int | None, int]:
        return zone_changes.recompute_page(storage, after=self.after, limit=self.limit)


@attrs.frozen
class NoteRules(Request[RulesOfFile]):
    """Record the zone rules of this process in the file, unless it has newer ones, and return those of the file."""

    def apply(self, storage: Storage) -> RulesOfFile:
        return zone_changes.note_rules(storage)


@actor
async def recompute_moments(mailbox: Mailbox, rules: RulesOfFile) -> None:
    """Recompute the next moments of all jobs that older rules have computed. If it is cancelled, the next start continues.

    Args:
        mailbox: The store's mailbox.
        rules: The zone rules of the file, from `Register` or `NoteRules`.
    """
    if is_older(RULES, rules.rules):
        logger.warning(
            "the next moments in this file were computed with newer time zone rules (%s) than this process has (%s): they stay",
            rules.rules,
            RULES,
        )
    after: int | None = None if rules.done or rules.rules != RULES else 0
    total = 0
    while after is not None:
        try:
            after, moved = await mailbox.call(RecomputePage(after, PAGE))
        except StoreUnavailable as error:  # the store has logged it
            logger.debug("next moments will be recomputed later: %s", error)
            await trio.sleep(_RETRY_PAUSE)
        else:
            total += moved
    if total:
        logger.warning(
            "time zone rules changed from %s to %s: %d next moments moved", rules.before or "unknown ones", RULES, total
        )
