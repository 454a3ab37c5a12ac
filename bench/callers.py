"""One caller, alone in its process: it does one job many times, and tells the CPU time that it took.

    python -m bench.callers JOB CALLER URL COUNT

A few rounds go before, in which everything is made that is made once. Each result is looked at: a figure of something
else says nothing.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from typing import Any

_REQUEST: dict[str, Any] = {"model": "m", "input": "Say something short."}
_KEY = "none"


def calls(caller: str, url: str) -> Callable[[], int]:
    """A small create; counts as one."""

    if caller == "httpx2":
        import httpx2

        http = httpx2.Client()
        return lambda: _one(http.post(f"{url}/responses", json=_REQUEST).json()["status"])
    if caller == "openai":
        import openai

        sdk = openai.OpenAI(base_url=url, api_key=_KEY)
        return lambda: _one(sdk.responses.create(**_REQUEST).status)
    import antiphon

    client = antiphon.Client(url, _KEY, validate_responses=caller == "checking")
    return lambda: _one(client.create_response(**_REQUEST)["status"])


def events(caller: str, url: str) -> Callable[[], int]:
    """A stream to its end, and the Response that it comes to; counts its events."""
    if caller == "openai":
        import openai

        sdk = openai.OpenAI(base_url=url, api_key=_KEY)

        def helped() -> int:
            with sdk.responses.stream(**_REQUEST) as stream:
                count = sum(1 for _ in stream)
                _one(stream.get_final_response().status)
            return count

        return helped
    import antiphon

    client = antiphon.Client(url, _KEY)

    def read() -> int:
        with client.create_response(**_REQUEST, stream=True) as stream:
            count = sum(1 for _ in stream)
            _one(stream.response["status"])
        return count

    return read


def _one(status: Any) -> int:
    if status != "completed":
        raise RuntimeError(f"The response is {status}.")
    return 1


JOBS = {"calls": calls, "events": events}


def main(job: str, caller: str, url: str, count: int) -> dict[str, Any]:
    once = JOBS[job](caller, url)
    for _ in range(max(1, count // 10)):
        once()
    since = time.process_time()
    done = sum(once() for _ in range(count))
    return {"cpu_seconds": time.process_time() - since, "count": done}


if __name__ == "__main__":
    _, _job, _caller, _url, _count = sys.argv
    print(json.dumps(main(_job, _caller, _url, int(_count))))
