"""The lines that a command writes, sent to the output of the run as they come."""

from __future__ import annotations

import codecs
from io import IncrementalNewlineDecoder
from typing import Final

from cronactors.run_context import CurrentRun

LONGEST_LINE: Final = 8 * 1024
"""How many characters without a line break are sent as a line of their own."""


class LiveLines:
    """Decodes one stream of a command, and logs its lines once they are complete. Bytes that are not UTF-8 are replaced.

    Args:
        run: The run that executes the command; None: nothing is logged.
    """

    def __init__(self, run: CurrentRun | None) -> None:
        self._run = run
        self._decoder = IncrementalNewlineDecoder(codecs.getincrementaldecoder("utf-8")("replace"), translate=True)
        self._begun = ""

    def add(self, chunk: bytes | bytearray, *, last: bool = False) -> None:
        """Add the next bytes. One call logs all lines that they complete."""
        if self._run is None:
            return
        text = self._begun + self._decoder.decode(bytes(chunk), final=last)
        complete, line_break, self._begun = text.rpartition("\n")
        if len(self._begun) > LONGEST_LINE or (last and self._begun):
            complete, line_break, self._begun = text, "\n", ""
        if line_break:
            self._run.log(f"{complete}\n")
