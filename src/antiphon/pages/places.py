"""Where each page is: names that every file system takes, each only once."""

from __future__ import annotations

import re
from collections.abc import Iterable

_NAME_CHARACTERS_MAX = 100


def placed(folder: str, names: Iterable[str], *, taken: Iterable[str] = ()) -> dict[str, str]:
    """A place for each name, such as `paths/responses-response_id` for `/responses/{response_id}`.

    taken: places that are no longer free.
    """
    places: dict[str, str] = {}
    used = {place.lower() for place in taken}
    for name in names:
        plain = re.sub(r"[^\w.-]+", "-", re.sub(r"[{}]", "", name), flags=re.ASCII).strip("-.") or "root"
        plain = plain[:_NAME_CHARACTERS_MAX]
        place, number = f"{folder}/{plain}", 2
        while place.lower() in used:  # some file systems take capitals for the same
            place, number = f"{folder}/{plain}-{number}", number + 1
        used.add(place.lower())
        places[name] = place
    return places
