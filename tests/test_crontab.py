"""The translation of crontabs: each rule of Debian's crontab(5), and that any text becomes a file that is accepted."""

from __future__ import annotations

import os
import subprocess
import tempfile
import tomllib
from pathlib import Path

import pytest
from hypothesis import example, given, settings, strategies as st

from cronactors.config_file import MAX_FILE, load_config
from cronactors.crontab import MAX_RESULT, translate_crontab
from cronactors.crontab_command import name_of_command, shell_command, split_input
from cronactors.errors import InvalidConfig
from cronactors.settings import CronConfig
from cronactors.toml_text import toml_comment, toml_string, toml_value


def translate(text: str, **options: object) -> str:
    return translate_crontab(text, **options).text


def jobs_of(text: str, **options: object) -> list[dict[str, object]]:
    """The jobs of the translation, without their names."""
    found = tomllib.loads(translate(text, **options))["cron"].get("jobs", [])
    return [{key: value for key, value in job.items() if key != "name"} for job in found]


def comments_of(text: str, **options: object) -> list[str]:
    """The comments below the table [cron]."""
    lines = translate(text, **options).splitlines()
    return [line.removeprefix("# ") for line in lines[lines.index("[cron]") :] if line.startswith("#")]


def accepted(text: str) -> CronConfig:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "agent.toml"
        file.write_bytes(text.encode())
        return load_config(file)


def test_numbers() -> None:
    found = translate_crontab("UID=1\n@daily a\n@daily b &\n0 0 */2 * 1 c &\n@reboot d\n0 0 * * *")
    assert (found.jobs, found.left_out, found.different) == (3, 3, 2)
    found = translate_crontab("# a\nA=1\n@daily a\n")
    assert (found.jobs, found.left_out, found.different) == (1, 0, 0)


# Times


@pytest.mark.parametrize(
    ("line", "expr"),
    [
        ("5 0 * * * x", "5 0 * * *"),
        ("  \t5\t0  *\t* *   x", "5 0 * * *"),
        ("*/15 9-17/2 1,15 jan-MAR mon-FRI x", "*/15 9-17/2 1,15 jan-MAR mon-FRI"),
        ("0 4 8-14 * 7 x", "0 4 8-14 * 7"),
        *[(f"{alias} x", alias) for alias in ("@hourly", "@daily", "@midnight", "@weekly", "@monthly", "@yearly", "@annually")],
    ],
)
def test_times(line: str, expr: str) -> None:
    assert jobs_of(line) == [{"prompt": "x", "cron": expr}]


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("@reboot /srv/start", "expr '@reboot': @reboot is not a time"),
        ("@often x", "expr '@often': '@often' is unknown"),
        ("60 * * * * x", "expr '60 * * * *': minute '60' is not in 0 to 59"),
        ("0 22-4 * * * x", "expr '0 22-4 * * *': hour '22-4': the range goes backwards"),
        ("0 0 31 2 * x", "expr '0 0 31 2 *': there is no such date"),
        ("0~30 * * * * x", "expr '0~30 * * * *'"),
        ("0 0 * * *", "there is no command after the time"),
        ("0 0 * * *  ", "there is no command after the time"),
        ("0 0 * * * %x", "there is no command after the time"),
        ("0 0 * *", "a line has five fields, or one such as @daily, and a command; or it is NAME = value"),
        ("nonsense", "a line has five fields"),
        ("0\x0b1 2 3 4 5 x", "there is white space in a field"),
        ("0 0 * * * a\x00b", "prompt contains a NUL character"),
        ("0 0 * * * a\udcffb", "prompt contains a lone surrogate"),
        (f"0 0 * * * {'x' * 131_072}", "prompt is too long for a shell"),
    ],
)
def test_a_line_that_cannot_be_translated_stays_with_the_reason(line: str, why: str) -> None:
    found = comments_of(f"0 1 * * * before\n{line}\n0 2 * * * after")
    assert found[0].startswith(f"not translated: {why}"), found
    assert found[1] == toml_comment(line).removeprefix("# ")
    assert [job["prompt"] for job in jobs_of(f"0 1 * * * before\n{line}\n0 2 * * * after")] == ["before", "after"]


