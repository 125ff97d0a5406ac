"""The identity of a process, and whether a process has certainly ended."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest

from cronactors.owner import ProcessIdentity, certainly_dead, find_process_start, identify_this_process, machine_name

THIS = ProcessIdentity("m@host/boot-1/pid:[1]", 100, "5000")
linux = pytest.mark.skipif(sys.platform != "linux", reason="needs the proc file system")


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(
        [sys.executable, "-c", "print(flush=True); input()"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with process:
        assert process.stdout is not None
        process.stdout.readline()
        yield process
        process.kill()


def identity_of(pid: int) -> ProcessIdentity:
    return ProcessIdentity(identify_this_process().machine, pid, find_process_start(pid) or "")


def test_this_process_has_one_identity_and_is_alive():
    this_process = identify_this_process()
    assert this_process == identify_this_process()
    assert this_process.pid == os.getpid()
    assert not certainly_dead(this_process, this_process)


@linux
def test_every_part_is_known_on_linux():
    assert all(identify_this_process().machine.split("/")[1:])
    assert identify_this_process().process_start.isdigit()


def test_a_living_child_is_not_dead(child):
    assert not certainly_dead(identity_of(child.pid), identify_this_process())


@linux
def test_a_killed_child_is_dead_as_a_zombie_and_after_it_was_reaped(child):
    process = identity_of(child.pid)
    os.kill(child.pid, signal.SIGKILL)
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # a zombie from here on
    assert certainly_dead(process, identify_this_process())
    child.wait()
    assert certainly_dead(process, identify_this_process())


@linux
def test_a_process_whose_id_was_used_again_is_dead(child):
    process = identity_of(child.pid)
    assert certainly_dead(attrs.evolve(process, process_start=str(int(process.process_start) - 1)), identify_this_process())


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_fork_has_another_identity():
    reader, writer = os.pipe()
    pid = os.fork()
    if not pid:
        os.write(writer, str(identify_this_process().pid).encode())
        os._exit(0)
    os.waitpid(pid, 0)
    os.close(writer)
    with os.fdopen(reader) as file:
        assert int(file.read()) == pid != identify_this_process().pid


@pytest.mark.parametrize(
    ("machine", "process_start", "seen", "dead"),
    [
        ("m@host/boot-1/pid:[1]", "5000", "5000", False),
        ("m@host/boot-1/pid:[1]", "5000", None, True),
        ("m@host/boot-1/pid:[1]", "5000", "6000", True),
        ("m@host/boot-1/pid:[1]", "5000", "", False),  # a process is there, but its start is unknown
        ("m@host/boot-1/pid:[1]", "", "6000", False),
        ("m@host/boot-1/pid:[1]", "", None, True),
        ("m@host/boot-0/pid:[1]", "5000", "5000", True),  # before the last boot
        ("m@host/boot-0/pid:[2]", "5000", "5000", True),
        ("m@renamed/boot-1/pid:[1]", "5000", None, True),  # the boot id alone says that it is this machine
        ("m@other/boot-0/pid:[1]", "5000", None, False),  # a copied machine-id
        ("x@host/boot-0/pid:[1]", "5000", None, False),  # another machine
        ("m@host/boot-1/pid:[2]", "5000", None, False),  # another container
        ("m@host/boot-1/", "5000", None, False),
        ("m@host//pid:[1]", "5000", None, False),
        ("//", "5000", None, False),
        ("", "5000", None, False),
        ("nonsense", "5000", None, False),
    ],
)
def test_a_process_is_dead_only_if_that_is_certain(machine, process_start, seen, dead):
    assert (
        certainly_dead(ProcessIdentity(machine, 77, process_start), THIS, find_start=lambda pid: seen if pid == 77 else "")
        is dead
    )


@pytest.mark.parametrize("machine", ["", "//", "m@host//", "m@host/boot-1/"])
def test_a_process_that_does_not_know_its_machine_takes_none_for_dead(machine):
    process = ProcessIdentity(machine, 77, "5000")
    assert not certainly_dead(process, attrs.evolve(THIS, machine=machine), find_start=lambda _: None)


def write_stat(proc: Path, pid: int, name: str, state: str = "S", threads: int = 1, started: int = 4242) -> None:
    (proc / str(pid)).mkdir()
    fields = ["0"] * 40
    fields[0], fields[17], fields[19] = state, str(threads), str(started)
    (proc / str(pid) / "stat").write_text(f"{pid} ({name}) {' '.join(fields)}\n")


@pytest.mark.parametrize("name", ["python", "a b", "a) R 1 (b", ") ) )", "", "((", "naïve"])
def test_a_process_may_have_any_name(tmp_path, name):
    write_stat(tmp_path, 7, name)
    assert find_process_start(7, proc=tmp_path) == "4242"


@pytest.mark.parametrize(
    ("state", "threads", "process_start"), [("Z", 1, None), ("X", 0, None), ("Z", 2, "4242"), ("D", 1, "4242")]
)
def test_a_zombie_is_gone_unless_threads_still_run(tmp_path, state, threads, process_start):
    write_stat(tmp_path, 7, "x", state, threads)
    assert find_process_start(7, proc=tmp_path) == process_start


def test_a_hidden_process_is_not_gone(tmp_path, child):
    assert find_process_start(child.pid, proc=tmp_path) == ""


def test_without_a_proc_file_system_a_process_that_ended_is_gone(tmp_path, child):
    child.kill()
    child.wait()
    assert find_process_start(child.pid, proc=tmp_path) is None


@pytest.mark.parametrize("text", ["", "7", "7 (x) S 1", "\0\0"])
def test_a_process_with_a_damaged_stat_is_not_gone(tmp_path, text):
    (tmp_path / "7").mkdir()
    (tmp_path / "7" / "stat").write_text(text)
    assert find_process_start(7, proc=tmp_path) == ""


@pytest.mark.parametrize("pid", [0, -1, -(2**63), 2**63 - 1])
def test_an_impossible_process_id_raises_nothing(pid):
    assert find_process_start(pid) in ("", None)
    if pid <= 0:
        assert find_process_start(pid) == ""


def test_on_windows_nothing_is_certain():
    assert find_process_start(2**30, system="win32") == ""
    assert machine_name(system="win32") == "//"


def test_on_macos_every_part_of_the_name_is_known():
    machine, boot, spaces = machine_name(system="darwin").split("/")
    assert machine == boot
    assert spaces == "darwin"


@linux
@pytest.mark.parametrize("text", ["", "uninitialized\n", "two words", "a/b"])
def test_a_machine_without_an_id_has_no_name(tmp_path, text):
    file = tmp_path / "machine-id"
    file.write_text(text)
    assert machine_name(machine_ids=(file,)).startswith("/")
    assert machine_name(machine_ids=(tmp_path / "absent", file)).startswith("/")


@linux
def test_the_first_machine_id_counts(tmp_path):
    file = tmp_path / "machine-id"
    file.write_text("abc-123\n")
    assert machine_name(machine_ids=(tmp_path / "absent", file)).startswith("abc-123@")


@linux
def test_a_proc_file_system_of_another_process_gives_no_namespaces(tmp_path):
    (tmp_path / "self").symlink_to("1")
    assert machine_name(proc=tmp_path).endswith("//")
