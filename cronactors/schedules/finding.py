"""A finding: something in a schedule or a command that may not be meant. Pure."""

from __future__ import annotations

import attrs


@attrs.frozen
class Finding:
    """Something in a schedule that may not be meant.

    Args:
        rule: The stable name of the rule, such as ``"uneven-step"``.
        text: One sentence that names the part of the schedule and says what it does.
    """

    rule: str
    text: str
