"""Answers as they are, answers that are files, and how a client is told where to, as whom and how."""

import asyncio
import json
import os
import socket
import sys
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest

import antiphon.client
from antiphon import ApiError, AsyncClient, BadSetting, Client, ConnectionFailed, InvalidAnswer, NotFound, Timeout
from antiphon.client.download import AsyncDownload, Download
from antiphon.protocol.transcript import Transcript
from tests.servers.api import LOG, RESPONSE, RESPONSE_ID, ApiServer, Dropped, echo, error, hang, play, reply
from tests.servers.running import serve

HELLO: dict[str, Any] = {"model": "m", "input": "Say one fact about tides."}
BINARY = {"content-type": "application/zip", "x-request-id": "req_1"}
CERTIFICATE = Path(__file__).parent / "documents" / "localhost.pem"
MODEL = {"id": "m", "object": "model", "created": 1, "owned_by": "me"}


@pytest.fixture
def server():
    return ApiServer()


@pytest.fixture
def client(server):
    with Client(app=server, max_retries=0) as client:
        yield client


def pieces(*data, then=None):
    """An answer of bytes, in pieces."""

    async def answer(exchange):
        await exchange.start(200, BINARY)
        for each in data:
            await exchange.say(each)
        if then:
            raise then
        await exchange.say(b"", more=False)

    return answer


# Files.


def test_an_answer_of_bytes_is_a_download(client, server):
    server.plan.append(pieces(b"\x00", b"\xff"))
    download = client.get_skill_content(skill_id="s")

    assert isinstance(download, Download)
    assert (download.status, download.media_type, download.headers["x-request-id"]) == (200, "application/zip", "req_1")
    assert list(download) == [b"\x00", b"\xff"]
    assert download.read() == b""


def test_a_download_can_be_read_whole(client, server):
    server.plan.append(pieces(b"a", b"b"))

    assert client.get_skill_content(skill_id="s").read() == b"ab"


def test_a_download_is_saved_under_its_name_when_it_is_whole(client, server, tmp_path):
    server.plan.extend([pieces(b"a", b"b"), pieces(b"c", then=Dropped())])
    target = tmp_path / "skill.zip"

    assert client.get_skill_content(skill_id="s").save(target) == 2
    with pytest.raises(ConnectionFailed):
        client.get_skill_content(skill_id="s").save(target)
    assert target.read_bytes() == b"ab"
    assert list(tmp_path.iterdir()) == [target]


async def test_what_is_no_regular_file_is_written_into(server, tmp_path):
    server.plan.extend([pieces(b"a", b"b")] * 2)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = asyncio.create_task(asyncio.to_thread(pipe.read_bytes))
    with Client(app=server) as client:
        assert await asyncio.to_thread(lambda: client.get_skill_content(skill_id="s").save(pipe)) == 2
        assert await reader == b"ab"
    reader = asyncio.create_task(asyncio.to_thread(pipe.read_bytes))
    async with AsyncClient(app=server) as async_client:
        assert await (await async_client.get_skill_content(skill_id="s")).save(pipe) == 2
    assert await reader == b"ab"

    assert pipe.is_fifo()
    assert list(tmp_path.iterdir()) == [pipe]


def test_a_folder_is_not_written_over(client, server, tmp_path):
    server.plan.append(pieces(b"a"))
    with pytest.raises(IsADirectoryError):
        client.get_skill_content(skill_id="s").save(tmp_path)

    assert list(tmp_path.iterdir()) == []


def test_a_link_still_leads_to_the_file_that_is_saved(client, server, tmp_path):
    server.plan.append(pieces(b"new"))
    file, link = tmp_path / "file", tmp_path / "link"
    file.write_bytes(b"old")
    link.symlink_to(file)
    client.get_skill_content(skill_id="s").save(link)

    assert link.is_symlink()
    assert file.read_bytes() == b"new"


