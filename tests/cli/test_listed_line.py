"""The line of a job in a file: exact where it is given, and None where it is not certain."""

from __future__ import annotations

import time
import tomllib
from pathlib import Path

import pytest
import trio
from click.testing import CliRunner
from hypothesis import given, strategies as st

from cronactors import JobContext, open_scheduler
from cronactors.cli.commands import cronactors
from cronactors.cli.listed_line import line_in_file, listed_line
from cronactors.cli.reload import Source
from cronactors.toml_text import toml_string, toml_value

CASES = {
    "a table": ('[[cron.jobs]]\nname = "a"\n', 1),
    "several tables": ('x = 1\n\n[[cron.jobs]]\nname = "b"\n# note\n[[cron.jobs]]\n\nname = "a"\n[[cron.jobs]]\nname = "c"', 6),
    "the name is not the first key": ('[[cron.jobs]]\nprompt = "a"\nname = "a"', 1),
    "quoted and spaced keys": ("\n  [[ \"cron\" . 'jobs' ]] # x\n'name' = 'a'", 2),
    "escapes in the header": ('\n[["\\u0063ron".jobs]]\nname = "a"', 2),
    "escapes in the name": ('\n\n[[cron.jobs]]\nname = "\\u0061"', 3),
    "a comment like a header": ('# [[cron.jobs]]\n#name = "a"\n[[cron.jobs]]\nname = "a"', 3),
    "a header in a string": (
        '[[cron.jobs]]\nname = "b"\nprompt = """\n[[cron.jobs]]\nname = "a"\n"""\n[[cron.jobs]]\nname = "a"',
        7,
    ),
    "a header in a literal": ("t = '''\n[[cron.jobs]]\nname = \"a\"\n'''\n[[cron.jobs]]\nname = \"a\"", 5),
    "a header in an array": ('[[cron.jobs]]\nname = "b"\ndata = [\n[[1]],\n]\n[[cron.jobs]]\nname = "a"', 6),
    "tables of others": ('[[agents]]\nname = "a"\n[[cron.jobs]]\nname = "a"\n[[cron.jobs.data.x]]\nname = "a"', 3),
    "a sub-table before": ('[[cron.jobs]]\nname = "b"\n[cron.jobs.data]\nname = "a"\n[[cron.jobs]]\nname = "a"', 5),
    "windows": ('\r\n[cron]\r\nexecutor = "shell"\r\n[[cron.jobs]]\r\nname = "a"\r\n', 4),
    "a line separator in a string": ('t = "\u2028\x85"\n[[cron.jobs]]\nname = "a"', 2),
    "inline": ('[cron]\njobs = [\n  {name = "b", prompt = "a"},\n  {prompt = "a",  name = "a"},\n]', 4),
    "inline in dotted keys": ('cron.executor = "shell"\ncron.jobs = [{name = "a"}]', 2),
    "inline in an inline table": ('# "a"\ncron = {jobs = [{prompt = "a", name = \'a\'}]}', 2),
    "inline with the name elsewhere": ('x = ["a", "a"]\n[cron]\njobs = [{data = {name = "a"}, name = """a"""}]', 3),
    "another user": ('[[cron.jobs]]\nname = "a"\nuser_id = "u"\n[[cron.jobs]]\nname = "a"', 4),
    "absent": ('[[cron.jobs]]\nname = "b"', None),
    "twice": ('[[cron.jobs]]\nname = "a"\n[[cron.jobs]]\nname = "a"', None),
    "no TOML": ('[[cron.jobs]]\nname = "a"\nx =', None),
    "no table": ("cron = 3", None),
    "no list": ('[cron.jobs]\nname = "a"', None),
    "no jobs": ("[cron]\njobs = [1, [2]]", None),
    "an inline name that cannot be found": ('[cron]\njobs = [{name = "\\U00000061"}]', None),
    "deep": ("x = " + "[" * 5000, None),
    "a long number": ("x = " + "9" * 5000, None),
}


@pytest.mark.parametrize("case", CASES)
def test_the_line_of_a_job(case: str) -> None:
    text, line = CASES[case]
    assert listed_line(text, "a", None) == line


def test_the_job_of_a_user() -> None:
    text = '[[cron.jobs]]\nname = "a"\n[[cron.jobs]]\nname = "a"\nuser_id = "u"\n[cron.x]'
    assert listed_line(text, "a", "u") == 3
    assert listed_line(text, "a", "v") is None


