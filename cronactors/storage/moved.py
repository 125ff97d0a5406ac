"""The mark of a file whose jobs were moved to a server: opening it is an error that names the server.

Two schedulers, one on the file and one on the server, would run every job twice. So the file is marked before the move becomes durable,
and the mark has two parts. The first is another application id. `schema.check_file` reads it anyway, so it costs nothing, and an older
release takes the file for one of another application. A process that has the file open does not read the id again; so the second part
are other names of tables, which make its next statement fail.
"""

from __future__ import annotations

import json
import shlex
from typing import Final, NamedTuple, Self

from cronactors.errors import StoreUnavailable
from cronactors.instants import Millis, from_millis

MOVED_ID: Final = 0x43524E4D
"""The application id of a file that is marked ("CRNM")."""
MOVED_FACT: Final = "moved"
"""The fact (`Storage.meta`) that says where the jobs of a file were moved."""
RENAMED: Final = ("jobs", "runs", "notifications", "owners")
"""The tables that have another name in a marked file. Without them no job and no run can be read or written."""


class Numbers(NamedTuple):
    """A number for each kind of rows that have ids: the highest one, or how much is added to all of them."""

    jobs: int
    runs: int
    notifications: int


class Move(NamedTuple):
    """A move, as it is stored in the file.

    Attributes:
        id: Different for each move; the server stores it too, in the transaction that makes the jobs durable there.
        to: The server, without user and password.
        at: When.
        user_id: The user whose jobs were moved; None: all jobs.
        done: Whether the server has certainly committed.
    """

    id: str
    to: str
    at: Millis
    user_id: str | None
    done: bool = False

    @property
    def server_fact(self) -> str:
        """The fact (`Storage.meta`) of the server that says that it has the jobs."""
        return f"moved:{self.id}"

    def to_json(self) -> str:
        """Return the text of the fact."""
        return json.dumps(self._asdict())

    @classmethod
    def from_json(cls, text: str | None) -> Self | None:
        """Read the text of the fact; None if it cannot be read."""
        try:
            found = cls(**json.loads(text or ""))
            from_millis(found.at)
        except (TypeError, ValueError, OverflowError, RecursionError):
            return None
        return found


class FileMoved(StoreUnavailable):
    """The file is marked.

    Attributes:
        move: The move; None if the mark is damaged.
    """

    def __init__(self, path: str, move: Move | None) -> None:
        undo = f"`cronactors copy --unmark {shlex.quote(path)}`"
        if move is None:
            text = f"{path} was moved to a server; {undo} lets it be used again"
        elif move.done:
            text = f"{path} was moved to {move.to} on {from_millis(move.at):%Y-%m-%d}: open that instead; {undo} undoes the mark"
        else:
            text = f"{path}: the move to {move.to} was interrupted: repeat it, or {undo}"
        super().__init__(text)
        self.move = move
