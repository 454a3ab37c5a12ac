"""How long a response is kept: by the settings, for each tenant; and what callers see of one whose time is over."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import apsw
import pytest
import websockets

from antiphon.cli import main
from antiphon.errors import BadSetting
from antiphon.settings import Settings
from tests.servers.antiphon import antiphon, created, creating, replayed

DAY = 86_400


def execute(path: Path, statement: str) -> list[Any]:
    connection = apsw.Connection(str(path / "antiphon.db"))
    connection.set_busy_timeout(5000)
    rows = connection.execute(statement).fetchall()
    connection.close()
    return rows


def test_responses_are_kept_for_thirty_days() -> None:
    assert Settings().expires_at("alice", 1000) == 1000 + 30 * DAY


def test_a_tenant_may_have_days_of_its_own() -> None:
    settings = Settings.load({}, {"ANTIPHON_RETENTION_DAYS": "7", "ANTIPHON_TENANT_RETENTION_DAYS": "a:0.5,b:c:0"})

    assert [settings.expires_at(tenant, 0) for tenant in ("a", "b:c", "d")] == [DAY / 2, None, 7 * DAY]


def test_the_days_of_tenants_can_stand_in_a_table(tmp_path: Path) -> None:
    config = tmp_path / "antiphon.toml"
    config.write_text("retention_days = 0\n[tenant_retention_days]\nteam-a = 90\n", encoding="utf-8")

    settings = Settings.load({}, {}, config)

    assert (settings.expires_at("team-a", 0), settings.expires_at("other", 0)) == (90 * DAY, None)


@pytest.mark.parametrize("days", ["a", "a:", "a:-1", "a:1,a:2", ":1", "a:inf"])
def test_days_that_make_no_sense_are_refused(days: str) -> None:
    with pytest.raises(BadSetting, match="ANTIPHON_TENANT_RETENTION_DAYS"):
        Settings.load({}, {"ANTIPHON_TENANT_RETENTION_DAYS": days})


async def test_each_response_gets_its_time_when_it_is_created(tmp_path: Path) -> None:
    keys = {"alice": "sk-alice", "bob": "sk-bob", "carol": "sk-carol"}
    days = {"bob": 1.0, "carol": 0.0}
    with antiphon(tmp_path, api_keys=keys, tenant_retention_days=days) as server:
        async with server.http() as http:
            for key in keys.values():
                body = {"model": "text:Hello", "input": "Hi"}
                made = await http.post("/responses", json=body, headers={"authorization": f"Bearer {key}"})
                assert made.status_code == 200

    rows = execute(tmp_path, "SELECT tenant, expires_at - created_at FROM responses ORDER BY tenant")
    assert rows == [("alice", 30 * DAY), ("bob", DAY), ("carol", None)]


async def test_a_key_may_have_days_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whichever way a response is created, in the stead of what its tenant and the server have."""
    monkeypatch.setenv("ANTIPHON_DATABASE", f"sqlite:///{tmp_path / 'antiphon.db'}")
    with antiphon(tmp_path, tenant_retention_days={"a": 90.0}) as server:
        for days in ("7", "0"):
            assert await asyncio.to_thread(main, ["keys", "create", "a", "--retention-days", days]) == 0
        assert await asyncio.to_thread(main, ["keys", "create", "a"]) == 0
        for made in map(json.loads, capsys.readouterr().out.splitlines()):
            headers = {"authorization": f"Bearer {made['key']}"}
            async with server.http(headers=headers) as http:
                await created(http, "text")
                background = await created(http, "text", background=True)
                await replayed(http, background["id"])
                prompt = await http.post("/prompts", json={"template": {"instructions": "Be kind."}})
                await created(http, "text", prompt={"id": prompt.json()["id"]})
            url = server.url.replace("http", "ws", 1) + "/responses"
            async with websockets.connect(url, proxy=None, additional_headers=headers) as socket:
                await socket.send(json.dumps({"type": "response.create", "model": "text", "input": "Hi"}))
                async for message in socket:
                    if json.loads(message)["type"] == "response.completed":
                        break

    rows = execute(tmp_path, "SELECT expires_at - created_at FROM responses ORDER BY row")
    assert [days for (days,) in rows] == [7 * DAY] * 4 + [None] * 4 + [90 * DAY] * 4


async def test_a_response_whose_time_is_over_is_unknown_at_once(tmp_path: Path) -> None:
    with antiphon(tmp_path) as server:
        async with server.http() as http:
            first = await created(http, "text:Hello")
            second = await created(http, "text:Again", previous_response_id=first["id"])
            execute(tmp_path, "UPDATE responses SET expires_at = 1 WHERE row = 1")

            path = f"/responses/{first['id']}"
            answers = [
                await http.get(path),
                await http.get(path, params={"stream": "true"}),
                await http.get(f"{path}/input_items"),
                await http.post(f"{path}/cancel"),
                await http.delete(path),
            ]
            refused = await http.post(
                "/responses", json={"model": "text", "input": "Hi", "previous_response_id": first["id"]}
            )
            listed = (await http.get("/responses")).json()["data"]
            seen = (await http.get(f"/responses/{second['id']}/input_items")).json()["data"]

    assert [answer.status_code for answer in answers] == [404] * 5
    assert refused.json()["error"]["code"] == "previous_response_not_found"
    assert [each["id"] for each in listed] == [second["id"]]
    assert len(seen) == 1  # what the expired one was given and said is left out


async def test_a_running_response_ends_in_peace_after_its_time(tmp_path: Path) -> None:
    with antiphon(tmp_path) as server:
        async with server.http() as http, creating(http, "gate:2:2") as stream:
            await stream.deltas(2)
            execute(tmp_path, "UPDATE responses SET expires_at = 1")
            half = (await http.get(f"/responses/{stream.response_id}")).json()
            server.upstream.requests[-1].release()
            live = await stream.rest()
            ended = await http.get(f"/responses/{stream.response_id}")

    assert half["status"] == "in_progress"
    assert b"event: response.completed" in live
    assert ended.status_code == 404


async def test_conversations_have_no_limit(tmp_path: Path) -> None:
    with antiphon(tmp_path) as server:
        async with server.http() as http:
            conversation = (await http.post("/conversations", json={})).json()["id"]
            turn = await created(http, "text:Hello", conversation=conversation)
            execute(tmp_path, "UPDATE responses SET expires_at = 1")
            items = (await http.get(f"/conversations/{conversation}/items")).json()["data"]
            gone = await http.get(f"/responses/{turn['id']}")
            after = await created(http, "text:Again", conversation=conversation)
            whole = await replayed(http, after["id"])

    assert (len(items), gone.status_code) == (2, 404)
    assert b"response.completed" in whole