def test_days_that_debian_reads_otherwise() -> None:
    (found,) = comments_of("0 0 */2 * 1 x")
    assert found.startswith("star-step-day: day of month '*/2' and day of week '1': it runs on the days of either; Debian's cron")
    assert comments_of("0 0 1,15 * 5 x") == [], "either matches, in both"
    assert comments_of("0 0 * * 1 x") == []


# Commands


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("echo 'a\"b' # c", "echo 'a\"b' # c"),
        (r"date +\%F", "date +%F"),
        (r"date +\\%F", r"date +\%F"),
        (r"printf '\n'", r"printf '\n'"),
        ("cat%", "cat"),
        ("cat%Hello%%World", "printf '%s\\n' 'Hello' '' 'World' | /bin/sh -c cat\n"),
        (r"cat%100\%", "printf '%s\\n' '100%' | /bin/sh -c cat\n"),
    ],
)
def test_percent(command: str, expected: str) -> None:
    assert jobs_of(f"0 0 * * * {command}") == [{"prompt": expected, "cron": "0 0 * * *"}]


def cron_splits(text: str) -> tuple[str, str | None]:
    r"""What do_command.c does, character by character: ``\%`` is ``%``, ``\x`` is ``\x``, and ``%`` ends the command or a line."""

    def read(text: str, *, ends: bool) -> tuple[str, str]:
        out, escaped = "", False
        for at, char in enumerate(text):
            if escaped:
                out += "" if char == "%" else "\\"
            elif char == "%":
                if ends:
                    return out, text[at + 1 :]
                out += "\n"
                continue
            escaped = char == "\\"
            out += "" if escaped else char
        return out + ("\\" if escaped else ""), ""

    command, rest = read(text, ends=True)
    given, _ = read(rest, ends=False)
    return command, (given if given.endswith("\n") else f"{given}\n") if rest else None


@given(st.text(alphabet="a\\% '\"", max_size=12))
@example("\\\\%a")
def test_percent_as_in_the_source_of_cron(text: str) -> None:
    assert split_input(text) == cron_splits(text)


words = st.text(alphabet="ab \"'\\$`!*~é", max_size=8)


@settings(max_examples=40, deadline=None)
@given(
    variables=st.dictionaries(st.sampled_from(["A", "B_1", "BASH_ENV", "IFS"]), words, max_size=3),
    given_lines=st.none() | st.lists(words, min_size=1, max_size=3),
    shell=st.sampled_from(["/bin/sh", "/bin/bash", "/usr/bin/env"]),
)
def test_a_shell_reads_what_cron_would_give_the_command(
    variables: dict[str, str], given_lines: list[str] | None, shell: str
) -> None:
    if shell == "/usr/bin/env":  # no shell: `env -c` fails, so its message shows what it was given
        variables = {**variables, "A": "1"}
    if "BASH_ENV" in variables:
        variables = {**variables, "BASH_ENV": "/dev/null"}
    command = 'printf "%s|" "$A" "$B_1" "$BASH_ENV"; cat'
    given_input = None if given_lines is None else "".join(f"{line}\n" for line in given_lines)
    written = shell_command(command, given_input, variables, shell)
    plain = {"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8"}
    ours = subprocess.run(
        [written.shell or "/bin/sh", "-c", written.prompt], env=plain, stdin=subprocess.DEVNULL, capture_output=True, check=False
    )
    theirs = subprocess.run(
        [shell, "-c", command], env={**plain, **variables}, input=(given_input or "").encode(), capture_output=True, check=False
    )
    assert (ours.returncode, ours.stdout, ours.stderr) == (theirs.returncode, theirs.stdout, theirs.stderr)


