"""The door to each store: `with mysql(settings)` and `with cassandra(settings)` open, translate errors and close.

Every other module gets its connections here, so that failures read alike: one line, ConfigurationError,
StoreUnavailable, or TickledgerError for what neither a wait nor a setting fixes.
"""

import logging
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, cast

import mysql.connector as mysql_driver
from cassandra import (
    AuthenticationFailed,
    ConsistencyLevel,
    DriverException,
    InvalidRequest,
    OperationTimedOut,
    RequestExecutionException,
    RequestValidationException,
    Unauthorized,
    UnresolvableContactPoints,
    protocol,
)
from cassandra.auth import PlainTextAuthProvider
from cassandra.cluster import EXEC_PROFILE_DEFAULT, Cluster, ExecutionProfile, NoHostAvailable, Session
from cassandra.connection import ConnectionBusy, ConnectionException, DefaultEndPoint
from cassandra.policies import ConstantReconnectionPolicy, DCAwareRoundRobinPolicy
from cassandra.pool import NoConnectionsAvailable
from mysql.connector import errorcode
from mysql.connector.abstracts import MySQLConnectionAbstract
from mysql.connector.errors import DataError, IntegrityError, NotSupportedError, ProgrammingError

from tickledger.avoided_nodes import AvoidingPolicy
from tickledger.errors import ConfigurationError, StoreReadOnly, StoreUnavailable, TickledgerError
from tickledger.here import RUN
from tickledger.secured import cassandra_options, certificate_refused, check_cassandra_certificate, mysql_options
from tickledger.settings import NO_DATACENTER, NO_FILE, Account, Settings

CONNECT_SECONDS = 5
#: A MySQL server that hangs counts as down after this long; longer than any statement or lock wait of ours takes.
ANSWER_SECONDS = 20
CASSANDRA_REQUEST_SECONDS = 15
#: For which MySQL keeps what somebody has locked of whom it hears nothing.
IDLE_SECONDS = 30
#: What Cassandra's driver raises.
CASSANDRA_ERRORS = (
    *(DriverException, NoHostAvailable, ConnectionException, protocol.ErrorMessage),
    *(ConnectionBusy, NoConnectionsAvailable),
)
#: Of those, and of what a host's failure may be, the ones that may pass. A node that starts may know no account yet.
_MAY_PASS = (
    *(NoHostAvailable, ConnectionException, OSError, UnresolvableContactPoints, AuthenticationFailed),
    *(ConnectionBusy, NoConnectionsAvailable),
    *(OperationTimedOut, RequestExecutionException, protocol.RequestExecutionException, protocol.ServerError),
)
#: A view that misses a table or column, or a right to one.
_BROKEN_VIEW = errorcode.ER_VIEW_INVALID
#: A value that does not fit its column, or stands against a CHECK; that of MariaDB the driver has no name for.
_REFUSED_VALUES = {
    errorcode.ER_WARN_DATA_OUT_OF_RANGE,
    errorcode.ER_DATA_TOO_LONG,
    errorcode.ER_TRUNCATED_WRONG_VALUE_FOR_FIELD,
    errorcode.ER_CHECK_CONSTRAINT_VIOLATED,
    4025,
}
#: A server that takes no writes: a replica, or a primary that is one no longer.
_READ_ONLY = {errorcode.ER_OPTION_PREVENTS_STATEMENT, errorcode.ER_READ_ONLY_MODE}


@contextmanager
def mysql(
    settings: Settings, account: Account | None = None, *, database: str | None = None
) -> Iterator[MySQLConnectionAbstract]:
    """A connection as of :func:`connect_mysql` for the block; closing it rolls back what is not committed.

    What the driver raises in the block is translated as by :func:`mysql_errors`.
    """
    with mysql_errors(settings):
        connection = connect_mysql(settings, account, database=database)
        try:
            yield connection
        finally:
            close_quietly(connection)


