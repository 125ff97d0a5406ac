"""Reading agent.toml: every key, and an error for every mistake."""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings, strategies as st

from cronactors.config_file import MAX_FILE, check_jobs_for_shell, load_config
from cronactors.errors import InvalidConfig, InvalidJob, InvalidSchedule
from cronactors.model import Coalesce, Misfire, Overlap, SessionMode
from cronactors.retention import History
from cronactors.schedules.schedule import Cron, Interval, OneShot
from cronactors.settings import CronConfig, RetryPolicy
from cronactors.spec import Delay, JobSpec

FULL = """
timezone = "Europe/Rome"
model = "something of the agent"

[tools]
unknown = "to us"

[cron]
database = "data/agent.db"
executor = "package.module:function"
default_max_retries = 5
default_timeout_secs = 60.5
max_concurrent_runs = 4
max_concurrent_runs_total = 8
cancel_grace = 1
overdue_after = 60.5
retry_delays = [1, 2.5]
history = { days = 30.5, per_job = false, keep_last = 10 }

[[cron.jobs]]
name = "all"
prompt = "Summarize\\novernight"
cron = "0 0 9 * * *"
delete_after_run = true
timezone = "Asia/Tokyo"
max_retries = 0
timeout_secs = 1.5
session_mode = "main"
user_id = "u"
overlap = "allow_all"

[[cron.jobs]]
name = "every"
prompt = "p"
every_ms = 2000

[[cron.jobs]]
name = "delay"
prompt = "p"
in_secs = 1.5

[[cron.jobs]]
name = "text"
prompt = "p"
at = "2030-01-01 09:00"

[[cron.jobs]]
name = "offset"
prompt = "p"
at = 2030-01-01T09:00:00+02:00

[[cron.jobs]]
name = "local"
prompt = "p"
at = 2030-01-01T09:00:00

[other.table]
x = 1
"""

JOB = '[[cron.jobs]]\nname = "a"\nprompt = "p"\n'


