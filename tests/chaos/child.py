"""A program with a scheduler, to be killed or stopped: ``child.py OPTIONS``, a JSON object.

It imports everything once. Then each line on its standard input, a JSON object, starts a life: a forked process that is up within
milliseconds, so that a kill also hits its start and its recovery.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, NoReturn

import attrs
import trio

from cronactors import CronConfig, GiveUp, JobContext, JobSpec, OneShot, RetryPolicy, SessionMode, now, open_scheduler
from cronactors.ledger import recovery
from cronactors.store import CronStore
from tests.chaos.judge import Ledger
from tests.chaos.notified import Calls
from tests.crash_child import shorten_leases

ROOT = Path(__file__).parents[2]
RETRY = RetryPolicy(delays=(0.2,))
STEP = 0.01  # seconds


@attrs.frozen(kw_only=True)
class Options:
    """The options of the program and, from ``adds`` on, of one life.

    Attributes:
        calls: The file in which its receivers write down what they accept; "": it has none.
        lease: Length of a lease (ms); the real one makes a long test.
        adds: Jobs that it adds (1/s), each acknowledged by a line in the file ``acks`` after `add_jobs` has returned.
        die_in_recovery: It kills itself when it has recovered so many runs, before that is committed.
    """

    db: str
    ledger: str
    acks: str = ""
    calls: str = ""
    slots: int = 8
    total: int | None = None
    lease: int | None = None
    adds: float = 0
    die_in_recovery: int = 0


def say(*words: object) -> None:
    """Write one line at once, also from a process that is killed right after."""
    os.write(1, (" ".join(map(str, words)) + "\n").encode())


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(60)  # until the signal arrives


async def carry_out(ledger: Ledger, ctx: JobContext) -> str:
    """Do as the prompt says: ``sleep``, ``toil``, ``block``, ``fail``, ``give-up`` or ``die``, after the seconds that it gives.

    If the process is stopped meanwhile, ``toil`` has as much left to do; the time of ``sleep`` goes by.
    """
    ledger.write("start", ctx)
    verb, _, seconds = ctx.prompt.partition(" ")
    if verb == "block":
        time.sleep(float(seconds))
    elif verb == "toil":
        for _ in range(int(float(seconds) / STEP)):
            await trio.sleep(STEP)
    else:
        await trio.sleep(float(seconds))
    if verb == "die":
        die()
    if verb in ("fail", "give-up"):
        ledger.write("raise", ctx)
    if verb == "fail":
        raise RuntimeError(ctx.prompt)
    if verb == "give-up":
        raise GiveUp(ctx.prompt)
    ledger.write("end", ctx)
    return ctx.prompt


async def keep_adding(store: CronStore, options: Options) -> None:
    """Add one-shots, and write down which were acknowledged."""
    number = 0
    while True:
        await trio.sleep(1 / options.adds)
        number += 1
        mode = SessionMode.MAIN if number % 5 == 0 else SessionMode.ISOLATED
        name = f"added {os.getpid()}.{time.monotonic_ns()}"
        (job_id,) = await store.add_jobs([JobSpec(name, "sleep 0.002", OneShot(now()), max_retries=1000, session_mode=mode)])
        descriptor = os.open(options.acks, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        os.write(descriptor, f"{job_id}\n".encode())
        os.close(descriptor)


def receivers_of(options: Options) -> dict[str, Any]:
    """Return the receivers of a scheduler, as arguments of `open_scheduler`."""
    calls = Calls(options.calls)
    return {"notifier": calls.notifier, "on_finish": calls.on_finish} if options.calls else {}


async def live(options: Options) -> None:
    ledger = Ledger(options.ledger)

    async def executor(ctx: JobContext) -> str:
        return await carry_out(ledger, ctx)

    config = CronConfig(max_concurrent_runs=options.slots, max_concurrent_runs_total=options.total, retry=RETRY)
    receivers = receivers_of(options)
    async with open_scheduler(options.db, executor, config=config, tick_interval=0.05, **receivers) as scheduler:
        say("ready", os.getpid(), len(scheduler.recovered))
        if options.adds:
            await keep_adding(scheduler.store, options)
        await trio.sleep_forever()


def end_with(parent: int) -> None:
    """Leave nothing behind when the test itself was killed."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


