"""The line of a job in its agent.toml, for a person who is to edit it there. Pure, but for `line_in_file`.

tomllib reports no lines, and a parser of our own could disagree with it. So we guess a line from the text and have tomllib check it:
a line is returned only if it is certain.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import cast

_MAX_TEXT = 1_000_000
"""The longest text in which a line is found (characters): each try parses it."""
_MAX_TRIES = 50
"""The number of lines that are tried."""

_HEADER = re.compile(r"^[ \t]*\[\[.*", re.MULTILINE)
"""A line that may begin a table of a list; it may also be inside a string or an array."""
_JOBS_HEADER = re.compile(r"""[ \t]*\[\[[ \t]*["']?cron["']?[ \t]*\.[ \t]*["']?jobs["']?[ \t]*\]\]""")
_PROBE = "a name that no job has \u2603"


def line_in_file(file: Path, name: str, user_id: str | None) -> int | None:
    """Find the line of a job in a file; None if the file cannot be read."""
    try:
        if file.stat().st_size > _MAX_TEXT or not file.is_file():
            return None
        text = file.read_bytes().decode("utf-8-sig")
    except (OSError, ValueError):
        return None
    return listed_line(text, name, user_id)


def listed_line(text: str, name: str, user_id: str | None) -> int | None:
    """Find the line where the table of a job begins, or that of its name if it is in an inline table.

    Args:
        text: The text of an agent.toml.
        name: The name of the job.
        user_id: Its user; None for the agent itself.

    Returns:
        The number of the line, from 1; None if no job or several jobs have that name, or if the line is not certain.
    """
    jobs = _jobs(text) if len(text) <= _MAX_TEXT else None
    if jobs is None:
        return None
    found = [index for index, job in enumerate(jobs) if _is(job, name, user_id)]
    if len(found) != 1:
        return None
    position = _find_header(text, found[0])
    if position is None:
        position = _find_name(text, found[0], name)
    return None if position is None else text.count("\n", 0, position) + 1


def _is(job: object, name: str, user_id: str | None) -> bool:
    return isinstance(job, dict) and job.get("name") == name and (job.get("user_id") or None) == user_id


def _jobs(text: str) -> list[object] | None:
    """Return the jobs in a text; None if it is no TOML, or has no list of them."""
    try:
        cron: object = tomllib.loads(text).get("cron", {})
    except (ValueError, RecursionError):
        return None
    jobs: object = cast(dict[str, object], cron).get("jobs", []) if isinstance(cron, dict) else None
    return cast(list[object], jobs) if isinstance(jobs, list) else None


def _find_header(text: str, index: int) -> int | None:
    """Find where ``[[cron.jobs]]`` of a job is.

    The text before a header, and the text with it, are TOML of their own: one has the jobs before it, the other has one more. The text
    up to a line inside a string or an array is no TOML.
    """
    headers = list(_HEADER.finditer(text))
    likely = [header for header in headers if _JOBS_HEADER.match(header[0])]
    for tries, header in enumerate([*likely[index : index + 1], *headers]):
        if tries > _MAX_TRIES:
            return None
        before, with_it = _jobs(text[: header.start()]), _jobs(text[: header.end()].rstrip("\r"))
        if before is not None and with_it is not None and len(before) == index and len(with_it) == index + 1:
            return header.start()
    return None


def _find_name(text: str, index: int, name: str) -> int | None:
    """Find the text of a job's name: where another text in its place gives this job another name."""
    for tries, (start, end) in enumerate(_names(text, name)):
        if tries > _MAX_TRIES:
            return None
        jobs = _jobs(text[:start] + _PROBE + text[end:])
        if jobs is not None and len(jobs) > index and _has_name(jobs[index], _PROBE):
            return start
    return None


def _has_name(job: object, name: str) -> bool:
    return isinstance(job, dict) and job.get("name") == name


def _names(text: str, name: str) -> Iterator[tuple[int, int]]:
    """Find all places where a name is in quotes, as it is or with escapes."""
    for spelled in dict.fromkeys((name, json.dumps(name)[1:-1], json.dumps(name, ensure_ascii=False)[1:-1])):
        for match in re.finditer(rf"""(?<=["']){re.escape(spelled)}(?=["'])""", text):
            yield match.start(), match.end()
