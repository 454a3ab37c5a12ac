"""A share of a core for a process, where the system lets us give one: control groups of Linux, of either version."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_GROUPS = Path("/sys/fs/cgroup")
_PERIOD_MICROSECONDS = 10_000  # short, so that a process that has used its share up goes on soon


@contextmanager
def held_to(share: float, pid: int) -> Iterator[bool]:
    """While this holds, the process gets no more than this share of a core; False if it cannot be held.

    Its threads are held together. What it starts later is held too.
    """
    group = _group(pid)
    if group is None:
        yield False
        return
    quota = int(share * _PERIOD_MICROSECONDS)
    try:
        if (group / "cpu.max").exists():
            (group / "cpu.max").write_text(f"{quota} {_PERIOD_MICROSECONDS}")
        else:
            (group / "cpu.cfs_period_us").write_text(str(_PERIOD_MICROSECONDS))
            (group / "cpu.cfs_quota_us").write_text(str(quota))
        (group / "cgroup.procs").write_text(str(pid))
        yield True
    finally:
        _let_go(group, pid)


def _group(pid: int) -> Path | None:
    """A new group for this process, of a kind that can hold it; None where that is not allowed."""
    version_1 = _GROUPS / "cpu" / "cpu.cfs_quota_us"
    group = (version_1.parent if version_1.exists() else _GROUPS) / f"antiphon-bench-{pid}"
    try:
        group.mkdir()
    except OSError:
        return None
    if (group / "cpu.max").exists() or (group / "cpu.cfs_quota_us").exists():
        return group
    group.rmdir()
    return None


def _let_go(group: Path, pid: int) -> None:
    try:
        (group.parent / "cgroup.procs").write_text(str(pid))
    except ProcessLookupError:
        pass  # it has ended
    group.rmdir()
