"""The options of the executor ``shell``."""

from __future__ import annotations

import os

import pytest

from cronactors.errors import InvalidJob
from cronactors.model import JobResult
from cronactors.shell.executor import CommandFailed, shell_executor
from cronactors.testing import make_context

pytestmark = pytest.mark.skipif(os.name != "posix", reason="needs a POSIX shell")


async def test_a_job_chooses_its_shell(tmp_path):
    execute = shell_executor(tmp_path)
    result = await execute(make_context("echo ${BASH_VERSION:+bash} ${0}", executor_options={"shell": "/bin/bash"}))
    assert isinstance(result, JobResult)
    assert result.summary == "bash /bin/bash"


async def test_an_absent_shell_fails_the_run(tmp_path):
    with pytest.raises(CommandFailed, match=r"'/bin/absent' cannot be started in .*: No such file"):
        await shell_executor(tmp_path)(make_context("true", executor_options={"shell": "/bin/absent"}))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shel": "/bin/bash"}, "executor_options: unknown key 'shel': did you mean shell"),
        ({"shell": "bash"}, "executor_options: shell must be an absolute path, not 'bash'"),
        ({"shell": 5}, "executor_options: shell must be text, not int"),
    ],
)
async def test_unknown_options_fail_the_run(tmp_path, options, message):
    with pytest.raises(InvalidJob, match=message):
        await shell_executor(tmp_path)(make_context("true", executor_options=options))
