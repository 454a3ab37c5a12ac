"""Conversations over HTTP: their objects as the API has them, and responses that are their turns."""

import asyncio
import json

import pytest

from tests.servers.antiphon import antiphon, created, creating, events


@pytest.fixture(scope="module")
def server():
    with antiphon() as server:
        yield server


@pytest.fixture
async def http(server):
    async with server.http() as http:
        yield http


def message(text, role="user", **fields):
    return {"type": "message", "role": role, "content": text, **fields}


async def posted(http, path, **body):
    answer = await http.post(path, json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def conversation(http, *texts, **fields):
    """A new conversation with these messages of a user; gives its path."""
    made = await posted(http, "/conversations", items=[message(text) for text in texts], **fields)
    return f"/conversations/{made['id']}"


async def listed(http, path, **query):
    answer = await http.get(f"{path}/items", params={"order": "asc", **query})
    assert answer.status_code == 200, answer.text
    return answer.json()


async def texts(http, path):
    """All texts of a conversation, oldest first, each with its role."""
    page = await listed(http, path, limit=100)
    return [(item["role"], item["content"][0]["text"]) for item in page["data"]]


def id_of(path):
    return path.rpartition("/")[2]


def error(answer, status):
    assert answer.status_code == status, answer.text
    return answer.json()["error"]


class TestObjects:
    """The eight operations."""

    @pytest.mark.parametrize("sent", [{}, {"json": {}}, {"json": {"metadata": None, "items": None}}])
    async def test_a_conversation_can_be_made_of_nothing(self, http, sent):
        made = (await http.post("/conversations", **sent)).json()

        assert made.keys() == {"id", "object", "created_at", "metadata"}
        assert made["id"].startswith("conv_")
        assert (made["object"], made["metadata"]) == ("conversation", {})
        assert (await http.get(f"/conversations/{made['id']}")).json() == made
        assert await listed(http, f"/conversations/{made['id']}") == {
            "object": "list",
            "data": [],
            "first_id": None,
            "last_id": None,
            "has_more": False,
        }

    async def test_metadata_is_replaced(self, http):
        path = await conversation(http, metadata={"topic": "tides"})
        first = (await http.get(path)).json()

        changed = await posted(http, path, metadata={"a": "b"})
        emptied = await posted(http, path, metadata=None)

        assert (first["metadata"], changed["metadata"], emptied["metadata"]) == ({"topic": "tides"}, {"a": "b"}, {})
        assert (await http.get(path)).json() == emptied == {**first, "metadata": {}}

    async def test_an_update_needs_its_metadata(self, http):
        path = await conversation(http)

        for call in (http.post(path), http.post(path, json={})):
            refused = error(await call, 400)
            assert (refused["code"], refused["param"]) == ("missing_required_parameter", "metadata")

    async def test_a_deleted_conversation_is_gone(self, http):
        path = await conversation(http, "Hi")

        deleted = (await http.delete(path)).json()

        assert deleted == {"id": id_of(path), "object": "conversation.deleted", "deleted": True}
        message = f"Conversation with id '{id_of(path)}' not found."
        for method, where, sent in (
            ("GET", path, None),
            ("POST", path, {"metadata": {}}),
            ("DELETE", path, None),
            ("GET", f"{path}/items", None),
            ("POST", f"{path}/items", {"items": []}),
            ("GET", f"{path}/items/msg_1", None),
            ("DELETE", f"{path}/items/msg_1", None),
        ):
            found = error(await http.request(method, where, json=sent), 404)
            assert found == {"message": message, "type": "invalid_request_error", "param": None, "code": None}

    async def test_an_id_of_another_kind_is_refused(self, http):
        refused = error(await http.get("/conversations/resp_1"), 400)

        assert (refused["code"], refused["param"]) == ("invalid_id_prefix", "conversation_id")

    async def test_items_are_given_back_complete_and_in_the_order_sent(self, http):
        path = await conversation(http, "One")

        sent = [message("Two"), message("Three", "assistant"), message("Four", "developer", id="msg_mine")]
        added = await posted(http, f"{path}/items", items=sent)

        assert [item["content"][0]["type"] for item in added["data"]] == ["input_text", "output_text", "input_text"]
        assert {item["status"] for item in added["data"]} == {"completed"}
        assert (added["first_id"], added["last_id"]) == (added["data"][0]["id"], "msg_mine")
        assert (await listed(http, path))["data"][1:] == added["data"]

    async def test_an_item_is_what_the_list_shows(self, http):
        path = await conversation(http, "Hi")
        (item,) = (await listed(http, path))["data"]

        assert (await http.get(f"{path}/items/{item['id']}")).json() == item

    async def test_a_deleted_item_is_gone_and_the_answer_is_the_conversation(self, http):
        path = await conversation(http, "Hi", "Ho")
        first, second = (await listed(http, path))["data"]

        answer = (await http.delete(f"{path}/items/{first['id']}")).json()

        assert answer == (await http.get(path)).json()
        assert (await listed(http, path))["data"] == [second]
        for method in ("GET", "DELETE"):
            found = error(await http.request(method, f"{path}/items/{first['id']}"), 404)
            assert found["message"] == f"Item with id '{first['id']}' not found."

    @pytest.mark.parametrize("order", ["asc", "desc", None])
    async def test_the_pages_together_are_all_items_once(self, http, order):
        path = await conversation(http, *(f"Message {number}" for number in range(5)))
        query = {"limit": 2, **({"order": order} if order else {})}

        page = (await http.get(f"{path}/items", params=query)).json()
        seen = page["data"]
        while page["has_more"]:
            assert (page["first_id"], page["last_id"]) == (page["data"][0]["id"], page["data"][-1]["id"])
            page = (await http.get(f"{path}/items", params={**query, "after": page["last_id"]})).json()
            seen += page["data"]

        said = [item["content"][0]["text"] for item in seen]
        assert said == sorted(said, reverse=order != "asc")
        assert len(said) == 5

    async def test_an_unknown_cursor_is_not_found(self, http):
        path = await conversation(http, "Hi")

        found = error(await http.get(f"{path}/items", params={"after": "msg_nothing"}), 404)

        assert found["message"] == "Item with id 'msg_nothing' not found."

    @pytest.mark.parametrize("query", [{"limit": 0}, {"limit": 101}, {"limit": "x"}, {"order": "up"}])
    async def test_a_bad_page_is_refused(self, http, query):
        path = await conversation(http)

        assert error(await http.get(f"{path}/items", params=query), 400)["param"] == next(iter(query))

    async def test_at_most_twenty_items_come_at_once(self, http):
        path = await conversation(http, *(["Hi"] * 20))

        for where in ("/conversations", f"{path}/items"):
            refused = error(await http.post(where, json={"items": [message("Hi")] * 21}), 400)
            assert (refused["code"], refused["param"]) == ("array_above_max_length", "items")

    async def test_an_item_again_is_the_same_and_a_changed_one_is_refused(self, http):
        path = await conversation(http)
        item = message("Hi", id="msg_mine")

        for _ in range(2):
            await posted(http, f"{path}/items", items=[item])
        refused = error(await http.post(f"{path}/items", json={"items": [{**item, "content": "Ho"}]}), 400)

        assert len((await listed(http, path))["data"]) == 1
        assert refused["param"] == "items"
        assert refused["message"].startswith("Duplicate item found with id msg_mine")

    async def test_a_picture_is_shown_to_who_asks_for_it(self, http):
        path = await conversation(http)
        picture = {"type": "input_image", "image_url": "data:image/png;base64,AAAA"}
        wanted = {"include": "message.input_image.image_url"}

        added = await posted(http, f"{path}/items", items=[message([picture])])
        (item,) = added["data"]

        assert "image_url" not in item["content"][0]
        assert (await listed(http, path))["data"] == [item]
        (whole,) = (await listed(http, path, **wanted))["data"]
        assert whole["content"][0]["image_url"] == picture["image_url"]
        assert (await http.get(f"{path}/items/{item['id']}", params=wanted)).json() == whole

    @pytest.mark.parametrize("item", [{"type": "compaction"}, {"type": "reasoning", "summary": []}])
    async def test_what_was_not_sealed_here_is_refused(self, http, item):
        path = await conversation(http)

        for where in ("/conversations", f"{path}/items"):
            refused = error(await http.post(where, json={"items": [{**item, "encrypted_content": "made up"}]}), 400)
            assert (refused["code"], refused["param"]) == ("invalid_encrypted_content", "items")

    async def test_a_referenced_item_is_copied(self, http):
        path = await conversation(http, "Hi")
        (item,) = (await listed(http, path))["data"]

        other = await posted(http, "/conversations", items=[{"type": "item_reference", "id": item["id"]}])
        await http.delete(path)

        assert (await listed(http, f"/conversations/{other['id']}"))["data"] == [item]

    def test_the_official_sdk_knows_them_all(self, server):
        with server.sdk() as sdk:
            made = sdk.conversations.create(metadata={"a": "b"}, items=[message("Hi")])
            sdk.conversations.items.create(made.id, items=[message(str(number)) for number in range(3)])
            items = list(sdk.conversations.items.list(made.id, limit=2))
            item = sdk.conversations.items.retrieve(items[0].id, conversation_id=made.id)
            sdk.conversations.items.delete(item.id, conversation_id=made.id)
            updated = sdk.conversations.update(made.id, metadata={"c": "d"})
            deleted = sdk.conversations.delete(made.id)

        assert [each.content[0].text for each in items] == ["2", "1", "0", "Hi"]
        assert item == items[0]
        assert updated.metadata == {"c": "d"}
        assert deleted.deleted


class TestTurns:
    """Responses with a `conversation`."""

    @pytest.mark.parametrize("form", [str, lambda id: {"id": id}])
    async def test_a_turn_sees_the_conversation_and_becomes_part_of_it(self, http, form):
        path = await conversation(http, "My name is Ann.")

        response = await created(http, "echo", input="Who am I?", conversation=form(id_of(path)))

        said = response["output"][0]["content"][0]["text"]
        assert [each["content"] for each in json.loads(said)["messages"]] == ["My name is Ann.", "Who am I?"]
        assert response["conversation"] == {"id": id_of(path)}
        assert response["previous_response_id"] is None
        assert await texts(http, path) == [("user", "My name is Ann."), ("user", "Who am I?"), ("assistant", said)]

    async def test_what_a_turn_added_is_listed_as_the_response_says_it(self, http):
        path = await conversation(http)

        response = await created(http, "reasoning", conversation=id_of(path))

        page = await listed(http, path)
        assert [item["type"] for item in page["data"]] == ["message", "reasoning", "message"]
        assert page["data"][1:] == response["output"]

    async def test_nothing_is_added_before_the_end(self, http, server):
        path = await conversation(http, "Hi")
        async with creating(http, "gate:1:1", conversation=id_of(path)) as stream:
            await stream.deltas(1)
            during = await texts(http, path)
            server.upstream.requests[-1].release()
            await stream.rest()

        assert during == [("user", "Hi")]
        assert len(await texts(http, path)) == 3

    async def test_turns_at_once_are_taken_one_by_one_and_none_is_lost(self, http):
        path = await conversation(http)

        responses = await asyncio.gather(
            *(
                created(http, "echo", input=f"Turn {number}", conversation=id_of(path), stream=False)
                for number in range(6)
            )
        )

        said = await texts(http, path)
        assert [role for role, _ in said] == ["user", "assistant"] * 6
        assert {text for role, text in said if role == "user"} == {f"Turn {number}" for number in range(6)}
        seen = sorted(len(json.loads(each["output"][0]["content"][0]["text"])["messages"]) for each in responses)
        assert seen == [1, 3, 5, 7, 9, 11]

    async def test_a_stream_that_waits_begins_when_the_turn_before_it_is_cancelled(self, http):
        path = await conversation(http)
        async with creating(http, "hang", conversation=id_of(path)) as first:
            await first.until(lambda raw: b"response.in_progress" in raw)
            async with creating(http, "text:Well", conversation=id_of(path)) as second:
                await second.until(lambda raw: b"response.created" in raw)
                waiting = len(second.events)
                await http.post(f"/responses/{first.response_id}/cancel")
                said = events(await second.rest())

        assert waiting <= 2
        assert said[-1]["type"] == "response.completed"
        assert [role for role, _ in await texts(http, path)] == ["user", "assistant"]

    async def test_a_background_turn_waits_too(self, http, server):
        path = await conversation(http)
        async with creating(http, "gate:1:1", conversation=id_of(path)) as stream:
            await stream.deltas(1)
            second = await created(http, "text:Two", conversation=id_of(path), background=True)
            server.upstream.requests[-1].release()
            await stream.rest()
        async with creating(http, "text:Three", conversation=id_of(path)) as third:
            await third.rest()

        assert second["status"] == "queued"
        said = [text for role, text in await texts(http, path) if role == "assistant"]
        assert said[1:] == ["Two", "Three"]

    @pytest.mark.parametrize("stream", [False, True])
    async def test_a_turn_that_waits_for_too_long_has_failed(self, stream):
        with antiphon(turn_wait_seconds=0.1) as server:
            async with server.http() as http:
                path = await conversation(http, "Hi")
                async with creating(http, "steps:1", conversation=id_of(path)) as first:
                    await first.deltas(1)
                    body = {"model": "text", "input": "Ho", "conversation": id_of(path), "stream": stream}
                    answer = await http.post("/responses", json=body)
                    server.upstream.requests[0].release()
                    await first.rest()
                third = await created(http, "text:Three", conversation=id_of(path))
                asked = [request.body["model"] for request in server.upstream.requests]
                after = await texts(http, path)

        if stream:
            fault = events(answer.content)[-2]["error"]
            assert [event["type"] for event in events(answer.content)][-2:] == ["error", "response.failed"]
        else:
            fault = error(answer, 400)
        assert (fault["code"], fault["param"]) == ("conversation_locked", "conversation")
        assert asked == ["steps:1", "text:Three"]
        assert third["status"] == "completed"
        assert [text for _, text in after] == ["Hi", "Hi", " 0 1", "Hi", "Three"]

    async def test_a_background_turn_may_wait_for_ever(self):
        with antiphon(turn_wait_seconds=0.1) as server:
            async with server.http() as http:
                path = await conversation(http)
                async with creating(http, "steps:1", conversation=id_of(path)) as first:
                    await first.deltas(1)
                    async with creating(http, "text:Two", conversation=id_of(path), background=True) as second:
                        await second.until(lambda raw: b"response.queued" in raw)
                        body = {"model": "text", "input": "Ho", "conversation": id_of(path)}
                        error(await http.post("/responses", json=body), 400)
                        server.upstream.requests[0].release()
                        said = events(await second.rest())

        assert said[-1]["type"] == "response.completed"

    async def test_a_turn_whose_caller_goes_away_while_it_waits_never_asks_the_model(self):
        with antiphon(orphan_grace_seconds=0, lease_seconds=1.0) as server:
            async with server.http() as http:
                path = await conversation(http)
                async with creating(http, "steps:1", conversation=id_of(path)) as first:
                    await first.deltas(1)
                    async with creating(http, "text:Two", conversation=id_of(path)) as second:
                        await second.until(lambda raw: b"response.in_progress" in raw)
                    status = "in_progress"
                    while status == "in_progress":  # who follows it would keep it
                        status = (await http.get(f"/responses/{second.response_id}")).json()["status"]
                    server.upstream.requests[0].release()
                    await first.rest()
                asked = [request.body["model"] for request in server.upstream.requests]

        assert status == "cancelled"
        assert asked == ["steps:1"]

    async def test_a_failed_turn_adds_nothing(self, http):
        path = await conversation(http, "Hi")

        await http.post("/responses", json={"model": "break:0", "input": "Ho", "conversation": id_of(path)})

        assert await texts(http, path) == [("user", "Hi")]

    async def test_a_turn_can_be_continued_by_its_id(self, http):
        path = await conversation(http, "One")
        first = await created(http, "text:Two", input="And?", conversation=id_of(path))

        second = await created(http, "echo", input="Three", previous_response_id=first["id"])

        seen = json.loads(second["output"][0]["content"][0]["text"])["messages"]
        assert [each["content"] for each in seen] == ["One", "And?", "Two", "Three"]
        assert second.get("conversation") is None
        assert len(await texts(http, path)) == 3

    async def test_an_unknown_conversation_is_not_found(self, http):
        answer = await http.post("/responses", json={"model": "text", "input": "Hi", "conversation": "conv_x"})

        found = error(answer, 404)
        assert found["message"] == "Conversation with id 'conv_x' not found."
        assert (found["type"], found["param"], found["code"]) == ("invalid_request_error", None, None)
