"""Outage: what fails for now, told once when it begins and once when it is over, not each time that it is tried."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator

from antiphon.errors import StoreError

logger = logging.getLogger(__name__)


class Outage:
    """Of one database, for all that is tried there again and again."""

    def __init__(self) -> None:
        self._failing: set[str] = set()

    @contextlib.contextmanager
    def trying(self, act: str) -> Iterator[None]:
        """Leave the block quietly when the database fails: it is tried again.

        act: over is what failed when it has succeeded itself, since a database that reads may not write.
        """
        try:
            yield
        except StoreError as error:
            if not self._failing:
                logger.warning("the database fails, and is tried again until it is well: %s", error)
            self._failing.add(act)
        else:
            if act in self._failing:
                self._failing.remove(act)
                if not self._failing:
                    logger.warning("the database is well again")