def connect_mysql(
    settings: Settings,
    account: Account | None = None,
    *,
    database: str | None = None,
    answer_seconds: int = ANSWER_SECONDS,
) -> MySQLConnectionAbstract:
    """Open a MySQL connection in UTC, without autocommit, at READ COMMITTED, for who keeps it longer than a block.

    `account` is the stream's unless another is given. A server that takes longer than `answer_seconds` for one answer
    counts as down. Raises ConfigurationError for a missing or wrong user or password or a wrong database, and
    StoreUnavailable where nothing answers.
    """
    account = (account or settings.mysql).required()
    database = settings.mysql_database if database is None else database
    with mysql_errors(settings, account, database):
        connection: Any = mysql_driver.connect(
            host=settings.mysql_host,
            port=settings.mysql_port,
            user=account.user,
            password=account.password.get_secret_value(),
            database=database or None,
            charset="utf8mb4",
            collation="utf8mb4_bin",
            time_zone="+00:00",
            autocommit=False,
            connection_timeout=CONNECT_SECONDS,
            read_timeout=answer_seconds,
            write_timeout=answer_seconds,
            **mysql_options(settings),
        )
        cursor = connection.cursor()
        cursor.execute("SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED")
        cursor.close()
        return cast(MySQLConnectionAbstract, connection)


@contextmanager
def locking(connection: MySQLConnectionAbstract) -> Iterator[None]:
    """For a block that locks rows which others wait for, on a connection that is used on. It has only statements in it.

    MySQL, which nobody tells that a host is gone, ends its connection after :data:`IDLE_SECONDS` without one.
    """
    end_if_idle(connection, IDLE_SECONDS)
    yield
    # What was committed is so, also where the connection is lost by now.
    with suppress(mysql_driver.Error):
        connection.cursor().execute("SET SESSION wait_timeout = DEFAULT")


def end_if_idle(connection: MySQLConnectionAbstract, seconds: int) -> None:
    """Let MySQL end a connection, with what it has locked, once it hears nothing for so long; else that takes hours."""
    connection.cursor().execute("SET SESSION wait_timeout = %s", (seconds,))


@contextmanager
def mysql_errors(settings: Settings, account: Account | None = None, database: str | None = None) -> Iterator[None]:
    """Turn what MySQL's driver raises into ConfigurationError where only the user can help, else StoreUnavailable.

    Into TickledgerError where the server refuses what the program sends.
    """
    try:
        yield
    except mysql_driver.Error as error:
        raise _mysql_error(error, settings, account or settings.mysql, database or settings.mysql_database) from None


def _mysql_error(error: mysql_driver.Error, settings: Settings, account: Account, database: str) -> TickledgerError:
    where = f"MySQL at {settings.mysql_host}:{settings.mysql_port}"
    if error.errno == errorcode.ER_ACCESS_DENIED_ERROR:
        return account.refused_by(where)
    if error.errno in (errorcode.ER_BAD_DB_ERROR, errorcode.ER_DBACCESS_DENIED_ERROR):
        return ConfigurationError(
            f"MYSQL_DATABASE is {database!r}; it should be a database of {where} that {account.user!r} may use: "
            "'dbt seed' and 'dbt run' make its tables and grant them"
        )
    if (isinstance(error, ProgrammingError) and _is_the_servers(error.errno)) or error.errno == _BROKEN_VIEW:
        return ConfigurationError(
            f"MYSQL_DATABASE is {database!r}; {where} refuses a statement: {first_sentence(error)};"
            " 'dbt seed' and 'dbt run' make its tables and grant them"
        )
    if error.errno in _REFUSED_VALUES:
        return ConfigurationError(
            f"MYSQL_DATABASE is {database!r}; {where} refuses a value: {first_sentence(error)};"
            f" '{RUN}tickledger check-contract' says whether its tables are as they should be"
        )
    if error.errno in _READ_ONLY:
        return StoreReadOnly(read_only_line(settings))
    if isinstance(error, DataError | IntegrityError | NotSupportedError) and _is_the_servers(error.errno):
        return TickledgerError(f"{where} does not take what this program sends: {first_sentence(error)}")
    if settings.mysql_ca_file != NO_FILE and re.search(r"SSL|TLS|certificate", str(error.msg)):
        address = f"{settings.mysql_host}:{settings.mysql_port}"
        return certificate_refused(
            "MYSQL_CA_FILE", settings.mysql_ca_file, address, first_sentence(error), "MYSQL_HOST"
        )
    return StoreUnavailable(f"{where} (MYSQL_HOST, MYSQL_PORT) does not answer: {first_sentence(error)}")


def check_writable(settings: Settings, account: Account | None = None) -> None:
    """Raise StoreReadOnly if MySQL takes no writes. `account`, the stream's by default, is who asks."""
    with mysql(settings, account, database="") as connection:
        # Where super_read_only is set, this is too. A superuser may write in spite of it, and must not.
        if fetch_rows(connection, "SELECT @@GLOBAL.read_only")[0][0] not in (0, "OFF"):
            raise StoreReadOnly(read_only_line(settings))


