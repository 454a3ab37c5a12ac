"""A guided tour: a real server process, the embedded model, this client and the official SDK, side by side.

Each step is a function whose docstring is its title. What a step claims is checked where it is said, so the tour ends
well only if all of it is true. Nothing is expected of what the model says but that it says something.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import openai
from rich.console import Console
from rich.live import Live
from rich.panel import Panel
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from antiphon.client import Client
from antiphon.demo.child import Server
from antiphon.demo.relay import Relay
from antiphon.errors import AntiphonError, NotFound

DELTA = "response.output_text.delta"
CUT_AFTER_BYTES = 9_000  # the two snapshots at its beginning and some words: in the middle of a stream of 25,000
POLL_SECONDS = 0.1


class NotTrue(AntiphonError):
    """A claim of the tour does not hold."""


@dataclass
class Tour:
    """What the steps work with, and what the first of them left for the others."""

    console: Console
    server: Server
    ours: Client
    official: openai.OpenAI
    model: str = ""
    first: dict[str, Any] = field(default_factory=dict)  # the Response of the first step
    bytes_of_first: bytes = b""

    def holds(self, claim: str, truth: object) -> None:
        """Say what is true, or raise NotTrue."""
        if not truth:
            raise NotTrue(f"this does not hold: {claim}")
        self.console.print(Text.assemble(("  ✓ ", "green"), claim))

    def says(self, text: str) -> None:
        self.console.print(Text(f"  {text}", style="dim"))

    def quotes(self, text: str) -> None:
        self.console.print(Panel(Text(text.strip()), border_style="dim", expand=False))


def run() -> int:
    """The whole tour; the exit code is 0 if every claim holds."""
    console = Console(highlight=False)
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="antiphon-demo-") as directory, Server(Path(directory)) as server:
        try:
            with _tour(console, server) as tour:
                for number, step in enumerate(STEPS, 1):
                    console.print()
                    console.print(Rule(f"{number}. {(step.__doc__ or '').strip()}", align="left"))
                    step(tour)
        except (AntiphonError, openai.OpenAIError, httpx2.HTTPError) as failure:
            console.print(Text.assemble(("  ✗ ", "red"), f"{type(failure).__name__}: {failure}"))
            console.print(Text(f"The server's last words:\n{server.last_words()}", style="dim"))
            return 1
    console.print(f"\nEverything held, in {time.monotonic() - began:.0f} seconds.")
    return 0


@contextmanager
def _tour(console: Console, server: Server) -> Iterator[Tour]:
    console.print("Starting a server with the embedded model ...")
    server.start()
    # A server without keys takes any; the official SDK will not start without one.
    with (
        Client(server.base_url, "no-key-needed") as ours,
        openai.OpenAI(base_url=server.base_url, api_key="no-key-needed", max_retries=0) as official,
    ):
        tour = Tour(console, server, ours, official)
        tour.model = ours.list_models()["data"][0]["id"]
        tour.says(f"{server.base_url} with {tour.model}, process {server.process.pid}, database {server.database}")
        yield tour


def two_clients_follow_one_log(tour: Tour) -> None:
    """One client creates a response, another follows it: two readers of one log"""
    seen: dict[str, list[Any]] = {"antiphon": [], "openai SDK": []}
    with Live(console=tour.console, refresh_per_second=20, get_renderable=lambda: _side_by_side(seen)) as live:
        with (
            ThreadPoolExecutor(1) as beside,
            tour.ours.create_response(
                model=tour.model,
                input="Tell me a short story about a lighthouse keeper.",
                max_output_tokens=80,
                stream=True,
            ) as stream,
        ):
            seen["antiphon"].append(next(stream))
            following = beside.submit(_follow, tour.official, str(stream.response_id), seen["openai SDK"])
            seen["antiphon"].extend(stream)
            following.result()
            final: Any = stream.response
            tour.first = final
        live.refresh()
    if not tour.console.is_terminal:
        tour.console.print()  # a live display leaves the line open there
    ours, official = seen.values()
    tour.holds(f"the events are numbered from 0 to {len(ours) - 1}", _numbers(ours) == list(range(len(ours))))
    tour.holds("both clients saw the same events, to the last field", ours == official)
    tour.holds("the final Response is what the deltas said", _text(tour.first) == _deltas(ours) != "")


def the_official_sdk_resumes_a_stream(tour: Tour) -> None:
    """The official SDK leaves a stream in the middle and comes back for the rest"""
    before: list[Any] = []
    with tour.official.responses.create(
        model=tour.model, input="Why do the tides come and go?", max_output_tokens=60, stream=True
    ) as stream:
        for event in stream:
            before.append(event.to_dict())
            if len(before) == 12:
                break
    after: list[Any] = []
    _follow(tour.official, before[0]["response"]["id"], after, starting_after=before[-1]["sequence_number"])
    tour.quotes(f"{_deltas(before)}▒▒▒{_deltas(after)}")
    numbers = _numbers(before + after)
    tour.holds("event 12 comes next: no gap and no repeat", after[0]["sequence_number"] == len(before))
    tour.holds(f"the two halves are one stream of {len(numbers)} events", numbers == list(range(len(numbers))))
    tour.holds("its end says what both halves said", _text(after[-1]["response"]) == _deltas(before + after))


def our_client_does_not_notice_a_cut(tour: Tour) -> None:
    """The connection breaks under our client, which goes on by itself"""
    question: dict[str, Any] = {"model": tour.model, "input": "Describe a storm at sea.", "max_output_tokens": 80}
    with (
        Relay(tour.server.port, cut_after_bytes=CUT_AFTER_BYTES) as relay,
        Client(relay.base_url) as client,
        client.create_response(**question, stream=True) as stream,
    ):
        events = list(stream)
        response = stream.response
    tour.quotes(_text(response))
    tour.says(f"The connection was cut after {CUT_AFTER_BYTES} bytes. The loop over the events has no line about it.")
    tour.holds("the connection was cut and made again", relay.connections == 2)
    tour.holds(f"all {len(events)} events came once and in order", _numbers(events) == list(range(len(events))))
    tour.holds("nothing is missing from the text", _text(response) == _deltas(events))


def a_background_response(tour: Tour) -> None:
    """A background response: nobody waits for it, somebody asks later"""
    begun = tour.official.responses.create(
        model=tour.model, input="Name three sea birds.", max_output_tokens=40, background=True
    )
    tour.holds("it is queued, and its id is known at once", begun.status == "queued")
    done = _polled(tour, begun.id)
    tour.quotes(_text(done))
    tour.holds("it came to its end with nobody connected", done["status"] in ("completed", "incomplete"))


def both_clients_retrieve(tour: Tour) -> None:
    """The first response, retrieved by both clients"""
    ours = tour.ours.get_response(response_id=tour.first["id"])
    official = tour.official.responses.retrieve(tour.first["id"])
    tour.holds("GET gives the Response that the stream ended with", ours == tour.first)
    tour.holds("the official SDK reads the same text in it", official.output_text == _text(tour.first))


def a_follow_up(tour: Tour) -> None:
    """A follow-up question by previous_response_id"""
    response = tour.official.responses.create(
        model=tour.model,
        input="Give that story a title.",
        previous_response_id=tour.first["id"],
        max_output_tokens=20,
    )
    tour.quotes(response.output_text)
    tour.holds("it names the response that it follows", response.previous_response_id == tour.first["id"])
    tour.holds(
        "the model was given the whole story again, question and answer",
        response.usage and response.usage.input_tokens > tour.first["usage"]["total_tokens"],
    )


def killed_and_started_again(tour: Tour) -> None:
    """The server is killed in the middle of a response, and started again"""
    tour.bytes_of_first = _raw_stream(tour)
    begun = tour.ours.create_response(
        model=tour.model, input="Write about whales.", max_output_tokens=120, background=True
    )
    with tour.ours.get_response(response_id=begun["id"], stream=True) as stream:
        before = [next(stream) for _ in range(12)]
    killed = tour.server.process.pid
    tour.server.kill()
    tour.says(f"Process {killed} is dead (SIGKILL). It had shown {len(before)} events of {begun['id']}.")
    tour.server.start()
    tour.says(f"Process {tour.server.process.pid} has the file now.")
    bytes_now = _raw_stream(tour)
    tour.holds(f"the first stream, {len(bytes_now)} bytes, is replayed byte for byte", bytes_now == tour.bytes_of_first)
    with tour.ours.get_response(response_id=begun["id"], stream=True) as stream:
        events: list[Any] = list(stream)
        response: Any = stream.until_done()
    tour.quotes(_text(response))
    tour.holds("what was shown before the kill is still so", events[: len(before)] == before)
    tour.holds("the unfinished response was taken up and finished", response["status"] in ("completed", "incomplete"))
    tour.holds(f"its {len(events)} events have no gap", _numbers(events) == list(range(len(events))))


def deleted(tour: Tour) -> None:
    """The first response is deleted, and gone for both clients"""
    tour.holds("DELETE says so", tour.ours.delete_response(response_id=tour.first["id"])["deleted"])
    tour.holds(
        "our client gets 404, a NotFound", _raises(NotFound, tour.ours.get_response, response_id=tour.first["id"])
    )
    tour.holds(
        "the official SDK gets 404, a NotFoundError",
        _raises(openai.NotFoundError, tour.official.responses.retrieve, tour.first["id"]),
    )


STEPS = (
    two_clients_follow_one_log,
    the_official_sdk_resumes_a_stream,
    our_client_does_not_notice_a_cut,
    a_background_response,
    both_clients_retrieve,
    a_follow_up,
    killed_and_started_again,
    deleted,
)


def _follow(official: openai.OpenAI, response_id: str, events: list[Any], *, starting_after: int | None = None) -> None:
    after: Any = openai.omit if starting_after is None else starting_after
    with official.responses.retrieve(response_id, stream=True, starting_after=after) as stream:
        events.extend(event.to_dict() for event in stream)


def _polled(tour: Tour, response_id: str) -> dict[str, Any]:
    for asked in range(1, 600):
        response: dict[str, Any] = {**tour.ours.get_response(response_id=response_id)}
        if response["status"] not in ("queued", "in_progress"):
            tour.says(f"Asked {asked} times, every {POLL_SECONDS:g} seconds.")
            return response
        time.sleep(POLL_SECONDS)
    raise NotTrue(f"{response_id} does not come to its end")


def _raw_stream(tour: Tour) -> bytes:
    answer = httpx2.get(f"{tour.server.base_url}/responses/{tour.first['id']}", params={"stream": "true"})
    return answer.raise_for_status().content


def _raises(expected: type[Exception], call: Callable[..., Any], *arguments: Any, **named: Any) -> bool:
    try:
        call(*arguments, **named)
    except expected:
        return True
    return False


def _numbers(events: list[Any]) -> list[int]:
    return [event["sequence_number"] for event in events]


def _deltas(events: list[Any]) -> str:
    return "".join(event["delta"] for event in events if event["type"] == DELTA)


def _text(response: Any) -> str:
    parts = [part for item in response["output"] for part in item.get("content") or ()]
    return "".join(part["text"] for part in parts if part["type"] == "output_text")


def _side_by_side(seen: dict[str, list[Any]]) -> Table:
    table = Table.grid(expand=True)
    for _ in seen:
        table.add_column(ratio=1)
    table.add_row(*(Panel(Text(_deltas(events).strip()), title=name, height=12) for name, events in seen.items()))
    return table
