"""A backup of both stores, taken beside a running stream, and its restore: rows, over the stores' own protocols.

A backup reads MySQL first. A batch is in Cassandra before it is in the ledger: so what Cassandra holds afterwards has
every tick that MySQL's snapshot counts, and the ticks beyond it land again, onto the same rows. A restore fills MySQL
last: until it is through there is no ledger, and no stream starts.
"""

import contextlib
import gzip
import json
import re
import shutil
import subprocess
import sys
import tempfile
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from importlib.metadata import version
from itertools import groupby, islice
from pathlib import Path
from typing import Any, NamedTuple

import mysql.connector as mysql_driver
import orjson
from cassandra.cluster import Session
from cassandra.concurrent import execute_concurrent
from cassandra.metadata import TableMetadata
from cassandra.query import UNSET_VALUE, BatchStatement, BatchType, SimpleStatement
from mysql.connector import errorcode
from mysql.connector.abstracts import MySQLConnectionAbstract

from services.environment import write_dbt_profile
from services.jars import Say
from services.maven import digest_of
from services.set_up import set_up_stores
from tickledger.contract import CONTRACT_TABLES, DBT_FOLDER, SEEDS, load_contract
from tickledger.contract_drift import cassandra_differences, fix_of
from tickledger.errors import ConfigurationError, TickledgerError
from tickledger.ledger import StreamLock, utc_now
from tickledger.plain_text import plain
from tickledger.settings import Settings
from tickledger.stores import IDLE_SECONDS, cassandra, end_if_idle, fetch_rows, first_sentence, mysql
from tickledger.tick import CASSANDRA_TABLES, DEAD_LETTER_TABLE, RAW_TABLE, REVISION_TABLE

#: What a file of rows looks like, and which there are. A later tickledger that changes either counts on.
FORMAT = 1
FACTS = "backup.json"
#: What the files were when they were written, as `sha256sum` writes and checks it.
MANIFEST = "SHA256SUMS"
#: MySQL's tables with rows to keep: all that the contract names but the stream's lock.
MYSQL_TABLES = tuple(name for name in (*SEEDS, *CONTRACT_TABLES) if name != "stream_lock")
#: A table of MySQL's that is there while a restore is not through; its comment says of which backup. Beside it dbt
#: makes no ledger, which would count the restored ticks as its own.
MARKER = "restoring"
#: Of what dbt says as it fails, in one line.
MOST_SAID = 1000


class _Pace(NamedTuple):
    """Rows that are read at once, written at once to one partition, and such writes that are under way at once."""

    page: int
    batch: int
    in_flight: int


# A dead letter may have megabytes, and a page of many more than a node's memory.
_PACES = {
    RAW_TABLE: _Pace(5000, 200, 32),
    REVISION_TABLE: _Pace(5000, 100, 32),
    DEAD_LETTER_TABLE: _Pace(1, 1, 4),
}
#: How a value comes back from JSON, by CQL type; others are as JSON has them.
_FROM_JSON: dict[str, Callable[[str], object]] = {
    "blob": bytes.fromhex,
    "date": date.fromisoformat,
    "decimal": Decimal,
    "timestamp": datetime.fromisoformat,
}


@dataclass(frozen=True)
class Backup:
    """One backup's folder: its files are whole, and all that they hold has a place here.

    `mysql` and `cassandra` name the columns of each table, `topic` is what the ledger lands, empty if nothing landed.
    """

    folder: Path
    digest: str
    topic: str
    mysql: dict[str, list[str]]
    cassandra: dict[str, list[str]]

    def rows(self, table: str) -> Iterator[list[Any]]:
        """The rows of a table, values in its columns' order."""
        with gzip.open(self.folder / _file_of(table)) as lines:
            for line in lines:
                yield orjson.loads(line)


