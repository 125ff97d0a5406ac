"""The output of runs: appending lines, and reading them from a position on. Runs on the storage thread.

Lines arrive once a second, so that a run of hours would leave thousands of small rows. We append to the last piece until it holds
4 KiB, and delete pieces from the middle once head and tail are full: a run has at most some 35 of them, however much it logs.

Each piece says where it begins, and what is stored already is skipped. So lines may be sent twice, as they are after a commit whose
reply was lost, and when a run finishes while its lines are on their way.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import attrs

from cronactors.instants import Millis, from_millis
from cronactors.ledger.runs import find_run
from cronactors.model import RunStatus
from cronactors.run_output import OUTPUT_HEAD, OUTPUT_TAIL, Piece, Progress, RunOutput, RunProgress, cut, describe_gap
from cronactors.storage.protocol import Storage
from cronactors.storage.rows import RunRow
from cronactors.storage.run_output import LastPiece, PieceRow, ProgressRow

MAX_PIECE: Final = 4096
"""How many bytes one row holds at most."""


@attrs.frozen
class NewOutput:
    """Output of a run that may not be stored yet.

    Attributes:
        run_id: The run.
        pieces: Lines, in order.
        progress: The newest progress; None: it has not changed.
    """

    run_id: int
    pieces: tuple[Piece, ...]
    progress: Progress | None


def store_output(storage: Storage, outputs: Sequence[NewOutput]) -> None:
    """Store output of runs, once each. That of a run that is not running any more is dropped: its record is complete."""
    runs = storage.runs([output.run_id for output in outputs])
    running = {output.run_id: output for output in outputs if _is_running(runs.get(output.run_id))}
    now = storage.now()
    last = storage.output.last_pieces([run_id for run_id, output in running.items() if output.pieces])
    extensions: list[PieceRow] = []
    rows: list[PieceRow] = []
    for run_id, output in running.items():
        extension, new = _append(run_id, last.get(run_id), output.pieces, now)
        extensions += extension
        rows += new
    storage.output.extend_pieces(extensions)
    storage.output.insert_pieces(rows)
    for run_id, output in running.items():
        if output.pieces and (end := output.pieces[-1].end) > OUTPUT_HEAD + OUTPUT_TAIL:
            storage.output.delete_pieces(run_id, start=OUTPUT_HEAD, end=end - OUTPUT_TAIL)
    progress = [(run_id, output.progress) for run_id, output in running.items() if output.progress is not None]
    storage.output.set_progress([ProgressRow(run_id, now, each.fraction, each.note) for run_id, each in progress])


def _is_running(run: RunRow | None) -> bool:
    return run is not None and run.status == RunStatus.RUNNING


def _append(run_id: int, last: LastPiece | None, pieces: Sequence[Piece], now: Millis) -> tuple[list[PieceRow], list[PieceRow]]:
    """Return the bytes to append to the last row of a run, if any, and its new rows. Bytes that are stored already are left out."""
    extensions: list[PieceRow] = []
    rows: list[PieceRow] = []
    stored = 0 if last is None else last.end
    for piece in pieces:
        start = max(piece.start, stored)
        content = piece.content[start - piece.start :]
        if last is not None and start == last.end:
            size = cut(content, max(0, MAX_PIECE - last.size))
            if size:
                extensions.append(PieceRow(last.id, run_id, last.start, size, now, content[:size].decode()))
            start, content = start + size, content[size:]
        while content:
            size = cut(content, MAX_PIECE)
            rows.append(PieceRow(0, run_id, start, size, now, content[:size].decode()))
            start, content = start + size, content[size:]
    return extensions, rows


def store_last_output(storage: Storage, outputs: Sequence[NewOutput]) -> None:
    """Store the rest of the output of runs that finish in this transaction, and delete their progress."""
    store_output(storage, [output for output in outputs if output.pieces])
    storage.output.delete_progress([output.run_id for output in outputs])


def read_output(storage: Storage, run_id: str, *, since: int) -> RunOutput:
    """Return the lines of a run after a position (bytes).

    Raises:
        RunNotFound: There is no run with that id.
    """
    run = find_run(storage, run_id)
    text = ""
    position, left_out = since, 0
    for piece in storage.output.pieces(run.id, since=since):
        gap = max(0, piece.start - position)
        if gap:
            left_out += gap
            line_break = "\n" if text and not text.endswith("\n") else ""
            text += f"{line_break}{describe_gap(gap)}\n"
        known = max(0, since - piece.start)
        text += piece.text.encode()[known:].decode("utf-8", "ignore") if known else piece.text
        position = piece.start + piece.size
    finished = run.status not in (RunStatus.PENDING, RunStatus.RUNNING)
    return RunOutput(text=text, cursor=position, left_out=left_out, finished=finished)


def read_progress(storage: Storage, run_id: str) -> RunProgress | None:
    """Return the progress of a running run; None if it has reported none, or is not running.

    Raises:
        RunNotFound: There is no run with that id.
    """
    row = storage.output.progress(find_run(storage, run_id).id)
    return None if row is None else RunProgress(fraction=row.fraction, note=row.note, at=from_millis(row.at))
