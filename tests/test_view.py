"""What a caller sees: nothing hidden slips through, nothing shown is lost, and the padding follows the API's rule."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from antiphon.protocol import view
from antiphon.protocol.sse import encode

LOGPROBS = [{"token": "a", "logprob": -0.1, "bytes": [97], "top_logprobs": []}]


def delta(text: str, number: int) -> dict:
    place = {"item_id": "msg_1", "output_index": 0, "content_index": 0}
    return {"type": "response.output_text.delta", **place, "delta": text, "logprobs": [], "sequence_number": number}


def frame(event: dict) -> bytes:
    return view.frames([event])


def read(frames: bytes) -> list[dict]:
    return [json.loads(frame.split(b"\ndata: ", 1)[1]) for frame in frames.split(b"\n\n")[:-1]]


@given(st.text(max_size=40), st.integers(0, 10**6))
def test_delta_and_padding_are_together_a_multiple_of_16(text: str, number: int):
    (event,) = read(frame(delta(text, number)))

    assert (len(text) + len(event["obfuscation"])) % 16 == 0
    assert len(event["obfuscation"]) < 16
    assert re.fullmatch("[A-Za-z0-9]*", event["obfuscation"])


@given(st.lists(st.text(max_size=40), min_size=1, max_size=20), st.booleans())
def test_frames_made_together_are_those_made_one_by_one(texts: list[str], mixed: bool):
    events = [delta(text, number) for number, text in enumerate(texts)]
    if mixed:
        events.append({"type": "error", "message": "a\nb", "sequence_number": len(events)})

    assert view.frames([dict(event) for event in events]) == b"".join(frame(dict(event)) for event in events)


@given(st.lists(st.text(max_size=40), max_size=20))
def test_without_padding_a_frame_is_as_if_it_never_had_any(texts: list[str]):
    frames = b"".join(frame(delta(text, number)) for number, text in enumerate(texts))

    shown = view.show_frames(frames, mask=0, see=0, padded=False)

    assert shown == b"".join(encode(delta(text, number)) for number, text in enumerate(texts))


def test_an_object_of_the_user_that_looks_like_padding_stays():
    mine = {"obfuscation": "abc", "sequence_number": 3}
    event = {"type": "response.created", "response": {"metadata": mine, "output": []}, "sequence_number": 0}
    text = json.dumps(mine) + ',"obfuscation":"abc","sequence_number":1}\n\n'

    for each in (event, delta(text, 7)):
        assert view.show_frames(frame(dict(each)), mask=0, see=0, padded=False) == encode(each)


def test_only_text_deltas_are_padded():
    for event in (
        {"type": "response.shell_call_output_content.delta", "delta": {"stdout": "x"}, "sequence_number": 1},
        {"type": "response.output_text.done", "text": "x", "sequence_number": 1},
    ):
        assert frame(event) == encode(event)


HIDDEN: dict[str, dict[str, Any]] = {
    "message.output_text.logprobs": {
        "type": "message",
        "content": [{"type": "output_text", "text": "a", "annotations": [], "logprobs": LOGPROBS}],
    },
    "reasoning.encrypted_content": {"type": "reasoning", "summary": [], "encrypted_content": "secret"},
    "file_search_call.results": {"type": "file_search_call", "results": [{"text": "secret"}]},
    "web_search_call.results": {"type": "web_search_call", "results": [{"text": "secret"}]},
    "web_search_call.action.sources": {"type": "web_search_call", "action": {"type": "search", "sources": ["secret"]}},
    "code_interpreter_call.outputs": {"type": "code_interpreter_call", "outputs": [{"logs": "secret"}]},
    "computer_call_output.output.image_url": {
        "type": "computer_call_output",
        "output": {"type": "computer_screenshot", "image_url": "secret"},
    },
    "message.input_image.image_url": {
        "type": "message",
        "content": [{"type": "input_image", "image_url": "secret", "detail": "auto"}],
    },
}


def test_every_include_value_has_its_case_here():
    assert set(HIDDEN) == set(view.INCLUDES)


@pytest.mark.parametrize("include", HIDDEN)
def test_what_is_not_included_is_hidden_and_what_is_included_is_shown(include: str):
    item = {"id": "x_1", **HIDDEN[include]}
    event = {"type": "response.output_item.done", "output_index": 0, "item": item, "sequence_number": 0}
    terminal: dict[str, Any] = {
        "type": "response.completed",
        "response": {"id": "resp_1", "output": [item]},
        "sequence_number": 1,
    }
    frames = frame(event) + frame(terminal)
    mask = view.mask(event) | view.mask(terminal)
    others = view.allowed([value for value in HIDDEN if value != include])

    assert view.show_frames(frames, mask=mask, see=view.allowed([include]), padded=True) == frames
    hidden = view.show_frames(frames, mask=mask, see=others, padded=True)
    assert b"secret" not in hidden
    assert b"bytes" not in hidden
    assert [event["sequence_number"] for event in read(hidden)] == [0, 1]
    assert "secret" not in json.dumps(view.show_response(terminal["response"], others))


def test_logprobs_are_hidden_in_every_event_that_has_them():
    place = {"item_id": "msg_1", "output_index": 0, "content_index": 0}
    part = {"type": "output_text", "text": "a", "annotations": [], "logprobs": LOGPROBS}
    events = [
        {"type": "response.output_text.delta", **place, "delta": "a", "logprobs": LOGPROBS, "sequence_number": 0},
        {"type": "response.output_text.done", **place, "text": "a", "logprobs": LOGPROBS, "sequence_number": 1},
        {"type": "response.content_part.done", **place, "part": part, "sequence_number": 2},
    ]

    for event in events:
        kept, mask = frame(dict(event)), view.mask(event)
        assert view.show_frames(kept, mask=mask, see=mask, padded=True) == kept
        (shown,) = read(view.show_frames(kept, mask=mask, see=0, padded=True))
        assert (shown.get("part") or shown)["logprobs"] == []
        assert list(shown) == list(read(frame(dict(event)))[0])


def test_frames_that_hide_nothing_pass_as_the_same_bytes():
    frames = b"".join(frame(delta("x", number)) for number in range(5))

    assert view.show_frames(frames, mask=0, see=0, padded=True) is frames


@pytest.mark.parametrize("count", range(6))
def test_dropping_frames_leaves_the_rest(count: int):
    frames = [frame(delta("x\n\ny", number)) for number in range(5)]

    assert view.drop_frames(b"".join(frames), count) == b"".join(frames[count:])