def test_a_file(tmp_path: Path) -> None:
    file = tmp_path / "agent.toml"
    assert line_in_file(file, "a", None) is None
    assert line_in_file(tmp_path, "a", None) is None
    file.write_bytes('\ufeff\n[[cron.jobs]]\nname = "a"'.encode())
    assert line_in_file(file, "a", None) == 2
    file.write_bytes(b"\xff")
    assert line_in_file(file, "a", None) is None
    file.write_bytes(b'[[cron.jobs]]\nname = "a"\n#' + b"x" * 1_000_000)
    assert line_in_file(file, "a", None) is None


def test_a_file_of_many_jobs_is_parsed_a_few_times_only() -> None:
    text = "".join(f'[[cron.jobs]]\nname = "job {number}"\nprompt = "echo"\n' for number in range(10_000))
    started = time.perf_counter()
    tomllib.loads(text)
    once = time.perf_counter() - started
    started = time.perf_counter()
    assert listed_line(text, "job 7000", None) == 21_001
    assert time.perf_counter() - started < 30 * once, "an upper bound against trying every line"


def test_a_refusal_names_the_line_of_a_listed_job_while_the_file_has_it(tmp_path: Path) -> None:
    file = tmp_path / "agent.toml"
    file.write_text('[cron]\n\n[[cron.jobs]]\nname = "a"\nprompt = "p"\ncron = "@daily"\n')
    loaded = Source(file=file, db=str(tmp_path / "jobs.db")).load()

    async def start() -> None:
        async def execute(_context: JobContext) -> None: ...

        async with open_scheduler(loaded.database, execute, config=loaded.config):
            pass

    trio.run(start)
    for args in (["update", "a", "--timeout", "1m"], ["remove", "a", "--yes"]):
        refused = CliRunner().invoke(cronactors, [*args, "--db", loaded.database])
        assert str(refused.exception).endswith(f"the next start would undo that: edit {file}, line 3")
    file.write_text("[cron]\n")
    refused = CliRunner().invoke(cronactors, ["remove", "a", "--yes", "--db", loaded.database])
    assert str(refused.exception).endswith(f"the next start would undo that: edit {file}")


# Files that are made up

_TRAPS = ["[[cron.jobs]]", '[[cron.jobs]]\nname = "b"', "a", '"a"', "'a'", 'name = "a"', "a\n# x", "[[x]]", "é\u2028\x85", "\\"]
_TEXTS = st.one_of(st.sampled_from(_TRAPS), st.text(max_size=8).filter(lambda text: "\r" not in text and text.isprintable()))
_COMMENTS = st.sampled_from(["", "# [[cron.jobs]]\n", '# name = "a"\n', "\n", " \t\n"])
_HEADERS = st.sampled_from(["[[cron.jobs]]", "[[ cron.jobs ]]", "[['cron'.\"jobs\"]]  # [[x]]", "\t[[cron .jobs]]"])


@st.composite
def files(draw: st.DrawFn) -> tuple[str, list[tuple[str, int]]]:
    """A file, and its jobs, each with the line that is to be found."""
    names = draw(st.lists(st.one_of(st.sampled_from(["a", "b", "name", "[[cron.jobs]]"]), _TEXTS), unique=True, max_size=5))
    inline = draw(st.booleans())
    text = draw(_COMMENTS) + f"note = {toml_string(draw(_TEXTS))}\n"
    for _ in range(draw(st.integers(0, 2))):
        text += f"[[agents]]\nname = {toml_string(draw(_TEXTS))}\n"
    jobs = []
    if inline:
        text += "[cron]\njobs = [\n"
    for name in names:
        prompt = draw(_TEXTS)
        if inline:
            text += draw(_COMMENTS)
            fields = draw(st.permutations([f"name = {toml_value([name])[1:-1]}", f"prompt = {toml_value([prompt])[1:-1]}"]))
            jobs.append((name, text.count("\n") + 1))
            text += f"  {{ {', '.join(fields)} }},\n"
        else:
            jobs.append((name, text.count("\n") + 1))
            text += draw(_HEADERS) + "\n" + draw(_COMMENTS)
            fields = [f"name = {toml_string(name)}\n", f"prompt = {toml_string(prompt)}\n"]
            text += "".join(draw(st.permutations(fields)))
            text += draw(st.sampled_from(["", "data = [\n[[1]],\n[\n]\n]\n", '[cron.jobs.data]\nname = "a"\n']))
    if inline:
        text += "]\n"
    return text, jobs


@given(files())
def test_the_lines_of_a_made_up_file(made: tuple[str, list[tuple[str, int]]]) -> None:
    text, jobs = made
    tomllib.loads(text)
    for name, line in jobs:
        found = listed_line(text, name, None)
        assert found == line or (found is None and "jobs = [" in text)
        assert listed_line(text.replace("\n", "\r\n"), name, None) in (line, None)
