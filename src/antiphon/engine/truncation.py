"""shortened(): a context that is too long for the model, without its beginning.

Source: `truncation: "auto"` of the API drops whole items from the beginning of the conversation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from antiphon.protocol.context import without_unpaired_calls

Item = Mapping[str, Any]

_PART = 4  # a fourth of the context goes at a time: servers tell that it is too long, but seldom by how much

_encode = msgspec.json.Encoder().encode


def shortened(context: Sequence[Item]) -> list[Item] | None:
    """The items without the first fourth, by size; a call and its output go together. None: there is too little left.

    The last item always stays: it is what the model is asked.
    """
    sizes = [len(_encode(item)) for item in context]
    dropped = count = 0
    while count < len(context) - 1 and dropped * _PART < sum(sizes):
        dropped += sizes[count]
        count += 1
    kept = without_unpaired_calls(context[count:])
    return kept if count and kept and kept[-1] == context[-1] else None
