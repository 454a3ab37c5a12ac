"""Call an API of which there is only an OpenAPI document.

python examples/another_api.py; it needs no server, the API is served by an application in this process.
"""

import json
import tempfile
from pathlib import Path
from typing import Any

from antiphon import Client, InvalidRequest

DOCUMENT = """
openapi: 3.1.0
info: {title: Harbour, version: "2"}
servers: [{url: "https://harbour.example/v2"}]
paths:
  /ships/{ship}/tide:
    get:
      operationId: getTide
      parameters:
        - {name: ship, in: path, required: true, schema: {type: string}}
        - {name: unit, in: query, schema: {enum: [m, ft]}}
      responses: {"200": {description: The tide., content: {application/json: {}}}}
"""


async def app(scope: Any, receive: Any, send: Any) -> None:
    assert scope["type"] == "http"  # no lifespan
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]})
    await send({"type": "http.response.body", "body": json.dumps({"asked": scope["path"], "meters": 4.2}).encode()})


with tempfile.TemporaryDirectory() as folder:
    path = Path(folder) / "harbour.yaml"
    path.write_text(DOCUMENT, encoding="utf-8")
    with Client(spec=path, app=app) as client:  # without `app`, the server of the document is called
        print(client.get_tide(ship="Pequod", unit="m"))
        try:
            client.get_tide(ship="Pequod", unit="fathoms")
        except InvalidRequest as error:
            print("Not sent:", error)
