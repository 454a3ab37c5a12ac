"""A copy of a SQLite database in use, page by page, as it is at one moment.

Pages as SQLite has them in its write-ahead log hold copies of moved rows, which no deletion finds (see the
checkpoints). So the copy is written the way checkpoints are: what was deleted before is not in it.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from urllib.parse import quote

import apsw

from antiphon.errors import StoreError
from antiphon.store.sqlite_checkpoint import clearing_vfs
from antiphon.store.sqlite_file import APPLICATION_ID, BUSY_MS, check_there, translating
from antiphon.store.whole_file import whole_file

STEP_PAGES = 1000  # Ctrl-C is heard between steps


def backup(path: str, to: str) -> None:
    """Copy the database at `path` to the file `to`, and the key beside it, if any, to `<to>.key`.

    What was there is replaced when the copy is complete and found intact, not before. Raises StoreError.
    """
    check_there(path)
    _check_unused(path, to)
    with translating(to), whole_file(to) as new:
        _copy(path, new)
        _check_intact(new, path)
        _copy_key(path, to)  # before the copy that needs it has its name


def _check_unused(path: str, to: str) -> None:
    if os.path.exists(to) and os.path.samefile(path, to):
        raise StoreError(f"{to} is the database itself; name another file.")
    with contextlib.suppress(FileNotFoundError):
        if os.path.getsize(f"{to}-wal"):  # SQLite would take it for that of the new file
            raise StoreError(f"{to} is a database in use, as {to}-wal says; name another file, or move both away.")


def _copy(path: str, to: str) -> None:
    with contextlib.closing(apsw.Connection(path)) as source, contextlib.closing(_target(to)) as target:
        source.set_busy_timeout(BUSY_MS)
        source.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
        with translating(path):
            # One transaction: without it, each commit of the server would let the copy begin anew.
            source.execute("BEGIN")
            if source.pragma("application_id") != APPLICATION_ID:
                raise StoreError(f"{path} is not a database of Antiphon.")
        with target.backup("main", source, "main") as copying:
            while not copying.done:
                copying.step(STEP_PAGES)


def _target(path: str) -> apsw.Connection:
    target = apsw.Connection(path, vfs=clearing_vfs())
    for pragma in ("journal_mode = OFF", "synchronous = OFF"):  # it gets its name only when all is on the disk
        target.execute(f"PRAGMA {pragma}").fetchall()
    return target


def _check_intact(copy: str, path: str) -> None:
    # As immutable it can be read without files beside it.
    flags = apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI
    with contextlib.closing(apsw.Connection(f"file:{quote(copy)}?immutable=1", flags=flags)) as connection:
        ((found,),) = connection.execute("PRAGMA integrity_check(1)").fetchall()
    if found != "ok":
        raise StoreError(f"{path} is damaged, so there is no backup of it: {str(found).splitlines()[-1]}")


def _copy_key(path: str, to: str) -> None:
    if os.path.exists(f"{path}.key"):
        with whole_file(f"{to}.key") as new:
            shutil.copyfile(f"{path}.key", new)
