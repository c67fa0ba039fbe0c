"""What each account must not do, tried on the real stores, and refused with the store's own code for that."""

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import mysql.connector
import pytest
from cassandra import AuthenticationFailed, Unauthorized
from cassandra.auth import PlainTextAuthProvider
from cassandra.cluster import Cluster, NoHostAvailable, Session
from dotenv import dotenv_values
from mysql.connector import errorcode

from services.instance import Instance
from tests.support.pipeline import Pipeline, StreamProcess, cassandra_admin
from tickledger.settings import PROJECT_ROOT, Settings
from tickledger.stores import connect_cassandra, connect_mysql, fetch_rows

#: The accounts' names in the settings.
STREAM, DBT, PRODUCER, DASHBOARD = "mysql", "dbt_mysql", "producer_mysql", "dashboard_mysql"

MYSQL: dict[str, tuple[str, str, int]] = {
    # what must not be -> (who, tries, the server's code)
    "producer may not read aggregated_data": (PRODUCER, "SELECT * FROM aggregated_data", 1142),
    "producer may not read the ledger": (PRODUCER, "SELECT * FROM landed_batches", 1142),
    "producer may not read a view": (PRODUCER, "SELECT * FROM volume_today", 1142),
    "producer may not write profile": (PRODUCER, "UPDATE profile SET shares = 1", 1142),
    "producer may not create a table": (PRODUCER, "CREATE TABLE more (id INT)", 1142),
    "producer may not create a temporary table": (PRODUCER, "CREATE TEMPORARY TABLE more (id INT)", 1044),
    "stream may not create a temporary table": (STREAM, "CREATE TEMPORARY TABLE more (id INT)", 1044),
    "dashboard may not insert into the ledger": (DASHBOARD, "INSERT INTO landed_batches (batch_id) VALUES (1)", 1142),
    "dashboard may not set a verdict": (DASHBOARD, "UPDATE landed_batches SET verdict = 'passed'", 1142),
    "dashboard may not delete from aggregated_data": (DASHBOARD, "DELETE FROM aggregated_data", 1142),
    "dashboard may not empty a table": (DASHBOARD, "TRUNCATE batch_findings", 1142),
    "dashboard may not write profile": (DASHBOARD, "DELETE FROM profile", 1142),
    "dashboard may not create a table": (DASHBOARD, "CREATE TABLE more (id INT)", 1142),
    "dashboard may not create a view": (DASHBOARD, "CREATE VIEW more AS SELECT 1", 1142),
    "dashboard may not drop a view": (DASHBOARD, "DROP VIEW volume_today", 1142),
    "dashboard may not read accounts": (DASHBOARD, "SELECT * FROM mysql.user", 1142),
    "dashboard may not lock the stream out": (DASHBOARD, "SELECT part FROM stream_lock FOR UPDATE", 1142),
    "producer may not lock the stream out": (PRODUCER, "SELECT part FROM stream_lock LOCK IN SHARE MODE", 1142),
    "dashboard may not lock the table of the lock": (DASHBOARD, "LOCK TABLES stream_lock WRITE", 1044),
    "stream may not drop a table": (STREAM, "DROP TABLE landed_batches", 1142),
    "stream may not alter a table": (STREAM, "ALTER TABLE landed_batches ADD COLUMN more INT", 1142),
    "stream may not create a table": (STREAM, "CREATE TABLE more (id INT)", 1142),
    "stream may not create a view": (STREAM, "CREATE VIEW more AS SELECT 1", 1142),
    "stream may not write profile": (STREAM, "UPDATE profile SET sector = 'Coal'", 1142),
    "stream may not change aggregated_data": (STREAM, "UPDATE aggregated_data SET total_volume = 1", 1142),
    "stream may not delete from aggregated_data": (STREAM, "DELETE FROM aggregated_data", 1142),
    "stream may not delete from the ledger": (STREAM, "DELETE FROM landed_batches", 1142),
    "stream may not change a profile that is kept": (STREAM, "UPDATE profile_versions SET sector = 'Coal'", 1142),
    "stream may not change the ledger's offsets": (STREAM, "UPDATE landed_offsets SET until_offset = 9", 1142),
    "stream may not write daily_volume": (STREAM, "DELETE FROM daily_volume", 1142),
    "stream may not write company_hours": (STREAM, "DELETE FROM company_hours", 1142),
    "stream may not create a database": (STREAM, "CREATE DATABASE trading_more", 1044),
    "stream may not create users": (STREAM, "CREATE USER more IDENTIFIED BY 'more'", 1227),
    "stream may not grant what it may": (STREAM, "GRANT SELECT ON landed_batches TO role_producer", 1142),
    "stream may not read accounts": (STREAM, "SELECT * FROM mysql.user", 1142),
    "dbt may not create another database": (DBT, "CREATE DATABASE elsewhere", 1044),
    "dbt may not drop another database": (DBT, "DROP DATABASE mysql", 1044),
    "dbt may not make a table elsewhere": (DBT, "CREATE TABLE mysql.more (id INT)", 1142),
    "dbt may not read accounts": (DBT, "SELECT * FROM mysql.user", 1142),
    "dbt may not grant elsewhere": (DBT, "GRANT SELECT ON mysql.user TO role_producer", 1142),
    "dbt may not create users": (DBT, "CREATE USER more IDENTIFIED BY 'more'", 1227),
    "dbt may not set the server": (DBT, "SET GLOBAL max_connections = 1", 1227),
}

