"""The store that users hold: `open_store` makes a `CronStore`, whose methods are in `cronactors.verbs`."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Never, final

from cronactors.actors.exits import BlockExit, guarded_contextmanager
from cronactors.actors.store_lifetime import StoreService, StrPath, check_path, store_service
from cronactors.checks import flag
from cronactors.errors import InvalidConfig
from cronactors.ledger.job_fields import Defaults
from cronactors.own_loop import OwnLoop
from cronactors.settings import CronConfig, check_settings
from cronactors.verbs.history import HistoryVerbs
from cronactors.verbs.jobs import JobVerbs
from cronactors.verbs.loops import LoopVerbs
from cronactors.verbs.notifications import NotificationVerbs
from cronactors.verbs.run_output import OutputVerbs
from cronactors.verbs.runs import RunVerbs


@final
class CronStore(JobVerbs, LoopVerbs, RunVerbs, HistoryVerbs, OutputVerbs, NotificationVerbs):
    """Jobs and their history in one file. `open_store` makes it, and `CronScheduler.store` is one.

    When a method returns, its change is on disk. A call that is cancelled before its transaction has started has no effect; from
    then on it returns its result, a few milliseconds later.

    Every method raises `StoreUnavailable` if the file is locked for 30 s, full or out of reach, `StoreCorrupt` if it is damaged,
    and `SchedulerClosed` after its block has ended.
    """

    def __init__(self, *_args: Never, **_options: Never) -> None:
        raise TypeError("CronStore has no public constructor: use open_store(), or the store of a CronScheduler")

    @classmethod
    def _create(cls, service: StoreService, *, config: CronConfig, timezone: str | None) -> CronStore:
        store = cls.__new__(cls)
        store._service = service
        store._mailbox = service.mailbox
        store._config = config
        store._own_loop = OwnLoop(service, config.retry)
        store._defaults = Defaults.of(config, timezone)
        return store

    @property
    def path(self) -> str:
        """The absolute path of the file; or the address of the PostgreSQL store, without user and password."""
        return self._service.path


@guarded_contextmanager
async def open_store(
    store: StrPath, *, timezone: str | None = None, config: CronConfig | None = None, create: bool = True
) -> AsyncGenerator[CronStore]:
    """Open a store without a scheduler: to edit jobs, to read history, or for a loop of your own.

    Waits up to 10 s for a file that another process has locked, or for a server that is being started.

    Args:
        store: The file. It is created with mode 0600; its folder must exist. ``":memory:"`` is a private store. Or the address of a
            PostgreSQL database, ``"postgresql://host/database"``, which needs the extra ``postgres``; docs/scaling.md has the details.
        timezone: IANA name of the zone for jobs that name none; None: the zone of ``config``.
        config: Defaults for fields that jobs leave out. Its own ``jobs`` are not added.
        create: Whether to create a missing file or schema.

    Raises:
        InvalidConfig: An argument is wrong; or the store is on a server, and time is virtual.
        CronError: The store is on a server, and psycopg is not installed.
        StoreUnavailable: The store is missing, locked, not permitted or out of reach.
        StoreCorrupt: The store is damaged, of another application or of a newer version; it has not been touched.
    """
    path = check_path(store)
    config = check_settings(config, timezone)
    flag("create", create, InvalidConfig)
    block_exit = BlockExit()
    with block_exit:
        async with store_service(path, schema=config.schema, create=create) as service:
            with block_exit.body:
                yield CronStore._create(service, config=config, timezone=timezone)
            await service.mark_stopping(service.owners.copy())
    block_exit.raise_errors()