def test_the_exit_status_of_a_command_with_input_is_its_own() -> None:
    written = shell_command("read line; exit 3", "a\nb\n", {"A": "1"}, "/bin/sh")
    assert subprocess.run(["/bin/sh", "-c", written.prompt], check=False).returncode == 3


def test_a_backslash_at_the_end_stays_one() -> None:
    written = shell_command("printf %s a\\", None, {"A": "1"}, "/bin/sh")
    plain = subprocess.run(["/bin/sh", "-c", "printf %s a\\"], capture_output=True, check=True).stdout
    assert subprocess.run(["/bin/sh", "-c", written.prompt], capture_output=True, check=True).stdout == plain


def test_home_is_the_folder(tmp_path: Path) -> None:
    written = shell_command("pwd", None, {"HOME": str(tmp_path)}, "/bin/sh")
    assert subprocess.run(["/bin/sh", "-c", written.prompt], capture_output=True, text=True, check=True).stdout == f"{tmp_path}\n"


def test_a_command_in_the_background_is_a_difference() -> None:
    (found,) = comments_of("0 0 * * * ./serve &")
    assert found.startswith("background-command: ")
    (found,) = comments_of("0 0 * * * ./x &> log")
    assert found.startswith("bash-redirect: ")
    assert comments_of("SHELL=/bin/bash\n0 0 * * * ./x &> log") == []
    assert comments_of(r"0 0 * * * date +\%F") == [], "a % has been translated"


# Variables


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("A=b", "b"),
        ("A = b c  ", "b c"),
        ("  A\t=\tb", "b"),
        ('A=" b "', " b "),
        ("A=' b ' \t", " b "),
        ('"A"=b', "b"),
        ("'A' = b", "b"),
        ("A=", ""),
        ('A=""', ""),
        ("A=$B/x", "$B/x"),
        ("A=it's", "it's"),
        ("A=b # c", "b # c"),
        ("A=b=c", "b=c"),
        ("A=b%c", "b%c"),
    ],
)
def test_variables(line: str, value: str) -> None:
    (job,) = jobs_of(f'{line}\n0 0 * * * printf "\\%s" "[$A]"')
    assert str(job["prompt"]).startswith("export A='")
    assert (
        subprocess.run(["/bin/sh", "-c", str(job["prompt"])], capture_output=True, text=True, check=True).stdout == f"[{value}]"
    )


@pytest.mark.parametrize("line", ['A="b" c', 'A="b', "A b=c", "=b", '"A=b', '"A=b"=c'])
def test_what_is_no_variable(line: str) -> None:
    found = comments_of(f"{line}\n0 0 * * * x")
    assert found == ["not translated: a line has five fields, or one such as @daily, and a command; or it is NAME = value", line]


def test_variables_apply_to_the_lines_after_them() -> None:
    found = [job["prompt"] for job in jobs_of("0 0 * * * a\nA=1\n0 0 * * * b\nB=x y\nA=2\n0 0 * * * c")]
    assert found == ["a", "export A='1'\nb\n", "export A='2' B='x y'\nc\n"]


def test_a_variable_in_front_of_a_command_is_no_assignment() -> None:
    assert jobs_of("0 0 * * * A=1 b")[0]["prompt"] == "A=1 b"


def test_shell_becomes_an_option() -> None:
    found = jobs_of("SHELL=/bin/bash\n0 0 * * * a\nSHELL=/bin/sh\n0 0 * * * b\nSHELL=bash\n0 0 * * * c")
    assert [(job["prompt"], job.get("shell")) for job in found] == [("a", "/bin/bash"), ("b", None)]
    assert comments_of("SHELL=bash\n0 0 * * * c")[0].startswith("not translated: SHELL must be an absolute path")


