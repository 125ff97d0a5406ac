"""``runs --follow``: lines as runs start and finish, read from the store once a second."""

from __future__ import annotations

import codecs
import json
from collections.abc import Callable

import trio

from cronactors import open_store
from cronactors.cli import describe
from cronactors.cli.listing import run_as_json
from cronactors.cli.run_query import RunQuery, Subject, find_subject, read_runs
from cronactors.cli.stdout import encoding, print_line
from cronactors.errors import RunNotFound, one_line
from cronactors.model import ALL, CronRun, RunStatus
from cronactors.store import CronStore

INTERVAL = 1.0
"""How long (s) it sleeps between two reads."""
_PAGE = 200
_MOST_OPEN = 1_000
"""How many pending runs are watched at most: the newest. The others are noticed when they are running."""


def follow_runs(database: str, query: RunQuery, *, as_json: bool) -> None:
    """Print the last runs, oldest first, and then a line for each run that starts or finishes, until Ctrl-C.

    With ``as_json`` each line is a JSON object.

    Raises:
        JobNotFound: There is no such job, and no run of one; or several users have one.
        CronError: The database cannot be read.
    """

    async def follow() -> None:
        async with open_store(database, create=False) as store:
            subject = await find_subject(store, query)
            follower = Follower(store, query, subject)
            await follower.start()
            printed = await read_runs(store, query, subject)
            for run in reversed(printed):
                _print(run, subject.zone, as_json=as_json)
            while True:
                await trio.sleep(INTERVAL)
                known = {(run.id, run.status) for run in printed}  # some may have changed between the two reads
                for run in await follower.poll():
                    if (run.id, run.status) not in known:
                        _print(run, subject.zone, as_json=as_json)

    try:
        trio.run(follow)
    except KeyboardInterrupt:
        return


class Follower:
    """Finds the runs that have started or finished since it was asked last.

    We look at new rows by their ids, and at each run that was pending or running by its own id. So a poll reads few rows of a history of
    a million, and misses no run that is shorter than a second.

    Args:
        store: The store.
        query: Which runs. Its times are ignored.
        subject: Whose they are.
    """

    def __init__(self, store: CronStore, query: RunQuery, subject: Subject) -> None:
        self._store, self._query, self._subject = store, query, subject
        self._open: dict[str, CronRun] = {}
        self._last_id = 0

    async def start(self) -> None:
        """Remember the newest run, and those that are pending or running."""
        newest = await self._store.list_runs(limit=1)
        self._last_id = max((int(run.id) for run in newest), default=0)
        for status in (RunStatus.PENDING, RunStatus.RUNNING):
            for run in await self._store.list_runs(limit=_MOST_OPEN, status=status):
                self._open.setdefault(run.id, run)

    async def poll(self) -> list[CronRun]:
        """Return the wanted runs that have started, finished or been skipped since the last call, as they are now, in order of time."""
        changed = [*await self._changed(), *await self._added()]
        wanted = await self._matcher(changed)
        return sorted((run for run in changed if wanted(run)), key=_time_of)

    async def _changed(self) -> list[CronRun]:
        """Return the open runs whose status is another one now, and those that are running and were not known."""
        changed = []
        for before in list(self._open.values()):
            try:
                run = await self._store.get_run(before.id)
            except RunNotFound:  # it was pruned, or moved
                del self._open[before.id]
                continue
            if run.status is not before.status:
                changed.append(run)
                self._remember(run)
        for run in await self._store.list_runs(limit=_MOST_OPEN, status=RunStatus.RUNNING):
            if run.id not in self._open and int(run.id) <= self._last_id:
                changed.append(run)
                self._remember(run)
        return changed

    async def _added(self) -> list[CronRun]:
        """Return new runs, but for those that are pending."""
        added: list[CronRun] = []
        page = await self._store.list_runs(limit=_PAGE)
        while page:
            fresh = [run for run in page if int(run.id) > self._last_id]
            added += fresh
            if len(fresh) < len(page):
                break
            page = await self._store.list_runs(limit=_PAGE, after=page[-1].id)
        for run in added:
            self._remember(run)
        self._last_id = max([self._last_id, *(int(run.id) for run in added)])
        return [run for run in added if run.status is not RunStatus.PENDING]

    def _remember(self, run: CronRun) -> None:
        if run.status.ended:
            self._open.pop(run.id, None)
        else:
            self._open[run.id] = run

    async def _matcher(self, runs: list[CronRun]) -> Callable[[CronRun], bool]:
        """Return the filter of the query. It reads the jobs that have the tag now, if there is anything to filter."""
        query, job_ids = self._query, self._subject.job_ids
        tagged: set[str] | None = None
        if query.tag is not None:
            tagged = {job.id for job in await self._store.list_jobs(tag=query.tag)} if runs else set()

        def matches(run: CronRun) -> bool:
            return (
                (run.job_id in job_ids if job_ids is not None else query.user_id in (ALL, run.user_id))
                and query.status in (None, run.status)
                and query.cause in (None, run.cause)
                and query.trigger in (None, run.trigger)
                and (tagged is None or run.job_id in tagged)
            )

        return matches


def _time_of(run: CronRun) -> tuple[float, int]:
    moment = run.completed_at or run.started_at or run.scheduled_at
    return moment.timestamp(), int(run.id)


def _print(run: CronRun, zone: str, *, as_json: bool) -> None:
    if as_json:
        unicode = codecs.lookup(encoding()).name.startswith("utf")
        print_line(json.dumps(run_as_json(run), ensure_ascii=not unicode))
    else:
        print_line(line_of(run, zone))


def line_of(run: CronRun, zone: str) -> str:
    """Describe a run in one line: when it started, finished or was skipped, its job, id and attempt, its outcome."""
    moment = run.completed_at or run.started_at or run.scheduled_at
    started = run.status is RunStatus.RUNNING and run.cause is None
    words = [
        describe.local_time(moment, zone),
        f"run {run.id}",
        one_line(run.job_name, 30),
        *([f"of {one_line(run.user_id, 30)}"] if run.user_id is not None else []),
        f"attempt {run.attempt}",
        "started" if started else f"{describe.status(run):<9}",
        describe.duration(run),
        describe.result(run),
    ]
    return "  ".join(word for word in words if word).rstrip()
