"""What is deleted is nowhere: a text is sent through every door, deleted, and looked for in all that was written."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import apsw
import httpx2
import pytest

from antiphon.errors import StoreError
from antiphon.store.base import NewResponse, Note
from antiphon.store.sqlite import SqliteStore
from antiphon.store.sqlite_search import search
from antiphon.store.upkeep import forms_of
from tests.contracts.conversations import conversation, end, talking
from tests.contracts.store import ending, item, new, running, segment, turn
from tests.servers.antiphon import antiphon, created, creating
from tests.servers.chat import SCRIPTS

SECRET = 'a "secret" of Müller\n— 秘密'


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "antiphon.db")


@pytest.fixture
async def store(path: str) -> AsyncIterator[SqliteStore]:
    store = SqliteStore(path)
    await store.open()
    yield store
    await store.close()


def everything(path: str) -> bytes:
    """All bytes of the database's files."""
    return b"".join(file.read_bytes() for file in sorted(Path(path).parent.iterdir()))


def packed_pieces(path: str) -> list[bytes]:
    """Stretches of what is kept packed; a page of the file holds each of them whole, or none of it."""
    rows = apsw.Connection(path).execute("SELECT frames FROM segments UNION ALL SELECT response FROM responses")
    return [blob[at : at + 24] for (blob,) in rows if blob for at in range(1, len(blob) - 24, 24)]


def where(path: str, text: str = SECRET) -> set[str]:
    return {each.place for each in search(path, text)}


async def secretly(store: SqliteStore, id: str = "resp_1", **fields: Any) -> NewResponse:
    """A finished response that holds the secret wherever it has room for one."""
    (form,) = {json.dumps(SECRET, ensure_ascii=False).encode()}
    made = new(id, items=[item(f"in_{id}", form.decode()[1:-1])], request=b'{"instructions":%b}' % form, **fields)
    made = NewResponse(**{**{name: getattr(made, name) for name in made.__slots__}, "metadata": b'{"k":%b}' % form})
    claim = await store.create("alice", made, lease_seconds=60)
    assert claim is not None
    await store.append(claim, [segment(1, text=form.decode())], notes=[Note(1, "tool", form)])
    await store.append(claim, [segment(2, text=form.decode())], ending=ending(item(f"out_{id}", form.decode()[1:-1])))
    return made


@pytest.mark.parametrize("compacted", [False, True])
async def test_a_deleted_response_leaves_nothing(store: SqliteStore, path: str, compacted: bool) -> None:
    await turn(store, "kept")
    await secretly(store)
    if compacted:
        while await store.upkeep.compact(settled_seconds=0):
            pass
    before, pieces = where(path), packed_pieces(path)

    await store.delete("alice", "resp_1")
    await store.erased()

    assert before >= {
        "responses.request", "responses.metadata", "segments.frames", "notes.body", "items.body", "antiphon.db"
    }  # fmt: skip
    assert search(path, SECRET) == search(path, "resp_1") == []
    kept = set(packed_pieces(path))
    assert not [piece for piece in pieces if piece not in kept and piece in everything(path)]


async def test_an_expired_response_leaves_nothing(store: SqliteStore, path: str) -> None:
    await secretly(store, expires_at=1.0)
    await store.upkeep.compact(settled_seconds=0)
    before = where(path)

    await store.upkeep.expire(limit=9)
    await store.erased()

    assert before
    assert search(path, SECRET) == []


async def test_compacting_alone_leaves_nothing_of_the_plain_log(store: SqliteStore, path: str) -> None:
    claim = await running(store)
    for number in range(1, 50):
        await store.append(claim, [segment(number, text=f"{SECRET!r} {number}")])
    await store.append(claim, [], ending=ending())
    await store.upkeep.compact(settled_seconds=0)

    await store.erased()

    assert ascii(SECRET).encode() not in everything(path)
    assert where(path, repr(SECRET)) == {"segments.frames"}


async def test_a_deleted_conversation_item_or_prompt_leaves_nothing(store: SqliteStore, path: str) -> None:
    secret = json.dumps(SECRET)[1:-1]
    await conversation(store, "conv_1", item("i1", secret))
    await conversation(store, "conv_2", item("i2", secret), item("kept"))
    await end(store, await talking(store, "resp_1"), item("o1", secret))
    await store.put_prompt("alice", "pmpt_1", json.dumps(SECRET).encode())
    before = where(path)

    await store.delete("alice", "resp_1")
    await store.delete_conversation("alice", "conv_1")
    await store.delete_item("alice", "conv_2", "i2")
    await store.delete_prompt("alice", "pmpt_1")
    await store.erased()

    assert before >= {"conversation_items.body", "prompts.body", "items.body"}
    assert search(path, SECRET) == []


