"""A worker dies in the middle of a turn, and the next one goes on: where the model can, in the middle of the text."""

import contextlib
import re

import apsw
import openai
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from antiphon.engine.model import Call, Finish, FinishReason, Reasoning, Text, TokenCount, Usage
from antiphon.engine.models.chat_completions import ChatCompletions
from antiphon.engine.models.upstreams import Route, Upstreams
from antiphon.errors import ModelError
from antiphon.spec.document import Document
from tests.contracts.model import WEATHER, user
from tests.servers.antiphon import Process, creating, following
from tests.servers.chat import ChatServer, Stream, script
from tests.servers.running import serve
from tests.test_answer import Log, check, check_sdk, types

STORY = " Once upon a time there was a log, and nothing of it was lost."
LENGTH = {"message": "The context is full.", "type": "invalid_request_error", "code": "context_length_exceeded"}


def words(text):
    return re.findall(r"\s*\S+", text)


class Teller:
    """A model that tells one text, a word a token, and goes on where it is shown a part of it, if it can."""

    def __init__(self, text=STORY, *, can=True, thought="", tells_usage=False, room=None, size=1):
        self.can = can
        self.asked = []  # the request and the context of each turn
        self._text, self._thought, self._tells, self._room, self._size = text, thought, tells_usage, room, size

    async def continues_prefix(self, request, context):
        return self.can

    async def count_tokens(self, request, context):
        return TokenCount(7 + sum(len(words(_text(item))) for item in context[1:]), exact=True)

    async def turn(self, request, context):
        self.asked.append((request, context))
        prefix = _text(context[-1]) if context[-1].get("role") == "assistant" else ""
        assert self._text.startswith(prefix)
        if self._room is not None and len(words(prefix)) >= self._room:
            raise ModelError(status=400, code="context_length_exceeded")
        read = 7 + sum(len(words(_text(item))) for item in context[1:])
        if self._thought and not prefix:
            yield [Reasoning(self._thought)]
        rest = words(self._text[len(prefix) :])
        limit = request.get("max_output_tokens", len(rest))
        for at in range(0, min(limit, len(rest)), self._size):
            said = [Text(word) for word in rest[at : min(at + self._size, limit)]]
            yield [*said, Usage(read, at + len(said))] if self._tells else said
        reason: FinishReason = "length" if limit < len(rest) else "stop"
        yield [Finish(reason), Usage(read, min(limit, len(rest)))]

    async def models(self):
        return []

    async def close(self):
        pass


def _text(item):
    return "".join(part["text"] for part in item["content"])


def told(log):
    """The text of the response, as it is at its end."""
    return "".join(map(_text, (item for item in log.response["output"] if item["type"] == "message")))


def messages(log):
    """How many messages a client has seen begin."""
    return sum(type == "output_item.added" for type in types(log))


HI = [user("Hi")]


async def whole(model, **request):
    return await Log().answer(model, {"model": "m", **request}, HI)


async def cut(model, kept, **request):
    """A log that its worker has left after so many entries."""
    return await Log().answer(model, {"model": "m", **request}, HI, entries_max=kept)


async def finish(log, model, **request):
    if not log.transcript().closed:
        await log.answer(model, {"model": "m", **request}, HI)
    check(log)
    check_sdk(log) if log.response["status"] == "completed" else None
    return log


@pytest.mark.parametrize("thought", ["", "I will tell it."])
@pytest.mark.parametrize("can", [True, False])
async def test_wherever_the_log_is_cut_the_text_is_whole(can, thought):
    entries = len((await whole(Teller(thought=thought))).entries)
    for kept in range(1, entries):
        log = await finish(await cut(Teller(thought=thought), kept), Teller(can=can, thought=thought))

        assert told(log) == STORY
        assert log.response["usage"]["output_tokens"] >= len(words(STORY))


async def test_a_text_that_is_continued_has_no_seam():
    """The log is the same as if nothing had happened, but for what the notes say."""
    same = await whole(Teller())
    first = next(at for at, event in enumerate(same.events) if event["type"] == "response.content_part.added")
    last = next(at for at, event in enumerate(same.events) if event["type"] == "response.output_text.done")
    for kept in range(first, last):
        log = await finish(await cut(Teller(), kept), Teller())

        assert [{**event, "response": None} for event in log.events] == [
            {**event, "response": None} for event in same.events
        ]
        assert log.response == same.response


