"""The whole pipeline with TLS and Kafka's accounts, and what is refused then; servers of their own, real ones."""

import contextlib
import os
import pickle
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import mysql.connector
import psutil
import pytest
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import NewTopic
from kafka.errors import AuthorizationError, KafkaError

from dashboard.readers import CassandraReader, MySQLReader
from services.certificates import Authority, make_certificates
from services.instance import Instance
from tests.support.instances import KEEP_VARIABLE, instance_name
from tests.support.pipeline import environment_for
from tests.test_ports import listens
from tickledger.errors import ConfigurationError, StoreUnavailable
from tickledger.secured import kafka_options, spark_kafka_options
from tickledger.settings import NO_FILE, PROJECT_ROOT, Account, CertificatesFile, Settings
from tickledger.stores import connect_cassandra, connect_mysql
from tickledger.topic import LagMeter, describe_topic

pytestmark = pytest.mark.integration
BIN = Path(sys.executable).parent
SECONDS = 15


class Secured:
    """The running servers, their settings, and the commands of a user on them."""

    def __init__(self, instance: Instance) -> None:
        self.instance = instance
        self.settings = instance.settings()
        self.environment = environment_for(self.settings, instance.env_file) | {
            "DBT_PROFILES_DIR": str(instance.dbt_profile.parent),
            "DBT_TARGET_PATH": str(instance.folder / "dbt" / "target"),
            "DBT_LOG_PATH": str(instance.folder / "logs"),
        }
        #: What every command printed, for the search for secrets.
        self.said: list[str] = []

    def run(self, *command: str, seconds: float = 180, **changes: str) -> "subprocess.CompletedProcess[str]":
        """Run a command of the environment to its end, with these settings changed."""
        done = subprocess.run(
            [str(BIN / command[0]), *command[1:]],
            cwd=PROJECT_ROOT / ("dbt_project" if command[0] == "dbt" else ""),
            env=self.environment | changes,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=seconds,
        )
        self.said.append(done.stdout)
        return done

    def must(self, *command: str) -> str:
        """Run a command that must succeed; what it printed."""
        done = self.run(*command)
        assert done.returncode == 0, done.stdout
        return done.stdout


@pytest.fixture(scope="module")
def secured() -> Iterator[Secured]:
    """Servers started as `make services SECURE=1` does, with dbt's tables and a pipeline that has run once."""
    instance = Instance(f"{instance_name()}-secured")
    instance.start(secure=True)
    try:
        yield Secured(instance)
    finally:
        if os.environ.get(KEEP_VARIABLE) != "1":
            instance.stop()
            instance.clean()


def _passwords(settings: Settings) -> set[str]:
    accounts = [value for _, value in settings if isinstance(value, Account)]
    assert len(accounts) == 12
    return {account.password.get_secret_value() for account in accounts}


def _arguments_of_all() -> Iterator[str]:
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            yield " ".join(process.cmdline())


def test_the_whole_pipeline_runs_by_settings_alone(secured: Secured) -> None:
    secured.must("dbt", "seed")
    secured.must("dbt", "run")
    sent = secured.must("python", "-m", "producer", "--rounds", "300", "--rounds-per-second", "200", "trading_data")
    assert "3,000 acknowledged" in sent

    with ThreadPoolExecutor(1) as pool:
        # Some 390 kB: what the first batch leaves, the stream reads again by a source of another kind.
        command, limit = ("spark-submit", "streaming/stream_ticks.py", "--once"), "0.2"
        stream = pool.submit(lambda: secured.run(*command, STREAM_MAX_MEGABYTES_PER_BATCH=limit))
        seen: set[str] = set()
        while not stream.done():
            seen.update(_arguments_of_all())
            time.sleep(0.5)
    assert stream.result().returncode == 0, stream.result().stdout
    batches = re.findall(r"^batch \d+ · (\d+) messages? · [\d,]+ ticks? ", stream.result().stdout, re.MULTILINE)
    assert len(batches) > 1
    assert sum(map(int, batches)) == 300
    secured.must("tickledger", "doctor")

    secured.must("tickledger", "doctor")
    assert "The books agree." in secured.must("tickledger", "reconcile")
    secured.must("tickledger", "check-contract")
    secured.must("great_expectations", "checkpoint", "run", "landed_batch")
    assert "trading_data" in secured.must("tickledger", "services", "topics")

    found = [arguments for arguments in seen for secret in _passwords(secured.settings) if secret in arguments]
    assert seen
    assert found == []


