"""Lists page by page: which operations are lists, how each goes on, and what a page does with servers of all kinds."""

import asyncio
import copy
import json
import pickle
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from antiphon.client import AsyncClient, Client
from antiphon.client.pages import AsyncPage, Page, listing
from antiphon.errors import AntiphonError, NotFound, ProtocolError, ServerError
from antiphon.spec import Document, Operation
from tests.servers.api import ApiServer, Door, Exchange, error, hang, reply
from tests.servers.running import serve

DOCUMENT = Document.load()

# What is sent for the next page, and what a page says for it.
FORMS = {
    "after = last_id": """
        listAssistants listVoiceConsents listBatches listChatCompletions getChatCompletionMessages ListContainers
        ListContainerFiles listConversationItems listEvals getEvalRuns getEvalRunOutputItems listFiles
        listFineTuningCheckpointPermissions listFineTuningJobCheckpoints admin-api-keys-list list-audit-logs
        listOrganizationCertificates list-invites list-projects list-project-api-keys listProjectCertificates
        list-project-rate-limits list-project-service-accounts list-project-spend-alerts list-project-users
        list-organization-spend-alerts list-users listInputItems listMessages listRuns listRunSteps listVectorStores
        listFilesInVectorStoreBatch listVectorStoreFiles ListVideos ListSkills ListSkillVersions
        ListThreadItemsMethod ListThreadsMethod listResponses listPrompts
    """,
    "after = id of the last item": "listPaginatedFineTuningJobs listFineTuningEvents",
    "after = next": """
        list-groups list-group-role-assignments list-group-users list-project-groups list-roles
        list-user-role-assignments list-project-group-role-assignments list-project-roles
        list-project-user-role-assignments
    """,
    "page = next_page": """
        usage-costs usage-audio-speeches usage-audio-transcriptions usage-code-interpreter-sessions usage-completions
        usage-embeddings usage-file-search-calls usage-images usage-moderations usage-vector-stores
        usage-web-search-calls
    """,
    "no cursor": "listModels retrieveVectorStoreFileContent",
}
# Lists that can also be asked for what stands before an item.
BACKWARD = """
    listAssistants list-audit-logs list-project-rate-limits list-project-spend-alerts list-organization-spend-alerts
    listMessages listRuns listRunSteps listVectorStores listFilesInVectorStoreBatch listVectorStoreFiles
    ListThreadItemsMethod ListThreadsMethod
"""


@dataclass
class Shelf:
    """A list of a server, given page by page as the real one does; `changes` are made to every page."""

    names: str
    form: str = "last_id"
    size: int = 20  # of a page, unless the request has a limit
    changes: dict[str, Any] = field(default_factory=dict)

    async def __call__(self, exchange: Exchange) -> None:
        page = {**self.page(dict(exchange.query)), **self.changes}
        await reply(body={key: value for key, value in page.items() if value is not ...})(exchange)

    def page(self, query: dict[str, str]) -> dict[str, Any]:
        names = self.names[::-1] if query.get("order") == "desc" else self.names
        size = int(query.get("limit", self.size))
        start = names.index(query["after"]) + 1 if "after" in query else int(query.get("page", "page_0")[5:])
        end = start + size
        if "before" in query:
            end = names.index(query["before"])
            start = max(0, end - size)
        here, more = names[start:end], end < len(names) if "before" not in query else start > 0
        items = [{"id": name, "object": "thing"} for name in here]
        return {"object": "list", "data": items, "has_more": more, **self._cursor(here, end, more)}

    def _cursor(self, here: str, end: int, more: bool) -> dict[str, Any]:
        first, last = (here[0], here[-1]) if here else (None, None)
        return {
            "last_id": {"first_id": first, "last_id": last},
            "next": {"next": last if more else None},
            "next_page": {"next_page": f"page_{end}" if more else None},
            "id": {},
        }[self.form]


@pytest.fixture
def server():
    return ApiServer()


@pytest.fixture(scope="module")
def door() -> Iterator[tuple[Door, str]]:
    door = Door()
    with serve(door) as url:
        yield door, url + "/v1"


@pytest.fixture(params=["app", "socket"])
def place(request, server, door) -> dict[str, Any]:
    """Where a client finds the server: in this process, or behind a real socket."""
    if request.param == "app":
        return {"app": server}
    door, url = door
    door.server = server
    return {"base_url": url, "api_key": "sk-test"}


