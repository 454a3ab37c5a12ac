"""StringReader: the strings in a JSON value, told while the value still comes in pieces. No I/O.

A model writes the arguments of a call as JSON. What the caller wants to see grow, such as a command or a patch, is a
string somewhere in it. For JSON the texts are what a parser would give, wherever the pieces were cut; half of a
surrogate pair becomes U+FFFD. From the first token that is not JSON nothing more is told, and whoever parses the whole
will find the fault.
"""

from __future__ import annotations

import json
import re
from typing import NamedTuple

# The whole characters at the beginning of a string's inside. A high surrogate is whole with its low one, or once the
# text shows that no low one follows.
CHARACTERS = re.compile(
    r'(?:[^"\\]++'
    r'|\\["\\/bfnrt]'
    r"|\\u(?![dD][89abAB])[0-9a-fA-F]{4}"
    r"|\\u[dD][89abAB][0-9a-fA-F]{2}(?:\\u[dD][c-fC-F][0-9a-fA-F]{2}"
    r"|(?=[^\\]|\\[^u]|\\u[^dD]|\\u[dD][^c-fC-F])))*+"
)
_KEY = re.compile(r'"((?:[^"\\]|\\.)*+)"', re.DOTALL)
_TOKEN = re.compile(r'[ \t\r\n]*+(?:([{}\[\],:"])|[^\s{}\[\],:"]++(?=[\s{}\[\],:"]))')

Path = tuple[str | int, ...]  # the keys and indexes that lead to a value


class Piece(NamedTuple):
    """A piece of one string. A string's first piece comes as soon as the string begins, and may be empty."""

    path: Path
    text: str
    ended: bool


class StringReader:
    def __init__(self) -> None:
        self._held = ""  # what is not read yet: half a token, or an escape that is cut
        self._at = 0  # how far it is read
        self._path: list[str | int] = []  # one entry for each open array or object
        self._next = "value"  # what may come: "value", "key", ":", "," (or an end); "string" inside of one, "" nothing
        self._begun = False  # the open string has had its first piece

    def feed(self, text: str) -> list[Piece]:
        """The pieces of strings that `text` brings."""
        pieces: list[Piece] = []
        self._held += text
        while self._next and (self._read_string(pieces) if self._next == "string" else self._read_token()):
            pass
        self._held, self._at = self._held[self._at :] if self._next else "", 0
        return pieces

    def _read_string(self, pieces: list[Piece]) -> bool:
        inside = CHARACTERS.match(self._held, self._at)
        assert inside is not None  # it matches the empty string
        self._at = inside.end()
        ended = self._held.startswith('"', self._at)
        if inside[0] or ended or not self._begun:
            pieces.append(Piece(tuple(self._path), unescaped(inside[0]), ended))
            self._begun = True
        if ended:
            self._at += 1
            self._next = ","
        return ended

    def _read_token(self) -> bool:
        token = _TOKEN.match(self._held, self._at)
        if token is None:
            return False
        if token[1] == '"' and self._next == "key":
            return self._read_key(token.end() - 1)
        self._at = token.end()
        self._take(token[1] or "")
        return True

    def _read_key(self, at: int) -> bool:
        key = _KEY.match(self._held, at)
        if key is None:
            return False
        self._at = key.end()
        inside = CHARACTERS.fullmatch(key[1])
        self._path[-1] = unescaped(key[1]) if inside else ""
        self._next = ":" if inside else ""
        return True

    def _take(self, token: str) -> None:
        """Go on by a mark; "" is a number or a word."""
        in_array = bool(self._path) and isinstance(self._path[-1], int)
        if self._next == "value" and token in ('"', "{", "[", ""):
            self._begin(token)
        elif token == ":" and self._next == ":":
            self._next = "value"
        elif token == "," and self._next == "," and self._path:
            if in_array:
                self._path[-1] += 1  # type: ignore[operator]
            self._next = "value" if in_array else "key"
        elif (token == "]" and in_array) or (token == "}" and self._path and not in_array):
            self._path.pop()
            self._next = ","
        else:
            self._next = ""

    def _begin(self, token: str) -> None:
        self._begun = False
        self._next = {'"': "string", "{": "key", "[": "value", "": ","}[token]
        if token in ("{", "["):
            self._path.append("" if token == "{" else 0)


def unescaped(inside: str) -> str:
    """What the inside of a JSON string, of whole characters, stands for."""
    if "\\" not in inside:
        return inside
    return without_halves(str(json.loads(f'"{inside}"', strict=False)))


def without_halves(text: str) -> str:
    """The text with U+FFFD for each half of a surrogate pair, which no UTF-8 can carry."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
