"""What a test gets: a database of its own, or a whole pipeline with topic and keyspace, on the real servers."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
from cassandra.cluster import Session
from kafka import KafkaAdminClient, KafkaProducer, TopicPartition
from kafka.admin import ConfigResource, ConfigResourceType, NewTopic
from mysql.connector.abstracts import MySQLConnectionAbstract
from pydantic import SecretStr

from services.cassandra_roles import keyspace_rights
from services.environment import write_dbt_profile
from services.instance import Instance
from services.kafka_topic import create_topic
from tests.support.warm_dbt import run_dbt
from tickledger.replicas import replication_map, wanted_replicas
from tickledger.settings import ENV_FILE_VARIABLE, PROJECT_ROOT, Settings
from tickledger.stores import connect_cassandra, connect_mysql
from tickledger.tick import cassandra_tables
from tickledger.topic import TOPIC_CONFIGS

#: Kafka's error code UNKNOWN_TOPIC_OR_PARTITION.
UNKNOWN_TOPIC = 3


def environment_for(settings: Settings, env_file: Path) -> dict[str, str]:
    """The environment in which a command works on a test's own names."""
    names = {
        "KAFKA_TOPIC": settings.kafka_topic,
        "CASSANDRA_KEYSPACE": settings.cassandra_keyspace,
        "MYSQL_DATABASE": settings.mysql_database,
        "STREAM_TRIGGER_SECONDS": f"{settings.stream_trigger_seconds:g}",
        "STREAM_STORE_RETRY_SECONDS": f"{settings.stream_store_retry_seconds:g}",
        "STREAM_SCRATCH_DIR": str(settings.stream_scratch_dir),
    }
    path = f"{PROJECT_ROOT / '.venv' / 'bin'}:{os.environ['PATH']}"
    return os.environ | names | {ENV_FILE_VARIABLE: str(env_file), "PATH": path, "SPARK_CONF_DIR": str(PROJECT_ROOT)}


@dataclass
class Database:
    """A MySQL database of a test's own, empty at first."""

    settings: Settings
    env_file: Path
    profiles: Path

    def connect(self) -> MySQLConnectionAbstract:
        """A new connection on the database, with the account that may do everything in it."""
        return connect_mysql(self.settings, self.settings.dbt_mysql)

    def dbt(self, *arguments: str, project: Path = PROJECT_ROOT / "dbt_project") -> "subprocess.CompletedProcess[str]":
        """Run a dbt command on the database, in a process and an environment of its own."""
        profile = {"DBT_PROFILES_DIR": str(self.profiles), "DBT_TARGET_PATH": str(self.profiles / "target")}
        return run_dbt(list(arguments), project, environment_for(self.settings, self.env_file) | profile)


@dataclass
class Launch:
    """How a stream is started: what its command begins with, options of spark-submit, and settings of its own."""

    prefix: list[str] = field(default_factory=list)
    options: list[str] = field(default_factory=list)
    environment: dict[str, str] = field(default_factory=dict)


