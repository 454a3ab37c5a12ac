"""Have the model answer with JSON of a given schema.

python examples/structured_output.py, with a server at OPENAI_BASE_URL and the name of its model in MODEL.
"""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

from antiphon import Client

if TYPE_CHECKING:  # the types of what is sent and answered are there for type checkers alone
    from antiphon.client.operations import Response

MODEL = os.environ.get("MODEL", "smollm2-135m-instruct")
WHALE = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 40}, "meters": {"type": "integer"}},
    "required": ["name", "meters"],
    "additionalProperties": False,
}


def text_of(response: Response) -> str:
    messages = [item for item in response["output"] if item["type"] == "message"]
    return "".join(part["text"] for item in messages for part in item["content"] if part["type"] == "output_text")


with Client() as client:
    response = client.create_response(
        model=MODEL,
        input="Name a whale and say how long it is, in meters.",
        text={"format": {"type": "json_schema", "name": "whale", "schema": WHALE, "strict": True}},
        max_output_tokens=100,
    )

if response["status"] != "completed":  # cut off in the middle, it would be no JSON
    raise SystemExit(f"The answer is {response['status']}: {response['incomplete_details']}")
whale = json.loads(text_of(response))
print(f"{whale['name']}: {whale['meters']} m")