async def test_an_async_download_does_the_same(server, tmp_path):
    server.plan.extend([pieces(b"a", b"b")] * 3)
    async with AsyncClient(app=server) as client:
        first = await client.get_skill_content(skill_id="s")
        second = await client.get_skill_content(skill_id="s")
        async with await client.get_skill_content(skill_id="s") as third:
            chunks = [chunk async for chunk in third]

        assert isinstance(first, AsyncDownload)
        assert await first.read() == b"ab"
        assert await second.save(tmp_path / "x") == 2
        assert chunks == [b"a", b"b"]


async def test_a_download_that_is_left_closes_its_connection(server):
    async def endless(exchange):
        await exchange.start(200, BINARY)
        await exchange.say(b"a")
        await exchange.until_left()

    server.plan.extend([endless, endless])
    with serve(server) as url:
        with Client(f"{url}/v1") as client, client.get_skill_content(skill_id="s") as download:
            assert next(download) == b"a"
        async with AsyncClient(f"{url}/v1") as async_client:
            await (await async_client.get_skill_content(skill_id="s")).close()

        for request in server.requests:
            await asyncio.to_thread(request.wait_left)


def test_a_download_that_falls_silent_fails(server):
    async def silent(exchange):
        await exchange.start(200, BINARY)
        await exchange.say(b"a")
        await exchange.until_left()

    server.plan.append(silent)
    with (
        serve(server) as url,
        Client(f"{url}/v1", stall_seconds=0.05) as client,
        pytest.raises(ConnectionFailed),
    ):
        client.get_skill_content(skill_id="s").read()


@pytest.mark.parametrize("kind", [{}, BINARY])
def test_a_file_without_bytes_is_nothing(client, server, kind):
    server.plan.append(reply(200, body=b"", headers=kind))

    assert client.get_skill_content(skill_id="s") is None


def test_what_calls_give_can_be_named_in_annotations():
    for name in antiphon.client.__all__:
        assert getattr(antiphon.client, name).__name__ == name
    assert antiphon.client.Download is Download
    with pytest.raises(AttributeError, match="no attribute 'Downlaod'"):
        _ = antiphon.client.Downlaod


# Raw answers.


def test_a_raw_answer_has_all_that_came(client, server):
    server.plan.append(reply(body=MODEL, headers={"x-request-id": "req_1", "X-Limit": "7"}))
    answer = client.raw.retrieve_model(model="m")

    assert (answer.status, answer.request_id, answer.headers["x-limit"]) == (200, "req_1", "7")
    assert json.loads(answer.body) == answer.json() == MODEL
    assert json.loads(answer.text) == MODEL


def test_a_raw_call_raises_for_no_status(client, server):
    server.plan.append(error(404, "No such thing."))
    answer = client.raw.call("retrieveModel", model="m")

    assert (answer.status, answer.json()["error"]["message"]) == (404, "No such thing.")


def test_a_raw_call_tries_again_and_gives_the_last_answer(server):
    server.plan.extend([error(503, headers={"retry-after-ms": "1"})] * 3)
    with Client(app=server) as client:
        assert client.raw.list_models().status == 503
    assert len(server.requests) == 3


def test_a_raw_stream_is_read_to_its_end(client):
    answer = client.raw.create_response(**HELLO, stream=True)

    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.body.count(b"data: ") == len(LOG)


async def test_raw_calls_can_be_awaited(server):
    async with AsyncClient(app=server) as client:
        assert (await client.raw.get_response(response_id=RESPONSE_ID)).json() == RESPONSE


def test_raw_calls_have_the_names_of_the_client(client):
    assert client.raw.operations == client.operations
    assert client.raw.get_response.__doc__ == client.get_response.__doc__


# Options.


