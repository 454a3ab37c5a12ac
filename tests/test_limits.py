"""What a caller may use: each limit gives its documented error, and what is within it goes on."""

import asyncio
import json
import re
import socket
from typing import Any
from urllib.parse import urlsplit

import pytest
import websockets

from antiphon.budget import Budget
from antiphon.errors import BadRequest, RateLimited
from antiphon.server.access import Caller
from antiphon.server.connection import patient
from antiphon.server.limits import Limiter, Limits, duration
from antiphon.settings import Settings
from tests.servers.antiphon import antiphon, created, creating, following, streaming
from tests.servers.chat import ChatServer
from tests.servers.running import serve
from tests.test_socket import connected

KEYS = {"alice": "sk-alice-0123456789abcdef", "bob": "sk-bob-0123456789abcdef"}
ALICE, BOB = Caller("alice", "key_a"), Caller("bob", "key_b")
BODY = {"model": "m", "input": "Hi"}


def message(text):
    return {"type": "message", "role": "user", "content": text}


def refused(answer, status, code):
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert error["code"] == code
    return error


@pytest.fixture(scope="module")
def server():
    """A server with small limits, and no workers of its own."""
    limits: dict[str, Any] = {
        "max_body_bytes": 4000,
        "max_json_depth": 8,
        "request_seconds": 0.2,
        "max_input_items": 3,
        "max_context_items": 5,
        "max_output_bytes": 20_000,
        "response_seconds": 0.3,
        "max_streams": 3,
        "max_streams_per_key": 2,
        "max_queued_per_key": 2,
        "workers": 0,
    }
    with antiphon(api_keys=KEYS, **limits) as server:
        yield server


@pytest.fixture
async def alice(server):
    async with server.http(headers={"authorization": f"Bearer {KEYS['alice']}"}) as http:
        yield http


@pytest.fixture
async def bob(server):
    async with server.http(headers={"authorization": f"Bearer {KEYS['bob']}"}) as http:
        yield http


def test_each_limit_of_a_call_is_a_setting():
    names = {setting.name: setting for setting in Settings.table()}
    limits = vars(Limits())

    assert {name for name in limits if name not in names} == {"socket_seconds"}
    assert {name: names[name].default for name in limits if name in names} == {
        name: value for name, value in limits.items() if name in names
    }