@pytest.fixture(params=["sync", "async"])
def walk(request, place):
    """Goes through a list with each kind of client: gives the ids of its items, and the error that ended it."""

    def walk(operation: str, **arguments: Any) -> tuple[str, AntiphonError | None]:
        names: list[str] = []
        try:
            if request.param == "sync":
                read(operation, arguments, names)
            else:
                asyncio.run(read_async(operation, arguments, names))
        except AntiphonError as error:
            return "".join(names), error
        return "".join(names), None

    def read(operation: str, arguments: dict[str, Any], names: list[str]) -> None:
        with Client(**place, max_retries=0) as client:
            for item in client.call(operation, **arguments).all():
                names += item["id"]

    async def read_async(operation: str, arguments: dict[str, Any], names: list[str]) -> None:
        async with AsyncClient(**place, max_retries=0) as client:
            coming: Any = client.call(operation, **arguments)
            async for item in coming.all():
                names += item["id"]

    return walk


@pytest.fixture
def client(server):
    with Client(app=server, max_retries=0) as client:
        yield client


def ids(page: dict[str, Any]) -> str:
    return "".join(item["id"] for item in page["data"])


def asked(server: ApiServer, name: str) -> list[str | None]:
    """The value of a query parameter in each request."""
    return [dict(request.query).get(name) for request in server.requests]


# What the description says.


def form_of(operation: Operation) -> str | None:
    found = listing(operation)
    if found is None:
        return None
    if found.forward is None:
        return "no cursor"
    return f"{found.forward.parameter} = {found.forward.key or 'id of the last item'}"


def test_every_list_of_the_document_is_known_with_its_form():
    found = defaultdict(set)
    for operation in DOCUMENT.operations.values():
        found[form_of(operation)].add(operation.id)

    assert {form: found[form] for form in FORMS} == {form: set(names.split()) for form, names in FORMS.items()}
    assert found.keys() == {*FORMS, None}


def test_the_lists_that_can_be_followed_backwards_are_known():
    found = {each.id: listing(each) for each in DOCUMENT.operations.values()}

    assert {name for name, each in found.items() if each and each.backward} == set(BACKWARD.split())


def test_every_operation_with_a_cursor_is_a_list():
    """So that a form of a later document that is not in the table is noticed."""
    cursors = {"after", "before", "page", "cursor", "page_token", "offset"}
    for operation in DOCUMENT.operations.values():
        if cursors & {each.name for each in operation.parameters}:
            found = listing(operation)
            assert found is not None, operation.id
            assert found.items == "data"
            assert found.forward is not None


OTHER = {
    "openapi": "3.1.0",
    "info": {"title": "Other", "version": "1"},
    "servers": [{"url": "http://localhost/v1"}],
    "paths": {
        "/birds": {
            "get": {
                "operationId": "listBirds",
                "parameters": [{"name": "page", "in": "query", "schema": {"type": "integer"}}],
                "responses": {
                    "200": {"description": "OK", "content": {"application/json": {"schema": {
                        "type": "object",
                        "properties": {"birds": {"$ref": "#/components/schemas/Birds"}, "next_page": {}},
                    }}}},
                },
            },
        },
    },
    "components": {"schemas": {"Birds": {"type": "array", "items": {"type": "string"}}}},
}  # fmt: skip


def test_the_items_of_another_description_are_found(server, tmp_path):
    (tmp_path / "other.json").write_text(json.dumps(OTHER))
    server.plan += [
        reply(body={"birds": ["wren", "rook"], "next_page": 2}),
        reply(body={"birds": ["coot"], "next_page": None}),
    ]

    with Client(app=server, spec=tmp_path / "other.json") as client:
        assert list(client.list_birds().all()) == ["wren", "rook", "coot"]
    assert asked(server, "page") == [None, "2"]


# A page is the answer.


def test_a_page_is_the_answer_as_a_dict(client, server):
    body = {"object": "list", "data": [{"id": "a"}], "has_more": False}
    server.plan.append(reply(body=body))

    page = client.list_models()

    assert page == body
    assert isinstance(page, dict)
    assert page["data"] == [{"id": "a"}]
    assert list(page) == ["object", "data", "has_more"]
    assert json.loads(json.dumps(page)) == body
    assert repr(page) == repr(body)


def test_a_copy_of_a_page_is_a_plain_dict(client, server):
    server.plan.append(Shelf("abc"))
    page = client.list_files()

    for copied in (copy.copy(page), copy.deepcopy(page), pickle.loads(pickle.dumps(page)), dict(page)):
        assert copied == page
        assert type(copied) is dict


def test_an_answer_that_is_no_list_is_no_page(client, server):
    server.plan += [reply(body={"data": [], "has_more": True}), reply(body=[1]), reply()]

    assert type(client.retrieve_model(model="m")) is dict
    assert client.list_models() == [1]
    assert client.list_models() is None


async def test_an_async_call_is_still_a_coroutine(server):
    server.plan += [Shelf("abc")] * 3
    async with AsyncClient(app=server) as client:
        task = asyncio.create_task(client.list_files())
        pages = [await task, *await asyncio.gather(client.list_files(), client.call("listFiles"))]

    assert [type(page) for page in pages] == [AsyncPage] * 3
    assert [ids(page) for page in pages] == ["abc"] * 3


