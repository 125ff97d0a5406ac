"""What all tests share."""

from __future__ import annotations

import zoneinfo

import pytest

from cronactors.testing import virtual_clock

__all__ = ["virtual_clock"]

# The oracles ask the standard library: let it read the same zone data as the library does, whatever the machine has.
zoneinfo.reset_tzpath(to=())


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out tests that need real time, and the full chaos tests, which take hours, unless ``-m`` names them."""
    named = config.option.markexpr
    unnamed = [] if "chaos" in named else ["chaos"] if "slow" in named else ["slow", "chaos"]
    left_out = {item for item in items if any(item.get_closest_marker(marker) for marker in unnamed)}
    config.hook.pytest_deselected(items=list(left_out))
    items[:] = [item for item in items if item not in left_out]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what chaos tests have measured, with the seed that repeats them."""
    told = [
        (report.nodeid.split("::")[-1], dict(report.user_properties))
        for outcome in ("passed", "failed")
        for report in terminalreporter.getreports(outcome)
        if report.when == "call" and report.user_properties
    ]
    if told:
        terminalreporter.section("figures")
    for name, properties in told:
        terminalreporter.line(f"{name}: seed {properties.get('seed', '-')}: {properties.get('figures', 'none')}")
