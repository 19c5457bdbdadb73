"""What the figures were measured on, and what processes cost it."""

import os
import platform
import re
import shutil
import sqlite3
import subprocess
import time
from importlib.metadata import version
from pathlib import Path

_PROC = Path("/proc")
# What processes cost is read here; elsewhere than on Linux those rows are left out.
CAN_LOOK = (_PROC / "self" / "statm").exists()
_KIB_PER_MIB = 1024


def describe() -> str:
    """The machine, the versions, and how busy it is already (the load average of the last minute), on one line."""
    processor = platform.processor() or platform.machine()
    info = _PROC / "cpuinfo"
    if info.exists() and (found := re.search(r"model name\s*:\s*(.*)", info.read_text())):
        processor = found[1]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / (1 << 30)
    tools = [_tool("nginx", "-v"), _tool("wrk", "--version")]
    return (
        f"{os.cpu_count()} × {processor}, {memory:.0f} GiB; {platform.system()} {platform.release()}; "
        f"Python {platform.python_version()}, uvloop {version('uvloop')}, SQLite {sqlite3.sqlite_version}; "
        f"{', '.join(tools)}; load {os.getloadavg()[0]:.1f} before"
    )


def _tool(name: str, asked: str) -> str:
    if shutil.which(name) is None:
        return f"no {name}"
    printed = subprocess.run([name, asked], capture_output=True, text=True, check=False)
    found = re.search(r"\d+\.\d+[\w.+-]*", printed.stdout + printed.stderr)
    return f"{name} {found[0] if found else 'of unknown version'}"


def fsyncs_per_second(folder: Path, *, seconds: float = 1.0) -> float:
    """How often this disk takes 4 KiB for good."""
    path = folder / "fsync"
    with path.open("wb") as file:
        began, count = time.perf_counter(), 0
        while time.perf_counter() - began < seconds:
            os.write(file.fileno(), b"x" * 4096)
            os.fdatasync(file.fileno())
            count += 1
    path.unlink()
    return count / seconds


# -- processes -------------------------------------------------------------------------------------


def family(pid: int) -> list[int]:
    """A process and all its descendants that live."""
    children: dict[int, list[int]] = {}
    for entry in _PROC.iterdir():
        if entry.name.isdigit() and (stat := _stat(int(entry.name))) is not None:
            children.setdefault(int(stat[1]), []).append(int(entry.name))
    found = [pid]
    for each in found:
        found += children.get(each, [])
    return found


def resident_mib(pid: int) -> float:
    """The resident set (VmRSS) of a process and its descendants, MiB. What they share is counted for each."""
    sizes = (re.search(r"VmRSS:\s*(\d+) kB", _read(each, "status")) for each in family(pid))
    return sum(int(size[1]) for size in sizes if size) / _KIB_PER_MIB


def cpu_seconds(pid: int) -> float:
    """The processor time, user and system, that a process and its living descendants have had."""
    ticks = 0
    for each in family(pid):
        if (stat := _stat(each)) is not None:
            ticks += int(stat[11]) + int(stat[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def _stat(pid: int) -> list[str] | None:
    """The fields of /proc/PID/stat behind the name, which may hold anything: state, parent, …"""
    text = _read(pid, "stat")
    return text.rpartition(")")[2].split() if text else None


def _read(pid: int, name: str) -> str:
    try:
        return (_PROC / str(pid) / name).read_text("utf-8", "replace")
    except (FileNotFoundError, ProcessLookupError):
        return ""