class TestSizes:
    async def test_a_body_of_too_many_bytes_is_refused(self, alice):
        refused(await alice.post("/responses", json={**BODY, "input": "x" * 4000}), 413, None)

    async def test_a_body_that_nests_too_deep_is_refused(self, alice):
        refused(await alice.post("/responses", json={**BODY, "metadata": json.loads("[" * 8 + "]" * 8)}), 400, None)

    async def test_a_body_that_does_not_come_is_not_waited_for(self, server):
        where = urlsplit(server.url)
        reader, writer = await asyncio.open_connection(where.hostname, where.port)
        writer.write(
            b"POST /v1/responses HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
            b"authorization: Bearer sk-alice-0123456789abcdef\r\ncontent-length: 100\r\n\r\n{"
        )
        answer = await reader.read()  # to the end: the connection is closed
        writer.close()

        assert answer.startswith(b"HTTP/1.1 408 ")
        assert b"The request body was not here within 0.2 seconds." in answer

    @pytest.mark.parametrize("sent", [b"", b"GET /v1/models HTTP/1.1\r\nhost: loc"])
    async def test_a_head_that_does_not_come_is_not_waited_for(self, sent):
        with serve(ChatServer(), http=patient(0.1)) as url:
            where = urlsplit(url)
            reader, writer = await asyncio.open_connection(where.hostname, where.port)
            writer.write(sent)
            assert await reader.read() == b""
            writer.close()

    async def test_too_many_items_are_refused(self, alice):
        within = await alice.post("/responses", json={"model": "text", "input": [message("x")] * 3})
        assert within.status_code == 200
        error = refused(
            await alice.post("/responses", json={"model": "text", "input": [message("x")] * 4}),
            400,
            "array_above_max_length",
        )
        assert error["param"] == "input"
        assert "maximum length 3" in error["message"]

    async def test_a_context_of_too_many_items_is_refused(self, alice):
        first = await created(alice, "text", input=[message("x"), message("y")])
        second = await created(alice, "text", previous_response_id=first["id"])
        longer = {"model": "text", "input": "z", "previous_response_id": second["id"]}

        refused(await alice.post("/responses", json=longer), 400, "context_length_exceeded")
        refused(await alice.post("/responses/input_tokens", json=longer), 400, "context_length_exceeded")

    async def test_a_context_of_too_many_bytes_is_not_even_read(self):
        with antiphon(max_context_bytes=1000) as server:
            async with server.http() as http:
                short = await created(http, "text", input="x" * 500)
                long = await created(http, "text", input="x" * 500, previous_response_id=short["id"])
                body = {**BODY, "previous_response_id": long["id"]}
                refused(await http.post("/responses", json=body), 400, "context_length_exceeded")

                conversation = (await http.post("/conversations", json={"items": [message("x" * 1000)]})).json()
                body = {**BODY, "conversation": conversation["id"]}
                error = refused(await http.post("/responses", json=body), 400, "context_length_exceeded")
                assert "at most 1000" in error["message"]
                answer = await http.post(f"/conversations/{conversation['id']}/items", json={"items": [message("y")]})
                refused(answer, 400, "context_length_exceeded")

    async def test_too_many_tools_are_refused(self):
        tool = {"type": "function", "name": "f", "strict": False, "parameters": None}
        space = {"type": "namespace", "name": "n", "description": "", "tools": [tool] * 10_000}
        with antiphon() as server:
            async with server.http() as http:
                await created(http, "text", tools=[tool] * 9)
                answer = await http.post("/responses", json={**BODY, "tools": [space]})
        assert refused(answer, 400, "array_above_max_length")["param"] == "tools"

    async def test_a_response_that_says_too_much_ends_incomplete(self, alice):
        response = await created(alice, "text:" + "many words " * 40)

        assert response["status"] == "incomplete"
        assert response["incomplete_details"] == {"reason": "max_output_tokens"}
        assert response["output"][0]["content"][0]["text"].startswith("many words many")

    async def test_a_response_that_takes_too_long_fails(self, alice, server):
        async with creating(alice, "hang") as stream:
            await stream.rest()

        assert [event["type"] for event in stream.events[-2:]] == ["error", "response.failed"]
        response = stream.events[-1]["response"]
        assert response["error"] == {"code": "server_error", "message": "The response took longer than 0.3 seconds."}
        assert response["output"][0]["status"] == "incomplete"
        server.upstream.requests[-1].wait_closed()