def test_a_shell_without_export_gets_its_environment_from_another() -> None:
    assert jobs_of("SHELL=/usr/bin/fish\n0 0 * * * a") == [{"prompt": "a", "cron": "0 0 * * *", "shell": "/usr/bin/fish"}]
    (job,) = jobs_of("SHELL=/usr/bin/fish\nA=1\n0 0 * * * a b")
    assert job == {"prompt": "export A='1'\nexec /usr/bin/fish -c 'a b'\n", "cron": "0 0 * * *"}
    (job,) = jobs_of("SHELL=/bin/bash\nBASH_ENV=/etc/profile\n0 0 * * * a")
    assert job["prompt"] == "export BASH_ENV='/etc/profile'\nexec /bin/bash -c a\n"


def test_variables_that_commands_do_not_get() -> None:
    text = "LOGNAME=x\nUID=3\nA-B=1\n0 0 * * * a"
    assert jobs_of(text)[0]["prompt"] == "a"
    assert [line.partition(":")[0] for line in comments_of(text)[::2]] == ["not translated"] * 3
    assert comments_of(text)[1::2] == ["LOGNAME=x", "UID=3", "A-B=1"]


def test_mail() -> None:
    (found,) = comments_of("MAILTO=root\n0 0 * * * a")
    assert found.startswith("MAILTO=root: no mail is sent")
    assert jobs_of("MAILTO=root\n0 0 * * * a")[0]["prompt"] == "export MAILTO='root'\na\n"
    assert comments_of('MAILTO=""\n0 0 * * * a') == []


# Zones


def zones_of(text: str, zone: str | None = None) -> tuple[str, list[object]]:
    found = tomllib.loads(translate(text, zone=zone))
    return found["timezone"], [job.get("timezone") for job in found["cron"]["jobs"]]


def test_zones() -> None:
    assert zones_of("0 0 * * * a", "Europe/Rome") == ("Europe/Rome", [None])
    assert zones_of("0 0 * * * a") == ("UTC", [None])
    assert "The zone of this machine is not known: times are in UTC" in translate("0 0 * * * a")
    assert "not known" not in translate("0 0 * * * a", zone="Europe/Rome")
    assert zones_of("CRON_TZ=Asia/Tokyo\n0 0 * * * a\n0 1 * * * b", "Europe/Rome") == ("Asia/Tokyo", [None, None])
    text = "0 0 * * * a\nCRON_TZ=Asia/Tokyo\n0 0 * * * b\nCRON_TZ=\n0 0 * * * c"
    assert zones_of(text, "Europe/Rome") == ("Europe/Rome", [None, "Asia/Tokyo", None])
    assert zones_of(text) == ("UTC", [None, "Asia/Tokyo", None])
    assert jobs_of("CRON_TZ=Asia/Tokyo\n0 0 * * * a")[0]["prompt"] == "a"


def test_a_zone_that_is_unknown_keeps_its_lines_out() -> None:
    found = comments_of("CRON_TZ=Rome\n0 0 * * * a\nCRON_TZ=Europe/Rome\n0 0 * * * b")
    assert found[0].startswith("not translated: CRON_TZ 'Rome' is not the name of an IANA time zone; did you mean Europe/Rome?")
    assert found[1:] == ["0 0 * * * a"]
    assert [job["prompt"] for job in jobs_of("CRON_TZ=Rome\n0 0 * * * a\nCRON_TZ=Europe/Rome\n0 0 * * * b")] == ["b"]


def test_tz_is_for_commands_alone() -> None:
    """crontab(5) of Debian: TZ affects the commands, not the times at which they run."""
    assert zones_of("TZ=Asia/Tokyo\n0 0 * * * a", "Europe/Rome") == ("Europe/Rome", [None])
    assert jobs_of("TZ=Asia/Tokyo\n0 0 * * * a")[0]["prompt"] == "export TZ='Asia/Tokyo'\na\n"
    (found,) = comments_of("TZ=Asia/Tokyo\n0 0 * * * a", zone="Europe/Rome")
    assert found.startswith(
        "TZ=Asia/Tokyo: commands get it, and it does not change when they run; cron reads times in the zone of"
    )


# Comments


