"""Checkpoints that leave nothing of deleted rows in the database's file.

With `secure_delete` SQLite overwrites what is deleted; but when it moves rows from page to page it leaves copies in the
gap between a page's cell pointers and its cells, where a later deletion does not find them. In write-ahead mode pages
come into the file by checkpoints alone. So these all go through a connection of their own, whose writes clear the gaps.
Source: https://www.sqlite.org/fileformat2.html#b_tree_pages
"""

from __future__ import annotations

import apsw

_VFS = "antiphon-checkpoint"
_POINTERS_BEGIN = {2: 12, 5: 12, 10: 8, 13: 8}  # by the kind of a b-tree page, which is its header's first byte
_FIRST_PAGE_HEADER = 100  # the first page begins with the file's own header

# Any other page begins with a page's number, whose first byte can look like a kind only in files of 128 GB and more.
_FILE_BYTES_MAX = 1 << 36


class Checkpointer:
    """Moves the write-ahead log into the database's file. Costs the GIL per page, so it is good for nothing else."""

    def __init__(self, path: str) -> None:
        # It never waits for readers (there is no busy timeout): those who append would wait with it.
        self._connection = apsw.Connection(path, vfs=clearing_vfs())

    def move(self) -> None:
        """Move what can be moved, beside readers and writers."""
        self._checkpoint("PASSIVE")

    def empty(self) -> bool:
        """Move everything and empty the log; False if a reader or writer was in the way."""
        return self._checkpoint("TRUNCATE")

    def close(self) -> None:
        """The last to close a database moves everything once more."""
        self._connection.close()

    def _checkpoint(self, mode: str) -> bool:
        try:
            ((busy, _pages, _moved),) = self._connection.execute(f"PRAGMA wal_checkpoint({mode})").fetchall()
            return not busy
        except apsw.Error:  # nothing is lost, it is tried again; what ails the disk is told to those who write
            return False


def clearing_vfs() -> str:
    """The name of the VFS that clears the gaps of what is written to a database."""
    if _VFS not in apsw.vfs_names():
        _ClearingVFS.instance = _ClearingVFS()
    return _VFS


def without_gap(page: bytes, *, first: bool) -> bytes:
    """The page with zeros between its cell pointers and its cells; unchanged if it is not of a b-tree."""
    header = _FIRST_PAGE_HEADER if first else 0
    begin = _POINTERS_BEGIN.get(page[header])
    if begin is None:
        return page
    begin += header + 2 * int.from_bytes(page[header + 3 : header + 5], "big")
    end = int.from_bytes(page[header + 5 : header + 7], "big") or 65536
    if not begin < end <= len(page):
        return page
    return page[:begin] + bytes(end - begin) + page[end:]


class _ClearingVFS(apsw.VFS):
    """The system's own, but for what is written to databases."""

    instance: _ClearingVFS | None = None  # SQLite does not keep it alive

    def __init__(self) -> None:
        super().__init__(_VFS, "")

    def xOpen(self, name: str | apsw.URIFilename | None, flags: list[int]) -> apsw.VFSFile:
        kind = _ClearedFile if flags[0] & apsw.SQLITE_OPEN_MAIN_DB else apsw.VFSFile
        return kind("", name, flags)


class _ClearedFile(apsw.VFSFile):
    def xWrite(self, data: bytes, offset: int) -> None:
        if self.xFileSize() < _FILE_BYTES_MAX:
            data = without_gap(data, first=offset == 0)
        super().xWrite(data, offset)
