"""What of the live tables differs from the dbt contract, and of Cassandra's from the tick. Changes nothing."""

import re
from collections.abc import Iterator
from typing import Any

from cassandra.metadata import TableMetadata
from mysql.connector import errorcode
from mysql.connector.abstracts import MySQLConnectionAbstract
from mysql.connector.errors import DatabaseError, OperationalError, ProgrammingError

from tickledger.contract import TableContract, load_contract
from tickledger.errors import ConfigurationError
from tickledger.here import DBT, SET_UP_ANYWHERE
from tickledger.settings import Settings
from tickledger.stores import cassandra, mysql
from tickledger.table_facts import MISSING, Difference, Kind, TableFacts, differences_of, table_facts
from tickledger.tick import CASSANDRA_TABLES

#: Types that every server writes as they are in the contract, but for the width of whole numbers.
_AS_WRITTEN = re.compile(r"(big|small|tiny)?int|(var)?char\(\d+\)|decimal\(\d+,\d+\)|double|date|datetime\(\d\)|text")


def differences(settings: Settings) -> list[Difference]:
    """Every difference in both stores. Raises ConfigurationError or StoreUnavailable if one cannot be read."""
    return [*mysql_differences(settings), *cassandra_differences(settings)]


def mysql_differences(settings: Settings) -> list[Difference]:
    """Columns, types, nullability, keys, checks and options of the contract's tables.

    With dbt's account, which may make the temporary tables that it takes. Raises ConfigurationError if the contract
    is broken or the server refuses it, and as :func:`tickledger.stores.mysql`.
    """
    with mysql(settings, settings.dbt_mysql) as connection:
        return [one for table in load_contract().values() for one in _all_of(connection, table)]


def landing_differences(settings: Settings) -> list[Difference]:
    """What landing depends on: columns, types, nullability, primary and unique keys. With the stream's account.

    Raises ConfigurationError if the contract is broken, and as :func:`tickledger.stores.mysql`.
    """
    with mysql(settings) as connection:
        return [one for table in load_contract().values() for one in _needed_of(connection, table)]


def _all_of(connection: MySQLConnectionAbstract, table: TableContract) -> Iterator[Difference]:
    live = _live_facts(connection, table.name)
    if live is None:
        yield _missing("MySQL", table.name)
        return
    yield from differences_of(table.name, _facts_of_a_contract(connection, table), live)


def _needed_of(connection: MySQLConnectionAbstract, table: TableContract) -> Iterator[Difference]:
    live = _live_facts(connection, table.name)
    if live is None:
        yield _missing("MySQL", table.name)
        return
    unique = (Kind.PRIMARY_KEY, Kind.UNIQUE_KEY)
    keys: dict[str, Kind] = {rule: kind for rule, kind in live.rules.items() if kind in unique}
    yield from differences_of(table.name, _stated(table, live), TableFacts(live.columns, keys, ""))


def _stated(table: TableContract, live: TableFacts) -> TableFacts:
    """What the YAML itself says. A type that servers write in words of their own counts as what the live table has."""
    columns = {}
    for name, stated in table.types.items():
        column_type = stated.lower().replace(", ", ",")
        if not _AS_WRITTEN.fullmatch(column_type):
            column_type = live.columns.get(name, column_type).removesuffix(" NOT NULL")
        columns[name] = column_type + (" NOT NULL" if name in table.required else "")
    rules = {
        f"{kind.upper()} ({','.join(f'`{one}`' for one in names)})": Kind(kind) for kind, names in table.unique_keys()
    }
    return TableFacts(columns, rules, "")


def _facts_of_a_contract(connection: MySQLConnectionAbstract, table: TableContract) -> TableFacts:
    """The contract as the server writes it, from a temporary table that only this connection sees."""
    shadow = f"{table.name}__contract"
    cursor = connection.cursor()
    try:
        cursor.execute(f"CREATE TEMPORARY TABLE {shadow} {table.definition()}")
    except OperationalError:
        raise
    except DatabaseError as error:
        raise ConfigurationError(f"the contract of {table.name!r} is refused by MySQL: {error.msg}") from None
    facts = _live_facts(connection, shadow)
    assert facts is not None
    cursor.execute(f"DROP TEMPORARY TABLE {shadow}")
    cursor.close()
    return facts


def _live_facts(connection: MySQLConnectionAbstract, table: str) -> TableFacts | None:
    cursor: Any = connection.cursor()
    try:
        cursor.execute(f"SHOW CREATE TABLE {table}")
        return table_facts(cursor.fetchone()[1])
    except ProgrammingError as error:
        if error.errno == errorcode.ER_NO_SUCH_TABLE:
            return None
        raise
    finally:
        cursor.close()


def _missing(store: str, table: str) -> Difference:
    return Difference(store, table, Kind.TABLE, "", "described", MISSING)


def cassandra_differences(settings: Settings) -> list[Difference]:
    """Columns, types and primary keys of the keyspace's tables against `tickledger/tick.py`."""
    with cassandra(settings) as session:
        return list(_compare_keyspace(session.cluster.metadata.keyspaces[settings.cassandra_keyspace].tables))


def fix_of(one: Difference) -> str:
    """What a person types to end a difference, or where it is written."""
    if one.store == "MySQL":
        return DBT if one.kind == Kind.TABLE else f"{DBT}: it adds columns, or changes nothing and prints the ALTER"
    if one.live == MISSING:
        return SET_UP_ANYWHERE
    if one.contract == MISSING:
        return "none is needed: the column stays null"
    return (
        "put the definition in tickledger/tick.py back, or give a field of your own another name: Cassandra changes"
        " neither the type of a column nor a key"
    )


def _compare_keyspace(live: dict[str, TableMetadata]) -> Iterator[Difference]:
    for name, wanted in CASSANDRA_TABLES.items():
        if name not in live:
            yield _missing("Cassandra", name)
            continue
        types = {column.name: column.cql_type for column in live[name].columns.values()}
        for column in dict.fromkeys([*wanted.columns, *types]):
            here, there = wanted.columns.get(column, MISSING), types.get(column, MISSING)
            if here != there:
                yield Difference("Cassandra", name, Kind.COLUMN, column, here, there)
        partition, clustering = (
            [column.name for column in columns] for columns in (live[name].partition_key, live[name].clustering_key)
        )
        key = ", ".join([f"({', '.join(partition)})", *clustering])
        if key != wanted.key:
            yield Difference("Cassandra", name, Kind.PRIMARY_KEY, "", wanted.key, key)
