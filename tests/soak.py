"""A server under mixed load for a long time, killed now and then: `make soak`.

At its end memory must have stopped growing, open files must be where they were, nothing may still be at work, and every
response that anybody was told of must be there, whole and ended, or deleted. Prints a table; the exit code tells
whether all that held.

What a process takes while it becomes warm (the tail of the logs, caches, the allocator) ends; a leak does not. So what
counts is the slope in the second half of a life, per 1,000 responses; a life too short to become warm has none.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import re
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from statistics import linear_regression
from typing import Any

import httpx2
import psutil

from tests.servers.antiphon import Process, events
from tests.servers.chat import ChatServer, Stream, script
from tests.servers.running import serve

CALLERS = 16
LIVES = 5  # the last one is as long as the others together
LOOKS = 12  # at the memory, in each life
WARM_RESPONSES = 1000  # after so many, what is only taken once has been taken
LEAK_KIB_MAX = 512.0  # per 1,000 responses: half a KiB for each
FILES_MAX = 8  # more than at the first look: files of the database that a thread opens when it is first used
QUIET_SECONDS_MAX = 60.0
# Short, so that what a killed server leaves is taken up within the run; small, so that the tail is soon full.
FLAGS = (
    "--lease-seconds", "3", "--lease-renew-seconds", "0.5", "--poll-seconds", "0.5", "--durability", "process",
    "--tail-bytes", "1048576",
)  # fmt: skip
ENDED = {"completed", "failed", "incomplete", "cancelled"}
MIB = 1 << 20


@script("drip")
async def _drip(stream: Stream, count: str) -> None:
    """One word every hundredth of a second."""
    for number in range(int(count)):
        await stream.chunk({"content": f" {number}"})
        await asyncio.sleep(0.01)
    await stream.end()


@dataclass
class Look:
    """What the server's process has while nobody asks anything."""

    rss: int
    files: int
    busy: dict[str, int]  # what should be 0
    responses: int  # that this life has begun


