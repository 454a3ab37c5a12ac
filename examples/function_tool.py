"""Let the model call a function of this program, until it has what it needs.

python examples/function_tool.py, with a server at OPENAI_BASE_URL and the name of its model in MODEL.
"""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

from antiphon import Client

if TYPE_CHECKING:  # the types of what is sent and answered are there for type checkers alone
    from antiphon.client.operations import FunctionTool, InputItem

MODEL = os.environ.get("MODEL", "smollm2-135m-instruct")
TOOL: FunctionTool = {
    "type": "function",
    "name": "get_weather",
    "description": "The weather in a city now.",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    "strict": False,
}


def get_weather(city: str) -> str:
    return f"It rains in {city}."


with Client() as client:
    question: str | list[InputItem] = "What is the weather in Paris and in Rome?"
    previous = None
    for _ in range(3):  # a small model may never have enough
        response = client.create_response(model=MODEL, input=question, tools=[TOOL], previous_response_id=previous)
        calls = [item for item in response["output"] if item["type"] == "function_call"]
        if not calls:
            break
        for call in calls:
            print(call["name"], call["arguments"])
        # The results are the next input; what came before is kept by the server.
        question = [
            {
                "type": "function_call_output",
                "call_id": call["call_id"],
                "output": get_weather(**json.loads(call["arguments"])),
            }
            for call in calls
        ]
        previous = response["id"]
    for item in response["output"]:
        print(item.get("content") or item)
