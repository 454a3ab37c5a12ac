"""Start several responses in the background, poll one of them, follow the others.

python examples/background.py, with a server at OPENAI_BASE_URL and the name of its model in MODEL.
"""

import os
import time

from antiphon import Client

MODEL = os.environ.get("MODEL", "smollm2-135m-instruct")
QUESTIONS = ["Name a whale.", "Name a fish.", "Name a sea."]

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
    print("polled  ", response["status"], response["output"][0]["content"][0]["text"])

    # Following needs no pauses: what has been said comes at once, and what is being said as it is.
    for response_id in others:
        with client.follow(response_id) as stream:
            final = stream.until_done()
        if final:
            print("followed", final["status"], final["output"][0]["content"][0]["text"])
