"""What is done to a server, and when: the faults, and the responses that they hit, each at a point of its own.

A schedule is drawn from its seed alone, so that whatever one has found can be done again.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product

# How a response is asked for; `both` is in the background, and streamed.
MODES = ("stream", "background", "both", "plain")
# Where the response is when it is hit. `called`: one call is whole, and its client may have begun to carry it out, and
# the next one is not. `between` two turns: the model has been given a tool's output.
POINTS = ("before", "created", "text", "arguments", "called", "between", "terminal")
# The server is the process that the clients talk to, the worker the one that asks the model.
FAULTS = ("kill-server", "kill-worker", "pause", "database", "bell", "cut")

AT_ONCE = len(POINTS)  # a server may bound how many it works on
_FAULTS_MAX = 2  # of three workers that die of a response, servers may think that it is the cause
_DELAY_SECONDS_MAX = 0.05


@dataclass(frozen=True)
class Cell:
    """One response of a schedule."""

    mode: str
    point: str

    def __str__(self) -> str:
        return f"{self.mode}@{self.point}"

    @property
    def streams(self) -> bool:
        return self.mode in ("stream", "both")

    @property
    def background(self) -> bool:
        return self.mode in ("background", "both")


@dataclass(frozen=True)
class Schedule:
    """One fault after the other, and the responses that are at their points when the first one happens.

    delay_seconds: before each fault.
    moving: the model goes on from those points meanwhile, so that events are on their way when it happens.
    """

    seed: int
    faults: tuple[str, ...]
    cells: tuple[Cell, ...]
    delay_seconds: float = 0.0
    moving: bool = False

    def __str__(self) -> str:
        cells = " ".join(map(str, self.cells)) if len(self.cells) < len(MODES) * len(POINTS) else "the whole matrix"
        return f"seed {self.seed}: {', '.join(self.faults)}{' while it moves' if self.moving else ''}; {cells}"


def matrix(faults: Sequence[str], *, seed: int = 0, at_once: int = AT_ONCE) -> Iterator[Schedule]:
    """Every mode at every point, once under each fault; so many at once. The seed tells how a fault is done."""
    cells = tuple(Cell(mode, point) for mode, point in product(MODES, POINTS))
    hit = [cells[first : first + at_once] for first in range(0, len(cells), at_once)]
    for number, (fault, those) in enumerate(product(faults, hit)):
        yield Schedule(seed + number, (fault,), those)


def draw(seed: int, faults: Sequence[str]) -> Schedule:
    """The schedule of this seed."""
    chance = random.Random(seed)
    return Schedule(
        seed,
        tuple(chance.sample(faults, chance.randint(1, min(_FAULTS_MAX, len(faults))))),
        tuple(Cell(chance.choice(MODES), chance.choice(POINTS)) for _ in range(chance.randint(1, AT_ONCE))),
        chance.uniform(0, _DELAY_SECONDS_MAX),
        chance.random() < 0.5,
    )