_DEAD_LETTER = "topic = 't' AND kafka_partition = 0 AND offset_bucket = 0 AND kafka_offset = 0 AND position = 0"
CASSANDRA: dict[str, tuple[str, str]] = {
    # what must not be -> (who, tries)
    "stream may not create a table in Cassandra": ("cassandra", "CREATE TABLE more (id int PRIMARY KEY)"),
    "stream may not drop a table in Cassandra": ("cassandra", "DROP TABLE dead_letters"),
    "stream may not alter a table in Cassandra": ("cassandra", "ALTER TABLE real_time_data ADD more int"),
    "stream may not create a keyspace": (
        "cassandra",
        "CREATE KEYSPACE more WITH replication = {'class': 'SimpleStrategy', 'replication_factor': 1}",
    ),
    "stream may not create roles": ("cassandra", "CREATE ROLE more WITH LOGIN = true"),
    "stream may not read Cassandra's roles": ("cassandra", "SELECT role FROM system_auth.roles"),
    "dashboard may not write to Cassandra": (
        "dashboard_cassandra",
        "INSERT INTO dead_letters (topic, kafka_partition, offset_bucket, kafka_offset, position)"
        " VALUES ('t', 0, 0, 0, 0)",
    ),
    "dashboard may not change a dead letter": (
        "dashboard_cassandra",
        f"UPDATE dead_letters SET reason = 'x' WHERE {_DEAD_LETTER}",
    ),
    "dashboard may not delete a dead letter": ("dashboard_cassandra", f"DELETE FROM dead_letters WHERE {_DEAD_LETTER}"),
    "dashboard may not empty a table in Cassandra": ("dashboard_cassandra", "TRUNCATE real_time_data"),
    "dashboard may not drop a table in Cassandra": ("dashboard_cassandra", "DROP TABLE real_time_data"),
    "dashboard may not create a table in Cassandra": ("dashboard_cassandra", "CREATE TABLE more (id int PRIMARY KEY)"),
    "dashboard may not read Cassandra's roles": ("dashboard_cassandra", "SELECT role FROM system_auth.roles"),
}

