"""How many processors this process may use: the affinity of its thread and the quotas of its control groups."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

GROUPS = Path("/sys/fs/cgroup")
MEMBERSHIP = Path("/proc/self/cgroup")


def available_processors() -> int:
    """Count the processors that this process may use.

    Returns
    -------
    int
        The smallest of its affinity and of the quotas of its control group and of those above it (version 1 or 2),
        rounded up; at least 1.
    """
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min([affinity, *_quotas()])


def _quotas() -> Iterator[int]:
    """Yield the limit of each control group that has one, in whole processors."""
    for folder in _folders():
        try:
            quota, period = _quota(folder)
        except (OSError, ValueError):  # no such file, or "max": no limit
            continue
        if quota > 0 and period > 0:
            yield -(-quota // period)


def _quota(folder: Path) -> tuple[int, int]:
    """Read the microseconds of work that a group may do in each period, and the period."""
    if (folder / "cpu.max").exists():
        quota, period = (folder / "cpu.max").read_text(encoding="ascii").split()
    else:
        quota, period = ((folder / f"cpu.cfs_{name}_us").read_text(encoding="ascii") for name in ("quota", "period"))
    return int(quota), int(period)


def _folders() -> Iterator[Path]:
    """Yield the folders of this process's group and of those above it; in a container only the top may be there."""
    try:
        lines = MEMBERSHIP.read_text(encoding="utf-8").splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        group = PurePosixPath(path)
        for top in (GROUPS / controllers, GROUPS / "unified") if controllers else (GROUPS, GROUPS / "unified"):
            for above in (group, *group.parents):
                yield top / above.relative_to("/")
