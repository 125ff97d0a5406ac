"""The command ``cronactors``. Nothing of the library imports this package."""

from __future__ import annotations

import gc
import io
import os
import signal
import sys

from cronactors import __version__
from cronactors.cli.container_init import fork_as_container_init
from cronactors.cli.hang_up import note_hang_ups
from cronactors.errors import CronError


def main() -> None:
    """Run the command.

    Exit status: 0 done, 1 a `CronError` or an `OSError`, 2 wrong usage, 128 + a signal that stopped it at once.
    """
    # Some supervisors start us with SIGCHLD ignored: then the exit statuses of all commands would be lost. See signal(2), wait(2).
    if hasattr(signal, "SIGCHLD"):
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    _open_standard_streams()
    if sys.argv[1:2] == ["run"]:
        note_hang_ups()  # first: process 1 gets only signals that it handles or blocks
        fork_as_container_init()
    if sys.argv[1:] == ["--version"]:  # without the imports that other verbs need
        sys.stdout.write(f"cronactors {__version__}\n")
        return
    from cronactors.cli.commands import cronactors

    # Modules are never garbage, and commands that end soon make little. So each ends 0.03 s sooner, `list` of 10,000 jobs 0.07 s.
    gc.freeze()
    if not (sys.argv[1:2] in (["run"], ["watch"]) or "--follow" in sys.argv):
        gc.set_threshold(50_000)
    try:
        cronactors(prog_name="cronactors")
    except (CronError, OSError) as problem:  # an OSError is one of standard output: its disk is full, or its reader is gone
        sys.exit(f"cronactors: {problem}")
    except KeyboardInterrupt:
        sys.exit(130)


def _open_standard_streams() -> None:
    """Open the null device for each standard stream that is closed.

    Else the next file that is opened would get its number, and be written to or read from by mistake. Text that a stream cannot encode is
    escaped.
    """
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number, which is this one
    # Python has no stream object for a descriptor that was closed when it started.
    sys.stdin = sys.stdin or open(os.devnull, encoding="utf-8")  # noqa: PTH123, SIM115 - stays open to the end
    sys.stdout = sys.stdout or open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123, SIM115 - stays open to the end
    sys.stderr = sys.stderr or open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123, SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # also for text of click and of logging
            stream.reconfigure(errors="backslashreplace")