def test_a_client_with_other_options_shares_the_connections(server):
    with serve(server) as url, Client(f"{url}/v1", default_headers={"X-A": "1", "X-B": "1"}) as client:
        with client.with_options(headers={"x-a": None, "X-C": "1"}, max_retries=0) as other:
            changed = other.list_models()
        as_before = client.list_models()

    assert {name: changed["headers"].get(name) for name in ("x-a", "x-b", "x-c")} == {
        "x-a": None,
        "x-b": "1",
        "x-c": "1",
    }
    assert (as_before["headers"]["x-a"], "x-c" in as_before["headers"]) == ("1", False)
    assert len({request.client for request in server.requests}) == 1


def test_a_client_made_before_the_first_call_shares_the_application(server):
    with Client(app=server) as client:
        assert client.with_options(max_retries=0).raw.list_models().status == 200
        client.list_models()

    assert server.lifespan == ["startup", "shutdown"]


def test_another_key_or_place_is_not_mixed_with_the_first(server):
    with serve(server) as url, Client(f"{url}/v1", "sk-one") as client:
        other = client.with_options(api_key="sk-two", base_url=f"{url}/v2")
        client.list_models()
        other.list_models()

    assert [(each.path, each.headers["authorization"]) for each in server.requests] == [
        ("/v1/models", "Bearer sk-one"),
        ("/v2/models", "Bearer sk-two"),
    ]


def test_a_stream_is_resumed_where_and_as_whom_it_was_begun(server):
    server.plan.append(play(3, then="drop"))
    with serve(server) as url, Client(f"{url}/v1", "sk-one") as client:
        stream = client.create_response(**HELLO, stream=True)
        client.with_options(api_key="sk-two").list_models()
        events = list(stream)

    assert events == LOG
    assert {each.headers["authorization"] for each in server.requests if "responses" in each.path} == {"Bearer sk-one"}


def test_cookies_of_a_server_are_not_kept(server):
    server.plan.append(reply(body=MODEL, headers={"set-cookie": "who=one"}))
    with serve(server) as url, Client(f"{url}/v1") as client:
        client.retrieve_model(model="m")
        assert "cookie" not in client.with_options(api_key="sk-two").list_models()["headers"]


def test_a_server_in_the_style_of_azure(server):
    with Client(
        "http://localhost/openai", "key", app=server, api_key_header="api-key", default_query={"api-version": "v1"}
    ) as client:
        seen = client.list_input_items(response_id="r", limit=2)

    assert seen["query"] == [["api-version", "v1"], ["limit", "2"]]
    assert (seen["headers"]["api-key"], "authorization" in seen["headers"]) == ("key", False)


def test_a_key_in_a_header_of_its_own_is_not_carried_elsewhere(server):
    server.plan.append(reply(307, headers={"location": "http://elsewhere.example/v1/models"}))
    with Client(app=server, api_key="key", api_key_header="api-key") as client, pytest.raises(ApiError) as caught:
        client.list_models()

    assert caught.value.status == 307
    assert len(server.requests) == 1


def test_administrators_have_a_key_of_their_own(server, monkeypatch):
    with serve(server) as url, Client(f"{url}/v1", "sk-one") as client:
        monkeypatch.setenv("OPENAI_ADMIN_KEY", "sk-admin")
        monkeypatch.setenv("OPENAI_ORG_ID", "org_1")
        monkeypatch.setenv("OPENAI_PROJECT_ID", "proj_1")
        admin, other = client.list_users(), client.list_models()
        given = client.with_options(admin_key="sk-given", organization="org_2", project="proj_2").list_users()

    assert [each["headers"]["authorization"] for each in (admin, other, given)] == [
        "Bearer sk-admin",
        "Bearer sk-one",
        "Bearer sk-given",
    ]
    assert [(each["headers"]["openai-organization"], each["headers"]["openai-project"]) for each in (other, given)] == [
        ("org_1", "proj_1"),
        ("org_2", "proj_2"),
    ]


def test_without_an_administrators_key_there_is_the_other(server, monkeypatch):
    monkeypatch.delenv("OPENAI_ADMIN_KEY", raising=False)
    with Client(app=server, api_key="sk-one") as client:
        assert client.list_users()["headers"]["authorization"] == "Bearer sk-one"