def test_the_dashboards_readers_read(secured: Secured) -> None:
    with contextlib.closing(MySQLReader(secured.settings)) as reader:
        assert reader.rows("SELECT COUNT(*) FROM landed_batches")[0][0] >= 1
    with contextlib.closing(CassandraReader(secured.settings)) as ticks:
        assert len(ticks.rows("SELECT cluster_name FROM system.local WHERE key = ?", [("local",)])) == 1
    meter = LagMeter(secured.settings, secured.settings.dashboard_kafka)
    ends = describe_topic(secured.settings).ends
    assert meter.behind(ends) == 0
    meter.close()


def test_the_servers_open_the_ports_of_the_table_and_no_other(secured: Secured) -> None:
    opened = {
        server.name: sorted(
            port
            for process in (psutil.Process(server.pid), *psutil.Process(server.pid).children(recursive=True))
            for port in listens(process)
        )
        for server in secured.instance.servers()
    }
    # Clients, and Kafka's controller and Cassandra's other nodes beside them.
    assert {name: len(ports) for name, ports in opened.items()} == {"kafka": 2, "cassandra": 2, "mysql": 1}
    assert all(server.port in opened[server.name] for server in secured.instance.servers())


def test_plain_text_is_refused_by_all_three(secured: Secured) -> None:
    settings = secured.settings
    with pytest.raises(KafkaError):
        KafkaAdminClient(bootstrap_servers=settings.kafka_bootstrap_servers, bootstrap_timeout_ms=3000)
    with pytest.raises(StoreUnavailable, match="CASSANDRA_HOSTS"):
        connect_cassandra(settings.model_copy(update={"cassandra_ca_file": NO_FILE}))
    with pytest.raises(mysql.connector.Error):
        mysql.connector.connect(
            host=settings.mysql_host,
            port=settings.mysql_port,
            user=settings.mysql.user,
            password=settings.mysql.password.get_secret_value(),
            ssl_disabled=True,
        )
    # The very same account with TLS.
    connect_mysql(settings).close()


#: Each command, and the settings whose certificate it asks for.
CLIENTS = (
    (("python", "streaming/stream_ticks.py"), ("KAFKA_CA_FILE", "CASSANDRA_CA_FILE", "MYSQL_CA_FILE")),
    (("python", "-m", "producer", "trading_data", "--rounds", "1"), ("KAFKA_CA_FILE", "MYSQL_CA_FILE")),
    (("great_expectations", "checkpoint", "run", "landed_batch"), ("MYSQL_CA_FILE",)),
    (("tickledger", "reconcile"), ("MYSQL_CA_FILE", "CASSANDRA_CA_FILE")),
)


def _assert_one_line(done: "subprocess.CompletedProcess[str]", pattern: str) -> None:
    lines = done.stdout.strip().splitlines()
    assert done.returncode == 2, done.stdout
    assert len(lines) == 1, done.stdout
    assert re.match(f"error: {pattern}", lines[0]), done.stdout


@pytest.mark.parametrize("command", CLIENTS, ids=lambda client: " ".join(client[0][:3]))
def test_a_foreign_authority_is_refused_with_one_line(
    secured: Secured, tmp_path: Path, command: tuple[tuple[str, ...], tuple[str, ...]]
) -> None:
    Authority("a stranger").write(tmp_path / "foreign", until=datetime.now(UTC) + timedelta(days=1))
    foreign = str(tmp_path / "foreign" / "ca.pem")
    words, settings = command
    for setting in settings:
        done = secured.run(*words, seconds=SECONDS, **{setting: foreign})
        _assert_one_line(done, f"{setting} is '.*foreign/ca.pem'; the certificate of 127.0.0.1:.* is refused")


