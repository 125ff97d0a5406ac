"""`run --watch`: when the file is read again, in this process."""

from __future__ import annotations

import os
import re
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import trio
import trio.testing
from hypothesis import given, strategies as st

from cronactors.cli import reload
from cronactors.cli.reload import FileChange, FileWatch, Source, Stamp
from tests.reload_world import DAILY, FILE, NOT_APPLIED, WEEKLY, world

Inspections = Callable[[], Awaitable[None]]


@pytest.fixture
def five_inspections(monkeypatch: pytest.MonkeyPatch) -> Inspections:
    """Inspect the file often; return a function that waits until that has happened five times."""
    monkeypatch.setattr(reload, "INSPECT_EVERY", 0.01)
    compare, count = FileWatch.compare, 0

    def counted(watch: FileWatch, stamp: Stamp | None) -> FileChange:
        nonlocal count
        count += 1
        return compare(watch, stamp)

    async def wait() -> None:
        wanted = count + 5
        with trio.fail_after(20):
            while count < wanted:
                await trio.sleep(0.01)

    monkeypatch.setattr(FileWatch, "compare", counted)
    return wait


async def test_watch_reads_a_file_that_was_written_or_replaced_and_is_quiet_otherwise(
    tmp_path: Path, five_inspections: Inspections
) -> None:
    async with world(tmp_path, watch=True) as here:
        here.file.write_text(FILE + WEEKLY)
        await here.wait_for("again: 1 added [(]weekly[)]; 2 jobs unchanged$")
        (tmp_path / "new").write_text(FILE)
        (tmp_path / "new").replace(here.file)
        await here.wait_for("again: 1 removed [(]weekly[)]; 2 jobs unchanged$")
        here.file.touch()
        await five_inspections()
        assert here.lines == [], "it was saved as it was"


async def test_watch_prints_a_mistake_once(tmp_path: Path, five_inspections: Inspections) -> None:
    async with world(tmp_path, watch=True) as here:
        here.file.write_text(FILE + "x =")
        await here.wait_for(NOT_APPLIED)
        await five_inspections()
        assert here.lines == []
        here.file.write_text(FILE + "# the same jobs")
        await five_inspections()
        assert here.lines == []
        here.file.write_text(FILE + WEEKLY)
        await here.wait_for("again: 1 added")


async def test_watch_reports_a_file_that_stays_away_and_reads_it_when_it_is_back(
    tmp_path: Path, five_inspections: Inspections
) -> None:
    async with world(tmp_path, watch=True) as here:
        here.file.unlink()
        await here.wait_for("agent.toml is gone or out of reach: its jobs keep running, and it is read when it is back$")
        await five_inspections()
        assert here.lines == []
        assert set(await here.jobs()) == {"daily", "hourly"}
        here.file.write_text(FILE + WEEKLY)
        await here.wait_for("again: 1 added")


async def test_watch_follows_a_link_whose_target_is_replaced(tmp_path: Path, five_inspections: Inspections) -> None:
    """As Kubernetes updates a ConfigMap."""
    for version, text in (("1", FILE), ("2", FILE + WEEKLY)):
        (tmp_path / version).mkdir()
        (tmp_path / version / "agent.toml").write_text(text)
    async with world(tmp_path, watch=True) as here:
        for version in ("1", "2"):
            (tmp_path / "next").symlink_to(f"{version}/agent.toml")
            (tmp_path / "next").replace(here.file)
            if version == "1":
                await five_inspections()
        await here.wait_for("again: 1 added")


@pytest.mark.usefixtures("five_inspections")
async def test_watch_applies_no_file_that_changes_while_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    load = Source.load
    reads = 0

    def load_while_it_is_written(source: Source) -> object:
        nonlocal reads
        reads += 1
        found = load(source)
        if reads == 1:
            here.file.write_text(FILE + WEEKLY)
        return found

    async with world(tmp_path, watch=True) as here:
        monkeypatch.setattr(Source, "load", load_while_it_is_written)
        here.file.write_text(FILE.partition('[[cron.jobs]]\nname = "hourly')[0])  # the first half
        line = await here.wait_for("again:")
        assert line.endswith("again: 1 added (weekly); 2 jobs unchanged"), "the half alone would have removed a job"


