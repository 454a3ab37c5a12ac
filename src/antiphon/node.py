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
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import uvicorn
from starlette.types import ASGIApp

from antiphon.budget import Budget
from antiphon.engine.compaction import shown
from antiphon.engine.model import TENANT, Model
from antiphon.engine.models.chat_completions import ChatCompletions
from antiphon.engine.models.detected import Detected
from antiphon.engine.models.local import Local
from antiphon.engine.models.responses import Responses
from antiphon.engine.models.upstreams import Route, Upstreams
from antiphon.errors import BadSetting, StoreError
from antiphon.listening import allow_connections, check_certificate, listen, url
from antiphon.log import Log
from antiphon.maintenance import maintain
from antiphon.protocol import ids
from antiphon.protocol.context import without_unpaired_calls
from antiphon.seals import Seals, kept_secret
from antiphon.server.access import Access
from antiphon.server.app import BASE_PATH, OPERATIONS, create_app
from antiphon.server.call import Api
from antiphon.server.connection import patient, patient_socket
from antiphon.server.limits import Limiter, Limits
from antiphon.server.metrics import Metrics
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
    from antiphon.tracing import Traces

_random = ids.in_blocks(os.urandom)


@dataclass(frozen=True)
class Node:
    """What runs in this process."""

    app: ASGIApp
    worker: Worker
    model: Model
    budget: Budget


@contextlib.asynccontextmanager
async def node(settings: Settings) -> AsyncIterator[Node]:
    """Everything that the settings ask for, started, and let go of at the end; who gives work time to end stops it."""
    async with contextlib.AsyncExitStack() as stack:
        traces = _traces()
        model = _model(settings, traces)
        stack.push_async_callback(model.close)
        tail = Tail(bytes_max=settings.tail_bytes)
        store = _store(settings)
        log = await _log(stack, settings, tail, store, await _bell(stack, settings))
        alone = LocalBell(settings.poll_seconds)  # no other node is to hear of what lives here only
        stack.callback(alone.close)
        settings.check_reach(keys_kept=await store.keys.exist())
        memory = await _log(stack, settings, tail, SqliteStore(None), alone)
        seals = await _seals(settings, store)
        if isinstance(model, Local):
            model.start()  # loads beside us; until then /readyz says how far it is
        limiter, metrics = Limiter(_limits(settings)), Metrics()
        worker = Worker(
            model if traces is None else traces.model(model, "llama.cpp" if isinstance(model, Local) else "openai"),
            new_id=lambda prefix, response_id: new_id(prefix, chain=response_id),
            seals=seals,
            background_max=settings.workers,
            foreground_max=settings.foreground_limit,
            max_attempts=settings.max_attempts,
            renew_seconds=settings.lease_renew_seconds,
            output_bytes_max=settings.max_output_bytes,
            response_seconds_max=settings.response_seconds,
            watch=metrics if traces is None else traces.watch(metrics),
            spent=limiter.settle,
            budget=limiter.budget,
        )
        worker.start(log, claims=True)
        worker.start(memory, claims=False)
        stack.push_async_callback(worker.stop, seconds=0)  # before the stores that it looks after are closed
        following = asyncio.create_task(log.keep_followed(settings.poll_seconds))
        stack.callback(following.cancel)
        maintaining = asyncio.create_task(maintain(log, store.upkeep))
        stack.callback(maintaining.cancel)
        access = Access(
            settings.api_keys,
            admin_keys=settings.admin_keys,
            kept=store.keys,
            loopback_only=is_loopback(settings.host),
            origins=settings.cors_origins,
        )
        api = _api(settings, log, memory, worker, model, seals, access=access, limiter=limiter, metrics=metrics)
        app = create_app(api, cors_origins=settings.cors_origins, hsts=settings.tls_cert is not None)
        if traces is not None:
            app = traces.app(app, routes={id: BASE_PATH + api.document.operation(id).path for id in OPERATIONS})
        yield Node(app, worker, model, limiter.budget)


async def serve(settings: Settings, *, on_ready: Callable[[str], None] | None = None) -> None:
    """Run a server until SIGTERM or SIGINT; then end within `stop_seconds`, and at once on a second signal.

    on_ready: told the base URL once the server listens.
    """
    _calm_the_collector()
    allow_connections()
    check_certificate(settings)
    with listen(settings) as listening:  # before a database is made for nothing
        await _serve(settings, listening, on_ready)


