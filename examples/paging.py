"""Go through a list that comes page by page.

python examples/paging.py; it needs no server, the list is served by an application in this process.
"""

import json
from typing import Any
from urllib.parse import parse_qs

from antiphon import Client

FILES = [{"id": f"file-{number}", "object": "file", "filename": f"whale-{number}.txt"} for number in range(7)]


async def app(scope: Any, receive: Any, send: Any) -> None:
    assert scope["type"] == "http"
    query = {name: values[0] for name, values in parse_qs(scope["query_string"].decode()).items()}
    print("  asked:", query)
    ids = [file["id"] for file in FILES]
    start = ids.index(query["after"]) + 1 if "after" in query else 0
    end = start + int(query["limit"])
    page = {"object": "list", "data": FILES[start:end], "last_id": ids[start:end][-1], "has_more": end < len(FILES)}
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]})
    await send({"type": "http.response.body", "body": json.dumps(page).encode()})


with Client(app=app) as client:
    # An answer is one page. Those that follow are asked for when they are reached, with the same arguments.
    for file in client.list_files(limit=3).all():
        print(file["filename"])
    for page in client.list_files(limit=5).pages():
        print(len(page["data"]), "files; more to come:", page.has_next)
