"""Look at answers as they are: their status, their headers, their bytes.

python examples/raw_answers.py, with a server at OPENAI_BASE_URL and the name of its model in MODEL.
"""

import os

from antiphon import Client

MODEL = os.environ.get("MODEL", "smollm2-135m-instruct")

with Client() as client:
    answer = client.raw.create_response(model=MODEL, input="Name a sea.", max_output_tokens=20)
    print(answer.status, answer.request_id, answer.headers["content-type"], len(answer.body), "bytes")
    response_id = answer.json()["id"]

    # A header for some calls; the connections are shared.
    traced = client.with_options(headers={"x-request-id": "my-own-1"})
    print(traced.raw.get_response(response_id=response_id).request_id)

    # No status is an error here.
    missing = client.raw.delete_response(response_id="resp_of_nobody")
    print(missing.status, missing.json()["error"]["message"])
