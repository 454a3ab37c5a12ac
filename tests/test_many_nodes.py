"""Several server processes on one PostgreSQL: any node answers any id, and any node may die."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.servers import postgres, valkey
from tests.servers.antiphon import Process, created, creating, events, following, replayed
from tests.servers.chat import ChatServer
from tests.servers.running import serve

# What happens by itself happens soon, and a node that is killed or paused loses its lease soon.
QUICK = (
    "--poll-seconds", "0.05", "--lease-renew-seconds", "0.1", "--lease-seconds", "1.5",
)  # fmt: skip
# Nothing happens by itself while a test waits for it.
SLOW = ("--poll-seconds", "60", "--lease-renew-seconds", "60", "--lease-seconds", "300")
NO_WORK = ("--workers", "0")


class Node(Process):
    """One of the processes."""

    def pause(self) -> None:
        """As a machine that is suspended: it does nothing, and its connections stay."""
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._process.send_signal(signal.SIGCONT)


@pytest.fixture(scope="module")
def server_url() -> Iterator[str]:
    with postgres.any_server() as url:
        yield url


@pytest.fixture
async def database(server_url: str) -> AsyncIterator[str]:
    url = await postgres.create_database(server_url)
    yield url
    await postgres.drop_database(server_url, url)


@pytest.fixture
def upstream() -> ChatServer:
    return ChatServer()


@pytest.fixture
def start(upstream: ChatServer, database: str, tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """Starts nodes on the one database, all at once; gives them in the order of their flags."""
    nodes: list[Node] = []
    with serve(upstream) as url:

        async def start(*flags_of_each: tuple[str, ...]) -> list[Node]:
            flags = [("--database", database, *(each or QUICK)) for each in flags_of_each]
            started = await asyncio.gather(*(asyncio.to_thread(Node, url, tmp_path, *each) for each in flags))
            nodes.extend(started)
            return started

        yield start
        for node in nodes:
            node.close()


def check_whole(said: list[dict[str, Any]]) -> None:
    """One log from its beginning to its end: no hole, no second beginning, no index twice."""
    assert [event["sequence_number"] for event in said] == list(range(len(said)))
    types = [event["type"] for event in said]
    assert types.count("response.created") == 1
    assert sum(each in types for each in ("response.completed", "response.incomplete", "response.failed")) == 1
    added = [event["output_index"] for event in said if event["type"] == "response.output_item.added"]
    assert added == list(range(len(added)))


def text_of(response: dict[str, Any]) -> str:
    return "".join(part["text"] for item in response["output"] for part in item.get("content", ()))


async def test_every_node_answers_for_every_response(start: Any, upstream: ChatServer) -> None:
    idle = (*QUICK, *NO_WORK)
    a, b, c, worker = await start(idle, idle, idle, QUICK)
    async with a.http() as on_a, b.http() as on_b, c.http() as on_c, worker.http() as on_worker:
        async with creating(on_a, "hang:3", background=True) as accepted:
            await accepted.deltas(3)
            response_id = accepted.response_id
            async with following(on_b, response_id) as one, following(on_c, response_id, starting_after=3) as two:
                await one.deltas(3)
                cancelled = (await on_c.post(f"/responses/{response_id}/cancel")).json()
                whole = await one.rest()
                assert whole.endswith(await two.rest())
            assert await accepted.rest() == whole
        await upstream.requests[0].closing()

        assert cancelled["status"] == "cancelled"
        assert (await on_worker.get(f"/responses/{response_id}")).json() == cancelled
        assert events(whole)[-1]["response"] == cancelled
        check_whole(events(whole))
        next_turn = await created(on_b, "echo", previous_response_id=response_id, input="And?")
        assert " 0 1 2" in text_of(next_turn)
        assert (await on_b.delete(f"/responses/{response_id}")).status_code == 200
        for http in (on_a, on_b, on_c, on_worker):
            assert (await http.get(f"/responses/{response_id}")).status_code == 404


@pytest.mark.parametrize("carrier", ["postgres", "valkey"])
async def test_what_happens_on_one_node_is_known_on_the_others_at_once(
    start: Any, upstream: ChatServer, carrier: str
) -> None:
    """Nobody looks by himself here: a ring that is not heard would leave the test waiting."""
    with valkey.server() as bells:
        flags = SLOW if carrier == "postgres" else (*SLOW, "--bell", bells.url)
        front, worker = await start((*flags, *NO_WORK), flags)
        async with front.http() as here, worker.http() as there:
            async with creating(here, "gate:2:2", background=True) as stream:
                await stream.deltas(2)
                upstream.requests[0].release()
                check_whole(events(await stream.rest()))
            async with creating(there, "hang:2") as stream:
                await stream.deltas(2)
                await here.post(f"/responses/{stream.response_id}/cancel")
                await upstream.requests[1].closing()
                assert events(await stream.rest())[-1]["response"]["status"] == "cancelled"


async def test_a_worker_that_is_killed_is_replaced_and_followers_see_every_number_once(
    start: Any, upstream: ChatServer
) -> None:
    worker, front, other = await start(QUICK, (*QUICK, *NO_WORK), (*QUICK, *NO_WORK))
    async with front.http() as on_front, other.http() as on_other:
        async with creating(on_front, "gate:3:2", background=True) as accepted:
            await accepted.deltas(3)
            async with following(on_other, accepted.response_id) as follower:
                worker.kill()
                await start(QUICK)
                (await upstream.request(2)).release()
                whole = await follower.rest()
            assert await accepted.rest() == whole
        response = (await on_other.get(f"/responses/{accepted.response_id}")).json()

    check_whole(events(whole))
    assert response["status"] == "completed"
    assert text_of(response) == " 0 1 2 and and"
    assert events(whole)[-1]["response"] == response


async def test_a_worker_that_was_paused_is_fenced_off_and_stops_its_model(start: Any, upstream: ChatServer) -> None:
    paused, front = await start(QUICK, (*QUICK, *NO_WORK))
    async with front.http() as http:
        async with creating(http, "steps:2", background=True) as stream:
            await stream.deltas(1)
            paused.pause()
            await start(QUICK)
            second = await upstream.request(2)
            upstream.requests[0].release()  # a word waits in the socket of the paused one
            paused.resume()
            await upstream.requests[0].closing()
            for count in (2, 3):
                await stream.deltas(count)
                second.release()
            whole = await stream.rest()
        assert await replayed(http, stream.response_id) == whole

    check_whole(events(whole))
    assert text_of(events(whole)[-1]["response"]) == " 0 1 2"
    assert len(upstream.requests) == 2


async def test_nodes_that_are_restarted_one_after_the_other_lose_nothing(start: Any, upstream: ChatServer) -> None:
    flags = (*QUICK, "--max-attempts", "1", "--stop-seconds", "3")  # an orderly stop is no failed attempt
    front, *nodes = await start((*QUICK, *NO_WORK), flags)
    async with front.http() as http, creating(http, "steps:1", background=True) as stream:
        for number in range(3):
            await upstream.request(number + 1)
            await stream.deltas(number + 1)
            if number < 2:
                nodes += await start(flags)
                nodes[number].stop()
                assert nodes[number].stopped(seconds=10) == 0
        upstream.requests[2].release()
        whole = await stream.rest()

    check_whole(events(whole))
    assert events(whole)[-1]["response"]["status"] == "completed"
    assert text_of(events(whole)[-1]["response"]) == " 0 1"


async def test_a_restart_of_the_database_only_delays(upstream: ChatServer, tmp_path: Path) -> None:
    """However long it takes: leases run out while nobody can renew them, and nobody takes over from who is alive."""
    with postgres.server() as own, serve(upstream) as url:
        flags = ("--database", own.url(), *QUICK)
        nodes = [await asyncio.to_thread(Node, url, tmp_path, *flags) for _ in range(2)]
        try:
            async with nodes[0].http() as http, creating(http, "gate:2:2") as stream:
                await stream.deltas(2)
                await asyncio.to_thread(own.kill)
                upstream.requests[0].release()
                await asyncio.to_thread(own.start)
                whole = await stream.rest()
                assert await replayed(http, stream.response_id) == whole
        finally:
            for node in nodes:
                node.close()

    check_whole(events(whole))
    assert text_of(events(whole)[-1]["response"]) == " 0 1 and and"
    assert len(upstream.requests) == 1
