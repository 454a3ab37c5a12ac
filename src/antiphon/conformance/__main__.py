"""The suite as a command: exit code 0 if all holds, 1 if something does not, 2 if it was misused."""

from __future__ import annotations

import asyncio
import shlex
import signal
import sys
import time
from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import AbstractAsyncContextManager, ExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

from antiphon.conformance import FAULTS, Node, Schedule, Site, Suite, Upstream, draw, matrix
from antiphon.conformance.schedule import AT_ONCE
from antiphon.conformance.site import NotAnswering

_INTERRUPTED = 130  # what shells report of a command that Ctrl-C has ended

DESCRIPTION = """\
Kill a server of the Responses API at the worst moments, and look whether it has kept what it has shown.

The suite plays the model's server: {upstream} in a command becomes its URL (Chat Completions). Begin with the whole
matrix, on one node:

  python -m antiphon.conformance --base-url http://127.0.0.1:8000/v1 \\
      --start 'antiphon serve --port 8000 --upstream {upstream}'

For several nodes give --base-url and --start once for each. Clients talk to the first one, and come back on any.
A server without --start can only be left by its clients; let it ask http://127.0.0.1:PORT/v1 of --upstream-port.
"""


def parser() -> ArgumentParser:
    parser = ArgumentParser(
        prog="python -m antiphon.conformance", description=DESCRIPTION, formatter_class=RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--base-url", action="append", required=True, metavar="URL", help="the server, with /v1; once for each node")
    add("--start", action="append", default=[], metavar="COMMAND", help="starts the node of the same place")
    add("--restart-database", metavar="COMMAND", help="the fault `database`")
    add("--kill-bell", metavar="COMMAND", help="the fault `bell`: ends what carries wake-ups between nodes")
    add("--mend-bell", metavar="COMMAND", help="starts that again")
    add("--faults", metavar="NAMES", help=f"only these, with commas: {', '.join(FAULTS)}")
    add("--at-once", type=int, default=AT_ONCE, metavar="N", help=f"responses in each part of the matrix ({AT_ONCE})")
    add("--schedules", type=int, metavar="N", help="so many random schedules, instead of the matrix")
    add("--seed", type=int, default=1, metavar="N", help="of the first schedule; each has the next number (1)")
    add("--seconds", type=float, metavar="N", help="begin no schedule after so long")
    pause = "longer than a lease, and shorter than it and the grace of a response that nobody follows (12)"
    add("--pause-seconds", type=float, default=12.0, metavar="N", help=pause)
    add("--settle-seconds", type=float, default=60.0, metavar="N", help="by then all has come right (60)")
    add("--start-seconds", type=float, default=60.0, metavar="N", help="by then a started node answers (60)")
    add("--upstream-port", type=int, default=0, metavar="PORT", help="of the model's server (any)")
    add("--api-key", default="sk-conformance", metavar="KEY")
    add("--log", type=Path, metavar="FILE", help="for what the nodes say")
    return parser


def main() -> int:
    options = parser().parse_args()
    if options.start and len(options.start) != len(options.base_url):
        parser().error("give as many --start as --base-url, or none")
    try:
        return complete(_run(options))
    except NotAnswering as error:
        _say(str(error))
        return 1


def complete(measuring: Coroutine[Any, Any, int]) -> int:
    """Its exit code. To be asked to stop is as good as Ctrl-C: the nodes must not stay behind."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        return asyncio.run(measuring)
    except KeyboardInterrupt:
        return _INTERRUPTED


async def _run(options: Namespace) -> int:
    with ExitStack() as stack:
        log = stack.enter_context(options.log.open("ab")) if options.log else None
        async with Upstream(options.upstream_port) as upstream:
            starts = options.start or [""] * len(options.base_url)
            nodes = [
                Node(url, start.replace("{upstream}", upstream.url(number)), log=log)
                for number, (url, start) in enumerate(zip(options.base_url, starts, strict=True))
            ]
            site = Site(nodes, _outside(options), options.pause_seconds, options.settle_seconds, options.start_seconds)
            schedules = _schedules(options, _faults(options, site))
            async with Suite(site, upstream, api_key=options.api_key) as suite:
                return await run(suite, schedules, seconds=options.seconds)


async def run(suite: Suite, schedules: Iterator[Schedule], *, seconds: float | None = None) -> int:
    """Run them, tell what comes of each, and give the exit code."""
    begun_at, bad, count = time.monotonic(), 0, 0
    for schedule in schedules:
        schedule_begun_at = time.monotonic()
        if seconds is not None and schedule_begun_at - begun_at > seconds:
            break
        count += 1
        findings = await suite.run(schedule)
        bad += bool(findings)
        _say(f"{'BAD' if findings else 'ok '} {time.monotonic() - schedule_begun_at:5.1f} s  {schedule}")
        for finding in findings:
            _say(f"      {finding.cell}: {finding.problem}")
    left = await suite.left_running()
    for each in left:
        _say(f"BAD  runs on the model, and nobody has it: {each}")
    _say(f"{count} schedules, {bad} bad, {time.monotonic() - begun_at:.0f} s")
    return int(bool(bad or left))


def _schedules(options: Namespace, faults: tuple[str, ...]) -> Iterator[Schedule]:
    if options.schedules is None:
        return matrix(faults, seed=options.seed, at_once=options.at_once)
    return (draw(options.seed + number, faults) for number in range(options.schedules))


def _faults(options: Namespace, site: Site) -> tuple[str, ...]:
    if options.faults is None:
        return site.faults
    asked = tuple(options.faults.split(","))
    missing = [fault for fault in asked if fault not in site.faults]
    if missing:
        parser().error(f"cannot do {', '.join(missing)} here; what can be done: {', '.join(site.faults)}")
    return asked


def _outside(options: Namespace) -> dict[str, Callable[[], AbstractAsyncContextManager[None]]]:
    commands = {"database": (options.restart_database, None), "bell": (options.kill_bell, options.mend_bell)}
    return {fault: partial(_damage, *both) for fault, both in commands.items() if both[0]}


@asynccontextmanager
async def _damage(command: str, mending: str | None) -> AsyncIterator[None]:
    await _call(command)
    yield
    if mending:
        await _call(mending)


async def _call(command: str) -> None:
    process = await asyncio.create_subprocess_exec(*shlex.split(command))
    await process.wait()


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
