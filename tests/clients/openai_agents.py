"""The Agents SDK: tools, handoffs, sessions, streaming. Its agents share no more with the tests than this server."""

# mypy: disable-error-code="import-not-found, misc"

import pytest
from agents import (
    Agent,
    ApplyPatchTool,
    Computer,
    ComputerTool,
    CustomTool,
    LocalShellTool,
    ModelSettings,
    OpenAIConversationsSession,
    OpenAIResponsesCompactionSession,
    OpenAIResponsesModel,
    OpenAIResponsesWSModel,
    Runner,
    ShellTool,
    SQLiteSession,
    ToolSearchTool,
    WebSearchTool,
    function_tool,
    tool_namespace,
)
from agents.items import ToolCallOutputItem
from openai import AsyncOpenAI
from pydantic import BaseModel

from tests.clients.conftest import KEY
from tests.servers.chat import SCRIPTS

PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="


class Place(BaseModel):
    city: str


def weather(city: str) -> str:
    """The weather in a city."""
    return f"mild in {city}"


get_weather = function_tool(weather, name_override="get_weather")


def remembered(name):
    return lambda self, *arguments: self.done.append((name, arguments))


class Screen(Computer):
    """A screen of one dot, on which nothing happens; it remembers what was done."""

    def __init__(self):
        self.done = []

    def screenshot(self):
        return PIXEL

    click = remembered("click")
    double_click = remembered("double_click")
    drag = remembered("drag")
    keypress = remembered("keypress")
    move = remembered("move")
    scroll = remembered("scroll")
    type = remembered("type")
    wait = remembered("wait")


@pytest.fixture
async def sdk(server):
    async with AsyncOpenAI(base_url=server.url, api_key=KEY, max_retries=0) as sdk:
        yield sdk


@pytest.fixture
def agent(sdk):
    """Makes an agent that thinks with the model of a script."""

    def agent(script, *, by=OpenAIResponsesModel, **options):
        model = by(model=script, openai_client=sdk)
        return Agent(**{"name": "Agent", "instructions": "Be kind.", **options}, model=model)

    return agent


async def said_by(agent, streamed):
    """The final output of a run."""
    if not streamed:
        return (await Runner.run(agent, "Do it")).final_output
    result = Runner.run_streamed(agent, "Do it")
    async for _ in result.stream_events():
        pass
    return result.final_output


def contents(server):
    """What the model was told at last, of the user and of itself."""
    messages = server.upstream.requests[-1].body["messages"]
    return [message["content"] for message in messages if message["role"] in ("user", "assistant")]


async def test_an_agent_answers(agent):
    result = await Runner.run(agent("text:Hello there"), "Hi")

    assert result.final_output == "Hello there"
    assert result.context_wrapper.usage.total_tokens > 0


async def test_tools_are_run_and_their_results_answered(agent):
    result = await Runner.run(agent("tools", tools=[get_weather]), "The weather?")

    assert result.final_output == "The results: mild in Paris, mild in Rome"
    assert len([item for item in result.new_items if isinstance(item, ToolCallOutputItem)]) == 2


async def test_tools_are_run_in_a_stream(agent):
    result = Runner.run_streamed(agent("tools", tools=[get_weather]), "The weather?")
    names = [event.name async for event in result.stream_events() if event.type == "run_item_stream_event"]

    assert sorted(names) == ["message_output_created", *["tool_called"] * 2, *["tool_output"] * 2]
    assert result.final_output == "The results: mild in Paris, mild in Rome"


async def test_nothing_has_to_be_stored(agent):
    result = await Runner.run(
        agent("tools", tools=[get_weather], model_settings=ModelSettings(store=False)), "The weather?"
    )

    assert result.final_output == "The results: mild in Paris, mild in Rome"


async def test_an_agent_hands_off_to_another(agent):
    pirate = agent("text:Aye", name="Pirate")
    first = agent("call-once:transfer_to_pirate:{}", name="First", handoffs=[pirate])
    result = await Runner.run(first, "Hi")

    assert result.last_agent is pirate
    assert result.final_output == "Aye"


