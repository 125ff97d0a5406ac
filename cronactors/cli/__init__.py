"""The command ``cronactors``. Nothing of the library imports this package."""

from __future__ import annotations

import io
import os
import signal
import sys

from cronactors import __version__
from cronactors.cli.first_process import fork_as_container_init
from cronactors.errors import CronError


def main() -> None:
    """Run the command and end the process: 0 done, 1 an error of ours, 2 wrong usage, 130 or 143 ended at once by a signal."""
    # Ignored, as some supervisors leave it, it would cost the exit statuses of all commands: signal(2), wait(2).
    if hasattr(signal, "SIGCHLD"):
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    _open_standard_streams()
    if sys.argv[1:2] == ["run"]:
        fork_as_container_init()
    if sys.argv[1:] == ["--version"]:  # answers without importing anything heavy
        sys.stdout.write(f"cronactors {__version__}\n")
        return
    try:
        from cronactors.cli.commands import cronactors
    except ModuleNotFoundError as problem:
        if problem.name not in ("click", "rich"):
            raise
        sys.exit('cronactors: the command line needs the extra "cli": pip install "cronactors[cli]"')
    try:
        cronactors(prog_name="cronactors")
    except (CronError, OSError) as problem:  # of the system's: standard output is full or gone
        sys.exit(f"cronactors: {problem}")
    except KeyboardInterrupt:
        sys.exit(130)


def _open_standard_streams() -> None:
    """Open what was given to us closed: the next file would get its number, and be written to or read from by mistake."""
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number, which is this one
    # Python made no stream of what was closed.
    sys.stdout = sys.stdout or open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123, SIM115 - stays open to the end
    sys.stderr = sys.stderr or open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123, SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # no text may end the command, be it of click's or in a log
            stream.reconfigure(errors="backslashreplace")
