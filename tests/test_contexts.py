"""What the model sees: its listing, its length, its truncation, its compaction, and what of it is encrypted."""

import json

import httpx2
import pytest

from tests.servers.antiphon import antiphon, created, creating


@pytest.fixture(scope="module")
def server():
    with antiphon() as server:
        yield server


@pytest.fixture
async def http(server):
    async with server.http() as http:
        yield http


def said(response):
    """The text of the answer's message."""
    (message,) = [item for item in response["output"] if item["type"] == "message"]
    return message["content"][0]["text"]


def seen(response):
    """The texts of the messages that the model was sent, by the script `echo`."""
    return [message["content"] for message in json.loads(said(response))["messages"]]


def message(text, role="user"):
    return {"role": role, "content": text}


async def posted(http, path, **body):
    answer = await http.post(path, json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def refused(http, path, **body):
    answer = await http.post(path, json=body)
    assert answer.status_code == 400, answer.text
    return answer.json()["error"]


class TestListing:
    async def test_the_input_of_a_response_is_listed_newest_first(self, http):
        response = await created(http, "text:Fine", input=[message("One"), message("Two")])
        page = (await http.get(f"/responses/{response['id']}/input_items")).json()
        assert [item["content"][0]["text"] for item in page["data"]] == ["Two", "One"]
        assert (page["first_id"], page["last_id"]) == (page["data"][0]["id"], page["data"][-1]["id"])
        assert page["has_more"] is False

    async def test_that_of_a_chained_response_is_the_whole_context(self, http):
        first = await created(http, "text:Fine", input="How are you?")
        second = await created(http, "text:Bye", input="Good.", previous_response_id=first["id"])
        page = (await http.get(f"/responses/{second['id']}/input_items", params={"order": "asc"})).json()
        assert [item["content"][0]["text"] for item in page["data"]] == ["How are you?", "Fine", "Good."]

    async def test_pages_follow_one_another_without_a_gap_or_a_repeat(self, http):
        response = await created(http, "text:Fine", input=[message(str(number)) for number in range(7)])
        texts, query = [], {"order": "asc", "limit": 3}
        while True:
            page = (await http.get(f"/responses/{response['id']}/input_items", params=query)).json()
            texts += [item["content"][0]["text"] for item in page["data"]]
            if not page["has_more"]:
                break
            query["after"] = page["last_id"]
        assert texts == [str(number) for number in range(7)]

    async def test_an_unknown_cursor_is_not_found(self, http):
        response = await created(http, "text:Fine")
        answer = await http.get(f"/responses/{response['id']}/input_items", params={"after": "msg_x"})
        assert answer.status_code == 404
        assert answer.json()["error"]["param"] == "after"

    async def test_the_picture_of_an_item_is_shown_to_those_who_ask_for_it(self, http):
        picture = {"type": "input_image", "image_url": "data:image/png;base64,AAAA"}
        response = await created(http, "text:Fine", input=[message([picture])])
        path = f"/responses/{response['id']}/input_items"
        plain = (await http.get(path)).json()["data"][0]["content"][0]
        shown = (await http.get(path, params={"include[]": "message.input_image.image_url"})).json()
        assert "image_url" not in plain
        assert shown["data"][0]["content"][0]["image_url"] == picture["image_url"]

    async def test_the_items_of_an_unknown_response_are_not_found(self, http):
        assert (await http.get("/responses/resp_x/input_items")).status_code == 404


class TestTruncation:
    async def test_auto_leaves_out_the_beginning_until_the_rest_fits(self, http):
        items = [message(f"{number} " + "x" * 50) for number in range(9)]
        response = await created(http, "short:3", input=items, truncation="auto")
        kept = [text.split()[0] for text in json.loads(said(response))]
        assert kept == [str(number) for number in range(9 - len(kept), 9)]
        assert 1 <= len(kept) <= 3
        assert response["truncation"] == "auto"

    async def test_disabled_says_that_the_context_is_too_long(self, http):
        error = await refused(http, "/responses", model="short:1", input=[message("One"), message("Two")])
        assert error["code"] == "context_length_exceeded"

    async def test_auto_cannot_help_where_the_last_item_alone_is_too_long(self, http):
        error = await refused(http, "/responses", model="short:0", input="Too long", truncation="auto")
        assert error["code"] == "context_length_exceeded"

    async def test_what_was_left_out_is_not_lost(self, http):
        items = [message(str(number)) for number in range(5)]
        response = await created(http, "short:2", input=items, truncation="auto")
        page = (await http.get(f"/responses/{response['id']}/input_items")).json()
        assert len(page["data"]) == 5


class TestCompaction:
    async def test_a_conversation_is_summarized_into_one_item_beside_the_users_messages(self, http):
        items = [message("I am Ada."), message("Hello Ada.", "assistant"), message("I like tides.")]
        compacted = await posted(http, "/responses/compact", model="text:Ada likes tides.", input=items)
        assert compacted["object"] == "response.compaction"
        assert [item["type"] for item in compacted["output"]] == ["message", "message", "compaction"]
        assert compacted["usage"]["output_tokens"] > 0
        assert "tides" not in compacted["output"][-1]["encrypted_content"]

    async def test_the_model_is_told_to_summarize_and_sees_everything(self, server, http):
        before = len(server.upstream.requests)
        await posted(
            http, "/responses/compact", model="text:Ok", input=[message("I am Ada.")], instructions="Be brief."
        )
        sent = server.upstream.requests[before].body["messages"]
        assert [each["role"] for each in sent] == ["system", "user", "user"]
        assert "Be brief." in sent[0]["content"]
        assert sent[1]["content"] == "I am Ada."

    async def test_the_summary_takes_the_place_of_everything_before_it(self, http):
        compacted = await posted(http, "/responses/compact", model="text:Ada likes tides.", input="I am Ada.")
        after = await created(http, "echo", input=[*compacted["output"], message("Who am I?")])
        texts = seen(after)
        assert len(texts) == 2
        assert "Ada likes tides." in texts[0]
        assert texts[1] == "Who am I?"

    async def test_what_was_said_by_the_developer_stays(self, http):
        compacted = await posted(http, "/responses/compact", model="text:A summary", input="I am Ada.")
        items = [message("Be polite.", "developer"), *compacted["output"], message("Go on.")]
        assert seen(await created(http, "echo", input=items))[0] == "Be polite."

    async def test_a_chain_can_be_compacted(self, server, http):
        first = await created(http, "text:Fine", input="How are you?")
        before = len(server.upstream.requests)
        await posted(http, "/responses/compact", model="text:Ok", input=[], previous_response_id=first["id"])
        sent = server.upstream.requests[before].body["messages"]
        assert [each["content"] for each in sent[1:3]] == ["How are you?", "Fine"]

    async def test_it_is_a_list_of_items_and_no_response(self, http):
        compacted = await posted(http, "/responses/compact", model="text:Ok", input="Hi")
        error = await refused(http, "/responses", model="text:x", input="Hi", previous_response_id=compacted["id"])
        assert error["code"] == "previous_response_not_found"
        assert (await http.get(f"/responses/{compacted['id']}")).status_code == 404

    async def test_a_trigger_makes_the_response_a_summary(self, http):
        response = await created(http, "text:In short", input=[message("Long"), {"type": "compaction_trigger"}])
        assert [item["type"] for item in response["output"]] == ["compaction"]
        after = await created(http, "echo", input="Now?", previous_response_id=response["id"])
        assert len(seen(after)) == 2

    async def test_a_context_over_the_threshold_is_compacted_behind_the_answer(self, http):
        management = [{"type": "compaction", "compact_threshold": 1000}]
        long = "text:" + "word " * 1200
        async with creating(http, long, context_management=management) as stream:
            await stream.rest()
        response = stream.events[-1]["response"]
        assert [item["type"] for item in response["output"]] == ["message", "compaction"]
        after = await created(http, "echo", input="Now?", previous_response_id=response["id"])
        assert len(seen(after)) == 2

    async def test_one_below_it_is_not(self, http):
        management = [{"type": "compaction", "compact_threshold": 1000}]
        response = await created(http, "text:Short", context_management=management)
        assert [item["type"] for item in response["output"]] == ["message"]

    @pytest.mark.parametrize(("words", "most"), [(1, 256), (2000, (1000, 3000)), (100_000, 4096)])
    async def test_a_summary_has_no_more_tokens_than_what_it_stands_for(self, server, http, words, most):
        before = len(server.upstream.requests)
        compacted = await posted(http, "/responses/compact", model="text:In short", input="word " * words)
        sent = server.upstream.requests[before].body["max_tokens"]
        assert compacted["output"][-1]["type"] == "compaction"
        assert sent == most if isinstance(most, int) else most[0] < sent < most[1]

    async def test_a_model_that_knows_no_end_is_cut(self, http):
        compacted = await posted(http, "/responses/compact", model="endless", input="hello")
        after = await created(http, "echo", input=[*compacted["output"], message("Now?")])
        assert seen(after)[0].split()[-256:] == ["on"] * 256

    async def test_that_goes_for_a_trigger_and_a_threshold_too(self, server, http):
        before = len(server.upstream.requests)
        response = await created(http, "endless", input=[message("Long"), {"type": "compaction_trigger"}])
        assert [item["type"] for item in response["output"]] == ["compaction"]
        management = [{"type": "compaction", "compact_threshold": 1000}]
        response = await created(http, "text:" + "word " * 1200, context_management=management)
        assert [item["type"] for item in response["output"]] == ["message", "compaction"]
        sent = [seen.body.get("max_tokens") for seen in server.upstream.requests[before:]]
        assert sent[:2] == [256, None]
        assert 1500 < sent[2] < 2000

    async def test_an_answer_that_was_cut_stays_over_the_threshold(self, http):
        management = [{"type": "compaction", "compact_threshold": 1000}]
        response = await created(http, "endless", context_management=management, max_output_tokens=1500)
        assert response["status"] == "incomplete"
        assert [item["type"] for item in response["output"]] == ["message"]

    async def test_a_model_that_thinks_first_is_given_room_for_that(self, server, http):
        before = len(server.upstream.requests)
        compacted = await posted(http, "/responses/compact", model="endless:255", input="hello")
        first, second = (seen.body["max_tokens"] for seen in server.upstream.requests[before:])
        assert (first, second) == (256, 256 + 8192)
        assert compacted["usage"]["output_tokens"] >= first + second

    async def test_one_that_thinks_and_never_says_anything_has_failed(self, http):
        answer = await http.post("/responses/compact", json={"model": "endless:1000000", "input": "hello"})
        assert answer.status_code == 502
        assert "within the tokens it had for it" in answer.json()["error"]["message"]

    async def test_a_model_without_room_for_so_many_says_what_it_can(self, http):
        compacted = await posted(http, "/responses/compact", model="narrow:100", input="hello")
        after = await created(http, "echo", input=[*compacted["output"], message("Now?")])
        assert seen(after)[0].endswith("In short")

    async def test_a_model_that_fails_is_an_error(self, http):
        answer = await http.post("/responses/compact", json={"model": "error:500", "input": "Hi"})
        assert answer.status_code == 500
        assert answer.json()["error"]["code"]

    async def test_no_model_is_the_first_that_there_is(self, server, http):
        model = (await http.get("/models")).json()["data"][0]["id"]
        before = len(server.upstream.requests)
        await http.post("/responses/compact", json={"model": None, "input": "Hi"})
        assert server.upstream.requests[before].body["model"] == model

    async def test_without_a_context_there_is_nothing_to_compact(self, http):
        error = await refused(http, "/responses/compact", model="text:x")
        assert error["code"] == "missing_required_parameter"


class TestEncryptedReasoning:
    async def reasoning(self, http):
        response = await created(http, "reasoning", include=["reasoning.encrypted_content"], store=False)
        return response["output"][0]

    async def test_it_is_shown_to_those_who_ask_for_it(self, http):
        assert (await self.reasoning(http))["encrypted_content"]
        plain = await created(http, "reasoning")
        assert "encrypted_content" not in plain["output"][0]

    async def test_who_did_not_ask_when_it_was_made_can_ask_later(self, http):
        plain = await created(http, "reasoning")
        query = {"include[]": "reasoning.encrypted_content"}
        later = (await http.get(f"/responses/{plain['id']}", params=query)).json()
        assert later["output"][0]["encrypted_content"]

    async def test_it_can_be_sent_back(self, http):
        item = await self.reasoning(http)
        sealed = {"type": "reasoning", "summary": [], "encrypted_content": item["encrypted_content"]}
        answer = message("It is four.", "assistant")
        await created(http, "text:Yes", input=[message("Two and two?"), sealed, answer, message("Sure?")])

    @pytest.mark.parametrize(
        "change", [lambda text: text[:-4], lambda text: "x", lambda text: text[:20] + "AAAA" + text[24:]]
    )
    async def test_what_was_not_sealed_here_is_refused(self, http, change):
        item = await self.reasoning(http)
        sealed = {"type": "reasoning", "summary": [], "encrypted_content": change(item["encrypted_content"])}
        error = await refused(http, "/responses", model="text:x", input=[sealed, message("It is four.", "assistant")])
        assert (error["code"], error["param"]) == ("invalid_encrypted_content", "input")

    async def test_another_tenant_cannot_send_it(self):
        with antiphon(api_keys={"ada": "sk-ada-1234567890", "bob": "sk-bob-1234567890"}) as server:
            async with server.http(headers={"authorization": "Bearer sk-ada-1234567890"}) as ada:
                item = await self.reasoning(ada)
            async with server.http(headers={"authorization": "Bearer sk-bob-1234567890"}) as bob:
                error = await refused(bob, "/responses", model="text:x", input=[item, message("Four.", "assistant")])
        assert error["code"] == "invalid_encrypted_content"


class TestCounts:
    async def test_the_tokens_of_an_input_are_counted(self, http):
        short = await posted(http, "/responses/input_tokens", model="text:x", input="Hi")
        long = await posted(http, "/responses/input_tokens", model="text:x", input="Hi " * 100)
        assert short.keys() == {"object", "input_tokens"}
        assert 0 < short["input_tokens"] < long["input_tokens"]

    async def test_what_came_before_counts_too(self, http):
        first = await created(http, "text:" + "word " * 200)
        alone = await posted(http, "/responses/input_tokens", model="text:x", input="Hi")
        chained = await posted(
            http, "/responses/input_tokens", model="text:x", input="Hi", previous_response_id=first["id"]
        )
        assert chained["input_tokens"] > alone["input_tokens"] + 100

    async def test_instructions_alone_can_be_counted(self, http):
        counted = await posted(http, "/responses/input_tokens", model="text:x", instructions="Be brief. " * 20)
        assert counted["input_tokens"] > 20

    async def test_tools_and_instructions_count_too(self, http):
        tool = {"type": "function", "name": "f", "description": "Finds out something. " * 20, "parameters": {}}
        plain = await posted(http, "/responses/input_tokens", model="text:x", input="Hi")
        tooled = await posted(http, "/responses/input_tokens", model="text:x", input="Hi", tools=[tool])
        instructed = await posted(
            http, "/responses/input_tokens", model="text:x", input="Hi", instructions="Be brief. " * 20
        )
        assert tooled["input_tokens"] > plain["input_tokens"] + 50
        assert instructed["input_tokens"] > plain["input_tokens"] + 40


async def test_the_retry_after_of_the_models_server_reaches_the_caller(http):
    answer: httpx2.Response = await http.post("/responses", json={"model": "busy:7", "input": "Hi"})
    assert answer.status_code == 429
    assert answer.headers["retry-after"] == "7"
