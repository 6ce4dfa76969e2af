"""What the kernel knows of a process: CPU time, resident memory, children."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

# A process that uses less of its core than this, over this time, has nothing left to do.
QUIET, QUIET_SPELL = 0.05, 0.3


def cpu_seconds(pid: int) -> float:
    """Return the CPU time of a process, threads that ended included, to the nanosecond."""
    # clock_getcpuclockid(3) of the process `pid`: CPUCLOCK_SCHED.
    return time.clock_gettime((~pid << 3) | 2)


def resident_kib(pid: int) -> int:
    """Return what the process holds of physical memory, in KiB."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    raise ProcessLookupError(f"process {pid} has ended")


def children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def runs(pid: int) -> bool:
    """Say whether the process has not ended; one that nobody has waited for counts as ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def settle(pids: Sequence[int], patience: float = 60.0) -> None:
    """Wait until the processes have nothing left to do; TimeoutError after `patience` seconds."""
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        before, began = [cpu_seconds(pid) for pid in pids], time.monotonic()
        time.sleep(QUIET_SPELL)
        used = sum(cpu_seconds(pid) for pid in pids) - sum(before)
        if used < QUIET * (time.monotonic() - began):
            return
    raise TimeoutError(f"the server is still busy after {patience:g} s")