def read_only_line(settings: Settings) -> str:
    """The one line about a server that only reads."""
    return (
        f"MYSQL_HOST is {settings.mysql_host!r}; MySQL at {settings.mysql_host}:{settings.mysql_port} is read-only,"
        " as a replica is: it should be the primary's name"
    )


def _is_the_servers(errno: int) -> bool:
    # Numbers from 2000 on are the driver's: for it, a cursor whose connection is gone is a programming error too.
    return 1000 <= errno < 2000 or errno >= 3000


def close_quietly(connection: MySQLConnectionAbstract) -> None:
    """Close a connection; one that is lost needs no closing."""
    with suppress(mysql_driver.Error, OSError):
        connection.close()


def fetch_rows(connection: MySQLConnectionAbstract, query: str, values: Any = ()) -> list[Any]:
    """All rows of one query, with its values bound by place or name. Raises what the driver raises."""
    cursor = connection.cursor()
    try:
        cursor.execute(query, values)
        return list(cursor.fetchall())
    finally:
        cursor.close()


def first_sentence(error: mysql_driver.Error) -> str:
    """What the connector says, without the advice that it adds for programmers on further lines."""
    return " ".join(str(error.msg).split()).partition(". ")[0]


@contextmanager
def cassandra(settings: Settings, account: Account | None = None, *, keyspace: str | None = None) -> Iterator[Session]:
    """A session as of :func:`connect_cassandra` for the block.

    What the driver raises in the block is translated as by :func:`cassandra_errors`.
    """
    with cassandra_errors():
        session = connect_cassandra(settings, account, keyspace=keyspace)
        try:
            yield session
        finally:
            session.cluster.shutdown()


def connect_cassandra(settings: Settings, account: Account | None = None, *, keyspace: str | None = None) -> Session:
    """Open a session on the settings' keyspace or another, for who keeps it longer than a block; '' opens it on none.

    `account` is the stream's unless another is given. The session reconnects by itself; close it with
    `session.cluster.shutdown()`. Raises ConfigurationError for a missing or wrong user or password or a wrong keyspace,
    and StoreUnavailable where nothing answers.
    """
    # The driver logs every failed attempt with a traceback; callers say it in one line.
    logging.getLogger("cassandra").setLevel(logging.CRITICAL)
    account = (account or settings.cassandra).required()
    keyspace = settings.cassandra_keyspace if keyspace is None else keyspace
    where = f"{','.join(settings.cassandra_hosts)}:{settings.cassandra_port}"
    avoiding = _policy(settings)
    cluster = _cluster(settings, PlainTextAuthProvider(account.user, account.password.get_secret_value()), avoiding)
    try:
        session = cluster.connect(keyspace or None)
        avoiding.watch(session)
        return session
    except Exception as error:
        cluster.shutdown()
        check_cassandra_certificate(settings)
        _check_datacenter(settings, cluster, where)
        raise _connect_error(error, where, keyspace, account) from None


@contextmanager
def cassandra_errors() -> Iterator[None]:
    """Turn what Cassandra's driver raises into a TickledgerError, as :func:`cassandra_error`."""
    try:
        yield
    except CASSANDRA_ERRORS as error:
        raise cassandra_error(error) from None


def cassandra_error(error: Exception) -> TickledgerError:
    """What one of :data:`CASSANDRA_ERRORS` means: StoreUnavailable only if the same request may succeed later."""
    by_host = error.errors if isinstance(error, NoHostAvailable) else {}
    causes = list(by_host.values()) if isinstance(by_host, dict) and by_host else [error]
    # One host that may take the request later is enough.
    inner = next((cause for cause in causes if _may_pass(cause)), causes[0])
    if _is_away(inner):
        return StoreUnavailable(f"Cassandra (CASSANDRA_HOSTS, CASSANDRA_PORT) does not answer: {_TOO_FEW}")
    if isinstance(inner, RequestValidationException | protocol.RequestValidationException):
        return ConfigurationError(
            f"Cassandra refuses a request: {' '.join(str(inner).split())}; '{RUN}tickledger doctor' says what its"
            " tables and roles lack"
        )
    said = " ".join(f"{type(inner).__name__}: {getattr(inner, 'message', inner)}".split())
    if not isinstance(inner, _MAY_PASS):
        return TickledgerError(f"Cassandra does not take what this program sends, an error in the program: {said}")
    if isinstance(inner, protocol.ServerError):
        return StoreUnavailable(f"Cassandra (CASSANDRA_HOSTS, CASSANDRA_PORT) answers with {said}")
    return StoreUnavailable(f"Cassandra (CASSANDRA_HOSTS, CASSANDRA_PORT) does not answer: {type(inner).__name__}")


