"""A finding of `lint`: a part of a schedule or a command that is allowed but is often a mistake. Pure."""

from __future__ import annotations

import attrs


@attrs.frozen
class Finding:
    """A part of a schedule or a command that is allowed but is often a mistake.

    Args:
        rule: The stable name of the rule, such as ``"uneven-step"``.
        text: One sentence that names the part and describes its effect.
    """

    rule: str
    text: str
