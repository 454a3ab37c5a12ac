"""Have the model answer with JSON of a given schema.

python examples/structured_output.py, with a server at OPENAI_BASE_URL and the name of its model in MODEL.
"""

import json
import os

from antiphon import Client

MODEL = os.environ.get("MODEL", "smollm2-135m-instruct")
WHALE = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 40}, "meters": {"type": "integer"}},
    "required": ["name", "meters"],
    "additionalProperties": False,
}

with Client() as client:
    response = client.create_response(
        model=MODEL,
        input="Name a whale and say how long it is, in meters.",
        text={"format": {"type": "json_schema", "name": "whale", "schema": WHALE, "strict": True}},
        max_output_tokens=100,
    )

if response["status"] != "completed":  # cut off in the middle, it would be no JSON
    raise SystemExit(f"The answer is {response['status']}: {response['incomplete_details']}")
whale = json.loads(response["output"][0]["content"][0]["text"])
print(f"{whale['name']}: {whale['meters']} m")