async def test_every_form_that_a_text_may_have_is_found(store: SqliteStore, path: str) -> None:
    for number, form in enumerate(forms_of(SECRET)):
        await store.put_prompt("alice", f"pmpt_{number}", form)

    found = [each.where for each in search(path, SECRET) if each.place == "prompts.body"]

    assert found == [f"pmpt_{number}" for number in range(5)]


async def test_a_text_in_a_page_that_nobody_uses_is_found(path: str) -> None:
    """As another program leaves it that deletes without overwriting."""
    store = SqliteStore(path)
    await store.open()
    for number in range(20):
        await store.put_prompt("alice", f"pmpt_{number}", json.dumps(SECRET * 100).encode())
    await store.close()
    careless = sqlite3.connect(path)
    careless.execute("PRAGMA secure_delete = OFF")
    careless.execute("DELETE FROM prompts")
    careless.commit()
    careless.close()

    assert any(each.where.endswith("not in use and holds something") for each in search(path, "another text"))
    assert any(each.where.startswith("byte") for each in search(path, SECRET))


async def test_the_log_that_cannot_be_emptied_is_told(
    store: SqliteStore, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("antiphon.store.sqlite_search.EMPTYING_SECONDS", 0.0)
    await turn(store, "a")
    reader = apsw.Connection(path)
    cursor = reader.execute("SELECT * FROM responses, segments")

    found = await asyncio.to_thread(search, path, "another text")

    cursor.close()
    assert [each.place for each in found] == ["antiphon.db-wal"]


def test_a_database_that_is_not_there_is_not_made(path: str) -> None:
    with pytest.raises(StoreError, match="is not there"):
        search(path, "text")

    assert not Path(path).exists()


def verify(path: str, *arguments: str, **options: Any) -> tuple[int, list[dict[str, str]], str]:
    """The command as somebody calls it beside a server."""
    command = [sys.executable, "-m", "antiphon", "verify-erased", *arguments, "--database", f"sqlite:///{path}"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(path).parent, timeout=30, **options)
    return done.returncode, [json.loads(line) for line in done.stdout.splitlines()], done.stderr


DOORS: dict[str, dict[str, Any]] = {
    "input": {"input": SECRET},
    "instructions": {"instructions": SECRET},
    "metadata": {"metadata": {"k": SECRET}},
    "a tool": {"tools": [{"type": "function", "name": "f", "description": SECRET, "parameters": {}, "strict": False}]},
    "what the model says": {"model": "secret"},
    "a tool's result": {
        "input": [
            {"type": "function_call", "call_id": "call_1", "name": "f", "arguments": json.dumps({"a": SECRET})},
            {"type": "function_call_output", "call_id": "call_1", "output": SECRET},
        ]
    },
}


async def test_through_whatever_door_a_text_came_deleting_takes_it_away(
    tmp_path: Path, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(SCRIPTS, "secret", lambda stream: SCRIPTS["text"](stream, SECRET))
    with antiphon(tmp_path) as server:
        async with server.http() as http:
            made = [await created(http, **{"model": "text:Hello", **body}) for body in DOORS.values()]
            headers = {"idempotency-key": "a key"}
            body = {"model": "secret", "input": SECRET}
            made.append((await http.post("/responses", json=body, headers=headers)).json())
            async with creating(http, "secret", background=True) as stream:
                await stream.rest()
            made.append(await created(http, "text:Later", previous_response_id=made[0]["id"]))
            before = where(path)
            for response_id in [*(each["id"] for each in made), stream.response_id]:
                assert (await http.delete(f"/responses/{response_id}")).json()["deleted"] is True
            await erased(http)
            told = await asyncio.to_thread(verify, path, "--text", SECRET)
            by_id = [await asyncio.to_thread(verify, path, each["id"]) for each in made[:2]]

    assert before >= {"responses.request", "responses.response", "segments.frames", "items.body"}
    assert told == (0, [], "It is nowhere.\n")
    assert by_id == [told, told]


async def erased(http: httpx2.AsyncClient) -> None:
    """Nothing to wait for: the command empties the write-ahead log itself."""
    assert (await http.get("/responses")).json()["data"] == []


async def test_the_command_tells_where_and_not_what(tmp_path: Path, path: str) -> None:
    with antiphon(tmp_path) as server:
        async with server.http() as http:
            made = await created(http, "text:Hello", input=SECRET)
            code, found, told = await asyncio.to_thread(verify, path, "--text", "-", input=SECRET + "\n")

    assert code == 1
    assert {"place": "items.body", "where": found[0]["where"]} in found
    assert "secret" not in json.dumps(found) + told
    assert verify(path, made["id"])[0] == 1


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [([], "an id, or --text"), (["resp_1", "--text", "x"], "an id, or --text"), (["abc"], "at least 4 characters")],
)
def test_a_search_for_nothing_is_a_misuse(path: str, arguments: list[str], complaint: str) -> None:
    code, found, told = verify(path, *arguments)

    assert (code, found) == (2, [])
    assert complaint in told
