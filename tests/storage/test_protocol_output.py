"""The protocol of a storage: the output of runs. Run against SQLite and against the plain dicts."""

from __future__ import annotations

import pytest

from cronactors.storage.protocol import Storage
from cronactors.storage.run_output import LastPiece, PieceRow, ProgressRow
from tests import storages

storage, store = storages.storage, storages.store


def piece(run_id: int, start: int, text: str, *, at: int = 1) -> PieceRow:
    return PieceRow(0, run_id, start, len(text.encode()), at, text)


def texts(store: Storage, run_id: int, since: int = 0) -> list[tuple[int, str]]:
    return [(row.start, row.text) for row in store.output.pieces(run_id, since=since)]


def test_pieces_of_a_run_are_read_in_order(store: Storage) -> None:
    store.output.insert_pieces([piece(2, 0, "two"), piece(1, 0, "one\n"), piece(1, 4, "€"), piece(1, 100, "later")])
    assert texts(store, 1) == [(0, "one\n"), (4, "€"), (100, "later")]
    assert texts(store, 2) == [(0, "two")]
    assert texts(store, 3) == []


@pytest.mark.parametrize(
    ("since", "starts"), [(0, [0, 4, 100]), (3, [0, 4, 100]), (4, [4, 100]), (7, [100]), (50, [100]), (105, []), (2**62, [])]
)
def test_pieces_are_read_from_a_position_on(store: Storage, since: int, starts: list[int]) -> None:
    store.output.insert_pieces([piece(1, 0, "one\n"), piece(1, 4, "€"), piece(1, 100, "later")])
    assert [start for start, _ in texts(store, 1, since)] == starts


@pytest.mark.parametrize("count", [1, 3, 40])
def test_the_last_piece_of_each_run(store: Storage, count: int) -> None:
    ids = range(1, count + 1)
    store.output.insert_pieces([piece(run_id, start, "x" * run_id) for run_id in ids for start in (0, 500)])
    last = store.output.last_pieces([*ids, 999])
    assert last == {run_id: LastPiece(last[run_id].id, run_id, 500, run_id) for run_id in ids}
    assert last[1].end == 501
    assert store.output.last_pieces([]) == {}


@pytest.mark.parametrize("count", [1, 40])
def test_a_piece_can_be_extended(store: Storage, count: int) -> None:
    ids = range(1, count + 1)
    store.output.insert_pieces([piece(run_id, 0, "ä") for run_id in ids])
    last = store.output.last_pieces(ids)
    ends = [PieceRow(last[run_id].id, run_id, 0, 3, 7, "€") for run_id in ids]
    store.output.extend_pieces([*ends, PieceRow(10**6, 1, 0, 1, 7, "x")])
    for run_id in ids:
        assert store.output.pieces(run_id, since=0) == [PieceRow(last[run_id].id, run_id, 0, 5, 7, "ä€")]


@pytest.mark.parametrize(
    ("start", "end", "left"), [(0, 15, []), (5, 10, [0, 10]), (5, 14, [0, 10]), (6, 15, [0, 5]), (4, 15, [0]), (0, 4, [0, 5, 10])]
)
def test_pieces_between_two_positions_are_deleted(store: Storage, start: int, end: int, left: list[int]) -> None:
    store.output.insert_pieces([piece(run_id, at, "abcde") for run_id in (1, 2) for at in (0, 5, 10)])
    store.output.delete_pieces(1, start=start, end=end)
    assert [at for at, _ in texts(store, 1)] == left
    assert [at for at, _ in texts(store, 2)] == [0, 5, 10]


def test_progress_is_one_row_for_each_run(store: Storage) -> None:
    rows = [ProgressRow(1, 5, 0.5, "half"), ProgressRow(2, 5, None, "")]
    store.output.set_progress(rows)
    store.output.set_progress([ProgressRow(1, 6, 1.0, "done")])
    assert store.output.progress(1) == ProgressRow(1, 6, 1.0, "done")
    assert store.output.progress(2) == rows[1]
    store.output.delete_progress([1, 3])
    assert (store.output.progress(1), store.output.progress(2)) == (None, rows[1])


def test_output_is_part_of_the_transaction(storage: Storage) -> None:
    assert storage.begin(write=True)
    storage.output.insert_pieces([piece(1, 0, "one")])
    storage.commit()
    assert storage.begin(write=True)
    storage.output.insert_pieces([piece(1, 3, "two")])
    storage.output.set_progress([ProgressRow(1, 1, 0.1, "")])
    storage.savepoint()
    storage.output.delete_pieces(1, start=0, end=10)
    storage.undo()
    assert texts(storage, 1) == [(0, "one"), (3, "two")]
    storage.rollback()
    assert storage.begin(write=False)
    assert texts(storage, 1) == [(0, "one")]
    assert storage.output.progress(1) is None
    storage.rollback()


def test_no_row_shows_what_a_run_said() -> None:
    assert "SECRET" not in repr((piece(1, 0, "SECRET"), ProgressRow(1, 1, 0.5, "SECRET")))
