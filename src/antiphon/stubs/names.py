"""Names that Python can spell, for types and for keywords."""

from __future__ import annotations

import itertools
import keyword as python
import re
from collections.abc import Iterable

from antiphon.spec.names import is_spellable, keyword

# What a stub takes from elsewhere: none of it may be a type of the document too.
ABC = ("Mapping", "Sequence")
TYPING = ("Any", "Literal", "Never", "NotRequired", "Self", "TypeAlias", "TypedDict", "overload")
DOWNLOADS = ("AsyncDownload", "Download")
ANSWERS = ("AsyncEvents", "ComingListed", "Events", "File", "Listed")
BUILTINS = ("bool", "bytes", "dict", "float", "int", "list", "str")
MADE = ("AsyncClient", "AsyncOperations", "Client", "Operations", "antiphon", "builtins")


class TypeNames:
    """Gives each type of a stub a name of its own."""

    def __init__(self, taken: Iterable[str]) -> None:
        self._taken = {*ABC, *TYPING, *DOWNLOADS, *ANSWERS, *BUILTINS, *MADE, *taken}

    def new(self, wish: str) -> str:
        """A name like the wish: `Error-2` becomes `Error2`, and where that is taken `Error2_2`."""
        plain = joined(wish) or "Value"
        if plain[0].isdigit() or python.iskeyword(plain):
            plain = "T" + plain
        stem = plain + "_" if plain[-1].isdigit() else plain
        numbered = (f"{stem}{number}" for number in itertools.count(2))
        name = next(each for each in itertools.chain([plain], numbered) if each not in self._taken)
        self._taken.add(name)
        return name


def joined(text: str) -> str:
    """The words of the text as one name: `json_schema` becomes `JsonSchema`."""
    return "".join(word[0].upper() + word[1:] for word in re.split(r"[^0-9A-Za-z]+", text) if word)


def argument(name: str) -> str | None:
    """The name as a keyword of a call: `include[]` is `include`. None if Python cannot spell it."""
    spelled = keyword(name)
    return spelled if is_spellable(spelled) and spelled != "self" else None
