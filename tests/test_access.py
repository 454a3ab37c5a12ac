"""Who may call, and for what: tenants, keys, a server without keys."""

import re
from pathlib import Path

import httpx2
import pytest
import websockets

from antiphon.node import node
from antiphon.server.access import KEYLESS
from antiphon.server.app import OPERATIONS
from antiphon.settings import Settings
from antiphon.spec.document import Document
from tests.servers.antiphon import antiphon, created, creating, following, replayed

KEYS = {"alice": "sk-alice-0123456789abcdef", "bob": "sk-bob-0123456789abcdef"}
ADMIN = {"prometheus": "sk-admin-0123456789abcdef"}
OK = {"model": "text:Hello there", "input": "Hi"}


def bearer(name):
    return {"authorization": f"Bearer {(KEYS | ADMIN)[name]}"}


@pytest.fixture(scope="module")
def shared():
    """A server for two tenants."""
    with antiphon(api_keys=KEYS) as server:
        yield server


@pytest.fixture
async def alice(shared):
    async with shared.http(headers=bearer("alice")) as http:
        yield http


@pytest.fixture
async def bob(shared):
    async with shared.http(headers=bearer("bob")) as http:
        yield http


@pytest.fixture(scope="module")
def open_server():
    """A server without keys."""
    with antiphon() as server:
        yield server


@pytest.fixture
async def http(open_server):
    async with open_server.http() as http:
        yield http


@pytest.mark.parametrize(
    ("method", "path"), [("GET", ""), ("GET", "?stream=true"), ("DELETE", ""), ("POST", "/cancel")]
)
async def test_another_tenants_response_is_as_unknown_as_one_that_never_was(alice, bob, method, path):
    response = await created(alice, "text")
    unknown = response["id"][:-4] + "0000"
    foreign = await bob.request(method, f"/responses/{response['id']}{path}")
    never = await bob.request(method, f"/responses/{unknown}{path}")

    assert (foreign.status_code, never.status_code) == (404, 404)
    assert foreign.text.replace(response["id"], unknown) == never.text
    assert foreign.headers.keys() == never.headers.keys()
    assert (await alice.get(f"/responses/{response['id']}")).json() == response


async def test_another_tenants_response_cannot_be_continued(alice, bob):
    response = await created(alice, "text")
    answer = await bob.post("/responses", json={**OK, "previous_response_id": response["id"]})

    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "previous_response_not_found"


async def test_another_tenants_running_response_cannot_be_stopped(alice, bob, shared):
    async with creating(alice, "gate:1:1") as stream:
        await stream.deltas(1)
        cancelled = await bob.post(f"/responses/{stream.response_id}/cancel")
        deleted = await bob.delete(f"/responses/{stream.response_id}")
        shared.upstream.requests[-1].release()
        await stream.rest()

    assert (cancelled.status_code, deleted.status_code) == (404, 404)
    assert stream.events[-1]["type"] == "response.completed"


@pytest.mark.parametrize(
    ("authorization", "code"),
    [
        (None, None),
        ("", None),
        ("Bearer", None),
        ("Basic YWxpY2U6c2VjcmV0", None),
        ("Bearer sk-wrong", "invalid_api_key"),
        ("Bearer sk-alice-0123456789abcdefg", "invalid_api_key"),
        ("Bearer sk-alice-0123456789abcde", "invalid_api_key"),
        ("Bearer \xff", "invalid_api_key"),
    ],
)
@pytest.mark.parametrize(("method", "path"), [("POST", "/responses"), ("GET", "/responses/resp_1"), ("GET", "/models")])
async def test_without_a_right_key_nothing_is_done(shared, method, path, authorization, code):
    headers = {} if authorization is None else {"authorization": authorization.encode("latin-1")}
    async with shared.http() as http:
        answer = await http.request(method, path, headers=headers)

    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == "Bearer"
    assert answer.json()["error"]["code"] == code
    assert answer.json()["error"]["type"] == "invalid_request_error"


async def test_a_wrong_key_is_not_repeated(shared):
    async with shared.http() as http:
        answer = await http.get("/models", headers={"authorization": "Bearer sk-secret-of-somebody-else"})

    assert answer.json()["error"]["message"] == "Incorrect API key provided: sk-***else."


async def test_the_scheme_may_be_written_in_any_case(shared):
    async with shared.http(headers={"authorization": f"bearer  {KEYS['bob']}"}) as http:
        assert (await http.get("/models")).status_code == 200


async def test_the_description_is_not_for_strangers_and_the_probes_are(shared):
    async with shared.http(base_url=shared.url.removesuffix("/v1")) as http:
        answers = [await http.get(path) for path in ("/openapi.json", "/healthz", "/readyz")]

    assert [answer.status_code for answer in answers] == [401, 200, 200]


async def test_with_keys_any_name_of_the_server_will_do(alice):
    answer = await alice.get("/models", headers={"host": "api.example.com", "origin": "https://example.com"})

    assert answer.status_code == 200


