"""The identity of a process that owns runs, and whether it has certainly ended.

We cannot identify a process by its id alone: ids are used again, and every container and every machine has its own. So an
identity is a machine with its boot and namespaces, a process id, and when that process was started. Where a part is unknown the
process may be alive, and its lease decides. Taking over the run of a living process would run a job twice; waiting for the lease
costs seconds.
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
"""For a process id, when that process was started: "" if that is unknown, None if there is certainly no such process."""


@attrs.frozen
class ProcessIdentity:
    """A process, different from every other one on any machine.

    Attributes:
        machine: ``machine/boot/namespaces``; an unknown part is empty.
        pid: Its process id, in its own namespace.
        process_start: When it was started, as the system counts it; "" if that is unknown.
    """

    machine: str
    pid: int
    process_start: str


def identify_this_process() -> ProcessIdentity:
    """Return the identity of this process, also right after a fork. Takes some 20 us and never raises."""
    pid = os.getpid()
    return ProcessIdentity(machine=_machine(pid), pid=pid, process_start=find_process_start(pid) or "")


def find_process_start(pid: int, *, proc: Path = _PROC, system: str = sys.platform) -> str | None:
    """Return when a process of this system was started, see `FindProcessStart`. A zombie runs nothing, so it counts as gone.

    Args:
        pid: A process id in our own namespace.
        proc: Where the proc file system is, if there is one.
        system: As `sys.platform` names it.
    """
    if pid <= 0 or system == "win32":  # on Windows os.kill(pid, 0) sends Ctrl-C
        return ""
    try:
        fields = _stat(proc / str(pid) / "stat")
    except OSError:
        return "" if _exists(pid) else None
    if len(fields) <= _STARTED:
        return ""
    # A dead leader whose other threads still run (one may be inside a write) is a living process.
    if fields[_STATE] in ("Z", "X") and fields[_THREADS] in ("0", "1"):
        return None
    return fields[_STARTED]


def certainly_dead(
    process: ProcessIdentity, this_process: ProcessIdentity, *, find_start: FindProcessStart = find_process_start
) -> bool:
    """Return whether a process has certainly ended; False also if that is unknown. Takes some 20 us and never raises.

    It has ended if it ran on this machine before the last boot. It has also ended if it runs in our own boot and namespaces, and
    its id is gone or belongs to a process that was started at another time.

    Args:
        process: The other process.
        this_process: From `identify_this_process`.
        find_start: How to find when a process was started.
    """
    machine, boot, namespaces = _parts(process.machine)
    my_machine, my_boot, my_namespaces = _parts(this_process.machine)
    if not (boot and my_boot):
        return False
    if boot != my_boot:
        return bool(machine) and machine == my_machine
    if not namespaces or namespaces != my_namespaces:
        return False
    process_start = find_start(process.pid)
    return process_start is None or bool(process_start and process.process_start and process_start != process.process_start)


def machine_name(*, system: str = sys.platform, proc: Path = _PROC, machine_ids: tuple[Path, ...] = _MACHINE_IDS) -> str:
    """Return machine, boot and namespaces as one text; an unknown part is empty.

    Args:
        system: As `sys.platform` names it.
        proc: Where the proc file system is.
        machine_ids: Files that may hold the id of the machine (machine-id(5)); the first one that does counts.
    """
    host = platform.node().replace("/", "_").replace("\0", "")
    if system == "linux":
        machine = next(filter(None, map(_word, machine_ids)), "")
        # Images of machines are copied with their machine-id, so the host name has to be the same as well.
        return f"{f'{machine}@{host}' if machine else ''}/{_word(proc / 'sys/kernel/random/boot_id')}/{_namespaces(proc)}"
    if system == "darwin" and host:
        # macOS has no boot id and no namespaces. Network card and host name identify the machine; without a card, uuid makes one
        # up in each process, so no process is taken for dead. We use the machine as the boot too: a process id that does not
        # exist now has ended, before a reboot or after it.
        this = f"{uuid.getnode():012x}@{host}"
        return f"{this}/{this}/{system}"
    return "//"


@lru_cache(maxsize=1)
def _machine(_pid: int) -> str:
    """Return `machine_name`, cached for each process: a fork may be in other namespaces."""
    return machine_name()


def _parts(machine: str) -> tuple[str, str, str]:
    name, _, rest = machine.partition("/")
    boot, _, namespaces = rest.partition("/")
    return name, boot, namespaces


def _stat(path: Path) -> list[str]:
    """Return the fields behind the name, which may itself hold spaces and parentheses."""
    with path.open("rb") as file:
        return file.read().rpartition(b")")[2].decode("ascii", "replace").split()


def _exists(pid: int) -> bool:
    """Return whether the kernel knows the process. The proc file system may be absent, or hide the processes of other users."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True
    return True


def _namespaces(proc: Path) -> str:
    """Return our namespaces of process ids and of time; "" if proc shows those of another process."""
    try:
        if (proc / "self").readlink().name != str(os.getpid()):
            return ""
        namespaces = (proc / "self/ns/pid").readlink().name
    except OSError:
        return ""
    try:
        return f"{namespaces},{(proc / 'self/ns/time').readlink().name}"
    except OSError:  # Linux before 5.6 has one time for all
        return namespaces


def _word(path: Path) -> str:
    """Read a file that holds one word; "" if there is none, or for systemd's mark of a machine that has no id yet."""
    try:
        with path.open("rb") as file:
            word = file.read(200).decode("ascii", "replace").strip()
    except OSError:
        return ""
    return word if word.replace("-", "").isalnum() and word != "uninitialized" else ""