async def test_it_may_be_continued_again_and_again():
    log = await cut(Teller(size=2), 5)
    for _ in range(4):
        await log.answer(Teller(size=2), {"model": "m"}, HI, entries_max=2)
    await finish(log, Teller(size=2))

    assert told(log) == STORY
    assert messages(log) == 1


async def test_what_was_thought_stays_and_is_shown_again():
    log = await cut(Teller(thought="I will tell it."), 15)
    model = Teller(thought="never again")
    await finish(log, model)

    assert [item["type"] for item in log.response["output"]] == ["reasoning", "message"]
    assert [item["type"] for item in model.asked[0][1]] == ["message", "reasoning", "message"]
    assert told(log) == STORY


@settings(max_examples=60)
@example(lives=[(3, False, 1), (1, False, 1)], thinks=False)  # the second has no time but to begin its leaving
@given(lives=st.lists(st.tuples(st.integers(1, 8), st.booleans(), st.integers(1, 3)), max_size=6), thinks=st.booleans())
async def test_any_workers_in_any_order_tell_it_whole(lives, thinks):
    thought = "I will tell it." if thinks else ""
    log = Log()
    for kept, can, size in lives:
        if not log.transcript().closed:
            await log.answer(Teller(can=can, thought=thought, size=size), {"model": "m"}, HI, entries_max=kept)
    await finish(log, Teller(thought=thought))

    assert told(log) == STORY


class Caller(Teller):
    """Says a text and then makes two calls."""

    async def turn(self, request, context):
        async for deltas in super().turn(request, context):
            yield [delta for delta in deltas if not isinstance(delta, Finish | Usage)] or [Text("")]
        for index, city in enumerate(("Paris", "Rome")):
            yield [Call(index, '{"city":', "get_weather", f"call_{index}")]
            yield [Call(index, f'"{city}"}}')]
        yield [Finish("tool_calls")]


@settings(max_examples=60)
@example(lives=[(5, False), (12, True), (1, False), (1, False)])  # its second call is closed, and no more
@given(lives=st.lists(st.tuples(st.integers(1, 12), st.booleans()), max_size=6))
async def test_no_call_is_ever_given_twice(lives):
    log = Log()
    for kept, can in [*lives, (100, True)]:
        if not log.transcript().closed:
            model = Caller("I look it up.", can=can)
            await log.answer(model, {"model": "m", "tools": [WEATHER]}, HI, entries_max=kept)
    check(log)
    check_sdk(log)

    done = [event["item"] for event in log.events if event["type"] == "response.output_item.done"]
    given = [item["arguments"] for item in done if item["type"] == "function_call" and item["status"] == "completed"]
    assert len(given) == len(set(given)) > 0
    assert {item["status"] for item in log.response["output"]} == {"completed"}


async def test_what_was_said_counts_in_the_limit_and_in_the_usage():
    same = await whole(Teller(), max_output_tokens=9)
    for kept in range(4, 12):
        model = Teller()
        log = await finish(await cut(Teller(), kept, max_output_tokens=9), model, max_output_tokens=9)

        assert log.response["usage"] == same.response["usage"]
        assert log.response["output"] == same.response["output"]
        assert log.response["incomplete_details"] == {"reason": "max_output_tokens"}


async def test_a_model_that_has_said_enough_is_not_asked_again():
    """Its worker died before it could say so."""
    log = await cut(Teller(size=9), 12, max_output_tokens=9)
    assert len(words(log.transcript().item(0)["content"][0]["text"])) == 9
    model = Teller()
    await finish(log, model, max_output_tokens=9)

    assert model.asked == []
    assert log.response["incomplete_details"] == {"reason": "max_output_tokens"}
    assert log.response["usage"]["total_tokens"] == 7 + 9


async def test_a_text_that_fills_the_context_ends_there():
    log = await finish(await cut(Teller(), 10), Teller(room=3))

    assert log.response["status"] == "incomplete"
    assert told(log)
    assert STORY.startswith(told(log))


