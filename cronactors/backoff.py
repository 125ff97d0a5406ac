"""The pauses between tries, each longer than the one before. Pure: the caller sleeps."""

from __future__ import annotations

from collections.abc import Iterator


def backoff(first: float, longest: float) -> Iterator[float]:
    """Yield pauses (s) without end: each is twice as long as the one before.

    Args:
        first: The first pause (s).
        longest: No pause is longer (s).
    """
    pause = min(first, longest)
    while True:
        yield pause
        pause = min(2 * pause, longest)