async def test_an_async_call_for_a_page_can_be_cancelled(server):
    begun = asyncio.Event()

    async def begin(exchange: Exchange) -> None:
        begun.set()
        await hang(exchange)

    server.plan.append(begin)
    async with AsyncClient(app=server) as client:
        task = asyncio.create_task(client.list_files())
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


# All items.


@pytest.mark.parametrize(
    ("operation", "form", "arguments"),
    [
        ("listFiles", "last_id", {}),
        ("listInputItems", "last_id", {"response_id": "resp_1"}),
        ("listFineTuningEvents", "id", {"fine_tuning_job_id": "ftjob-1"}),
        ("list-groups", "next", {}),
        ("usage-costs", "next_page", {"start_time": 1700000000}),
    ],
)
@pytest.mark.parametrize("names", ["", "a", "abc", "abcdefgh"])
def test_all_items_come_in_order(walk, server, operation, form, arguments, names):
    server.plan += [Shelf(names, form=form)] * 5

    assert walk(operation, limit=3, **arguments) == (names, None)
    assert len(server.requests) == {"": 1, "a": 1, "abc": 1, "abcdefgh": 3}[names]


def test_each_page_is_asked_for_with_the_same_arguments(walk, server):
    server.plan += [Shelf("abcdef")] * 3

    names, _ = walk("listFiles", limit=2, order="desc", purpose="batch")

    assert names == "fedcba"
    assert [sorted(request.query) for request in server.requests] == [
        [("limit", "2"), ("order", "desc"), ("purpose", "batch")],
        [("after", "e"), ("limit", "2"), ("order", "desc"), ("purpose", "batch")],
        [("after", "c"), ("limit", "2"), ("order", "desc"), ("purpose", "batch")],
    ]


def test_a_walk_may_begin_in_the_middle(walk, server):
    server.plan += [Shelf("abcdef")] * 2

    assert walk("listFiles", limit=2, after="b") == ("cdef", None)
    assert asked(server, "after") == ["b", "d"]


def test_a_list_is_followed_backwards_from_an_item(walk, server):
    server.plan += [Shelf("abcdef")] * 3

    assert walk("listVectorStores", limit=2, before="f") == ("debca", None)
    assert asked(server, "before") == ["f", "d", "b"]
    assert asked(server, "after") == [None] * 3


def test_a_server_that_does_not_say_where_it_stands_is_asked_by_its_last_item(walk, server):
    server.plan += [Shelf("abcd", changes={"last_id": None, "first_id": ...})] * 2

    assert walk("listFiles", limit=2) == ("abcd", None)


def test_a_page_without_items_does_not_end_a_list_that_goes_on(walk, server):
    server.plan += [
        reply(body={"data": [], "has_more": True, "last_id": "b"}),
        reply(body={"data": [{"id": "c"}], "has_more": False, "last_id": "c"}),
    ]

    assert walk("listFiles") == ("c", None)
    assert asked(server, "after") == [None, "b"]


def test_no_items_may_be_null(walk, server):
    server.plan.append(reply(body={"data": None, "has_more": False}))

    assert walk("listFiles") == ("", None)


def test_a_list_without_a_cursor_is_one_page(walk, server):
    server.plan.append(reply(body={"data": [{"id": "a"}, {"id": "b"}]}))

    assert walk("listModels") == ("ab", None)


@pytest.mark.parametrize("names", ["", "ab", "abc"])
def test_a_server_that_does_not_say_whether_there_is_more_is_asked(walk, server, names):
    server.plan += [Shelf(names, changes={"has_more": ...})] * 3

    assert walk("listFiles", limit=2) == (names, None)


def test_a_server_without_pages_that_promises_nothing_is_read_once(walk, server):
    server.plan += [reply(body={"object": "list", "data": [{"id": "a"}, {"id": "b"}]})] * 2

    assert walk("listFiles") == ("ab", None)


# Servers that lie, and errors.


def test_a_list_that_does_not_go_on_is_an_error(walk, server):
    server.plan += [reply(body={"data": [{"id": "a"}, {"id": "b"}], "has_more": True, "last_id": "b"})] * 2

    names, failure = walk("listFiles")

    assert names == "ab"
    assert isinstance(failure, ProtocolError)
    assert "listFiles: the list does not go on: after='b' has been asked for, and the server" in str(failure)
    assert len(server.requests) == 2


@pytest.mark.parametrize(("operation", "key"), [("listFiles", "last_id"), ("usage-costs", "next_page")])
def test_a_list_that_goes_in_a_circle_is_an_error(walk, server, operation, key):
    circle = [reply(body={"data": [{"id": name}], "has_more": True, key: name}) for name in "abc"]
    server.plan += circle * 2
    needed = {"start_time": 1} if operation == "usage-costs" else {}

    names, failure = walk(operation, **needed)

    assert names == "abc"
    assert isinstance(failure, ProtocolError)
    assert len(server.requests) == 4


