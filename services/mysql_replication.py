"""MariaDB's primary and its replica: who leads, who follows, and by which account. Runs with the superuser."""

import secrets
import time
from typing import Any

from mysql.connector.abstracts import MySQLConnectionAbstract

from tickledger.errors import TickledgerError
from tickledger.settings import NO_FILE, Settings
from tickledger.stores import fetch_rows, mysql

#: The options of a server that leads or follows. A commit is answered once the replica has it too, if one is connected;
#: where that one is away for ten seconds, without it.
OPTIONS = """server-id={node}
log-bin={data}/binlog
relay-log={data}/relay
log-slave-updates=ON
binlog-format=ROW
sync-binlog=1
gtid-strict-mode=ON
rpl-semi-sync-master-enabled=ON
rpl-semi-sync-master-wait-point=AFTER_SYNC
rpl-semi-sync-master-wait-no-slave=OFF
rpl-semi-sync-slave-enabled=ON
read-only={read_only}
"""
#: What a statement needs in front of it that is of this server alone.
UNLOGGED = "SET SESSION sql_log_bin = 0"
FOLLOW_SECONDS = 30
#: Less than what a client waits for an answer.
APPLY_SECONDS = 15
_ACCOUNT = "tickledger_replica"


def lead(settings: Settings) -> None:
    """Let the server of the settings follow nobody and take writes. One that does already stays as it is.

    Raises TickledgerError where it has not applied all that it has received: the primary has answered those commits.
    """
    with mysql(settings, settings.mysql_root, database="mysql") as connection:
        cursor = connection.cursor()
        if _status(connection):
            # While it still receives, or what it cannot apply in time would be missing at the primary's next commit.
            _wait_until_applied(connection, settings)
            cursor.execute("STOP SLAVE IO_THREAD")
            _wait_until_applied(connection, settings)
            cursor.execute("STOP SLAVE")
            cursor.execute("RESET SLAVE ALL")
        cursor.execute("SET GLOBAL read_only = 0")


def follow(settings: Settings, primary: Settings, clients: str) -> None:
    """Let the server of `settings` follow that of `primary`, from where it is, and only read.

    Its account there, for clients of the hosts `clients`, gets another password each time, which nobody else has.
    Raises TickledgerError where it does not follow, such as a former primary that has commits of its own.
    """
    account, password = (_ACCOUNT, clients), secrets.token_urlsafe(24)
    with mysql(primary, primary.mysql_root, database="mysql") as connection:
        cursor = connection.cursor()
        cursor.execute(UNLOGGED)
        cursor.execute("CREATE USER IF NOT EXISTS %s@%s IDENTIFIED BY %s", (*account, password))
        cursor.execute("ALTER USER %s@%s IDENTIFIED BY %s", (*account, password))
        cursor.execute("GRANT REPLICATION SLAVE ON *.* TO %s@%s", account)
    with mysql(settings, settings.mysql_root, database="mysql") as connection:
        cursor = connection.cursor()
        cursor.execute("SET GLOBAL read_only = 1")
        ((logged,),) = fetch_rows(connection, "SELECT @@GLOBAL.gtid_binlog_pos")
        if _status(connection):
            cursor.execute("STOP SLAVE")
        elif logged:
            # It has led until now.
            cursor.execute("SET GLOBAL gtid_slave_pos = %s", (logged,))
        tls = ("1", primary.mysql_ca_file) if primary.mysql_ca_file != NO_FILE else ("0", "")
        cursor.execute(
            "CHANGE MASTER TO MASTER_HOST = %s, MASTER_PORT = %s, MASTER_USER = %s, MASTER_PASSWORD = %s,"
            f" MASTER_USE_GTID = slave_pos, MASTER_CONNECT_RETRY = 1, MASTER_SSL = {tls[0]}, MASTER_SSL_CA = %s",
            (primary.mysql_host, primary.mysql_port, _ACCOUNT, password, tls[1]),
        )
        cursor.execute("START SLAVE")
        _wait(connection, settings)


def _wait_until_applied(connection: MySQLConnectionAbstract, settings: Settings) -> None:
    """Wait until a replica has applied what it has received. Raises TickledgerError where it does not do so."""
    where, status = f"MySQL at {settings.mysql_host}:{settings.mysql_port}", _status(connection)
    if status["Slave_SQL_Running"] != "Yes":
        # Started now, it would throw away what it has received (MariaDB, "Global Transaction ID": relay logs).
        raise TickledgerError(
            f"{where} cannot lead: it does not apply what it has received ({_error(status) or 'it was stopped'});"
            " 'RESET SLAVE ALL' there gives that up"
        )
    query = "SELECT MASTER_GTID_WAIT(%s, %s)"
    ((applied,),) = fetch_rows(connection, query, (status["Gtid_IO_Pos"], APPLY_SECONDS))
    if applied != 0:
        raise TickledgerError(f"{where} cannot lead yet: it still applies what it has received; start again")


def why_it_stands(settings: Settings) -> str:
    """Why a replica does not follow its primary; empty where it does."""
    with mysql(settings, settings.mysql_root, database="mysql") as connection:
        return _problem(_status(connection))


def _wait(connection: MySQLConnectionAbstract, settings: Settings) -> None:
    deadline = time.monotonic() + FOLLOW_SECONDS
    while problem := _problem(status := _status(connection)):
        gave_up = "No" in (status["Slave_IO_Running"], status["Slave_SQL_Running"]) and _error(status)
        if gave_up or time.monotonic() > deadline:
            raise TickledgerError(
                f"MySQL at {settings.mysql_host}:{settings.mysql_port} {problem};"
                " docs/clusters.md, 'One on this machine', says how it begins anew"
            )
        time.sleep(0.2)


def _problem(status: dict[str, Any]) -> str:
    if not status:
        return "follows nobody"
    if status["Slave_IO_Running"] == status["Slave_SQL_Running"] == "Yes":
        return ""
    said = _error(status) or status["Slave_IO_State"] or "it was stopped"
    return f"does not follow {status['Master_Host']}: {' '.join(said.split())}"


def _error(status: dict[str, Any]) -> str:
    return str(status["Last_SQL_Error"] or status["Last_IO_Error"])


def _status(connection: MySQLConnectionAbstract) -> dict[str, Any]:
    """What SHOW SLAVE STATUS says, by its column; nothing where the server follows nobody."""
    cursor: Any = connection.cursor(dictionary=True)
    cursor.execute("SHOW SLAVE STATUS")
    rows = cursor.fetchall()
    cursor.close()
    return dict(rows[0]) if rows else {}