def back_up(settings: Settings, folder: Path, say: Say) -> None:
    """Write all rows of both stores into a new folder that only its owner may read: a file for each table.

    Everything may run meanwhile but dbt. Raises ConfigurationError where the folder is there or nothing is to be backed
    up, TickledgerError where a part fails; then no backup is left.
    """
    if folder.exists():
        raise ConfigurationError(f"FOLDER is {str(folder)!r}; it should be one that is not there yet")
    part = folder.with_name(f"{folder.name}.part")
    with _in_one_line("the backup"):
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(mode=0o700, parents=True)
        try:
            facts = {"format": FORMAT, "tickledger": version("tickledger"), "made_at": utc_now().isoformat()}
            facts |= _copy_mysql(settings, part, say) | _copy_cassandra(settings, part, say)
            (part / FACTS).write_text(json.dumps(facts, indent=1) + "\n")
            sums = [f"{digest_of(file)}  {file.name}\n" for file in sorted(part.iterdir())]
            (part / MANIFEST).write_text("".join(sums))
            part.rename(folder)
        finally:
            shutil.rmtree(part, ignore_errors=True)


def read_backup(folder: Path) -> Backup:
    """The backup in a folder.

    Raises ConfigurationError where it is none, is not what its manifest says, or was made by a tickledger that keeps
    something else.
    """
    if (folder / "cassandra.tar").exists():
        raise _refused(folder, "one of this tickledger's; an older one made it, with whose code it can be restored")
    for name in (MANIFEST, FACTS):
        if not (folder / name).is_file() or (folder / name).is_symlink():
            raise _refused(folder, f"a backup, with a file {name}")
    sums = (folder / MANIFEST).read_text(errors="replace")
    written = {name: digest for digest, name in re.findall(r"^([0-9a-f]{64})  (\S+)$", sums, re.MULTILINE)}
    _check_file(folder, FACTS, written)
    backup = _backup_of(folder)
    for table in (*backup.mysql, *backup.cassandra):
        _check_file(folder, _file_of(table), written)
    return backup


def restore(settings: Settings, backup: Backup, say: Say, *, replace: bool, then: Callable[[], object]) -> None:
    """Set the servers up, and fill them with a backup's rows. No stream may run; a retry begins again.

    `then` is called when all rows are there, as the last step. Raises ConfigurationError, with no row changed, where
    KAFKA_TOPIC is not the backup's, or where the database or the keyspace holds rows that are not of this backup's
    restore; `replace` deletes them instead. Raises TickledgerError while a stream runs or where a part fails; the
    stream does not start until a retry is through.
    """
    if backup.topic not in ("", settings.kafka_topic):
        raise ConfigurationError(
            f"KAFKA_TOPIC is {settings.kafka_topic!r}; it should be {backup.topic!r}, which the backup's ledger lands"
        )
    with _in_one_line("the restore"):
        set_up_stores(settings, say)
        _refuse_beside_stream(settings)
        _refuse_other_tables(settings)
        if not replace:
            _refuse_other_rows(settings, backup)
        _begin(settings, backup)
        with _half_way():
            _fill_cassandra(settings, backup)
            say("Cassandra is restored")
            _fill_mysql(settings, backup)
            say("MySQL is restored")
        then()


@contextlib.contextmanager
def _half_way() -> Iterator[None]:
    """Whatever ends a restore that has begun: exit code 1, since what was there is gone."""
    try:
        yield
    except TickledgerError as error:
        raise TickledgerError(f"{error}; the restore has ended half-way: run it again") from None


def _file_of(table: str) -> str:
    return f"{table}.jsonl.gz"


def _refused(folder: Path, should_be: str) -> ConfigurationError:
    return ConfigurationError(f"FOLDER is {str(folder)!r}; it should be {should_be}")


@contextlib.contextmanager
def _in_one_line(what: str) -> Iterator[None]:
    """A disk that is full, a file that is torn: for the user, in one line."""
    try:
        yield
    except (OSError, EOFError, zlib.error, orjson.JSONDecodeError) as error:
        raise TickledgerError(f"{what} failed: {' '.join(str(error).split())}") from None


# Backup


def _copy_mysql(settings: Settings, folder: Path, say: Say) -> dict[str, Any]:
    """All rows as they are at one moment."""
    with mysql(settings, settings.dbt_mysql) as connection:
        connection.start_transaction(consistent_snapshot=True, isolation_level="REPEATABLE READ")
        there = {row[0] for row in fetch_rows(connection, "SHOW FULL TABLES WHERE Table_type = 'BASE TABLE'")}
        if "landed_batches" not in there:
            raise ConfigurationError(f"MYSQL_DATABASE is {settings.mysql_database!r}; it should hold a ledger")
        newest = fetch_rows(connection, "SELECT topic FROM landed_batches ORDER BY batch_id DESC LIMIT 1")
        tables = {name: _copy_table(connection, name, folder) for name in MYSQL_TABLES if name in there}
    say("MySQL is copied")
    return {"topic": newest[0][0] if newest else "", "mysql": tables}


