"""Figures: one line of the table each, and the two forms of the whole, for people and for programs."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from statistics import median
from typing import Any

UNIT_FACTORS = {"s": 1.0, "ms": 1e3, "us": 1e6, "MB": 1e-6, "KB": 1e-3, "%": 100.0, "x": 1.0}


@dataclass(frozen=True)
class Target:
    """What a figure should not exceed: in its own unit, and as a multiple of the floor."""

    value: float | None = None
    ratio: float | None = None

    def __str__(self) -> str:
        limits = [f"{self.value:g}"] if self.value is not None else []
        return ", ".join(limits + ([f"{self.ratio:g}x"] if self.ratio is not None else [])) or "-"


@dataclass(frozen=True)
class Figure:
    """What was measured, in `unit`: the median of `samples`, beside that of `floors`, taken in turns with them.

    counted: of what there were `count` in all samples together, e.g. "events".
    """

    scenario: str
    name: str
    unit: str
    samples: tuple[float, ...]
    floors: tuple[float, ...] = ()
    floor_name: str = ""
    target: Target = Target()
    count: int = 0
    counted: str = ""

    @property
    def measured(self) -> float:
        return median(self.samples)

    @property
    def floor(self) -> float | None:
        return median(self.floors) if self.floors else None

    @property
    def ratio(self) -> float | None:
        return self.measured / self.floor if self.floor else None

    @property
    def met(self) -> bool | None:
        """Whether no limit is exceeded; None where there is none."""
        limits = [(self.measured, self.target.value), (self.ratio, self.target.ratio)]
        set_limits = [(found, limit) for found, limit in limits if found is not None and limit is not None]
        return all(found <= limit for found, limit in set_limits) if set_limits else None


def figure(
    scenario: str, name: str, unit: str, samples: Sequence[float], floors: Sequence[float] = (), **more: Any
) -> Figure:
    """A figure from samples in seconds, bytes, or without a unit."""
    factor = UNIT_FACTORS[unit]
    return Figure(
        scenario,
        name,
        unit,
        tuple(sample * factor for sample in samples),
        tuple(floor * factor for floor in floors),
        **more,
    )


def machine() -> dict[str, Any]:
    """What the figures hold for."""
    return {
        "antiphon": version("antiphon"),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()}",
        "cores": os.cpu_count(),
    }


def as_json(figures: Sequence[Figure], *, quick: bool, database: str, seconds: float) -> dict[str, Any]:
    """The whole run. Every figure has the same keys; docs/performance.md names them."""
    return {
        **machine(),
        "quick": quick,
        "database": database,
        "seconds": round(seconds, 1),
        "figures": [
            {
                **asdict(each),
                "measured": each.measured,
                "floor": each.floor,
                "ratio": each.ratio,
                "runs": len(each.samples),
                "met": each.met,
            }
            for each in figures
        ],
    }


HEAD = ("figure", "measured", "floor", "ratio", "target", "met", "from")


def row(each: Figure) -> tuple[str, ...]:
    """A figure as cells of the table."""
    return (
        f"{each.scenario}: {each.name}",
        f"{_number(each.measured)} {each.unit}",
        f"{_number(each.floor)} {each.floor_name}".strip(),
        "-" if each.ratio is None else f"{each.ratio:.2f}x",
        str(each.target),
        {None: "-", True: "yes", False: "no"}[each.met],
        f"{len(each.samples)} runs" + (f", {each.count:,} {each.counted}" if each.count else ""),
    )


def as_table(rows: Sequence[Sequence[str]]) -> str:
    """Cells as aligned lines."""
    widths = [max(len(cells[column]) for cells in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip() for cells in rows
    )


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.{0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2}f}"
