"""Translates a crontab into the text of an agent.toml. Pure.

The rules are those of Debian's crontab(5). What cannot be translated stays as a comment with the reason, and so does each difference
that could surprise: a line that is left out in silence would be noticed months later.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from typing import Final

import attrs

from cronactors.crontab_command import check_is_command, name_of_command, shell_command, split_input, why_not_exported
from cronactors.errors import CronError, InvalidConfig, InvalidJob, shorten
from cronactors.json_value import Json
from cronactors.schedules.cron import parse_cron, split_fields
from cronactors.schedules.lint_cron import Expression, lint_expression
from cronactors.schedules.schedule import Cron
from cronactors.schedules.zones import check_zone
from cronactors.shell.checks import DEFAULT_SHELL, check_shell_prompt
from cronactors.shell.lint import lint_command
from cronactors.spec import MAX_DESCRIPTION, MAX_JOBS, JobSpec
from cronactors.toml_text import toml_comment, toml_table

MAX_RESULT: Final = 10_000_000
"""Longest agent.toml (bytes) that `load_config` reads. It reads files, so this module, which is pure, does not import it."""

_BLANK = " \t\r\v\f"
_ASSIGNMENT = re.compile(
    rf"""(?:"(?P<name2>[^"=]*)" | '(?P<name1>[^'=]*)' | (?P<name>[^{_BLANK}="'][^{_BLANK}=]*)) [{_BLANK}]*=[{_BLANK}]*
         (?:"(?P<value2>[^"]*)" [{_BLANK}]* | '(?P<value1>[^']*)' [{_BLANK}]* | (?P<value>[^"'].*)?)""",
    re.VERBOSE,
)
"""``NAME = value``: neither of the two needs quotation marks, both may have them (``load_env`` of cron)."""
_ENTRY = re.compile(r"(?P<time>@[^ \t]+|(?:[^ \t]+[ \t]+){4}[^ \t]+)(?:[ \t]+(?P<rest>.*))?", re.DOTALL)
_USER = re.compile(r"([^ \t]+)(?:[ \t]+(.*))?", re.DOTALL)
_SENTENCE = re.compile(r"[\w\"'(<\[`/]")
_HEADING = re.compile(r"m\s+h\s+dom\b")
"""The line above the jobs of Debian's new crontabs, which names the fields."""

_HEADER = """\
Translated from a crontab by `cronactors import-crontab`.

Commands run in the folder of this file, with the environment of
`cronactors run`. cron runs them in the home folder of their user, with little
more than PATH=/usr/bin:/bin, and sends their output by mail; here
`cronactors runs NAME` shows it.

cron starts a command while its last run is still running, and forgets moments
that it missed. Here a job does not overlap itself, and missed moments make one
late run. To change that for a job, write overlap = "allow_all" or
misfire = { window_secs = 60 } below its name."""
_UNKNOWN_ZONE = "The zone of this machine is not known: times are in UTC unless you change it."
_CRON_TABLE = """\
[cron]
executor = "shell"
default_max_retries = 0         # as cron; else a failed command runs again
default_timeout_secs = 86400    # cron has none; else commands end after 2 h
max_concurrent_runs = 20        # cron has no limit; else one runs at a time"""


@attrs.frozen
class _Job:
    """A translated line: the fields of its job, and the comments above it."""

    zone: str | None
    fields: dict[str, Json]
    comments: tuple[str, ...]


@attrs.frozen
class TranslatedCrontab:
    """A translated crontab.

    Attributes:
        text: The text of an agent.toml that `load_config` accepts.
        jobs: How many jobs it has.
        left_out: How many lines it has as comments only, with the reason.
        different: How many jobs run otherwise than in cron, as a comment explains.
    """

    text: str
    jobs: int
    left_out: int
    different: int


def translate_crontab(text: str, *, zone: str | None = None, system: bool = False, run_as: str = "") -> TranslatedCrontab:
    """Translate a crontab.

    Args:
        text: The crontab.
        zone: The zone in which cron reads its times; None: unknown. Lines after a CRON_TZ are in that one.
        system: Whether each line has a user before the command, as in ``/etc/crontab``.
        run_as: The user whose lines are translated if ``system``.

    Raises:
        InvalidConfig: The result would be larger than an agent.toml may be.
    """
    translation = _Translation(system=system, run_as=run_as)
    for line in text.split("\n"):
        translation.read(line.rstrip("\r").lstrip(" \t"))
    return TranslatedCrontab(translation.render(zone), translation.jobs, translation.left_out, translation.different)