@pytest.fixture
def write(tmp_path):
    def write(text: str | bytes) -> Path:
        file = tmp_path / "agent.toml"
        file.write_bytes(text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass"))
        return file

    return write


def test_every_key_is_read(write, tmp_path):
    config = load_config(write(FULL))
    assert config == CronConfig(
        timezone="Europe/Rome",
        default_max_retries=5,
        default_timeout_secs=60.5,
        max_concurrent_runs=4,
        max_concurrent_runs_total=8,
        cancel_grace=1,
        overdue_after=60.5,
        retry=RetryPolicy((1, 2.5)),
        history=History(days=30.5, per_job=None, keep_last=10),
        database=str(tmp_path / "data" / "agent.db"),
        executor="package.module:function",
        file=str(tmp_path / "agent.toml"),
        jobs=(
            JobSpec(
                "all",
                "Summarize\novernight",
                Cron("0 0 9 * * *"),
                delete_after_run=True,
                timezone="Asia/Tokyo",
                max_retries=0,
                timeout_secs=1.5,
                session_mode=SessionMode.MAIN,
                user_id="u",
                overlap=Overlap.ALLOW_ALL,
            ),
            JobSpec("every", "p", Interval(2000)),
            JobSpec("delay", "p", Delay(1.5)),
            JobSpec("text", "p", OneShot("2030-01-01 09:00")),
            JobSpec("offset", "p", OneShot("2030-01-01T09:00:00+02:00")),
            JobSpec("local", "p", OneShot("2030-01-01T09:00:00")),
        ),
    )


@pytest.mark.parametrize(
    "text", ["", "# nothing", "[cron]", "[[cron.jobs]]\n"[:0], 'timezone = "UTC"', "[crom]\nx = 1", "\ufeff[cron]\n"]
)
def test_an_empty_file_gives_the_defaults(write, tmp_path, text):
    assert load_config(write(text)) == CronConfig(file=str(tmp_path / "agent.toml"))


def test_paths_are_relative_to_the_file_in_any_working_directory(write, tmp_path, monkeypatch):
    write('[cron]\ndatabase = "../x.db"')
    (tmp_path / "sub").mkdir()
    monkeypatch.chdir(tmp_path / "sub")
    config = load_config("../agent.toml")
    assert config.file == str(tmp_path / "agent.toml")
    assert config.database == str(tmp_path.parent / "x.db")


def test_the_database_may_be_absolute_or_in_memory(write, tmp_path):
    assert load_config(write(f'[cron]\ndatabase = "{tmp_path}/y.db"')).database == f"{tmp_path}/y.db"
    assert load_config(write('[cron]\ndatabase = ":memory:"')).database == ":memory:"


def test_a_link_keeps_its_own_name(write, tmp_path):
    (tmp_path / "linked.toml").symlink_to(write("[cron]"))
    assert load_config(tmp_path / "linked.toml").file == str(tmp_path / "linked.toml")


def test_two_users_may_have_jobs_of_the_same_name(write):
    assert len(load_config(write(f'{JOB}every_ms = 1\n{JOB}user_id = "u"\nevery_ms = 1')).jobs) == 2


@pytest.mark.parametrize(
    ("text", "data"),
    [
        ('data = { warn_above = 0.9, disks = ["/", "/home"] }', {"warn_above": 0.9, "disks": ["/", "/home"]}),
        ("[cron.jobs.data]\nnested.list = [1, { x = true }]", {"nested": {"list": [1, {"x": True}]}}),
        ("data = [1, 2]", [1, 2]),
        ('data = "text"', "text"),
        ("data = 0", 0),
    ],
)
def test_data_of_a_job_is_any_value_of_toml_that_json_has(write, text, data):
    (job,) = load_config(write(f"{JOB}every_ms = 1\n{text}")).jobs
    assert job.data == data


def test_tags_and_the_description_of_a_job(write):
    (job,) = load_config(write(f'{JOB}every_ms = 1\ntags = ["b", "a", "b"]\ndescription = "What it is for"')).jobs
    assert (job.tags, job.description) == (("a", "b"), "What it is for")


BASH = {"shell": "/bin/bash"}


def test_shell_of_the_file_and_of_a_job(write):
    own = JOB.replace('"a"', '"b"')
    text = f'[cron]\nexecutor = "shell"\nshell = "/bin/bash"\n{JOB}every_ms = 1\n{own}every_ms = 1\nshell = "/bin/zsh"'
    assert [job.executor_options for job in load_config(write(text)).jobs] == [BASH, {"shell": "/bin/zsh"}]
    text = f'{JOB}every_ms = 1\nshell = "/bin/bash"\n{own}every_ms = 1'
    assert [job.executor_options for job in load_config(write(text)).jobs] == [BASH, {}]


SHELL = '[cron]\nexecutor = "shell"\n'


@pytest.mark.parametrize("character", ["x", "ü", "名"])
def test_a_prompt_is_at_most_as_long_as_linux_passes_to_a_shell(write, character):
    most = 131_071 // len(character.encode())
    fits, too_long = (
        f"{JOB.replace(chr(34) + 'p' + chr(34), chr(34) + character * size + chr(34))}every_ms = 1" for size in (most, most + 1)
    )
    assert len(load_config(write(SHELL + fits)).jobs[0].prompt) == most
    with pytest.raises(
        InvalidJob, match="agent.toml: job 'a': prompt is too long for a shell: 131,07[0-9] bytes, .* less than 131,072"
    ) as caught:
        load_config(write(SHELL + too_long))
    assert character * 9 not in str(caught.value)
    for other in ("", '[cron]\nexecutor = "a:b"\n'):
        config = load_config(write(other + too_long))
        with pytest.raises(InvalidJob, match="agent.toml: job 'a': prompt is too long for a shell"):
            check_jobs_for_shell(config)


MISUSE = [
    # the file as a whole
    ("[cron", InvalidConfig, "is not TOML: .*line 1"),
    ("a = 1\n\n[cron]\nb = ", InvalidConfig, "is not TOML: .*line 4"),
    (b"# \xff", InvalidConfig, r"is not UTF-8 text \(line 1\)"),
    (b"\n\n\xe9", InvalidConfig, r"is not UTF-8 text \(line 3\)"),
    ("x = " + "[" * 5000, InvalidConfig, "is not TOML"),
    ("x = " + "9" * 5000, InvalidConfig, "is not TOML"),
    (b"#" * (MAX_FILE + 1), InvalidConfig, "is too big, at most 10,000,000 bytes"),
    # the top
    ("timezone = 3", InvalidConfig, "timezone must be text, not int"),
    ('timezone = "Europe/Rom"', InvalidConfig, "timezone 'Europe/Rom' is not .*Europe/Rome"),
    ("cron = 3", InvalidConfig, r"cron must be a table: write \[cron\], not cron = 3"),
    ("[[cron]]", InvalidConfig, "cron must be a table"),
    # the table
    (
        "[cron]\nmax_concurent_runs = 3",
        InvalidConfig,
        r"\[cron\]: unknown key 'max_concurent_runs': did you mean max_concurrent_runs?",
    ),
    (
        "[cron]\nzzz = 3",
        InvalidConfig,
        r"\[cron\]: unknown key 'zzz': known are default_max_retries, .*database, retry_delays, history, shell, jobs",
    ),
    ('[cron]\ntimezone = "UTC"', InvalidConfig, "unknown key 'timezone': write it at the top"),
    ("[cron]\ndefault_max_retries = -1", InvalidConfig, r"\[cron\]: default_max_retries must be 0 to 1,000, not -1"),
    ("[cron]\ndefault_max_retries = true", InvalidConfig, "default_max_retries must be a whole number, not bool"),
    ("[cron]\ndefault_timeout_secs = nan", InvalidConfig, "default_timeout_secs must be .*not nan"),
    ("[cron]\ndefault_timeout_secs = 0", InvalidConfig, "default_timeout_secs must be .*not 0"),
    ("[cron]\nmax_concurrent_runs = 1.0", InvalidConfig, "max_concurrent_runs must be a whole number, not float"),
    ("[cron]\nmax_concurrent_runs_total = 0", InvalidConfig, "max_concurrent_runs_total must be 1 to .*not 0"),
    ("[cron]\noverdue_after = 0", InvalidConfig, "overdue_after must be .*not 0"),
    ("[cron]\ncancel_grace = -1", InvalidConfig, "cancel_grace must be .*not -1"),
    ("[cron]\nexecutor = 3", InvalidConfig, "executor must be text, not int"),
    ('[cron]\nexecutor = ""', InvalidConfig, "executor must not be empty"),
    ("[cron]\ndatabase = 3", InvalidConfig, "database must be text, not int"),
    ('[cron]\ndatabase = ""', InvalidConfig, "database must not be empty"),
    ('[cron]\ndatabase = "a\\u0000b"', InvalidConfig, "database contains a NUL"),
    ("[cron]\nretry_delays = 3", InvalidConfig, "retry_delays must be a list of seconds, not 3"),
    ("[cron]\nretry_delays = []", InvalidConfig, "retry_delays: .*at least one"),
    ('[cron]\nretry_delays = ["x"]', InvalidConfig, "retry_delays: .*not str"),
    ("[cron]\nretry_delays = [-1]", InvalidConfig, "retry_delays: .*not -1"),
    ("[cron]\nshell = 3", InvalidConfig, r"\[cron\]: shell must be text, not int"),
    ('[cron]\nshell = ""', InvalidConfig, r"\[cron\]: shell must not be empty"),
    ('[cron]\nshell = "bash"', InvalidConfig, r"\[cron\]: shell must be an absolute path, not 'bash': write '/bin/bash'"),
    ('[cron]\nshell = "/bin/\\u0000"', InvalidConfig, r"\[cron\]: shell contains a NUL"),
    ('[cron]\nexecutor = "a:b"\nshell = "/bin/bash"', InvalidConfig, "shell is for executor = \"shell\", not for executor 'a:b'"),
    # the list of jobs
    ("[cron]\njobs = 3", InvalidConfig, r"jobs must be a list of tables: write \[\[cron.jobs\]\], not 3"),
    ('[cron.jobs]\nname = "a"', InvalidConfig, "jobs must be a list of tables"),
    ("[cron]\njobs = [3]", InvalidConfig, "job 1 must be a table"),
    ("[[cron.job]]", InvalidConfig, "unknown key 'job': did you mean jobs?"),
    (f"{JOB}every_ms = 1\n" * 2, InvalidConfig, "job 'a': name 'a' is given twice, to the jobs 1 and 2"),
    ("[cron]\njobs = [" + "{}," * 10_001 + "]", InvalidConfig, "jobs has too many items: 10,001"),
    # a job
    ("[[cron.jobs]]", InvalidJob, "job 1: name is missing"),
    (f"{JOB}every_ms = 1\n[[cron.jobs]]\nname = ''", InvalidJob, "job 2: prompt is missing"),
    ('[[cron.jobs]]\nname = ""\nprompt = "p"\nevery_ms = 1', InvalidJob, "job 1: name must not be empty"),
    ('[[cron.jobs]]\nname = 3\nprompt = "p"\nevery_ms = 1', InvalidJob, "job 1: name must be text, not int"),
    ('[[cron.jobs]]\nname = "a\\nb"\nprompt = "p"\nevery_ms = 1', InvalidJob, "job .*: name must be printable"),
    ('[[cron.jobs]]\nname = "a"\nprompt = 3\nevery_ms = 1', InvalidJob, "job 'a': prompt must be text"),
    (f"{JOB}promt = 3", InvalidConfig, "job 'a': unknown key 'promt': did you mean prompt?"),
    (JOB, InvalidJob, "job 'a': exactly one of cron, every_ms, at, in_secs is needed, not none"),
    (f'{JOB}cron = "* * * * *"\nat = "x"', InvalidJob, r"job 'a': exactly one of .* is needed, not 2 \(cron, at\)"),
    (f"{JOB}every_ms = 0", InvalidSchedule, "job 'a': every_ms must be 1 to .*not 0"),
    (f"{JOB}every_ms = 1.5", InvalidSchedule, "job 'a': every_ms must be a whole number, not float"),
    (f"{JOB}every_ms = 0x{'f' * 5000}", InvalidSchedule, "job 'a': every_ms must be"),
    (f'{JOB}cron = "61 * * * *"', InvalidSchedule, "job 'a': cron: .*61"),
    (f"{JOB}cron = 5", InvalidSchedule, "job 'a': cron: .*must be text, not int"),
    (f'{JOB}at = "tomorrow"', InvalidSchedule, "job 'a': at .*tomorrow"),
    (f"{JOB}at = 2030-01-01", InvalidSchedule, "job 'a': at must be text, not date"),
    (f"{JOB}at = 09:00:00", InvalidSchedule, "job 'a': at must be text, not time"),
    (f"{JOB}in_secs = -1", InvalidJob, "job 'a': in_secs must be .*not -1"),
    (f"{JOB}in_secs = nan", InvalidJob, "job 'a': in_secs must be .*not nan"),
    (f'{JOB}in_secs = "1"', InvalidJob, "job 'a': in_secs must be a number, not str"),
    (f"{JOB}every_ms = 1\ndelete_after_run = 1", InvalidJob, "job 'a': delete_after_run must be True or False, not 1"),
    (f'{JOB}every_ms = 1\ntimezone = "Mars"', InvalidJob, "job 'a': timezone 'Mars' is not"),
    (f"{JOB}every_ms = 1\nmax_retries = -1", InvalidJob, "job 'a': max_retries must be 0 to 1,000, not -1"),
    (f"{JOB}every_ms = 1\ntimeout_secs = 0", InvalidJob, "job 'a': timeout_secs must be .*not 0"),
    (f'{JOB}every_ms = 1\nsession_mode = "mine"', InvalidJob, "job 'a': session_mode must be one of isolated, main, not 'mine'"),
    (f"{JOB}every_ms = 1\nsession_mode = [1]", InvalidJob, "job 'a': session_mode must be one of"),
    (f'{JOB}every_ms = 1\nuser_id = ""', InvalidJob, "job 'a': user_id must not be empty"),
    (f'{JOB}every_ms = 1\noverlap = "buffer_two"', InvalidJob, "job 'a': overlap must be one of"),
    (f"{JOB}every_ms = 1\ndata = {{ day = 2026-01-01 }}", InvalidJob, r"job 'a': data\['day'\] must be a JSON value, not date"),
    (f"{JOB}every_ms = 1\ndata = nan", InvalidJob, "job 'a': data must be a finite number"),
    (f'{JOB}every_ms = 1\ntags = "x"', InvalidJob, "job 'a': tags must be a list of text, not str"),
    (f"{JOB}every_ms = 1\ntags = [1]", InvalidJob, r"job 'a': tags\[0\] must be text, not int"),
    (f"{JOB}every_ms = 1\ndescription = 1", InvalidJob, "job 'a': description must be text, not int"),
    (f'{JOB}every_ms = 1\nmisfire = "all"', InvalidJob, "job 'a': misfire must be a table"),
    (
        f"{JOB}every_ms = 1\nmisfire = {{ window = 5 }}",
        InvalidConfig,
        "job 'a': misfire: unknown key 'window': did you mean window_secs",
    ),
    (f"{JOB}every_ms = 1\nmisfire = {{ window_secs = -1 }}", InvalidJob, "job 'a': misfire: window_secs must be"),
    (f"{JOB}every_ms = 1\nmisfire = {{ max_runs = 0 }}", InvalidJob, "job 'a': misfire: misfire max_runs must be"),
    (f'{JOB}every_ms = 1\nshell = "bash"', InvalidJob, "job 'a': shell must be an absolute path, not 'bash'"),
    (f"{JOB}every_ms = 1\nshell = []", InvalidJob, "job 'a': shell must be text, not list"),
    (f'{JOB}every_ms = 1\nshel = "/bin/bash"', InvalidConfig, "job 'a': unknown key 'shel': did you mean shell?"),
    (
        f'[cron]\nexecutor = "a:b"\n{JOB}every_ms = 1\nshell = "/bin/bash"',
        InvalidConfig,
        "job 'a': shell is for executor",
    ),
    (f"{JOB}every_ms = 1\noverlap = {{}}", InvalidJob, "job 'a': overlap must be one of"),
]


@pytest.mark.parametrize(("text", "error", "message"), MISUSE)
def test_an_error_names_file_key_and_value(write, text, error, message):
    with pytest.raises(error, match=message) as caught:
        load_config(write(text))
    assert "agent.toml: " in str(caught.value)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) <= 500
    assert type(caught.value) is error


