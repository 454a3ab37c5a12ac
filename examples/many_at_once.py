"""Ask many things at once and print each answer as it comes.

python examples/many_at_once.py, with a server at OPENAI_BASE_URL and the name of its model in MODEL.
"""

import asyncio
import os

from antiphon import AsyncClient, RateLimited

MODEL = os.environ.get("MODEL", "smollm2-135m-instruct")
QUESTIONS = ["Name a whale.", "Name a sea bird.", "Name a fish.", "Name a sea."]


async def ask(client: AsyncClient, question: str) -> str:
    async with client.create_response(model=MODEL, input=question, max_output_tokens=30, stream=True) as stream:
        return question + " " + "".join([piece async for piece in stream.text])


async def main() -> None:
    async with AsyncClient() as client:
        try:
            for answer in asyncio.as_completed([ask(client, question) for question in QUESTIONS]):
                print(await answer)
        except RateLimited as error:
            print(f"The server has enough to do: {error}")


asyncio.run(main())