@pytest.mark.parametrize(
    ("operation", "body", "said"),
    [
        ("listFiles", {"data": [], "has_more": True}, "there is more, but gives no 'last_id' to go on from"),
        ("listFiles", {"data": [7], "has_more": True, "last_id": {}}, "gives no 'last_id'"),
        ("listPaginatedFineTuningJobs", {"data": [{}], "has_more": True}, "gives no item with an id"),
        ("list-groups", {"data": [{"id": "a"}], "has_more": True, "next": None}, "gives no 'next'"),
        ("listModels", {"data": [], "has_more": True}, "the API description has no parameter to ask for it"),
        ("listFiles", {"data": {"id": "a"}}, "'data' of the answer is no list"),
    ],
)
def test_a_page_that_makes_no_sense_is_told(client, server, operation, body, said):
    server.plan.append(reply(body=body))
    page = client.call(operation)

    with pytest.raises(ProtocolError, match=f"{operation}: .*{said}"):
        list(page.pages())
    assert len(server.requests) == 1


def test_a_next_page_that_is_none_is_told(walk, server):
    server.plan += [Shelf("abcd"), reply(body=[])]

    names, failure = walk("listFiles", limit=2)

    assert names == "ab"
    assert str(failure) == "listFiles: the server's answer is no page of a list."


def test_an_error_in_the_middle_goes_out_after_the_items_before_it(walk, server):
    server.plan += [Shelf("abcd"), error(404, "There is no such item.")]

    names, failure = walk("listFiles", limit=2)

    assert names == "ab"
    assert isinstance(failure, NotFound)


def test_after_an_error_a_page_can_be_asked_again_for_the_next(client, server):
    server.plan += [Shelf("abcd"), error(500), Shelf("abcd")]
    page = client.list_files(limit=2)

    with pytest.raises(ServerError):
        page.next()
    assert ids(page.next()) == "cd"


def test_a_failure_that_passes_is_not_noticed(server):
    server.plan += [Shelf("abcd"), error(500, headers={"retry-after-ms": "1"}), Shelf("abcd")]

    with Client(app=server) as client:
        assert "".join(item["id"] for item in client.list_files(limit=2).all()) == "abcd"


# Page by page.


async def test_what_follows_is_asked_for_by_the_client_that_was_asked(server):
    server.plan += [Shelf("abcd")] * 4
    with Client(app=server) as client:
        pages = client.with_options(default_headers={"x-who": "me"}).list_files(limit=2).pages()
        assert [ids(page) for page in pages] == ["ab", "cd"]
    async with AsyncClient(app=server) as client:
        coming = client.with_options(default_headers={"x-who": "me"}).list_files(limit=2)
        assert [item["id"] async for item in coming.all()] == [*"abcd"]

    assert [request.headers["x-who"] for request in server.requests] == ["me"] * 4


def test_pages_are_asked_for_when_they_are_reached(client, server):
    server.plan += [Shelf("abcdef")] * 3

    items = client.list_files(limit=2).all()
    requests = [(next(items)["id"], len(server.requests)) for _ in range(4)]

    assert requests == [("a", 1), ("b", 1), ("c", 2), ("d", 2)]


def test_the_last_page_has_no_next(client, server):
    server.plan += [Shelf("abc")] * 2

    first = client.list_files(limit=2)
    second = first.next()

    assert (first.has_next, ids(first)) == (True, "ab")
    assert (second.has_next, ids(second)) == (False, "c")
    assert second.next() is None
    assert [type(page) for page in (first, second)] == [Page, Page]
    assert len(server.requests) == 2


def test_pages_can_be_gone_through_again(client, server):
    server.plan += [Shelf("abcde")] * 5
    page = client.list_files(limit=2)

    assert [[ids(each) for each in page.pages()] for _ in range(2)] == [["ab", "cd", "e"]] * 2


async def test_async_pages_can_be_taken_one_by_one(server):
    server.plan += [Shelf("abc")] * 3
    async with AsyncClient(app=server) as client:
        first = await client.list_files(limit=2)
        second = await first.next()
        assert second is not None

        assert [ids(page) async for page in first.pages()] == ["ab", "c"]
    assert await second.next() is None


async def test_async_items_are_asked_for_when_they_are_reached(server):
    server.plan += [Shelf("abcdef")] * 3
    async with AsyncClient(app=server) as client:
        items = client.list_files(limit=2).all()
        before = len(server.requests)
        requests = [((await anext(items))["id"], len(server.requests)) for _ in range(3)]
        await items.aclose()

    assert before == 0
    assert requests == [("a", 1), ("b", 1), ("c", 2)]
