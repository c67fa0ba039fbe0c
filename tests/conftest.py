"""Real servers for the tests: one Kafka, Cassandra and MySQL a run; a fresh topic, keyspace and database a test."""

import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cassandra.cluster import Session
from kafka import KafkaAdminClient
from kafka.admin import NewTopic
from mysql.connector.abstracts import MySQLConnectionAbstract
from pipeline import Database, Pipeline

from services.environment import write_dbt_profile
from services.instance import Instance
from streaming.settings import Settings
from streaming.stores import connect_cassandra, connect_mysql
from streaming.tick import cassandra_tables

#: Set to 1 to leave the test servers running between two runs.
KEEP_VARIABLE = "TICKLEDGER_KEEP_TEST_SERVICES"


@pytest.fixture(scope="session")
def services() -> Iterator[Instance]:
    """The running servers of the `test` instance."""
    instance = Instance("test")
    instance.start()
    yield instance
    if os.environ.get(KEEP_VARIABLE) != "1":
        instance.stop()


@pytest.fixture(scope="session")
def test_settings(services: Instance) -> Settings:
    """The settings of the `test` instance."""
    return services.settings()


@pytest.fixture
def database(services: Instance, test_settings: Settings, tmp_path: Path) -> Iterator[Database]:
    """A fresh, empty database, dropped after the test."""
    yield from _fresh_database(services, test_settings, tmp_path)


def _fresh_database(services: Instance, settings: Settings, profiles: Path) -> Iterator[Database]:
    name = f"{settings.mysql_database}_{uuid.uuid4().hex[:12]}"
    mine = settings.model_copy(update={"mysql_database": name, "stream_scratch_dir": profiles / "scratch"})
    write_dbt_profile(mine, profiles / "profiles.yml")
    _as_user(settings, f"CREATE DATABASE {name} CHARACTER SET utf8mb4 COLLATE utf8mb4_bin")
    yield Database(mine, services.env_file, profiles)
    _as_user(settings, f"DROP DATABASE {name}")


def _as_user(settings: Settings, statement: str) -> None:
    connection = connect_mysql(settings)
    connection.cursor().execute(statement)
    connection.close()


@pytest.fixture(scope="session")
def dbt_template(
    services: Instance, test_settings: Settings, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[list[str]]:
    """What `dbt seed` and `dbt run` make of an empty database, as the SQL statements that make it again."""
    for database in _fresh_database(services, test_settings, tmp_path_factory.mktemp("dbt")):
        for command in ("seed", "run"):
            done = database.dbt(command)
            assert done.returncode == 0, done.stdout
        connection = database.connect()
        yield list(_dump(connection, database.settings.mysql_database))
        connection.close()


def _dump(connection: MySQLConnectionAbstract, name: str) -> Iterator[str]:
    cursor: Any = connection.cursor()
    cursor.execute("SHOW FULL TABLES")
    for table, kind in sorted(cursor.fetchall(), key=lambda row: (row[1], row[0])):
        cursor.execute(f"SHOW CREATE {'VIEW' if kind == 'VIEW' else 'TABLE'} `{table}`")
        yield cursor.fetchone()[1].replace(f"`{name}`.", "")
        if kind != "VIEW":
            yield f"INSERT INTO `{table}` SELECT * FROM `{name}`.`{table}`"


@pytest.fixture
def pipeline(
    services: Instance, test_settings: Settings, dbt_template: list[str], tmp_path: Path
) -> Iterator[Pipeline]:
    """A fresh topic of two partitions, keyspace and database; all dropped after the test."""
    suffix = uuid.uuid4().hex[:12]
    settings = test_settings.model_copy(
        update={
            "kafka_topic": f"ticks_{suffix}",
            "cassandra_keyspace": f"{test_settings.cassandra_keyspace}_{suffix}",
            "mysql_database": f"{test_settings.mysql_database}_{suffix}",
            "stream_scratch_dir": tmp_path / "scratch",
            "stream_trigger_seconds": 0.5,
        }
    )
    _as_user(test_settings, f"CREATE DATABASE {settings.mysql_database} CHARACTER SET utf8mb4 COLLATE utf8mb4_bin")
    connection = connect_mysql(settings)
    for statement in dbt_template:
        connection.cursor().execute(statement)
    connection.commit()
    connection.close()
    admin = connect_cassandra(
        settings, user="tickledger_admin", password=settings.cassandra_admin_password, keyspace="system"
    )
    _create_keyspace(admin, settings)
    topics = KafkaAdminClient(bootstrap_servers=settings.kafka_bootstrap_servers)
    topics.create_topics([NewTopic(settings.kafka_topic, num_partitions=2, replication_factor=1)])
    session = connect_cassandra(settings)
    pipeline = Pipeline(settings, services.env_file, session)
    yield pipeline
    pipeline.close()
    session.cluster.shutdown()
    topics.delete_topics([settings.kafka_topic])
    topics.close()
    admin.execute(f"DROP KEYSPACE {settings.cassandra_keyspace}", timeout=60)
    admin.cluster.shutdown()
    _as_user(test_settings, f"DROP DATABASE {settings.mysql_database}")


def _create_keyspace(admin: Session, settings: Settings) -> None:
    name = settings.cassandra_keyspace
    admin.execute(
        f"CREATE KEYSPACE {name} WITH replication = {{'class': 'SimpleStrategy', 'replication_factor': 1}}", timeout=60
    )
    for statement in cassandra_tables(name):
        admin.execute(statement, timeout=60)
    admin.execute(f"GRANT ALL PERMISSIONS ON KEYSPACE {name} TO {settings.cassandra_user}", timeout=60)