def _copy_table(connection: MySQLConnectionAbstract, table: str, folder: Path) -> list[str]:
    cursor: Any = connection.cursor()
    cursor.execute(f"SELECT * FROM {table}")
    columns = list(cursor.column_names)
    _refuse_unknown(table, columns, load_contract()[table].columns)
    _write(folder / _file_of(table), cursor)
    cursor.close()
    return columns


def _refuse_unknown(table: str, there: Collection[str], known: Collection[str]) -> None:
    """Raise ConfigurationError where a table has a column that no restore would know."""
    if unknown := [column for column in there if column not in known]:
        raise ConfigurationError(
            f"table {table!r} has a column {unknown[0]!r} that this tickledger does not know;"
            " back up with the code that does"
        )


def _copy_cassandra(settings: Settings, folder: Path, say: Say) -> dict[str, Any]:
    """All rows, page by page: those that are there from the beginning, and perhaps some that come meanwhile."""
    tables: dict[str, list[str]] = {}
    with cassandra(settings) as session:
        live = session.cluster.metadata.keyspaces[settings.cassandra_keyspace].tables
        for table, definition in CASSANDRA_TABLES.items():
            if table not in live:
                raise ConfigurationError(f"Cassandra has no table {table!r}; 'tickledger doctor' says what makes it")
            _refuse_unknown(table, live[table].columns, definition.columns)
            tables[table] = [name for name in definition.columns if name in live[table].columns]
            query = f"SELECT {', '.join(tables[table])} FROM {table}"
            rows = session.execute(SimpleStatement(query, fetch_size=_PACES[table].page))
            _write(folder / _file_of(table), map(tuple, rows))
    say("Cassandra is copied")
    return {"cassandra": tables, "cassandra_types": {table: _types_of(live[table]) for table in tables}}


def _types_of(table: TableMetadata) -> dict[str, str]:
    return {name: column.cql_type for name, column in table.columns.items()}


def _write(file: Path, rows: Iterable[tuple[Any, ...]]) -> None:
    with gzip.open(file, "xb", compresslevel=1) as target:
        for row in rows:
            target.write(orjson.dumps(row, default=_as_text, option=orjson.OPT_APPEND_NEWLINE))


def _as_text(value: object) -> str:
    """What JSON has no type for: bytes as hex digits, decimals and Cassandra's dates as they are written."""
    return value.hex() if isinstance(value, bytes) else str(value)


# Restore


def _check_file(folder: Path, name: str, written: dict[str, str]) -> None:
    file = folder / name
    if not file.is_file() or file.is_symlink() or written.get(name) != digest_of(file):
        raise _refused(folder, f"a whole backup: {name} is not what {MANIFEST} says")


def _backup_of(folder: Path) -> Backup:
    """The backup by its facts. Raises ConfigurationError if they are not of this tickledger."""
    contract = load_contract()
    known = {
        "mysql": {name: contract[name].columns for name in MYSQL_TABLES},
        "cassandra": {name: tuple(table.columns) for name, table in CASSANDRA_TABLES.items()},
    }
    try:
        facts = json.loads((folder / FACTS).read_text())
        if (made_as := int(facts["format"])) > FORMAT:
            raise _refused(folder, f"of format {FORMAT} at most; a newer tickledger wrote it, in format {made_as}")
        found = {store: {table: list(columns) for table, columns in facts[store].items()} for store in known}
        unknown = [
            f"{table}.{column}"
            for store, tables in found.items()
            for table, columns in tables.items()
            for column in columns or [""]
            if column not in known[store].get(table, ())
        ]
        # Older backups do not say.
        types = {table: dict(some) for table, some in facts.get("cassandra_types", {}).items()}
        backup = Backup(folder, digest_of(folder / MANIFEST), str(facts["topic"]), **found)
    except (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError):
        raise _refused(folder, f"a backup, whose {FACTS} says what is in it") from None
    if unknown:
        raise _refused(folder, f"one that this tickledger knows all of; a newer one may have written {unknown[0]!r}")
    for table, columns in backup.cassandra.items():
        for column in columns:
            wanted = CASSANDRA_TABLES[table].columns[column]
            if (found_type := types.get(table, {}).get(column, wanted)) != wanted:
                raise _refused(folder, f"one whose {table}.{column} is {wanted}; it is {found_type}")
    return backup


