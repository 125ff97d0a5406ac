"""TOML on standard output."""

from __future__ import annotations

import sys

from cronactors.cli.stdout import printable


def print_toml(text: str) -> None:
    """Print TOML. A file or a pipe gets UTF-8 in any locale, as TOML is UTF-8; a terminal what it can show."""
    if sys.stdout.isatty():
        sys.stdout.write(printable(text))
    else:
        sys.stdout.flush()
        sys.stdout.buffer.write(text.encode())
    sys.stdout.flush()
