"""Thousands of requests made from the server's own description, good and bad, against a running server: `make fuzz`.

Schemathesis makes them and looks for failures of the server, answers that the description does not have, bad requests
that are accepted and good ones that are refused. This file starts the server, and is loaded by schemathesis, too.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import schemathesis

from tests.servers.antiphon import PLAIN, Antiphon, antiphon

KEY = "sk-fuzz-0123456789abcdef"
ROOT = Path(__file__).parents[1]
KNOWN = "ANTIPHON_FUZZ_KNOWN"  # the environment variable that tells schemathesis what there is to be asked for

# Whether a well-formed request can be done depends on what there is and on what this server carries out, which no
# schema says: a 400 is no fault by itself. What it may not say is told by the check below.
CONFIG = """
[checks.positive_data_acceptance]
expected-statuses = ["2xx", "400", "401", "403", "404", "409", "429", "5xx"]
[checks.negative_data_rejection]
expected-statuses = ["400", "401", "403", "404", "405", "413", "415", "5xx"]
"""

# The codes of faults that the description has already excluded.
MALFORMED = (
    "invalid_type", "integer_below_min_value", "integer_above_max_value", "decimal_below_min_value",
    "decimal_above_max_value", "object_above_max_properties", "property_name_above_max_length",
    "string_above_max_length", "string_below_min_length", "empty_string", "empty_array", "array_above_max_length",
    "array_below_min_length",
)  # fmt: skip


@schemathesis.check
def what_is_described_is_not_malformed(ctx: Any, response: Any, case: Any) -> None:
    if response.status_code != 400 or case.meta is None or not case.meta.generation.mode.is_positive:
        return
    error = response.json()["error"]
    assert error["code"] not in MALFORMED, f"The description allows it, and the answer is: {error['message']}"


def known() -> dict[str, str]:
    return json.loads(os.environ.get(KNOWN, "{}"))


@schemathesis.hook
def before_load_schema(context: Any, raw_schema: Any) -> None:
    """Say in the tool's words what a reader of the official document knows.

    Formats are notes, as in JSON Schema itself; a discriminator is the value of `type` and not the name of a schema;
    what is described of a stream are its events' data, and each of them is checked when the server is stopped.
    """
    for node in nodes(raw_schema):
        node.pop("discriminator", None)
        if isinstance(node.get("format"), str):
            del node["format"]
        if isinstance(node.get("text/event-stream"), dict):
            node["text/event-stream"] = {}


def nodes(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        yield value
        value = list(value.values())
    if isinstance(value, list):
        for each in value:
            yield from nodes(each)


@schemathesis.hook
def filter_query(context: Any, query: Any) -> bool:
    """A query cannot say that a text is no text: `metadata[k]=null` is four letters."""
    metadata = (query or {}).get("metadata") if isinstance(query, dict) else None
    return not isinstance(metadata, dict) or all(isinstance(text, str) for text in metadata.values())


@schemathesis.hook
def map_body(context: Any, body: Any) -> Any:
    """The models and responses that are named are there, so that more happens than a refusal."""
    if not isinstance(body, dict):
        return body
    there = {
        "model": "text",
        "previous_response_id": known()["response_id"],
        "conversation": known()["conversation_id"],
    }
    return body | {name: value for name, value in there.items() if isinstance(body.get(name), str)}


@schemathesis.hook
def map_path_parameters(context: Any, path_parameters: Any) -> Any:
    """Every other time the ids are there, unless they would be gone then."""
    if not isinstance(path_parameters, dict) or context.operation.method.upper() == "DELETE":
        return path_parameters
    if sum(len(str(value)) for value in path_parameters.values()) % 2:
        return path_parameters
    return path_parameters | {name: known()[name] for name in path_parameters.keys() & known().keys()}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], prog="make fuzz")
    parser.add_argument("--examples", type=int, default=2000, help="requests of each operation")
    parser.add_argument("--seed", type=int, help="make the same requests as a run that told it")
    parser.add_argument("--only", help="one operation, by its operationId")
    options = parser.parse_args()
    code = 1
    try:
        with antiphon(api_keys={"fuzz": KEY}) as server, tempfile.TemporaryDirectory() as directory:
            code = run(server, Path(directory), options)
    except AssertionError as wrong:  # what the tests hold against every answer of a server that they run
        found = faults(str(wrong))
        sys.stderr.write("\n  ".join(["", "Found in the answers themselves:", *(found or ["nothing"]), ""]))
        return 1 if found else code
    return code


def faults(told: str) -> list[str]:
    """Each kind of fault once, with how often it was found.

    Keys that no schema has may stand deep in what a caller sent, and come back with it.
    """
    lines = [line for line in told.splitlines() if "Unknown parameter" not in line]
    kinds = Counter(re.sub(r"_[0-9a-f]{20,}|(?<=\[)\d+(?=\])", "", line) for line in lines)
    return [f"{count} times: {kind}" for kind, count in kinds.most_common(50)]


def run(server: Antiphon, directory: Path, options: argparse.Namespace) -> int:
    config = directory / "schemathesis.toml"
    config.write_text(CONFIG)
    # A GET of /responses/compact is allowed, to say that no response has such an id; the description has but its POST.
    flags = ["--checks", "all", "--exclude-checks", "allow_header_conformance"]
    flags += ["--continue-on-failure", "--generation-database", "none", "--request-timeout", "30"]
    flags += ["--header", f"Authorization: Bearer {KEY}", "--max-examples", str(options.examples)]
    flags += ["--seed", str(options.seed)] if options.seed is not None else []
    flags += ["--include-operation-id", options.only] if options.only else []
    command = [str(Path(sys.executable).with_name("st")), "--config-file", str(config), "run"]
    return subprocess.run(
        [*command, server.url.removesuffix("/v1") + "/openapi.json", *flags],
        cwd=directory,
        env={
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "SCHEMATHESIS_HOOKS": "tests.fuzz_api",
            KNOWN: json.dumps(made(server)),
        },
        check=False,
    ).returncode


def made(server: Antiphon) -> dict[str, str]:
    """The ids of a response, a conversation and an item that are there, by the names of their parameters."""
    with httpx2.Client(base_url=server.url, headers={"authorization": f"Bearer {KEY}"}, **PLAIN) as http:
        body = {"model": "text", "input": "Hi", "background": True, "stream": True}
        events = http.post("/responses", json=body).text  # to its end
        response_id = json.loads(events.partition("data: ")[2].partition("\n")[0])["response"]["id"]
        items = [{"role": "user", "content": "Hi"}]
        conversation_id = http.post("/conversations", json={"items": items}).json()["id"]
        item_id = http.get(f"/conversations/{conversation_id}/items").json()["data"][0]["id"]
    return {"response_id": response_id, "conversation_id": conversation_id, "item_id": item_id}


if __name__ == "__main__":
    sys.exit(main())