class TestBodies:
    """All bodies in memory, together: here as large as the largest single one may be, which always has room."""

    @pytest.fixture
    def server(self):
        with antiphon(max_body_bytes=4000, max_held_bytes=1, orphan_grace_seconds=0.05) as server:
            yield server

    @staticmethod
    async def held(server):
        async with server.http(base_url=server.url.removesuffix("/v1")) as http:
            page = (await http.get("/metrics")).text
        found = re.search(r"^antiphon_held_bytes (\S+)$", page, re.MULTILINE)
        assert found
        return int(float(found[1]))

    async def all_are_let_go(self, server):
        while await self.held(server):
            pass

    async def test_a_body_has_no_room_while_others_are_answered(self, server):
        async with server.http() as http:
            async with creating(http, "hang:1", input="x" * 3000) as stream:
                await stream.deltas(1)
                assert 3000 < await self.held(server) < 4000
                error = refused(
                    await http.post("/responses", json={**BODY, "input": "x" * 2000}), 429, "rate_limit_exceeded"
                )
                assert "large requests" in error["message"]
                assert await self.held(server) < 4000
                await http.post(f"/responses/{stream.response_id}/cancel")
            await self.all_are_let_go(server)
            await created(http, "text", input="x" * 3800)

    async def test_a_body_that_is_still_coming_counts(self, server):
        where = urlsplit(server.url)
        _, writer = await asyncio.open_connection(where.hostname, where.port)
        writer.write(
            b"POST /v1/responses HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
            b"content-length: 3900\r\n\r\n{" + b" " * 2999
        )
        while await self.held(server) != 3000:
            pass
        async with server.http() as http:
            refused(await http.post("/responses", json={**BODY, "input": "x" * 2000}), 429, "rate_limit_exceeded")
        writer.close()
        await self.all_are_let_go(server)

    async def test_what_its_caller_has_left_counts_as_long_as_it_is_worked_on(self, server):
        async with server.http() as http:
            async with creating(http, "hang:1", input="x" * 3000, background=False) as stream:
                await stream.deltas(1)
            async with following(http, stream.response_id):
                assert await self.held(server) > 3000
            await self.all_are_let_go(server)

    async def test_a_background_response_holds_what_was_read_for_it(self, server):
        async with server.http() as http:
            async with creating(http, "hang:1", input="x" * 3000, background=True) as stream:
                await stream.deltas(1)
                response_id = stream.response_id
            assert 3000 < await self.held(server) < 6000
            await http.post(f"/responses/{response_id}/cancel")
            await self.all_are_let_go(server)

    async def test_what_a_response_continues_counts(self, server):
        async with server.http() as http:
            first = await created(http, "text", input="x" * 3000)
            async with creating(http, "hang:1", previous_response_id=first["id"]) as stream:
                await stream.deltas(1)
                assert await self.held(server) > 3000
                await http.post(f"/responses/{stream.response_id}/cancel")
            await self.all_are_let_go(server)

    @pytest.mark.parametrize("as_ascii", [True, False])
    async def test_a_text_weighs_as_much_as_its_widest_character_makes_it(self, server, as_ascii):
        body = {"model": "hang:1", "stream": True, "input": "x" * 3000 + "\N{GRINNING FACE}"}
        raw = json.dumps(body, ensure_ascii=as_ascii).encode()
        headers = {"content-type": "application/json"}
        async with server.http() as http:
            async with streaming(http, "POST", "/responses", content=raw, headers=headers) as stream:
                await stream.deltas(1)
                assert 12_000 < await self.held(server) < 16_000
                await http.post(f"/responses/{stream.response_id}/cancel")
            await self.all_are_let_go(server)

    async def test_many_values_weigh_more_than_their_text(self, server):
        tool = {"type": "function", "name": "f", "strict": False, "parameters": {"enum": [0] * 1000}}
        async with server.http() as http:
            async with creating(http, "hang:1", tools=[tool]) as stream:
                await stream.deltas(1)
                assert await self.held(server) > 100_000
                await http.post(f"/responses/{stream.response_id}/cancel")
            await self.all_are_let_go(server)

    @pytest.mark.parametrize("body", [{"model": "text", "input": 7}, {"model": "error:400", "input": "Hi"}])
    async def test_a_refused_body_is_let_go(self, server, body):
        async with server.http() as http:
            assert (await http.post("/responses", json=body)).status_code == 400
        assert not await self.held(server)

    async def test_a_socket_holds_its_creates(self, server):
        async with connected(server) as socket, server.http() as http:
            await socket.create("hang:1", input="x" * 3000)
            while not (await socket.message())["type"].endswith(".delta"):
                pass
            refused(await http.post("/responses", json={**BODY, "input": "x" * 2000}), 429, "rate_limit_exceeded")
        await self.all_are_let_go(server)

    async def test_a_create_over_a_socket_has_no_room_while_others_are_answered(self, server):
        async with connected(server) as socket, server.http() as http:
            async with creating(http, "hang:1", input="x" * 3000, store=False) as stream:
                await stream.deltas(1)
                error = await socket.answer(input="x" * 2000)
                assert (error["status"], error["error"]["code"]) == (429, "rate_limit_exceeded")
            await self.all_are_let_go(server)
            assert (await socket.answer(input="x" * 2000))["type"] == "response.completed"


