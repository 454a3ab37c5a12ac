"""`python -m bench`: measures, and prints the table. A missed target is no failure; a wrong answer is."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence

from bench import cancel, client, disk, footprint, nodes, requests, scale, streaming, upkeep
from bench.databases import KINDS
from bench.figures import HEAD, Figure, as_json, as_table, machine, row
from bench.rig import Rig, rig

SCENARIOS: dict[str, Callable[[Rig], list[Figure]]] = {
    "live": streaming.live,
    "burst": streaming.burst,
    "stream": streaming.stream,
    "latency": streaming.latency,
    "replay": streaming.replay,
    "get": requests.get,
    "create": requests.create,
    "delete": requests.delete,
    "chain": requests.chain,
    "cancel": cancel.cancel,
    "disk": disk.disk,
    "memory": disk.memory,
    "followers": footprint.followers,
    "full": footprint.full,
    "start": footprint.start,
    "client": client.client,
    "scale": scale.scale,
    "nodes": nodes.nodes,
    "upkeep": upkeep.upkeep,
}
APART = ("scale", "nodes", "upkeep")  # measured if they are named: they take long, and nodes needs PostgreSQL


def main(arguments: Sequence[str] | None = None) -> int:
    parser = _parser()
    options = parser.parse_args(arguments)
    if unknown := sorted(set(options.scenarios) - set(SCENARIOS)):
        parser.error(f"unknown scenario: {', '.join(unknown)}; there are {', '.join(SCENARIOS)}")
    since = time.monotonic()
    figures: list[Figure] = []
    failed = False
    chosen = options.scenarios or [name for name in SCENARIOS if name not in APART]
    with rig(quick=options.quick, database=options.database) as measuring:
        for name in chosen:
            try:
                figures += SCENARIOS[name](measuring)
            except RuntimeError as error:  # the other figures are good all the same
                failed = True
                print(f"{name} cannot be measured: {error}", file=sys.stderr, flush=True)
            else:
                print(f"{name} is measured, {time.monotonic() - since:.0f} s", file=sys.stderr, flush=True)
    seconds = time.monotonic() - since
    database = "postgresql" if options.database.startswith("postgres") else "sqlite"  # a URL may hold a password
    if options.json:
        print(json.dumps(as_json(figures, quick=options.quick, database=database, seconds=seconds), indent=2))
    else:
        print(as_table([HEAD, *(row(each) for each in figures)]))
        about = machine()
        print(
            f"\nAntiphon {about['antiphon']}, {database}, Python {about['python']}, {about['cores']} cores, "
            f"{about['system']}; medians, in turns with their floors; {seconds:.0f} s"
        )
    return int(failed)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    named = f"some of: {', '.join(SCENARIOS)}; else all but {', '.join(APART)}"
    parser.add_argument("scenarios", nargs="*", metavar="SCENARIO", help=named)
    parser.add_argument("--quick", action="store_true", help="a rough look that ends within minutes")
    parser.add_argument("--database", default="sqlite", metavar="KIND", help=f"{KINDS} (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="for programs: every sample, and what it was taken from")
    return parser


if __name__ == "__main__":
    sys.exit(main())