class _Translation:
    """A translation in progress. Its numbers are those of `TranslatedCrontab`."""

    def __init__(self, *, system: bool, run_as: str) -> None:
        self._system, self._run_as = system, run_as
        self._blocks: list[_Job | str] = []
        """Jobs, and comments between them."""
        self._comments: list[str] = []
        """Comments that were read and belong to nothing yet."""
        self.jobs = self.left_out = self.different = 0
        self._size = 0
        self._names: set[str] = set()
        self._same: Counter[str] = Counter()
        """How often a name was made for a line."""
        # The state of the crontab at the current line.
        self._variables: dict[str, str] = {}
        self._shell = DEFAULT_SHELL
        self._zone: str | None = None
        self._zone_error: CronError | None = None

    def read(self, line: str) -> None:
        """Translate a line, without the blanks at its start."""
        if not line:
            self._end_comments()
        elif line.startswith("#"):
            self._comments.append(line[1:].strip(_BLANK))
        elif (assignment := _ASSIGNMENT.fullmatch(line)) is not None:
            self._end_comments()
            name = next(filter(None, assignment.group("name", "name1", "name2")), "")
            quoted = next(filter(None, assignment.group("value1", "value2")), "")
            self._assign(name, quoted or (assignment["value"] or "").rstrip(_BLANK))
        else:
            self._translate_entry(line)

    def render(self, zone: str | None) -> str:
        """Return the whole file. The zone that all jobs have in common is that of the file."""
        self._end_comments()
        zones = {block.zone or zone for block in self._blocks if isinstance(block, _Job)}
        (common,) = zones if len(zones) == 1 else (zone,)
        header = _HEADER if common else f"{_HEADER}\n\n{_UNKNOWN_ZONE}"
        parts = [toml_comment(header), toml_table("", [("timezone", common or "UTC")]), _CRON_TABLE]
        for block in self._blocks:
            if isinstance(block, str):
                parts.append(toml_comment(block))
                continue
            own = block.zone or zone
            zone_of_job: dict[str, Json] = {"timezone": own or "UTC"} if own != common else {}
            table = toml_table("[[cron.jobs]]", [*block.fields.items(), *zone_of_job.items()])
            parts.append("\n".join([*map(toml_comment, block.comments), table]))
        found = "\n\n".join(parts) + "\n"
        if len(found.encode()) > MAX_RESULT:
            raise InvalidConfig(_TOO_BIG)
        return found

    def _add(self, block: _Job | str, size: int) -> None:
        self._size += size
        if self._size > MAX_RESULT:  # variables can be repeated in front of many commands
            raise InvalidConfig(_TOO_BIG)
        self._blocks.append(block)

    def _comment(self, text: str) -> None:
        self._add(text, len(text))

    def _leave_out(self, why: str, line: str) -> None:
        self.left_out += 1
        self._comment(f"not translated: {why}\n{line}")

    def _end_comments(self) -> None:
        """Keep the comments that were read, as comments."""
        if self._comments:
            self._comment("\n".join(self._comments))
            self._comments = []

    # Variables

    def _assign(self, name: str, value: str) -> None:
        """Read ``NAME = value``, which counts for the lines after it."""
        if name == "SHELL":
            self._shell = value
        elif name == "CRON_TZ":
            self._set_zone(value)
        elif (why := why_not_exported(name)) is not None:
            self._leave_out(why, f"{name}={value}")
        else:
            self._variables[name] = value
            if name == "TZ":
                zone = "the zone of the machine" if self._zone is None else f"CRON_TZ, {self._zone}"
                self._comment(
                    f"TZ={value}: commands get it, and it does not change when they run; cron reads times in {zone}. If other times are "
                    f'meant, write the zone as timezone = "..."'
                )
            elif name == "MAILTO" and value:
                self._comment(f"MAILTO={value}: no mail is sent, `cronactors runs NAME` shows output and errors")

    def _set_zone(self, value: str) -> None:
        self._zone, self._zone_error = None, None
        try:
            self._zone = check_zone(value, field="CRON_TZ") if value else None
        except CronError as problem:
            self._zone_error = problem

    # Jobs

    def _translate_entry(self, line: str) -> None:
        """Translate a line that is neither comment nor variable; or keep it with the reason."""
        try:
            job = self._job(line)
        except CronError as problem:
            self._end_comments()
            self._leave_out(str(problem), line)
            return
        self._names.add(str(job.fields["name"]))
        self.jobs += 1
        self._add(job, sum(len(str(value)) for value in job.fields.values()))
        self._comments = []

    def _job(self, line: str) -> _Job:
        """Make the job of a line.

        Raises:
            CronError: It cannot be translated.
        """
        schedule, rest = _split_time(line)
        if self._system:
            user, rest = _split_user(rest)
            if user != self._run_as:
                raise InvalidJob(
                    f"this is a line of the user {shorten(user)}, and those of {shorten(self._run_as)} were asked for"
                )
        if self._zone_error is not None:
            raise self._zone_error
        command, given = split_input(rest)
        check_is_command(command)
        if self.jobs == MAX_JOBS:
            raise InvalidJob(f"a file holds at most {MAX_JOBS:,} jobs")
        shell = shell_command(command, given, self._variables, self._shell)
        description = self._description()
        fields: dict[str, Json] = {
            "name": self._new_name(command, schedule.expr),
            "prompt": shell.prompt,
            "cron": schedule.expr,
            **({} if shell.shell is None else {"shell": shell.shell}),
            **({"description": description} if description else {}),
        }
        JobSpec(str(fields["name"]), shell.prompt, schedule, description=description)
        check_shell_prompt(shell.prompt)
        above = "\n".join(self._comments[: len(self._comments) - self._described()])
        differences = _differences(schedule, command, self._shell)
        self.different += bool(differences)
        return _Job(self._zone, fields, (*([above] if above else []), *differences))

    def _described(self) -> int:
        """Count the comments directly above the current line that describe it."""
        count = 0
        for text in reversed(self._comments):
            if not _SENTENCE.match(text) or _HEADING.match(text) or _is_entry(text):
                break
            count += 1
        return count

    def _description(self) -> str:
        count = self._described()
        text = " ".join(self._comments[len(self._comments) - count :])
        text = "".join(character if character.isprintable() else " " for character in text)
        return text if len(text) <= MAX_DESCRIPTION else f"{text[: MAX_DESCRIPTION - 1]}…"

    def _new_name(self, command: str, expr: str) -> str:
        """Make a name that no other job has: the first of a kind has the plain one, others add four digits of their line's hash."""
        name = plain = name_of_command(command)
        line = f"{expr}\n{command}"
        while name in self._names:
            number = self._same[line]
            self._same[line] += 1
            digest = hashlib.sha256(f"{line}{number or ''}".encode("utf-8", "surrogatepass"))
            name = f"{plain}-{digest.hexdigest()[:4]}"
        return name