class TestAnswers:
    async def test_a_large_answer_counts_until_it_is_read(self):
        with antiphon(max_body_bytes=11_000_000, max_held_bytes=1) as server:
            async with server.http() as http:
                response = await created(http, "text", instructions="x" * 10_000_000)
                path = f"/v1/responses/{response['id']}"
                answered = await http.get(f"/responses/{response['id']}")
                while await TestBodies.held(server):
                    pass
                where = urlsplit(server.url)
                with socket.socket() as slow:
                    slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)  # else the system takes all of it
                    slow.setblocking(False)
                    await asyncio.get_running_loop().sock_connect(slow, (where.hostname, where.port))
                    reader, writer = await asyncio.open_connection(sock=slow.dup())
                writer.write(f"GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n".encode())
                while await TestBodies.held(server) < 10_000_000:
                    pass
                answer = await http.get(f"/responses/{response['id']}")
                refused(answer, 429, "rate_limit_exceeded")
                assert answer.headers["retry-after"] == "1"

                head, _, body = (await reader.read()).partition(b"\r\n\r\n")
                writer.close()
                assert head.startswith(b"HTTP/1.1 200 ")
                assert body == answered.content
                while await TestBodies.held(server):
                    pass


class TestFull:
    """When there is no room, what grows ends, and all else goes on."""

    async def test_a_response_that_says_much_ends_incomplete_and_others_go_on(self):
        with antiphon(max_body_bytes=4000, max_held_bytes=2 << 20) as server:
            async with server.http() as http, creating(http, "gate:1:1") as small:
                await small.deltas(1)
                large = await created(http, "burst:20000")
                server.upstream.requests[0].release()
                await small.rest()

        assert (large["status"], large["incomplete_details"]) == ("incomplete", {"reason": "max_output_tokens"})
        assert large["output"][0]["content"][0]["text"].startswith(" 0 1 2 3")
        assert small.events[-1]["response"]["status"] == "completed"

    def test_large_requests_leave_room_for_what_is_said(self):
        budget = Budget(40 << 20)
        requests, said = budget.hold(), budget.hold()
        said.count(1)
        requests.add((30 << 20) - 1)
        with pytest.raises(RateLimited):
            requests.add(1)

        assert said.say((10 << 20) - 1)
        assert said.say(1)
        assert not said.say(1)
        assert budget.hold().say(1 << 20)

    def test_one_has_always_room(self):
        budget = Budget(4)
        hold = budget.hold()
        hold.add(5)
        hold.add(5)
        with pytest.raises(RateLimited):
            budget.hold().add(1)
        hold.close()
        assert not budget.bytes


class TestStreams:
    async def test_a_key_has_so_many_streams_and_all_together_so_many(self, alice, bob):
        id = (await created(alice, "text", background=True))["id"]
        async with following(alice, id), following(alice, id):
            error = refused(await alice.get(f"/responses/{id}", params={"stream": "true"}), 429, "rate_limit_exceeded")
            assert "this API key" in error["message"]
            refused(await alice.post("/responses", json={"model": "text", "input": "Hi"}), 429, "rate_limit_exceeded")
            assert (await alice.get(f"/responses/{id}")).status_code == 200  # what does not last is let in

            own = (await bob.post("/responses", json={"model": "text", "input": "Hi", "background": True})).json()["id"]
            async with following(bob, own):
                answer = await bob.get(f"/responses/{own}", params={"stream": "true"})
                assert "this server" in refused(answer, 429, "rate_limit_exceeded")["message"]
                assert answer.headers["retry-after"] == "1"
            await bob.post(f"/responses/{own}/cancel")
        await alice.post(f"/responses/{id}/cancel")
        assert (await alice.post("/responses", json={"model": "text", "input": "Hi"})).status_code == 200

    async def test_a_stream_that_ends_makes_room(self, alice):
        for _ in range(4):
            async with creating(alice, "text") as stream:
                await stream.rest()


