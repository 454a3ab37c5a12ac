"""Start several responses in the background, poll one of them, follow the others.

python examples/background.py, with a server at OPENAI_BASE_URL and the name of its model in MODEL.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from antiphon import Client

if TYPE_CHECKING:  # the types of what is sent and answered are there for type checkers alone
    from antiphon.client.operations import Response

MODEL = os.environ.get("MODEL", "smollm2-135m-instruct")
QUESTIONS = ["Name a whale.", "Name a fish.", "Name a sea."]


def text_of(response: Response) -> str:
    messages = [item for item in response["output"] if item["type"] == "message"]
    return "".join(part["text"] for item in messages for part in item["content"] if part["type"] == "output_text")


with Client() as client:
    # Each call returns at once; the server goes on, whether this program lives or not.
    first, *others = [
        client.create_response(model=MODEL, input=question, max_output_tokens=30, background=True)["id"]
        for question in QUESTIONS
    ]

    response = client.get_response(response_id=first)
    while response["status"] in ("queued", "in_progress"):
        time.sleep(0.2)
        response = client.get_response(response_id=first)
    print("polled  ", response["status"], text_of(response))

    # Following needs no pauses: what has been said comes at once, and what is being said as it is.
    for response_id in others:
        with client.get_response(response_id=response_id, stream=True) as stream:
            final = stream.until_done()
        if final:
            print("followed", final["status"], text_of(final))
