"""The verb ``import-crontab``: read a crontab and print it as an agent.toml."""

from __future__ import annotations

import os
import stat
import sys
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, Final

import click

from cronactors.cli.toml_output import print_toml
from cronactors.crontab import translate_crontab
from cronactors.errors import InvalidConfig, one_line
from cronactors.schedules.zones import check_zone, is_zone

MAX_CRONTAB: Final = 1_000_000
"""Largest crontab that is read (bytes)."""

_ZONE_FILE = Path("/etc/timezone")
_ZONE_LINK = Path("/etc/localtime")
_ZONES = "/zoneinfo/"


def import_crontab(file: str | None, *, system: bool, run_as: str | None, zone: str | None) -> None:
    """Print a crontab as an agent.toml, and on standard error how many of its lines need a look.

    Args:
        file: The path of the crontab; "-" is standard input, and so is None unless that is a terminal.
        system: Whether its lines name users.
        run_as: The user whose lines are translated if ``system``; None: the one of this process.
        zone: The zone in which cron reads its times; None: that of the machine.

    Raises:
        click.UsageError: There is no crontab to read, or no user is known.
        InvalidConfig: It cannot be read, or is too big.
        InvalidSchedule: No zone has that name.
    """
    if run_as is not None and not system:
        raise click.UsageError("--run-as is for a crontab of the system, whose lines name users: give --system too")
    if zone is not None:
        check_zone(zone)
    user = (run_as or _user_of_process()) if system else ""
    found = translate_crontab(_read(file), zone=zone or zone_of_machine(), system=system, run_as=user)
    print_toml(found.text)
    notes = []
    if found.left_out:
        notes.append(f"{found.left_out:,} {'line is' if found.left_out == 1 else 'lines are'} not translated")
    if found.different:
        notes.append(f"{found.different:,} {'job does' if found.different == 1 else 'jobs do'} not run quite as in cron")
    if notes:
        click.echo(f"cronactors: {' and '.join(notes)}: comments in the file say why", err=True)


def _read(file: str | None) -> str:
    """Read a crontab. Bytes that are no UTF-8 become lone surrogates, so that only their own lines cannot be translated."""
    if file is None and sys.stdin.isatty():
        raise click.UsageError("no crontab: name a FILE, or pipe one: crontab -l | cronactors import-crontab")
    if file in (None, "-"):
        content = sys.stdin.buffer.read(MAX_CRONTAB + 1)
        where = "standard input"
    else:
        where = one_line(str(file), 200)
        try:
            with _open(Path(str(file)), where) as opened:
                content = opened.read(MAX_CRONTAB + 1)
        except (OSError, ValueError) as problem:
            if isinstance(problem, InvalidConfig):
                raise
            raise InvalidConfig(f"{where}: cannot be read: {getattr(problem, 'strerror', None) or problem}") from None
    if len(content) > MAX_CRONTAB:
        raise InvalidConfig(f"{where}: is too big, at most {MAX_CRONTAB:,} bytes are read")
    return content.decode("utf-8-sig", "surrogateescape")


def _open(file: Path, where: str) -> BinaryIO:
    if not (stat.S_ISREG(file.stat().st_mode) or stat.S_ISFIFO(file.stat().st_mode)):  # <(crontab -l) is a pipe
        raise InvalidConfig(f"{where}: is not a file")
    return file.open("rb")


def _user_of_process() -> str:
    try:
        import pwd  # Windows has none

        return pwd.getpwuid(os.geteuid()).pw_name
    except (ImportError, KeyError):
        raise click.UsageError("the user of this process has no name: give --run-as") from None


def zone_of_machine() -> str | None:
    """Return the IANA name of the zone of this machine, in which its cron reads times; None if it is not known.

    It is the zone to which ``/etc/localtime`` links (localtime(5)), else the one in Debian's ``/etc/timezone``. TZ of our own
    environment does not count: cron is another process.
    """
    candidates = []
    with suppress(OSError, RuntimeError):
        candidates.append(str(_ZONE_LINK.resolve(strict=True)).partition(_ZONES)[2])
    with suppress(OSError, ValueError):
        candidates.append(_ZONE_FILE.read_text(encoding="ascii").strip()[:100])
    for name in candidates:
        plain = name.removeprefix("posix/").removeprefix("right/")
        if is_zone(plain):
            return "UTC" if plain in ("Etc/UTC", "Etc/UCT", "UCT") else plain
    return None