def test_comments_above_a_line_are_its_description() -> None:
    text = "# of the file\n\n# Back up\n#  the disk\n0 0 * * * a\n0 1 * * * b\n# last"
    assert [job.get("description") for job in jobs_of(text)] == ["Back up the disk", None]
    assert comments_of(text) == ["of the file", "last"]


@pytest.mark.parametrize(
    "above", ["0 5 * * * old", "m h  dom mon dow   command", "|  |  |", "-----", "", "*  *  *  *  * user-name command"]
)
def test_comments_that_describe_nothing(above: str) -> None:
    text = f"# before\n# {above}\n# About a\n0 0 * * * a"
    assert jobs_of(text)[0]["description"] == "About a"
    assert comments_of(text) == ["before", toml_comment(above).removeprefix("# ")]
    assert "description" not in jobs_of(f"# before\n# {above}\n0 0 * * * a")[0]


def test_a_description_is_cut_and_cleaned() -> None:
    assert jobs_of(f"# {'x' * 2000}\n@daily a")[0]["description"] == "x" * 999 + "…"
    assert jobs_of("# a\x00b\udcffc\n@daily a")[0]["description"] == "a b c"


def test_comments_above_a_line_that_is_not_translated_stay() -> None:
    assert comments_of("# At boot\n@reboot a")[0] == "At boot"


# Crontabs of the system

SYSTEM = """\
SHELL=/bin/sh
PATH=/usr/bin:/bin
17 *\t* * *\troot\tcd / && run-parts --report /etc/cron.hourly
25 6\t* * *\troot\ttest -x /usr/sbin/anacron || { cd / && run-parts --report /etc/cron.daily; }
@daily www-data /srv/www
5 5 * * * root
"""


def test_lines_of_one_user() -> None:
    found = tomllib.loads(translate(SYSTEM, system=True, run_as="root"))["cron"]["jobs"]
    assert [(job["name"], job["cron"]) for job in found] == [("cron.hourly", "17 * * * *"), ("cron.daily", "25 6 * * *")]
    assert found[0]["prompt"] == "export PATH='/usr/bin:/bin'\ncd / && run-parts --report /etc/cron.hourly\n"
    found = comments_of(SYSTEM, system=True, run_as="root")
    assert found[0] == "not translated: this is a line of the user 'www-data', and those of 'root' were asked for"
    assert found[2:] == ["not translated: there is no command after the time", "5 5 * * * root"]
    assert [job["prompt"] for job in jobs_of(SYSTEM, system=True, run_as="www-data")] == [
        "export PATH='/usr/bin:/bin'\n/srv/www\n"
    ]
    assert comments_of("0 0 * * *", system=True, run_as="x")[0] == "not translated: there is no user after the time"


# Names


@pytest.mark.parametrize(
    ("command", "name"),
    [
        ("/usr/local/bin/backup.sh --all >/dev/null 2>&1", "backup"),
        ("cd /srv && ./deploy.py", "deploy"),
        ("[ -x /usr/bin/x ] && /usr/bin/x -q", "x"),
        ("A=1 B=2 run-it", "run-it"),
        ("sudo -u bob nice -n 19 ionice -c2 -n7 /opt/job.pl", "job"),
        ("test -d /x; timeout -k 5 1m curl https://example.org", "curl"),
        ("flock -n /tmp/lock rsync -a /a /b", "rsync"),
        ("/usr/bin/env python3 -u /srv/report.py --day", "report"),
        ("python3 -m app.tasks", "app.tasks"),
        ("bash -lc 'echo hello'", "bash"),
        ("php /var/www/artisan schedule:run", "artisan"),
        ("(sleep 5; /bin/late)", "late"),
        ("sleep $((RANDOM % 60)); certbot renew", "certbot"),
        ("'/opt/my job/run'", "my"),
        ("échapper", "chapper"),
        ("...", "job"),
        ("true", "job"),
        ("x" * 100, "x" * 40),
    ],
)
def test_names(command: str, name: str) -> None:
    assert name_of_command(command) == name