def test_options_do_not_show_keys(server):
    assert "sk-" not in repr(Client("http://localhost", "sk-one", admin_key="sk-two").options)


@pytest.mark.parametrize(
    ("timeout", "read", "connect"), [(httpx2.Timeout(3.0, read=7.0), 7.0, 3.0), (7.0, 7.0, 5.0), (None, None, 5.0)]
)
def test_each_phase_has_its_time(server, timeout, read, connect):
    seen = []
    with Client(app=server, timeout=timeout, on_request=lambda each: seen.append(each.extensions["timeout"])) as client:
        client.list_models()

    assert (seen[0]["read"], seen[0]["connect"]) == (read, connect)


def test_a_request_that_is_not_taken_in_its_time_is_a_timeout(server):
    server.plan.extend([play(1, then="hang"), hang])
    quick = httpx2.Timeout(None, read=0.05)
    with serve(server) as url, httpx2.Client(limits=httpx2.Limits(max_connections=1)) as http:
        with Client(f"{url}/v1", http_client=http, max_retries=0) as client, client.follow(RESPONSE_ID) as stream:
            next(stream)
            with pytest.raises(Timeout) as no_connection:
                client.with_options(timeout=httpx2.Timeout(None, pool=0.01)).list_models()
        with pytest.raises(Timeout) as no_answer, Client(f"{url}/v1", timeout=quick, max_retries=0) as client:
            client.list_models()

    assert isinstance(no_connection.value.__cause__, httpx2.PoolTimeout)
    assert isinstance(no_answer.value.__cause__, httpx2.ReadTimeout)
    assert (no_connection.value.sent, no_answer.value.sent) == (False, True)


async def test_an_http_client_of_ones_own_serves_all_options_and_stays_open(server):
    both: list[Any] = []
    with serve(server) as url:
        with httpx2.Client(headers={"x-mine": "1"}) as http:
            with (
                Client(f"{url}/v1", "sk-one", http_client=http) as client,
                client.with_options(api_key="sk-two", max_retries=0) as other,
            ):
                both += [other.list_models(), client.list_models()]
            assert not http.is_closed
        async with httpx2.AsyncClient(headers={"x-mine": "1"}) as async_http:
            async with (
                AsyncClient(f"{url}/v1", "sk-one", http_client=async_http) as async_client,
                async_client.with_options(api_key="sk-two") as async_other,
            ):
                both += [await async_other.list_models(), await async_client.list_models()]
            assert not async_http.is_closed

    assert [each["headers"]["authorization"] for each in both] == ["Bearer sk-two", "Bearer sk-one"] * 2
    assert {each["headers"]["x-mine"] for each in both} == {"1"}
    assert len({request.client for request in server.requests}) == 2


def forwarding(seen):
    """A proxy for plain HTTP, as an app: it sends each request on, and its answer back as it comes."""

    async def proxy(scope, receive, send):
        if scope["type"] != "http":
            return
        seen.append(scope)
        headers = [(name, value) for name, value in scope["headers"] if name != b"proxy-authorization"]
        host = dict(headers)[b"host"].decode()
        query = scope["query_string"].decode()
        url = f"http://{host}{scope['raw_path'].decode()}" + (f"?{query}" if query else "")
        body = (await receive())["body"]
        async with (
            httpx2.AsyncClient(trust_env=False) as http,
            http.stream(scope["method"], url, headers=headers, content=body) as answer,
        ):
            await send({"type": "http.response.start", "status": answer.status_code, "headers": answer.headers.raw})
            async for chunk in answer.aiter_raw():
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    return proxy


