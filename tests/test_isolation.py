"""Tenants: what belongs to another is exactly as unknown as what never was, wherever the API lets an id stand."""

import re
from typing import Any
from urllib.parse import quote

import pytest

from antiphon.server.app import OPERATIONS
from tests.servers.antiphon import antiphon, created, document

KEYS = {"alice": "sk-alice-0123456789abcdef", "bob": "sk-bob-0123456789abcdef"}
ITEM = {"type": "message", "role": "user", "content": "Mine"}

# What of a tenant stands in the place of a parameter, or of a field of a body.
OWNED = {
    "response_id": "response",
    "conversation_id": "conversation",
    "item_id": "item",
    "prompt_id": "prompt",
    "id": "prompt",
    "previous_response_id": "response",
    "conversation": "conversation",
    "prompt": "prompt",
    "input": "message",
}
CURSORS = {
    "listResponses": "response",
    "listInputItems": "input",
    "listConversationItems": "item",
    "listPrompts": "prompt",
}
IN_A_BODY = {"prompt": lambda id: {"id": id}, "input": lambda id: [{"type": "item_reference", "id": id}]}
NAMES_WHAT_IS_KEPT = re.compile(r"(.*_)?id|conversation|prompt|input|after")
OF_EVERYBODY = {"model"}
# The bodies that an operation needs to get as far as to the id.
BODIES: dict[str, dict[str, Any]] = {
    "createResponse": {"model": "text", "input": "Hi"},
    "Compactconversation": {"model": "text", "input": "Hi"},
    "Getinputtokencounts": {"model": "text", "input": "Hi"},
    "createPrompt": {"template": {"instructions": "Be mine."}},
    "updateConversation": {"metadata": {}},
    "createConversationItems": {"items": [ITEM]},
}


def fields_of(schema):
    """The names of a body's members, those of what it is put together from included."""
    raw = schema if isinstance(schema, dict) else schema.raw
    if "$ref" in raw:
        return fields_of(document().schema(raw["$ref"].rpartition("/")[2]))
    return {*raw.get("properties", ()), *(name for part in raw.get("allOf", ()) for name in fields_of(part))}


def places():
    """Every place of an operation where an id can stand, as the description has them."""
    for operation_id in OPERATIONS:
        operation = document().operation(operation_id)
        for parameter in operation.parameters:
            names = parameter.location == "path" or NAMES_WHAT_IS_KEPT.fullmatch(parameter.name)
            if names and parameter.name not in OF_EVERYBODY:
                yield operation_id, parameter.location, parameter.name
        if operation.body is not None:
            for name in sorted(fields_of(operation.body.media["application/json"])):
                if NAMES_WHAT_IS_KEPT.fullmatch(name):
                    yield operation_id, "body", name


async def belongings(http):
    """What a tenant has, by what OWNED calls it."""
    response = await created(http, "text", input=[ITEM])
    inputs = (await http.get(f"/responses/{response['id']}/input_items")).json()
    conversation = (await http.post("/conversations", json={"items": [ITEM]})).json()
    items = (await http.get(f"/conversations/{conversation['id']}/items")).json()
    prompt = (await http.post("/prompts", json={"template": {"instructions": "Be mine."}})).json()
    return {
        "response": response["id"],
        "message": response["output"][0]["id"],
        "input": inputs["data"][0]["id"],
        "conversation": conversation["id"],
        "item": items["data"][0]["id"],
        "prompt": prompt["id"],
    }


@pytest.fixture(scope="module")
def shared():
    with antiphon(api_keys=KEYS) as server:
        yield server


@pytest.fixture
async def alice(shared):
    async with shared.http(headers={"authorization": f"Bearer {KEYS['alice']}"}) as http:
        yield http


@pytest.fixture
async def bob(shared):
    async with shared.http(headers={"authorization": f"Bearer {KEYS['bob']}"}) as http:
        yield http


async def outcome(http, own, place, id):
    """What a tenant sees of an id in a place; everything else that the call needs is his own."""
    operation_id, location, name = place
    operation = document().operation(operation_id)
    path = operation.path
    for parameter in operation.parameters:
        if parameter.location == "path":
            given = id if parameter.name == name else own[OWNED[parameter.name]]
            path = path.replace(f"{{{parameter.name}}}", quote(given, safe=""))
    body = BODIES.get(operation_id)
    if location == "body":
        body = {**(body or {}), name: IN_A_BODY.get(name, lambda id: id)(id)}
    query = {name: id} if location == "query" else {}
    answer = await http.request(operation.method, path, params=query, json=body)
    headers = {key: value for key, value in answer.headers.items() if key not in ("x-request-id", "date")}
    return answer.status_code, answer.text.replace(id, "ID"), headers


@pytest.mark.parametrize("place", list(places()), ids=".".join)
async def test_what_belongs_to_another_is_as_unknown_as_what_never_was(alice, bob, place):
    """Wherever the description lets an id stand; a place that is new fails here until it is said what belongs there."""
    operation_id, _, name = place
    kind = CURSORS[operation_id] if name == "after" else OWNED[name]
    hers, his = await belongings(alice), await belongings(bob)
    never = hers[kind][:-6] + "000000"

    foreign = await outcome(bob, his, place, hers[kind])

    assert foreign == await outcome(bob, his, place, never)
    assert foreign[0] in (400, 404)
    assert hers[kind] not in foreign[1]
    allowed = await outcome(alice, hers, place, hers[kind])
    assert allowed[0] == 200 or "cancel" in operation_id, allowed


async def test_the_same_idempotency_key_tells_nothing_of_another(alice, bob):
    """A second use by the same tenant is known; one by another looks like the first of all."""

    async def sent(http, key):
        answer = await http.post("/responses", json={"model": "text", "input": "Hi"}, headers={"idempotency-key": key})
        return answer.status_code, sorted(answer.headers), answer.json()["id"]

    hers = await sent(alice, "one")
    again, his, fresh = await sent(alice, "one"), await sent(bob, "one"), await sent(bob, "two")

    assert again[2] == hers[2]
    assert his[:2] == fresh[:2]
    assert his[2] != hers[2]


@pytest.mark.parametrize("kind", ["reasoning", "compaction"])
async def test_what_was_sealed_for_another_is_what_nobody_sealed(alice, bob, kind):
    if kind == "reasoning":
        asked = {"include": ["reasoning.encrypted_content"], "store": False}
        item, *rest = (await created(alice, "reasoning", **asked))["output"]
    else:
        made = await alice.post("/responses/compact", json={"model": "text", "input": [ITEM]})
        *rest, item = made.json()["output"]

    async def sent(http, content):
        given = [*rest, {**item, "encrypted_content": content}, ITEM]
        answer = await http.post("/responses", json={"model": "text", "input": given})
        headers = {key: value for key, value in answer.headers.items() if key not in ("x-request-id", "date")}
        return answer.status_code, answer.text, headers

    sealed = item["encrypted_content"]
    assert await sent(bob, sealed) == await sent(bob, sealed[:-8] + "AAAAAAA=")