async def test_a_tenant_has_so_many_background_responses(alice, bob):
    background = {"model": "text", "input": "Hi", "background": True}
    open = [(await alice.post("/responses", json=background)).json()["id"] for _ in range(2)]
    answer = await alice.post("/responses", json=background)

    assert "limit 2" in refused(answer, 429, "rate_limit_exceeded")["message"]
    assert (await bob.post("/responses", json=background)).status_code == 200
    await alice.post(f"/responses/{open[0]}/cancel")
    assert (await alice.post("/responses", json=background)).status_code == 200


class Clock:
    def __init__(self):
        self.time = 0.0

    def __call__(self):
        return self.time


class TestRates:
    """Requests and tokens per minute, by the clock."""

    def limiter(self, **limits):
        clock = Clock()
        return Limiter(Limits(**limits), now=clock), clock

    def test_requests_come_back_evenly(self):
        limiter, clock = self.limiter(requests_per_minute=3)
        for left in (2, 1, 0):
            admission = limiter.admit(ALICE, BODY, size=40)
            assert admission.headers["x-ratelimit-remaining-requests"] == str(left)
        with pytest.raises(RateLimited) as refusal:
            limiter.admit(ALICE, BODY, size=40)

        assert refusal.value.message == (
            "Rate limit reached for m on requests per min (RPM): Limit 3, Used 3, Requested 1. Please try again in 20s."
        )
        assert (refusal.value.type, refusal.value.code) == ("requests", "rate_limit_exceeded")
        assert refusal.value.headers == {
            "x-ratelimit-limit-requests": "3",
            "x-ratelimit-remaining-requests": "0",
            "x-ratelimit-reset-requests": "1m0s",
            "retry-after": "20",
        }
        limiter.admit(BOB, BODY, size=40)
        clock.time += 20
        limiter.admit(ALICE, BODY, size=40)

    def test_tokens_are_reserved_and_then_settled(self):
        limiter, _clock = self.limiter(tokens_per_minute=1000)
        limiter.admit(ALICE, {**BODY, "max_output_tokens": 300}, size=400).began("resp_1")
        with pytest.raises(RateLimited) as refusal:
            limiter.admit(ALICE, {**BODY, "max_output_tokens": 700}, size=4)
        assert "Limit 1000, Used 400, Requested 701. Please try again in 6.06s." in refusal.value.message
        assert refusal.value.type == "tokens"

        limiter.settle("resp_1", 50)
        admission = limiter.admit(ALICE, {**BODY, "max_output_tokens": 700}, size=4)
        assert admission.headers["x-ratelimit-remaining-tokens"] == "249"

    def test_a_response_may_use_more_than_was_left(self):
        limiter, clock = self.limiter(tokens_per_minute=60)
        limiter.admit(ALICE, BODY, size=4).began("resp_1")
        limiter.settle("resp_1", 120)
        with pytest.raises(RateLimited):
            limiter.admit(ALICE, BODY, size=4)
        clock.time += 61
        limiter.admit(ALICE, BODY, size=4)

    def test_a_request_larger_than_the_limit_takes_all_of_it(self):
        limiter, _clock = self.limiter(tokens_per_minute=60)
        limiter.admit(ALICE, {**BODY, "max_output_tokens": 1000}, size=4)
        with pytest.raises(RateLimited):
            limiter.admit(ALICE, BODY, size=4)

    def test_what_is_refused_for_one_limit_counts_for_none(self):
        limiter, clock = self.limiter(requests_per_minute=2, tokens_per_minute=10)
        limiter.admit(ALICE, BODY, size=40)
        for _ in range(5):
            with pytest.raises(RateLimited):
                limiter.admit(ALICE, BODY, size=40)
        with pytest.raises(BadRequest):
            Limiter(Limits(max_input_items=1)).admit(ALICE, {**BODY, "input": [message("x")] * 2}, size=4)

        clock.time += 60
        assert limiter.admit(ALICE, BODY, size=40).headers["x-ratelimit-remaining-requests"] == "1"

    def test_a_key_may_have_limits_of_its_own(self):
        limiter, _clock = self.limiter(requests_per_minute=1, max_streams_per_key=1)
        generous = Caller("alice", "key_c", {"requests_per_minute": 0, "max_streams_per_key": 2})

        for _ in range(5):
            assert limiter.admit(generous, BODY, size=4).headers == {}
        with limiter.stream(generous), limiter.stream(generous):
            assert limiter.streams == 2
        assert limiter.streams == 0

    def test_what_is_never_settled_does_not_pile_up(self):
        limiter, _clock = self.limiter(tokens_per_minute=10_000_000)
        for number in range(10_100):
            limiter.admit(ALICE, BODY, size=40).began(f"resp_{number}")

        assert len(limiter._reserved) == 10_000


