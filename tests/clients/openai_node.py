"""The official SDK for Node."""


def test_it_finds_what_it_finds_at_openai(node):
    node("openai_node.cjs")
