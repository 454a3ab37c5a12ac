"""Keys in the database: made, shown once, used, revoked; and what a tenant may know of another one."""

import inspect
import json
from collections.abc import Sequence
from contextlib import asynccontextmanager
from typing import get_type_hints

import httpx2
import pytest
from starlette.datastructures import Headers

from antiphon.cli import main
from antiphon.errors import Forbidden, NotFound, StoreError, Unauthorized
from antiphon.server.access import Access
from antiphon.store.base import Claim, Store
from antiphon.store.keys import digest_of, new_key
from antiphon.store.postgres import PostgresStore
from antiphon.store.sqlite import SqliteStore
from tests.servers import postgres
from tests.servers.antiphon import PLAIN, antiphon, created

OK = {"model": "text:Hello there", "input": "Hi"}


def bearer(text):
    return {"authorization": f"Bearer {text}"}


@pytest.fixture
def database(tmp_path, monkeypatch):
    """A database file that the commands know."""
    monkeypatch.setenv("ANTIPHON_DATABASE", f"sqlite:///{tmp_path / 'antiphon.db'}")
    return tmp_path


@pytest.fixture
def keys(database, capsys):
    """`antiphon keys`: gives what it answers, an object for each line."""

    def command(*words):
        assert main(["keys", *words]) == 0
        return [json.loads(line) for line in capsys.readouterr().out.splitlines()]

    return command


class Clock:
    def __init__(self):
        self.time = 1_000_000.0

    def __call__(self):
        return self.time