async def test_calls_and_streams_go_through_a_proxy(server):
    seen: list[Any] = []
    with serve(server) as url, serve(forwarding(seen)) as proxy:
        with Client(f"{url}/v1", proxy=proxy.replace("//", "//who:secret@")) as client:
            assert client.get_response(response_id=RESPONSE_ID) == RESPONSE
            assert list(client.create_response(**HELLO, stream=True)) == LOG
        async with AsyncClient(f"{url}/v1", proxy=proxy) as async_client:
            assert await async_client.create_response(**HELLO) == RESPONSE

    assert len(seen) == len(server.requests) == 3
    assert [b"proxy-authorization" in dict(scope["headers"]) for scope in seen] == [True, True, False]
    assert "proxy-authorization" not in server.requests[0].headers


def test_a_proxy_is_asked_for_a_host_that_only_it_knows(server):
    with serve(server) as url, Client("http://nowhere.invalid/v1", proxy=url, max_retries=0) as client:
        assert client.list_models()["headers"]["host"] == "nowhere.invalid"


@contextmanager
def serving_http2(app):
    """A real server that speaks HTTP/2 over TLS, and HTTP/1.1 with whoever cannot; yields its URL."""
    from hypercorn.asyncio import serve as run
    from hypercorn.config import Config

    config, loop, stop = Config(), asyncio.new_event_loop(), asyncio.Event()
    config.certfile = config.keyfile = str(CERTIFICATE)
    config.graceful_timeout = 1.0
    config.errorlog = None
    with socket.create_server(("127.0.0.1", 0)) as listening:
        url = f"https://127.0.0.1:{listening.getsockname()[1]}"
        config.bind = [f"fd://{listening.detach()}"]
    thread = threading.Thread(
        target=lambda: loop.run_until_complete(run(app, config, shutdown_trigger=stop.wait)), daemon=True
    )
    thread.start()
    try:
        yield url
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()
        loop.close()


async def test_calls_and_streams_go_over_http2_on_wish(server, monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", str(CERTIFICATE))
    seen: list[str] = []

    def on_response(response: httpx2.Response) -> None:
        seen.append(response.http_version)

    server.plan.append(echo)
    with serving_http2(server) as url:
        with Client(f"{url}/v1", http2=True, on_response=on_response) as client:
            assert client.create_response(**HELLO)["body"] == HELLO
            assert list(client.create_response(**HELLO, stream=True)) == LOG
        async with AsyncClient(f"{url}/v1", http2=True, on_response=on_response) as async_client:
            assert [event async for event in async_client.follow(RESPONSE_ID)] == LOG
            answers = await asyncio.gather(*(async_client.get_response(response_id=RESPONSE_ID) for _ in range(8)))
        with Client(f"{url}/v1", on_response=on_response) as client:
            client.list_models()

    assert answers == [RESPONSE] * 8
    assert seen == ["HTTP/2"] * 11 + ["HTTP/1.1"]


def test_http2_without_its_package_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "h2", None)

    with pytest.raises(BadSetting, match=r"install antiphon\[http2\]"):
        Client(http2=True)


def test_an_unknown_option_is_refused():
    unknown: Any = {"max_retrys": 3}
    with pytest.raises(TypeError, match="max_retrys"):
        Client(**unknown)
    with pytest.raises(TypeError, match="max_retrys"):
        Client().with_options(**unknown)


# Hooks.


def test_hooks_see_every_attempt_and_may_change_it(server):
    seen: list[Any] = []

    def on_request(request):
        seen.append((request.extensions["operation"], request.method))
        request.headers["x-signed"] = "yes"

    server.plan.extend([error(503, headers={"retry-after-ms": "1"}), echo])
    with Client(app=server, on_request=on_request, on_response=lambda each: seen.append(each.status_code)) as client:
        assert client.list_models()["headers"]["x-signed"] == "yes"

    assert seen == [("listModels", "GET"), 503, ("listModels", "GET"), 200]


