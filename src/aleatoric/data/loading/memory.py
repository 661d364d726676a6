"""How much memory this process may still take."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

__all__ = ["available_memory"]

_UNKNOWN = 4 * 10**9  # where nothing can be asked (Windows): what a small machine has
_CGROUP_FILES = {1: ("memory.limit_in_bytes", "memory.usage_in_bytes"), 2: ("memory.max", "memory.current")}


def available_memory(root: Path = Path("/")) -> int:
    """Bytes that can still be allocated without swapping, on this machine and within this process's control groups.

    The page cache counts as available, because the kernel gives it up on demand: a data set that was just read to
    check its hash lies there. Without Linux's ``/proc/meminfo`` it is what POSIX calls available, or half of the
    physical memory (macOS), or 4 GB.

    Args:
        root: where ``proc`` and ``sys`` lie.
    """
    return min([_of_machine(root), *_of_control_groups(root)])


def _of_machine(root: Path) -> int:
    with contextlib.suppress(OSError, KeyError, ValueError):
        return int(_table(root / "proc/meminfo")["MemAvailable:"]) * 1024
    for name, share in (("SC_AVPHYS_PAGES", 1.0), ("SC_PHYS_PAGES", 0.5)):
        with contextlib.suppress(AttributeError, OSError, ValueError):
            pages = os.sysconf(name)
            if pages > 0:
                return int(share * pages * os.sysconf("SC_PAGE_SIZE"))
    return _UNKNOWN


def _of_control_groups(root: Path) -> Iterator[int]:
    """What each control group on the way to the top leaves; the limit of a parent holds for its children."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        version = 1 if controllers else 2
        top = root / ("sys/fs/cgroup/memory" if version == 1 else "sys/fs/cgroup")
        group = top / path.strip("/")
        # In a container `path` may be the host's, and its own group the top: folders that do not exist are passed.
        for folder in (group, *group.parents[: len(group.parts) - len(top.parts)]):
            with contextlib.suppress(OSError, ValueError):  # ValueError: "max", no limit
                limit, used = (int((folder / name).read_text()) for name in _CGROUP_FILES[version])
                yield max(0, limit - used + _page_cache(folder))


def _page_cache(folder: Path) -> int:
    figures = _table(folder / "memory.stat")
    prefix = "total_" if "total_inactive_file" in figures else ""  # version 1: with the groups below
    return sum(int(figures.get(f"{prefix}{kind}_file", 0)) for kind in ("active", "inactive"))


def _table(path: Path) -> dict[str, str]:
    """First word of a line -> second word."""
    return {words[0]: words[1] for line in path.read_text().splitlines() if len(words := line.split()) > 1}
