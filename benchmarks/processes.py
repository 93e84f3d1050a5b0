"""Reads the resource usage of processes from /proc."""

import os
from pathlib import Path

TICK = os.sysconf("SC_CLK_TCK")


def cpu_seconds(pid: int) -> float:
    """Seconds of user and system time of a process and all its threads; 0 if it has ended."""
    try:
        fields = _stat(pid)
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / TICK


def group(leader: int) -> list[int]:
    """The ids of the processes in a process group."""
    members = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                if int(_stat(int(entry))[2]) == leader:
                    members.append(int(entry))
            except OSError:
                continue
    return sorted(members)


def listener(port: int) -> int | None:
    """The process that listens on a TCP port of this machine; None if it is not visible."""
    sockets = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in Path(table).read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and int(fields[1].rpartition(":")[2], 16) == port:
                sockets.add(f"socket:[{fields[9]}]")
    for descriptor in Path("/proc").glob("[0-9]*/fd/*") if sockets else ():
        try:
            if os.readlink(descriptor) in sockets:
                return int(descriptor.parts[2])
        except OSError:
            continue
    return None


def memory(pid: int, peak: bool = True) -> int:
    """Resident bytes of a process, at its peak or now; 0 if it has ended."""
    wanted = "VmHWM:" if peak else "VmRSS:"
    try:
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith(wanted):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return 0


def machine_cpu_seconds() -> float:
    """The busy seconds of all cores together since the machine started."""
    user, nice, system, _, _, irq, softirq, steal = map(
        int, Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]
    )
    return (user + nice + system + irq + softirq + steal) / TICK


def describe_machine() -> dict[str, object]:
    model = "unknown"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return {"cpu": model, "cores": os.cpu_count(), "memory_gib": round(total / 2**30, 1)}


def _stat(pid: int) -> list[str]:
    # The program's name may contain any character, so the fields are those after it: state,
    # parent, group, ...
    return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
