"""Receivers of notifications that tests share."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import trio

from cronactors import JobSpec, OneShot, current_notification
from tests.workers import after


def shots(*names: str, at: float = 1) -> list[JobSpec]:
    return [JobSpec(name, "it", OneShot(after(at)), max_retries=0) for name in names]


class Notifier:
    """A notifier that fails as ``fails`` says, and notes each call with its time and key.

    Attributes:
        fails: Returns whether the call fails; it is given the name of the job and the number of calls for its key, from 1.
    """

    def __init__(self, fails: Callable[[str, int], bool] = lambda name, call: False, seconds: float = 0) -> None:
        self.fails = fails
        self.seconds = seconds
        self.calls: list[tuple[str, float]] = []
        self.keys: Counter[str] = Counter()
        self.delivered: list[str] = []

    async def __call__(self, job_name: str, session_id: str, result: str, success: bool) -> None:
        key = current_notification().key
        self.keys[key] += 1
        self.calls.append((job_name, trio.current_time()))
        await trio.sleep(self.seconds)
        assert current_notification().key == key
        if self.fails(job_name, self.keys[key]):
            raise ValueError(f"{job_name} failed")
        self.delivered.append(job_name)

    def times(self, name: str = "a") -> list[float]:
        return [at for job_name, at in self.calls if job_name == name]