async def test_a_file_that_is_written_slowly_changes_nothing_until_it_is_complete(
    tmp_path: Path, five_inspections: Inspections
) -> None:
    """The database and the executor are options, so that any beginning of the file is valid too."""
    options = {"db": str(tmp_path / "jobs.db"), "executor": "shell"}
    async with world(tmp_path, DAILY, watch=True, **options) as here:
        job = (await here.jobs())["daily"]
        await here.scheduler.store.pause_job(job.id, note="maintenance")
        for beginning in ("", " \n\n", "# the jobs\n", 'timezone = "Europe/Rome"\n[cron]\nmax_concurrent_runs = 1\n'):
            here.file.write_text(beginning)
            assert "it lists no job any more, as if it were not complete" in await here.wait_for(NOT_APPLIED)
            await five_inspections()
            assert here.lines == []
        here.file.write_text(DAILY + WEEKLY)
        assert (await here.wait_for("again:")).endswith("again: 1 added (weekly); 1 job unchanged")
        assert not (await here.jobs())["daily"].enabled
        here.file.write_text("[cron]\njobs = []\n")
        await here.wait_for("again: 2 removed [(]daily, weekly[)]$")
        here.file.write_text("")
        await five_inspections()
        assert here.lines == [], "it listed none before either"


async def test_watch_reads_a_file_again_when_it_may_and_when_its_time_and_size_are_kept(
    tmp_path: Path, five_inspections: Inspections
) -> None:
    async with world(tmp_path, watch=True) as here:
        here.file.write_text(FILE + "x =")
        await here.wait_for(NOT_APPLIED)
        here.file.chmod(0o600)
        await here.wait_for(NOT_APPLIED)
        times = here.file.stat()
        here.file.write_text(FILE + "x=1")
        os.utime(here.file, ns=(times.st_atime_ns, times.st_mtime_ns))
        assert "unknown key 'x'" in await here.wait_for(NOT_APPLIED)


async def test_watch_without_a_file_reads_one_that_is_written_and_keeps_it(tmp_path: Path, five_inspections: Inspections) -> None:
    """As `run --watch --db jobs.db --executor shell`, which needs no agent.toml."""
    options = {"db": str(tmp_path / "jobs.db"), "executor": "shell"}
    async with world(tmp_path, None, watch=True, **options) as here:
        await five_inspections()
        await five_inspections()
        assert here.lines == [], "it is not gone: it was never there"
        assert "  the file is not applied, and nothing has changed: /" in await here.read()
        assert "/agent.toml: cannot be read: No such file" in here.all_lines[0]
        here.file.write_text('timezone = "Europe/Rome"\n' + DAILY)
        await here.wait_for("CES?T  read agent.toml again: 1 added [(]daily[)]$")
        here.file.unlink()
        assert "No such file" in await here.read()
        assert set(await here.jobs()) == {"daily"}
        here.report.note("a line", event="test")
        assert re.search("CES?T  a line", here.all_lines[-1])


A, B, C = (Stamp(number, 1, 1, 1) for number in range(3))
N, W, G = FileChange.NONE, FileChange.WRITTEN, FileChange.GONE


@pytest.mark.parametrize(
    ("stamps", "changes"),
    [
        ([A, A, A], [N, N, N]),
        ([B, B, B, B], [N, N, W, N]),
        ([B, B, C, C, C, C], [N, N, N, N, W, N]),
        ([B, A, B, A], [N, N, N, N]),
        ([None, A, A, A], [N, N, N, N]),
        ([None, B, B, B], [N, N, N, W]),
        ([None] * 7, [N, N, N, N, G, N, N]),
        ([*[None] * 5, A, A, *[None] * 5, B, B, B], [N, N, N, N, G, N, N, N, N, N, N, G, N, N, W]),
        ([B, None, B, B, B], [N, N, N, N, W]),
    ],
)
def test_a_comparison(stamps: list[Stamp | None], changes: list[FileChange]) -> None:
    watch = FileWatch(A)
    assert [_compare(watch, stamp) for stamp in stamps] == changes


def test_a_file_that_was_never_there_is_not_gone() -> None:
    watch = FileWatch(None)
    assert [_compare(watch, stamp) for stamp in [*[None] * 7, A, A, A]] == [*[N] * 9, W]


@given(st.lists(st.sampled_from([A, B, C, None]), max_size=30))
def test_the_version_that_stays_is_read_once(stamps: list[Stamp | None]) -> None:
    watch = FileWatch(A)
    reads = [stamp for stamp in stamps if _compare(watch, stamp) is W]
    assert None not in reads
    assert all(one != other for one, other in zip([A, *reads], reads, strict=False))
    known = watch.known
    assert [_compare(watch, C) for _ in range(5)].count(W) == (known != C)
    assert watch.known == C


def _compare(watch: FileWatch, stamp: Stamp | None) -> FileChange:
    """Compare, and read the file if it was written."""
    if (change := watch.compare(stamp)) is W:
        watch.known = stamp
    return change
