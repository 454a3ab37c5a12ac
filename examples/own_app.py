"""Test an application of one's own in this process: no port, no network, its lifespan run as a server would.

python examples/own_app.py; it needs no server.
"""

import json
from typing import Any

from antiphon import Client, NotFound

MODELS = {"tiny": {"id": "tiny", "object": "model", "created": 1700000000, "owned_by": "me"}}


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Any ASGI application will do: Starlette, FastAPI, or a bare function that retrieves models."""
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            print(message["type"])
            await send({"type": message["type"] + ".complete"})
            if message["type"] == "lifespan.shutdown":
                return
    name = scope["path"].rsplit("/", 1)[-1]
    status, value = (200, MODELS[name]) if name in MODELS else (404, {"error": {"message": f"There is no {name}."}})
    await send({"type": "http.response.start", "status": status, "headers": [(b"content-type", b"application/json")]})
    await send({"type": "http.response.body", "body": json.dumps(value).encode()})


# True: an answer that does not match the API description raises InvalidAnswer.
with Client(app=app, validate_responses=True) as client:
    assert client.retrieve_model(model="tiny") == MODELS["tiny"]
    print("tiny is a model")
    try:
        client.retrieve_model(model="huge")
    except NotFound as error:
        print(error)
