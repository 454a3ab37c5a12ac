"""A PostgreSQL database as Antiphon's: connecting, migrating, and going on when the connection is lost.

Every way in which that can fail is a StoreError that says what to do. Whatever else goes wrong with a statement is
translated here, too.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar
from urllib.parse import urlsplit

import asyncpg

from antiphon.errors import AntiphonError, BadRequest, StoreError
from antiphon.store.postgres_pool import Pool
from antiphon.store.sql import migrations, queries

logger = logging.getLogger(__name__)

STEPS = migrations("postgres")
SQL = queries("postgres")
MARK = "antiphon.session"  # a setting of ours: who finds it on a fresh connection shares its session
SCHEMA = "antiphon"  # a name of our own: the database may hold other things
VERSION_MIN = 14
STATEMENT_SECONDS = 30.0  # a server that is silent for longer is taken for lost
AGAIN_SECONDS_MAX = 0.25  # the longest pause before the next try to connect
MIGRATION_SECONDS = 3600.0
ROLLBACK_SECONDS = 5.0
CLOSE_SECONDS = 5.0
COLLISIONS_MAX = 5  # how often a transaction is begun anew that met another one

_MIGRATING = 0x416E7470  # the advisory lock: "Antp"

T = TypeVar("T")

# The connection is gone, or leads to a server that cannot be used any more, or not yet.
_LOST = (
    OSError,
    asyncio.TimeoutError,
    asyncpg.PostgresConnectionError,
    asyncpg.OperatorInterventionError,  # shutting down, starting, crashed
    asyncpg.InterfaceError,  # closed on our side
    asyncpg.InternalClientError,  # the server has ended the session, and its socket is not closed yet
    asyncpg.ReadOnlySQLTransactionError,  # another server is the primary now
    asyncpg.TooManyConnectionsError,
    asyncpg.IdleInTransactionSessionTimeoutError,
)
# What an administrator, more room or a quieter moment will mend.
_PASSING = (
    asyncpg.InsufficientResourcesError,
    asyncpg.PostgresSystemError,
    asyncpg.OperatorInterventionError,
    asyncpg.LockNotAvailableError,
    asyncpg.InvalidAuthorizationSpecificationError,
    asyncpg.InvalidCatalogNameError,
)
_COLLIDED = (asyncpg.DeadlockDetectedError, asyncpg.SerializationError)


class Collided(Exception):
    """Another transaction has just done what this one relied on nobody doing; begun anew, it sees that."""


def is_lost(error: BaseException) -> bool:
    """Whether it is the connection that failed, so that another one may succeed."""
    # Arguments of the wrong form are InterfaceErrors, too, and ValueErrors besides.
    return isinstance(error, _LOST) and not isinstance(error, ValueError | asyncpg.QueryCanceledError)


def translated(error: Exception) -> AntiphonError:
    """What the store says of an error of the database."""
    if isinstance(error, asyncpg.CharacterNotInRepertoireError | asyncpg.UntranslatableCharacterError):
        result: AntiphonError = BadRequest("A name or an id holds a character that cannot be kept (U+0000).")
    else:
        passing = isinstance(error, _PASSING)
        result = StoreError(f"The database failed: {error or type(error).__name__}", passing=passing)
    result.__cause__ = error
    return result


@contextlib.contextmanager
def translating() -> Iterator[None]:
    """Whatever the database raises inside is raised as the store says it."""
    try:
        yield
    except (*_LOST, asyncpg.PostgresError) as error:
        if is_lost(error):
            raise StoreError(f"The database cannot be reached: {error or type(error).__name__}") from error
        raise translated(error) from error


def pauses() -> Iterator[float]:
    """The seconds before each further try: none at first, since what is lost is often back already."""
    yield 0.0
    pause = 0.02
    while True:
        yield pause
        pause = min(pause * 2, AGAIN_SECONDS_MAX)


class Database:
    """Connections to a database, as many as needed up to a limit.

    call_seconds: how long a call goes on trying while the database cannot be reached.
    durability: "process" lets the database acknowledge before its disk has it.
    """

    def __init__(self, url: str, *, connections_max: int, call_seconds: float, durability: str) -> None:
        self._url = url
        self.name = _without_password(url)
        self._connections_max = connections_max
        self._call_seconds = call_seconds
        self._options: dict[str, Any] = {
            "command_timeout": STATEMENT_SECONDS,
            "timeout": max(1.0, call_seconds),
            "server_settings": {"application_name": "antiphon"},
        }
        self._settings = {
            "search_path": SCHEMA,
            "default_transaction_isolation": "read committed",  # who waits for a lock reads what was written before it
            # Every query of ours has its index; a plan made while a table was small must not be kept without it.
            "enable_seqscan": "off",
            "jit": "off",
            MARK: "ours",
            **({"synchronous_commit": "off"} if durability == "process" else {}),
        }
        self._pool: Pool | None = None

    async def open(self) -> None:
        """Connect and migrate. Raises StoreError."""
        try:
            connection = await self._trying(self.connect)
        except (*_LOST, asyncpg.PostgresError, ValueError) as error:
            raise StoreError(
                f"{self.name} cannot be opened: {error or type(error).__name__}. See that the server runs, and that "
                "the URL names the right host, user and database."
            ) from error
        try:
            await self._check_sessions()
            await migrate(connection, self.name)
        finally:
            await connection.close()
        self._pool = Pool(self.connect, self._connections_max)

    async def close(self) -> None:
        pool, self._pool = self._pool, None
        if pool is not None:
            await pool.close(CLOSE_SECONDS)

    async def connect(self, **settings: str) -> asyncpg.Connection:
        """A connection of the caller's own; with settings of the server for this one."""
        connection = await asyncpg.connect(self._url, **self._options)
        try:
            await set_session(connection, {**self._settings, **settings})
        except BaseException:
            connection.terminate()
            raise
        return connection

    async def _check_sessions(self) -> None:
        """Raise StoreError if what is set on one connection, which is open now, is found on another.

        Locks and prepared statements would stray as well.
        """
        with translating():
            fresh = await asyncpg.connect(self._url, **self._options, statement_cache_size=0)
            try:
                found = await fresh.fetchval("SELECT current_setting($1, true)", MARK)
            finally:
                fresh.terminate()
        if found:
            raise StoreError(
                f"{self.name} is reached through a pooler that gives one session to several connections, like "
                "PgBouncer with pool_mode=transaction. Name PostgreSQL itself, or a pool with pool_mode=session.",
                passing=False,
            )

    @contextlib.asynccontextmanager
    async def aside(self) -> AsyncIterator[Any]:
        """A connection for what takes long, which ends with whatever transaction it is in."""
        connection = await self.connect()
        try:
            yield connection
        finally:
            connection.terminate()

    async def run(self, operation: Callable[..., Awaitable[T]], *arguments: Any) -> T:
        """What the operation makes of a connection, each statement committed by itself.

        If the connection is lost it is run again, so it must be one that may be run twice.
        """

        async def once() -> T:
            async with self._connection() as connection:
                return await operation(connection, *arguments)

        return await self._carried_out(once)

    async def run_once(self, operation: Callable[..., Awaitable[T]], *arguments: Any, within: float) -> T:
        """The same, but not if there is no connection within so many seconds, and never again."""
        with translating():
            async with self._connection(within) as connection:
                return await operation(connection, *arguments)

    async def change(
        self,
        operation: Callable[..., Awaitable[T]],
        *arguments: Any,
        done: Callable[..., Awaitable[tuple[T] | None]] | None = None,
    ) -> T:
        """The same, in one transaction.

        done: asked, with the same arguments, before the operation is run again and it is not known whether it was
        committed: what came of it, or None if it was not. Without it the operation may be carried out twice.
        """
        uncertain = False

        async def once() -> T:
            nonlocal uncertain
            async with self._connection() as connection:
                if uncertain and done is not None:
                    outcome = await done(connection, *arguments)
                    if outcome is not None:
                        return outcome[0]
                transaction = connection.transaction()
                await transaction.start()
                try:
                    result = await operation(connection, *arguments)
                except BaseException as error:
                    await _roll_back(connection, transaction)
                    if uncertain and done is not None and isinstance(error, AntiphonError):
                        # What we had sent over the lost connection may have been carried out only now.
                        outcome = await done(connection, *arguments)
                        if outcome is not None:
                            return outcome[0]
                    raise
                uncertain = True
                await transaction.commit()
                return result

        return await self._carried_out(once)

    async def _carried_out(self, once: Callable[[], Awaitable[T]]) -> T:
        with translating():
            return await self._trying(once)

    async def _trying(self, once: Callable[[], Awaitable[T]]) -> T:
        """Its result; tried again for a while when a connection is lost, and when transactions collide."""
        loop = asyncio.get_running_loop()
        deadline: float | None = None
        collisions = 0
        for pause in pauses():
            try:
                return await once()
            except (*_COLLIDED, Collided) as error:
                collisions += 1
                if collisions > COLLISIONS_MAX:
                    raise StoreError("The database is too busy with the same rows.") from error
            except _LOST as error:
                deadline = deadline or loop.time() + self._call_seconds
                if not is_lost(error) or loop.time() + pause > deadline:
                    raise
                if self._pool is not None:
                    self._pool.expire()  # the others are gone as well
                await asyncio.sleep(pause)
        raise AssertionError("pauses end never")

    @contextlib.asynccontextmanager
    async def _connection(self, within: float = STATEMENT_SECONDS) -> AsyncIterator[Any]:
        if self._pool is None:
            raise StoreError("The store is not open.", passing=False)
        async with self._pool.lend(within) as connection:
            try:
                yield connection
            except _LOST as error:
                if is_lost(error):
                    connection.terminate()  # also one that only the server knows to be of no use
                raise


