"""What of the live tables differs from the dbt contract, and of Cassandra's from the tick.

MySQL's tables are compared with temporary ones made from the contract, as the server itself describes both: servers
rewrite types and CHECK expressions each in their own way. Changes nothing.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from cassandra.metadata import TableMetadata
from mysql.connector import errorcode
from mysql.connector.abstracts import MySQLConnectionAbstract
from mysql.connector.errors import DatabaseError, OperationalError, ProgrammingError

from tickledger.contract import TableContract, load_contract
from tickledger.errors import ConfigurationError
from tickledger.settings import Settings
from tickledger.stores import cassandra, mysql
from tickledger.tick import CASSANDRA_TABLES

MISSING = "missing"


class Difference(NamedTuple):
    """One row per fact in which a live table and its contract differ. Where one side has nothing, it is `missing`."""

    store: str
    table: str
    what: str
    contract: str
    live: str

    @property
    def found(self) -> str:
        """What the side that has something has; both sides may."""
        return self.live if self.contract == MISSING else self.contract

    @property
    def new_column(self) -> str:
        """The name of a nullable column that one side has more; empty for any other difference."""
        is_column = self.store == "MySQL" and self.what.startswith("column ")
        is_new = is_column and MISSING in (self.contract, self.live) and " NOT NULL" not in self.found
        return self.what.removeprefix("column ") if is_new else ""


def is_addition(one: Difference, found: list[Difference]) -> bool:
    """Whether rows and writers can do without it: a nullable column that one side has more, or a check or key on one.

    `found` holds all differences: MySQL shows a column's check apart from the column.
    """
    if one.new_column:
        return True
    names = [f"`{other.new_column}`" for other in found if other.table == one.table and other.new_column]
    is_rule = one.what in ("check", "key") and not one.found.startswith("PRIMARY")
    return is_rule and any(name in one.found for name in names)


@dataclass(frozen=True)
class _Parts:
    """A table as SHOW CREATE TABLE writes it: columns by name, keys and checks without their names, its options."""

    columns: dict[str, str]
    rules: set[str]
    options: str


def differences(settings: Settings) -> list[Difference]:
    """Every difference in both stores. Raises ConfigurationError or StoreUnavailable where one cannot be read."""
    with mysql(settings) as connection:
        return [*mysql_differences(connection), *cassandra_differences(settings)]


def mysql_differences(connection: MySQLConnectionAbstract) -> list[Difference]:
    """Columns, types, nullability, keys and checks of the contract's tables; an index more is no difference.

    Raises ConfigurationError where the contract is broken or the server refuses it.
    """
    return [one for table in load_contract().values() for one in _compare_table(connection, table)]


def _compare_table(connection: MySQLConnectionAbstract, table: TableContract) -> Iterator[Difference]:
    live = _parts(connection, table.name)
    if live is None:
        yield Difference("MySQL", table.name, "table", "described", MISSING)
        return
    wanted = _contract_parts(connection, table)
    for name in dict.fromkeys([*wanted.columns, *live.columns]):
        here, there = wanted.columns.get(name, MISSING), live.columns.get(name, MISSING)
        if here != there:
            yield Difference("MySQL", table.name, f"column {name}", here, there)
    for rule in sorted(wanted.rules ^ live.rules):
        here, there = (rule, MISSING) if rule in wanted.rules else (MISSING, rule)
        if not rule.startswith("KEY") or there == MISSING:
            yield Difference("MySQL", table.name, "check" if rule.startswith("CHECK") else "key", here, there)
    if wanted.options != live.options:
        yield Difference("MySQL", table.name, "options", wanted.options, live.options)


def _contract_parts(connection: MySQLConnectionAbstract, table: TableContract) -> _Parts:
    shadow = f"{table.name}__contract"
    cursor = connection.cursor()
    try:
        cursor.execute(f"CREATE TEMPORARY TABLE {shadow} {table.definition()}")
    except OperationalError:
        raise
    except DatabaseError as error:
        raise ConfigurationError(f"the contract of {table.name!r} is refused by MySQL: {error.msg}") from None
    finally:
        cursor.close()
    parts = _parts(connection, shadow)
    assert parts is not None
    connection.cursor().execute(f"DROP TEMPORARY TABLE {shadow}")
    return parts


def _parts(connection: MySQLConnectionAbstract, table: str) -> _Parts | None:
    cursor: Any = connection.cursor()
    try:
        cursor.execute(f"SHOW CREATE TABLE {table}")
        _, *lines, last = cursor.fetchone()[1].split("\n")
    except ProgrammingError as error:
        if error.errno == errorcode.ER_NO_SUCH_TABLE:
            return None
        raise
    finally:
        cursor.close()
    columns, rules = {}, set()
    for line in (line.strip().rstrip(",") for line in lines):
        if line.startswith("`"):
            _, name, definition = line.split("`", 2)
            columns[name] = definition.strip().replace(" CHARACTER SET utf8mb4 ", " ")
        else:
            rules.add(re.sub(r"^(?:CONSTRAINT `[^`]*` )?(CHECK|(?:UNIQUE )?KEY)(?: `[^`]*`)? ", r"\1 ", line))
    options = re.findall(r"ENGINE=\w+|CHARSET=\w+|COLLATE=\w+", last)
    return _Parts(columns, rules, " ".join(options))


def cassandra_differences(settings: Settings) -> list[Difference]:
    """Columns, types and primary keys of the keyspace's tables against `tickledger/tick.py`."""
    with cassandra(settings) as session:
        return list(_compare_keyspace(session.cluster.metadata.keyspaces[settings.cassandra_keyspace].tables))


def _compare_keyspace(live: dict[str, TableMetadata]) -> Iterator[Difference]:
    for name, wanted in CASSANDRA_TABLES.items():
        if name not in live:
            yield Difference("Cassandra", name, "table", "described", MISSING)
            continue
        types = {column.name: column.cql_type for column in live[name].columns.values()}
        for column in dict.fromkeys([*wanted.columns, *types]):
            here, there = wanted.columns.get(column, MISSING), types.get(column, MISSING)
            if here != there:
                yield Difference("Cassandra", name, f"column {column}", here, there)
        partition, clustering = (
            [column.name for column in columns] for columns in (live[name].partition_key, live[name].clustering_key)
        )
        key = ", ".join([f"({', '.join(partition)})", *clustering])
        if key != wanted.key:
            yield Difference("Cassandra", name, "primary key", wanted.key, key)
