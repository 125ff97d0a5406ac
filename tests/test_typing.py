"""The public API as users' type checkers see it."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

import cronactors

ROOT = Path(__file__).parents[1]
SOURCE = Path(__file__).with_name("typing_api.py")


def mypy(source: Path, cache: Path) -> str:
    """Return the output of mypy with the project's own settings; "" without errors."""
    process = subprocess.run(
        [
            *(sys.executable, "-m", "mypy", "--strict", "--no-error-summary"),
            *("--config-file", str(ROOT / "pyproject.toml"), "--cache-dir", str(cache), str(source)),
        ],
        cwd=ROOT,
        env={**os.environ, "MYPYPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert process.returncode in (0, 1), process.stderr
    return process.stdout


@pytest.mark.slow
def test_types_of_the_public_api(tmp_path):
    assert mypy(SOURCE, tmp_path / "cache") == ""
    # With two mistakes, to notice a mypy that checks nothing.
    wrong = tmp_path / "wrong_api.py"
    wrong.write_text(
        SOURCE.read_text(encoding="utf-8").replace("unknown=1)  # type: ignore[call-arg]", "unknown=1)")
        + '\n\ndef ignored() -> Cron:\n    return Cron("@daily")  # type: ignore[arg-type]\n',
        encoding="utf-8",
    )
    output = mypy(wrong, tmp_path / "cache")
    assert output.count("error:") == 2
    assert 'Unexpected keyword argument "unknown" for "update_job"' in output
    assert 'Unused "type: ignore" comment' in output


def test_every_public_name_is_used_in_the_typing_module():
    tree = ast.parse(SOURCE.read_text(encoding="utf-8"))
    used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    used |= {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    assert set(cronactors.__all__) - used == set()


def test_the_package_is_marked_as_typed():
    assert (Path(cronactors.__file__).parent / "py.typed").exists()
