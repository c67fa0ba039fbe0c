"""Cassandra's superuser, the roles of clients and dashboard, their keyspace and its tables, wherever the node runs."""

from collections import defaultdict
from collections.abc import Iterator
from contextlib import AbstractContextManager

from cassandra.cluster import Session
from pydantic import SecretStr

from tickledger.errors import CertificateRefused, ConfigurationError, StoreUnavailable
from tickledger.replicas import check_there_are_nodes, nodes_by_datacenter, replication_map, wanted_replicas
from tickledger.settings import ADMIN, Account, Settings
from tickledger.stores import cassandra
from tickledger.tick import cassandra_columns, cassandra_tables

#: The superuser that every new Cassandra has, and its password.
DEFAULT_ROLE = "cassandra"
DEFAULT_ACCOUNT = Account(prefix="CASSANDRA", user=DEFAULT_ROLE, password=SecretStr(DEFAULT_ROLE))
#: A change of the schema may take long on a machine that is starting everything else.
SCHEMA_SECONDS = 60


def refuse_superusers_name(settings: Settings) -> None:
    """Raise ConfigurationError if a role's name in the settings is one that is taken."""
    admin = settings.cassandra_admin.user
    if settings.cassandra.user in (DEFAULT_ROLE, admin):
        raise ConfigurationError(
            f"CASSANDRA_USER is {settings.cassandra.user!r}; it should be a name other than those of "
            f"the superusers {DEFAULT_ROLE} and {admin}"
        )
    if settings.dashboard_cassandra.user in ("", DEFAULT_ROLE, admin, settings.cassandra.user):
        raise ConfigurationError(
            f"DASHBOARD_CASSANDRA_USER is {settings.dashboard_cassandra.user!r}; it should be a name other than those "
            f"of the superusers {DEFAULT_ROLE} and {admin} and of CASSANDRA_USER"
        )


def check_superuser(settings: Settings, *, was_set_up: bool) -> int:
    """Log in as our superuser, or as the default one before the first set-up; how many nodes Cassandra knows.

    Raises StoreUnavailable while the node is not ready yet, and ConfigurationError if it was set up before and
    CASSANDRA_ADMIN_PASSWORD is not the data's.
    """
    try:
        with _as_admin(settings) as session:
            return len(session.cluster.metadata.all_hosts())
    except ConfigurationError as refused:
        if was_set_up or isinstance(refused, CertificateRefused):
            raise
    try:
        with _as_default(settings) as session:
            return len(session.cluster.metadata.all_hosts())
    except ConfigurationError:
        # The default superuser appears a moment after the port opens.
        raise StoreUnavailable(
            f"Cassandra at {','.join(settings.cassandra_hosts)}:{settings.cassandra_port} has no superuser that takes "
            "CASSANDRA_ADMIN_PASSWORD, which should be the one that the data were created with"
        ) from None


def create_roles_and_tables(settings: Settings) -> None:
    """Replace the default superuser by ours; create or renew roles, keyspace and tables, add columns that these lack.

    A CASSANDRA_ADMIN_USER of another name than ours is there already, and replaces nobody. A keyspace that is there
    keeps its replication. Raises ConfigurationError where Cassandra has not the nodes for CASSANDRA_REPLICATION.
    CASSANDRA_USER may read and write rows of its keyspace, DASHBOARD_CASSANDRA_USER read them, and nothing else. Their
    passwords become the settings' at every run.
    """
    _replace_default_superuser(settings)
    keyspace = settings.cassandra_keyspace
    with _as_admin(settings) as session:
        for account in (settings.cassandra, settings.dashboard_cassandra):
            _renew_role(session, settings, account)
        _create_keyspace(session, settings)
        for statement in keyspace_rights(settings):
            _run(session, statement)
        for statement in cassandra_tables(keyspace):
            _run(session, statement)
        there: dict[str, set[str]] = defaultdict(set)
        # The driver's picture of the tables comes over one connection, and fails where that node is busy.
        query = "SELECT table_name, column_name FROM system_schema.columns WHERE keyspace_name = %s"
        for table, column in session.execute(query, (keyspace,)):
            there[table].add(column)
        for statement in cassandra_columns(keyspace, there):
            _run(session, statement)


def _create_keyspace(session: Session, settings: Settings) -> None:
    if settings.cassandra_keyspace in session.cluster.metadata.keyspaces:
        return
    replicas = wanted_replicas(settings)
    check_there_are_nodes(nodes_by_datacenter(session), replicas, settings)
    replication = replication_map(replicas)
    _run(session, f"CREATE KEYSPACE IF NOT EXISTS {settings.cassandra_keyspace} WITH replication = {replication}")


def keyspace_rights(settings: Settings) -> Iterator[str]:
    """CQL: in the keyspace the stream's role may SELECT and MODIFY (TRUNCATE is part of it), the dashboard's SELECT."""
    keyspace, stream = settings.cassandra_keyspace, _identifier(settings.cassandra.user)
    # What the role had once.
    for right in ("CREATE", "ALTER", "DROP", "AUTHORIZE"):
        yield f"REVOKE {right} ON KEYSPACE {keyspace} FROM {stream}"
    for right in ("SELECT", "MODIFY"):
        yield f"GRANT {right} ON KEYSPACE {keyspace} TO {stream}"
    yield f"GRANT SELECT ON KEYSPACE {keyspace} TO {_identifier(settings.dashboard_cassandra.user)}"


def _replace_default_superuser(settings: Settings) -> None:
    if settings.cassandra_admin.user != ADMIN:
        return
    password = _literal(settings.cassandra_admin.password)
    try:
        with _as_default(settings) as session:
            rights = "LOGIN = true AND SUPERUSER = true"
            _run(session, f"CREATE ROLE IF NOT EXISTS {ADMIN} WITH {rights} AND PASSWORD = {password}")
    except ConfigurationError:
        return  # It cannot log in: replaced before.
    with _as_admin(settings) as session:
        # A superuser cannot take this from itself, so ours does it.
        _run(session, f"ALTER ROLE {DEFAULT_ROLE} WITH SUPERUSER = false AND LOGIN = false")


def _renew_role(session: Session, settings: Settings, account: Account) -> None:
    role, secret = _identifier(account.user), _literal(account.password)
    _run(session, f"CREATE ROLE IF NOT EXISTS {role} WITH LOGIN = true AND PASSWORD = {secret}")
    _run(session, f"ALTER ROLE {role} WITH LOGIN = true AND SUPERUSER = false")
    if not _can_log_in(settings, account):
        # Not at every start: Cassandra refuses to change a password again within 5 s.
        _run(session, f"ALTER ROLE {role} WITH PASSWORD = {secret}")


def _can_log_in(settings: Settings, account: Account) -> bool:
    try:
        with cassandra(settings, account, keyspace=""):
            return True
    except ConfigurationError:
        return False


def _as_admin(settings: Settings) -> AbstractContextManager[Session]:
    return cassandra(settings, settings.cassandra_admin, keyspace="")


def _as_default(settings: Settings) -> AbstractContextManager[Session]:
    return cassandra(settings, DEFAULT_ACCOUNT, keyspace="")


def _run(session: Session, statement: str) -> None:
    session.execute(statement, timeout=SCHEMA_SECONDS)


def _identifier(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _literal(secret: SecretStr) -> str:
    return "'" + secret.get_secret_value().replace("'", "''") + "'"
