"""Runs a command with the executor ``shell``, without a scheduler."""

from __future__ import annotations

from pathlib import Path

from cronactors.model import JobResult
from cronactors.shell.executor import shell_executor
from cronactors.testing import make_context


async def shell(prompt: str, cwd: Path, *, grace: float = 0.3) -> str:
    """Run a command and return its summary."""
    result = await shell_executor(cwd, grace=grace)(make_context(prompt))
    assert isinstance(result, JobResult)
    return result.summary
