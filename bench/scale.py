"""A database with many responses beside one with few: what each call takes there."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from itertools import count, islice

from antiphon.store.base import Ending, Item, NewResponse, Segment, Store
from bench.databases import store_of
from bench.figures import Figure, Target
from bench.model_server import Plan
from bench.processes import Serving
from bench.requests import SMALL, cpu
from bench.rig import Result, Rig, load

_TENANT = "default"
_AT_ONCE = 500
_MODEL_RESPONSE = {"model": Plan(256, 1000, batch=256, words=True).model, "input": "Say much."}


def scale(rig: Rig) -> list[Figure]:
    """Each call on 100,000 responses and on 1,000, which are one chain in both (quick: a tenth of each)."""
    few, many = rig.pick((100, 10_000), (1_000, 100_000))
    asked = rig.pick(100, 500)
    with ExitStack() as stack:
        servers: list[tuple[Serving, list[str], list[str]]] = []
        for size in (many, few):
            database = stack.enter_context(rig.databases.new())
            turns, others = asyncio.run(filled(rig, database, size, turns=few, spare=rig.rounds * 100))
            servers.append((stack.enter_context(rig.antiphon(database)), turns, others))
        calls: dict[str, Callable[[Serving, list[str], list[str]], Result]] = {
            "GET": partial(_get, count=asked),
            "a chain's last turn": partial(_turn, count=rig.pick(8, 20)),
            "a list of 20": partial(_list, count=asked),
            "DELETE": partial(_delete, count=rig.pick(20, 100)),
        }
        figures = []
        for name, call in calls.items():
            full, small = rig.in_turns(*(partial(call, *each) for each in servers))
            title = f"{name} among {many:,} responses, CPU"
            figures.append(cpu("scale", title, full, small, floor_name=f"{few:,}", target=Target(ratio=2)))
        return figures


def _get(server: Serving, turns: list[str], others: list[str], *, count: int) -> Result:
    spread = turns[:: max(1, len(turns) // 100)]
    requests = [["GET", f"/responses/{response_id}", None] for response_id in spread]
    return load("repeat", server, requests=requests, count=count, concurrency=4)


def _turn(server: Serving, turns: list[str], others: list[str], *, count: int) -> Result:
    body = {**SMALL, "previous_response_id": turns[-1]}
    return load("repeat", server, requests=[["POST", "/responses", body]], count=count)


def _list(server: Serving, turns: list[str], others: list[str], *, count: int) -> Result:
    return load("repeat", server, requests=[["GET", "/responses?limit=20", None]], count=count // 5, concurrency=4)


def _delete(server: Serving, turns: list[str], others: list[str], *, count: int) -> Result:
    going = [others.pop() for _ in range(count)]
    requests = [["DELETE", f"/responses/{response_id}", None] for response_id in going]
    return load("repeat", server, requests=requests, count=count, concurrency=4, settle=True)


async def filled(
    rig: Rig, database: str, size: int, *, turns: int, spare: int, expires_at: float | None = None
) -> tuple[list[str], list[str]]:
    """Fill the database through the store; gives the ids of a chain, and those of the others.

    Each is what a server wrote for a response of 256 tokens, with ids of its own. spare: how many more, to be deleted.
    """
    made = await asyncio.to_thread(_made, rig, database)
    store = store_of(database)
    await store.open()
    copies = _Copies(store, *await _kept(store, made), expires_at)
    chain: list[str] = []
    for _ in range(turns):
        chain.append(await copies.add(chain[-1] if chain else None))
    others: list[str] = []
    while missing := size - turns + spare - len(others):
        others += await asyncio.gather(*(copies.add() for _ in range(min(missing, _AT_ONCE))))
    await store.close()
    return chain, others


def _made(rig: Rig, database: str) -> str:
    with rig.antiphon(database) as server:
        ids: list[str] = load("repeat", server, requests=[["POST", "/responses", _MODEL_RESPONSE]], count=1)["ids"]
    return ids[0]


async def _kept(store: Store, response_id: str) -> tuple[NewResponse, Ending, list[Segment], str]:
    """One stored response as it was given to the store, and the digits that all its ids share."""
    stored = await store.get(_TENANT, response_id)
    page = await store.read(_TENANT, response_id, after=-1)
    given = await store.context(_TENANT, response_id)
    said = (await store.context(_TENANT, response_id, output=True))[len(given) :]
    assert stored.response is not None
    segments = list(page.segments)
    new = NewResponse(stored.id, stored.model, stored.created_at, stored.background, stored.request, given, segments[0])
    return new, Ending(stored.status, stored.response, said), segments[1:], response_id.partition("_")[2][:16]


class _Copies:
    """Responses that differ from a stored one in their ids."""

    def __init__(
        self,
        store: Store,
        new: NewResponse,
        ending: Ending,
        segments: list[Segment],
        key: str,
        expires_at: float | None,
    ) -> None:
        self._store = store
        self._expires_at = expires_at
        self._new = new
        self._ending = ending
        self._segments = segments
        self._key = key
        self._keys: Iterator[int] = count(1)

    async def add(self, previous: str | None = None) -> str:
        """One more; gives its id."""
        (number,) = islice(self._keys, 1)
        old, key = self._key.encode(), f"{number:016x}".encode()

        def own(text: bytes) -> bytes:
            return text.replace(old, key)

        def items(of: Sequence[Item]) -> list[Item]:
            return [Item(own(each.id.encode()).decode(), own(each.body)) for each in of]

        segments = [
            Segment(each.first, each.count, own(each.frames), each.mask)
            for each in (self._new.segment, *self._segments)
        ]
        new = replace(
            self._new,
            id=own(self._new.id.encode()).decode(),
            created_at=self._new.created_at + number // 100,
            items=items(self._new.items),
            segment=segments[0],
            previous=previous,
            expires_at=self._expires_at,
        )
        ending = replace(self._ending, response=own(self._ending.response), items=items(self._ending.items))
        claim = await self._store.create(_TENANT, new, lease_seconds=60)
        assert claim is not None
        await self._store.append(claim, segments[1:], ending=ending)
        return new.id
