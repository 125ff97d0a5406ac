"""Generated bad input at every public parameter and in config files: an error of ours, and not a byte of the store is changed."""

from __future__ import annotations

import inspect
import logging
import random
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trio

import cronactors
from cronactors import Cron, CronError, CronScheduler, CronStore, JobContext, load_config, open_scheduler
from cronactors.spec import JobOptions
from cronactors.testing import VirtualClock, simulate
from tests.chaos.fuzz_places import PLACES, World
from tests.chaos.fuzzing import (
    CONFIG,
    SPEC,
    Chance,
    bad_delays,
    bad_expression,
    bad_number,
    bad_timestamp,
    bad_whole,
    hostile_text,
)
from tests.chaos.sizes import quick_and_full
from tests.workers import nothing

SILENT = 0.05
"""Share of the inputs that are files; writing one takes as long as many calls."""


def image(store: CronStore) -> bytes:
    """Return the bytes of the database; on virtual time the storage runs in the loop's own thread."""
    storage: Any = store._service.actor.storage
    return bytes(storage._db.serialize())


def refusal(error: CronError) -> None:
    message = str(error)
    assert message.isprintable()
    assert 0 < len(message) <= 500


async def bad_call(world: World, chance: Chance) -> str:
    """Call something with one or two bad values; return its name."""
    name = chance.choice(list(PLACES))
    place = PLACES[name]
    fields = chance.sample(list(place.makers), k=min(len(place.makers), chance.choice([1, 1, 1, 2])))
    bad = {field: place.makers[field](chance) for field in fields}
    try:
        answer = place.call(world, **bad)
        if inspect.isawaitable(answer):
            answer = await answer
    except CronError as error:
        refusal(error)
        return name
    except BaseException as error:
        error.add_note(f"{name}: {', '.join(fields)}: {[type(value) for value in bad.values()]}")
        raise
    raise AssertionError(
        f"{name} took {[(field, type(value), ascii_of(value)) for field, value in bad.items()]}: {answer!r:.200}"
    )


def ascii_of(value: object) -> str:
    try:
        return ascii(value)[:200]
    except Exception:
        return "?"


# Config files


