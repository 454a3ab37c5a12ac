"""StringReader: the strings of a JSON value that comes in pieces are those of the whole."""

import itertools
import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from antiphon.engine.tools.strings import StringReader, without_halves

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=12,
)


def strings_in(value, path=()):
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, list):
        for index, member in enumerate(value):
            yield from strings_in(member, (*path, index))
    elif isinstance(value, dict):
        for key, member in value.items():
            yield from strings_in(member, (*path, key))


def read(text, cuts):
    """The strings of a text that comes in pieces: by their paths, each with whether it has ended."""
    reader = StringReader()
    found: dict[Any, tuple[str, bool]] = {}
    edges = [0, *sorted(cut % (len(text) + 1) for cut in cuts), len(text)]
    for start, end in itertools.pairwise(edges):
        for path, piece, ended in reader.feed(text[start:end]):
            before, closed = found.get(path, ("", False))
            assert not closed
            found[path] = (before + piece, ended)
    return found


@settings(max_examples=300)
@given(value=json_values, ascii=st.booleans(), indent=st.sampled_from([None, 1]), cuts=st.lists(st.integers(0, 999)))
def test_the_strings_of_any_json_are_read_exactly_wherever_it_is_cut(value, ascii, indent, cuts):
    text = json.dumps(value, ensure_ascii=ascii, indent=indent)

    assert read(text, cuts) == {path: (string, True) for path, string in strings_in(value)}


escapes = st.lists(
    st.sampled_from([r"\ud83d", r"\ude00", r"\uDBFF", r"\u00e9", r"\n", r"\\", r"\"", "u", "d", "é", "🎈", r"\/"])
)


@settings(max_examples=300)
@given(parts=escapes, cuts=st.lists(st.integers(0, 99)))
def test_halves_of_surrogate_pairs_are_replaced_and_whole_ones_kept(parts, cuts):
    text = '{"input": "' + "".join(parts) + '"}'

    assert read(text, cuts) == {("input",): (without_halves(json.loads(text)["input"]), True)}


@settings(max_examples=300)
@given(text=st.text(alphabet='{}[]",:\\u1ae \n', max_size=30), cuts=st.lists(st.integers(0, 99)))
def test_what_is_not_json_does_no_harm_wherever_it_is_cut(text, cuts):
    def told(cuts):
        reader = StringReader()
        edges = [0, *sorted(cut % (len(text) + 1) for cut in cuts), len(text)]
        pieces = [piece for start, end in itertools.pairwise(edges) for piece in reader.feed(text[start:end])]
        return "".join(piece.text for piece in pieces), [piece.path for piece in pieces if piece.ended]

    assert told(cuts) == told([])
