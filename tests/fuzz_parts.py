"""Random and broken input for the parts that read what others write: `make fuzz`, beside the requests of fuzz_api.py.

Each part has a promise below, as a test of hypothesis: whatever comes in, it answers or raises what it documents. They
run in turn until the time is over; where atheris is installed, it looks for inputs by what code they reach.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import subprocess
import sys
import time
from contextlib import suppress
from importlib.util import find_spec
from itertools import pairwise
from typing import Any

import msgspec
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from antiphon.engine.models.chat_reader import ChatReader
from antiphon.engine.models.responses_reader import ResponsesReader
from antiphon.errors import BadRequest, DocumentError, ModelError, ProtocolError
from antiphon.protocol import sse
from antiphon.protocol.transcript import Transcript
from antiphon.server.request import check_body, decode_json
from antiphon.spec import overlay
from tests.logs import Json, logs, spoiled, values
from tests.servers.antiphon import document
from tests.test_answer import Log, Scripted, check

EXAMPLES = 300  # of one part in a turn, as long as hypothesis looks at them alone


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    """The bytes, cut at these places."""
    places = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    return [data[start:end] for start, end in pairwise(places)]


cuts = st.lists(st.integers(0, 10_000), max_size=8)

# The decoder of event streams

lines = st.sampled_from(
    [
        b"data: x", b"data:", b"data", b"data:  y", b"event: e", b"event", b"id: 1", b"id: \0", b":c", b"retry: 1", b"",
        b"\xef\xbb\xbf", b"\xff\xfe", b"DATA: z", b"data: {}", b"data: [DONE]", b"x" * 70,
    ]
) | st.binary(max_size=6)  # fmt: skip
streams = st.lists(st.tuples(lines, st.sampled_from([b"\n", b"\r", b"\r\n", b""])), max_size=12).map(
    lambda parts: b"".join(line + end for line, end in parts)
)


@given(streams, cuts, st.sampled_from([1 << 20, 60]))
def decoder(data: bytes, at: list[int], limit: int) -> None:
    """However a stream is cut, its messages are the same; only what is too long is refused."""

    def read(parts: list[bytes]) -> Json:
        decoder = sse.Decoder(limit_bytes=limit)
        messages = []
        try:
            for part in parts:
                messages += decoder.feed(part)
            return messages + decoder.close()
        except ProtocolError:
            return None

    assert limit < 1 << 20 or read([data]) == read(pieces(data, at)) is not None
    read(pieces(data, at))


# The fold


@given(logs().flatmap(spoiled), st.randoms(use_true_random=False))
def fold(events: list[Json], choose: Any) -> None:
    """Whatever of a log is spoiled, missing, said twice or out of its order is refused, or taken; what was refused has
    changed nothing, and what was taken can be read.
    """
    said = [event for event in events for _ in range(choose.choice([0, 1, 1, 1, 1, 1, 2]))]
    if said and choose.random() < 0.5:
        said.insert(0, said.pop(choose.randrange(len(said))))
    transcript = Transcript()
    for event in said:
        if choose.random() < 0.7 and isinstance(event, dict):
            event = {**event, "sequence_number": transcript.sequence_number + 1}
        before = json.dumps(transcript.response)
        try:
            transcript.read(event)
        except ProtocolError:
            assert json.dumps(transcript.response) == before


# The readers of what model servers say, up to the log that is made of it


def read_out(reader: Any, data: bytes, at: list[int]) -> list[Any]:
    """The pieces of a turn, and at their end how it failed if it did; nothing else may be raised."""
    batches: list[Any] = []
    for piece in pieces(data, at):
        batches.append(reader.feed(piece))
        if reader.failure is not None:
            return [*filter(None, batches), reader.failure]
    try:
        batches.append(reader.close())
    except ModelError as failure:
        batches.append(failure)
    return [batch for batch in batches if batch]


def answered(batches: list[Any]) -> Log:
    """The log that is made of it."""
    with asyncio.Runner() as runner:
        return runner.run(Log().answer(Scripted(*batches)))


CALL = {"index": 0, "id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
LOGPROBS = {"content": [{"token": "a", "logprob": -0.5, "top_logprobs": [{"token": "b", "logprob": -1}]}]}
DETAILS = {"prompt_tokens_details": {"cached_tokens": 1}, "completion_tokens_details": {"reasoning_tokens": 1}}
CHUNKS: list[Json] = [
    {"choices": [{"delta": {"content": "Hi", "role": "assistant"}, "logprobs": LOGPROBS, "finish_reason": None}]},
    {"choices": [{"delta": {"reasoning_content": "Hm", "reasoning": "Hm", "refusal": None}}]},
    {"choices": [{"delta": {"tool_calls": [CALL, {"index": 1, "function": {"name": "g", "arguments": {}}}]}}]},
    {"choices": [{"message": {"function_call": {"name": "f", "arguments": "{}"}}}]},
    {"choices": [{"delta": {}, "finish_reason": "stop"}]},
    {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 2, **DETAILS}},
    {"choices": [], "timings": {"cache_n": 1, "prompt_n": 2, "predicted_n": 3}},
    {"error": {"message": "No", "type": "server_error", "code": None, "param": None}},
    {"object": "error", "message": "No", "code": 500},
]
chunks = st.lists(st.sampled_from(CHUNKS), max_size=6).flatmap(spoiled)


def framed(events: list[Json], end: bytes) -> bytes:
    return b"".join(b"data: " + json.dumps(event).encode() + b"\n\n" for event in events) + end


@given(chunks, cuts, st.sampled_from([b"", b"data: [DONE]\n\n", b"data: {", b"\xff"]))
def chat_reader(said: list[Json], at: list[int], end: bytes) -> None:
    """Whatever comes as a chunk, the log is whole at the end."""
    check(answered(read_out(ChatReader(), framed(said, end), at)))


@given(st.sampled_from(CHUNKS).flatmap(spoiled))
def chat_reader_whole(said: Json) -> None:
    with suppress(ModelError):
        check(answered([ChatReader().whole(json.dumps(said).encode())]))


@given(logs().flatmap(spoiled), cuts, st.sampled_from([b"", b"data: [DONE]\n\n", b"event: error\ndata: {}\n\n"]))
def responses_reader(said: list[Json], at: list[int], end: bytes) -> None:
    """Whatever comes as an event, the log can be folded again; what an item is made of is carried as it came."""
    log = answered(read_out(ResponsesReader(), framed(said, end), at))
    assert log.transcript().closed
    assert log.transcript().output == log.response["output"]
    msgspec.json.encode(log.events)


# The validator

BODY = {
    "model": "m",
    "input": [{"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Hi"}]}],
    "tools": [{"type": "function", "name": "f", "parameters": {"type": "object"}, "strict": True}],
    "tool_choice": {"type": "function", "name": "f"},
    "text": {"format": {"type": "json_schema", "name": "n", "schema": {}}, "verbosity": "low"},
    "reasoning": {"effort": "low", "summary": "auto"},
    "metadata": {"k": "v"},
    "include": ["message.output_text.logprobs"],
    "temperature": 0.5,
    "prompt": {"id": "pmpt_1", "variables": {"a": "b"}},
}


@given(spoiled(BODY) | values)
def validator(body: Json) -> None:
    """A body is right, or there is a fault that can be told; looking for it fails never."""
    operation = document().operation("createResponse")
    assert operation.body is not None
    schema = operation.body.media["application/json"].strict(lenient=("input", "items"))
    assert schema.valid(body) == (not schema.problems(body))
    with suppress(BadRequest):
        check_body(operation, body)


@given(st.binary(max_size=60) | values.map(lambda value: json.dumps(value).encode()), st.integers(1, 4))
def json_text(raw: bytes, depth: int) -> None:
    """A JSON text is its value, or refused."""
    with suppress(BadRequest):
        assert decode_json(raw, max_depth=depth) == json.loads(raw)


# The overlay

DOCUMENT = {"a": {"b": 1, "c d": [1, "x", {"k": "v"}]}, "list": ["x", "y", "x", {"k": "v"}, {"k": {}}]}
steps = st.sampled_from(
    [
        ".a", ".b", "['c d']", "['a', 'list']", ".list", "[*]", "[0]", "[99]", "[?@ == 'x']", "[?@['k'] == 'v']",
        "[?@ in ['x', 'y']]", "[", "'", "..", "[-1]",
    ]
) | st.text(max_size=4)  # fmt: skip
targets = st.lists(steps, max_size=4).map(lambda each: "$" + "".join(each)) | st.text(max_size=6)
ACTIONS = [{"target": "$.a", "description": "why", "update": {"b": 2}}, {"target": "$.list[0]", "remove": True}]


CHANGES = st.sampled_from([{"remove": True}, {"update": 1}, {"update": {"b": []}}, {"update": ["z"]}])


@given(st.lists(st.tuples(targets, CHANGES), max_size=4))
def overlay_applied(changes: list[tuple[str, Json]]) -> None:
    """What a target does not match is refused, in words."""
    actions = [overlay.Action(target=target, description="", **change) for target, change in changes]
    with suppress(DocumentError):
        overlay.apply(json.loads(json.dumps(DOCUMENT)), actions)


@given(spoiled({"overlay": "1.0.0", "actions": ACTIONS}) | values)
def overlay_read(text: Json) -> None:
    """A file is an overlay, or refused."""
    with suppress(DocumentError):
        overlay.parse(json.dumps(text).encode())


PARTS: tuple[Any, ...] = (
    decoder, fold, chat_reader, chat_reader_whole, responses_reader, validator, json_text, overlay_applied,
    overlay_read,
)  # fmt: skip
for part in PARTS:
    settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )(part)


# The modules have to be imported under its eyes.
GUIDED = """
import logging, sys
import atheris
with atheris.instrument_imports(include=["antiphon"]):
    from tests import fuzz_parts
