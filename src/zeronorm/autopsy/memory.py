"""How much memory a process takes, and how much is free, from what the system itself says.

psutil would say it too, but a stranger who has TensorFlow does not have it.
"""

import os
import subprocess
from pathlib import Path

PAGE = os.sysconf("SC_PAGE_SIZE")  # bytes
# of a control group, in its two versions: the file with its limit, that with what it uses
GROUPS = (
    ("memory.max", "memory.current"),
    ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
)


def resident(pid: int) -> float | None:
    """Bytes of memory that a process takes; None if there is none of that number."""
    try:
        return float(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE
    except OSError:
        if Path("/proc/self/statm").exists():
            return None
    asked = subprocess.run(["ps", "-o", "rss=", "-p", str(pid)], capture_output=True, text=True)
    return float(asked.stdout) * 1024 if asked.stdout.strip() else None


def free() -> float:
    """Bytes that this process may still take: of the machine or, where there is one, of its control
    group."""
    found = [_of_machine()]
    for limit, used in GROUPS:
        try:
            most, now = (float(Path("/sys/fs/cgroup", name).read_text()) for name in (limit, used))
            found.append(max(most - now, 0.0))
        except (OSError, ValueError):  # there is no such group, or it has no limit
            pass
    return min(found)


def _of_machine() -> float:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return next(
            float(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")
        )
    # a system that does not tell what is free: half of what there is
    except (OSError, StopIteration):
        return os.sysconf("SC_PHYS_PAGES") * PAGE / 2
