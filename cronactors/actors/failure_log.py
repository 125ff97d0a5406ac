"""The log lines for failed runs and for jobs that succeed again, so that a scheduler without a notifier does not fail silently.

A job that fails every second must not fill the log: equal lines come at most once a minute, with the number of lines left out. It
keeps a bounded number of jobs and lines for that, and drops the oldest first.
"""

from __future__ import annotations

import json
import logging
import math
from collections import OrderedDict
from itertools import islice, takewhile

import attrs
import trio

from cronactors import log_fields
from cronactors.errors import one_line, shorten
from cronactors.model import Cause, RunStatus
from cronactors.policy import Outcome
from cronactors.storage.rows import Claimed

logger = logging.getLogger("cronactors.failures")

REPEAT_EVERY = 60.0
"""How long (s) until an equal line is logged again."""
REMEMBERED = 1_000
"""How many failing jobs, and how many of their lines, are remembered."""

_LONGEST = 200
_HEAD = 24  # characters that count as the start of the prompt; fewer may be a word that is in both by chance
_LONGEST_PROMPT = 20_000  # characters; no error's text is longer


@attrs.define
class _Line:
    """A line of the log: when it was last written, on trio's clock, and how many equal ones were left out since."""

    logged_at: float = -math.inf
    left_out: int = 0


class FailureLog:
    """Logs each failed run, and the first success after failures."""

    def __init__(self) -> None:
        self._failures: OrderedDict[str, int] = OrderedDict()  # by job, since its last success
        self._lines: OrderedDict[tuple[str, str], _Line] = OrderedDict()  # by job and text

    def note(self, claimed: Claimed, outcome: Outcome) -> None:
        """Log the outcome if it is a failure, or the first success after one. Any other success costs one look-up."""
        if outcome.status is RunStatus.SUCCESS:
            if claimed.job.id in self._failures:
                self._log_success(claimed)
        elif outcome.status is RunStatus.FAILED and outcome.cause is not Cause.INTERRUPTED:
            self._log_failure(claimed, outcome)

    def _log_success(self, claimed: Claimed) -> None:
        count = self._failures.pop(claimed.job.id)
        times = "1 failure" if count == 1 else f"{count:,} failures"
        logger.warning(
            "job %s succeeds again after %s (run %s)",
            shorten(claimed.job.name),
            times,
            claimed.run.id,
            extra=log_fields.of_run(claimed.run),
        )

    def _log_failure(self, claimed: Claimed, outcome: Outcome) -> None:
        job_id = claimed.job.id
        self._failures[job_id] = self._failures.pop(job_id, 0) + 1
        text = one_line(without_prompt(outcome.error or "", claimed.job.prompt), _LONGEST)
        line = self._lines.pop((job_id, text), None) or _Line()
        self._lines[job_id, text] = line
        for table in (self._failures, self._lines):
            if len(table) > REMEMBERED:
                table.popitem(last=False)
        now = trio.current_time()
        if now < line.logged_at + REPEAT_EVERY:
            line.left_out += 1
            return
        again = f" ({line.left_out:,} more like it since the last line)" if line.left_out else ""
        logger.warning(
            "run %s of job %s failed: %s%s",
            claimed.run.id,
            shorten(claimed.job.name),
            text,
            again,
            extra=log_fields.of_run(claimed.run),
        )
        line.logged_at, line.left_out = now, 0


def without_prompt(text: str, prompt: str) -> str:
    """Replace a prompt, or the start of it, in the text of an error: it may be long, and may hold a secret.

    It is found as it is, as Python or JSON quotes it, and on one line.
    """
    prompt = prompt[:_LONGEST_PROMPT]
    forms = {prompt, repr(prompt)[1:-1], json.dumps(prompt)[1:-1], one_line(prompt, _LONGEST_PROMPT)}
    heads = {form[:_HEAD] for form in forms if len(form) >= _HEAD // 3}
    parts = []
    while heads and (places := [place for place in map(text.find, heads) if place >= 0]):
        found = min(places)
        parts += [text[:found], "<prompt>"]
        text = text[found + max(_alike(text, found, form) for form in forms) :]
    return "".join([*parts, text])


def _alike(text: str, start: int, form: str) -> int:
    """Count the characters of a text from ``start`` on that equal those of a form of the prompt."""
    alike = takewhile(lambda pair: pair[0] == pair[1], zip(islice(text, start, None), form, strict=False))
    return sum(1 for _ in alike)
