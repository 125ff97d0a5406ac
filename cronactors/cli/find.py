"""Find the job that a command names, or that a run is of."""

from __future__ import annotations

from difflib import get_close_matches

from cronactors.cli.amounts import more
from cronactors.errors import JobNotFound, one_line, shorten
from cronactors.model import CronJob
from cronactors.store import CronStore

_MOST_USERS = 10


async def find_job(store: CronStore, name: str, user: str | None, *, propose: bool = True) -> CronJob:
    """Find a job by its name.

    Args:
        store: The store.
        name: The name.
        user: The value of ``--user``: a user, "" for the agent itself. None: whoever has a job of that name, if only one has.
        propose: Whether the error proposes near names, which takes 0.1 s of 10,000.

    Raises:
        JobNotFound: Nobody has one, or the user has none; or several users have one.
    """
    if user is not None:
        job = await store.get_job_by_name(name, user_id=user or None)
        if job is not None:
            return job
    names = await store.job_names()
    users = [user_id for user_id, each in names if each == name]
    if user is None and len(users) == 1:
        job = await store.get_job_by_name(name, user_id=users[0])
        if job is not None:
            return job
    if user is None and len(users) > 1:
        raise JobNotFound(f"{len(users):,} users have a job named {shorten(name)}: give --user with one of {list_users(users)}")
    raise JobNotFound(_missing(name, user, users, sorted({each for _, each in names}) if propose else []))


async def find_by_id(store: CronStore, job_id: str) -> CronJob | None:
    """Return the job of an id; None if it was removed."""
    try:
        return await store.get_job(job_id)
    except JobNotFound:
        return None


def list_users(users: list[str | None]) -> str:
    """Write the names of users for ``--user``."""
    shown = ", ".join('""' if user_id is None else one_line(user_id, 30) for user_id in users[:_MOST_USERS])
    return shown + more(len(users), _MOST_USERS)


def _missing(name: str, user: str | None, users: list[str | None], names: list[str]) -> str:
    whose = "" if not user else f" of user {shorten(user)}"
    if users:
        return f"no job{whose or ' of the agent itself'} has the name {shorten(name)}, but one of {list_users(users)} has"
    near = get_close_matches(name, names, n=3)
    hint = f"; did you mean {' or '.join(one_line(each, 60) for each in near)}?" if near else "; cronactors list shows them"
    return f"no job{whose} has the name {shorten(name)}{hint}"