#: Stands for the password that the user has in MySQL.
OWN = "that of MySQL"
LOGINS: dict[str, tuple[str, str, str]] = {
    # what must not be -> (store, user, password)
    "root has no empty password": ("MySQL", "root", ""),
    "root has no password that is guessed first": ("MySQL", "root", "root"),
    "MySQL knows nobody without a name": ("MySQL", "", ""),
    "a role of MySQL cannot log in": ("MySQL", "role_dashboard", ""),
    "cassandra/cassandra cannot log in": ("Cassandra", "cassandra", "cassandra"),
    "Cassandra knows nobody without a name": ("Cassandra", "", ""),
    "our superuser of Cassandra has no default password": ("Cassandra", "tickledger_admin", "tickledger_admin"),
    "producer has no role in Cassandra": ("Cassandra", "tickledger_producer", OWN),
    "dbt has no role in Cassandra": ("Cassandra", "tickledger_dbt", OWN),
}

LEDGER = ("landed_batches", "landed_offsets", "skipped_offsets")
#: What each account needs: a refusal says nothing if the account can do nothing at all.
MAY = {
    STREAM: (
        "profile",
        "exchange",
        "aggregated_data",
        "landed_batches",
        "landed_offsets",
        "skipped_offsets",
        "batch_findings",
        "daily_volume",
        "company_hours",
        "filled_days",
    ),
    PRODUCER: ("profile", "exchange"),
    DASHBOARD: (
        "profile",
        "exchange",
        "landed_batches",
        "landed_offsets",
        "skipped_offsets",
        "batch_findings",
        "volume_today",
        "batch_health",
        "volume_by_hour",
        "volume_by_company",
        "corrections_by_day",
        "volume_by_day_as_seen",
    ),
    DBT: ("profile", "aggregated_data", "landed_batches", "volume_today"),
}


@pytest.fixture(scope="module")
def cassandra_sessions(stores: Pipeline) -> Iterator[dict[str, Session]]:
    """A session of each account."""
    settings = stores.settings
    accounts = {"cassandra": settings.cassandra, "dashboard_cassandra": settings.dashboard_cassandra}
    sessions = {name: connect_cassandra(settings, account) for name, account in accounts.items()}
    yield sessions
    for session in sessions.values():
        session.cluster.shutdown()


@pytest.mark.integration
@pytest.mark.parametrize(("who", "tries", "code"), MYSQL.values(), ids=MYSQL.keys())
def test_mysql_refuses(stores: Pipeline, who: str, tries: str, code: int) -> None:
    with closing(connect_mysql(stores.settings, getattr(stores.settings, who))) as connection:
        with pytest.raises(mysql.connector.Error) as refused:
            connection.cursor().execute(tries)
        assert refused.value.errno == code, refused.value


@pytest.mark.integration
@pytest.mark.parametrize(("who", "tries"), CASSANDRA.values(), ids=CASSANDRA.keys())
def test_cassandra_refuses(cassandra_sessions: dict[str, Session], who: str, tries: str) -> None:
    with pytest.raises(Unauthorized, match="code=2100"):
        cassandra_sessions[who].execute(tries)


@pytest.mark.integration
@pytest.mark.parametrize(("store", "user", "password"), LOGINS.values(), ids=LOGINS.keys())
def test_nobody_else_logs_in(stores: Pipeline, store: str, user: str, password: str) -> None:
    settings = stores.settings
    if store == "MySQL":
        with pytest.raises(mysql.connector.Error) as refused:
            mysql.connector.connect(
                host=settings.mysql_host, port=settings.mysql_port, user=user, password=password, connection_timeout=5
            )
        # A role is a locked account in MySQL, and none in MariaDB.
        locked = {errorcode.ER_ACCOUNT_HAS_BEEN_LOCKED} if user.startswith("role_") else set()
        assert refused.value.errno in {errorcode.ER_ACCESS_DENIED_ERROR, *locked}, refused.value
    else:
        own = {one.user: one.password.get_secret_value() for one in (settings.producer_mysql, settings.dbt_mysql)}
        _refuse_cassandra_login(settings, user, own[user] if password == OWN else password)