@pytest.mark.parametrize("host", ["localhost", "localhost:8000", "127.0.0.1", "127.8.8.8:1", "[::1]", "[::1]:8000"])
async def test_without_keys_a_loopback_name_is_served(http, host):
    assert (await http.get("/models", headers={"host": host})).status_code == 200


@pytest.mark.parametrize(
    "host",
    ["example.com", "127.0.0.1.example.com", "localhost.example.com", "10.0.0.1", "0.0.0.0", "[::]", "", "[", "a@b:c"],
)
@pytest.mark.parametrize(("method", "path"), [("POST", "/responses"), ("GET", "/responses/resp_1"), ("GET", "/models")])
async def test_without_keys_no_other_host_is_served(http, method, path, host):
    answer = await http.request(method, path, json=OK, headers={"host": host})

    assert answer.status_code == 403
    assert "Host header" in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    "origin", ["https://example.com", "null", "", "https://127.0.0.1.example.com", "file://", "http://["]
)
async def test_without_keys_no_other_site_may_call(http, origin):
    answer = await http.post("/responses", json=OK, headers={"origin": origin})

    assert answer.status_code == 403
    assert "Origin" in answer.json()["error"]["message"]


async def test_without_keys_a_page_of_this_machine_may_call(http):
    assert (await http.post("/responses", json=OK, headers={"origin": "http://localhost:3000"})).status_code == 200


async def test_without_keys_what_a_form_can_send_is_refused(http):
    """A page of another site can send a form's content type without asking first."""
    form = {"content-type": "text/plain"}
    answer = await http.post("/responses", content=b'{"model": "text", "input": "Hi"}', headers=form)

    assert answer.status_code == 415


async def test_without_keys_any_authorization_will_do(http):
    assert (await http.get("/models", headers={"authorization": "Bearer anything"})).status_code == 200


@pytest.mark.parametrize("given", ["req_mine", "a", "x" * 128, "~!@#$%"])
@pytest.mark.parametrize("path", ["/models", "/nothing", "/responses/resp_1", "/responses/bad"])
async def test_a_sane_request_id_is_kept(http, path, given):
    answer = await http.get(path, headers={"x-request-id": given})

    assert answer.headers["x-request-id"] == given


@pytest.mark.parametrize("given", [b"", b"x" * 129, b"two words", b"\xff", b"tab\there"])
@pytest.mark.parametrize("path", ["/models", "/nothing", "/responses/resp_1"])
async def test_another_request_id_is_replaced(http, path, given):
    answer = await http.get(path, headers={"x-request-id": given})

    assert re.fullmatch("req_[0-9a-f]{32}", answer.headers["x-request-id"])


async def test_every_request_gets_an_id_of_its_own(http):
    first, second = [await http.get("/models"), await http.get("/nothing")]

    assert first.headers["x-request-id"] != second.headers["x-request-id"]


async def test_what_the_caller_calls_its_request_is_given_back(http):
    answer = await http.get("/models", headers={"x-client-request-id": "mine-1"})
    assert answer.headers["x-client-request-id"] == "mine-1"
    assert answer.headers["x-request-id"].startswith("req_")
    silly = await http.get("/models", headers={"x-client-request-id": "a b"})
    assert "x-client-request-id" not in silly.headers


async def test_a_stream_has_a_request_id_too(http):
    async with creating(http, "text") as stream:
        await stream.rest()

    assert re.fullmatch("req_[0-9a-f]{32}", stream.answer.headers["x-request-id"])


async def test_a_stream_can_be_followed_by_its_own_tenant_alone(alice, bob):
    response = await created(alice, "text")

    assert (await replayed(alice, response["id"])).count(b"\n\n") > 5
    with pytest.raises(AssertionError):
        async with following(bob, response["id"]):
            pass


async def asked(path, *, client="127.0.0.1", headers=None, **settings):
    """The answer to a GET from that address."""
    async with node(Settings(database="sqlite://", upstream="http://127.0.0.1:9/v1", **settings)) as running:
        transport = httpx2.ASGITransport(app=running.app, client=(client, 50000))
        async with httpx2.AsyncClient(transport=transport, base_url="http://localhost:8000") as http:
            answer = await http.get(path, headers=headers)
        await running.worker.stop(seconds=0)
        return answer


def test_the_keyless_routes_are_these():
    """One table, in the code and on the page."""
    page = (Path(__file__).parent.parent / "SECURITY.md").read_text(encoding="utf-8")

    assert set(KEYLESS) == {"/healthz", "/readyz", "/metrics"}
    assert re.findall(r"^\| `(/\w+)` \|", page, re.MULTILINE) == list(KEYLESS)


async def test_every_other_route_needs_a_key(shared):
    async with shared.http(base_url=shared.url.removesuffix("/v1")) as http:
        for id in OPERATIONS:
            operation = Document.load().operation(id)
            path = "/v1" + re.sub(r"\{\w+\}", "x", operation.path)
            assert (await http.request(operation.method, path)).status_code == 401, id
        assert (await http.get("/openapi.json")).status_code == 401