def test_names_are_unique_and_stable() -> None:
    text = "0 0 * * * /a/x 1\n0 0 * * * /a/x 2\n0 0 * * * /a/x 2\n"
    names = [job["name"] for job in tomllib.loads(translate(text))["cron"]["jobs"]]
    assert names[0] == "x"
    assert len(set(names)) == 3
    assert all(len(name) == 6 and name.startswith("x-") for name in names[1:])
    longer = tomllib.loads(translate(f"# new\n@daily /b/y\n{text}@daily x"))["cron"]["jobs"]
    assert [job["name"] for job in longer][1:4] == names


# Any text


def test_the_file_is_accepted_as_it_is() -> None:
    config = accepted(translate("# Say it\n*/5 * * * * echo 'it\\'s' \"$HOME\" \\\\ % in %", zone="Europe/Rome"))
    assert (config.timezone, config.executor, config.default_max_retries) == ("Europe/Rome", "shell", 0)
    assert [job.description for job in config.jobs] == ["Say it"]
    assert accepted(translate("")).jobs == ()
    found = accepted(translate("0 0 * * * a\r\n\r\n0 1 * * * b\r\n")).jobs
    assert [job.prompt for job in found] == ["a", "b"], "a file with the ends of lines of Windows"


LINES = st.one_of(
    st.text(max_size=40),
    st.builds(
        "{} {}{}".format,
        st.sampled_from(["* * * * *", "@daily", "0 0 */2 * 1", "5 4\t*  * sun", "@reboot", "61 * * * *", "root"]),
        st.sampled_from(["", "root ", "www "]),
        st.text(max_size=30),
    ),
    st.builds(
        "{}{}{}{}".format,
        st.sampled_from(["SHELL", "PATH", "MAILTO", "TZ", "CRON_TZ", "HOME", '"a b"', "IFS"]),
        st.sampled_from(["=", " = "]),
        st.sampled_from(["", "/bin/bash", "/usr/bin/fish", "Europe/Rome", "'x", '"']),
        st.text(max_size=10),
    ),
    st.builds("#{}".format, st.text(max_size=30)),
)


@settings(max_examples=150, deadline=None)
@given(lines=st.lists(LINES, max_size=8), system=st.booleans(), zone=st.sampled_from([None, "Europe/Rome"]))
@example(
    lines=["# \x7f\udc80", "* * * * * a'''b\"\"\"\\", "* * * * * \r\n", "A='\x1b", "* * * * * \u2028\x85"],
    system=False,
    zone=None,
)
def test_any_text_becomes_a_file_that_is_accepted(lines: list[str], system: bool, zone: str | None) -> None:
    text = translate("\n".join(lines), system=system, run_as="root", zone=zone)
    config = accepted(text)
    assert config.executor == "shell"
    known = {job.name for job in config.jobs}
    assert len(known) == len(config.jobs)


@settings(max_examples=300)
@given(st.text(alphabet=st.characters(exclude_categories=["Cs"])) | st.text(alphabet="'\"\\\n\r\t\x00a\x7f\x85 "))
def test_strings_are_read_as_they_were(text: str) -> None:
    assert tomllib.loads(f"a = {toml_string(text)}\nb = 1") == {"a": text, "b": 1}
    assert tomllib.loads(f"{toml_comment(text)}\na = [{toml_value(text)}, {toml_value({text: [text]})}]") == {
        "a": [text, {text: [text]}]
    }


def test_what_would_be_too_big() -> None:
    assert MAX_RESULT == MAX_FILE
    variable = "x" * 100_000
    with pytest.raises(InvalidConfig, match="the crontab is too long: its agent.toml would be larger than 10,000,000 bytes"):
        translate(f"A={variable}\n" + "* * * * * a\n" * 200)


def test_too_many_jobs() -> None:
    text = translate("@daily a\n" * 10_001)
    assert len(tomllib.loads(text)["cron"]["jobs"]) == 10_000
    assert text.endswith("# not translated: a file holds at most 10,000 jobs\n# @daily a\n")
