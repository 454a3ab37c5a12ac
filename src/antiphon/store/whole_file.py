"""Files that are there as a whole or not at all."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def whole_file(path: str, *, replaces: bool = True) -> Iterator[str]:
    """The name of a new file beside that path, which takes its place when the block ends well, and else is gone.

    Only its owner can read it. Raises OSError, which is FileExistsError if there is one already that it is not to
    replace.
    """
    new = f"{path}.{secrets.token_hex(4)}.part"
    os.close(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    try:
        yield new
        _sync(new)
        if replaces:
            os.replace(new, path)
        else:
            os.link(new, path)
        _sync(str(Path(path).absolute().parent))  # the name, too, is to survive a power cut
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(new)


def _sync(path: str) -> None:
    opened = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)