def test_dbt_refuses_a_foreign_authority(secured: Secured, tmp_path: Path) -> None:
    Authority("a stranger").write(tmp_path / "foreign", until=datetime.now(UTC) + timedelta(days=1))
    for command in ("debug", "run"):
        done = secured.run("dbt", command, seconds=2 * SECONDS, MYSQL_CA_FILE=str(tmp_path / "foreign" / "ca.pem"))
        assert done.returncode != 0
        assert re.search(r"MYSQL_CA_FILE is '.*foreign/ca.pem'", done.stdout), done.stdout


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"kafka_bootstrap_servers": "127.1:{kafka}"}, "KAFKA_CA_FILE is .* is refused .*host of KAFKA_BOOTSTRAP"),
        ({"mysql_host": "127.1"}, "MYSQL_CA_FILE is .* is refused .*host of MYSQL_HOST"),
    ],
    ids=["Kafka", "MySQL"],
)
def test_a_certificate_for_another_host_is_refused(secured: Secured, changes: dict[str, Any], line: str) -> None:
    # The same address, written in a way that no certificate names.
    port = secured.settings.kafka_bootstrap_servers.rpartition(":")[2]
    written = {key: value.format(kafka=port) if isinstance(value, str) else value for key, value in changes.items()}
    settings = secured.settings.model_copy(update=written)
    with pytest.raises(ConfigurationError, match=line):
        _connect(next(iter(changes)), settings)


def _connect(setting: str, settings: Settings) -> None:
    if setting.startswith("kafka"):
        describe_topic(settings)
    elif setting.startswith("cassandra"):
        connect_cassandra(settings).cluster.shutdown()
    else:
        connect_mysql(settings).close()


@pytest.mark.parametrize("setting", ["KAFKA_CA_FILE", "CASSANDRA_CA_FILE", "MYSQL_CA_FILE"])
def test_a_missing_authority_is_refused_with_one_line(secured: Secured, setting: str) -> None:
    done = secured.run("python", "streaming/stream_ticks.py", seconds=SECONDS, **{setting: "/no/ca.pem"})
    _assert_one_line(done, f"{setting} is '/no/ca.pem'; it should be .*a readable PEM file with the certificate")


def test_sasl_ssl_without_an_authority_is_refused(secured: Secured) -> None:
    done = secured.run("python", "streaming/stream_ticks.py", seconds=SECONDS, KAFKA_CA_FILE="none")
    _assert_one_line(done, "KAFKA_CA_FILE is 'none'; it should be a readable PEM file")


def _options(settings: Settings, account: str) -> dict[str, Any]:
    return {"bootstrap_servers": settings.kafka_bootstrap_servers} | kafka_options(settings, getattr(settings, account))


@pytest.mark.parametrize("account", ["producer_kafka", "dashboard_kafka"])
def test_only_the_stream_reads_the_topic(secured: Secured, account: str) -> None:
    partition = TopicPartition("trading_data", 0)
    consumer = KafkaConsumer(**_options(secured.settings, account), auto_offset_reset="earliest")
    with contextlib.closing(consumer):
        consumer.assign([partition])
        consumer.seek(partition, 0)
        with pytest.raises(AuthorizationError):
            _ = [consumer.poll(timeout_ms=500) for _ in range(10)]
    reader = KafkaConsumer(**_options(secured.settings, "kafka"))
    with contextlib.closing(reader):
        reader.assign([partition])
        reader.seek(partition, 0)
        assert any(reader.poll(timeout_ms=1000) for _ in range(10))


@pytest.mark.parametrize("account", ["kafka", "dashboard_kafka"])
def test_only_the_producer_writes_to_the_topic(secured: Secured, account: str) -> None:
    producer = KafkaProducer(**_options(secured.settings, account), enable_idempotence=False)
    with contextlib.closing(producer), pytest.raises(AuthorizationError):
        producer.send("trading_data", b"[]").get(timeout=10)


