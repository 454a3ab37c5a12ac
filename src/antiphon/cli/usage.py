"""`antiphon usage`: the tokens that were used. Reads the database itself, beside a running server too."""

from __future__ import annotations

from argparse import Namespace
from datetime import UTC, date, datetime, time, timedelta
from typing import TYPE_CHECKING, Any

from antiphon.cli.backup import add_place, settings_of
from antiphon.cli.talk import Misuse, add_command, answer, needs

if TYPE_CHECKING:
    from antiphon.store.upkeep import Used

HEAD = ("tenant", "model", "day", "responses", "input", "cached", "output", "reasoning")


def add(commands: Any) -> None:
    parser = add_command(
        commands,
        "usage",
        run,
        usage="antiphon usage [--tenant NAME] [--from DATE] [--to DATE] [--by model|day] [--json]",
        help="Show how many tokens were used: a sum for each tenant, or for each of its models or days. It counts\n"
        "stored responses that have ended, also those that are deleted since. Days are of UTC, and those of --from\n"
        "and --to are counted.",
    )
    parser.add_argument("--tenant", metavar="NAME", help="This tenant alone.")
    parser.add_argument("--from", dest="since", metavar="DATE", help="The first day, as 2026-11-01.")
    parser.add_argument("--to", dest="until", metavar="DATE", help="The last day.")
    parser.add_argument("--by", choices=("model", "day"), metavar="model|day", help="What to tell apart.")
    parser.add_argument("--json", action="store_true", help="One JSON object for each sum instead of a table.")
    add_place(parser)


def run(options: Namespace) -> int:
    settings = settings_of(options)
    since, until = _begin_of(options.since), _begin_of(options.until, days=1)
    try:
        from antiphon.node import open_beside
    except ModuleNotFoundError as error:
        raise needs("server", error) from error

    async def sums() -> list[Used]:
        async with open_beside(settings) as store:
            return await store.upkeep.usage(tenant=options.tenant, since=since, until=until, by=options.by)

    import asyncio

    rows = [_row(each) for each in asyncio.run(sums())]
    if options.json:
        for row in rows:
            answer(row, pretty=False)
    else:
        _print_table(rows)
    return 0


def _row(used: Used) -> dict[str, Any]:
    tokens = used.tokens
    values = (used.tenant, used.model, used.day, used.responses)
    row = dict(zip(HEAD, (*values, tokens.input, tokens.cached, tokens.output, tokens.reasoning), strict=True))
    return {name: value for name, value in row.items() if value is not None}


def _print_table(rows: list[dict[str, Any]]) -> None:
    head = [name for name in HEAD if any(name in row for row in rows)] or [HEAD[0], *HEAD[3:]]
    table = [head, *([str(row[name]) for name in head] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for cells in table:
        print("  ".join(_cell(name, *cell) for name, cell in zip(head, zip(cells, widths, strict=True), strict=True)))


def _cell(name: str, text: str, width: int) -> str:
    return text.ljust(width) if name in HEAD[:3] else text.rjust(width)


def _begin_of(day: str | None, *, days: int = 0) -> float | None:
    """The time at which a day begins, so many days later."""
    if day is None:
        return None
    try:
        begin = date.fromisoformat(day) + timedelta(days=days)
    except ValueError as error:
        raise Misuse(f"{day!r} is not a day; expected one as 2026-11-01.") from error
    return datetime.combine(begin, time(), UTC).timestamp()
