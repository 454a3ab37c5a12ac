"""A SQLite file as Antiphon's database: opening, owning and migrating it.

Every way in which that can fail is a StoreError that says what to do.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import apsw

from antiphon.errors import StoreError
from antiphon.store.sql import migrations, queries

APPLICATION_ID = 0x416E7470  # "Antp"
STEPS = migrations("sqlite")
SQL = queries("sqlite")
BUSY_MS = 5000  # how long another process, a short command, may hold the database


@contextmanager
def translating(path: str) -> Iterator[None]:
    """What goes wrong inside is a StoreError about that path."""
    try:
        yield
    except apsw.NotADBError as error:
        raise StoreError(f"{path} is not a SQLite database; name another file or move it away.") from error
    except (apsw.ReadOnlyError, apsw.CantOpenError, PermissionError) as error:
        raise StoreError(f"{path} cannot be written: {error}. Its directory must be writable, too.") from error
    except (apsw.Error, OSError) as error:
        raise StoreError(f"{path}: {error}") from error


class Files:
    """The files of an open database. SQLite goes on in them when they are moved, deleted or replaced: nobody would find
    again what is written then.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._opened = [(name, _identity(name)) for name in (path, f"{path}-wal")]

    def check(self) -> None:
        """Raise StoreError unless they are where they were."""
        for name, opened in self._opened:
            if _identity(name) != opened:
                raise StoreError(
                    f"{name} was moved, deleted or replaced under the server: put the old one back, or restart.",
                    passing=False,
                )


def _identity(path: str) -> tuple[int, int] | None:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino


class Ownership:
    """The right of one process to write logs into a file: a lock beside it, which dies with the process."""

    def __init__(self, path: str) -> None:
        self._file = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            owner = os.read(self._file, 32).decode("ascii", "replace").strip()
            os.close(self._file)
            raise StoreError(
                f"{path} belongs to another server process (pid {owner or 'unknown'}). "
                "Stop that one, or name another file; several processes need PostgreSQL."
            ) from error
        with suppress(OSError):  # only for who is refused; a full disk may still take the rest
            os.truncate(self._file, 0)
            os.pwrite(self._file, b"%d\n" % os.getpid(), 0)

    def release(self) -> None:
        os.close(self._file)


def connect(path: str, *, durability: str, now: Callable[[], float] = time.time) -> apsw.Connection:
    """A connection with the settings that every one of ours has."""
    connection = _plain_connection(path)
    add_clock(connection, now)
    for pragma in (
        "journal_mode = WAL",
        "wal_autocheckpoint = 0",
        f"synchronous = {'FULL' if durability == 'full' else 'NORMAL'}",
        "secure_delete = ON",  # what is deleted is overwritten
        "temp_store = MEMORY",  # and never was in a file that nobody overwrites
    ):
        connection.execute(f"PRAGMA {pragma}").fetchall()
    return connection


def connect_memory(*, now: Callable[[], float] = time.time) -> apsw.Connection:
    """A connection to a new database in memory."""
    connection = apsw.Connection(":memory:")
    _keep_plans(connection)
    add_clock(connection, now)
    migrate(connection, ":memory:")
    return connection


def add_clock(connection: apsw.Connection, now: Callable[[], float]) -> None:
    """Let queries ask for the time by seconds(): what has expired is unknown to all of them."""
    connection.create_scalar_function("seconds", lambda *_: now(), 0)


def open_file(
    path: str, *, durability: str, exclusive: bool, makes: bool, now: Callable[[], float] = time.time
) -> tuple[apsw.Connection, Ownership | None]:
    """A connection to the file, migrated as needed, with `makes` made, and its ownership if it is to be exclusive."""
    ownership = connection = None
    try:
        with translating(path):
            _prepare(path, makes=makes)
            ownership = Ownership(path) if exclusive else None
            connection = connect(path, durability=durability, now=now)
            if is_behind(connection, path):
                # Never under a running server, so an opening that is not exclusive needs the lock for this, too.
                migrating = ownership or Ownership(path)
                migrate(connection, path)
                if migrating is not ownership:
                    migrating.release()
            if exclusive:
                _void_leases(connection)
            return connection, ownership
    except BaseException:
        if connection:
            connection.close()
        if ownership:
            ownership.release()
        raise


def _void_leases(connection: apsw.Connection) -> None:
    try:
        connection.execute(SQL["void_leases"])
    except apsw.CorruptError:  # of a row that nobody can claim; the others are not to wait
        for (row,) in connection.execute(SQL["all_open_rows"]).fetchall():
            with suppress(apsw.CorruptError):
                connection.execute(SQL["void_lease"], {"row": row})


def check_there(path: str) -> None:
    """Raise StoreError if there is no such file: to open it would make an empty one."""
    if not os.path.exists(path):
        raise StoreError(f"{path} is not there.")


def _prepare(path: str, *, makes: bool) -> None:
    """See that the file is ours, or empty, before anything in it is changed."""
    if not makes:
        check_there(path)
    if not (folder := Path(path).parent).is_dir():
        raise StoreError(f"{path} cannot be made: there is no folder {folder}.")
    # Made here, as SQLite would let everybody read it; the files that it adds get the same mode.
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    connection = _plain_connection(path)
    try:
        if connection.pragma("application_id") != APPLICATION_ID and connection.pragma("schema_version") != 0:
            raise StoreError(f"{path} is the database of another application; name another file.")
    finally:
        connection.close()


def _plain_connection(path: str) -> apsw.Connection:
    connection = apsw.Connection(path)
    _keep_plans(connection)
    connection.set_busy_timeout(BUSY_MS)
    connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)  # checkpoints are the Checkpointer's
    return connection


def _keep_plans(connection: apsw.Connection) -> None:
    """Let a prepared statement stay as it is whatever is bound to it.

    Else SQLite prepares it anew when the value that limits a range changes: four fifths of what reading a log took.
    """
    connection.config(apsw.SQLITE_DBCONFIG_ENABLE_QPSG, 1)


def is_behind(connection: apsw.Connection, path: str, steps: Sequence[str] = STEPS) -> bool:
    """Whether there is something to migrate; raises StoreError if the database is newer than this code."""
    version = _version(connection)
    if version > len(steps):
        raise StoreError(
            f"{path} was written by a newer Antiphon (its version is {version}; this one knows {len(steps)}). "
            "Use that one again, or name another file."
        )
    return version < len(steps)


def migrate(connection: apsw.Connection, path: str, steps: Sequence[str] = STEPS) -> None:
    """Bring the database to the newest version, each step in a transaction."""
    while is_behind(connection, path, steps):
        version = _version(connection)
        with connection:
            connection.execute(steps[version]).fetchall()
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}").fetchall()
            connection.execute(f"PRAGMA user_version = {version + 1}").fetchall()


def _version(connection: apsw.Connection) -> int:
    version = connection.pragma("user_version")
    assert isinstance(version, int)
    return version