async def _serve(settings: Settings, listening: socket.socket, on_ready: Callable[[str], None] | None) -> None:
    async with node(settings) as running:
        server = _Server(
            uvicorn.Config(
                running.app,
                loop="none",
                http=patient(settings.request_seconds),
                ws=patient_socket(running.budget),
                ws_max_size=settings.max_body_bytes,
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                timeout_keep_alive=75,
                timeout_graceful_shutdown=max(1, int(settings.stop_seconds) - 1),
                ssl_certfile=settings.tls_cert,
                ssl_keyfile=settings.tls_key,
                proxy_headers=settings.forwarded_allow_ips is not None,
                forwarded_allow_ips=settings.forwarded_allow_ips or "",
            )
        )
        with _stop_signals() as stop:
            serving = asyncio.create_task(server.serve(sockets=[listening]))
            if on_ready is not None:
                on_ready(url(settings, listening))
            stopped = asyncio.create_task(stop.wait())
            await asyncio.wait([serving, stopped], return_when=asyncio.FIRST_COMPLETED)
            server.should_exit = True  # no new connections; what is begun may end
            await running.worker.stop(seconds=max(0.0, settings.stop_seconds - 2))
            await serving
            stopped.cancel()


async def work(settings: Settings, *, on_ready: Callable[[], None] | None = None) -> None:
    """Work on background responses until SIGTERM or SIGINT, without answering calls."""
    _calm_the_collector()
    allow_connections()
    async with node(settings) as running:
        with _stop_signals() as stop:
            if on_ready is not None:
                on_ready()
            await stop.wait()
            await running.worker.stop(seconds=max(0.0, settings.stop_seconds - 2))


@contextlib.asynccontextmanager
async def open_beside(settings: Settings, *, makes: bool = False) -> AsyncIterator[SqliteStore | PostgresStore]:
    """The store for a short command, which a server may run beside.

    makes: whether a database file is made if there is none; else StoreError is raised.
    """
    store = _store(settings)
    if isinstance(store, SqliteStore):
        await store.open(exclusive=False, makes=makes)
    else:
        await store.open()
    try:
        yield store
    finally:
        await store.close()


def new_id(prefix: str, *, chain: str | None = None) -> str:
    """A new id of this moment; the prefix "call" gives a call_id."""
    if prefix == "call":
        return ids.new_call_id(_random)
    return ids.new_id(prefix, now=time.time(), random=_random, chain=chain)


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
        store,
        tail=tail,
        bell=bell,
        lease_seconds=settings.lease_seconds,
        grace_seconds=settings.orphan_grace_seconds,
        turn_wait_seconds=settings.turn_wait_seconds,
        expires_at=settings.expires_at,
    )


async def _seals(settings: Settings, store: SqliteStore | PostgresStore) -> Seals:
    if settings.seal_keys:
        return Seals(settings.seal_keys)
    if not isinstance(store, SqliteStore):
        return Seals([await store.secret("seals")])  # one for all nodes
    if settings.database_path == ":memory:":
        return Seals([secrets.token_hex(32)])  # what it seals need not be opened longer than responses are kept
    return Seals([kept_secret(f"{settings.database_path}.key")])


def _traces() -> Traces | None:
    """Who traces this process, if anybody does; what that takes is loaded then, by whoever has set it up."""
    if "opentelemetry.trace" not in sys.modules:
        return None
    from antiphon import tracing

    return tracing.in_use()


def _model(settings: Settings, traces: Traces | None) -> Upstreams | Local:
    if not settings.model_servers:
        if settings.model_file is not None and not settings.model_file.is_file():
            raise BadSetting(f"model_file: {settings.model_file} is not there; expected a GGUF file.")
        return Local(settings.model_file)
    return Upstreams(
        Route(
            each.name,
            _server(each) if traces is None else traces.server(_server(each), each.url),
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


def _api(
    settings: Settings,
    log: Log,
    memory: Log,
    worker: Worker,
    model: Model,
    seals: Seals,
    *,
    access: Access,
    limiter: Limiter,
    metrics: Metrics,
) -> Api:
    async def readiness() -> str | None:
        return model.progress if isinstance(model, Local) and model.state != "ready" else None

    async def count_tokens(tenant: str, request: Mapping[str, Any], context: Sequence[Mapping[str, Any]]) -> int:
        seen = without_unpaired_calls(shown(context, seals.of(tenant)))
        return (await model.count_tokens({**request, TENANT: tenant}, seen)).input_tokens

    async def gauges() -> Mapping[str, float]:
        told = {"streams": limiter.streams, "held_bytes": limiter.budget.bytes, "leases": worker.busy}
        with contextlib.suppress(StoreError):  # all else can be told while the database is away
            told["queue"] = await log.store.backlog()
        return told

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
        access=access,
        limiter=limiter,
        metrics=metrics,
        gauges=gauges,
        sse_done=settings.sse_done,
        strict_tools=settings.strict_tools,
    )


def _limits(settings: Settings) -> Limits:
    names = {each.name for each in fields(Limits)} & {setting.name for setting in Settings.table()}
    return Limits(**{name: getattr(settings, name) for name in names})


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