async def _roll_back(connection: asyncpg.Connection, transaction: Any) -> None:
    """A connection on which that fails is closed, which does the same. What came before it, a cancel say, is raised."""
    try:
        async with asyncio.timeout(ROLLBACK_SECONDS):
            await transaction.rollback()
    except (*_LOST, asyncpg.PostgresError):
        connection.terminate()


async def set_session(connection: asyncpg.Connection, settings: Mapping[str, str]) -> None:
    """Settings for as long as the connection is open. Not sent as it is opened: poolers refuse them there."""
    await connection.execute("; ".join(f"SET {name} = '{value}'" for name, value in settings.items()))


async def migrate(connection: asyncpg.Connection, name: str, steps: Sequence[str] = STEPS) -> None:
    """Bring the database to the newest version, each step in a transaction. Nodes that start together take turns."""
    version_of_server = connection.get_server_version().major
    if version_of_server < VERSION_MIN:
        raise StoreError(f"{name} is PostgreSQL {version_of_server}; it must be {VERSION_MIN} or newer.")
    try:
        while True:
            async with connection.transaction():
                await connection.execute("SELECT pg_advisory_xact_lock($1)", _MIGRATING, timeout=MIGRATION_SECONDS)
                version = await _version(connection)
                if version > len(steps):
                    raise StoreError(
                        f"{name} was written by a newer Antiphon (its version is {version}; this one knows "
                        f"{len(steps)}). Use that one again, or name another database."
                    )
                if version == len(steps):
                    return
                await connection.execute(steps[version], timeout=MIGRATION_SECONDS)
                await connection.execute(f"UPDATE {SCHEMA}.version SET number = $1", version + 1)
    except asyncpg.InsufficientPrivilegeError as error:
        raise StoreError(
            f"{name} cannot be written: {error}. Its user needs the right to create a schema there: "
            "GRANT CREATE ON DATABASE ... TO ..., or a database of its own."
        ) from error


async def _version(connection: asyncpg.Connection) -> int:
    """The version of what is there; 0 of an empty database, which is then ready for the first step."""
    if await connection.fetchval("SELECT to_regclass($1)", f"{SCHEMA}.version") is None:
        if await connection.fetchval("SELECT to_regnamespace($1)", SCHEMA) is None:
            await connection.execute(f"CREATE SCHEMA {SCHEMA}")
        await connection.execute(f"CREATE TABLE {SCHEMA}.version (number integer NOT NULL)")
        await connection.execute(f"INSERT INTO {SCHEMA}.version VALUES (0)")
    version: int = await connection.fetchval(f"SELECT number FROM {SCHEMA}.version")
    return version


def _without_password(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
