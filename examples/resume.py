"""Leave a stream in the middle and come back for the rest.

python examples/resume.py, with a server at OPENAI_BASE_URL and the name of its model in MODEL.
"""

import os

from antiphon import Client

MODEL = os.environ.get("MODEL", "smollm2-135m-instruct")

# A background response goes on while nobody listens.
with (
    Client() as client,
    client.create_response(model=MODEL, input="Tell me about whales.", background=True, stream=True) as stream,
):
    for event in stream:
        print(event["sequence_number"], event["type"])
        if event["sequence_number"] == 6:
            break

# What must be kept: the id of the response, and the number of the last event that was seen.
response_id, seen = str(stream.response_id), stream.sequence_number

print("... somewhere else, later ...")

with (
    Client() as client,
    client.get_response(response_id=response_id, stream=True, starting_after=seen) as rest,
):
    for event in rest:
        print(event["sequence_number"], event["type"])
        if event["type"] == "response.output_text.done":
            print(event["text"])
