"""Ids in the form of the API: `resp_` and 50 hex digits, of which the first 16 tie together what belongs together.

Layout: prefix, `_`, 16 hex (the chain key), `00`, 8 hex (unix seconds), 24 hex. Callers must treat them as opaque.
Time and randomness come in as arguments.
"""

from __future__ import annotations

import re
import string
from collections.abc import Callable

Random = Callable[[int], bytes]  # like os.urandom

PREFIXES = {
    "additional_tools": "at",
    "agent_message": "amsg",
    "apply_patch_call": "apc",
    "apply_patch_call_output": "apco",
    "code_interpreter_call": "ci",
    "compaction": "cmp",
    "computer_call": "cu",
    "computer_call_output": "cuo",
    "custom_tool_call": "ctc",
    "custom_tool_call_output": "ctco",
    "file_search_call": "fs",
    "function_call": "fc",
    "function_call_output": "fco",
    "image_generation_call": "ig",
    "local_shell_call": "lsh",
    "local_shell_call_output": "lsho",
    "mcp_approval_request": "mcpr",
    "mcp_approval_response": "mcpa",
    "mcp_call": "mcp",
    "mcp_list_tools": "mcpl",
    "message": "msg",
    "program": "cm",
    "program_output": "cmo",
    "reasoning": "rs",
    "shell_call": "sh",
    "shell_call_output": "sho",
    "tool_search_call": "tsc",
    "tool_search_output": "tso",
    "web_search_call": "ws",
}
"""The prefix of an item's id, by the item's type."""

_CHAINED = re.compile("[^_]*_([0-9a-f]{16}).{34}", re.DOTALL)
_ALPHANUMERIC = string.ascii_letters + string.digits


def new_id(prefix: str, *, now: float, random: Random, chain: str | None = None) -> str:
    """A new id; with `chain`, an id made by this function, it gets that id's chain key."""
    key = chain_key(chain) if chain else None
    tail = random(12 if key else 20).hex()
    return f"{prefix}_{key or tail[24:]}00{int(now) & 0xFFFFFFFF:08x}{tail[:24]}"


def chain_key(id: str) -> str | None:
    """The 16 hex digits that an id shares with what belongs to it; None for an id of another form."""
    match = _CHAINED.fullmatch(id)
    return match[1] if match else None


def new_call_id(random: Random) -> str:
    """A `call_id`: `call_` and 24 letters and digits."""
    return "call_" + "".join(_ALPHANUMERIC[byte % 62] for byte in random(24))


def in_blocks(random: Random, *, block_bytes: int = 4096) -> Random:
    """The same, drawn in larger blocks: each call of the system lets another thread go first."""
    block, at = b"", 0

    def draw(count: int) -> bytes:
        nonlocal block, at
        if at + count > len(block):
            block, at = random(max(count, block_bytes)), 0
        at += count
        return block[at - count : at]

    return draw
