"""The client beside the official SDK: its start, its first request, a small call, a stream, an API description."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from functools import partial

from bench.figures import Figure, Target, figure
from bench.model_server import Plan
from bench.processes import ROOT
from bench.rig import Result, Rig, load, per, pieces_of, total

_OURS = """
import time
since = time.perf_counter()
import antiphon
client = antiphon.Client(api_key="none", base_url="http://127.0.0.1:9/v1", on_request=lambda request: ready(request))
create = client.create_response
"""
_SDK = """
import time
since = time.perf_counter()
import openai
client = openai.OpenAI(api_key="none", base_url="http://127.0.0.1:9/v1")
create = client.responses.create
"""
_FIRST = """
class Ready(BaseException): pass
def ready(request): raise Ready
{hook}
begun, since = since, time.perf_counter()
try:
    create(model="m", input="Say one fact about tides.")
except Ready:
    pass
"""
_SDK_HOOK = "client._prepare_request = ready"  # the SDK's own place for a last look at a request
_BARE = """
import antiphon
antiphon.Client(api_key="none").create_response
import time
since = time.perf_counter()
import httpx2
httpx2.Client().build_request("POST", "http://127.0.0.1:9/v1", json={})
"""
_COLD = """
import time
from antiphon.spec import Document
since = time.perf_counter()
Document.load()
"""
_TELL = """
now = time.perf_counter()
import json, psutil
whole = now - globals().get("begun", since)
print(json.dumps({"seconds": now - since, "whole": whole, "bytes": psutil.Process().memory_info().rss}))
"""


def client(rig: Rig) -> list[Figure]:
    """All that a program pays for the client, and what it pays for `openai` at the same."""
    return [*_starts(rig), *_calls(rig), *_streams(rig), _cold_load(rig)]


def _starts(rig: Rig) -> list[Figure]:
    """Import, a client made, a method looked up; then, in processes of their own, the first request ready to send."""
    whole, whole_of_sdk = _OURS + _FIRST.format(hook=""), _SDK + _FIRST.format(hook=_SDK_HOOK)
    for code in (whole, whole_of_sdk):
        _python(code)  # fills the caches, Python's own too
    ours, sdk, first, first_of_sdk, bare = rig.in_turns(
        partial(_python, _OURS),
        partial(_python, _SDK),
        partial(_python, whole),
        partial(_python, whole_of_sdk),
        partial(_python, _BARE),
        rounds=rig.pick(3, 9),
    )
    return [
        _beside("import, client, method", "s", "seconds", ours, sdk, Target(0.13)),
        _beside("memory then", "MB", "bytes", ours, sdk, Target(40)),
        _beside("first request ready after that", "ms", "seconds", first, first_of_sdk, Target(60)),
        figure("client", "httpx2's part of that, with nothing around it", "ms", [each["seconds"] for each in bare]),
        _beside("from nothing to the first request ready", "s", "whole", first, first_of_sdk),
    ]


def _calls(rig: Rig) -> list[Figure]:
    """A small create, less what bare httpx2 takes for the same request and the decoding of its answer."""
    with rig.antiphon() as server:
        body = {"model": Plan(8, 1000, batch=8).model, "input": "Say something short."}
        made = load("repeat", server, requests=[["POST", "/responses", body]], count=1)["ids"][0]
        held = rig.hold("created", pieces_of(server, f"/responses/{made}"))
    callers = ("antiphon", "checking", "openai", "httpx2")
    count = rig.pick(200, 1500)
    *measured, bare = rig.in_turns(*_callers(rig, "calls", callers, held, count))
    ours, checking, sdk = (
        [each["cpu_seconds"] / count - floor["cpu_seconds"] / count for each, floor in zip(results, bare, strict=True)]
        for results in measured
    )
    about = {"floor_name": "openai", "count": total(bare, "count"), "counted": "calls"}
    name = "a small call, CPU over bare httpx2"
    return [
        figure("client", name, "us", ours, sdk, target=Target(150, 1), **about),
        figure("client", f"{name}, answer checked too", "us", checking, sdk, **about),
        figure("client", "a small call with bare httpx2, CPU", "us", per(bare, "count")),
    ]


def _streams(rig: Rig) -> list[Figure]:
    """A stream as this build sends it, read and folded: each event in a chunk of its own, and many in each."""
    with rig.antiphon() as server:
        tokens = rig.pick(600, 4000)
        body = {"model": Plan(tokens, 1000, batch=200).model, "input": "Count."}
        made = load("repeat", server, requests=[["POST", "/responses", body]], count=1)["ids"][0]
        stream = b"".join(pieces_of(server, f"/responses/{made}?stream=true"))
    frames = [frame + b"\n\n" for frame in stream.split(b"\n\n")[:-1]]
    figures = []
    for many in (1, 100):
        held = rig.hold("events", [b"".join(frames[at : at + many]) for at in range(0, len(frames), many)])
        callers = _callers(rig, "events", ("antiphon", "openai"), held, rig.pick(2, 4))
        ours, sdk = rig.in_turns(*callers)
        figures.append(
            figure(
                "client",
                f"stream folded, events in a chunk: {many}, CPU per event",
                "us",
                per(ours, "count"),
                per(sdk, "count"),
                floor_name="openai",
                target=Target(ratio=0.2),
                count=total(ours, "count"),
                counted="events",
            )
        )
    return figures


def _cold_load(rig: Rig) -> Figure:
    """The packaged document, with nothing in the cache; the SDK has it compiled into its modules."""

    def cold() -> Result:
        with tempfile.TemporaryDirectory(prefix="antiphon-bench-") as empty:
            return _python(_COLD, HOME=empty, XDG_CACHE_HOME=empty)

    ours, sdk = rig.in_turns(cold, partial(_python, _SDK), rounds=rig.pick(2, 5))
    return _beside("first load of the API description", "s", "seconds", ours, sdk, Target(1.5), "openai's start")


def _python(code: str, **environment: str) -> Result:
    """What a new interpreter tells of itself behind this code."""
    environment = {**os.environ, **environment}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # it would be Python's compiler that is measured
    done = subprocess.run([sys.executable, "-c", code + _TELL], env=environment, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{code}\nfailed:\n{done.stderr}")
    result: Result = json.loads(done.stdout)
    return result


def _callers(rig: Rig, job: str, callers: Sequence[str], held: str, count: int) -> list[Callable[[], Result]]:
    """A process for each of these callers, which does the job `count` times."""
    return [partial(_caller, job, caller, rig.floors.url + held, count) for caller in callers]


def _caller(job: str, caller: str, url: str, count: int) -> Result:
    arguments = [sys.executable, "-m", "bench.callers", job, caller, url, str(count)]
    done = subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{caller} failed at {job}:\n{done.stderr}")
    result: Result = json.loads(done.stdout)
    return result


def _beside(
    name: str,
    unit: str,
    key: str,
    ours: list[Result],
    sdk: list[Result],
    target: Target = Target(),  # noqa: B008  # frozen
    floor_name: str = "openai",
) -> Figure:
    samples, floors = ([each[key] for each in results] for results in (ours, sdk))
    return figure("client", name, unit, samples, floors, floor_name=floor_name, target=target)
