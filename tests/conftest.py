"""Real servers for the tests: a fresh topic, keyspace and database a test.

One Kafka, Cassandra and MySQL a run, or one each for every process in which `pytest --numprocesses` runs the tests.
"""

import contextlib
import os
import signal
import sys
import time
from collections.abc import Collection, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psutil
import pytest
from pyspark.sql import DataFrame, SparkSession

from services.instance import Instance
from services.java import java_home
from streaming import land_batch
from streaming.copies import Winners, second_look
from streaming.landing_task import MOST_KEYS, LandingTask
from tests.support.instances import KEEP_VARIABLE, instance_name
from tests.support.pipeline import Database, Pipeline, dbt_statements, fresh_database, fresh_pipeline
from tickledger.settings import Settings
from tickledger.stopping import interrupt_on_signals

#: No test that asks for today's figures takes longer.
SECONDS_BEFORE_MIDNIGHT = 120

#: Files of tests that take minutes: begun last, one of them would keep one of two processes busy alone.
LONGEST = (
    "test_stream",
    "test_dbt_project",
    "test_faults",
    "test_drill",
    "test_own_servers",
    "test_backup",
    "test_cluster",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the longest files, each in its own order."""
    items.sort(key=lambda item: item.path.stem not in LONGEST)


#: How long processes of pytest-xdist may take to stop what their tests started.
SECONDS_TO_END = 60


def pytest_configure() -> None:
    """Let SIGTERM end a run as Ctrl-C does: fixtures stop what they started."""
    interrupt_on_signals()


def pytest_keyboard_interrupt() -> None:
    """Let the processes of pytest-xdist end in order too, which would be killed after some seconds."""
    workers = [
        one for one in psutil.Process().children() if "exec(eval(sys.stdin.readline()))" in " ".join(one.cmdline())
    ]
    for worker in workers:
        worker.send_signal(signal.SIGTERM)
    deadline = time.monotonic() + SECONDS_TO_END
    while time.monotonic() < deadline and any(is_busy(worker) for worker in workers):
        time.sleep(0.2)


def is_busy(worker: psutil.Process) -> bool:
    """Whether a stream of a process still runs, or a server that is not to stay.

    Both lead a session of their own. A JVM of PySpark's does not, and ends with its Python.
    """
    servers_stay = os.environ.get(KEEP_VARIABLE) == "1"
    with contextlib.suppress(psutil.Error, ProcessLookupError):
        own = [child for child in worker.children() if os.getsid(child.pid) == child.pid]
        return any(not servers_stay or "stream_ticks" in " ".join(child.cmdline()) for child in own)
    return False


if not hasattr(sys.modules["__main__"], "__file__"):
    # A process of pytest-xdist has no main file. PySpark, which Great Expectations imports, takes that for a doctest of
    # its own and exits.
    sys.modules["__main__"].__file__ = __file__


@pytest.fixture(autouse=True)
def one_day() -> None:
    """Begins a test after midnight instead of shortly before it: what is today's at its start is so at its end."""
    now = datetime.now(UTC)
    soon = now + timedelta(seconds=SECONDS_BEFORE_MIDNIGHT)
    if soon.date() != now.date():
        midnight = datetime.combine(soon.date(), datetime.min.time(), UTC)
        time.sleep((midnight - now).total_seconds() + 1)


@pytest.fixture(scope="session")
def services() -> Iterator[Instance]:
    """The running servers of the tests' instance."""
    instance = Instance(instance_name())
    try:
        instance.start()
        yield instance
    finally:
        # Ctrl-C in the middle of the start leaves some of them running too.
        if os.environ.get(KEEP_VARIABLE) != "1":
            instance.stop()


@pytest.fixture(scope="session")
def test_settings(services: Instance) -> Settings:
    """The settings of the tests' instance."""
    return services.settings()


@pytest.fixture
def database(services: Instance, test_settings: Settings, tmp_path: Path) -> Iterator[Database]:
    """A fresh, empty database, dropped after the test."""
    with fresh_database(services, test_settings, tmp_path) as database:
        yield database


@pytest.fixture(scope="session")
def dbt_template(services: Instance, test_settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """What `dbt seed` and `dbt run` make of an empty database, as the SQL statements that make it again."""
    return dbt_statements(services, test_settings, tmp_path_factory.mktemp("dbt"))


@pytest.fixture
def pipeline(
    services: Instance, test_settings: Settings, dbt_template: list[str], tmp_path: Path
) -> Iterator[Pipeline]:
    """A fresh topic of two partitions, keyspace and database; all dropped after the test."""
    with fresh_pipeline(services, test_settings, dbt_template, tmp_path) as pipeline:
        yield pipeline


@pytest.fixture(scope="module")
def stores(
    services: Instance, test_settings: Settings, dbt_template: list[str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Pipeline]:
    """One pipeline for all tests of a file, which empty it by themselves: making one takes longer than most of them."""
    with fresh_pipeline(services, test_settings, dbt_template, tmp_path_factory.mktemp("stores")) as pipeline:
        yield pipeline


@pytest.fixture(params=[MOST_KEYS, 0], ids=["by their keys", "by the workers"])
def copies_found(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Copies in two partitions of a batch are found each way, and a test that has none of them fails."""
    looks: list[object] = []

    def look(messages: DataFrame, task: LandingTask, tickers: Collection[str] | None) -> Winners:
        looks.append(tickers)
        return second_look(messages, task, tickers)

    monkeypatch.setattr(land_batch, "second_look", look)
    monkeypatch.setattr(land_batch, "MOST_KEYS", request.param)
    yield
    assert bool(looks) == (request.param == 0)


@pytest.fixture(scope="session")
def spark() -> Iterator[SparkSession]:
    """A Spark session with two cores, as the stream has it but without Kafka's packages."""
    os.environ["JAVA_HOME"] = str(java_home())
    # Without spark-submit the workers' interpreter comes from here alone, and else is the first python3 on PATH.
    os.environ["PYSPARK_PYTHON"] = sys.executable
    session = (
        SparkSession.builder.master("local[2]")
        .config("spark.driver.extraJavaOptions", "-XX:TieredStopAtLevel=1")
        .config("spark.ui.enabled", "false")
        .config("spark.driver.bindAddress", "127.0.0.1")
        .config("spark.driver.host", "127.0.0.1")
        .config("spark.sql.session.timeZone", "UTC")
        .config("spark.python.worker.reuse", "true")
        .getOrCreate()
    )
    session.sparkContext.setLogLevel("ERROR")
    yield session
    session.stop()
