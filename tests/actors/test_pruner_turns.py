"""Schedulers of one store prune in turns: a piece keeps all others from writing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import attrs
import pytest
import trio

from cronactors import CronConfig, History, open_scheduler
from cronactors.actors import pruner
from cronactors.actors.mailbox import Request
from cronactors.actors.pruner import PieceReport, PrunePiece
from cronactors.actors.store import Done, run_batch
from cronactors.ledger import pruning, pruning_clock
from cronactors.ledger.pruning import TURN, Round
from cronactors.storage.protocol import Storage
from cronactors.storage.sqlite import SqliteStorage
from tests.actors.test_pruner import fill
from tests.workers import nothing


@pytest.fixture
def shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SharedStore]:
    monkeypatch.setattr(pruner, "PIECE_LENGTH", 0)
    path = tmp_path / "a.db"
    store = SharedStore()
    with closing(SqliteStorage(str(path), wall=lambda: store.now)) as store.storage:
        run_batch(store.storage, [StartHistory(History())])
        fill(path, 200)
        yield store


class SharedStore:
    """A store with old runs, and two schedulers that prune it."""

    storage: SqliteStorage
    now = 1_800_000_000_000

    def __init__(self) -> None:
        self.rounds = [Round(History(), (), 1) for _ in range(2)]

    def prune(self, owner: int) -> PieceReport:
        """Carry out a piece; return its report."""
        result = run_batch(self.storage, [PrunePiece(self.rounds[owner], owner)])
        assert isinstance(result, Done)
        (report,) = result.replies
        assert isinstance(report, PieceReport)
        return report

    def prune_to_the_end(self, owner: int) -> int:
        """Carry out all pieces; return how many runs the round has deleted."""
        while not (report := self.prune(owner)).ended:
            assert report.wait == 0
        return self.rounds[owner].deleted


@attrs.frozen
class StartHistory(Request[None]):
    limits: History

    def apply(self, storage: Storage) -> None:
        pruning_clock.start(storage, self.limits)


def test_one_scheduler_prunes_until_its_round_ends(shared: SharedStore) -> None:
    assert not shared.prune(0).ended
    assert shared.prune(1) == PieceReport(ended=False, seconds=0, wait=TURN)
    shared.now += 1_000
    assert shared.prune(1).wait == TURN - 1_000
    assert shared.prune_to_the_end(0) == 100
    assert shared.prune_to_the_end(1) == 0


def test_a_turn_ends_though_its_round_does_not(shared: SharedStore) -> None:
    """It may be so long, or its scheduler was killed."""
    shared.prune(0)
    shared.now += TURN
    assert shared.prune(1).wait == 0
    assert shared.prune(0).wait == TURN
    assert shared.prune_to_the_end(1) == 100
    assert shared.prune_to_the_end(0) == 0


def test_a_scheduler_has_one_turn_after_another_if_no_other_prunes(shared: SharedStore) -> None:
    shared.prune(0)
    shared.now += TURN
    assert shared.prune(0).wait == 0
    assert shared.prune(1).wait == TURN


@pytest.mark.parametrize("fact", ["[0, 9e18]", "[0, 1e999]", "[0]", "{", "null", '["a", 1]', "[" * 99_999])
def test_a_turn_that_no_clock_or_no_release_of_ours_could_write_does_not_count(shared: SharedStore, fact: str) -> None:
    """Such as one from before the clock was set back by years."""
    run_batch(shared.storage, [WriteTurn(fact)])
    assert shared.prune(1).wait == 0


@attrs.frozen
class WriteTurn(Request[None]):
    fact: str

    def apply(self, storage: Storage) -> None:
        storage.set_meta(pruning._TURN_FACT, self.fact)


def test_a_round_of_one_piece_writes_no_turn(shared: SharedStore, monkeypatch: pytest.MonkeyPatch) -> None:
    shared.prune_to_the_end(0)
    monkeypatch.setattr(pruner, "PIECE_LENGTH", 60)
    written: list[str] = []
    set_meta = SqliteStorage.set_meta
    monkeypatch.setattr(SqliteStorage, "set_meta", lambda self, key, value: (written.append(key), set_meta(self, key, value)))
    shared.rounds[1] = Round(History(), (), 1)
    assert shared.prune(1).ended
    assert set(written) <= {pruning_clock.HISTORY_FACT}


async def test_two_schedulers_apply_the_limits_of_both(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.db"
    monkeypatch.setattr(pruning, "TURN", 50)
    for name in ("FIRST_LOOK", "LOOK_EVERY"):
        monkeypatch.setattr(pruner, name, 0.01)
    monkeypatch.setattr(pruner, "PIECE_LENGTH", 0)
    waits: list[int] = []
    original = PrunePiece.apply

    def apply(self: PrunePiece, storage: Storage) -> PieceReport:
        piece = original(self, storage)
        waits.append(piece.wait)
        return piece

    monkeypatch.setattr(PrunePiece, "apply", apply)
    async with open_scheduler(path, nothing):
        pass
    fill(path, 100)
    limits = History(days=30, keep_last=80), History(days=31, keep_last=60)
    first, second = (open_scheduler(path, nothing, config=CronConfig(history=each)) for each in limits)
    async with first, second as scheduler:
        with trio.fail_after(30):
            while await scheduler.store.count_runs() > 60:
                await trio.sleep(0.01)
    assert any(waits)
