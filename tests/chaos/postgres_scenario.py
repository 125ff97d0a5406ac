"""Five schedulers on one PostgreSQL server: they are killed and stopped at random, also inside a transaction, and the server restarts."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import nullcontext, suppress
from itertools import pairwise
from typing import Any, Literal, TypeAlias

import trio

from cronactors import Cron, Interval, JobSpec, OneShot, Overlap, SessionMode, now
from cronactors.instants import Millis
from tests.chaos.child import Life, Lives, Options
from tests.chaos.postgres_child import KILL, STOP, UNAVAILABLE, stops_file
from tests.postgres_server import OwnServer

SCHEDULERS = 5
SLOTS = 2
TOTAL = 6
LEASE: Millis = 5_000
USERS = 8
LONGEST_DELAY = 2.2
"""How long (s) a scheduler that was stopped inside a transaction keeps its locks, and a batch."""
STOPS = (3 * LONGEST_DELAY + 1, 0.3, 1.5)
"""How long (s) schedulers are stopped inside a transaction, by turns."""
AFTER_RESTART = 3.0  # (s) in which schedulers may still be waiting before they try again
MORE_AT_ONCE = 2  # stopped at a time: the others have slots left

Act: TypeAlias = Literal[
    "kill", "kill in transaction", "stop", "stop in transaction", "stop past the lease", "fast", "immediate", "kill the server"
]
Span: TypeAlias = tuple[float, float]


def specs(chance: random.Random, shots: int) -> list[JobSpec]:
    """Return due one-shots, two fifths of them in the sessions of few users, and jobs that repeat."""
    due, made = now(), []
    for number in range(shots):
        mode = SessionMode.MAIN if chance.random() < 0.4 else SessionMode.ISOLATED
        prompt = f"sleep {chance.choice([0.001, 0.005, 0.01, 0.05])}"
        user = f"user {chance.randrange(USERS)}"
        made.append(JobSpec(f"shot {number}", prompt, OneShot(due), max_retries=1000, session_mode=mode, user_id=user))
    for number in range(12):
        schedule = chance.choice([Interval(200), Interval(700), Interval(2000), Cron("* * * * * *"), Cron("*/3 * * * * *")])
        overlap = chance.choice([Overlap.SKIP, Overlap.SKIP, Overlap.BUFFER_ONE, Overlap.ALLOW_ALL])
        mode = chance.choice([SessionMode.MAIN, SessionMode.ISOLATED])
        options: dict[str, Any] = {"overlap": overlap, "session_mode": mode, "user_id": f"user {number % USERS}"}
        made.append(JobSpec(f"repeats {number}", "sleep 0.005", schedule, max_retries=1000, **options))
    return made


class Company:
    """Keeps schedulers alive, and does mischief to them and to their server.

    Attributes:
        done: How often each act was done.
        hit: The processes that were killed, or stopped for so long that their runs may be taken over.
        stops: The stops inside a transaction.
        down: When the server was down.
        unavailable: How often a scheduler could not open the store because of that.
    """

    def __init__(self, lives: Lives, options: Options, server: OwnServer, chance: random.Random) -> None:
        self._lives = lives
        self._options = options
        self._server = server
        self._chance = chance
        self._alive: dict[int, Life] = {}
        self._stopping = trio.CapacityLimiter(MORE_AT_ONCE)
        self._stopped: set[int] = set()
        self._watched: set[int] = set()  # stopped for so long that the delay of others can be measured
        self._starting, self._restarting = trio.Lock(), trio.Lock()
        self._closing = False
        self._turns = 0
        self.restarts = self.unavailable = 0
        self.done: Counter[Act] = Counter()
        self.hit: set[int] = set()
        self.stops: list[Span] = []
        self.down: list[Span] = []

    async def keep_alive(self, place: int) -> None:
        """Start a scheduler again whenever it was killed."""
        while not self._closing:
            async with self._starting:
                life = self._alive[place] = await self._lives.begin()
            if self._closing:
                self.hit.add(life.pid)
                await life.kill()
                return
            status = await life.gone()
            if self._closing:
                assert status == 0 or life.recovered is None
                return
            if status == UNAVAILABLE:
                assert life.recovered is None, "a scheduler ended because the server was down"
                assert self.down or self._restarting.locked(), "a store that was there could not be opened"
                self.unavailable += 1
            else:
                assert status == -signal.SIGKILL, f"a scheduler ended with {status}"
                assert life.pid in self.hit
            self.restarts += 1
            await trio.sleep(self._chance.uniform(0, 0.3))

    async def do(self, acts: Sequence[Act], pause: float) -> None:
        """Do these acts, one after the other on average every ``pause`` s; wait until all of them have ended."""
        async with trio.open_nursery() as nursery:
            for act in acts:
                await trio.sleep(min(self._chance.expovariate(1 / pause), 4 * pause))
                nursery.start_soon(self._do, act)

    async def _do(self, act: Act) -> None:
        match act:
            case "fast" | "immediate" | "kill the server":
                await self._restart(act)
            case "kill" | "kill in transaction":
                life = await self._any_life(stopped=act == "kill")
                self.hit.add(life.pid)
                self._send(life, signal.SIGKILL if act == "kill" else KILL)
                with trio.move_on_after(10):
                    await life.gone()
                self._send(life, signal.SIGKILL)
                await life.gone()
            case "stop":
                await self._stop(act, self._chance.uniform(0.1, 2))
            case "stop past the lease":
                await self._stop(act, LEASE / 1000 + self._chance.uniform(1, 3))
            case _:
                self._turns += 1
                seconds = STOPS[self._turns % len(STOPS)]
                # Not while the server restarts, which delays all.
                async with self._restarting if seconds > 3 * LONGEST_DELAY else nullcontext():
                    while not await self._stop(act, seconds):
                        pass
        self.done[act] += 1

    async def _any_life(self, *, stopped: bool = False) -> Life:
        while True:
            found = [life for life in self._alive.values() if life.recovered is not None and life.status is None]
            refused = self._watched if stopped else self._stopped
            if found := [life for life in found if life.pid not in refused]:
                return self._chance.choice(found)
            await trio.sleep(0.05)

    async def _stop(self, act: Act, seconds: float) -> bool:
        """Stop a life, and continue it; return False if it was killed meanwhile."""
        async with self._stopping:
            life = await self._any_life()
            self._stopped.add(life.pid)
            if seconds > LEASE / 2000:
                self.hit.add(life.pid)
            if act == "stop in transaction":
                await self._stop_in_transaction(life, seconds)
            else:
                self._send(life, signal.SIGSTOP)
                await self._continue(life, seconds)
            self._stopped.discard(life.pid)
        return life.status is None

    async def _stop_in_transaction(self, life: Life, seconds: float) -> None:
        """Let a life stop itself right before a COMMIT. If that lasts long, the others are watched meanwhile."""
        if seconds > 3 * LONGEST_DELAY:
            self._watched.add(life.pid)
        before = self._stops_of(life)
        self._send(life, STOP)
        while life.status is None and (self._stops_of(life) == before or not is_stopped(life.pid)):
            await trio.sleep(0.01)
        began = time.time()
        await self._continue(life, seconds)
        if life.status is None:
            self.stops.append((began, time.time()))
        self._watched.discard(life.pid)

    async def _continue(self, life: Life, after: float) -> None:
        with trio.move_on_after(after):
            await life.gone()
        self._send(life, signal.SIGCONT)

    @staticmethod
    def _send(life: Life, number: signal.Signals) -> None:
        if life.status is None:
            with suppress(ProcessLookupError):  # it has just ended
                life.send(number)

    def _stops_of(self, life: Life) -> int:
        file = stops_file(self._options.ledger)
        lines = file.read_text().splitlines() if file.exists() else []
        return sum(json.loads(line)[:2] == ["stopped", life.pid] for line in lines)

    async def _restart(self, act: Act) -> None:
        async with self._restarting:
            began = time.time()
            if act == "kill the server":
                await trio.to_thread.run_sync(self._server.kill)
                await trio.to_thread.run_sync(self._server.start)
            else:
                await trio.to_thread.run_sync(self._server.restart, act)
            self.down.append((began, time.time()))
            await trio.sleep(AFTER_RESTART)

    def close(self) -> None:
        """End all schedulers as Ctrl-C does."""
        self._closing = True
        for life in self._alive.values():
            self._interrupt(life)

    def _interrupt(self, life: Life) -> None:
        if life.status is None:
            self.hit.add(life.pid)
            self._send(life, signal.SIGINT if life.recovered is not None else signal.SIGKILL)

    def worst_delay(self, starts: Iterable[float]) -> float:
        """Return the longest time without a start of a run while a scheduler was stopped for long."""
        moments = sorted(starts)
        long = [stop for stop in self.stops if stop[1] - stop[0] > 3 * LONGEST_DELAY]
        return max(longest_gap(moments, stop) for stop in long)

    @property
    def outages(self) -> list[Span]:
        """When schedulers may have cancelled their runs, since the server was down for long."""
        return [(began, ended + LEASE / 1000) for began, ended in self.down if ended - began > LEASE / 2000]


def is_stopped(pid: int) -> bool:
    """Return whether a process is stopped, as far as this system shows it."""
    try:
        with open(f"/proc/{pid}/stat") as file:  # noqa: PTH123 - one short file
            return file.read().rpartition(")")[2].split()[0] in "Tt"
    except FileNotFoundError:
        return not os.path.exists("/proc/self")  # noqa: PTH110


def longest_gap(moments: Iterable[float], span: Span) -> float:
    inside = [moment for moment in moments if span[0] < moment < span[1]]
    return max(later - earlier for earlier, later in pairwise([span[0], *inside, span[1]]))
