"""Lines and JSON on standard output, in whatever encoding it has."""

from __future__ import annotations

import codecs
import json
import sys


def encoding() -> str:
    """Return the encoding of standard output."""
    return sys.stdout.encoding or "utf-8"


def printable(text: str) -> str:
    """Replace each character that the encoding of standard output lacks by its backslash escape; do it before columns are aligned."""
    return text.encode(encoding(), "backslashreplace").decode(encoding())


def print_line(line: str = "") -> None:
    """Print a line and flush it."""
    sys.stdout.write(f"{printable(line)}\n")
    sys.stdout.flush()


def print_json(value: object) -> None:
    """Print a value as JSON. An encoding that is no Unicode gets JSON's own escapes (RFC 8259, section 7)."""
    unicode = codecs.lookup(encoding()).name.startswith("utf")
    print_line(json.dumps(value, indent=2, ensure_ascii=not unicode))
