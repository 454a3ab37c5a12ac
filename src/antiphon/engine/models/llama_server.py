"""The child process of the embedded model: llama.cpp with its HTTP side on a loopback port.

`python -m antiphon.engine.models.llama_server` reads one line of JSON from stdin, loads the model, writes one line
`{"url": ...}` to stdout and serves until stdin ends. A native crash ends this process and no other, and when the parent
dies, however it dies, its end of stdin closes and this process with it.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from typing import Any

BATCH_TOKENS = 256  # a dropped connection is noticed between two batches of the prompt


def main() -> None:
    # The parent decides when to end: a Ctrl-C for the whole group must not stop the turns that it lets finish.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    config = json.loads(sys.stdin.readline())
    threading.Thread(target=_end_with_parent, daemon=True).start()
    reply = os.dup(1)
    os.dup2(2, 1)  # what the library prints must not be taken for the reply
    server = _serve(config)
    os.write(reply, json.dumps({"url": server.listening_address}).encode() + b"\n")
    threading.Event().wait()


def _end_with_parent() -> None:
    sys.stdin.read()
    os._exit(0)


def _serve(config: dict[str, Any]) -> Any:
    from xllamacpp import CommonParams, Server  # here, since it takes a while and the parent imports this module's name

    params = CommonParams()
    params.model.path = config["model_file"]
    params.n_parallel = config["parallel"]
    params.n_ctx = config["parallel"] * config["context_tokens"]  # it is divided among the slots
    params.n_batch = params.n_ubatch = BATCH_TOKENS
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = config["threads"]
    params.cache_ram_mib = 0
    params.offline = True
    params.ui = False
    params.verbosity = 0
    params.hostnames = ["127.0.0.1"]
    params.port = 0
    params.api_keys = [config["api_key"]]
    return Server(params)


if __name__ == "__main__":
    main()
