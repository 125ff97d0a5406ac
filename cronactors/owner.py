"""Who owns a run, and whether that process is certainly dead.

A process id alone says nothing: ids are used again, every container has its own, and every machine. So an owner is a machine with
its boot and namespaces, a process id, and when that process was started. Where any of it cannot be told the answer is "perhaps
alive", and the lease decides: taking over the run of a living process would run a job twice, waiting costs seconds.
"""

from __future__ import annotations

import os
import platform
import sys
import uuid
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import TypeAlias

import attrs

_PROC = Path("/proc")
_MACHINE_IDS = (Path("/etc/machine-id"), Path("/var/lib/dbus/machine-id"))
# Fields of proc_pid_stat(5) counted from behind the name, which is field 2: state is field 3, num_threads 20, starttime 22.
_STATE, _THREADS, _STARTED = 0, 17, 19

FindProcessStart: TypeAlias = Callable[[int], str | None]
"""Looks at a process id: when that process was started, "" if that cannot be told, None if certainly nothing runs there."""


@attrs.frozen
class ProcessIdentity:
    """A process that runs jobs.

    Attributes:
        machine: ``machine/boot/namespaces``; a part that cannot be told is empty.
        pid: Its process id, as it sees it itself.
        process_start: When it was started, as the system counts it; "" if that cannot be told.
    """

    machine: str
    pid: int
    process_start: str


def identify_this_process() -> ProcessIdentity:
    """Tell who we are, also right after a fork. Takes some 20 microseconds and never raises."""
    pid = os.getpid()
    return ProcessIdentity(machine=_machine(pid), pid=pid, process_start=find_process_start(pid) or "")


def find_process_start(pid: int, *, proc: Path = _PROC, system: str = sys.platform) -> str | None:
    """Look at a process id on this system; see `FindProcessStart`. A zombie runs nothing: it counts as gone.

    Args:
        pid: A process id of our own namespace.
        proc: Where the proc file system is, if there is one.
        system: As `sys.platform` names it.
    """
    if pid <= 0 or system == "win32":  # os.kill(pid, 0) of Windows does not ask
        return ""
    try:
        fields = _stat(proc / str(pid) / "stat")
    except OSError:
        return "" if _answers(pid) else None
    if len(fields) <= _STARTED:
        return ""
    # A dead leader whose other threads still run (one may be inside a write) is a living process.
    if fields[_STATE] in ("Z", "X") and fields[_THREADS] in ("0", "1"):
        return None
    return fields[_STARTED]


def certainly_dead(owner: ProcessIdentity, this_process: ProcessIdentity, *, look: FindProcessStart = find_process_start) -> bool:
    """Tell whether an owner has certainly ended; False means that nobody knows. Takes some 20 microseconds and never raises.

    It has if it ran on this machine before the last boot, or if it ran since then beside us (same boot and namespaces) and its
    process id is gone or belongs to a process that was started at another time.

    Args:
        owner: Who is asked about.
        this_process: The process that inspects, see `identify_this_process`.
        look: How to look at a process id.
    """
    machine, boot, spaces = _parts(owner.machine)
    my_machine, my_boot, my_spaces = _parts(this_process.machine)
    if not (boot and my_boot):
        return False
    if boot != my_boot:
        return bool(machine) and machine == my_machine
    if not spaces or spaces != my_spaces:
        return False
    process_start = look(owner.pid)
    return process_start is None or bool(process_start and owner.process_start and process_start != owner.process_start)


def machine_name(*, system: str = sys.platform, proc: Path = _PROC, machine_ids: tuple[Path, ...] = _MACHINE_IDS) -> str:
    """Join machine, boot and namespaces into one text; a part that cannot be told is empty.

    Args:
        system: As `sys.platform` names it.
        proc: Where the proc file system is.
        machine_ids: Files of which the first that holds anything names the machine, machine-id(5).
    """
    host = platform.node().replace("/", "_").replace("\0", "")
    if system == "linux":
        machine = next(filter(None, map(_word, machine_ids)), "")
        # Images of machines are copied with their machine-id: the host name has to be the same as well.
        return f"{f'{machine}@{host}' if machine else ''}/{_word(proc / 'sys/kernel/random/boot_id')}/{_namespaces(proc)}"
    if system == "darwin" and host:
        # No boot id and no namespaces here. Network card and host name say which machine it is; where there is no card, uuid makes
        # one up in each process, so nobody is taken for dead. The machine stands for its boot: a process id that nobody has is as
        # dead after a reboot as before.
        this = f"{uuid.getnode():012x}@{host}"
        return f"{this}/{this}/{system}"
    return "//"


@lru_cache(maxsize=1)
def _machine(_pid: int) -> str:
    """Tell machine, boot and namespaces: they stay while a process lives, but a fork may be in others."""
    return machine_name()


def _parts(machine: str) -> tuple[str, str, str]:
    name, _, rest = machine.partition("/")
    boot, _, spaces = rest.partition("/")
    return name, boot, spaces


def _stat(path: Path) -> list[str]:
    """Split the fields behind the name, which may itself hold spaces and parentheses."""
    with path.open("rb") as file:
        return file.read().rpartition(b")")[2].decode("ascii", "replace").split()


def _answers(pid: int) -> bool:
    """Ask the kernel itself: the proc file system may be absent, or mounted so that it hides the processes of others."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True
    return True


def _namespaces(proc: Path) -> str:
    """Name our namespaces of process ids and of time, in which ids and start times are meant; "" if proc shows another's."""
    try:
        if (proc / "self").readlink().name != str(os.getpid()):
            return ""
        spaces = (proc / "self/ns/pid").readlink().name
    except OSError:
        return ""
    try:
        return f"{spaces},{(proc / 'self/ns/time').readlink().name}"
    except OSError:  # Linux before 5.6 has one time for all
        return spaces


def _word(path: Path) -> str:
    """Read a small file of one word; "" if there is none, or systemd's mark of a machine that has no id yet."""
    try:
        with path.open("rb") as file:
            word = file.read(200).decode("ascii", "replace").strip()
    except OSError:
        return ""
    return word if word.replace("-", "").isalnum() and word != "uninitialized" else ""
