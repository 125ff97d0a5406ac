#!/usr/bin/env python3
"""Run the tests on every CPython from 3.11 on that is found on this machine, each in a new environment.

On 3.12 the lowest versions that pyproject.toml allows are installed, on the others the newest ones. Interpreters are looked for on
the PATH (``python3.N``) and in pyenv's folder of versions. The first argument that is not an option limits the run to one version.

    .ci/pythons.py                    # all of them
    .ci/pythons.py 3.13               # one of them; also 3.13.0
    .ci/pythons.py --tested 3.11.7    # leave that one out, unless it gets the lowest versions
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import tempfile
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
OLDEST = (3, 11)
LOWEST_ON = (3, 12)
QUICK = ("--ignore=tests/postgres", "-k", "not in_postgres and not in_dicts")
"""The tests without those that are about PostgreSQL, and those of the ledger on it and on the storage in dicts: they take more than two
minutes. The ledger is tested in memory, psycopg by the tests of the storage."""


_ABOUT = """
import platform, sys
if sys.implementation.name == "cpython":
    print(platform.python_version() + getattr(sys, "abiflags", ""), sys.version_info[0], sys.version_info[1])
"""
_NEEDED = "import ensurepip, sqlite3, venv"
_VERIFY = """
from importlib.metadata import PackageNotFoundError, requires, version
from packaging.requirements import Requirement
from packaging.version import Version

checked = 0
for requirement in map(Requirement, requires("cronactors")):
    bounds = [Version(each.version) for each in requirement.specifier if each.operator == ">="]
    try:
        installed = Version(version(requirement.name))
    except PackageNotFoundError:
        continue  # of an extra that tests don't need
    if requirement.name != "cronactors":
        assert [installed] == bounds, f"{requirement}: {installed} is installed"
        checked += 1
assert checked > 10, checked
print(f"the lowest versions of {checked} requirements are installed")
"""


class Interpreter(NamedTuple):
    """A Python that was found."""

    version: str
    minor: tuple[int, int]
    path: Path


def candidates() -> Iterator[Path]:
    """Every file that may be an interpreter; some are scripts that fail, such as pyenv's for a version that isn't selected."""
    for folder in map(Path, os.get_exec_path()):
        for path in sorted(folder.glob("python3*")):
            if re.fullmatch(r"python3(\.\d+)?t?", path.name):
                yield path
    yield from sorted(pyenv_root().glob("versions/*/bin/python3"))


def pyenv_root() -> Path:
    """The folder of pyenv, which need not exist."""
    if given := os.environ.get("PYENV_ROOT"):
        return Path(given)
    try:
        done = subprocess.run(["pyenv", "root"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return Path("~/.pyenv").expanduser()
    return Path(done.stdout.strip())


def find() -> list[Interpreter]:
    """The interpreters that can run the tests, one for each version, oldest first."""
    found: dict[str, Interpreter] = {}
    for path in candidates():
        about = _output(path, _ABOUT).split()
        if len(about) != 3:  # noqa: PLR2004 - what the script prints
            continue
        version, minor = about[0], (int(about[1]), int(about[2]))
        if minor < OLDEST or version in found:
            continue
        if subprocess.run([path, "-c", _NEEDED], capture_output=True, check=False).returncode:
            print(f"{path}: left out, since it cannot do: {_NEEDED}")
            continue
        found[version] = Interpreter(version, minor, path)
    return sorted(found.values(), key=lambda each: (each.minor, each.version))


def _output(python: Path, code: str) -> str:
    try:
        return subprocess.run([python, "-c", code], capture_output=True, text=True, check=False, timeout=60).stdout
    except (OSError, subprocess.TimeoutExpired):
        return ""


def lowest(pyproject: Path) -> list[str]:
    """Constraints that hold every direct requirement, of the build too, at its lower bound.

    Raises:
        SystemExit: A requirement has no lower bound.
    """
    content = tomllib.loads(pyproject.read_text(encoding="utf-8"))
    project = content["project"]
    extras = [each for extra in project["optional-dependencies"].values() for each in extra]
    pins = []
    for requirement in [*content["build-system"]["requires"], *project["dependencies"], *extras]:
        if requirement.startswith(f"{project['name']}["):
            continue  # our own extras
        bounded = re.match(r"([\w.-]+)(?:\[[^]]*\])?\s*>=\s*([\w.]+)", requirement)
        if bounded is None:
            raise SystemExit(f"pyproject.toml: {requirement} has no lower bound")
        pins.append(f"{bounded[1]}=={bounded[2]}")
    return pins


def passes(interpreter: Interpreter, folder: Path) -> bool:
    """Whether the tests pass in a new environment in the folder."""
    home = folder / f"python {interpreter.version}"
    python = home / "bin" / "python"
    environment = {name: value for name, value in os.environ.items() if name not in {"PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV"}}
    if at_lowest := interpreter.minor == LOWEST_ON:
        constraints = folder / "lowest.txt"
        constraints.write_text("\n".join([*lowest(ROOT / "pyproject.toml"), ""]), encoding="utf-8")
        # As a URL: pip splits these values at spaces. The second one is for the build, from pip 25.3 on.
        for name in ("PIP_CONSTRAINT", "PIP_BUILD_CONSTRAINT"):
            environment[name] = " ".join(filter(None, [environment.get(name), constraints.as_uri()]))
    try:
        subprocess.run([interpreter.path, "-m", "venv", home], check=True, env=environment)
        subprocess.run([python, "-m", "pip", "install", "-q", "-e", ".[dev]"], check=True, env=environment, cwd=ROOT)
        if at_lowest:
            subprocess.run([python, "-c", _VERIFY], check=True, env=environment, cwd=home)
        subprocess.run([python, "-m", "pytest", "-q", *QUICK], check=True, env=environment, cwd=ROOT)
    except subprocess.CalledProcessError as failure:
        print(f"{' '.join(map(str, failure.cmd[1:4]))}: exit status {failure.returncode}", flush=True)
        return False
    return True


def main() -> None:
    """Run the tests; exit with 1 if they fail anywhere, or if there is nothing to run them on."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("version", nargs="?", default="", help="only this one: 3.N or 3.N.M")
    parser.add_argument(
        "--tested", default="", metavar="3.N.M", help="all tests have passed there already, on the newest versions"
    )
    options = parser.parse_args()
    found = find()
    chosen = [
        each
        for each in found
        if f"{each.version}.".startswith(f"{options.version}." if options.version else "")
        and (each.version != options.tested or each.minor == LOWEST_ON)
    ]
    if not any(each.minor == LOWEST_ON for each in found):
        print(f"no Python {'.'.join(map(str, LOWEST_ON))} here: the lowest versions are not tested")
    if not chosen and options.version:
        raise SystemExit(f"no Python {options.version} here; found: {', '.join(each.version for each in found) or 'none'}")
    failed = []
    with tempfile.TemporaryDirectory(prefix="cronactors pythons ") as folder:
        for interpreter in chosen:
            print(f"\n-- Python {interpreter.version}, {interpreter.path}", flush=True)
            if not passes(interpreter, Path(folder)):
                failed.append(interpreter.version)
    if failed:
        raise SystemExit(f"the tests fail on Python {', '.join(failed)}")
    print(f"the tests pass on: {', '.join(each.version for each in chosen) or 'no further Python'}")


if __name__ == "__main__":
    main()
