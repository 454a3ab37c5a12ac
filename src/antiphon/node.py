"""A whole process: store, model, worker and HTTP, put together from the settings. Knows everybody; nobody knows it.

Every node is like every other: `serve` answers calls and works, `work` only works.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import secrets
import signal
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import uvicorn
from starlette.types import ASGIApp

from antiphon.engine.compaction import shown
from antiphon.engine.model import TENANT, Model
from antiphon.engine.models.chat_completions import ChatCompletions
from antiphon.engine.models.detected import Detected
from antiphon.engine.models.local import Local
from antiphon.engine.models.responses import Responses
from antiphon.engine.models.upstreams import Route, Upstreams
from antiphon.errors import BadSetting
from antiphon.log import Log
from antiphon.protocol import ids
from antiphon.protocol.context import without_unpaired_calls
from antiphon.seals import Seals, kept_secret
from antiphon.server.app import BASE_PATH, create_app
from antiphon.server.call import Api, Limits
from antiphon.settings import Settings, is_loopback
from antiphon.spec.document import Document
from antiphon.store.base import Bell
from antiphon.store.bell import LocalBell
from antiphon.store.follow import Tail
from antiphon.store.shared_bell import SharedBell
from antiphon.store.sqlite import SqliteStore
from antiphon.upstream import Upstream
from antiphon.worker import Worker

if TYPE_CHECKING:
    from antiphon.store.postgres import PostgresStore


@dataclass(frozen=True)
class Node:
    """What runs in this process."""

    app: ASGIApp
    worker: Worker
    model: Model


@contextlib.asynccontextmanager
async def node(settings: Settings) -> AsyncIterator[Node]:
    """Everything that the settings ask for, started, and let go of at the end; the worker is stopped by the caller."""
    async with contextlib.AsyncExitStack() as stack:
        tail = Tail(bytes_max=settings.tail_bytes)
        store = _store(settings)
        log = await _log(stack, settings, tail, store, await _bell(stack, settings))
        alone = LocalBell(settings.poll_seconds)  # no other node is to hear of what lives here only
        stack.callback(alone.close)
        memory = await _log(stack, settings, tail, SqliteStore(None), alone)
        seals = await _seals(settings, store)
        model = _model(settings)
        stack.push_async_callback(model.close)
        if isinstance(model, Local):
            model.start()  # loads beside us; until then /readyz says how far it is
        worker = Worker(
            model,
            new_id=lambda prefix, response_id: new_id(prefix, chain=response_id),
            seals=seals,
            background_max=settings.workers,
            foreground_max=settings.foreground_limit,
            max_attempts=settings.max_attempts,
            renew_seconds=settings.lease_renew_seconds,
        )
        worker.start(log, claims=True)
        worker.start(memory, claims=False)
        following = asyncio.create_task(log.keep_followed(settings.poll_seconds))
        stack.callback(following.cancel)
        yield Node(create_app(_api(settings, log, memory, worker, model, seals)), worker, model)


async def serve(settings: Settings, *, on_ready: Callable[[str], None] | None = None) -> None:
    """Run a server until SIGTERM or SIGINT; then end within `stop_seconds`, and at once on a second signal.

    on_ready: told the base URL once the server listens.
    """
    _calm_the_collector()
    async with node(settings) as running:
        listening = _listen(settings)
        server = _Server(
            uvicorn.Config(
                running.app,
                loop="none",
                http="httptools",
                ws="websockets-sansio",
                ws_max_size=settings.max_body_bytes,
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                timeout_keep_alive=75,
                timeout_graceful_shutdown=max(1, int(settings.stop_seconds) - 1),
            )
        )
        with _stop_signals() as stop:
            serving = asyncio.create_task(server.serve(sockets=[listening]))
            if on_ready is not None:
                on_ready(_url(settings.host, listening))
            stopped = asyncio.create_task(stop.wait())
            await asyncio.wait([serving, stopped], return_when=asyncio.FIRST_COMPLETED)
            server.should_exit = True  # no new connections; what is begun may end
            await running.worker.stop(seconds=max(0.0, settings.stop_seconds - 2))
            await serving
            stopped.cancel()


async def work(settings: Settings) -> None:
    """Work on background responses until SIGTERM or SIGINT, without answering calls."""
    _calm_the_collector()
    async with node(settings) as running:
        with _stop_signals() as stop:
            await stop.wait()
            await running.worker.stop(seconds=max(0.0, settings.stop_seconds - 2))


def new_id(prefix: str, *, chain: str | None = None) -> str:
    """A new id of this moment; the prefix "call" gives a call_id."""
    if prefix == "call":
        return ids.new_call_id(os.urandom)
    return ids.new_id(prefix, now=time.time(), random=os.urandom, chain=chain)


def _store(settings: Settings) -> SqliteStore | PostgresStore:
    if not settings.postgres:
        path = settings.database_path
        return SqliteStore(None if path == ":memory:" else path, durability=settings.durability)
    try:
        from antiphon.store.postgres import PostgresStore
    except ModuleNotFoundError as error:
        raise BadSetting("database: PostgreSQL needs more packages: pip install 'antiphon[postgres]'") from error
    return PostgresStore(settings.database, durability=settings.durability)


async def _bell(stack: contextlib.AsyncExitStack, settings: Settings) -> Bell:
    """What wakes who waits: on this node, or on all of them."""
    if settings.bell is not None:
        try:
            from antiphon.store.valkey import ValkeyBell
        except ModuleNotFoundError as error:
            raise BadSetting("bell: Valkey needs more packages: pip install 'antiphon[valkey]'") from error
        bell: SharedBell = ValkeyBell(settings.bell, settings.poll_seconds)
    elif settings.postgres:
        from antiphon.store.postgres_bell import PostgresBell

        bell = PostgresBell(settings.database, settings.poll_seconds)
    else:
        alone = LocalBell(settings.poll_seconds)
        stack.callback(alone.close)
        return alone
    stack.push_async_callback(bell.aclose)
    await bell.open()
    return bell


async def _log(
    stack: contextlib.AsyncExitStack, settings: Settings, tail: Tail, store: SqliteStore | PostgresStore, bell: Bell
) -> Log:
    await store.open()
    stack.push_async_callback(store.close)
    return Log(
        store, tail=tail, bell=bell, lease_seconds=settings.lease_seconds, grace_seconds=settings.orphan_grace_seconds
    )


async def _seals(settings: Settings, store: SqliteStore | PostgresStore) -> Seals:
    if settings.seal_keys:
        return Seals(settings.seal_keys)
    if not isinstance(store, SqliteStore):
        return Seals([await store.secret("seals")])  # one for all nodes
    if settings.database_path == ":memory:":
        return Seals([secrets.token_hex(32)])  # what it seals need not be opened longer than responses are kept
    return Seals([kept_secret(f"{settings.database_path}.key")])


def _model(settings: Settings) -> Upstreams | Local:
    if not settings.model_servers:
        return Local(settings.model_file)
    return Upstreams(
        Route(
            each.name,
            _server(each),
            models=each.models,
            aliases=each.aliases,
            retries=each.retries,
            max_parallel=each.max_parallel,
        )
        for each in settings.model_servers
    )


def _server(upstream: Upstream) -> Model:
    options: dict[str, Any] = {
        "api_key": upstream.key,
        "headers": upstream.headers,
        "connect_seconds": upstream.connect_seconds,
        "idle_seconds": upstream.idle_seconds,
        "cache_secret": upstream.cache_salt,
    }
    if upstream.protocol == "responses":
        return Responses(upstream.url, **options)
    chat = ChatCompletions(upstream.url, **options, continues_prefix=upstream.continues_prefix)
    return Detected(Responses(upstream.url, **options), chat) if upstream.protocol == "auto" else chat


def _api(settings: Settings, log: Log, memory: Log, worker: Worker, model: Model, seals: Seals) -> Api:
    async def readiness() -> str | None:
        return model.progress if isinstance(model, Local) and model.state != "ready" else None

    async def count_tokens(tenant: str, request: Mapping[str, Any], context: Sequence[Mapping[str, Any]]) -> int:
        seen = without_unpaired_calls(shown(context, seals.of(tenant)))
        return (await model.count_tokens({**request, TENANT: tenant}, seen)).input_tokens

    return Api(
        document=Document.load(settings.spec),
        log=log,
        memory=memory,
        run=worker.run,
        place=worker.place,
        models=model.models,
        count_tokens=count_tokens,
        runs_hosted_tools=model.runs_hosted_tools,
        seals=seals,
        readiness=readiness,
        new_id=new_id,
        keys=settings.api_keys,
        loopback_only=is_loopback(settings.host),
        limits=Limits(settings.max_body_bytes, settings.max_json_depth, settings.keepalive_seconds),
        sse_done=settings.sse_done,
        strict_tools=settings.strict_tools,
    )


def _calm_the_collector() -> None:
    """Let the cyclic collector look seldom, and never at what lives as long as the process.

    Events are trees of dicts without cycles: they go by counting. With Python's thresholds the collector walked through
    them again and again, a sixth of the CPU when a model sends many tokens at once.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)


class _Server(uvicorn.Server):
    """Signals are ours: what is running must be handed back before the sockets are closed."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@contextlib.contextmanager
def _stop_signals() -> Iterator[asyncio.Event]:
    """An event that the first SIGTERM or SIGINT sets; the second ends the process."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def stopping() -> None:
        if stop.is_set():
            os._exit(1)  # nothing is lost: what was shown is committed
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping)
    try:
        yield stop
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)


def _listen(settings: Settings) -> socket.socket:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    return socket.create_server((settings.host, settings.port), family=family, backlog=2048)


def _url(host: str, listening: socket.socket) -> str:
    name = f"[{host}]" if ":" in host else host
    return f"http://{name}:{listening.getsockname()[1]}{BASE_PATH}"
