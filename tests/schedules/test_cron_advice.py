"""Messages for expressions that were written for another scheduler: they name the mistake and propose a valid expression."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings, strategies as st

from cronactors.config_file import load_config
from cronactors.errors import CronError, InvalidSchedule
from cronactors.schedules.cron_advice import quartz_weekday
from cronactors.schedules.schedule import Cron, Interval
from cronactors.schedules.zones import check_zone

LINE = "this looks like a line of a crontab: the command belongs in the job's prompt"
SYSTEMD = "this looks like a calendar event of systemd"
QUARTZ = "7 fields are those of Quartz, with a year last, and years are not supported"
SECRET = "hunter2"

ADVICE = [
    # Lines of a crontab
    ("0 3 * * * /usr/bin/backup.sh", f"expr '0 3 * * * …': {LINE}; write the expression as '0 3 * * *'"),
    ("0 3 * * * root /x", f"expr '0 3 * * * …': {LINE}; write the expression as '0 3 * * *'"),
    ("*/5\t0-3 1 jan mon backup --password=hunter2", f"{LINE}; write the expression as '*/5 0-3 1 jan mon'"),
    ("0 3 * * * mail hunter2", f"expr '0 3 * * * …': {LINE}; write the expression as '0 3 * * *'"),
    ("0 3 * * * PASSWORD=hunter2 /x", f"{LINE}; write the expression as '0 3 * * *'"),
    ("0 3 * * * curl https://me:hunter2@example.org >/dev/null 2>&1", f"{LINE}; write the expression as '0 3 * * *'"),
    ("30 0 3 * * * /x", f"{LINE}; write the expression as '30 0 3 * * *'"),
    ("30 0 3 * * /x", f"{LINE}; write the expression as '30 0 3 * *'"),
    ("0 25 * * * /x hunter2", f"expr '0 25 * * * …': {LINE}; in '0 25 * * *' hour '25' is not in 0 to 23"),
    ("0 3 * * /x hunter2", "this looks like a line of a crontab with 4 fields before the command: 5 are needed"),
    ("0 3 * * * 1 2 x hunter2", f"{LINE}; perhaps '0 3 * * *' is meant"),
    ("0 3 * * * /x " + "hunter2 " * 80, f"expr '0 3 * * * …': {LINE}; write the expression as '0 3 * * *'"),
    ("@daily /x hunter2", f"expr '@daily …': {LINE}; write the expression as '@daily'"),
    ("@reboot /x hunter2", "@reboot is not a time: run the job when the program starts instead"),
    ("0 3 * * * Europe/Rome", "the zone is a setting of its own: write it as timezone = 'Europe/Rome'; write the expression as '0 3 * * *'"),
    ("'0 3 * * *'", "the quotation marks are part of the text; write the expression as '0 3 * * *'"),
    # Settings
    ("CRON_TZ=Europe/Rome 0 3 * * *", "timezone = 'Europe/Rome'; write the expression as '0 3 * * *'"),
    ("TZ='Europe/Rome' @daily", "timezone = 'Europe/Rome'; write the expression as '@daily'"),
    ("TZ=:UTC 0 3 * * * root /x hunter2", f"timezone = 'UTC'; {LINE}; write the expression as '0 3 * * *'"),
    ("CRON_TZ=hunter2 0 3 * * *", "the zone is a setting of its own: write it as timezone; write the expression as '0 3 * * *'"),
    ("TZ=UTC @every 5s", "timezone = 'UTC'; @every is an interval, not an expression: write Interval(5000)"),
    ("TZ=UTC TZ=UTC 0 3 * * *", "the zone is a setting of its own"),
    ("MAILTO=hunter2", "expr '…': a setting of a crontab is not part of an expression"),
    # Go
    ("@every 5s", "expr '@every 5s': @every is an interval, not an expression: write Interval(5000), in agent.toml every_ms = 5000"),
    ("@every 1h30m", "write Interval(5400000), in agent.toml every_ms = 5400000"),
    ("@Every 1500ms", "every_ms = 1500, or 1000: Go's cron rounds down to whole seconds"),
    ("@every 1.5h", "every_ms = 5400000"),
    ("@every 1ns", "write Interval.every(...), in agent.toml every_ms"),
    ("@every 99999999999h", "write Interval.every(...), in agent.toml every_ms"),
    ("@every 5m /x hunter2", "write Interval.every(...), in agent.toml every_ms"),
    # Quartz and AWS
    ("0 15 10 ? * 2-6 *", f"{QUARTZ}; it counts weekdays from Sunday = 1; perhaps '0 15 10 ? * mon-fri' is meant"),
    ("0 15 10 ? * MON-FRI *", f"{QUARTZ}; write the expression as '0 15 10 ? * MON-FRI'"),
    ("0 15 10 ? * 0-5 *", f"{QUARTZ}; perhaps '0 15 10 ? * 0-5' is meant"),
    ("0 15 10 ? * 6L 2026-2030", "years are not supported"),
    ("0 15 10 ? * 6L", "it counts weekdays from Sunday = 1; perhaps '0 15 10 ? * L5' is meant"),
    ("0 15 10 ? * friL", "perhaps '0 15 10 ? * L5' is meant"),
    ("0 15 10 ? * L", "perhaps '0 15 10 ? * sat' is meant"),
    ("0 15 10 * * 5L", "for the last such weekday write 'L5'"),
    ("cron(15 10 ? * 2-6 *)", "AWS, with the year last; it counts weekdays from Sunday = 1; write the expression as '15 10 ? * mon-fri'"),
    ("15 10 ? * 2-6 *", "perhaps '15 10 ? * mon-fri' is meant"),
    ("0 10 * * ? 2030", "the last of AWS's six fields is the year"),
    # systemd
    ("Mon..Fri 09:00", f"expr 'Mon..Fri 09:00': {SYSTEMD}; write the expression as '0 9 * * mon-fri'"),
    ("*-*-* 09:00:00", f"{SYSTEMD}; write the expression as '0 9 * * *'"),
    ("Monday,Wed..Friday *-12-* 09,17:08..10:30", f"{SYSTEMD}; write the expression as '30 8-10 9,17 * 12 mon,wed-fri'"),
    ("*-*-01,15 00/2:00", f"{SYSTEMD}; write the expression as '0 */2 1,15 * *'"),
    ("12-25 10:00", f"{SYSTEMD}; write the expression as '0 10 25 12 *'"),
    ("*:0/10", f"{SYSTEMD}; write the expression as '*/10 * * * *'"),
    ("Sat 09:00 Europe/Rome", "write it as timezone = 'Europe/Rome'; write the expression as '0 9 * * sat'"),
    ("Mon *-*-01 09:00", "no expression can require both a day of month and a day of week"),
    ("2030-05-01 09:00", "for a single date use a one-shot (at)"),
    ("*-02~01", "for the last day write L as the day of month"),
    ("daily", f"{SYSTEMD}; write the expression as '0 0 * * *'"),
    ("weekly", f"{SYSTEMD}; perhaps '0 0 * * mon' is meant"),
    ("*-*-* 25:00", f"expr '*-*-* 25:00': {SYSTEMD}"),
]  # fmt: skip


def refusal(expr: str) -> str:
    with pytest.raises(InvalidSchedule) as caught:
        Cron(expr)
    return str(caught.value)


@pytest.mark.parametrize(("expr", "message"), ADVICE, ids=lambda value: value[:40])
def test_an_expression_of_another_scheduler_is_recognised(expr: str, message: str) -> None:
    refused = refusal(expr)
    assert message in refused
    assert SECRET not in refused
    check_proposals(refused)


@pytest.mark.parametrize(
    "expr", ["1-5", "0 9 * * xyz", "0 9 * *", "1 2 3 4 5 6 7 8", "0 9 * * 8", "mon", "0 9 31 2 *", "0 0 L * * 7L"]
)
def test_a_typing_error_is_not_taken_for_another_scheduler(expr: str) -> None:
    message = refusal(expr)
    assert not re.search("looks like|setting|Quartz|perhaps|write the expression", message)


@pytest.mark.parametrize(
    "line", ["{} * * * *", "0 {} * * *", "0 0 * * {}", "0 0 * * * {}", "* * * * * /x {}", "@{}", "@daily {}", "A {}"]
)
@pytest.mark.parametrize(
    "word", ["PASSWORD=hunter2", "https://u:hunter2@example.org", "/x/hunter2", "'hunter2'", "$hunter2", "-p=hunter2"]
)
def test_no_message_shows_a_command(line: str, word: str) -> None:
    assert SECRET not in refusal(line.format(word))


def test_a_file_with_a_crontab_line_is_refused_with_the_expression_to_write(tmp_path) -> None:
    path = tmp_path / "agent.toml"
    path.write_text('[[cron.jobs]]\nname = "backup"\nprompt = "x"\ncron = "0 3 * * * /x --password=hunter2"\n', encoding="utf-8")
    with pytest.raises(CronError) as caught:
        load_config(path)
    assert "write the expression as '0 3 * * *'" in str(caught.value)
    assert SECRET not in str(caught.value)


def check_proposals(message: str) -> None:
    """Check that everything that a message proposes is valid."""
    assert len(message) <= 500
    assert message.isprintable()
    for expr in re.findall(r"(?:write the expression as|perhaps) '([^']*)'", message):
        Cron(expr)
    for every in re.findall(r"every_ms = ([0-9]+)", message):
        Interval(int(every))
    for zone in re.findall(r"timezone = '([^']*)'", message):
        check_zone(zone)


WORDS = (
    "0 3 * */5 ? 2-6 MON-FRI mon..fri Mon, 09:00 *:0/15 *-*-* 2026-01-01 6L L 1#2 2026 root /x A=b CRON_TZ=Europe/Rome TZ=x @every 5s "
    "1h2m @daily @reboot cron( ) '0 monday Europe/Rome 0~1 25 \u00e9 \ufffd \x1c \xa0 ' \" weekly H 99999999999999h *-*-01~2"
)
words = st.sampled_from(WORDS.split(" "))


@settings(max_examples=1000, deadline=None, derandomize=True)
@given(st.one_of(st.lists(words, max_size=9).map(" ".join), st.lists(words, max_size=5).map("".join), st.text(max_size=60)))
def test_any_text_is_accepted_or_refused_with_valid_proposals(text: str) -> None:
    try:
        Cron(text)
    except InvalidSchedule as refused:
        check_proposals(str(refused))


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("2-6", "mon-fri"), ("1", "sun"), ("7", "sat"), ("2,4,6", "mon,wed,fri"), ("2,WED", "mon,wed"), ("6#3", "fri#3"),
        ("6L", "L5"), ("friL", "L5"), ("L", "sat"), ("1/2", "sun/2"), ("6-2", "fri-mon"), ("2-6/2", "mon-fri/2"), ("1,*/2", "sun,*/2"),
        ("0", None), ("8", None), ("MON-FRI", None), ("*", None), ("*/2", None), ("L5", None), ("fri#3", None), ("?", None), ("", None),
    ],
)  # fmt: skip
def test_weekdays_of_quartz_are_translated_to_names(text: str, named: str | None) -> None:
    assert quartz_weekday(text) == named