def die_in_recovery(count: int) -> None:
    finish_open_run, taken = recovery.finish_open_run, []

    def close_and_die(*args: Any) -> Any:
        ended = finish_open_run(*args)
        taken.append(ended)
        if len(taken) == count:
            die()
        return ended

    recovery.finish_open_run = close_and_die  # type: ignore[attr-defined]


def begin(options: Options) -> NoReturn:
    """Run a scheduler once."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell lets its background processes ignore it
    if options.lease is not None:
        shorten_leases(options.lease)
    if options.die_in_recovery:
        die_in_recovery(options.die_in_recovery)
    threading.Thread(target=end_with, args=(os.getppid(),), daemon=True).start()
    try:
        trio.run(live, options)
    except KeyboardInterrupt:
        os._exit(0)
    except BaseException:
        sys.excepthook(*sys.exc_info())  # no other line reports it
    finally:
        os._exit(1)


def print_ends(*_: object) -> None:
    """Reap ended lives, and print how each ended: the negative number of its signal, or its exit code."""
    with suppress(ChildProcessError):
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            say("gone", pid, os.waitstatus_to_exitcode(status))


def main(given: dict[str, Any]) -> None:
    signal.signal(signal.SIGCHLD, print_ends)
    for line in sys.stdin:
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGCHLD])  # its start is printed before its end
        pid = os.fork()
        if pid == 0:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGCHLD])
            begin(Options(**{**given, **json.loads(line)}))
        say("born", pid)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGCHLD])


# The other side: a test that starts lives and ends them


class Life:
    """A life as the test sees it."""

    def __init__(self) -> None:
        self.pid = 0
        self.recovered: int | None = None
        self.status: int | None = None
        self._events = {word: trio.Event() for word in ("born", "ready", "gone")}

    def receive(self, word: str, number: int) -> None:
        if word == "ready":
            self.recovered = number
        elif word == "gone":
            self.status = number
        self._events[word].set()

    async def ready(self) -> None:
        await self._events["ready"].wait()

    async def gone(self) -> int:
        await self._events["gone"].wait()
        assert self.status is not None
        return self.status

    def send(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    async def kill(self) -> None:
        """Kill it as ``kill -9`` does, and wait for its end."""
        if self.status is None:
            self.send(signal.SIGKILL)
        await self.gone()


class Lives:
    """Starts lives of a child, and receives the lines that they print."""

    def __init__(self, process: trio.Process) -> None:
        self._process = process
        self._lives: dict[int, Life] = {}
        self._send_born, self._born = trio.open_memory_channel[Life](1)

    async def begin(self, **options: object) -> Life:
        assert self._process.stdin is not None
        await self._process.stdin.send_all(json.dumps(options).encode() + b"\n")
        return await self._born.receive()

    async def listen(self) -> None:
        assert self._process.stdout is not None
        rest = b""
        async for more in self._process.stdout:
            *lines, rest = (rest + more).split(b"\n")
            for word, *numbers in (line.decode().split() for line in lines):
                pid, *values = map(int, numbers)
                life = self._lives.setdefault(pid, Life())  # it may be ready before its start is printed
                life.pid = pid
                life.receive(word, *(values or [0]))
                if word == "born":
                    await self._send_born.send(life)

    async def end(self) -> None:
        for life in self._lives.values():
            if life.status is None:
                life.send(signal.SIGKILL)  # also ends a stopped process


@asynccontextmanager
async def open_lives(options: Options, timeout: float, program: str = __file__) -> AsyncIterator[Lives]:
    """Start the program, or another one that calls `main`; lives that are left at the end of the block are killed."""
    command = [sys.executable, program, json.dumps(attrs.asdict(options))]
    process = await trio.lowlevel.open_process(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    assert process.stdin is not None
    assert process.stdout is not None
    lives = Lives(process)
    async with process.stdin, process.stdout:
        with trio.fail_after(timeout):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(lives.listen)
                try:
                    yield lives
                finally:
                    with trio.CancelScope(shield=True):
                        await lives.end()
                        process.kill()
                        await process.wait()
                    nursery.cancel_scope.cancel()


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