def _refuse_beside_stream(settings: Settings) -> None:
    """Raise TickledgerError where a stream holds its lock; the database itself may be gone."""
    with mysql(settings, settings.dbt_mysql, database="") as connection:
        lock = f"{settings.mysql_database}.stream_lock"
        try:
            fetch_rows(connection, f"SELECT part FROM {lock} WHERE part = 'lock' FOR UPDATE NOWAIT")
        except mysql_driver.Error as error:
            if error.errno in _NO_LOCK:
                return
            if error.errno not in _LOCKED:
                raise TickledgerError(f"the stream's lock cannot be asked: {first_sentence(error)}") from None
            rows = fetch_rows(connection, f"SELECT holder FROM {lock} WHERE part = 'holder'")
            who = f" ({plain(rows[0][0])})" if rows else ""
            raise TickledgerError(f"a stream lands into {settings.mysql_database!r}{who}; stop it first") from None


_NO_LOCK = (errorcode.ER_NO_SUCH_TABLE, errorcode.ER_BAD_DB_ERROR)
#: MariaDB's answer to NOWAIT, and MySQL's.
_LOCKED = (errorcode.ER_LOCK_WAIT_TIMEOUT, errorcode.ER_LOCK_NOWAIT)


def _refuse_other_tables(settings: Settings) -> None:
    """Raise ConfigurationError where the keyspace has tables that are not made as the tick says."""
    for one in cassandra_differences(settings):
        if not one.is_new_column:
            raise ConfigurationError(
                f"table {one.table!r} of Cassandra differs in {one.what}: it is {one.live}, the tick says"
                f" {one.contract}; {fix_of(one)}"
            )


def _refuse_other_rows(settings: Settings, backup: Backup) -> None:
    """Raise ConfigurationError where something has landed, unless this backup's restore was begun there."""
    database, keyspace = settings.mysql_database, settings.cassandra_keyspace
    with mysql(settings, settings.dbt_mysql, database="") as connection:
        query = "SELECT table_name, table_comment FROM information_schema.tables WHERE table_schema = %s"
        there = dict(fetch_rows(connection, query, (database,)))
        if there.get(MARKER) == backup.digest and not _has_landed(connection, database, there):
            return
        if there.get(MARKER, backup.digest) != backup.digest:
            raise _full("MYSQL_DATABASE", database, "the restore of another backup is not through")
        # dbt alone fills the seeds, also in servers that are new.
        for table in (name for name in MYSQL_TABLES if name in there and name not in SEEDS):
            if _has_rows(connection, database, table):
                raise _full("MYSQL_DATABASE", database, f"{table} has rows")
    with cassandra(settings) as session:
        for table in CASSANDRA_TABLES:
            if session.execute(f"SELECT kafka_partition FROM {table} LIMIT 1").one():
                raise _full("CASSANDRA_KEYSPACE", keyspace, f"{table} has rows")


def _has_landed(connection: MySQLConnectionAbstract, database: str, there: Collection[str]) -> bool:
    """Whether a restore was through, or nearly, and a stream may have landed since."""
    return "landed_batches" in there and _has_rows(connection, database, "landed_batches")


def _has_rows(connection: MySQLConnectionAbstract, database: str, table: str) -> bool:
    return bool(fetch_rows(connection, f"SELECT 1 FROM {database}.{table} LIMIT 1"))


def _full(setting: str, name: str, problem: str) -> ConfigurationError:
    return ConfigurationError(
        f"{setting} is {name!r}; it should hold nothing that has landed, and {problem}: --replace deletes all of it"
    )


def _begin(settings: Settings, backup: Backup) -> None:
    """Leave the mark, then take the ledger away: no stream starts without."""
    with mysql(settings, settings.dbt_mysql, database="") as connection:
        cursor, database = connection.cursor(), settings.mysql_database
        # One that waits for a stream's transaction would not end.
        cursor.execute("SET SESSION lock_wait_timeout = 15")
        cursor.execute(f"CREATE DATABASE IF NOT EXISTS {database} CHARACTER SET utf8mb4 COLLATE utf8mb4_bin")
        cursor.execute(f"DROP TABLE IF EXISTS {database}.{MARKER}")
        cursor.execute(f"CREATE TABLE {database}.{MARKER} (part int PRIMARY KEY) COMMENT '{backup.digest}'")
        tables = ", ".join(f"{database}.{name}" for name in (*MYSQL_TABLES, "stream_lock"))
        cursor.execute(f"DROP TABLE IF EXISTS {tables}")