@dataclass
class Pipeline:
    """A topic, a keyspace with its tables and a database with dbt's tables and profile: a test's own."""

    settings: Settings
    env_file: Path
    cassandra: Session
    #: How its streams are started.
    launch: Launch = field(default_factory=Launch)
    _connections: list[MySQLConnectionAbstract] = field(default_factory=list)

    @property
    def environment(self) -> dict[str, str]:
        """The environment for subprocesses that work on this pipeline."""
        return environment_for(self.settings, self.env_file)

    def mysql(self) -> MySQLConnectionAbstract:
        """A new connection on the pipeline's database, with dbt's account; closed after the test."""
        connection = connect_mysql(self.settings, self.settings.dbt_mysql)
        self._connections.append(connection)
        return connection

    def rows(self, query: str, values: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
        """What a query on the pipeline's database returns now."""
        connection = connect_mysql(self.settings, self.settings.dbt_mysql)
        try:
            cursor: Any = connection.cursor()
            cursor.execute(query, values)
            return [tuple(row) for row in cursor.fetchall()]
        finally:
            connection.close()

    def execute(self, statement: str, values: tuple[Any, ...] = ()) -> None:
        """Run one statement on the pipeline's database, with dbt's account, and commit."""
        # One that stays open after an error keeps its locks, and the database could not be dropped.
        with contextlib.closing(connect_mysql(self.settings, self.settings.dbt_mysql)) as connection:
            connection.cursor().execute(statement, values)
            connection.commit()

    def alter_cassandra(self, statement: str) -> None:
        """Run one statement on the pipeline's keyspace that the stream's role may not, such as DROP TABLE."""
        with cassandra_admin(self.settings) as admin:
            admin.set_keyspace(self.settings.cassandra_keyspace)
            admin.execute(statement, timeout=60)

    def send(self, messages: list[Any], partition: int | None = None) -> None:
        """Send messages to the topic, all acknowledged: bytes and None as they are, anything else as JSON."""
        producer = KafkaProducer(
            bootstrap_servers=self.settings.kafka_bootstrap_servers, acks="all", max_request_size=1_048_576
        )
        sent = [
            producer.send(
                self.settings.kafka_topic,
                value=message if isinstance(message, bytes | None) else json.dumps(message).encode(),
                partition=partition,
                key=b"" if message is None else None,
            )
            for message in messages
        ]
        for future in sent:
            future.get(timeout=30)
        producer.close()

    def send_in_transaction(self, messages: list[Any], partition: int, *, commit: bool = True) -> None:
        """Send messages, as JSON, in one transaction, which is then committed or aborted: a marker stands behind."""
        producer = KafkaProducer(
            bootstrap_servers=self.settings.kafka_bootstrap_servers, transactional_id=uuid.uuid4().hex
        )
        producer.init_transactions()
        producer.begin_transaction()
        for message in messages:
            producer.send(self.settings.kafka_topic, value=json.dumps(message).encode(), partition=partition)
        producer.flush()
        (producer.commit_transaction if commit else producer.abort_transaction)()
        producer.close()

    def delete_records(self, until: dict[int, int]) -> None:
        """Let Kafka delete, as retention does, what lies before the offsets of some partitions; -1 is all."""
        with _kafka_admin(self.settings) as admin:
            admin.delete_records({TopicPartition(self.settings.kafka_topic, one): end for one, end in until.items()})

    def create_topic_anew(self) -> None:
        """Delete the topic and create it again, with two partitions and another id."""
        topic = self.settings.kafka_topic
        with _kafka_admin(self.settings) as admin:
            admin.delete_topics([topic])
            while admin.describe_topics([topic])[0]["error_code"] != UNKNOWN_TOPIC:
                time.sleep(0.05)
            admin.create_topics([NewTopic(topic, 2, 1, topic_configs=TOPIC_CONFIGS)])

    def configure_topic(self, **configs: str | None) -> None:
        """Set configs of the topic, whose names have '_' for '.'; None takes one away."""
        changes = {
            name.replace("_", "."): ("DELETE", "") if value is None else ("SET", value)
            for name, value in configs.items()
        }
        with _kafka_admin(self.settings) as admin:
            admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, self.settings.kafka_topic, configs=changes)])

    def add_partitions(self, count: int) -> None:
        """Let the topic have this many partitions from now on."""
        with _kafka_admin(self.settings) as admin:
            admin.create_partitions({self.settings.kafka_topic: count})

    def ledger_covers(self, messages: int) -> bool:
        """Whether the ledger has landed this many messages of the topic."""
        return (
            int(self.rows("SELECT COALESCE(SUM(until_offset - from_offset), 0) FROM landed_offsets")[0][0]) >= messages
        )

    def wait_until_landed(self, messages: int, seconds: float = 120) -> None:
        """Wait until the ledger has landed this many messages of the topic."""
        deadline = time.monotonic() + seconds
        while not self.ledger_covers(messages):
            assert time.monotonic() < deadline, f"fewer than {messages} messages landed within {seconds} s"
            time.sleep(0.2)

    def close(self) -> None:
        """Close what the test opened."""
        for connection in self._connections:
            connection.close()