@pytest.mark.parametrize("path", KEYLESS)
async def test_a_keyless_route_is_open_to_this_machine_alone(path):
    for client in ("127.0.0.1", "::1"):
        assert (await asked(path, client=client, api_keys=KEYS)).status_code == 200
    for client in ("10.0.0.9", "2001:db8::1"):
        assert (await asked(path, client=client, api_keys=KEYS)).status_code == 401


@pytest.mark.parametrize("path", KEYLESS)
async def test_from_elsewhere_a_keyless_route_is_for_admins(path):
    """It tells of all tenants, so none of them is told."""
    elsewhere = {"client": "10.0.0.9", "api_keys": KEYS, "admin_keys": ADMIN}
    refused = await asked(path, **elsewhere, headers=bearer("bob"))

    assert (await asked(path, **elsewhere, headers=bearer("prometheus"))).status_code == 200
    assert (await asked(path, **elsewhere, headers={"authorization": "Bearer sk-wrong"})).status_code == 401
    assert refused.status_code == 403
    assert "needs an admin key" in refused.json()["error"]["message"]


async def test_without_any_key_a_server_for_everybody_tells_everybody():
    assert (await asked("/metrics", client="10.0.0.9", insecure_no_auth=True, host="0.0.0.0")).status_code == 200


async def test_an_admin_key_opens_no_operation():
    with antiphon(api_keys=KEYS, admin_keys=ADMIN) as server:
        base = server.url.removesuffix("/v1")
        async with server.http(base_url=base, headers=bearer("prometheus")) as http:
            for id in OPERATIONS:
                operation = Document.load().operation(id)
                path = "/v1" + re.sub(r"\{\w+\}", "x", operation.path)
                assert (await http.request(operation.method, path)).status_code == 403, id
            assert (await http.get("/openapi.json")).status_code == 403
            refused = await http.post("/v1/responses", json=OK)
        with pytest.raises(websockets.InvalidStatus) as caught:
            await websockets.connect(
                server.url.replace("http", "ws", 1) + "/responses",
                additional_headers=bearer("prometheus"),
                proxy=None,
            )

    assert "admin key" in refused.json()["error"]["message"]
    assert refused.json()["error"]["type"] == "invalid_request_error"
    assert caught.value.response.status_code == 403
    assert server.upstream.requests == []


async def test_an_admin_key_alone_closes_a_server():
    """As every key does."""
    with antiphon(admin_keys=ADMIN) as server:
        async with server.http() as http:
            assert (await http.get("/models")).status_code == 401


@pytest.mark.parametrize(
    "headers",
    [
        {"x-forwarded-for": "203.0.113.9"},
        {"forwarded": "for=203.0.113.9"},
        {"host": "api.example.com"},
        {"via": "1.1 x"},
    ],
)
@pytest.mark.parametrize("path", KEYLESS)
async def test_what_came_through_a_proxy_of_this_machine_does_not_come_from_it(path, headers):
    assert (await asked(path, headers=headers, api_keys=KEYS)).status_code == 401


async def test_every_answer_tells_browsers_to_take_it_for_what_it_is(http):
    for path in ("/models", "/nothing", "/responses/resp_1"):
        answer = await http.get(path)
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["content-security-policy"] == "default-src 'none'"
        assert "strict-transport-security" not in answer.headers


PREFLIGHT = {"access-control-request-method": "POST", "access-control-request-headers": "authorization,content-type"}


async def test_pages_of_other_sites_are_not_served_by_default(alice):
    origin = {"origin": "https://app.example"}
    asked = await alice.options("/responses", headers={**origin, **PREFLIGHT})
    answer = await alice.get("/models", headers=origin)

    assert asked.status_code == 405
    assert not [name for name in (*asked.headers, *answer.headers) if name.startswith("access-control")]


async def test_pages_of_the_sites_named_are_served():
    with antiphon(api_keys=KEYS, cors_origins=("https://app.example",)) as server:
        async with server.http() as http:
            asked = await http.options("/responses", headers={"origin": "https://app.example", **PREFLIGHT})
            answer = await http.post(
                "/responses", json=OK, headers={"origin": "https://app.example", **bearer("alice")}
            )
            other = await http.get("/models", headers={"origin": "https://other.example", **bearer("alice")})
            unknown = await http.get("/models", headers={"origin": "https://app.example"})

    assert asked.status_code == 200
    assert asked.headers["access-control-allow-origin"] == "https://app.example"
    assert answer.headers["access-control-allow-origin"] == "https://app.example"
    assert "x-request-id" in answer.headers["access-control-expose-headers"]
    assert "access-control-allow-origin" not in other.headers
    assert unknown.status_code == 401
    assert unknown.headers["access-control-allow-origin"] == "https://app.example"
