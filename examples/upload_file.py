"""Upload files, in whatever form a program has them. They are sent as they are read, and never held as a whole.

python examples/upload_file.py; it needs no server, the files are taken by an application in this process.
"""

import io
import json
import re
import tempfile
from pathlib import Path
from typing import Any

from antiphon import Client, InvalidRequest


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Takes a form with a file in it, and says what it has got."""
    assert scope["type"] == "http"
    form, more = b"", True
    while more:
        message = await receive()
        form, more = form + message["body"], message["more_body"]
    name = re.findall(rb'filename="(.*?)"', form)[0].decode()
    file = {"id": "file-1", "object": "file", "filename": name, "bytes": len(form), "purpose": "batch"}
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]})
    await send({"type": "http.response.body", "body": json.dumps(file).encode()})


with Client(app=app) as client, tempfile.TemporaryDirectory() as folder:
    path = Path(folder) / "tides.jsonl"
    path.write_bytes(b'{"custom_id": "1"}\n' * 50_000)
    with path.open("rb") as opened:
        forms: dict[str, Any] = {
            "a path": path,
            "bytes": b"{}",
            "an open file": opened,
            "one that has no name": io.BytesIO(b"{}"),
            "a name, the data, its type": ("waves.jsonl", b"{}", "application/jsonl"),
        }
        for form, file in forms.items():
            taken = client.create_file(file=file, purpose="batch")
            print(f"{form}: {taken['filename']}, a form of {taken['bytes']} bytes")

    try:
        client.create_file(file=Path(folder) / "no such file", purpose="batch")
    except InvalidRequest as error:
        print("Not sent:", error)
