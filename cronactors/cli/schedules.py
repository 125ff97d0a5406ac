"""The verbs ``next`` and ``lint``, which examine schedules and need no database."""

from __future__ import annotations

from datetime import UTC, datetime

import click

from cronactors.cli.stdout import print_json, print_line
from cronactors.config_file import load_config
from cronactors.errors import InvalidSchedule, one_line, shorten
from cronactors.schedules.finding import Finding
from cronactors.schedules.lint import lint
from cronactors.schedules.preview import Preview, preview
from cronactors.schedules.schedule import Cron
from cronactors.schedules.zones import check_zone, load_zone
from cronactors.shell.checks import check_shell_options
from cronactors.shell.lint import lint_command
from cronactors.spec import Delay
from cronactors.wallclock import now


def show_next(expr: str, *, zone: str, count: int, after: str | None, as_json: bool) -> None:
    """Print the next moments of an expression.

    Raises:
        click.BadParameter: ``after`` is not a date or time.
        InvalidSchedule: The expression or the zone is refused, or it never fires.
    """
    schedule = Cron(expr)
    check_zone(zone)
    start = now() if after is None else _read_time(after, zone)
    previews = preview(schedule, after=start, timezone=zone, count=count)
    if not previews:
        raise InvalidSchedule(f"expr {shorten(expr)} does not fire in {zone} from then to the year 9998")
    if as_json:
        print_json([_preview_as_json(each) for each in previews])
    else:
        for each in previews:
            print_line(f"{each.local:%a %Y-%m-%d %H:%M:%S} {_offset(each.local)}{f'  {each.note}' if each.note else ''}")


def _read_time(text: str, zone: str) -> datetime:
    """Read a date or a time in ISO 8601; without an offset it is local time in the zone."""
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise click.BadParameter(f"{shorten(text)} is not a date or time, such as 2026-03-28", param_hint="--after") from None
    return found if found.tzinfo is not None else found.replace(tzinfo=load_zone(zone))


def _offset(local: datetime) -> str:
    """Write the offset as in RFC 3339, with seconds if it has any."""
    return local.isoformat(timespec="seconds")[19:]


def _preview_as_json(each: Preview) -> dict[str, str | None]:
    at = each.at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return {"at": at, "local": each.local.isoformat(timespec="milliseconds"), "note": each.note}


def show_findings(source: str, *, zone: str | None, as_json: bool) -> int:
    """Print likely mistakes in an expression or in the jobs of a file.

    Returns:
        The number of findings.

    Raises:
        click.UsageError: A zone was given for a file, which names its own.
        CronError: The expression, the zone or the file is refused.
    """
    if not _is_file(source):
        found: list[tuple[str | None, Finding]] = [(None, each) for each in lint(Cron(source), zone, after=now())]
    elif zone is not None:
        raise click.UsageError("--timezone is for an expression: a file gives the zones of its jobs")
    else:
        found = _findings_of_file(source)
    if as_json:
        print_json([{"job": job, "rule": each.rule, "text": each.text} for job, each in found])
    else:
        for job, each in found:
            print_line(f"{f'{one_line(job, 60)}: ' if job is not None else ''}{each.rule}: {each.text}")
        if not found:
            print_line("no findings")
    return len(found)


def _is_file(source: str) -> bool:
    """Whether it is a file: one word, or with the usual suffix. An expression has several fields or begins with @."""
    return source.endswith(".toml") or (len(source.split()) == 1 and not source.startswith("@"))


def _findings_of_file(path: str) -> list[tuple[str | None, Finding]]:
    config = load_config(path)
    present = now()
    found: list[tuple[str | None, Finding]] = []
    for job in config.jobs:
        if not isinstance(job.schedule, Delay):  # it counts from the time at which it is added
            found += [(job.name, each) for each in lint(job.schedule, job.timezone or config.timezone, after=present)]
        if config.executor == "shell":
            found += [(job.name, each) for each in lint_command(job.prompt, check_shell_options(job.executor_options))]
    return found
