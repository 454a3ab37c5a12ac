"""`antiphon keys`: who may use a server. Works on its database itself, beside a running server too."""

from __future__ import annotations

import os
import re
import time
from argparse import Namespace
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from antiphon.cli.talk import Misuse, add_command, answer, needs, tell
from antiphon.setting_kinds import whole
from antiphon.settings import Settings

if TYPE_CHECKING:
    from antiphon.store.keys import Key, Keys

# each action, and what must stand behind it
ACTIONS = {
    "create": "the tenant that it is for, or --admin",
    "list": "nothing",
    "revoke": "the id of a key",
    "rotate": "the id of a key",
}
LIMITS = {
    "requests_per_minute": "Responses that it may begin per minute.",
    "tokens_per_minute": "Tokens that it may use per minute.",
    "max_streams_per_key": "Streams that it may have open at once.",
    "max_queued_per_key": "Background responses that its tenant may have open at once.",
    "retention_days": "Whole days that the responses are kept which it begins; 0 is for ever.",
}
LIMIT = whole(0, (1 << 31) - 1)
_SPAN = re.compile(r"([0-9]+)([smhd])")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def add(commands: Any) -> None:
    parser = add_command(
        commands,
        "keys",
        run,
        usage="antiphon keys create TENANT [--name NAME] [--expires 90d] [--requests-per-minute N] ...\n"
        "       antiphon keys create --admin [--name NAME] [--expires 90d]\n"
        "       antiphon keys list\n"
        "       antiphon keys revoke ID\n"
        "       antiphon keys rotate ID [--overlap 1h] [--expires 90d]",
        help="Manage the API keys in a server's database. A tenant may have several keys; what they make belongs to\n"
        "the tenant. A key is shown once, when it is made, and kept as a hash. `rotate` makes a new one with the same\n"
        "tenant, name and limits, and revokes the old one, with --overlap after that time. A running server follows\n"
        "within about a second. As soon as there is a key, every call needs one. An admin key is for those who look\n"
        "after the server, such as Prometheus or a load balancer: from any machine it opens /metrics, /healthz and\n"
        "/readyz, and no operation of the API.",
    )
    parser.add_argument("action", choices=ACTIONS, metavar="|".join(ACTIONS), help="What to do.")
    parser.add_argument("what", nargs="?", metavar="TENANT|ID", help="Whom a new key is for, or which key.")
    parser.add_argument("--admin", action="store_true", help="Make a key of no tenant, for /metrics and the probes.")
    parser.add_argument("--name", default="", metavar="NAME", help="What the key is for, in your words.")
    parser.add_argument("--expires", metavar="SPAN", help="For how long it holds, as 90d, 12h, 30m or 45s.")
    parser.add_argument("--overlap", default="0s", metavar="SPAN", help="How long the old key goes on to hold.")
    for name, text in LIMITS.items():
        help = f"{text} Default: the server's setting."
        parser.add_argument(_flag(name), metavar="N", help=help)
    parser.add_argument("--database", metavar="URL", help="The server's database; default as `antiphon serve` has it.")
    parser.add_argument("--config", metavar="FILE", help="The file with settings; otherwise antiphon.toml, if any.")


def run(options: Namespace) -> int:
    action = options.action
    limits = _limits(options)
    if options.admin and (action != "create" or limits):
        raise Misuse("--admin makes a new key that begins no responses: expected `create`, without limits.")
    if (options.what is None) != (action == "list" or options.admin):
        raise Misuse(f"antiphon keys {action}: expected {ACTIONS[action]} behind it.")
    if options.what is not None and not options.what.strip():
        raise Misuse(f"antiphon keys {action}: {options.what!r} is empty; expected {ACTIONS[action]}.")
    expires, overlap = options.expires and _span(options.expires), _span(options.overlap)
    now = time.time()
    expires_at = now + expires if expires else None

    async def act(keys: Keys, database: str) -> list[dict[str, Any]]:
        from antiphon.store.keys import ADMIN, new_key

        if action == "list":
            return [_shown(key, now) for key in await keys.every()]
        if action == "revoke":
            return [_shown(await keys.revoke(options.what, at=now), now)]
        facts: dict[str, Any] = {"name": options.name, "limits": limits}
        tenant = ADMIN if options.admin else options.what
        if action == "rotate":
            old = await keys.revoke(options.what, at=now + overlap)
            tenant, facts = old.tenant, {"name": options.name or old.name, "limits": {**old.limits, **limits}}
        key, text = new_key(tenant, **facts, created_at=now, expires_at=expires_at)
        await keys.add(key)
        tell(f"The key is in {database} now, as a hash; this is the only time that it is shown.")
        return [{**_shown(key, now), "key": text}]

    import asyncio

    for each in asyncio.run(_in_database(options, act)):
        answer(each, pretty=False)
    return 0


async def _in_database(
    options: Namespace, act: Callable[[Keys, str], Awaitable[list[dict[str, Any]]]]
) -> list[dict[str, Any]]:
    settings = Settings.load({"database": options.database}, os.environ, options.config)
    if settings.database_path == ":memory:":
        raise Misuse("The database is in memory: keys would be gone with this command. Name one with --database.")
    try:
        from antiphon.node import open_beside
    except ModuleNotFoundError as error:
        raise needs("server", error) from error
    async with open_beside(settings, makes=options.action == "create") as store:  # often an installation's first one
        return await act(store.keys, settings.database_path)


def _limits(options: Namespace) -> dict[str, int]:
    given = {name: getattr(options, name) for name in LIMITS if getattr(options, name) is not None}
    return {name: _limit(_flag(name), text) for name, text in given.items()}


def _limit(flag: str, text: str) -> int:
    try:
        return int(LIMIT.read(text))
    except ValueError:
        raise Misuse(f"{flag}: {text!r} is not {LIMIT.expected}.") from None


def _flag(limit: str) -> str:
    return "--" + limit.replace("_", "-")


def _span(text: str) -> int:
    found = _SPAN.fullmatch(text)
    if not found:
        raise Misuse(f"{text!r} is not a span of time; expected 90d, 12h, 30m or 45s.")
    return int(found[1]) * _SECONDS[found[2]]


def _shown(key: Key, now: float) -> dict[str, Any]:
    times = {"created": key.created_at, "expires": key.expires_at, "revoked": key.revoked_at, "last_used": key.used_at}
    return {
        "id": key.id,
        "tenant": key.tenant or None,  # of an admin key
        "admin": not key.tenant,
        "name": key.name,
        "holds": key.holds(now),
        **{name: at and datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds") for name, at in times.items()},
        "limits": dict(key.limits),
    }
