"""Save an answer that is neither JSON nor events, without holding it in memory.

python examples/save_file.py; it needs no server, the file is served by an application in this process.
"""

import tempfile
from pathlib import Path
from typing import Any

from antiphon import Client


async def app(scope: Any, receive: Any, send: Any) -> None:
    assert scope["type"] == "http"
    headers = [(b"content-type", b"audio/mpeg")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    for _ in range(4):
        await send({"type": "http.response.body", "body": bytes(1000), "more_body": True})
    await send({"type": "http.response.body", "body": b""})


with Client(app=app) as client, tempfile.TemporaryDirectory() as folder:
    speech = client.create_speech(model="tts-1", voice="alloy", input="The tide comes in.")
    print(speech.status, speech.media_type)
    path = Path(folder) / "tide.mp3"
    size = speech.save(path)  # the file is there when it is whole, or not at all
    print(size, path.stat().st_size)

    # Or piece by piece, and left in the middle: the application hears that its client has gone.
    with client.create_speech(model="tts-1", voice="alloy", input="The tide goes out.") as speech:
        print(len(next(speech)), "bytes are enough")
