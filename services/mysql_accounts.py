"""MySQL's accounts, one for each part, wherever the server runs. Rights on tables dbt grants to their roles."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from tickledger.errors import ConfigurationError
from tickledger.settings import Account, Settings
from tickledger.stores import check_writable, fetch_rows, mysql

_DDL = (
    "SELECT, INSERT, UPDATE, DELETE, CREATE, DROP, ALTER, INDEX, CREATE VIEW, SHOW VIEW, CREATE TEMPORARY TABLES,"
    " GRANT OPTION"
)


class Rights(NamedTuple):
    """An account, the role that dbt grants to, and the rights in the whole database."""

    account: Account
    role: str
    everywhere: str = ""


def rights_of(settings: Settings) -> tuple[Rights, ...]:
    """Each account's. The roles are those of `grants` in dbt_project/: a table's rights are given where it is made."""
    return (
        Rights(settings.dbt_mysql, "", _DDL),
        Rights(settings.mysql, "role_stream"),
        Rights(settings.producer_mysql, "role_producer"),
        Rights(settings.dashboard_mysql, "role_dashboard"),
    )


def refuse_taken_names(settings: Settings) -> None:
    """Raise ConfigurationError if an account is not set, or has the name of the superuser, of a role or of another."""
    root = settings.mysql_root.user
    taken = {root, *(one.role for one in rights_of(settings))}
    for account in (one.account.required() for one in rights_of(settings)):
        if account.user in taken:
            raise ConfigurationError(
                f"{account.prefix}_USER is {account.user!r}; it should be a name that neither {root}, nor a role, "
                "nor another account has"
            )
        taken.add(account.user)


def create_accounts(settings: Settings, hosts: Sequence[str] = ()) -> None:
    """Create or renew the accounts for clients from `hosts`; their passwords become the settings' at every run.

    Without `hosts` for those from which the superuser may log in. The rights of dbt hold in MYSQL_DATABASE and in
    databases whose names begin so, which are the tests'. Logs in as MYSQL_ROOT_USER. Raises StoreReadOnly for a
    replica, which must have no commit of its own.
    """
    refuse_taken_names(settings)
    check_writable(settings, settings.mysql_root)
    with mysql(settings, settings.mysql_root, database="mysql") as connection:
        cursor = connection.cursor()
        hosts = hosts or (fetch_rows(connection, "SELECT CURRENT_USER()")[0][0].rpartition("@")[2],)
        is_mariadb = "MariaDB" in fetch_rows(connection, "SELECT VERSION()")[0][0]
        for rights in rights_of(settings):
            if rights.role:
                cursor.execute(f"CREATE ROLE IF NOT EXISTS {rights.role}")
            for host in hosts:
                user = _renew(cursor, settings, rights, host)
                if rights.role:
                    cursor.execute(f"GRANT {rights.role} TO %s@%s", user)
                    cursor.execute(f"SET DEFAULT ROLE {rights.role} {'FOR' if is_mariadb else 'TO'} %s@%s", user)


def _renew(cursor: Any, settings: Settings, rights: Rights, host: str) -> tuple[str, str]:
    password = rights.account.password
    user = (rights.account.user, host)
    pattern = settings.mysql_database.replace("_", r"\_") + "%"
    cursor.execute("CREATE USER IF NOT EXISTS %s@%s IDENTIFIED BY %s", (*user, password.get_secret_value()))
    cursor.execute("ALTER USER %s@%s IDENTIFIED BY %s", (*user, password.get_secret_value()))
    cursor.execute("SELECT COUNT(*) FROM mysql.db WHERE user = %s AND host = %s", user)
    ((had_all,),) = cursor.fetchall()
    if rights.role and had_all:
        # An older tickledger gave rights in the whole database.
        cursor.execute("REVOKE ALL PRIVILEGES, GRANT OPTION FROM %s@%s", user)
    if rights.everywhere:
        cursor.execute(f"GRANT {rights.everywhere} ON `{pattern}`.* TO %s@%s", user)
    return user
