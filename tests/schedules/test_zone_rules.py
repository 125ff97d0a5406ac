"""Releases of zone rules: their order, and the one that this process has."""

from __future__ import annotations

import pytest
import tzdata

from cronactors.schedules.zone_rules import RULES, is_older


@pytest.mark.parametrize(
    ("first", "second"),
    [("", "2025b/1"), ("2025b/1", "2026a/1"), ("2026a/1", "2026f/1"), ("2026f/1", "2026f/2"), ("2026f/9", "2026f/10")],
)
def test_releases_have_an_order(first: str, second: str) -> None:
    assert is_older(first, second)
    assert not is_older(second, first)
    assert not is_older(first, first)


def test_the_rules_of_this_process_are_those_of_the_package_tzdata() -> None:
    assert f"{tzdata.IANA_VERSION}/1" == RULES