_TOO_BIG: Final = f"the crontab is too long: its agent.toml would be larger than {MAX_RESULT:,} bytes"


def _split_time(line: str) -> tuple[Cron, str]:
    """Split a line into its schedule and the rest."""
    entry = _ENTRY.fullmatch(line)
    if entry is None:
        raise InvalidJob("a line has five fields, or one such as @daily, and a command; or it is NAME = value")
    fields = re.split("[ \t]+", entry["time"])
    if any(len(field.split()) != 1 for field in fields):  # we would read two fields, and the first as the second
        raise InvalidJob("there is white space in a field that is neither a blank nor a tab")
    return Cron(" ".join(fields)), entry["rest"] or ""


def _split_user(rest: str) -> tuple[str, str]:
    found = _USER.fullmatch(rest)
    if found is None:
        raise InvalidJob("there is no user after the time")
    return found[1], found[2] or ""


def _is_entry(text: str) -> bool:
    """Return whether a comment is a line that was taken out."""
    try:
        return bool(_split_time(text)[1])
    except CronError:
        return False


def _differences(schedule: Cron, command: str, shell: str) -> list[str]:
    """Describe how cron runs a line otherwise than we do."""
    expression = Expression(split_fields(schedule.expr), parse_cron(schedule.expr))
    found = [each for each in lint_expression(expression) if each.rule == "star-step-day"]
    found += [each for each in lint_command(command, shell) if each.rule != "crontab-percent"]
    return [f"{each.rule}: {each.text}" for each in found]