async def test_the_logprobs_of_both_halves_stay():
    def with_logprobs(word):
        return Text(word, [{"token": word, "logprob": -0.5, "top_logprobs": []}])

    class Sure(Teller):
        async def turn(self, request, context):
            async for deltas in super().turn(request, context):
                yield [with_logprobs(delta.text) if isinstance(delta, Text) else delta for delta in deltas]

    log = await finish(await cut(Sure(), 8), Sure())

    part = log.response["output"][0]["content"][0]
    assert [entry["token"] for entry in part["logprobs"]] == words(STORY)
    done = next(event for event in log.events if event["type"] == "response.output_text.done")
    assert [entry["token"] for entry in done["logprobs"]] == words(STORY)


async def test_the_usage_so_far_is_noted_for_whoever_ends_the_log():
    log = await cut(Teller(tells_usage=True), 10)

    (note,) = [note for note in log.notes if note.kind == "usage"]
    assert (note.fields["input_tokens"], note.fields["output_tokens"]) == (7, 1)


@script("story")
async def _story(stream: Stream, each: str = "1000") -> None:
    """Tells it, goes on with what was told, and waits after so many words each time; counts tokens too."""
    last = stream.body["messages"][-1]
    if stream.seen.path == "/tokenize":
        await stream.json({"count": 7 + len(words(last["content"])) * (last["role"] == "assistant")})
        return
    begun = last["content"] if stream.body.get("continue_final_message") else ""
    assert STORY.startswith(begun)
    for count, word in enumerate(words(STORY[len(begun) :]), 1):
        await stream.chunk({"content": word})
        if count % int(each) == 0:
            await stream.released()
    await stream.end()


@pytest.mark.parametrize("can", [True, False])
async def test_a_chat_server_is_asked_for_the_rest_if_it_can_give_it(can):
    server = ChatServer()
    with serve(server) as url:
        model = ChatCompletions(url + "/v1", continues_prefix=can)
        log = await Log().answer(model, {"model": "story"}, HI, entries_max=8)
        await finish_with(log, model, "story")
        await model.close()

    asked = [seen.body for seen in server.requests if seen.path.endswith("/chat/completions")]
    assert told(log) == STORY
    assert messages(log) == (1 if can else 2)
    assert asked[1].get("add_generation_prompt", True) is not can
    begun = [message["content"] for message in asked[1]["messages"] if message["role"] == "assistant"]
    assert all(STORY.startswith(text) and text for text in begun)
    assert len(begun) == can


async def finish_with(log, model, name, **request):
    await log.answer(model, {"model": name, **request}, HI)
    check(log)
    check_sdk(log)


@pytest.mark.parametrize(
    "held",
    [
        {"text": {"format": {"type": "json_object"}}},
        {"text": {"format": {"type": "json_schema", "name": "a", "schema": {"type": "object"}}}},
        {"tools": [WEATHER], "tool_choice": "required"},
    ],
)
async def test_an_answer_that_a_grammar_holds_is_begun_anew(held):
    """The grammar would want a whole answer where only the rest of one is missing."""
    server = ChatServer()
    with serve(server) as url:
        model = ChatCompletions(url + "/v1", continues_prefix=True)
        log = await Log().answer(model, {"model": "story", **held}, HI, entries_max=8)
        await finish_with(log, model, "story", **held)
        await model.close()

    assert told(log) == STORY
    assert messages(log) == 2


@pytest.mark.parametrize(("name", "items"), [("story", 1), ("alias", 1), ("story:99", 2)])
async def test_of_several_servers_the_models_own_decides(name, items):
    server = ChatServer()
    with serve(server) as url:
        able, other = (ChatCompletions(url + "/v1", continues_prefix=can) for can in (True, False))
        routes = [
            Route("able", able, models=("story",), aliases={"alias": "story"}),
            Route("other", other, models=("*",)),
        ]
        model = Upstreams(routes)
        log = await Log().answer(model, {"model": name}, HI, entries_max=8)
        await finish_with(log, model, name)
        await model.close()

    assert messages(log) == items