@pytest.mark.parametrize(
    ("seconds", "written"),
    [
        (0, "0s"),
        (0.0001, "0s"),
        (0.006, "6ms"),
        (0.12, "120ms"),
        (1, "1s"),
        (6.57, "6.57s"),
        (90, "1m30s"),
        (60, "1m0s"),
    ],
)
def test_a_time_is_written_as_the_api_writes_it(seconds, written):
    assert duration(seconds) == written


SIX = [f"x-ratelimit-{what}-{kind}" for what in ("limit", "remaining", "reset") for kind in ("requests", "tokens")]


class TestHeaders:
    async def test_answers_tell_what_is_left_until_there_is_nothing(self):
        with antiphon(requests_per_minute=4, tokens_per_minute=100_000) as server:
            await self.until_nothing_is_left(server)

    async def until_nothing_is_left(self, server):
        async with server.http() as http:
            plain = await http.post("/responses", json={"model": "text", "input": "Hi"})
            async with creating(http, "text") as stream:
                await stream.rest()
            background = await http.post("/responses", json={"model": "text", "input": "Hi", "background": True})
            compacted = await http.post("/responses/compact", json={"model": "text", "input": "Hi"})
            over = await http.post("/responses", json={"model": "text", "input": "Hi", "stream": True})
            read = await http.get(f"/responses/{plain.json()['id']}")

        assert [each.status_code for each in (plain, background, compacted, over, read)] == [200, 200, 200, 429, 200]
        for answer in (plain, stream.answer, background, compacted, over):
            assert set(SIX) <= answer.headers.keys()
        left = [answer.headers["x-ratelimit-remaining-requests"] for answer in (plain, stream.answer, background)]
        assert left == ["3", "2", "1"]
        assert not set(SIX) & read.headers.keys()
        assert over.json()["error"]["type"] == "requests"
        assert 1 <= int(over.headers["retry-after"]) <= 15

    async def test_what_was_really_used_is_counted(self):
        with antiphon(tokens_per_minute=1000) as server:
            async with server.http() as http:
                used = (await created(http, "text"))["usage"]["total_tokens"]
                answer = await http.post("/responses", json={"model": "text", "input": "Hi", "background": True})

        assert int(answer.headers["x-ratelimit-remaining-tokens"]) in range(1000 - used - 40, 1000 - used + 1)


class TestSockets:
    """Over a WebSocket the same limits hold."""

    async def test_an_open_socket_is_a_stream(self):
        with antiphon(max_streams_per_key=1) as server:
            async with connected(server):
                with pytest.raises(websockets.InvalidStatus) as refused:
                    async with connected(server):
                        pass
            assert refused.value.response.status_code == 429

    async def test_each_create_is_a_request(self):
        with antiphon(requests_per_minute=1) as server:
            async with connected(server) as socket:
                await socket.answer()
                error = await socket.answer()

        assert (error["type"], error["status"]) == ("error", 429)
        assert (error["error"]["type"], error["error"]["code"]) == ("requests", "rate_limit_exceeded")
        assert error["error"]["headers"]["x-ratelimit-limit-requests"] == "1"