async def test_an_agent_hands_off_in_a_stream(agent):
    first = agent("call-once:transfer_to_pirate:{}", name="First", handoffs=[agent("text:Aye", name="Pirate")])
    result = Runner.run_streamed(first, "Hi")
    now = [event.new_agent.name async for event in result.stream_events() if event.type == "agent_updated_stream_event"]

    assert now == ["First", "Pirate"]
    assert result.final_output == "Aye"


async def test_an_agent_is_the_tool_of_another(agent):
    pirate = agent("text:Aye", name="Pirate").as_tool(tool_name="ask_pirate", tool_description="Asks a pirate")
    result = await Runner.run(agent('call-once:ask_pirate:{"input": "Hi"}', tools=[pirate]), "Ask him")

    assert result.final_output == "The result: Aye"


async def test_the_output_has_a_type(agent):
    result = await Runner.run(agent('text:{"city": "Paris"}', output_type=Place), "Where?")

    assert result.final_output == Place(city="Paris")


async def test_a_run_goes_on_from_a_response(agent, server):
    first = await Runner.run(agent("text:Cobalt"), "A word?")
    await Runner.run(agent("text:Cobalt"), "Again?", previous_response_id=first.last_response_id)

    assert contents(server) == ["A word?", "Cobalt", "Again?"]


async def test_tools_are_run_on_a_chain_of_responses(agent):
    first = await Runner.run(agent("text:Hello"), "Hi")
    told = await Runner.run(
        agent("tools", tools=[get_weather]), "The weather?", previous_response_id=first.last_response_id
    )
    alone = await Runner.run(agent("tools", tools=[get_weather]), "The weather?", auto_previous_response_id=True)

    assert told.final_output == alone.final_output == "The results: mild in Paris, mild in Rome"


async def test_a_run_goes_on_in_a_conversation(agent, sdk, server):
    conversation = await sdk.conversations.create()
    await Runner.run(agent("tools", tools=[get_weather]), "The weather?", conversation_id=conversation.id)
    await Runner.run(agent("text:Well"), "And?", conversation_id=conversation.id)
    items = [item async for item in sdk.conversations.items.list(conversation.id, order="asc")]

    assert [item.type for item in items] == [
        "message",
        "function_call",
        "function_call",
        "function_call_output",
        "function_call_output",
        "message",
        "message",
        "message",
    ]
    assert contents(server)[-2:] == ["The results: mild in Paris, mild in Rome", "And?"]


async def test_a_session_is_kept_in_a_conversation(agent, sdk, server):
    session = OpenAIConversationsSession(openai_client=sdk)
    await Runner.run(agent("tools", tools=[get_weather]), "The weather?", session=session)
    result = Runner.run_streamed(agent("text:Well"), "And?", session=session)
    async for _ in result.stream_events():
        pass

    assert contents(server)[-2:] == ["The results: mild in Paris, mild in Rome", "And?"]
    assert [item.get("role") for item in await session.get_items(limit=2)] == ["user", "assistant"]
    assert (await session.pop_item())["role"] == "assistant"
    await session.add_items([{"role": "user", "content": "One more"}])
    assert len(await session.get_items()) == 8
    await session.clear_session()


async def test_a_session_is_kept_by_the_client(agent, server):
    session = SQLiteSession("tests")
    await Runner.run(agent("reasoning"), "Two and two?", session=session)
    await Runner.run(agent("text:Yes"), "Sure?", session=session)

    assert contents(server)[-1] == "Sure?"
    session.close()


