"""What all tests share."""

from __future__ import annotations

import zoneinfo

from cronactors.testing import virtual_clock

__all__ = ["virtual_clock"]

# The oracles ask the standard library: let it read the same zone data as the library does, whatever the machine has.
zoneinfo.reset_tzpath(to=())