class TestCommand:
    def test_a_key_is_shown_once_and_kept_as_a_hash(self, keys, database):
        (made,) = keys("create", "alice", "--name", "laptop")
        (listed,) = keys("list")

        assert made["key"].startswith("sk-antiphon-")
        assert len(made["key"]) == len("sk-antiphon-") + 43
        assert listed == {name: value for name, value in made.items() if name != "key"}
        assert (listed["tenant"], listed["name"], listed["holds"], listed["last_used"]) == (
            "alice", "laptop", True, None,
        )  # fmt: skip
        kept = b"".join(file.read_bytes() for file in database.iterdir())
        assert made["key"].encode() not in kept
        assert digest_of(made["key"]) in kept

    def test_a_tenant_has_as_many_keys_as_it_wants(self, keys):
        made = [keys("create", "alice")[0] for _ in range(3)]

        assert len({each["key"] for each in made}) == len({each["id"] for each in made}) == 3
        assert [each["id"] for each in keys("list")] == [each["id"] for each in made]

    def test_a_revoked_key_stays_in_the_list(self, keys):
        (made,) = keys("create", "alice")
        (revoked,) = keys("revoke", made["id"])

        assert not revoked["holds"]
        assert revoked["revoked"] is not None
        assert keys("list") == [revoked]

    def test_a_key_that_is_rotated_hands_on_what_it_had(self, keys):
        (old,) = keys("create", "alice", "--name", "laptop", "--tokens-per-minute", "500")
        (new,) = keys("rotate", old["id"], "--requests-per-minute", "7")
        before, after = keys("list")

        assert (new["tenant"], new["name"]) == ("alice", "laptop")
        assert new["limits"] == {"tokens_per_minute": 500, "requests_per_minute": 7}
        assert (before["id"], before["holds"]) == (old["id"], False)
        assert (after["id"], after["holds"]) == (new["id"], True)

    def test_with_an_overlap_the_old_key_goes_on_for_a_while(self, keys):
        (old,) = keys("create", "alice")
        keys("rotate", old["id"], "--overlap", "1h")

        assert [each["holds"] for each in keys("list")] == [True, True]
        assert keys("list")[0]["revoked"] is not None

    def test_a_key_may_end_by_itself(self, keys):
        (made,) = keys("create", "alice", "--expires", "90d")

        assert made["expires"] > made["created"]

    def test_an_admin_key_is_of_no_tenant(self, keys):
        (made,) = keys("create", "--admin", "--name", "prometheus")
        (user,) = keys("create", "alice")
        (rotated,) = keys("rotate", made["id"])

        assert [(each["tenant"], each["admin"]) for each in keys("list")] == [
            (None, True), ("alice", False), (None, True),
        ]  # fmt: skip
        assert (made["name"], rotated["name"], user["admin"]) == ("prometheus", "prometheus", False)

    @pytest.mark.parametrize(
        ("words", "said"),
        [
            (["create"], "expected the tenant that it is for, or --admin"),
            (["create", "alice", "--admin"], "expected the tenant that it is for, or --admin"),
            (["create", "--admin", "--max-streams-per-key", "1"], "without limits"),
            (["revoke", "key_1", "--admin"], "expected `create`"),
            (["create", ""], "keys create: '' is empty; expected the tenant that it is for, or --admin."),
            (["create", "alice", "--retention-days", "0.5"], "--retention-days: '0.5' is not a whole number from 0 to"),
            (["create", "alice", "--retention-days", "-1"], "whole number from 0"),
            (["create", "alice", "--retention-days", "3000000000"], "whole number from 0 to 2147483647"),
            (["list", "alice"], "expected nothing"),
            (["revoke"], "expected the id"),
            (["create", "alice", "--expires", "soon"], "'soon' is not a span of time"),
            (["create", "alice", "--tokens-per-minute", "-1"], "whole number from 0"),
            (["create", "alice", "--database", "sqlite://"], "in memory"),
        ],
    )
    def test_what_makes_no_sense_is_misuse(self, database, words, said, capsys):
        assert main(["keys", *words]) == 2
        assert said in capsys.readouterr().err

    @pytest.mark.parametrize("action", ["revoke", "rotate"])
    def test_a_key_that_is_not_there_is_told(self, keys, action, capsys):
        keys("create", "alice")
        assert main(["keys", action, "key_none"]) == 1
        assert "Key with id 'key_none' not found." in capsys.readouterr().err

    def test_the_first_key_makes_the_database_and_tells_which(self, database, capsys):
        assert main(["keys", "create", "alice"]) == 0
        assert str(database / "antiphon.db") in capsys.readouterr().err

    @pytest.mark.parametrize("words", [["list"], ["revoke", "key_1"], ["rotate", "key_1"]])
    def test_where_no_database_is_none_is_made(self, database, words, capsys):
        assert main(["keys", *words]) == 1
        assert capsys.readouterr() == ("", f"antiphon: {database / 'antiphon.db'} is not there.\n")
        assert not list(database.iterdir())


def status_of(url, text):
    return httpx2.get(f"{url}/models", headers=bearer(text), **PLAIN).status_code


def becomes(status, url, text):
    """Ask until the answer has that status; a test ends by itself if it never has."""
    while status_of(url, text) != status:
        pass


def test_keys_work_beside_a_running_server(keys, database):
    with antiphon(database, api_keys={"ops": "sk-of-the-settings-1234"}) as server:
        (made,) = keys("create", "alice")
        assert status_of(server.url, made["key"]) == 200
        assert status_of(server.url, "sk-of-the-settings-1234") == 200
        assert status_of(server.url, made["key"][:-1]) == 401
        keys("revoke", made["id"])
        becomes(401, server.url, made["key"])
        assert status_of(server.url, "sk-of-the-settings-1234") == 200
    assert keys("list")[0]["last_used"] is not None


def test_an_admin_key_of_the_database_opens_the_metrics_and_nothing_else(keys, database):
    elsewhere = {"x-forwarded-for": "203.0.113.9"}
    with antiphon(database, api_keys={"ops": "sk-of-the-settings-1234"}) as server:
        (admin,), (user,) = keys("create", "--admin"), keys("create", "alice")
        assert (status_of(server.url, admin["key"]), status_of(server.url, user["key"])) == (403, 200)
        metrics = server.url.removesuffix("/v1") + "/metrics"
        got = [
            httpx2.get(metrics, headers={**elsewhere, **bearer(each["key"])}, **PLAIN).status_code
            for each in (admin, user)
        ]
        assert got == [200, 403]
        keys("revoke", admin["id"])
        becomes(401, server.url, admin["key"])