#: What stands behind a refusal that is none.
_TOO_FEW = "too few of its nodes are up to look accounts up"


def _may_pass(cause: Exception) -> bool:
    """Whether the same request may succeed later, or at another node."""
    return isinstance(cause, _MAY_PASS) or _is_away(cause)


def _is_away(cause: Exception) -> bool:
    """Whether a node refuses because too few of the replicas that hold accounts and rights answer it."""
    return "Unable to perform auth" in str(cause)


def _policy(settings: Settings) -> AvoidingPolicy:
    datacenter = "" if settings.cassandra_datacenter == NO_DATACENTER else settings.cassandra_datacenter
    return AvoidingPolicy(DCAwareRoundRobinPolicy(datacenter), _may_pass)


def _cluster(settings: Settings, accounts: PlainTextAuthProvider, policy: AvoidingPolicy) -> Cluster:
    return Cluster(
        # As end points, not as names: the driver looks a name up once, an end point at every connection. A node that
        # comes back may have another address, such as a container's.
        contact_points=[DefaultEndPoint(host, settings.cassandra_port) for host in settings.cassandra_hosts],
        port=settings.cassandra_port,
        auth_provider=accounts,
        **cassandra_options(settings),
        connect_timeout=CONNECT_SECONDS,
        # A connection that is silent for so long is asked, and given up if it does not answer for as long as a request.
        idle_heartbeat_interval=10,
        idle_heartbeat_timeout=CASSANDRA_REQUEST_SECONDS,
        compression=False,
        # The driver sends in 4 KiB chunks; Nagle's algorithm makes each wait for the one before it.
        sockopts=[(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)],
        reconnection_policy=ConstantReconnectionPolicy(1.0, max_attempts=None),
        execution_profiles={
            EXEC_PROFILE_DEFAULT: ExecutionProfile(
                load_balancing_policy=policy,
                # With replicas, a tick that was acknowledged is seen by the next read.
                consistency_level=ConsistencyLevel.name_to_value[settings.cassandra_consistency],
                request_timeout=CASSANDRA_REQUEST_SECONDS,
            )
        },
    )


def _check_datacenter(settings: Settings, cluster: Cluster, where: str) -> None:
    """Raise ConfigurationError if a node answered, and CASSANDRA_DATACENTER is none of those that it knows."""
    known = sorted({str(host.datacenter) for host in cluster.metadata.all_hosts() if host.datacenter})
    if known and settings.cassandra_datacenter not in (NO_DATACENTER, *known):
        raise ConfigurationError(
            f"CASSANDRA_DATACENTER is {settings.cassandra_datacenter!r}; it should be one of Cassandra at {where}:"
            f" {', '.join(known)}"
        )


def _connect_error(error: Exception, where: str, keyspace: str, account: Account) -> TickledgerError:
    if isinstance(error, NoHostAvailable) and isinstance(error.errors, list):
        # So the driver says that hosts answered, but none took the keyspace.
        return ConfigurationError(f"CASSANDRA_KEYSPACE is {keyspace!r}; it should be a keyspace at {where}")
    causes: list[Any] = list(error.errors.values()) if isinstance(error, NoHostAvailable) else [error]
    if any(isinstance(cause, AuthenticationFailed | Unauthorized) and not _is_away(cause) for cause in causes):
        return account.refused_by(f"Cassandra at {where}")
    if any(isinstance(cause, InvalidRequest) for cause in causes):
        return ConfigurationError(f"CASSANDRA_KEYSPACE is {keyspace!r}; it should be a keyspace at {where}")
    why = f": {type(causes[0]).__name__}" if causes else ""
    if any(map(_is_away, causes)):
        why = f": {_TOO_FEW}"
    if causes and all(isinstance(cause, socket.gaierror) for cause in causes):
        # Where containers run, that of one that is down has none.
        why = ": no such host name"
    return StoreUnavailable(f"Cassandra at {where} (CASSANDRA_HOSTS, CASSANDRA_PORT) does not answer{why}")
