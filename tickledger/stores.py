"""Connections to the two stores. Every other module gets them here, so that failures read alike."""

import logging
import re
import socket
from typing import Any, cast

import mysql.connector
from cassandra import AuthenticationFailed, ConsistencyLevel, InvalidRequest, Unauthorized
from cassandra.auth import PlainTextAuthProvider
from cassandra.cluster import EXEC_PROFILE_DEFAULT, Cluster, ExecutionProfile, NoHostAvailable, Session
from cassandra.connection import DefaultEndPoint
from cassandra.policies import ConstantReconnectionPolicy, DCAwareRoundRobinPolicy, TokenAwarePolicy
from mysql.connector import errorcode
from mysql.connector.abstracts import MySQLConnectionAbstract

from tickledger.errors import ConfigurationError, StoreUnavailable
from tickledger.secured import cassandra_options, certificate_refused, check_cassandra_certificate, mysql_options
from tickledger.settings import NO_FILE, Account, Settings

CONNECT_SECONDS = 5
#: A MySQL server that hangs counts as down after this long; longer than any statement or lock wait of ours takes.
ANSWER_SECONDS = 20
CASSANDRA_REQUEST_SECONDS = 15


def connect_mysql(
    settings: Settings,
    account: Account | None = None,
    *,
    database: str | None = None,
    answer_seconds: int = ANSWER_SECONDS,
) -> MySQLConnectionAbstract:
    """Open a MySQL connection in UTC, without autocommit, at READ COMMITTED.

    `account` is the stream's unless another is given. A server that takes longer than `answer_seconds` for one answer
    counts as down. Raises ConfigurationError for a missing or wrong user or password or
    a wrong database, and StoreUnavailable where nothing answers.
    """
    where = f"{settings.mysql_host}:{settings.mysql_port}"
    account = (account or settings.mysql).required()
    database = settings.mysql_database if database is None else database
    try:
        connection: Any = mysql.connector.connect(
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
    except mysql.connector.Error as error:
        if error.errno == errorcode.ER_ACCESS_DENIED_ERROR:
            raise ConfigurationError(
                f"{account.prefix}_USER is {account.user!r}; MySQL at {where} refuses it: "
                f"{account.prefix}_USER and {account.prefix}_PASSWORD should name an account of that server"
            ) from None
        if error.errno in (errorcode.ER_BAD_DB_ERROR, errorcode.ER_DBACCESS_DENIED_ERROR):
            raise ConfigurationError(
                f"MYSQL_DATABASE is {database!r}; it should be a database of MySQL at {where} that {account.user!r}"
                " may use: 'dbt seed' and 'dbt run' make its tables and grant them"
            ) from None
        if settings.mysql_ca_file != NO_FILE and re.search(r"SSL|TLS|certificate", str(error.msg)):
            reason = first_sentence(error)
            raise certificate_refused("MYSQL_CA_FILE", settings.mysql_ca_file, where, reason, "MYSQL_HOST") from None
        raise StoreUnavailable(
            f"MySQL at {where} (MYSQL_HOST, MYSQL_PORT) does not answer: {first_sentence(error)}"
        ) from None
    return cast(MySQLConnectionAbstract, connection)


def fetch_rows(connection: MySQLConnectionAbstract, query: str, values: Any = ()) -> list[Any]:
    """All rows of one query, with its values bound by place or name. Raises mysql.connector.Error."""
    cursor = connection.cursor()
    try:
        cursor.execute(query, values)
        return list(cursor.fetchall())
    finally:
        cursor.close()


def first_sentence(error: mysql.connector.Error) -> str:
    """What the connector says, without the advice that it adds for programmers on further lines."""
    return " ".join(str(error.msg).split()).partition(". ")[0]


def connect_cassandra(settings: Settings, account: Account | None = None, *, keyspace: str | None = None) -> Session:
    """Open a Cassandra session on the settings' keyspace or another; an empty `keyspace` opens it on none.

    `account` is the stream's unless another is given. The session reconnects by itself; close it with
    `session.cluster.shutdown()`. Raises ConfigurationError for a missing or wrong user or password or a wrong keyspace,
    and StoreUnavailable where nothing answers.
    """
    # The driver logs every failed attempt with a traceback; callers say it in one line.
    logging.getLogger("cassandra").setLevel(logging.CRITICAL)
    account = (account or settings.cassandra).required()
    keyspace = settings.cassandra_keyspace if keyspace is None else keyspace
    where = f"{','.join(settings.cassandra_hosts)}:{settings.cassandra_port}"
    cluster = _cluster(settings, PlainTextAuthProvider(account.user, account.password.get_secret_value()))
    try:
        return cluster.connect(keyspace or None)
    except Exception as error:
        cluster.shutdown()
        check_cassandra_certificate(settings)
        raise _cassandra_error(error, where, keyspace, account) from None


def _cluster(settings: Settings, accounts: PlainTextAuthProvider) -> Cluster:
    return Cluster(
        # As end points, not as names: the driver looks a name up once, an end point at every connection. A node that
        # comes back may have another address, such as a container's.
        contact_points=[DefaultEndPoint(host, settings.cassandra_port) for host in settings.cassandra_hosts],
        port=settings.cassandra_port,
        auth_provider=accounts,
        **cassandra_options(settings),
        connect_timeout=CONNECT_SECONDS,
        compression=False,
        # The driver sends in 4 KiB chunks; Nagle's algorithm makes each wait for the one before it.
        sockopts=[(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)],
        reconnection_policy=ConstantReconnectionPolicy(1.0, max_attempts=None),
        execution_profiles={
            EXEC_PROFILE_DEFAULT: ExecutionProfile(
                load_balancing_policy=TokenAwarePolicy(DCAwareRoundRobinPolicy()),
                # With replicas, a tick that was acknowledged is seen by the next read.
                consistency_level=ConsistencyLevel.LOCAL_QUORUM,
                request_timeout=CASSANDRA_REQUEST_SECONDS,
            )
        },
    )


def _cassandra_error(error: Exception, where: str, keyspace: str, account: Account) -> Exception:
    if isinstance(error, NoHostAvailable) and isinstance(error.errors, list):
        # So the driver says that hosts answered, but none took the keyspace.
        return ConfigurationError(f"CASSANDRA_KEYSPACE is {keyspace!r}; it should be a keyspace at {where}")
    causes: list[Any] = list(error.errors.values()) if isinstance(error, NoHostAvailable) else [error]
    if any(isinstance(cause, AuthenticationFailed | Unauthorized) for cause in causes):
        return ConfigurationError(
            f"{account.prefix}_USER is {account.user!r}; Cassandra at {where} refuses it: "
            f"{account.prefix}_USER and {account.prefix}_PASSWORD should name a role of that cluster"
        )
    if any(isinstance(cause, InvalidRequest) for cause in causes):
        return ConfigurationError(f"CASSANDRA_KEYSPACE is {keyspace!r}; it should be a keyspace at {where}")
    why = f": {type(causes[0]).__name__}" if causes else ""
    if causes and all(isinstance(cause, socket.gaierror) for cause in causes):
        # Where containers run, that of one that is down has none.
        why = ": no such host name"
    return StoreUnavailable(f"Cassandra at {where} (CASSANDRA_HOSTS, CASSANDRA_PORT) does not answer{why}")