@pytest.fixture
async def embedded():
    pytest.importorskip("xllamacpp")
    from antiphon.engine.models.local import Local

    model = Local(parallel=1)
    yield model
    await model.close()


SEA = [user("Tell me about the sea in one sentence.")]
COLD = {"model": "smollm2-135m-instruct", "temperature": 0, "max_output_tokens": 40}


async def test_the_embedded_model_goes_on_in_the_middle_of_a_text(embedded):
    """What it says is only compared with what it says: without chance, it is the same."""
    same = await Log().answer(embedded, COLD, SEA)
    last = next(at for at, event in enumerate(same.events) if event["type"] == "response.output_text.done")
    log = Log()
    for kept in (4, 3, 6, last // 3):
        await log.answer(embedded, COLD, SEA, entries_max=kept)
    await log.answer(embedded, COLD, SEA)
    check(log)

    usage, as_usual = log.response["usage"], same.response["usage"]
    assert told(log) == told(same)
    assert messages(log) == 1
    assert log.response["status"] == same.response["status"]
    assert usage["input_tokens"] == as_usual["input_tokens"]
    assert abs(usage["output_tokens"] - as_usual["output_tokens"]) <= 1  # the end of the turn may be counted or not


async def test_the_embedded_model_begins_anew_what_a_grammar_holds(embedded):
    format = {"text": {"format": {"type": "json_object"}}}
    tools = {"tools": [WEATHER]}

    assert await embedded.continues_prefix(COLD, SEA)
    assert not await embedded.continues_prefix({**COLD, **format}, SEA)
    assert not await embedded.continues_prefix({**COLD, **tools}, SEA)
    assert await embedded.continues_prefix({**COLD, **tools, "tool_choice": "none"}, SEA)


QUICK = ("--poll-seconds", "0.05", "--lease-renew-seconds", "0.05", "--stop-seconds", "2")


@pytest.fixture
def upstream():
    return ChatServer()


@pytest.fixture
def start(upstream, tmp_path):
    """Starts a server on the one database that there is; its model's server goes on with what was begun."""
    processes = []
    with serve(upstream) as url:
        config = f"""
            [upstreams.able]
            url = '{url}/v1'
            models = ['*']
            protocol = 'chat_completions'
            continues_prefix = true
        """
        (tmp_path / "antiphon.toml").write_text(config, encoding="utf-8")

        def start(*flags):
            processes.append(Process(None, tmp_path, *QUICK, *flags))
            return processes[-1]

        yield start
        for process in processes:
            process.close()


class Follower:
    """A client that comes back after each end of its connection, and asks for what it has not seen."""

    def __init__(self):
        self.seen = []
        self.response_id = ""

    async def create(self, http, model, **body):
        async with creating(http, model, background=True, **body) as stream:
            await stream.deltas(3)
        self.response_id = stream.response_id
        self.seen += stream.events

    async def deltas(self, http, count):
        after = self.seen[-1]["sequence_number"]
        async with following(http, self.response_id, starting_after=after) as stream:
            await stream.deltas(count)
        self.seen += stream.events

    async def rest(self, http):
        after = self.seen[-1]["sequence_number"]
        async with following(http, self.response_id, starting_after=after) as stream:
            await stream.rest()
        self.seen += stream.events

    @property
    def text(self):
        return "".join(event["delta"] for event in self.seen if event["type"] == "response.output_text.delta")

    def check(self):
        assert [event["sequence_number"] for event in self.seen] == list(range(len(self.seen)))
        added = [event for event in self.seen if event["type"] == "response.output_item.added"]
        assert len(added) == 1
        assert self.seen[-1]["response"]["output"][0]["content"][0]["text"] == self.text


async def helped(url, response_id):
    """The text that the official SDK's stream helper makes of a log."""
    async with openai.AsyncOpenAI(base_url=url, api_key="x") as sdk, sdk.responses.stream(response_id=response_id) as s:
        return (await s.get_final_response()).output_text


async def test_a_follower_sees_the_text_once_though_its_server_is_killed(start, upstream):
    first, follower = start(), Follower()
    async with first.http() as http:
        await follower.create(http, "story:4")
    first.kill()

    second = start()
    async with second.http() as http:
        await follower.deltas(http, 4)
        second.kill()

    third = start()
    (await upstream.request(7)).release()  # two lie before each but the first: they count tokens
    async with third.http() as http:
        await follower.rest(http)

    follower.check()
    assert follower.text == STORY == await helped(third.url, follower.response_id)
    assert follower.seen[-1]["response"]["usage"]["output_tokens"] >= len(words(STORY))


async def test_a_follower_of_the_embedded_model_sees_its_text_once(tmp_path):
    pytest.importorskip("xllamacpp")
    first, follower = Process(None, tmp_path, *QUICK), Follower()
    try:
        body = {"input": "Tell me a very long story.", "temperature": 0, "max_output_tokens": 150}
        async with first.http() as http:
            await follower.create(http, "smollm2-135m-instruct", **body)
        first.kill()
        first = Process(None, tmp_path, *QUICK)
        async with first.http() as http:
            await follower.rest(http)
    finally:
        first.close()

    follower.check()
    assert follower.seen[-1]["type"] in ("response.completed", "response.incomplete")
    assert follower.seen[-1]["response"]["usage"]["output_tokens"] <= 151


async def test_rolling_restarts_lose_nothing_and_count_as_no_attempt(start, upstream):
    server, followers = start("--max-attempts", "1"), [Follower() for _ in range(3)]
    async with server.http() as http:
        for follower in followers:
            await follower.create(http, "story:3")
    for _ in range(2):
        server.stop()
        assert server.stopped(seconds=10) == 0
        server = start("--max-attempts", "1")
        async with server.http() as http:
            for follower in followers:
                await follower.deltas(http, 3)
    asked = len([seen for seen in upstream.requests if seen.path == "/v1/chat/completions"])
    for seen in upstream.requests:
        seen.release()
    async with server.http() as http:
        for follower in followers:
            await follower.rest(http)

    assert asked == 9
    for follower in followers:
        follower.check()
        assert follower.text == STORY


async def test_after_three_workers_it_fails_and_keeps_what_was_said(start):
    follower = Follower()
    for life in range(3):
        server = start()
        async with server.http() as http:
            await (follower.deltas(http, 3) if life else follower.create(http, "story:3"))
        server.kill()
    server = start()
    async with server.http() as http:
        await follower.rest(http)

    follower.check()
    assert follower.seen[-1]["response"]["error"]["code"] == "server_error"
    assert follower.text == "".join(words(STORY)[:9])


DAMAGES = {
    "a segment cannot be read": "UPDATE segments SET frames = x'00' WHERE first > 0",
    "a segment is gone": "DELETE FROM segments WHERE first = 2",
    "nothing can be read": "UPDATE segments SET frames = x'00'",
    "nothing is there": "DELETE FROM segments",
}


@pytest.mark.parametrize("damage", DAMAGES)
async def test_a_damaged_log_ends_as_failed(start, tmp_path, damage):
    """Nobody can go on with it, and nobody is to try it again and again."""
    first, follower = start(), Follower()
    async with first.http() as http:
        await follower.create(http, "story:3")
    first.kill()
    with contextlib.closing(apsw.Connection(str(tmp_path / "antiphon.db"))) as database:
        last = next(database.execute("SELECT max(last) FROM segments"))[0]
        database.execute(DAMAGES[damage])

    second = start()
    async with second.http() as http:
        async with following(http, follower.response_id, starting_after=last or 0) as stream:
            await stream.rest()
        response = (await http.get(f"/responses/{follower.response_id}")).json()
        again = (await http.post(f"/responses/{follower.response_id}/cancel")).json()

    schema = Document.load().operation("getResponse").answers["200"].media["application/json"].strict()
    assert response["status"] == "failed"
    assert response["error"]["code"] == "server_error"
    assert (response["id"], response["background"]) == (follower.response_id, True)
    assert again == response
    assert not list(schema.problems(response))
    if damage != "nothing is there":
        assert stream.events[0]["sequence_number"] == last + 1
        assert stream.events[-1]["response"] == response