class StreamProcess:
    """The stream as a user starts it: spark-submit in a process group of its own, its lines kept."""

    def __init__(
        self, pipeline: Pipeline, *arguments: str, once: bool = False, environment: dict[str, str] | None = None
    ) -> None:
        launch = pipeline.launch
        command = [*launch.prefix, str(Path(sys.executable).with_name("spark-submit")), *launch.options, *arguments]
        command += ["streaming/stream_ticks.py", *(["--once"] if once else [])]
        self.process = subprocess.Popen(
            command,
            cwd=PROJECT_ROOT,
            env=pipeline.environment | launch.environment | (environment or {}),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line.rstrip("\n"))

    @property
    def output(self) -> str:
        """All lines so far."""
        return "\n".join(self.lines)

    def python_pid(self) -> int:
        """The driver's Python, a child of spark-submit's JVM."""
        for child in psutil.Process(self.process.pid).children():
            with contextlib.suppress(psutil.Error):
                if any(part.endswith("stream_ticks.py") for part in child.cmdline()):
                    return child.pid
        raise AssertionError("spark-submit has no Python")

    def wait_for(self, text: str, *, times: int = 1, seconds: float = 120) -> None:
        """Wait until this many lines begin with the text. Fails with the output if the process ends before."""
        deadline = time.monotonic() + seconds
        while sum(line.startswith(text) for line in self.lines) < times:
            if self.process.poll() is not None:
                # What it said last may still be on its way.
                self._reader.join(10)
                said = sum(line.startswith(text) for line in self.lines) >= times
                assert said, f"the stream ended before {text!r}:\n{self.output}"
                return
            assert time.monotonic() < deadline, f"no {text!r} within {seconds} s:\n{self.output}"
            time.sleep(0.05)

    def wait(self, seconds: float = 90) -> int:
        """Wait for the end and return the exit code."""
        code = self.process.wait(seconds)
        self._reader.join(10)
        return code

    def kill(self) -> None:
        """SIGKILL whatever of the group still lives."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self._reader.join(10)


def with_account(settings: Settings, name: str, **changes: str) -> Settings:
    """The settings with another `user` or `password` of the account of that name, such as `dbt_mysql`."""
    known = {key: SecretStr(value) if key == "password" else value for key, value in changes.items()}
    return settings.model_copy(update={name: getattr(settings, name).model_copy(update=known)})


@contextlib.contextmanager
def fresh_database(services: Instance, settings: Settings, profiles: Path) -> Iterator[Database]:
    """An empty database with a dbt profile in the folder `profiles`; dropped in the end."""
    name = f"{settings.mysql_database}_{uuid.uuid4().hex[:12]}"
    mine = settings.model_copy(update={"mysql_database": name, "stream_scratch_dir": profiles / "scratch"})
    write_dbt_profile(mine, profiles / "profiles.yml")
    _as_dbt(settings, f"CREATE DATABASE {name} CHARACTER SET utf8mb4 COLLATE utf8mb4_bin")
    yield Database(mine, services.env_file, profiles)
    _as_dbt(settings, f"DROP DATABASE {name}")


def dbt_statements(services: Instance, settings: Settings, folder: Path) -> list[str]:
    """What `dbt seed` and `dbt run` make of an empty database, as the SQL statements that make it again."""
    with fresh_database(services, settings, folder) as database:
        for command in ("seed", "run"):
            done = database.dbt(command)
            assert done.returncode == 0, done.stdout
        with contextlib.closing(connect_root(database.settings)) as connection:
            return list(_dump(connection, database.settings.mysql_database))


def _dump(connection: MySQLConnectionAbstract, name: str) -> Iterator[str]:
    cursor: Any = connection.cursor()
    cursor.execute("SHOW FULL TABLES")
    for table, kind in sorted(cursor.fetchall(), key=lambda row: (row[1], row[0])):
        cursor.execute(f"SHOW CREATE {'VIEW' if kind == 'VIEW' else 'TABLE'} `{table}`")
        yield cursor.fetchone()[1].replace(f"`{name}`.", "")
        if kind != "VIEW":
            yield from _inserts(cursor, table)
    for role in ("role_stream", "role_producer", "role_dashboard"):
        cursor.execute(f"SHOW GRANTS FOR {role}")
        yield from (grant.replace(f"`{name}`.", "") for (grant,) in cursor.fetchall() if f" ON `{name}`." in grant)


def _inserts(cursor: Any, table: str) -> Iterator[str]:
    cursor.execute(f"SELECT * FROM `{table}`")
    for row in cursor.fetchall():
        texts = (str(value) if isinstance(value, int) else "'" + str(value).replace("'", "''") + "'" for value in row)
        yield f"INSERT INTO `{table}` VALUES ({', '.join(texts)})"


@contextlib.contextmanager
def fresh_pipeline(
    services: Instance, settings_of_all: Settings, template: list[str], folder: Path
) -> Iterator[Pipeline]:
    """A topic of two partitions, a keyspace and a database made from `template`; all dropped in the end."""
    suffix = uuid.uuid4().hex[:12]
    settings = settings_of_all.model_copy(
        update={
            "kafka_topic": f"ticks_{suffix}",
            "cassandra_keyspace": f"{settings_of_all.cassandra_keyspace}_{suffix}",
            "mysql_database": f"{settings_of_all.mysql_database}_{suffix}",
            "stream_scratch_dir": folder / "scratch",
            "stream_trigger_seconds": 0.5,
        }
    )
    _as_dbt(settings_of_all, f"CREATE DATABASE {settings.mysql_database} CHARACTER SET utf8mb4 COLLATE utf8mb4_bin")
    connection = connect_mysql(settings, settings.dbt_mysql)
    for statement in template:
        connection.cursor().execute(statement)
    connection.commit()
    connection.close()
    _create_keyspace(settings)
    with _kafka_admin(settings) as topics:
        create_topic(topics, settings.model_copy(update={"kafka_partitions": 2}))
    session = connect_cassandra(settings)
    pipeline = Pipeline(settings, services.env_file, session)
    try:
        yield pipeline
    finally:
        pipeline.close()
        _drop(pipeline)


def _drop(pipeline: Pipeline) -> None:
    pipeline.cassandra.cluster.shutdown()
    # Clients from before the test may have lost their server in it.
    with _kafka_admin(pipeline.settings) as topics:
        topics.delete_topics([pipeline.settings.kafka_topic])
    with cassandra_admin(pipeline.settings) as admin:
        admin.execute(f"DROP KEYSPACE {pipeline.settings.cassandra_keyspace}", timeout=60)
    _as_dbt(pipeline.settings, f"DROP DATABASE {pipeline.settings.mysql_database}")


@contextlib.contextmanager
def _kafka_admin(settings: Settings) -> Iterator[KafkaAdminClient]:
    admin = KafkaAdminClient(bootstrap_servers=settings.kafka_bootstrap_servers)
    try:
        yield admin
    finally:
        admin.close()


@contextlib.contextmanager
def cassandra_admin(settings: Settings) -> Iterator[Session]:
    """A session with the superuser, for what no part of the pipeline may do."""
    admin = connect_cassandra(settings, settings.cassandra_admin, keyspace="system")
    try:
        yield admin
    finally:
        admin.cluster.shutdown()


def _create_keyspace(settings: Settings) -> None:
    name = settings.cassandra_keyspace
    replication = replication_map(wanted_replicas(settings))
    with cassandra_admin(settings) as admin:
        admin.execute(f"CREATE KEYSPACE {name} WITH replication = {replication}", timeout=60)
        for statement in (*cassandra_tables(name), *keyspace_rights(settings)):
            admin.execute(statement, timeout=60)


def connect_root(settings: Settings) -> MySQLConnectionAbstract:
    """A connection with the account that may do everything on the server, on the settings' database."""
    return connect_mysql(settings, settings.mysql_root)


@contextlib.contextmanager
def read_only(settings: Settings) -> Iterator[None]:
    """MySQL as a replica is: nobody but its superuser writes."""
    with contextlib.closing(connect_mysql(settings, settings.mysql_root, database="")) as root:
        root.cursor().execute("SET GLOBAL read_only = 1")
        try:
            yield
        finally:
            root.cursor().execute("SET GLOBAL read_only = 0")


def _as_dbt(settings: Settings, statement: str) -> None:
    connection = connect_mysql(settings, settings.dbt_mysql, answer_seconds=600)
    connection.cursor().execute(statement)
    connection.close()


def run_tickledger(pipeline: Pipeline, command: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run `tickledger COMMAND …` on the pipeline's stores and wait for its end."""
    return subprocess.run(
        [sys.executable, "-m", "commands.main", command, *arguments],
        cwd=PROJECT_ROOT,
        env=pipeline.environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