@pytest.mark.parametrize("account", ["kafka", "producer_kafka", "dashboard_kafka"])
def test_nobody_deletes_or_creates_a_topic(secured: Secured, account: str) -> None:
    admin = KafkaAdminClient(**_options(secured.settings, account))
    with contextlib.closing(admin):
        with pytest.raises(AuthorizationError):
            admin.delete_topics(["trading_data"])
        with pytest.raises(AuthorizationError):
            admin.create_topics([NewTopic("another", 1, 1)])
    assert describe_topic(secured.settings).ends


def test_a_wrong_password_of_kafka_is_refused_with_one_line(secured: Secured) -> None:
    done = secured.run("python", "streaming/stream_ticks.py", seconds=SECONDS, KAFKA_PASSWORD="no-such-password")
    _assert_one_line(
        done, "KAFKA_USER is 'tickledger'; Kafka at .* refuses it: .*KAFKA_PASSWORD should name an account"
    )
    assert "no-such-password" not in done.stdout


def test_a_plain_start_over_secure_settings_stays_secure(secured: Secured) -> None:
    secured.instance.start()
    assert secured.instance.settings().kafka_security == "SASL_SSL"


def test_no_secret_is_in_a_log_and_all_keys_are_private(secured: Secured) -> None:
    logs = [path for path in (secured.instance.folder / "logs").rglob("*") if path.is_file()]
    texts = [path.read_text(errors="replace") for path in logs] + secured.said
    assert len(logs) >= 3
    for secret in _passwords(secured.settings):
        assert len(secret) >= 24
        assert not any(secret in text for text in texts)
    for path in (secured.instance.folder / "certificates").iterdir():
        assert path.stat().st_mode & 0o777 == 0o600


def test_sparks_workers_get_the_certificates_with_the_settings(secured: Secured, tmp_path: Path) -> None:
    path = tmp_path / "ca.pem"
    path.write_text(f"# Größe\n{Path(secured.settings.cassandra_ca_file).read_text()}")
    file = CertificatesFile.read(path)
    here = secured.settings.model_copy(update={"cassandra_ca_file": file, "kafka_ca_file": file})
    path.unlink()

    there = pickle.loads(pickle.dumps(here))  # noqa: S301  # as Spark does

    connect_cassandra(there).cluster.shutdown()
    assert "BEGIN CERTIFICATE" in spark_kafka_options(there)["kafka.ssl.truststore.certificates"]


def test_a_certificate_that_lacks_an_address_is_made_anew(tmp_path: Path) -> None:
    Authority("of one server").write(tmp_path, addresses=["127.0.0.1"], until=datetime.now(UTC) + timedelta(days=99))
    assert make_certificates(tmp_path)
    assert not make_certificates(tmp_path)


def test_an_expired_certificate_is_refused_by_every_client(secured: Secured) -> None:
    """The last one: its servers are of no more use. Kafka itself does not start with such a certificate."""
    instance, settings = secured.instance, secured.settings
    instance.stop()
    expired = Authority("expired")
    expired.write(instance.folder / "certificates", until=datetime.now(UTC) - timedelta(minutes=1))
    servers = [instance.server("mysql"), instance.server("cassandra")]
    try:
        for server in servers:
            server.start()
        for server in servers:
            with pytest.raises(ConfigurationError, match=rf"{server.name.upper()}_CA_FILE is .* refused .*expired"):
                server.wait_until_ready()
        # Any server shows its certificate before a word of its own protocol.
        elsewhere = settings.model_copy(update={"kafka_bootstrap_servers": f"127.0.0.1:{settings.cassandra_port}"})
        for setting, of_kind in (("kafka", elsewhere), ("cassandra", settings), ("mysql", settings)):
            with pytest.raises(ConfigurationError, match=rf"{setting.upper()}_CA_FILE is .* refused .*expired"):
                _connect(setting, of_kind)
        assert "expired" in secured.run("dbt", "debug", seconds=2 * SECONDS).stdout
    finally:
        instance.stop()
        (instance.folder / "certificates" / "ca.pem").unlink()
