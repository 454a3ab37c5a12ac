"""What an operation is called: operationIds of any style become snake_case method names.

The rule is mechanical. A small table mends the ids of the official document that lost their capitals, or a letter;
the name that the plain rule gives stays an alias.
"""

from __future__ import annotations

import keyword as python
import re
from collections.abc import Iterable, Mapping

_NOT_A_LETTER = re.compile(r"[^0-9A-Za-z]+")
_HUMP = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")

# To add a name: the operationId without its `beta_`, and the words it was meant to have.
BETTER_NAMES: Mapping[str, str] = {
    "Compactconversation": "compact_conversation",
    "CreateanAPIkeyforaserviceaccount": "create_an_api_key_for_a_service_account",
    "Createcontentprovenancecheck": "create_content_provenance_check",
    "Deleteorganizationspendlimit": "delete_organization_spend_limit",
    "Deleteprojectspendlimit": "delete_project_spend_limit",
    "Getinputtokencounts": "get_input_token_counts",
    "Getorganizationspendlimit": "get_organization_spend_limit",
    "Getprojectspendlimit": "get_project_spend_limit",
    "Updateorganizationspendlimit": "update_organization_spend_limit",
    "Updateprojectspendlimit": "update_project_spend_limit",
    "submitToolOuputsToRun": "submit_tool_outputs_to_run",
}


def snake_case(operation_id: str) -> str:
    """The id by the plain rule: other characters become `_`, humps are split, all in lower case."""
    words = _NOT_A_LETTER.sub("_", operation_id).strip("_")
    return _HUMP.sub("_", words).lower()


def method_name(operation_id: str) -> str:
    """The name of the operation's method, which Python can write; empty if the id has no letter that it could."""
    prefix = "beta_" if operation_id.startswith("beta_") else ""
    better = BETTER_NAMES.get(operation_id.removeprefix("beta_"))
    name = prefix + better if better else snake_case(operation_id)
    if name[:1].isdigit():
        return f"operation_{name}"
    return f"{name}_" if python.iskeyword(name) else name


def folded(name: str) -> str:
    """The form in which all spellings of a name are one: `get_response`, `getResponse` and `Get-Response`."""
    return _NOT_A_LETTER.sub("", name).lower()


def nearest(name: str, known: Iterable[str]) -> list[str]:
    """Up to three known names that `name` may have been meant to be, the likeliest first.

    After the one that is spelt most alike come those that share a word which few have.
    """
    import difflib  # only a misspelt name needs it

    by_folded = {folded(each): each for each in known}
    alike = [by_folded[each] for each in difflib.get_close_matches(folded(name), by_folded, n=3, cutoff=0.7)]
    sharing = [[each for each in by_folded.values() if word in each.split("_")] for word in snake_case(name).split("_")]
    few = [each for those in sharing if len(those) <= 3 for each in those]
    return list(dict.fromkeys([*alike[:1], *few, *alike[1:]]))[:3]


def listed(names: Iterable[str], *, word: str) -> str:
    """The quoted names as a phrase: `'a'`, `'a' or 'b'`, `'a', 'b', or 'c'`."""
    quoted = [f"'{name}'" for name in names]
    if len(quoted) < 3:
        return f" {word} ".join(quoted)
    return f"{', '.join(quoted[:-1])}, {word} {quoted[-1]}"


def keyword(name: str) -> str:
    """A parameter's name as Python writes it in a call: `include[]` is `include`, `openai-beta` is `openai_beta`."""
    return re.sub(r"\W+", "_", name).strip("_")


def is_spellable(name: str) -> bool:
    """Whether Python can write the name in a call."""
    return name.isidentifier() and not python.iskeyword(name)
