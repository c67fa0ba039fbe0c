"""SQL and CQL prompts and the list of topics: a look into the servers with nothing else installed."""

import contextlib
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from cassandra import DriverException
from kafka import KafkaAdminClient
from kafka.errors import KafkaError
from mysql.connector import Error
from rich.table import Table

from tickledger.counted import counted
from tickledger.errors import StoreUnavailable
from tickledger.plain_text import plain, print_table
from tickledger.secured import kafka_options
from tickledger.settings import Settings
from tickledger.stores import cassandra, mysql
from tickledger.topic import BOOTSTRAP_MS

#: A statement's column names and rows; no columns if it returns nothing.
Answer = tuple[Sequence[str], Iterable[Sequence[Any]]]
MOST_ROWS = 1000


def sql_prompt(settings: Settings) -> None:
    """Read MySQL statements until the input ends, each up to a semicolon, and print their rows. Commits each."""
    with mysql(settings, settings.dbt_mysql) as connection:

        def run(statement: str) -> Answer:
            cursor: Any = connection.cursor()
            try:
                cursor.execute(statement)
                rows = cursor.fetchall() if cursor.with_rows else []
                connection.commit()
                return (cursor.column_names if cursor.with_rows else ()), rows
            except Error as error:
                connection.rollback()
                raise ValueError(error.msg) from None
            finally:
                cursor.close()

        _prompt(f"sql {settings.mysql_database}> ", run)


def cql_prompt(settings: Settings) -> None:
    """Read CQL statements until the input ends, each up to a semicolon, and print their rows."""
    with cassandra(settings) as session:

        def run(statement: str) -> Answer:
            try:
                result = session.execute(statement)
                return result.column_names or (), result
            except DriverException as error:
                raise ValueError(str(error)) from None

        _prompt(f"cql {settings.cassandra_keyspace}> ", run)


def topics(settings: Settings) -> dict[str, int]:
    """The topics of the broker, by name, and how many partitions each has. Raises StoreUnavailable."""
    try:
        admin = KafkaAdminClient(
            bootstrap_servers=settings.kafka_bootstrap_servers.split(","),
            bootstrap_timeout_ms=BOOTSTRAP_MS,
            **kafka_options(settings, settings.kafka),
        )
        found = admin.describe_topics()
        admin.close()
    except KafkaError as error:
        raise StoreUnavailable(
            f"Kafka at {settings.kafka_bootstrap_servers} (KAFKA_BOOTSTRAP_SERVERS) does not answer:"
            f" {type(error).__name__}"
        ) from None
    names = {str(topic["name"]): len(topic["partitions"]) for topic in found if not topic["is_internal"]}
    return dict(sorted(names.items()))


def _prompt(prompt: str, run: Callable[[str], Answer]) -> None:
    interactive = sys.stdin.isatty()
    if interactive:
        print("end a statement with ';', leave with Ctrl-D")
    failed = False
    for statement in _statements(prompt if interactive else ""):
        try:
            _print_rows(*run(statement))
        except ValueError as error:
            failed = True
            print(f"error: {plain(' '.join(str(error).split()))}", file=sys.stderr)
    if failed and not interactive:
        raise SystemExit(1)


def _statements(prompt: str) -> Iterator[str]:
    if prompt:
        with contextlib.suppress(ImportError):
            import readline  # noqa: F401  # gives input() a history and line editing
    held = ""
    while True:
        try:
            held += input(prompt) + "\n"
        except (EOFError, KeyboardInterrupt):
            break
        *complete, held = held.split(";")
        yield from (statement.strip() for statement in complete if statement.strip())
    if held.strip():
        yield held.strip()


def _print_rows(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    if not columns:
        print("ok")
        return
    table = Table(*map(plain, columns), header_style="bold")
    count = 0
    for count, row in enumerate(rows, start=1):
        if count > MOST_ROWS:
            break
        table.add_row(*("NULL" if value is None else plain(value) for value in row))
    print_table(table)
    print(f"only the first {MOST_ROWS:,} rows are shown" if count > MOST_ROWS else counted(count, "row"))