async def test_a_session_is_compacted(agent, sdk, monkeypatch):
    monkeypatch.setitem(SCRIPTS, "gpt-5.5", SCRIPTS["text"])  # it takes models of OpenAI alone, by their names
    kept = SQLiteSession("tests")
    session = OpenAIResponsesCompactionSession(
        "tests", kept, client=sdk, model="gpt-5.5", should_trigger_compaction=lambda context: True
    )
    await Runner.run(agent("text:Cobalt"), "A word?", session=session)
    items = await kept.get_items()
    result = await Runner.run(agent("text:It was cobalt"), "Which was it?", session=session)

    assert items[-1]["type"] == "compaction"
    assert result.final_output == "It was cobalt"
    kept.close()


async def test_a_run_goes_over_a_websocket(agent):
    first = agent("tools", by=OpenAIResponsesWSModel, tools=[get_weather])
    result = await Runner.run(first, "The weather?")

    assert result.final_output == "The results: mild in Paris, mild in Rome"
    await first.model.close()


async def test_a_tool_that_only_openai_runs_does_not_stop_an_agent(agent):
    result = await Runner.run(agent("tools", tools=[get_weather, WebSearchTool()]), "The weather?")

    assert result.final_output == "The results: mild in Paris, mild in Rome"


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_custom_tool_is_called_with_free_text(agent, streamed):
    async def shout(context, text):
        return text.upper()

    tool = CustomTool(name="shout", description="Shouts", on_invoke_tool=shout)

    assert await said_by(agent('call-once:shout:{"input": "so"}', tools=[tool]), streamed) == "The result: SO"


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_shell_runs_commands(agent, streamed):
    def shell(request):
        return f"ran {request.data.action.commands}"

    assert "ran ['ls', 'pwd']" in await said_by(
        agent('call-once:shell:{"commands": ["ls", "pwd"]}', tools=[ShellTool(shell)]), streamed
    )


async def test_a_local_shell_runs_a_command(agent):
    def shell(request):
        return f"ran {request.data.action.command}"

    result = await said_by(agent('call-once:local_shell:{"command": ["ls"]}', tools=[LocalShellTool(shell)]), False)
    assert "ran ['ls']" in result


async def test_a_computer_is_used(agent, server):
    screen = Screen()
    script = 'call-once:computer:{"actions": [{"type": "click", "x": 3, "y": 4, "button": "left"}]}'
    result = await Runner.run(agent(script, tools=[ComputerTool(screen)]), "Click")
    pictures = [
        message for message in server.upstream.requests[-1].body["messages"] if isinstance(message["content"], list)
    ]

    assert screen.done == [("click", (3, 4, "left"))]
    assert result.final_output.startswith("The result:")
    assert pictures[-1]["content"][-1]["image_url"]["url"].startswith("data:image/png;base64,")


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_file_is_patched(agent, streamed):
    class Editor:
        def create_file(self, operation):
            return f"{operation.path} has {operation.diff!r}"

        update_file = delete_file = create_file

    script = 'call-once:apply_patch:{"type": "create_file", "path": "a.txt", "diff": "+Hello"}'
    assert "a.txt has '+Hello'" in await said_by(agent(script, tools=[ApplyPatchTool(Editor())]), streamed)


async def test_functions_of_a_namespace_are_called(agent, server):
    tools = tool_namespace(name="sky", description="What is up there", tools=[get_weather])
    result = await Runner.run(agent("tools", tools=tools), "The weather?")

    assert result.final_output == "The results: mild in Paris, mild in Rome"
    assert [tool["function"]["name"] for tool in server.upstream.requests[-1].body["tools"]] == ["sky__get_weather"]


async def test_functions_that_are_to_be_searched_for_can_be_called(agent, server):
    later = function_tool(weather, name_override="get_weather", defer_loading=True)
    tools = tool_namespace(name="sky", description="What is up there", tools=[later])
    result = await Runner.run(
        agent('call-once:sky__get_weather:{"city": "Paris"}', tools=[*tools, ToolSearchTool()]), "The weather?"
    )
    offered = [tool["function"]["name"] for tool in server.upstream.requests[-1].body["tools"]]

    assert result.final_output == "The result: mild in Paris"
    assert offered == ["sky__get_weather"]
