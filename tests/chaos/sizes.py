"""Each chaos test comes in two sizes: a quick one in the ordinary test command, a full one with ``pytest -m chaos``."""

from __future__ import annotations

import pytest


def quick_and_full(name: str, quick: object, full: object) -> pytest.MarkDecorator:
    """Parametrise a test by its size."""
    return pytest.mark.parametrize(
        name, [pytest.param(quick, id="quick", marks=pytest.mark.slow), pytest.param(full, id="full", marks=pytest.mark.chaos)]
    )
