"""The fold: what it makes of each event, that it does not matter who folds or where it was cut, and what it refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from antiphon.errors import Gap, IllegalEvent, ProtocolError
from antiphon.protocol.fold import CHANGES_NOTHING, FOLD
from antiphon.protocol.sse import Decoder
from antiphon.protocol.transcript import STATUS_OF, TERMINAL, Transcript
from antiphon.spec.document import Document
from tests.logs import SKELETON, logs, spoiled, values

TRANSCRIPTS = Path(__file__).with_name("transcripts")


def folded(events: list[dict[str, Any]]) -> Transcript:
    transcript = Transcript()
    for event in events:
        transcript.read(event)
    return transcript


def recorded(name: str) -> list[dict[str, Any]]:
    messages = Decoder().feed((TRANSCRIPTS / name).read_bytes())
    return [msgspec.json.decode(message.data) for message in messages]


def begun(*types: str) -> Transcript:
    transcript = Transcript(SKELETON)
    for type in ("response.created", "response.in_progress", *types):
        transcript.write(type)
    return transcript


MESSAGE = {"id": "msg_1", "type": "message", "role": "assistant", "status": "in_progress", "content": []}
TEXT = {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
PLACE = {"item_id": "msg_1", "output_index": 0, "content_index": 0}


def with_open_text() -> Transcript:
    transcript = begun()
    transcript.write("response.output_item.added", output_index=0, item=MESSAGE)
    transcript.write("response.content_part.added", **PLACE, part=TEXT)
    return transcript


def test_every_event_of_the_document_is_folded_or_listed_as_changing_nothing():
    known = {*FOLD, *CHANGES_NOTHING, *STATUS_OF, "response.output_item.added", "response.output_item.done"}

    assert set(Document.load().event_types) <= known
    assert known - set(Document.load().event_types) <= {"keepalive"}


@pytest.mark.parametrize("name", ["text.sse", "function_call.sse"])
def test_the_fold_of_a_recorded_stream_is_its_last_snapshot(name: str):
    events = recorded(name)

    transcript = folded(events[:-1])
    assert transcript.output == events[-1]["response"]["output"]
    transcript.read(events[-1])
    assert transcript.response == events[-1]["response"]


@given(logs())
def test_the_terminal_snapshot_equals_the_fold(events: list[dict[str, Any]]):
    assert folded(events[:-1]).output == events[-1]["response"]["output"]
    assert folded(events).response == events[-1]["response"]


@given(logs(), st.data())
def test_the_fold_of_a_prefix_goes_on_to_the_fold_of_the_whole(events: list[dict[str, Any]], data: st.DataObject):
    cut = data.draw(st.integers(0, len(events)))

    transcript = folded(events[:cut])
    assert transcript.output == folded(events[:cut]).output  # reading in between changes nothing
    for event in events[cut:]:
        transcript.read(event)

    assert transcript.response == folded(events).response


@given(logs(), st.data())
def test_a_number_that_does_not_come_next_is_a_gap_and_changes_nothing(
    events: list[dict[str, Any]], data: st.DataObject
):
    cut = data.draw(st.integers(0, len(events) - 1))
    transcript = folded(events[:cut])
    before = transcript.response

    for other in (cut - 1, cut + 1):
        with pytest.raises(Gap):
            transcript.read({**events[cut], "sequence_number": other})
    assert transcript.response == before
    transcript.read(events[cut])


def is_taken(transcript: Transcript, event: Any) -> bool:
    """Whether an event is taken; one that is refused must change nothing."""
    before = transcript.response, transcript.open_items, transcript.sequence_number
    try:
        transcript.read(event)
    except ProtocolError:
        assert (transcript.response, transcript.open_items, transcript.sequence_number) == before
        return False
    return True


@given(values, logs(), st.data())
def test_any_json_is_taken_for_an_event_or_refused(value: Any, events: list[dict[str, Any]], data: st.DataObject):
    transcript = folded(events[: data.draw(st.integers(0, len(events)))])

    is_taken(transcript, value)
    for type in (*FOLD, *STATUS_OF, "response.output_item.added", "response.output_item.done", "error", "new"):
        fields = {name: data.draw(values) for name in data.draw(st.sets(FIELDS, max_size=4))}
        is_taken(transcript, {**fields, "type": type, "sequence_number": transcript.sequence_number + 1})


FIELDS = st.sampled_from(
    [
        "output_index", "content_index", "summary_index", "annotation_index", "command_index", "item_id", "item",
        "part", "delta", "text", "arguments", "code", "diff", "command", "output", "logprobs", "annotation", "response",
    ]
)  # fmt: skip


@given(logs().flatmap(spoiled))
def test_a_log_that_was_spoiled_anywhere_is_folded_or_refused(events: list[Any]):
    transcript = Transcript()
    for event in events:
        if not is_taken(transcript, event) and isinstance(event, dict):
            is_taken(transcript, {**event, "sequence_number": transcript.sequence_number + 1})


ITEMS: list[dict[str, Any]] = [
    {"type": "message", "content": None},
    {"type": "message", "content": "Hi"},
    {"type": "message", "content": [7]},
    {"type": "apply_patch_call", "operation": [], "action": 7},
    {"type": "shell_call", "action": {"commands": None}},
    {"type": "shell_call", "action": "ls"},
]
PARTS: list[Any] = [
    {"type": "output_text", "annotations": None, "logprobs": 7},
    {"type": "output_text", "logprobs": None},
    {"type": ["output_text"]},
    {},
    "Hi",
]
LOGPROBS: list[Any] = [7, "a", [7], [{"token": 7, "logprob": 0}], [{"token": "a"}], [{"token": "a", "logprob": 0}]]


@pytest.mark.parametrize("item", ITEMS)
@pytest.mark.parametrize("part", PARTS)
def test_an_item_of_any_make_refuses_what_it_cannot_hold(item: dict[str, Any], part: Any):
    """Where a field of the item is not what an event speaks of: random events meet that too seldom."""
    transcript = begun()
    transcript.write("response.output_item.added", output_index=0, item={"id": "x_1", **item})
    said = [
        ("response.content_part.added", {"content_index": 0, "part": part}),
        *(("response.output_text.delta", {"content_index": 0, "delta": "x", "logprobs": each}) for each in LOGPROBS),
        ("response.output_text.annotation.added", {"content_index": 0, "annotation_index": 0, "annotation": 7}),
        ("response.output_text.done", {"content_index": 0, "text": "x"}),
        ("response.function_call_arguments.delta", {"delta": "x", "logprobs": LOGPROBS[-1]}),
        ("response.apply_patch_call_operation_diff.delta", {"delta": "x"}),
        ("response.apply_patch_call_operation_diff.done", {"diff": "x"}),
        ("response.shell_call_command.added", {"command_index": 0, "command": "x"}),
        ("response.shell_call_command.delta", {"command_index": 0, "delta": "x"}),
        ("response.shell_call_command.done", {"command_index": 0, "command": "x"}),
        ("response.content_part.done", {"content_index": 0, "part": part}),
    ]
    for type, fields in said:
        number = transcript.sequence_number + 1
        is_taken(transcript, {"type": type, "output_index": 0, **fields, "sequence_number": number})


@pytest.mark.parametrize("number", [True, 1.0, "1", None, [1]])
def test_a_number_that_is_none_is_a_gap(number: Any):
    transcript = Transcript(SKELETON)
    transcript.write("response.created")

    with pytest.raises(Gap):
        transcript.read({"type": "keepalive", "sequence_number": number})


def test_what_is_too_deep_is_refused():
    deep: Any = []
    for _ in range(5000):
        deep = [deep]

    assert not is_taken(
        begun(), {**ITEM_ADDED[1], "item": {**MESSAGE, "content": deep}, "type": ITEM_ADDED[0], "sequence_number": 2}
    )


@given(logs(), st.data())
def test_what_is_said_before_its_time_is_refused(events: list[dict[str, Any]], data: st.DataObject):
    """Leave one event out and renumber the rest: the log is then refused somewhere, or the event was one of many."""
    left_out = data.draw(st.integers(0, len(events) - 1))
    type = events[left_out]["type"]
    rest = [
        {**event, "sequence_number": number} for number, event in enumerate(events[:left_out] + events[left_out + 1 :])
    ]

    needed = type == "response.created" or type.endswith(("_item.added", "_item.done", "_part.added", "_part.done"))
    if needed:
        with pytest.raises(IllegalEvent):
            folded(rest)
    else:
        assert folded(rest).closed == (type not in TERMINAL)


@given(st.lists(st.text(max_size=5), min_size=1, max_size=6), st.integers(1, 6))
def test_a_run_of_deltas_is_what_its_deltas_are_one_by_one(deltas: list[str], cut: int):
    one_by_one, runs = with_open_text(), with_open_text()
    fields = {**PLACE, "logprobs": []}

    written = [one_by_one.write("response.output_text.delta", **fields, delta=delta) for delta in deltas]
    in_runs = [
        event
        for run in (deltas[:cut], deltas[cut:])
        if run
        for event in runs.write_run("response.output_text.delta", run, **fields)
    ]

    assert in_runs == written
    assert runs.response == one_by_one.response
    assert runs.write("error", message="m") == one_by_one.write("error", message="m")


def test_a_run_of_deltas_is_refused_where_a_delta_is():
    with pytest.raises(IllegalEvent):
        begun().write_run("response.output_text.delta", ["x"], **PLACE, logprobs=[])


def test_an_unknown_event_only_counts():
    transcript = with_open_text()
    before = transcript.response

    transcript.read({"type": "response.brand_new", "sequence_number": transcript.sequence_number + 1})

    assert transcript.response == before
    assert transcript.write("response.output_text.delta", **PLACE, delta="x", logprobs=[])["sequence_number"] == 5


def test_a_writer_does_not_invent_events():
    with pytest.raises(IllegalEvent, match="not an event"):
        begun().write("response.brand_new")


ITEM_ADDED: tuple[str, dict[str, Any]] = ("response.output_item.added", {"output_index": 0, "item": MESSAGE})


@pytest.mark.parametrize(
    ("type", "fields"),
    [
        ("response.created", {}),
        ("response.queued", {}),
        ("response.in_progress", {}),
        ITEM_ADDED,
        ("response.output_item.added", {"output_index": 2, "item": MESSAGE}),
        ("response.completed", {}),
        ("response.output_text.delta", {**PLACE, "output_index": 1, "delta": "x"}),
        ("response.output_text.delta", {**PLACE, "content_index": 1, "delta": "x"}),
        ("response.output_text.delta", {**PLACE, "item_id": "msg_2", "delta": "x"}),
        ("response.refusal.delta", {**PLACE, "delta": "x"}),
        ("response.content_part.added", {**PLACE, "part": TEXT}),
        ("response.content_part.added", {**PLACE, "content_index": 2, "part": TEXT}),
        ("response.content_part.done", {**PLACE, "content_index": 1, "part": TEXT}),
        ("response.output_item.done", {"output_index": 0, "item": MESSAGE}),
        ("response.output_text.annotation.added", {**PLACE, "annotation_index": 1, "annotation": {}}),
    ],
)
def test_an_illegal_event_is_refused_and_changes_nothing(type: str, fields: dict[str, Any]):
    transcript = with_open_text()
    before, number = transcript.response, transcript.sequence_number

    with pytest.raises(IllegalEvent):
        transcript.write(type, **fields)
    assert (transcript.response, transcript.sequence_number) == (before, number)
    with pytest.raises(IllegalEvent):
        transcript.read({"type": type, **fields, "sequence_number": number + 1, "response": before})
    assert (transcript.response, transcript.sequence_number) == (before, number)


def test_nothing_comes_before_created_or_after_the_end():
    with pytest.raises(IllegalEvent):
        Transcript(SKELETON).write("response.in_progress")
    with pytest.raises(IllegalEvent):
        Transcript(SKELETON).write(ITEM_ADDED[0], **ITEM_ADDED[1])
    late: list[tuple[str, dict[str, Any]]] = [("response.failed", {}), ITEM_ADDED, ("error", {"message": "m"})]
    for type, fields in late:
        with pytest.raises(IllegalEvent):
            begun("response.completed").write(type, **fields)


def test_an_item_keeps_its_id_and_type():
    transcript = begun()
    transcript.write("response.output_item.added", output_index=0, item=MESSAGE)

    for changed in ({"id": "msg_2"}, {"type": "reasoning"}):
        with pytest.raises(IllegalEvent):
            transcript.write("response.output_item.done", output_index=0, item={**MESSAGE, **changed})


def test_a_response_keeps_its_id():
    transcript = folded([begun().write("error", message="m") and Transcript(SKELETON).write("response.created")])

    with pytest.raises(IllegalEvent):
        transcript.read({"type": "response.in_progress", "response": {"id": "resp_2"}, "sequence_number": 1})


def test_an_incomplete_item_that_another_follows_is_superseded():
    transcript = with_open_text()
    part = {**TEXT, "text": "half"}
    transcript.write("response.content_part.done", **PLACE, part=part)
    transcript.write(
        "response.output_item.done", output_index=0, item={**MESSAGE, "status": "incomplete", "content": [part]}
    )
    assert len(transcript.output) == 1

    again = {**MESSAGE, "id": "msg_2"}
    transcript.write("response.output_item.added", output_index=1, item=again)

    assert [item["id"] for item in transcript.output] == ["msg_2"]
    assert transcript.next_output_index == 2


def test_logprobs_of_deltas_become_those_of_the_part():
    transcript = with_open_text()
    logprob = {"token": "é", "logprob": -0.5, "top_logprobs": [{"token": "e", "logprob": -1.0}]}

    transcript.write("response.output_text.delta", **PLACE, delta="é", logprobs=[logprob])

    (part,) = transcript.output[0]["content"]
    assert part["logprobs"] == [
        {
            "token": "é",
            "logprob": -0.5,
            "bytes": [195, 169],
            "top_logprobs": [{"token": "e", "logprob": -1.0, "bytes": [101]}],
        }
    ]


def test_a_snapshot_is_the_callers_own():
    transcript = with_open_text()

    transcript.response["output"][0]["content"][0]["text"] = "changed"
    transcript.item(0)["content"].clear()

    assert transcript.output[0]["content"] == [TEXT]


def test_a_shell_command_and_a_diff_are_folded_into_their_items():
    transcript = begun()
    shell = {"id": "sh_1", "type": "shell_call", "status": "in_progress", "action": {"commands": []}}
    transcript.write("response.output_item.added", output_index=0, item=shell)
    place = {"output_index": 0, "command_index": 0}
    transcript.write("response.shell_call_command.added", **place, command="")
    transcript.write("response.shell_call_command.delta", **place, delta="ls ")
    transcript.write("response.shell_call_command.delta", **place, delta="-l")
    assert transcript.item(0)["action"]["commands"] == ["ls -l"]
    transcript.write("response.shell_call_command.done", **place, command="ls -l")

    patch = {"id": "apc_1", "type": "apply_patch_call", "operation": {"type": "create_file", "path": "a", "diff": ""}}
    transcript.write("response.output_item.done", output_index=0, item=transcript.item(0))
    transcript.write("response.output_item.added", output_index=1, item=patch)
    where: dict[str, Any] = {"item_id": "apc_1", "output_index": 1}
    transcript.write("response.apply_patch_call_operation_diff.delta", **where, delta="+x")
    assert transcript.item(1)["operation"]["diff"] == "+x"
    transcript.write("response.apply_patch_call_operation_diff.done", **where, diff="+xy")
    assert transcript.item(1)["operation"]["diff"] == "+xy"


def test_an_annotation_belongs_to_its_part():
    transcript = with_open_text()
    annotation = {"type": "url_citation", "url": "https://example.org", "title": "t", "start_index": 0, "end_index": 1}

    transcript.write("response.output_text.annotation.added", **PLACE, annotation_index=0, annotation=annotation)

    assert transcript.output[0]["content"][0]["annotations"] == [annotation]


@pytest.mark.parametrize("wrong", [None, 7, ["Hi"], {"text": "Hi"}])
@pytest.mark.parametrize(("type", "field"), [("delta", "delta"), ("done", "text")])
def test_what_is_no_text_is_refused_and_changes_nothing(type: str, field: str, wrong: Any):
    transcript = Transcript({"id": "resp_1"})
    transcript.write("response.created")
    item = {"id": "msg_1", "type": "message", "role": "assistant", "status": "in_progress", "content": []}
    transcript.write("response.output_item.added", output_index=0, item=item)
    place = {"item_id": "msg_1", "output_index": 0, "content_index": 0}
    transcript.write("response.content_part.added", **place, part={"type": "output_text", "text": ""})
    transcript.write("response.output_text.delta", **place, delta="Hello")
    with pytest.raises(IllegalEvent):
        transcript.write(f"response.output_text.{type}", **place, **{field: wrong})

    assert transcript.item(0)["content"][0]["text"] == "Hello"
    transcript.write("response.output_text.done", **place, text="Hello")
