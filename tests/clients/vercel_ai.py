"""Vercel's AI SDK, with its provider for OpenAI."""


def test_it_finds_what_it_finds_at_openai(node):
    node("vercel_ai.cjs")