async def test_async_hooks_are_awaited_and_may_give_another_request(server):
    seen = []

    async def on_request(request):
        await asyncio.sleep(0)
        return httpx2.Request("GET", "http://localhost/elsewhere")

    async def on_response(response):
        await asyncio.sleep(0)
        seen.append(response.status_code)

    async with AsyncClient(app=server, on_request=on_request, on_response=on_response) as client:
        assert (await client.list_models())["path"] == "/elsewhere"
    assert seen == [200]


# Answers that are checked.


def test_answers_are_checked_on_wish(server):
    server.plan.extend([reply(body=MODEL), reply(body={**MODEL, "created": "now"}), reply(body={})])
    with Client(app=server, validate_responses=True) as client:
        assert client.retrieve_model(model="m") == MODEL
        with pytest.raises(InvalidAnswer, match=r"retrieveModel: the answer does not match.*created: ") as caught:
            client.retrieve_model(model="m")
        with pytest.raises(InvalidAnswer):
            client.list_models()

    assert [problem.param for problem in caught.value.problems] == ["created"]
    assert caught.value.value == {**MODEL, "created": "now"}


def test_a_mismatch_may_be_a_warning(server):
    server.plan.append(reply(body={}))
    with Client(app=server, validate_responses="warn") as client, pytest.warns(UserWarning, match="retrieveModel"):
        assert client.call("retrieveModel", model="m") == {}


def test_a_status_that_is_not_described_is_a_mismatch(server):
    server.plan.append(reply(202, body=MODEL))
    with Client(app=server, validate_responses=True) as client, pytest.raises(InvalidAnswer, match="202"):
        client.retrieve_model(model="m")


async def test_events_are_checked_too_and_the_stream_goes_on_behind_a_wrong_one(server):
    wrong = [{**event, "delta": 7} if event["sequence_number"] == 5 else event for event in LOG[4:8]]
    server.plan.extend([play(log=wrong)] * 2)
    with Client(app=server, validate_responses=True, resume_seconds=0) as client:
        stream = client.follow("resp_1", starting_after=3)
        next(stream)
        with pytest.raises(InvalidAnswer, match=r"event response\.output_text.delta"):
            next(stream)
        assert next(stream) == LOG[6]
    async with AsyncClient(app=server, validate_responses=True) as client:
        async_stream = client.follow("resp_1", starting_after=3)
        await anext(async_stream)
        with pytest.raises(InvalidAnswer):
            await anext(async_stream)


# Following.


async def test_a_response_is_followed_from_its_beginning_or_from_anywhere(server):
    with Client(app=server) as client:
        assert list(client.follow(RESPONSE_ID)) == LOG
        assert list(client.follow(RESPONSE_ID, starting_after=5)) == LOG[6:]
    async with AsyncClient(app=server) as client:
        assert [event async for event in client.follow(RESPONSE_ID, starting_after=2)] == LOG[3:]

    assert {request.path for request in server.requests} == {f"/v1/responses/{RESPONSE_ID}"}


@pytest.mark.parametrize("starting_after", [None, 0])
@pytest.mark.parametrize(
    ("ending", "status"),
    [
        ("response.completed", "completed"),
        ("response.incomplete", "incomplete"),
        ("response.incomplete", "cancelled"),
        ("response.failed", "failed"),
    ],
)
async def test_whoever_waits_gets_the_final_response_of_every_ending(server, ending, status, starting_after):
    said = Transcript({"id": "resp_1", "object": "response", "status": "queued"})
    log = [said.write("response.created"), said.write("response.in_progress"), said.write(ending, status=status)]
    server.plan.extend([play(log=log)] * 2)

    with Client(app=server) as client:
        final = client.follow("resp_1", starting_after=starting_after).until_done()
    async with AsyncClient(app=server) as client:
        assert await client.follow("resp_1", starting_after=starting_after).until_done() == final

    assert final is not None
    assert final["status"] == status


def test_following_what_is_not_there_is_an_error(client, server):
    server.plan.append(error(404, "There is no such response."))
    with pytest.raises(NotFound, match="There is no such response"):
        client.follow("resp_none")