logging.disable(logging.WARNING)
name, seconds, seed = sys.argv[1:]
flags = [f"-max_total_time={seconds}", f"-seed={seed}", "-rss_limit_mb=2048", "-timeout=20"]
atheris.Setup([name, *flags], getattr(fuzz_parts, name).hypothesis.fuzz_one_input)
atheris.Fuzz()
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], prog="python -m tests.fuzz_parts")
    parser.add_argument("--seconds", type=float, default=60, help="for all parts together")
    parser.add_argument("--only", choices=[part.__name__ for part in PARTS], help="one part")
    parser.add_argument("--seed", type=int, default=time.time_ns() % 10**9, help="the inputs of a run that told it")
    options = parser.parse_args()
    logging.disable(logging.WARNING)  # what is left out of a foreign answer is told there, each time
    parts = [part for part in PARTS if options.only in (None, part.__name__)]
    atheris = find_spec("atheris") is not None  # it has no package for every platform and Python
    sys.stderr.write(f"seed {options.seed}{'' if atheris else ', without atheris'}\n")
    shares = 2 if atheris else 1
    random_parts(parts, options.seconds / shares, options.seed)
    share = options.seconds / shares / len(parts)
    return max(run_guided(part, share, options.seed) for part in parts) if atheris else 0


def random_parts(parts: list[Any], seconds: float, first_seed: int) -> None:
    """Let hypothesis look at each part in turn until the time is over. Raises what is found."""
    end = time.monotonic() + seconds
    turn = 0
    while turn == 0 or time.monotonic() < end:
        for part in parts:
            seed(first_seed + turn)(part)()
        turn += 1
    sys.stderr.write(f"{turn * EXAMPLES} random inputs of each part\n")


def run_guided(part: Any, seconds: float, first_seed: int) -> int:
    """What is found with atheris, which never gives its process back."""
    command = [sys.executable, "-c", GUIDED, part.__name__, str(max(1, int(seconds))), str(first_seed)]
    done = subprocess.run(command, check=False, stderr=subprocess.PIPE, text=True)
    runs = [line for line in done.stderr.splitlines() if line.startswith("Done ")]
    sys.stderr.write(f"{part.__name__}: {done.stderr[-5000:] if done.returncode else ' '.join(runs)}\n")
    return 1 if done.returncode else 0


if __name__ == "__main__":
    sys.exit(main())