def toml(value: object) -> str | None:
    """Return a value as TOML; None if TOML has nothing like it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return str(value).replace("e+", "e") if abs(value) < 1e300 or value != value else "1e999"  # noqa: PLR0124 - NaN
    if isinstance(value, str) and not any("\ud800" <= char <= "\udfff" for char in value):
        return '"' + "".join(f"\\U{ord(char):08x}" for char in value) + '"'
    if isinstance(value, list | tuple):
        items = [toml(item) for item in value]
        return None if None in items else f"[{', '.join(str(item) for item in items)}]"
    return None


OF_CRON = {key: maker for key, maker in CONFIG.items() if key not in ("timezone", "retry", "jobs", "file")}
OF_JOB = {key: maker for key, maker in SPEC.items() if key != "schedule"}
SCHEDULES = {
    "cron": bad_expression,
    "every_ms": bad_whole(1, 36_525 * 86_400_000),
    "at": bad_timestamp,
    "in_secs": bad_number(0, 366 * 86_400),
}


def bad_file(chance: Chance) -> bytes:
    """Return a file with a bad value, an unknown key, or bytes that are no TOML."""
    kind = chance.randrange(10)
    if kind == 0:
        return b"[cron]\nexecutor = '" + chance.randbytes(chance.randrange(1, 40)) + b"\xff\n"
    if kind == 1:
        key = toml(hostile_text(chance).replace("\ud800", "")) or '"x"'
        return f"{chance.choice(['[cron]', '[[cron.jobs]]'])}\n{key} = 1\n".encode()
    table: dict[str, Any] = dict(OF_CRON, retry_delays=bad_delays) if kind < 5 else {**OF_JOB, **SCHEDULES}
    value: str | None = None
    key = ""
    while value is None:
        key = chance.choice(list(table))
        drawn = table[key](chance)
        value = None if isinstance(drawn, range) else toml(drawn)
    if kind < 5:
        return f"[cron]\n{key} = {value}\n".encode()
    given = {"name": '"a"', "prompt": '"p"', **({} if key in SCHEDULES else {"every_ms": "1"}), key: value}
    return ("[[cron.jobs]]\n" + "".join(f"{name} = {each}\n" for name, each in given.items())).encode()


def bad_config(world: World, chance: Chance) -> str:
    content = bad_file(chance)
    file = world.folder / "agent.toml"
    file.write_bytes(content)
    try:
        config = load_config(file)
    except CronError as error:
        refusal(error)
        if "agent.toml: " not in str(error):
            raise AssertionError("the file is not named") from error
        return "agent.toml"
    except BaseException as error:
        error.add_note(ascii(content[:500]))
        raise
    raise AssertionError(f"{content[:500]!r} was taken: {config}")


@quick_and_full("inputs", 10_000, 1_000_000)
def test_bad_input_is_refused_and_changes_nothing(tmp_path: Path, seed: int, figures: Callable[[str], None], inputs: int) -> None:
    chance = random.Random(seed)
    counted = Counter[str]()

    async def main() -> None:
        async with open_scheduler(":memory:", nothing) as scheduler:
            job_id = await scheduler.store.add_job("old", "it", Cron("@yearly"))
            run_id = await scheduler.store.record_run_start(job_id)
            world = World(scheduler, job_id, run_id, tmp_path)
            before = image(scheduler.store)
            for number in range(inputs):
                try:
                    if chance.random() < SILENT:
                        counted[bad_config(world, chance)] += 1
                    else:
                        counted[await bad_call(world, chance)] += 1
                    assert image(scheduler.store) == before
                except BaseException as error:
                    error.add_note(f"input {number} of seed {seed}")
                    raise
            await scheduler.store.list_jobs()
        assert not [file for file in tmp_path.iterdir() if file.name != "agent.toml"]

    began = time.monotonic()
    trio.run(main, clock=VirtualClock())
    assert set(counted) == {*PLACES, "agent.toml"}
    figures(
        f"{inputs:,} bad inputs at {len(PLACES)} public calls and in config files, all refused, not a byte changed, "
        f"in {time.monotonic() - began:.0f} s"
    )


def test_no_public_parameter_is_left_out() -> None:
    """A new call, or a new parameter, has to be added to the places above."""
    others = {"open_scheduler", "open_store", "current_notification", "current_run"}  # two are classes, two take any default
    functions: dict[str, Any] = {
        name: getattr(cronactors, name)
        for name in cronactors.__all__
        if name in PLACES or (inspect.isfunction(getattr(cronactors, name)) and name not in others)
    }
    functions |= {
        "simulate": simulate,
        "Interval.every": cronactors.Interval.every,
        "VirtualClock.set_wall": VirtualClock().set_wall,
        "CurrentRun.log": cronactors.CurrentRun.log,
        "CurrentRun.report_progress": cronactors.CurrentRun.report_progress,
    }
    for owner in (CronStore, CronScheduler):
        functions |= {name: each for name, each in inspect.getmembers(owner, inspect.isfunction) if not name.startswith("_")}
    open_ended = {"options": JobOptions.__annotations__, "changes": cronactors.spec.JobChanges.__annotations__}
    untold = {
        "simulate": {"executor", "config", "timezone"},
        "Retry": {"reason"},
        "JobResult": {"session_id", "summary"},
        "upsert_jobs": {"specs"},
    }
    for name, function in functions.items():
        parameters = {each for each in inspect.signature(function).parameters if each != "self"}
        for star in set(open_ended) & parameters:
            parameters = (parameters - {star}) | set(open_ended[star])
        if parameters:
            assert set(PLACES[name].makers) | untold.get(name, set()) == parameters, name


# Hostile text


@quick_and_full("texts", 300, 20_000)
async def test_hostile_text_is_read_back_equal_or_refused_and_no_log_line_is_forged(
    virtual_clock: VirtualClock, caplog: pytest.LogCaptureFixture, seed: int, figures: Callable[[str], None], texts: int
) -> None:
    """Use the text as name, prompt or user of a job; each run and the notifier fail with it as their error."""
    caplog.set_level(logging.INFO, logger="cronactors")
    chance = random.Random(seed)
    kept = refused = lines = 0

    async def executor(context: JobContext) -> None:
        raise ValueError(context.prompt)

    async def notifier(job_name: str, session_id: str, result: str, success: bool) -> None:
        raise ValueError(result)

    async with open_scheduler(":memory:", executor, notifier=notifier) as scheduler:
        store = scheduler.store
        for _ in range(texts):
            text = hostile_text(chance)
            given = {"name": text, "prompt": text, "user_id": text}
            fields = {"name": "plain", "prompt": "plain", **{key: given[key] for key in chance.sample(list(given), 1)}}
            try:
                job_id = await store.add_job(
                    fields["name"], fields["prompt"], Cron("@yearly"), user_id=fields.get("user_id"), max_retries=0
                )
            except CronError as error:
                refusal(error)
                refused += 1
                continue
            job = await store.get_job(job_id)
            assert (job.name, job.prompt, job.user_id) == (fields["name"], fields["prompt"], fields.get("user_id"))
            assert await store.get_job_by_name(job.name, user_id=job.user_id) == job
            run = await scheduler.run_now(job_id)
            assert (run.job_name, run.user_id, run.error) == (job.name, job.user_id, f"ValueError: {job.prompt}")
            await scheduler.wait_idle()
            await store.remove_job(job_id)
            kept += 1
        for record in caplog.records:
            first, *rest = record.getMessage().split("\n")
            assert first.isprintable()
            assert all(line.startswith("  | ") and line.isprintable() for line in rest), record
            lines += 1 + len(rest)
    assert kept > texts / 10
    assert refused > texts / 10
    figures(f"{texts:,} hostile texts: {kept:,} read back equal, {refused:,} refused, {lines:,} lines of the log, all escaped")
