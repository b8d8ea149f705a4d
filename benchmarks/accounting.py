"""What Linux has counted for a process, its descendants and a core, read from /proc."""

import os
from contextlib import suppress
from pathlib import Path

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_PROC = Path("/proc")


def descendants(pid: int) -> list[int]:
    """The ids of all living processes below `pid`, those of its threads' making included."""
    found: list[int] = []
    for task in (_PROC / str(pid) / "task").iterdir():
        with suppress(FileNotFoundError, ProcessLookupError):  # a thread that has just ended
            for child in (task / "children").read_text().split():
                found += [int(child), *descendants(int(child))]
    return found


def cpu_s(pid: int) -> float:
    """The CPU seconds, user and system, that `pid`, its threads and descendants have used."""
    return own_cpu_s(pid) + sum(map(own_cpu_s, descendants(pid)))


def own_cpu_s(pid: int) -> float:
    """The same of `pid` with its threads and those of its children that have ended.

    Source: proc_pid_stat(5), fields 14 to 17 (utime, stime, and those of its reaped children).
    """
    stat = (_PROC / str(pid) / "stat").read_text()
    # The second field, the command's name, may hold spaces: count from its closing bracket.
    return sum(map(int, stat.rpartition(")")[2].split()[11:15])) / _TICKS_PER_S


def cores_of(pid: int) -> set[int]:
    """The cores that any thread of `pid` or of its descendants may run on."""
    cores: set[int] = set()
    for process in (pid, *descendants(pid)):
        for task in (_PROC / str(process) / "task").iterdir():
            with suppress(ProcessLookupError):  # a thread that has just ended
                cores |= os.sched_getaffinity(int(task.name))
    return cores


def peak_rss_mb(pid: int) -> float:
    """The most resident memory that `pid` alone has ever held, in MB (10^6 bytes).

    Source: proc_pid_status(5), VmHWM, in KiB.
    """
    for line in (_PROC / str(pid) / "status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024 / 1e6
    return 0.0


def core_busy_s(core: int) -> float:
    """The seconds for which `core` was busy, with anything, or was taken by the hypervisor.

    Source: proc_stat(5), the line of that core, all but idle and iowait.
    """
    for line in (_PROC / "stat").read_text().splitlines():
        name, *fields = line.split()
        if name == f"cpu{core}":
            user, nice, system, _idle, _iowait, irq, softirq, steal, *_ = map(int, fields)
            return (user + nice + system + irq + softirq + steal) / _TICKS_PER_S
    return 0.0


def cpu_model() -> str:
    """The processor's name as it gives it itself."""
    for line in (_PROC / "cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return "unknown"
