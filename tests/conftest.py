"""What all tests share."""

from __future__ import annotations

from cronactors.testing import virtual_clock

__all__ = ["virtual_clock"]
