"""Where a call goes and as whom: what the document asks for, what was given, what the environment says."""

import base64
import json
from pathlib import Path
from typing import Any

import httpx2
import pytest

from antiphon import ApiError, AsyncClient, Client, DocumentError, InvalidRequest
from antiphon.spec import Document
from tests.servers.api import LOG, RESPONSE_ID, ApiServer, play, reply
from tests.servers.running import serve

ZOO = Document.load(Path(__file__).parent / "documents" / "zoo.yaml")
LIST: dict[str, Any] = {"from": "2025-01-01", "X_Trace": "t"}


@pytest.fixture
def server():
    return ApiServer()


@pytest.fixture
def zoo(server):
    with Client(spec=ZOO, app=server, max_retries=0) as client:
        yield client


@pytest.fixture
def outside(monkeypatch):
    """What a user of OpenAI has in the environment."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-outside")
    monkeypatch.setenv("OPENAI_ADMIN_KEY", "sk-admin")
    monkeypatch.setenv("OPENAI_ORG_ID", "org_outside")
    monkeypatch.setenv("OPENAI_PROJECT_ID", "proj_outside")


@pytest.fixture
def load(tmp_path):
    def load(*, servers=None, elsewhere=None, security=None, schemes=None, path="/look", **operation):
        get = {"operationId": "look", "responses": {"200": {"description": "Seen."}}, **operation}
        raw: dict[str, Any] = {"openapi": "3.1.0", "info": {}, "paths": {path: {"get": get}}}
        raw["components"] = {"securitySchemes": schemes or {}}
        raw |= {"servers": servers} if servers else {}
        get |= {"servers": elsewhere} if elsewhere else {}
        raw |= {"security": security} if security is not None else {}
        file = tmp_path / "api.json"
        file.write_text(json.dumps(raw))
        return Document.load(file)

    return load


def proof(seen):
    """What a request says of its caller."""
    names = ("authorization", "x-key", "cookie", "openai-organization", "openai-project")
    return {name: seen["headers"][name] for name in names if name in seen["headers"]}


# The environment speaks of OpenAI alone.


def test_no_key_of_openais_goes_to_another_vendor(server, load, outside, monkeypatch):
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:1/v1")
    with serve(server) as url:
        for schemes in ({}, {"AdminApiKeyAuth": {"type": "http", "scheme": "bearer"}}):
            document = load(servers=[{"url": f"{url}/v2"}], schemes=schemes, security=[{name: [] for name in schemes}])
            with Client(spec=document) as client:
                seen = client.look()

            assert seen["path"] == "/v2/look"
            assert proof(seen) == {}


class Stopped(Exception):
    pass


@pytest.mark.parametrize(
    ("url", "heard"),
    [
        ("https://api.openai.com/v1", True),
        ("https://API.openai.com:443/v2", True),
        ("http://api.openai.com/v1", False),
        ("https://openai.com/v1", False),
        ("https://eu.api.openai.com/v1", False),
        ("https://api.openai.com.example/v1", False),
        ("https://api.openai.com@example.test/v1", False),
        ("https://example.test/api.openai.com", False),
    ],
)
def test_the_environment_is_heard_where_the_document_says_that_the_api_is_openais(load, outside, url, heard):
    seen: list[httpx2.Request] = []

    def stop(request: httpx2.Request) -> None:
        seen.append(request)
        raise Stopped

    with Client(spec=load(servers=[{"url": url}]), on_request=stop) as client, pytest.raises(Stopped):
        client.look()

    assert seen[0].headers.get("authorization") == ("Bearer sk-outside" if heard else None)
    assert seen[0].headers.get("openai-organization") == ("org_outside" if heard else None)


@pytest.mark.parametrize("path", ["@example.test/look", ".example.test/look"])
def test_a_path_is_never_a_part_of_the_host(load, outside, path):
    hosts: list[str] = []

    def stop(request: httpx2.Request) -> None:
        hosts.append(request.url.host)
        raise Stopped

    document = load(servers=[{"url": "https://api.openai.com"}], path=path)
    with Client(spec=document, on_request=stop) as client, pytest.raises(Stopped):
        client.look()

    assert hosts == ["api.openai.com"]


def test_a_compatible_server_gets_the_key_of_the_environment(server, outside):
    with serve(server) as url, Client(f"{url}/v1") as client:
        assert proof(client.list_models())["authorization"] == "Bearer sk-outside"
        assert proof(client.list_users())["authorization"] == "Bearer sk-admin"


def test_the_environment_is_read_once(server, outside, monkeypatch):
    with serve(server) as url, Client(f"{url}/v1") as client:
        client.list_models()
        monkeypatch.setenv("OPENAI_API_KEY", "sk-later")
        client.get_response(response_id=RESPONSE_ID)
        client.with_options(max_retries=0).list_models()

    assert {each.headers["authorization"] for each in server.requests} == {"Bearer sk-outside"}


def test_a_stranger_inside_of_openais_document_gets_only_what_was_given(server, load, outside):
    with serve(server) as url:
        document = load(
            servers=[{"url": "https://api.openai.com/v1"}],
            elsewhere=[{"url": f"{url}/files"}],
            schemes={"key": {"type": "http", "scheme": "bearer"}},
            security=[{"key": []}],
        )
        with Client(spec=document) as client:
            unknown, given = client.look(), client.with_options(api_key="sk-given").look()

    assert (unknown["path"], proof(unknown)) == ("/files/look", {})
    assert proof(given) == {"authorization": "Bearer sk-given"}


def test_a_document_of_another_vendor_is_told_what_was_given(server, load, outside):
    with serve(server) as url:
        document = load(servers=[{"url": url}])
        with Client(spec=document, api_key="k", organization="org_1", project="proj_1") as client:
            seen = client.look()

    assert proof(seen) == {
        "authorization": "Bearer k",
        "openai-organization": "org_1",
        "openai-project": "proj_1",
    }


# What the document asks for.


def test_a_token_is_sent_as_the_bearer_that_the_document_asks_for(zoo):
    assert proof(zoo.with_options(api_key="t").call("listAnimals", **LIST)) == {"authorization": "Bearer t"}
    assert proof(zoo.with_options(credentials={"token": "t"}).call("listAnimals", **LIST)) == {
        "authorization": "Bearer t"
    }


def test_what_belongs_together_is_sent_together(zoo):
    both = zoo.with_options(credentials={"key": "k", "session": "s"})

    assert proof(both.call("listAnimals", **LIST)) == {"x-key": "k", "cookie": "session=s"}


def test_the_first_way_in_that_there_is_all_for_is_taken(zoo):
    known = zoo.with_options(credentials={"session": "s", "key": "k", "token": "t"})

    assert proof(known.call("listAnimals", **LIST)) == {"authorization": "Bearer t"}


def test_a_part_of_what_belongs_together_is_refused(zoo, server):
    with pytest.raises(InvalidRequest, match=r"listAnimals takes 'key' and 'session' together, .* for 'session'"):
        zoo.with_options(credentials={"key": "k"}).call("listAnimals", **LIST)
    assert server.requests == []


def test_nobody_is_named_where_anyone_may_call(zoo):
    known = zoo.with_options(api_key="t", credentials={"token": "t", "key": "k", "session": "s"})

    assert proof(known.call("import", animal_id=1)) == {}


def test_who_may_call_without_a_credential_is_named_where_there_is_one(zoo):
    assert proof(zoo.call("get-animal", animal_id=1)) == {}
    assert proof(zoo.with_options(api_key="t").call("get-animal", animal_id=1)) == {"authorization": "Bearer t"}


@pytest.mark.parametrize(
    ("options", "headers", "query"),
    [
        (
            {"credentials": {"basic": ("Änn", "a:b")}},
            {"authorization": "Basic " + base64.b64encode("Änn:a:b".encode()).decode()},
            [],
        ),
        ({"credentials": {"query": "k&x"}}, {}, [["key", "k&x"]]),
        ({"credentials": {"login": "t"}}, {"authorization": "Bearer t"}, []),
        ({"api_key": "k"}, {}, [["key", "k"]]),
        ({"api_key": "k", "credentials": {"basic": ("u", "p")}}, {"authorization": "Basic dTpw"}, []),
        ({}, {}, []),
    ],
)
def test_each_scheme_has_its_place(zoo, options, headers, query):
    seen = zoo.with_options(**options).call("2ndPhoto", animal_id=1, body=b"x")

    assert (proof(seen), seen["query"]) == (headers, query)


async def test_async_calls_are_the_same(server):
    async with AsyncClient(spec=ZOO, app=server, credentials={"key": "k", "session": "s"}) as client:
        assert proof(await client.call("listAnimals", **LIST)) == {"x-key": "k", "cookie": "session=s"}
        assert (await client.raw.call("listAnimals", **LIST)).json()["headers"]["x-key"] == "k"


def test_a_cookie_of_the_call_stands_beside_that_of_the_caller(server, load):
    document = load(
        schemes={"session": {"type": "apiKey", "in": "cookie", "name": "session"}},
        security=[{"session": []}],
        parameters=[{"name": "taste", "in": "cookie", "schema": {"type": "string"}}],
    )
    with Client(spec=document, app=server, api_key="s") as client:
        assert proof(client.look(taste="sweet")) == {"cookie": "session=s; taste=sweet"}


def test_the_certificate_of_a_connection_needs_no_credential(server, load):
    schemes = {"tls": {"type": "mutualTLS"}, "token": {"type": "openIdConnect", "openIdConnectUrl": "/id"}}
    document = load(schemes=schemes, security=[{"tls": []}, {"tls": [], "token": []}])
    with Client(spec=document, app=server) as client:
        assert proof(client.look()) == {}
        assert proof(client.with_options(api_key="t").look()) == {"authorization": "Bearer t"}


def test_a_scheme_that_the_document_does_not_have_is_refused(zoo):
    with pytest.raises(InvalidRequest, match=r"no security scheme 'tokn'\. Did you mean 'token'"):
        zoo.with_options(credentials={"tokn": "t"}).call("listAnimals", **LIST)


@pytest.mark.parametrize(
    ("credentials", "message"),
    [
        ({"basic": "secret"}, "'basic' takes a user and a password"),
        ({"query": ("secret", "x")}, "'query' takes one text"),
        ({"digest": "secret"}, "'digest' is digest, which is not supported"),
    ],
)
def test_a_credential_that_a_scheme_cannot_use_is_refused_and_not_shown(server, load, credentials, message):
    schemes = {
        "basic": {"type": "http", "scheme": "basic"},
        "query": {"type": "apiKey", "in": "query", "name": "key"},
        "digest": {"type": "http", "scheme": "digest"},
    }
    document = load(schemes=schemes, security=[{name: []} for name in schemes])
    with (
        Client(spec=document, app=server, credentials=credentials) as client,
        pytest.raises(InvalidRequest, match=message) as caught,
    ):
        client.look()

    assert "secret" not in str(caught.value)
    assert server.requests == []


def test_credentials_are_not_shown_and_can_be_changed(zoo):
    known = zoo.with_options(credentials={"token": "secret-one"})
    other = known.with_options(credentials={"token": "secret-two"})

    assert "secret" not in repr(known.options)
    assert proof(other.call("listAnimals", **LIST)) == {"authorization": "Bearer secret-two"}
    assert proof(known.call("listAnimals", **LIST)) == {"authorization": "Bearer secret-one"}


@pytest.mark.parametrize("credentials", [{"key": "k", "session": "s"}, {"query": "k"}])
def test_a_key_is_not_carried_to_where_a_redirect_leads(zoo, server, credentials):
    server.plan.append(reply(307, headers={"location": "http://elsewhere.example/x"}))
    operation = "2ndPhoto" if "query" in credentials else "listAnimals"
    arguments = {"animal_id": 1, "body": b"x"} if "query" in credentials else LIST
    with pytest.raises(ApiError) as caught:
        zoo.with_options(credentials=credentials).call(operation, **arguments)

    assert caught.value.status == 307
    assert len(server.requests) == 1


@pytest.mark.parametrize("place", ["http://elsewhere.example/v1/models", "http://localhost:81/v1/models"])
def test_what_a_redirect_leads_to_elsewhere_sees_no_header_of_the_callers_own(server, place):
    """Any of them may be a key."""
    server.plan += [reply(307, headers={"location": "/v1/there"}), reply(307, headers={"location": place})]
    with Client("http://localhost/v1", "k", app=server, default_headers={"X-Key": "s"}, project="p") as client:
        client.list_models()

    assert [each.headers.get("authorization") for each in server.requests] == ["Bearer k", "Bearer k", None]
    assert [each.headers.get("x-key") for each in server.requests] == ["s", "s", None]
    assert [each.headers.get("openai-project") for each in server.requests] == ["p", "p", None]


async def test_nor_does_that_of_an_async_client(server):
    server.plan.append(reply(307, headers={"location": "http://elsewhere.example/v1/models"}))
    async with AsyncClient("http://localhost/v1", "k", app=server, default_headers={"X-Key": "s"}) as client:
        await client.list_models()

    assert [each.headers.get("x-key") for each in server.requests] == ["s", None]


def test_redirects_without_an_end_are_an_answer(server):
    server.plan += [reply(307, headers={"location": "/v1/models"})] * 30
    with Client("http://localhost/v1", app=server) as client, pytest.raises(ApiError) as caught:
        client.list_models()

    assert caught.value.status == 307


def test_a_stream_is_resumed_as_whom_it_was_begun(server):
    server.plan.append(play(3, then="drop"))
    with Client(app=server, credentials={"ApiKeyAuth": "t"}) as client:
        assert list(client.follow(RESPONSE_ID)) == LOG

    assert [each.headers["authorization"] for each in server.requests] == ["Bearer t"] * 2


# Where it goes.


def test_an_operation_goes_to_its_own_server(server, load):
    with serve(server) as url:
        document = load(servers=[{"url": "http://127.0.0.1:1"}], elsewhere=[{"url": f"{url}/photos"}])
        with Client(spec=document) as client:
            assert client.look()["path"] == "/photos/look"


def test_a_base_url_that_was_given_goes_before_every_server(server, load):
    variables = {"region": {"default": "eu"}}
    document = load(
        servers=[{"url": "http://{region}.example", "variables": variables}], elsewhere=[{"url": "http://127.0.0.1:1"}]
    )
    with serve(server) as url, Client(f"{url}/mine", spec=document, server_variables={"region": "us"}) as client:
        assert client.look()["path"] == "/mine/look"


def test_the_variables_of_a_server_are_options(server, load):
    variables = {"port": {"default": "1"}, "base": {"default": "v1", "enum": ["v1", "v2"]}}
    document = load(servers=[{"url": "http://127.0.0.1:{port}/{base}", "variables": variables}])
    with serve(server) as url, Client(spec=document, server_variables={"port": int(url.rpartition(":")[2])}) as client:
        assert client.look()["path"] == "/v1/look"
        other = client.with_options(server_variables={**(client.options.server_variables or {}), "base": "v2"})
        assert other.look()["path"] == "/v2/look"


def test_an_operations_own_server_takes_what_it_has_of_the_variables(zoo):
    assert zoo.call("2ndPhoto", animal_id=1, body=b"x")["path"] == "/%7Bsize%7D/animals/1/photo"
    small = zoo.with_options(server_variables={"region": "us", "size": "small"})
    assert small.call("2ndPhoto", animal_id=1, body=b"x")["path"] == "/small/animals/1/photo"
    with pytest.raises(DocumentError, match=r"'size' of .* is 'small' or 'large', not 'huge'"):
        zoo.with_options(server_variables={"size": "huge"}).call("2ndPhoto", animal_id=1, body=b"x")


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"region": "mars"}, "'region' of .* is 'eu' or 'us', not 'mars'"),
        ({"planet": "mars"}, "no variable 'planet'. It has 'region', 'port', and 'base'"),
    ],
)
def test_a_variable_that_the_server_does_not_have_or_allow_is_refused(zoo, server, variables, message):
    with pytest.raises(DocumentError, match=message):
        zoo.with_options(server_variables=variables).call("listAnimals", **LIST)
    assert server.requests == []


def test_a_server_that_is_a_path_is_on_the_site_of_the_document(server):
    document = {
        "openapi": "3.0.0",
        "info": {},
        "servers": [{"url": "../v2"}],
        "paths": {
            "/look": {"get": {}},
            "/photo": {"get": {}, "servers": [{"url": "/photos"}]},
        },
    }
    server.plan.append(reply(body=document))
    with serve(server) as url, Client(spec=f"{url}/docs/openapi.json") as client:
        assert client.get_look()["path"] == "/v2/look"
        assert client.get_photo()["path"] == "/photos/photo"


@pytest.mark.parametrize(
    ("described", "message"),
    [
        ("/sandbox", "where '/sandbox' is: `base_url` is needed"),
        ("https://{region}.example/v1", r"where 'https://\{region\}\.example/v1' is: `base_url` is needed"),
        ("https://[region].example/v1", "cannot be sent"),
    ],
)
def test_a_server_that_is_nowhere_is_refused_unless_there_is_another(server, load, described, message):
    document = load(servers=[{"url": described}])
    with Client(spec=document) as client, pytest.raises(InvalidRequest, match=message):
        client.look()
    with serve(server) as url, Client(url, spec=document) as client:
        assert client.look()["path"] == "/look"