def _fill_cassandra(settings: Settings, backup: Backup) -> None:
    with cassandra(settings) as session:
        for table in CASSANDRA_TABLES:
            session.execute(f"TRUNCATE {table}", timeout=_TRUNCATE_SECONDS)
        for table, columns in backup.cassandra.items():
            _fill_table(session, table, columns, backup.rows(table))


_TRUNCATE_SECONDS = 60


def _fill_table(session: Session, table: str, columns: list[str], rows: Iterable[list[Any]]) -> None:
    definition, pace = CASSANDRA_TABLES[table], _PACES[table]
    insert = session.prepare(f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({', '.join('?' * len(columns))})")
    made = [_FROM_JSON.get(definition.columns[column], lambda value: value) for column in columns]
    partition = [columns.index(name.strip()) for name in definition.key[1 : definition.key.index(")")].split(",")]

    def batches() -> Iterator[tuple[BatchStatement, None]]:
        # Rows of one partition follow each other, as Cassandra gave them.
        for _, group in groupby(rows, key=lambda row: [row[place] for place in partition]):
            while chunk := list(islice(group, pace.batch)):
                batch = BatchStatement(BatchType.UNLOGGED)
                for row in chunk:
                    # A null that is written costs a tombstone.
                    values = zip(made, row, strict=True)
                    with _fitting(table):
                        batch.add(insert, [UNSET_VALUE if value is None else make(value) for make, value in values])
                yield batch, None

    waiting = batches()
    # A wave at a time: what is raised while batches are made would be lost in the driver's own thread.
    while wave := list(islice(waiting, 4 * pace.in_flight)):
        execute_concurrent(session, wave, concurrency=pace.in_flight)


@contextlib.contextmanager
def _fitting(table: str) -> Iterator[None]:
    """What a file's row has and its table cannot hold: in one line."""
    try:
        yield
    except (TypeError, ValueError, ArithmeticError) as error:
        raise TickledgerError(f"a row of the backup's {table} does not fit the table: {error}") from None


def _fill_mysql(settings: Settings, backup: Backup) -> None:
    """Tables by dbt, rows in one transaction; from the ledger's first table on, all under the stream's lock."""
    # While nothing says that a stream has run here, any exchange may be seeded: the backup's takes its place.
    _dbt(settings, "seed")
    _dbt(settings, "run", "--select", "stream_lock")
    lock = StreamLock(settings)
    lock.hold()
    try:
        _dbt(settings, "run")
        with mysql(settings, settings.dbt_mysql) as connection:
            end_if_idle(connection, IDLE_SECONDS)
            cursor = connection.cursor()
            for table, columns in backup.mysql.items():
                cursor.execute(f"DELETE FROM {table}")
                places = ", ".join(["%s"] * len(columns))
                rows = backup.rows(table)
                while chunk := list(islice(rows, 1000)):
                    cursor.executemany(f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({places})", chunk)
            connection.commit()
            cursor.execute(f"DROP TABLE {MARKER}")
    finally:
        lock.release()


def _dbt(settings: Settings, *words: str) -> None:
    """Run dbt, which makes tables and views and grants rights. Raises TickledgerError with dbt's own last words."""
    with tempfile.TemporaryDirectory() as folder:
        write_dbt_profile(settings, Path(folder) / "profiles.yml")
        places = ["--profiles-dir", folder, "--target-path", folder, "--log-path", folder]
        dbt = str(Path(sys.executable).with_name("dbt"))
        done = subprocess.run(
            [dbt, "--quiet", "--no-use-colors", *words, *places, "--vars", "{restoring: true}"],
            cwd=DBT_FOLDER,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        if done.returncode:
            said = " ".join(done.stdout.partition("> in macro")[0].split())
            raise TickledgerError(f"dbt {words[0]} failed: {plain(said[:MOST_SAID]) or 'it says nothing'}")