def test_the_first_key_closes_an_open_server(keys, database):
    with antiphon(database) as server:
        assert status_of(server.url, "anything") == 200
        (made,) = keys("create", "alice")
        becomes(401, server.url, "anything")
        assert status_of(server.url, made["key"]) == 200
        keys("revoke", made["id"])
        becomes(401, server.url, made["key"])  # and does not open it again


def test_all_keys_of_a_tenant_see_the_same(keys, database):
    with antiphon(database) as server:
        texts = [keys("create", tenant)[0]["key"] for tenant in ("alice", "alice", "bob")]
        becomes(401, server.url, "anything")
        made = httpx2.post(f"{server.url}/responses", json=OK, headers=bearer(texts[0]), **PLAIN).json()
        got = [
            httpx2.get(f"{server.url}/responses/{made['id']}", headers=bearer(text), **PLAIN).status_code
            for text in texts
        ]

    assert got == [200, 200, 404]


@pytest.fixture(scope="module")
def postgres_url():
    with postgres.any_server() as url:
        yield url


@pytest.fixture(params=["sqlite", "postgres"])
async def kept(request):
    """The keys of an empty database."""
    if request.param == "sqlite":
        async with opened(SqliteStore(None)) as store:
            yield store.keys
        return
    server = request.getfixturevalue("postgres_url")
    made = await postgres.create_database(server)
    async with opened(PostgresStore(made)) as store:
        yield store.keys
    await postgres.drop_database(server, made)


@asynccontextmanager
async def opened(store):
    await store.open()
    yield store
    await store.close()


class TestKept:
    """What every store promises of keys."""

    async def test_a_key_is_found_by_its_digest_alone(self, kept):
        key, text = new_key("alice", name="laptop", created_at=1.5, expires_at=9.5, limits={"max_streams_per_key": 3})
        assert not await kept.exist()
        await kept.add(key)

        assert await kept.exist()
        assert await kept.find(digest_of(text)) == key
        assert await kept.find(digest_of(text + "x")) is None

    async def test_the_earlier_end_holds(self, kept):
        key, _text = new_key("alice", name="", created_at=1.0)
        await kept.add(key)
        await kept.revoke(key.id, at=20.0)
        revoked = await kept.revoke(key.id, at=30.0)

        assert revoked.revoked_at == 20.0
        assert (revoked.holds(19.9), revoked.holds(20.0)) == (True, False)
        assert await kept.every() == [revoked]
        with pytest.raises(NotFound):
            await kept.revoke("key_none", at=1.0)

    async def test_a_use_is_noted(self, kept):
        key, text = new_key("alice", name="", created_at=1.0)
        await kept.add(key)
        await kept.mark_used(key.id, at=7.5)

        assert (await kept.find(digest_of(text))).used_at == 7.5


