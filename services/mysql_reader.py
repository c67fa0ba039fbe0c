"""MySQL's account of the dashboard, which may read and nothing else, wherever the server runs."""

from collections.abc import Sequence

from mysql.connector.abstracts import MySQLConnectionAbstract

from streaming.errors import ConfigurationError
from streaming.settings import Settings
from streaming.stores import connect_mysql


def refuse_taken_name(settings: Settings) -> None:
    """Raise ConfigurationError where DASHBOARD_MYSQL_USER is empty or the name of another account."""
    if settings.dashboard_mysql_user in ("", "root", settings.mysql_user):
        raise ConfigurationError(
            f"DASHBOARD_MYSQL_USER is {settings.dashboard_mysql_user!r}; it should be a name other than root and that "
            "of MYSQL_USER"
        )


def create_reader(settings: Settings, hosts: Sequence[str]) -> None:
    """Create or renew DASHBOARD_MYSQL_USER for clients from `hosts`; its password becomes the settings' at every run.

    It may SELECT from MYSQL_DATABASE and from databases whose names begin so, which are the tests'. Logs in as root.
    """
    refuse_taken_name(settings)
    user = settings.dashboard_mysql_user
    password = settings.dashboard_mysql_password.get_secret_value()
    pattern = settings.mysql_database.replace("_", r"\_") + "%"
    connection = _connect_root(settings)
    try:
        cursor = connection.cursor()
        for host in hosts:
            cursor.execute("CREATE USER IF NOT EXISTS %s@%s IDENTIFIED BY %s", (user, host, password))
            cursor.execute("ALTER USER %s@%s IDENTIFIED BY %s", (user, host, password))
            cursor.execute(f"GRANT SELECT ON `{pattern}`.* TO %s@%s", (user, host))
    finally:
        connection.close()


def _connect_root(settings: Settings) -> MySQLConnectionAbstract:
    try:
        return connect_mysql(settings, user="root", password=settings.mysql_root_password, database="mysql")
    except ConfigurationError:
        raise ConfigurationError(
            "MYSQL_ROOT_PASSWORD is (hidden); it should be the one that MySQL at "
            f"{settings.mysql_host}:{settings.mysql_port} was started with"
        ) from None