def _refuse_cassandra_login(settings: Settings, user: str, password: str) -> None:
    cluster = Cluster(
        list(settings.cassandra_hosts), settings.cassandra_port, auth_provider=PlainTextAuthProvider(user, password)
    )
    try:
        with pytest.raises(NoHostAvailable) as refused:
            cluster.connect()
    finally:
        cluster.shutdown()
    (cause,) = refused.value.errors.values()
    assert isinstance(cause, AuthenticationFailed)
    assert "code=0100" in str(cause)


@pytest.mark.integration
def test_cassandras_default_superuser_is_none_any_more(stores: Pipeline) -> None:
    with cassandra_admin(stores.settings) as admin:
        rows = admin.execute("SELECT role, can_login, is_superuser FROM system_auth.roles")
        roles = {row.role: (row.can_login, row.is_superuser) for row in rows}
    assert roles["cassandra"] == (False, False)
    assert not roles.keys() & {stores.settings.producer_mysql.user, stores.settings.dbt_mysql.user}
    assert [role for role, (_, is_superuser) in roles.items() if is_superuser] == ["tickledger_admin"]


@pytest.mark.integration
@pytest.mark.parametrize("who", MAY)
def test_each_may_read_what_it_needs(stores: Pipeline, who: str) -> None:
    with closing(connect_mysql(stores.settings, getattr(stores.settings, who))) as connection:
        for table in MAY[who]:
            fetch_rows(connection, f"SELECT * FROM {table} LIMIT 1")


@pytest.mark.integration
def test_no_password_is_in_a_process_list_a_log_or_a_repr(
    services: Instance, stores: Pipeline, dbt_template: list[str], tmp_path: Path
) -> None:
    settings = stores.settings
    values = dotenv_values(services.env_file)
    secrets = {name: str(value) for name, value in values.items() if name.endswith("_PASSWORD")}
    assert len(secrets) == 13
    assert not _leaks(secrets, repr(settings), str(settings), repr(stores), *dbt_template)

    page = [str(Path(sys.executable).with_name("streamlit")), "run", "dashboard/app.py", "--server.port", "0"]
    commands = ([sys.executable, "-m", "producer", settings.kafka_topic], page)
    logs = [tmp_path / "producer.log", tmp_path / "dashboard.log"]
    stream = StreamProcess(stores)
    others = [_started(stores, command, log) for command, log in zip(commands, logs, strict=True)]
    try:
        seen: set[str] = set()
        deadline = time.monotonic() + 120
        # Launchers come and go, so the list is looked at all the while.
        while not stores.ledger_covers(1):
            assert stream.process.poll() is None, stream.output
            assert time.monotonic() < deadline, stream.output
            seen |= _command_lines()
            time.sleep(0.2)
        seen |= _command_lines()
        assert all(other.poll() is None for other in others)
    finally:
        stream.process.terminate()
        for other in others:
            other.terminate()
            other.wait(60)
        stream.wait()
    assert all(any(word in line for line in seen) for word in ("stream_ticks.py", "producer", "app.py", "mysql"))
    servers = [server.log_file for server in services.servers()]
    files = [*logs, *servers, PROJECT_ROOT / "dbt_project" / "logs" / "dbt.log"]
    assert not _leaks(secrets, stream.output, *seen, *(file.read_text(errors="replace") for file in files))


def _started(stores: Pipeline, command: list[str], log: Path) -> "subprocess.Popen[bytes]":
    with log.open("wb") as file:
        return subprocess.Popen(command, cwd=PROJECT_ROOT, env=stores.environment, stdout=file, stderr=file)


def _command_lines() -> set[str]:
    """The command line of every process of this machine."""
    lines = set()
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            lines.add(path.read_text(errors="replace").replace("\0", " "))
    return lines


def _leaks(secrets: dict[str, str], *texts: str) -> list[str]:
    """The names, never the values, of the secrets that stand in a text."""
    return [name for name, secret in secrets.items() if any(secret in text for text in texts)]