class TestAccess:
    """Who is let in, by the clock."""

    @pytest.fixture
    async def kept(self):
        async with opened(SqliteStore(None)) as store:
            yield store.keys

    async def test_a_revoked_key_stops_after_a_second(self, kept):
        clock = Clock()
        key, text = new_key("alice", name="", created_at=clock())
        await kept.add(key)
        access = Access({}, kept=kept, now=clock)
        assert (await access.caller(Headers(bearer(text)))).tenant == "alice"
        await kept.revoke(key.id, at=clock())

        clock.time += 0.9
        assert (await access.caller(Headers(bearer(text)))).tenant == "alice"  # the database was not asked
        clock.time += 0.1
        with pytest.raises(Unauthorized):
            await access.caller(Headers(bearer(text)))

    async def test_an_expiry_is_kept_to_the_moment(self, kept):
        clock = Clock()
        key, text = new_key("alice", name="", created_at=clock(), expires_at=clock() + 0.5)
        await kept.add(key)
        access = Access({}, kept=kept, now=clock)
        await access.caller(Headers(bearer(text)))

        clock.time += 0.5
        with pytest.raises(Unauthorized):
            await access.caller(Headers(bearer(text)))

    async def test_the_last_use_is_written_once_a_minute(self, kept):
        clock = Clock()
        key, text = new_key("alice", name="", created_at=clock())
        await kept.add(key)
        access = Access({}, kept=kept, now=clock)
        seen = []
        for seconds in (0, 30, 30):
            clock.time += seconds
            await access.caller(Headers(bearer(text)))
            seen.append((await kept.every())[0].used_at - 1_000_000)

        assert seen == [0, 0, 60]

    async def test_while_the_database_is_away_known_keys_hold_and_others_are_not_let_in(self):
        clock = Clock()
        async with opened(SqliteStore(None)) as store:
            key, text = new_key("alice", name="", created_at=clock())
            await store.keys.add(key)
            access = Access({}, kept=store.keys, now=clock)
            await access.caller(Headers(bearer(text)))

        clock.time += 60  # and the store is closed now
        assert (await access.caller(Headers(bearer(text)))).tenant == "alice"
        with pytest.raises(StoreError):
            await access.caller(Headers(bearer(text + "x")))

    async def test_without_any_key_only_the_named_sites_may_call(self, kept):
        access = Access({}, kept=kept, origins=["https://app.example"])
        local = {"host": "localhost:8000"}

        assert (await access.caller(Headers({**local, "origin": "https://app.example"}))).tenant == "default"
        with pytest.raises(Forbidden):
            await access.caller(Headers({**local, "origin": "https://other.example"}))


# Tenants

SERVES_THE_NODE = {"open", "close", "check", "claim", "overdue_turns", "backlog"}
"""What of a store takes no tenant, as it is no caller's affair: to open it, and to look after the work of all."""


def test_no_call_of_the_store_can_be_made_without_a_tenant():
    unowned = set()
    for name, method in inspect.getmembers(Store, inspect.isfunction):
        if name.startswith("_"):
            continue
        _self, *parameters = inspect.signature(method).parameters.values()
        first = parameters[0] if parameters else inspect.Parameter("nothing", inspect.Parameter.KEYWORD_ONLY)
        owner = get_type_hints(method).get(first.name) if first.default is first.empty else None
        if not (owner in (Claim, Sequence[Claim]) or (owner is str and first.name == "tenant")):
            unowned.add(name)

    assert unowned == SERVES_THE_NODE


KEYS = {"alice": "sk-alice-0123456789abcdef", "bob": "sk-bob-0123456789abcdef"}
ITEM = {"type": "message", "role": "user", "content": "Mine"}


@pytest.fixture(scope="module")
def shared():
    with antiphon(api_keys=KEYS) as server:
        yield server


@pytest.fixture
async def alice(shared):
    async with shared.http(headers=bearer(KEYS["alice"])) as http:
        yield http


@pytest.fixture
async def bob(shared):
    async with shared.http(headers=bearer(KEYS["bob"])) as http:
        yield http


@pytest.fixture
async def owned(alice):
    """What alice has, by what stands for it in the requests below."""
    response = await created(alice, "text")
    conversation = (await alice.post("/conversations", json={"items": [ITEM]})).json()
    items = (await alice.get(f"/conversations/{conversation['id']}/items")).json()
    prompt = (await alice.post("/prompts", json={"template": {"instructions": "Be mine."}})).json()
    return {
        "RESPONSE": response["id"],
        "MESSAGE": response["output"][0]["id"],
        "CONVERSATION": conversation["id"],
        "ITEM": items["data"][0]["id"],
        "PROMPT": prompt["id"],
    }


