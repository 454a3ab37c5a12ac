"""Hold a conversation: the server keeps what was said, each turn names the one before.

python examples/chat.py, with a server at OPENAI_BASE_URL and the name of its model in MODEL.
"""

import os

from antiphon import Client

MODEL = os.environ.get("MODEL", "smollm2-135m-instruct")
TURNS = ["Name a sea bird.", "Where does it live?", "What does it eat?"]

with Client() as client:
    said: list[str] = []
    previous = None
    for turn in TURNS:
        print(f"> {turn}")
        with client.create_response(
            model=MODEL,
            instructions="Answer in one short sentence.",  # not carried over: said with every turn
            input=turn,
            previous_response_id=previous,
            max_output_tokens=40,
            stream=True,
        ) as stream:
            for piece in stream.text:
                print(piece, end="", flush=True)
        print()
        previous = stream.response_id
        said.append(str(previous))

    for response_id in said:
        client.delete_response(response_id=response_id)
