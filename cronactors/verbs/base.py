"""The base class of the verbs of a store."""

from __future__ import annotations

from cronactors.actors.mailbox import Mailbox
from cronactors.actors.store_lifetime import StoreService
from cronactors.ledger.job_fields import Defaults
from cronactors.own_loop import OwnLoop
from cronactors.settings import CronConfig


class Verbs:
    """The open store that the verbs work on, and its settings. `CronStore` is made of several of its subclasses."""

    _service: StoreService
    _mailbox: Mailbox
    _config: CronConfig
    _defaults: Defaults
    _own_loop: OwnLoop