class TestAnotherTenant:
    """What belongs to another tenant is exactly as unknown as what never was: status, body and headers."""

    @pytest.mark.parametrize(
        ("method", "path", "body"),
        [
            ("GET", "/responses/RESPONSE", None),
            ("GET", "/responses/RESPONSE?stream=true&starting_after=0", None),
            ("GET", "/responses/RESPONSE/input_items", None),
            ("POST", "/responses/RESPONSE/cancel", None),
            ("DELETE", "/responses/RESPONSE", None),
            ("GET", "/responses?after=RESPONSE", None),
            ("POST", "/responses", {**OK, "previous_response_id": "RESPONSE"}),
            ("POST", "/responses", {**OK, "input": [{"type": "item_reference", "id": "MESSAGE"}]}),
            ("POST", "/responses", {**OK, "conversation": "CONVERSATION"}),
            ("POST", "/responses", {**OK, "prompt": {"id": "PROMPT"}}),
            ("POST", "/responses/input_tokens", {"model": "text", "previous_response_id": "RESPONSE"}),
            ("POST", "/responses/compact", {"model": "text", "previous_response_id": "RESPONSE"}),
            ("GET", "/conversations/CONVERSATION", None),
            ("POST", "/conversations/CONVERSATION", {"metadata": {}}),
            ("DELETE", "/conversations/CONVERSATION", None),
            ("GET", "/conversations/CONVERSATION/items", None),
            ("POST", "/conversations/CONVERSATION/items", {"items": [ITEM]}),
            ("GET", "/conversations/CONVERSATION/items?after=ITEM", None),
            ("GET", "/conversations/CONVERSATION/items/ITEM", None),
            ("DELETE", "/conversations/CONVERSATION/items/ITEM", None),
            ("GET", "/prompts/PROMPT", None),
            ("GET", "/prompts?after=PROMPT", None),
            ("DELETE", "/prompts/PROMPT", None),
        ],
    )
    async def test_is_as_unknown_as_nobody(self, alice, bob, owned, method, path, body):
        never = {name: id[:-6] + "000000" for name, id in owned.items()}

        async def asked(ids):
            text = json.dumps([path, body])
            for name, id in ids.items():
                text = text.replace(name, id)
            where, sent = json.loads(text)
            answer = await bob.request(method, where, json=sent)
            said = answer.text
            for name, id in ids.items():
                said = said.replace(id, name)
            headers = {name: value for name, value in answer.headers.items() if name not in ("x-request-id", "date")}
            return answer.status_code, said, headers

        foreign, unknown = await asked(owned), await asked(never)

        assert foreign == unknown
        assert foreign[0] in (400, 404)
        assert (await alice.get(f"/responses/{owned['RESPONSE']}")).status_code == 200
        assert (await alice.get(f"/conversations/{owned['CONVERSATION']}")).status_code == 200
        assert (await alice.get(f"/prompts/{owned['PROMPT']}")).status_code == 200

    @pytest.mark.parametrize("path", ["/responses", "/prompts"])
    async def test_has_nothing_in_the_lists(self, bob, owned, path):
        assert not {each["id"] for each in (await bob.get(path)).json()["data"]} & set(owned.values())

    async def test_may_use_the_same_idempotency_key(self, alice, bob):
        key = {"idempotency-key": "the-same"}
        first = await alice.post("/responses", json=OK, headers=key)
        other = await bob.post("/responses", json={**OK, "input": "Something else"}, headers=key)

        assert other.status_code == 200
        assert other.json()["id"] != first.json()["id"]

    async def test_cannot_open_what_was_sealed(self, alice, bob):
        asked = {"include": ["reasoning.encrypted_content"], "store": False}
        reasoning, *said = (await created(alice, "reasoning", **asked))["output"]
        sealed = reasoning["encrypted_content"]

        async def sent(http, content):
            item = {**reasoning, "encrypted_content": content}
            answer = await http.post("/responses", json={**OK, "input": [item, *said, ITEM]})
            return answer.status_code, answer.text

        assert (await sent(alice, sealed))[0] == 200
        assert await sent(bob, sealed) == await sent(bob, sealed[:-4] + "AAAA")
        assert (await sent(bob, sealed))[0] == 400
