"""A reader for each store: one connection, made when first needed, with an account that may only read.

Both raise StoreUnavailable while their store does not answer and ConfigurationError for what only the user can fix;
asking again later is always safe.
"""

import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, cast

from cassandra.cluster import Session
from cassandra.query import PreparedStatement
from mysql.connector.abstracts import MySQLConnectionAbstract
from mysql.connector.errors import Error, InterfaceError, OperationalError

from tickledger.settings import Settings
from tickledger.stores import cassandra_errors, connect_cassandra, connect_mysql, mysql_errors

#: A page that waits longer for one answer than this looks frozen.
ANSWER_SECONDS = 4


class MySQLReader:
    """Reads MySQL over one connection, made when first needed and again after a failure. Safe between threads."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._connection: MySQLConnectionAbstract | None = None
        self._lock = threading.Lock()

    def rows(self, statement: str, parameters: Mapping[str, Any] | None = None) -> list[tuple[Any, ...]]:
        """All rows of one SELECT."""
        with self._lock, mysql_errors(self._settings):
            try:
                if self._connection is not None:
                    # The server may have closed the connection, or restarted, since the question before.
                    with suppress(OperationalError, InterfaceError):
                        return self._read(statement, parameters or {})
                    self._drop()
                return self._read(statement, parameters or {})
            except Error:
                self._drop()
                raise

    def _read(self, statement: str, parameters: Mapping[str, Any]) -> list[tuple[Any, ...]]:
        if self._connection is None:
            self._connection = connect_mysql(
                self._settings, self._settings.dashboard_mysql, answer_seconds=ANSWER_SECONDS
            )
        cursor = self._connection.cursor()
        cursor.execute(statement, dict(parameters))
        rows = cursor.fetchall()
        cursor.close()
        self._connection.rollback()
        return cast("list[tuple[Any, ...]]", rows)

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(Error, OSError):
                connection.shutdown()

    def close(self) -> None:
        """Close the connection; the next question opens another."""
        with self._lock:
            self._drop()


class CassandraReader:
    """Reads Cassandra over one session, made when first needed; the session itself reconnects. Safe between threads."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._session: Session | None = None
        self._statements: dict[str, PreparedStatement] = {}
        self._lock = threading.Lock()

    def rows(self, statement: str, parameters: Sequence[tuple[Any, ...]]) -> list[Any]:
        """All rows of one SELECT, asked once for each of `parameters`, at the same time."""
        with cassandra_errors():
            session, prepared = self._prepared(statement)
            answers = [session.execute_async(prepared, values, timeout=ANSWER_SECONDS) for values in parameters]
            return [row for answer in answers for row in answer.result()]

    def _prepared(self, statement: str) -> tuple[Session, PreparedStatement]:
        with self._lock:
            if self._session is None:
                self._session = connect_cassandra(self._settings, self._settings.dashboard_cassandra)
            if statement not in self._statements:
                self._statements[statement] = self._session.prepare(statement)
            return self._session, self._statements[statement]

    def close(self) -> None:
        """Close the session; the next question opens another."""
        with self._lock:
            session, self._session = self._session, None
            self._statements.clear()
        if session is not None:
            session.cluster.shutdown()