def test_a_file_that_cannot_be_read(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to("loop")
    for path, message in [
        (tmp_path, "is not a file"),
        (tmp_path / "pipe", "is not a file"),
        (tmp_path / "absent.toml", "cannot be read: No such file"),
        (tmp_path / "loop", "cannot be read"),
        (tmp_path / "pipe" / "below", "cannot be read: Not a directory"),
        (tmp_path / ("x" * 300), "cannot be read: File name too long"),
        ("", "path must not be empty"),
        ("a\0b", "path contains a NUL"),
        (b"bytes", "path must be text, not bytes"),
        (3, "path must be a path, not 3"),
        (None, "path must be a path, not None"),
    ]:
        with pytest.raises(InvalidConfig, match=message):
            load_config(path)


def test_an_error_shows_the_end_of_a_long_path(tmp_path):
    folder = tmp_path / ("x" * 100) / ("y" * 100)
    folder.mkdir(parents=True)
    (folder / "agent.toml").write_text("[cron]\nzzz = 1")
    with pytest.raises(InvalidConfig, match=r"^….*agent.toml: \[cron\]: unknown key 'zzz'"):
        load_config(folder / "agent.toml")


TEXT = st.text(max_size=8)
VALUES = st.recursive(
    st.one_of(
        st.booleans().map(lambda value: str(value).lower()),
        st.integers().map(str),
        st.floats().map(lambda value: str(value).replace("e+", "e")),
        TEXT.map(lambda text: '"' + "".join(f"\\U{ord(char):08x}" for char in text if not "\ud800" <= char <= "\udfff") + '"'),
        st.sampled_from(
            ["2030-01-01T00:00:00Z", "1979-05-27", "07:32:00", '"* * * * *"', '"UTC"', '"main"', '"2030-01-01T00:00"']
        ),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(lambda items: f"[{', '.join(items)}]"),
        inner.map(lambda item: f"{{ x = {item} }}"),
    ),
    max_leaves=3,
)
KEYS = st.one_of(
    st.sampled_from(
        ["name", "prompt", "cron", "every_ms", "at", "in_secs", "delete_after_run", "timezone", "max_retries", "timeout_secs"]
    ),
    st.sampled_from(
        ["session_mode", "user_id", "overlap", "database", "executor", "retry_delays", "jobs", "cancel_grace", "nonsense"]
    ),
)
TABLES = st.dictionaries(KEYS, VALUES, max_size=6).map(
    lambda table: "".join(f"{key} = {value}\n" for key, value in table.items())
)
HEADS = st.sampled_from(["", "[cron]\n", "[[cron.jobs]]\n", JOB, f"{JOB}every_ms = 1\n", "[cron.jobs]\n", "[[cron]]\n"])
FILES = st.lists(st.tuples(HEADS, TABLES).map("".join), max_size=3).map("".join)


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    st.one_of(
        FILES.map(str.encode), st.binary(max_size=60), st.text(alphabet='[]{}=."\n\\ua1-:Tcronjbs ', max_size=60).map(str.encode)
    )
)
@example(b"x = 0000-00-00T00:00:00Z")
@example(b'"\\ud800" = 1')
def test_any_content_gives_a_config_or_a_cron_error(write, content):
    outcome: CronConfig | Exception
    try:
        outcome = load_config(write(content))
    except Exception as problem:
        outcome = problem
    if isinstance(outcome, CronConfig):
        return
    assert type(outcome) in {InvalidConfig, InvalidJob, InvalidSchedule}
    assert "agent.toml: " in str(outcome)
    assert type(outcome) is InvalidConfig or "job " in str(outcome)


def test_misfire_and_overlap_of_a_job_are_read(tmp_path):
    file = tmp_path / "agent.toml"
    misfire = 'misfire = { window_secs = 90.5, coalesce = "all", max_runs = 5 }'
    file.write_text(f'{JOB}every_ms = 1\noverlap = "cancel_other"\n{misfire}\n', encoding="utf-8")
    (spec,) = load_config(file).jobs
    assert spec.overlap is Overlap.CANCEL_OTHER
    assert spec.misfire == Misfire(window=timedelta(seconds=90.5), coalesce=Coalesce.ALL, max_runs=5)