@dataclass
class Life:
    """One server process, from its start to its end."""

    calls: Counter[str] = field(default_factory=Counter)
    known: int = 0  # responses that were there before
    broken: int = 0  # calls that its end cut off
    looks: list[Look] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def leak_kib(self) -> float | None:
        """How fast memory grew in the second half: KiB per 1,000 responses, by the line that fits best."""
        late = self.looks[len(self.looks) // 2 :]
        if late[0].responses < WARM_RESPONSES or late[0].responses == late[-1].responses:
            return None
        slope, _ = linear_regression([look.responses for look in late], [look.rss for look in late])
        return slope * 1000 / 1024


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


class Soak:
    """The callers, and what they know."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.known: list[str] = []  # responses that somebody was told of
        self.deleted: set[str] = set()
        self.life = Life()  # the present one
        self.wrong: list[str] = []
        self._url = ""
        self._http: httpx2.AsyncClient | None = None
        self._open = asyncio.Event()  # callers may call
        self._idle = asyncio.Event()  # nobody does
        self._calling = 0

    async def serve_with(self, url: str) -> None:
        """From now on the server is there."""
        await self.close()
        self._http = httpx2.AsyncClient(base_url=url, verify=False, timeout=30)
        self._url = url
        self._open.set()

    async def close(self) -> None:
        if self._http is not None:
            await self._http.aclose()

    async def call_on(self) -> None:
        """One caller: one thing after another, for ever."""
        while True:
            await self._open.wait()
            act = self.random.choice(ACTS)
            self._calling += 1
            self._idle.clear()
            assert self._http is not None
            try:
                await act(self, self._http)
                self.life.calls[act.__name__.strip("_")] += 1
            except httpx2.TransportError:
                self.life.broken += 1
                if self._open.is_set():
                    await asyncio.sleep(0.05)  # the server is just being killed
            except Exception as error:
                self.wrong.append(f"{act.__name__}: {error!r}")
            finally:
                self._calling -= 1
                if not self._calling:
                    self._idle.set()

    async def quiet(self) -> None:
        """Return when nobody calls any more."""
        self._open.clear()
        async with asyncio.timeout(QUIET_SECONDS_MAX):
            if self._calling:
                await self._idle.wait()

    async def look(self, pid: int) -> Look:
        """What is there when everything is at rest; the callers go on afterwards."""
        await self.quiet()
        await self.close()  # the connections that are kept for the next call are files of the server, too
        async with httpx2.AsyncClient(base_url=self._url.removesuffix("/v1"), verify=False, timeout=30) as http:
            end = time.monotonic() + QUIET_SECONDS_MAX
            while True:
                page = (await http.get("/metrics")).text
                busy = {name: _gauge(page, name) for name in ("streams", "leases", "queue", "held_bytes")}
                if not any(busy.values()) or time.monotonic() > end:
                    break
                await asyncio.sleep(0.2)
        process = psutil.Process(pid)
        responses = len(self.known) - self.life.known
        found = Look(process.memory_info().rss, process.num_fds(), busy, responses)
        await self.serve_with(self._url)
        return found

    def some(self) -> str:
        """A response that should be there."""
        there = [id for id in self.random.choices(self.known, k=4) if id not in self.deleted] if self.known else []
        return there[0] if there else "resp_00"

    def expect(self, answer: Any, *statuses: int) -> Any:
        if answer.status_code not in statuses:
            self.wrong.append(f"{answer.request.method} {answer.request.url.path}: {answer.status_code} {answer.text}")
        return answer.json()


def _gauge(page: str, name: str) -> int:
    found = re.search(rf"^antiphon_{name} (\S+)$", page, re.MULTILINE)
    assert found, f"no gauge {name}"
    return int(float(found[1]))


async def _plain(soak: Soak, http: httpx2.AsyncClient, **more: Any) -> str:
    body = {"model": "text:Some words of an answer.", "input": "Hi" * 100, **more}
    response = soak.expect(await http.post("/responses", json=body), 200)
    soak.known.append(response["id"])
    return str(response["id"])


async def _chain(soak: Soak, http: httpx2.AsyncClient) -> None:
    first = await _plain(soak, http)
    for _ in range(3):
        first = await _plain(soak, http, previous_response_id=first)


async def _conversation(soak: Soak, http: httpx2.AsyncClient) -> None:
    made = soak.expect(await http.post("/conversations", json={}), 200)
    for _ in range(2):
        await _plain(soak, http, conversation=made["id"])
    soak.expect(await http.get(f"/conversations/{made['id']}/items"), 200)
    if soak.random.random() < 0.5:
        soak.expect(await http.delete(f"/conversations/{made['id']}"), 200)


async def _stream(soak: Soak, http: httpx2.AsyncClient) -> None:
    """A stream that breaks off in its middle and is taken up where it broke, until it ends."""
    body = {"model": "drip:40", "input": "Hi", "stream": True}
    raw = b""
    async with http.stream("POST", "/responses", json=body) as answer:
        async for data in answer.aiter_raw():
            raw += data
            if raw.count(b"\n\n") > 10:
                break
    said = events(raw)
    if not said:
        return
    response_id = said[0]["response"]["id"]
    soak.known.append(response_id)
    query = {"stream": "true", "starting_after": said[-1]["sequence_number"]}
    rest = events((await http.get(f"/responses/{response_id}", params=query)).content)
    numbers = [event["sequence_number"] for event in [*said, *rest]]
    if numbers != list(range(len(numbers))):
        soak.wrong.append(f"{response_id}: numbers {numbers}")


async def _background(soak: Soak, http: httpx2.AsyncClient) -> None:
    body = {"model": "drip:30", "input": "Hi", "background": True}
    response = soak.expect(await http.post("/responses", json=body), 200)
    soak.known.append(response["id"])
    if soak.random.random() < 0.3:
        soak.expect(await http.post(f"/responses/{response['id']}/cancel"), 200, 404)  # deleted by another caller


async def _forgotten(soak: Soak, http: httpx2.AsyncClient) -> None:
    """Who hangs up on what is not kept ends it."""
    body = {"model": "drip:1000", "input": "Hi", "stream": True, "store": False}
    async with http.stream("POST", "/responses", json=body) as answer:
        async for _ in answer.aiter_raw():
            break


async def _read(soak: Soak, http: httpx2.AsyncClient) -> None:
    soak.expect(await http.get(f"/responses/{soak.some()}"), 200, 404)
    soak.expect(await http.get(f"/responses/{soak.some()}/input_items"), 200, 404)
    soak.expect(await http.get("/responses", params={"limit": 20}), 200)


async def _replay(soak: Soak, http: httpx2.AsyncClient) -> None:
    await http.get(f"/responses/{soak.some()}", params={"stream": "true"})


async def _delete(soak: Soak, http: httpx2.AsyncClient) -> None:
    response_id = soak.some()
    soak.deleted.add(response_id)  # first: whether it happened is not told by a server that was killed
    soak.expect(await http.delete(f"/responses/{response_id}"), 200, 404)


async def _refused(soak: Soak, http: httpx2.AsyncClient) -> None:
    soak.expect(await http.post("/responses", json={"model": "text", "input": 7}), 400)
    soak.expect(await http.post("/responses", json={"model": "error:500", "input": "Hi"}), 500, 502)


ACTS: tuple[Callable[[Soak, httpx2.AsyncClient], Awaitable[Any]], ...] = (
    _plain, _plain, _chain, _conversation, _stream, _stream, _background, _forgotten, _read, _replay, _delete, _refused,
)  # fmt: skip


async def run(seconds: float, seed: int, directory: Path) -> int:
    model = ChatServer()
    with serve(model) as upstream:
        soak = Soak(seed)
        callers = [asyncio.create_task(soak.call_on()) for _ in range(CALLERS)]
        say(
            "| Life | s | Calls | Responses | Cut off | RSS at first, MiB | halfway | at its end "
            "| second half, KiB per 1,000 responses | Files at first | at its end |"
        )
        say("|---|---|---|---|---|---|---|---|---|---|---|")
        for number in range(LIVES):
            last = number == LIVES - 1
            server = await asyncio.to_thread(Process, upstream, directory, *FLAGS)
            try:
                await live(soak, server, seconds * (0.5 if last else 0.5 / (LIVES - 1)), model)
                if last:
                    for caller in callers:
                        caller.cancel()
                    await account(soak, server.url)
            finally:
                server.close()  # with SIGKILL, in the middle of what the callers do
                await soak.quiet()
            row(number + 1, soak.life)
        await soak.close()
        return verdict(soak)


async def live(soak: Soak, server: Process, seconds: float, model: ChatServer) -> None:
    soak.life = Life(known=len(soak.known))
    begun = time.monotonic()
    await soak.serve_with(server.url)
    for look in range(1, LOOKS + 1):
        await asyncio.sleep(max(0.0, begun + seconds * look / LOOKS - time.monotonic()))
        soak.life.looks.append(await soak.look(server.pid))
        model.requests.clear()
    await asyncio.sleep(0.5)  # so that the kill comes into the middle of something
    soak.life.seconds = time.monotonic() - begun


def row(number: int, life: Life) -> None:
    leak = "" if life.leak_kib is None else f"{life.leak_kib:.0f}"
    first, half, last = life.looks[0], life.looks[len(life.looks) // 2], life.looks[-1]
    say(
        f"| {number} | {life.seconds:.0f} | {life.calls.total()} | {last.responses} | {life.broken} "
        f"| {first.rss / MIB:.1f} | {half.rss / MIB:.1f} | {last.rss / MIB:.1f} | {leak} "
        f"| {first.files} | {last.files} |"
    )


async def account(soak: Soak, url: str) -> None:
    """Look for every response that somebody was told of, and at every one that is there."""
    await soak.quiet()
    async with httpx2.AsyncClient(base_url=url, verify=False, timeout=30) as http:
        there = await _listed(http)
        end = time.monotonic() + QUIET_SECONDS_MAX
        while not set(there.values()) <= ENDED and time.monotonic() < end:
            await asyncio.sleep(0.5)
            there = await _listed(http)
        told = set(soak.known)
        soak.wrong += [f"{id}: is lost" for id in told - soak.deleted - there.keys()]
        soak.wrong += [f"{id}: never ended, is {status}" for id, status in there.items() if status not in ENDED]
        for id in soak.random.sample(sorted(there), min(500, len(there))):
            said = events((await http.get(f"/responses/{id}", params={"stream": "true"})).content)
            numbers = [event["sequence_number"] for event in said]
            whole = numbers == list(range(len(numbers))) and said[-1].get("response", {}).get("status") == there[id]
            if not whole:
                soak.wrong.append(f"{id}: its log is not whole")
        states = ", ".join(f"{count} {status}" for status, count in sorted(Counter(there.values()).items()))
        say(f"\n{len(told)} responses were told of; {len(there)} are there: {states}; {len(soak.deleted)} deleted.")


async def _listed(http: httpx2.AsyncClient) -> dict[str, str]:
    """The status of every response that is there, by its id."""
    there: dict[str, str] = {}
    query: dict[str, Any] = {"limit": 100}
    while True:
        page = (await http.get("/responses", params=query)).json()
        there |= {response["id"]: response["status"] for response in page["data"]}
        if not page["has_more"]:
            return there
        query["after"] = page["last_id"]


def verdict(soak: Soak) -> int:
    looks = soak.life.looks
    if soak.life.leak_kib is None:
        say("The last life was too short to tell whether memory grows.")
    elif soak.life.leak_kib > LEAK_KIB_MAX:
        soak.wrong.append(f"memory grows: {[round(look.rss / MIB, 1) for look in looks]} MiB")
    if looks[-1].files > looks[0].files + FILES_MAX:
        soak.wrong.append(f"files stay open: {[look.files for look in looks]}")
    soak.wrong += [f"at rest, there are {look.busy}" for look in looks if any(look.busy.values())]
    kinds = Counter(re.sub(r"_[0-9a-f]{16,}", "_", line)[:300] for line in soak.wrong)
    for line, count in kinds.most_common(20):
        say(f"WRONG, {count} times: {line}")
    say("All is well." if not soak.wrong else f"{len(soak.wrong)} things are wrong.")
    return 1 if soak.wrong else 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], prog="make soak")
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--seed", type=int, default=time.time_ns() % 10**9, help="the choices of a run that told it")
    options = parser.parse_args()
    sys.stderr.write(f"seed {options.seed}\n")
    with tempfile.TemporaryDirectory(prefix="antiphon-soak-") as directory:
        return asyncio.run(run(options.minutes * 60, options.seed, Path(directory)))


if __name__ == "__main__":
    sys.exit(main())
