"""A disk that fails on command, below SQLite: full, read-only, broken, or slow.

`failing_disk()` puts it below every database that is opened meanwhile, as SQLite's default VFS. What it refuses has not
happened, as with a real one; all else goes to the real files.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

import apsw

_NAME = "antiphon-tests-failing"


class Disk:
    """Which faults there are at the moment."""

    def __init__(self) -> None:
        self.well()

    def well(self) -> None:
        """From now on nothing fails."""
        self.full = False  # what would make a file longer fails; what lies within it can be written
        self.read_only = False
        self.write_fails = False
        self.sync_fails = False
        self.read_fails = False
        self._synced = threading.Event()
        self._synced.set()
        self.refused = 0  # how often something failed since

    @contextmanager
    def hanging(self) -> Iterator[None]:
        """While this holds, no fsync comes to its end."""
        synced = self._synced = threading.Event()
        try:
            yield
        finally:
            synced.set()

    def wrote(self, *, longer: bool) -> None:
        if self.read_only:
            self._refuse(apsw.ReadOnlyError, apsw.SQLITE_READONLY)
        if self.write_fails:
            self._refuse(apsw.IOError, apsw.SQLITE_IOERR_WRITE)
        if self.full and longer:
            self._refuse(apsw.FullError, apsw.SQLITE_FULL)

    def synced(self) -> None:
        self._synced.wait()
        if self.sync_fails:
            self._refuse(apsw.IOError, apsw.SQLITE_IOERR_FSYNC)

    def read(self) -> None:
        if self.read_fails:
            self._refuse(apsw.IOError, apsw.SQLITE_IOERR_READ)

    def _refuse(self, kind: type[apsw.Error], code: int) -> NoReturn:
        self.refused += 1
        error: Any = kind("the disk of the tests refuses")
        error.extendedresult = code
        raise error


class _VFS(apsw.VFS):
    def __init__(self, disk: Disk) -> None:
        super().__init__(_NAME, "")
        self._disk = disk

    def xOpen(self, name: str | apsw.URIFilename | None, flags: list[int]) -> apsw.VFSFile:
        return _File(self._disk, name, flags)


class _File(apsw.VFSFile):
    def __init__(self, disk: Disk, name: str | apsw.URIFilename | None, flags: list[int]) -> None:
        super().__init__("unix", name, flags)
        self._disk = disk

    def xWrite(self, data: bytes, offset: int) -> None:
        self._disk.wrote(longer=offset + len(data) > self.xFileSize())
        super().xWrite(data, offset)

    def xTruncate(self, size: int) -> None:
        self._disk.wrote(longer=False)
        super().xTruncate(size)

    def xRead(self, amount: int, offset: int) -> bytes:
        self._disk.read()
        return super().xRead(amount, offset)

    def xSync(self, flags: int) -> None:
        self._disk.synced()
        super().xSync(flags)


_vfs: _VFS | None = None  # for ever, as other VFSes may be built upon it


@contextmanager
def failing_disk() -> Iterator[Disk]:
    """The disk of every database that is opened meanwhile; well at first, and again in the end."""
    global _vfs
    if _vfs is None:
        _vfs = _VFS(Disk())
    disk = _vfs._disk
    before = apsw.vfs_names()[0]
    apsw.set_default_vfs(_NAME)
    try:
        yield disk
    finally:
        disk.well()
        apsw.set_default_vfs(before)
