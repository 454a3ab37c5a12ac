"""Random schedules against Antiphon itself: python -m tests.durability, with the options of `main`.

Half of them on one node with SQLite, half on three with PostgreSQL. A bad one is told with its seed; to run it again:
--schedules 1 --seed N --sites NAME. What the nodes said is kept when something was bad.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from argparse import ArgumentParser
from pathlib import Path

from antiphon.conformance import draw
from antiphon.conformance.__main__ import complete, run
from tests.durability.sites import SITES


def main() -> int:
    parser = ArgumentParser(prog="python -m tests.durability", description=__doc__)
    parser.add_argument("--schedules", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--sites", default=",".join(SITES))
    options = parser.parse_args()
    names = options.sites.split(",")
    count = -(-options.schedules // len(names))
    bad = 0
    for number, name in enumerate(names):
        seeds = range(options.seed + number * count, options.seed + (number + 1) * count)
        bad |= complete(_measure(name, seeds, options.seconds / len(names)))
    return bad


async def _measure(name: str, seeds: range, seconds: float) -> int:
    directory = Path(tempfile.mkdtemp(prefix="antiphon-durability-"))
    sys.stdout.write(f"{name}: what the nodes say is in {directory / 'log'}\n")
    async with SITES[name](directory) as suite:
        bad = await run(suite, (draw(seed, suite.faults) for seed in seeds), seconds=seconds)
    if not bad:
        shutil.rmtree(directory)
    return bad


if __name__ == "__main__":
    # Nothing of the user's is read, by this or by what it starts.
    for setting in [setting for setting in os.environ if setting.startswith(("ANTIPHON_", "OPENAI_"))]:
        del os.environ[setting]
    sys.exit(main())
