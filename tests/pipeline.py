"""What a test gets: a database of its own, or a whole pipeline with topic and keyspace, on the real servers."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
from cassandra.cluster import Session
from kafka import KafkaProducer
from mysql.connector.abstracts import MySQLConnectionAbstract

from streaming.settings import ENV_FILE_VARIABLE, PROJECT_ROOT, Settings
from streaming.stores import connect_mysql


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
        """A new connection on the database."""
        return connect_mysql(self.settings)

    def dbt(self, *arguments: str, project: Path = PROJECT_ROOT / "dbt_project") -> "subprocess.CompletedProcess[str]":
        """Run a dbt command on the database, in a subprocess, as a user would."""
        return subprocess.run(
            [str(Path(sys.executable).with_name("dbt")), *arguments],
            cwd=project,
            env=environment_for(self.settings, self.env_file)
            | {"DBT_PROFILES_DIR": str(self.profiles), "DBT_TARGET_PATH": str(self.profiles / "target")},
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )


@dataclass
class Pipeline:
    """A topic, a keyspace with its tables and a database with dbt's tables and profile: a test's own."""

    settings: Settings
    env_file: Path
    cassandra: Session
    _connections: list[MySQLConnectionAbstract] = field(default_factory=list)

    @property
    def environment(self) -> dict[str, str]:
        """The environment for subprocesses that work on this pipeline."""
        return environment_for(self.settings, self.env_file)

    def mysql(self) -> MySQLConnectionAbstract:
        """A new connection on the pipeline's database, closed after the test."""
        connection = connect_mysql(self.settings)
        self._connections.append(connection)
        return connection

    def rows(self, query: str, values: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
        """What a query on the pipeline's database returns now."""
        connection = connect_mysql(self.settings)
        try:
            cursor: Any = connection.cursor()
            cursor.execute(query, values)
            return [tuple(row) for row in cursor.fetchall()]
        finally:
            connection.close()

    def execute(self, statement: str, values: tuple[Any, ...] = ()) -> None:
        """Run one statement on the pipeline's database and commit."""
        connection = connect_mysql(self.settings)
        connection.cursor().execute(statement, values)
        connection.commit()
        connection.close()

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

    def ledger_covers(self, messages: int) -> bool:
        """Whether the ledger has landed so many messages of the topic."""
        return (
            int(self.rows("SELECT COALESCE(SUM(until_offset - from_offset), 0) FROM landed_offsets")[0][0]) >= messages
        )

    def wait_until_landed(self, messages: int, seconds: float = 120) -> None:
        """Wait until the ledger has landed so many messages of the topic."""
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

    def __init__(self, pipeline: Pipeline, *arguments: str, environment: dict[str, str] | None = None) -> None:
        command = [str(Path(sys.executable).with_name("spark-submit")), *arguments, "streaming/stream_ticks.py"]
        self.process = subprocess.Popen(
            command,
            cwd=PROJECT_ROOT,
            env=pipeline.environment | (environment or {}),
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
        """Wait until so many lines begin with the text. Fails with the output where the process ends before."""
        deadline = time.monotonic() + seconds
        while sum(line.startswith(text) for line in self.lines) < times:
            alive = self.process.poll() is None
            assert alive, f"the stream ended before {text!r}:\n{self.output}"
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
