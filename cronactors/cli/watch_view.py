"""The live view of a store as lines of a terminal. Pure: values and the size of the terminal in, lines out."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import TypeAlias

import attrs

from cronactors.cli import describe
from cronactors.cli.amounts import count, length
from cronactors.cli.listing import cut_to, status_cell
from cronactors.cli.stdout import printable
from cronactors.cli.tables import Cell, text_width
from cronactors.cli.watch_reader import MOST_COUNTED, RunningRun, Snapshot
from cronactors.errors import one_line
from cronactors.model import CronRun

Line: TypeAlias = tuple[Cell, ...]
"""Pieces of text side by side."""

_WIDE = 60
"""On a terminal with fewer columns times are left out."""
_SPACIOUS = 20
"""On a terminal with fewer rows there are no empty lines between the parts."""
_LEAST_BAR = 70
_BAR = 10
_NAME_SHARE = 0.35
"""How much of a line a name may take."""
_GAP = "  "


@attrs.frozen(kw_only=True)
class View:
    """All that is shown.

    Attributes:
        title: The name of the store.
        zone: The zone of its times.
        now: The present time.
        snapshot: The last snapshot of the store; None: it is yet to be read.
        last: Runs that have finished, the last one first.
        problem: Why the store could not be read; "": it could.
    """

    title: str
    zone: str = "UTC"
    now: datetime
    snapshot: Snapshot | None = None
    last: Sequence[CronRun] = ()
    problem: str = ""


def lines_of(view: View, width: int, height: int) -> list[Line]:
    """Lay a view out.

    No line is wider than ``width`` columns, and there are at most ``height`` lines. What does not fit is left out: first the results and
    the notes, then rows, at last whole parts.
    """
    lines, seen, most, gap = [_title(view, width), _counts(view)], view.snapshot, max(0, height), height >= _SPACIOUS
    if view.problem:
        lines.append((Cell(one_line(view.problem), "bold red"),))
    if seen is not None:
        running = f" ({seen.running_count:,})" if seen.running_count else ": nothing"
        parts = [
            (f"Running{running}", _running_rows(view, seen.running[:most], width)),
            ("Next" if seen.next else "Next: nothing", _next_rows(view, seen, width)),
            ("Last" if view.last else "Last: nothing yet", _last_rows(view, view.last[:most], width)),
        ]
        room = height - len(lines) - len(parts) * (1 + gap) - 2 * gap
        shares = _share(room, [len(rows) for _, rows in parts])
        for (title, rows), share in zip(parts, shares, strict=True):
            lines += [()] * gap + [(Cell(title, "bold"),)] + rows[:share]
        if gap:
            lines += [()] * (height - 1 - len(lines)) + [(Cell("q: quit", "dim"),)]
    return [_clip(line, width) for line in lines[:most]]


def _title(view: View, width: int) -> Line:
    clock = describe.local_time(view.now, view.zone)
    clock = clock if width >= _WIDE else clock[11:19]
    title = cut_to(one_line(view.title), max(1, width - len(clock) - 2))
    return (Cell(title, "bold"), Cell(" " * (width - text_width(title) - len(clock))), Cell(clock))


def _counts(view: View) -> Line:
    """Say whether a scheduler is alive, and count the starts and retries that wait."""
    seen = view.snapshot
    if seen is None:
        return (Cell("reading the store"),)
    if seen.schedulers:
        first = Cell(f"{count(seen.schedulers, 'scheduler')} alive", "green")
    else:
        ago = "" if seen.last_seen is None else f", the last was seen {_seconds(view.now - seen.last_seen)} ago"
        first = Cell(f"no scheduler is alive{ago}", "bold red")
    waiting = [(seen.due, "start", "due"), (seen.retries, "run", "to be retried")]
    return (first, *(Cell(f"{_GAP}{count(n, noun, most=MOST_COUNTED)} {what}", "yellow") for n, noun, what in waiting if n))


def _running_rows(view: View, runs: Sequence[RunningRun], width: int) -> list[Line]:
    rows = []
    for each in runs:
        started = each.run.started_at
        elapsed = "" if started is None else _seconds(view.now - started)
        rows.append([Cell(_name(each.run.job_name, each.run.user_id, width)), Cell(elapsed, "cyan"), *_progress(each, width)])
    return _aligned(rows, right=(1, 2))


def _progress(each: RunningRun, width: int) -> list[Cell]:
    """Return how far a run is: a share, a bar if there is room, and its note."""
    progress, fraction = each.progress, None if each.progress is None else each.progress.fraction
    share = "" if fraction is None else f"{fraction:.0%}"
    full = 0 if fraction is None else int(fraction * _BAR)
    bar = "" if fraction is None else f"[{'#' * full}{'.' * (_BAR - full)}]"
    note = "" if progress is None else one_line(progress.note)
    if each.is_orphan:
        note = "its scheduler is gone"
    elif each.run.cause is not None:
        note = f"being stopped ({each.run.cause})"
    attempt = f"attempt {each.run.attempt}" if each.run.attempt > 1 else ""
    text = ", ".join(filter(None, (attempt, note)))
    return [Cell(share), *([Cell(bar)] if width >= _LEAST_BAR else []), Cell(text, "red" if each.is_orphan else "")]


def _next_rows(view: View, seen: Snapshot, width: int) -> list[Line]:
    rows = []
    for each in seen.next:
        when = Cell(f"in {_seconds(each.at - view.now)}") if each.at > view.now else Cell("due", "yellow")
        note = ", ".join(["retry"] * each.is_retry + ["still running"] * each.is_busy)
        name = Cell(_name(each.name, each.user_id, width))
        rows.append([_clock(each.at, view, width), when, name, Cell(note, "yellow" if each.is_retry else "dim")])
    return _aligned(rows)


def _last_rows(view: View, runs: Sequence[CronRun], width: int) -> list[Line]:
    rows, wide = [], width >= _WIDE
    for run in runs:
        took = length((run.completed_at - run.started_at).total_seconds()) if run.started_at and run.completed_at else ""
        attempt = f" #{run.attempt}" if run.attempt > 1 else ""
        rows.append(
            [
                _clock(run.completed_at or run.started_at or run.scheduled_at, view, width),
                Cell(f"{describe.status(run) if wide else run.status}{attempt}", status_cell(run).colour),
                Cell(took if wide else ""),
                Cell(_name(run.job_name, run.user_id, width)),
                Cell(describe.result(run), "dim"),
            ]
        )
    return _aligned(rows, right=(2,))


def _clock(moment: datetime, view: View, width: int) -> Cell:
    """Write a time of the present day without its date, any other without its year and seconds; none if there is no room for it."""
    shown, today = describe.local_time(moment, view.zone), describe.local_time(view.now, view.zone)
    return Cell("" if width < _WIDE else shown[11:19] if shown[:10] == today[:10] else shown[5:16])


def _seconds(time: timedelta) -> str:
    """Write a length of time in whole seconds."""
    whole = max(0, int(time.total_seconds()))
    return f"{whole} s" if whole < 60 else length(whole)  # noqa: PLR2004


def _name(name: str, user_id: str | None, width: int) -> str:
    whose = "" if user_id is None else f" of {one_line(user_id, 30)}"
    return cut_to(f"{one_line(name)}{whose}", max(1, int(width * _NAME_SHARE)))


def _aligned(rows: Sequence[Sequence[Cell]], *, right: tuple[int, ...] = ()) -> list[Line]:
    """Put cells below each other; the last ones are not filled up, and columns without text are left out."""
    shown = [[Cell(printable(cell.text), cell.colour) for cell in row] for row in rows]
    widths = [max(text_width(cell.text) for cell in column) for column in zip(*shown, strict=True)]
    lines = []
    for row in shown:
        cells = [Cell("  ")]
        for number, (cell, width) in enumerate(zip(row, widths, strict=True)):
            if not width:
                continue
            fill = " " * (width - text_width(cell.text))
            text = f"{fill}{cell.text}" if number in right else cell.text + fill
            cells.append(Cell(text + _GAP, cell.colour))
        lines.append(tuple(cells))
    return lines


def _share(room: int, wanted: Sequence[int]) -> list[int]:
    """Distribute rows: as many as each part wants, if they suffice, else evenly; a part that wants few leaves the rest to the others."""
    shares = [0] * len(wanted)
    while room > 0 and shares != list(wanted):
        for number, most in enumerate(wanted):
            if room > 0 and shares[number] < most:
                shares[number] += 1
                room -= 1
    return shares


def _clip(line: Line, width: int) -> Line:
    """Cut a line to a number of columns, and off its spaces at the end."""
    cells, left = [], width
    for cell in line:
        text = printable(cell.text)
        used = text_width(text)
        if used > left:
            text = cut_to(text.rstrip(), left) if left > 0 else ""
        if text:
            cells.append(Cell(text, cell.colour))
        left -= used
        if left <= 0:
            break
    while cells and not cells[-1].text.strip():
        cells.pop()
    if cells:
        cells[-1] = Cell(cells[-1].text.rstrip(), cells[-1].colour)
    return tuple(cells)
