"""A bad setting stops the stream before Spark starts: one line, exit code 2, soon, and no secret in it."""

import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from services.server import free_port
from streaming.stream_ticks import TickStream
from tests.support.pipeline import Pipeline, read_only
from tickledger.errors import run_command
from tickledger.settings import ENV_FILE_VARIABLE, PROJECT_ROOT, load_settings

pytestmark = pytest.mark.integration

#: No start may be refused later.
SECONDS = 15
SECRET = "wr0ng-secret"

Doctored = Callable[[Pipeline, Path], dict[str, str]]


def _set(**changes: str) -> Doctored:
    return lambda _pipeline, _folder: changes


def _port_of(setting: str, other: str) -> Doctored:
    """A port at which something answers that is not what it should be."""
    return lambda pipeline, _folder: {setting: str(getattr(pipeline.settings, other))}


def _closed_port(setting: str, before: str = "") -> Doctored:
    return lambda _pipeline, _folder: {setting: f"{before}{free_port()}"}


def _three_closed_ports(_pipeline: Pipeline, _folder: Path) -> dict[str, str]:
    return {"KAFKA_BOOTSTRAP_SERVERS": ",".join(f"127.0.0.1:{free_port()}" for _ in range(3))}


def _kafka_at_mysqls_port(pipeline: Pipeline, _folder: Path) -> dict[str, str]:
    return {"KAFKA_BOOTSTRAP_SERVERS": f"127.0.0.1:{pipeline.settings.mysql_port}"}


def _without(line: str) -> Doctored:
    """A settings file that lacks a line."""

    def doctored(pipeline: Pipeline, folder: Path) -> dict[str, str]:
        text = pipeline.env_file.read_text()
        (folder / "lacking").write_text(re.sub(rf"^{line}=.*\n", "", text, flags=re.M))
        return {ENV_FILE_VARIABLE: str(folder / "lacking")}

    return doctored


def _no_file(_pipeline: Pipeline, folder: Path) -> dict[str, str]:
    return {ENV_FILE_VARIABLE: str(folder / "nowhere")}


def _scratch_in_a_file(_pipeline: Pipeline, folder: Path) -> dict[str, str]:
    (folder / "taken").touch()
    return {"STREAM_SCRATCH_DIR": str(folder / "taken" / "scratch")}


def _scratch_on_a_read_only_disk(_pipeline: Pipeline, _folder: Path) -> dict[str, str]:
    # The kernel's own view of itself takes no folders, not even root's.
    return {"STREAM_SCRATCH_DIR": "/proc/scratch"}


def _after(statement: str) -> Doctored:
    def doctored(pipeline: Pipeline, _folder: Path) -> dict[str, str]:
        pipeline.execute(statement)
        return {}

    return doctored


def _after_cql(statement: str) -> Doctored:
    def doctored(pipeline: Pipeline, _folder: Path) -> dict[str, str]:
        pipeline.alter_cassandra(statement)
        return {}

    return doctored


def _landed_another_topic(pipeline: Pipeline, topic: str) -> dict[str, str]:
    pipeline.execute(
        "INSERT INTO landed_batches (batch_id, topic, topic_id, messages, ticks_read, ticks_landed, dead_letters,"
        " duplicates, late_ticks, volume, landed_at, landing_seconds, contract_hash, verdict)"
        " VALUES (1, %s, 'another', 1, 1, 0, 1, 0, 0, 0, UTC_TIMESTAMP(3), 1, '', 'passed')",
        (topic,),
    )
    return {}


#: By the kind of mistake, what is done, and what the line says of it.
CASES: dict[str, tuple[Doctored, str]] = {
    "no settings file": (_no_file, "is not set; .*which does not exist: run 'make services' or copy .env.example"),
    "a setting is missing": (_without("MYSQL_HOST"), "MYSQL_HOST is not set; it should be a host's name or address"),
    "a password is missing": (_without("MYSQL_PASSWORD"), "MYSQL_PASSWORD is not set"),
    "a setting is empty": (_set(MYSQL_HOST=""), "MYSQL_HOST is ''; it should be a host's name or address"),
    "two hosts of MySQL": (
        _set(MYSQL_HOST="a,b"),
        "MYSQL_HOST is 'a,b'; it should be a host's name or address",
    ),
    "a host with its port": (
        _set(CASSANDRA_HOSTS="127.0.0.2,127.0.0.1:9042"),
        "CASSANDRA_HOSTS is '127.0.0.1:9042'; it should be a host, or several separated by commas, without ports",
    ),
    "an account is empty": (_set(MYSQL_USER=""), "MYSQL_USER is not set; it should be the name of an account of MySQL"),
    "a broker without a port": (
        _set(KAFKA_BOOTSTRAP_SERVERS="localhost"),
        "KAFKA_BOOTSTRAP_SERVERS is 'localhost'; it should be host:port, or several separated by commas",
    ),
    "a broker at a port beyond the last": (
        _set(KAFKA_BOOTSTRAP_SERVERS="127.0.0.1:9092,127.0.0.1:65536"),
        "KAFKA_BOOTSTRAP_SERVERS is '127.0.0.1:9092,127.0.0.1:65536'; it should be host:port, or several",
    ),
    "no broker at the port": (
        _closed_port("KAFKA_BOOTSTRAP_SERVERS", "127.0.0.1:"),
        r"Kafka at 127.0.0.1:\d+ \(KAFKA_BOOTSTRAP_SERVERS\) does not answer",
    ),
    "a broker's host that nobody knows": (
        _set(KAFKA_BOOTSTRAP_SERVERS="nowhere.invalid:9092"),
        r"Kafka at nowhere.invalid:9092 \(KAFKA_BOOTSTRAP_SERVERS\) does not answer",
    ),
    "another server at the broker's port": (
        _kafka_at_mysqls_port,
        r"Kafka at 127.0.0.1:\d+ \(KAFKA_BOOTSTRAP_SERVERS\) does not answer",
    ),
    "a topic that is not there": (_set(KAFKA_TOPIC="no_such_topic"), "KAFKA_TOPIC is 'no_such_topic'; it should be"),
    "a topic's name that Kafka does not take": (_set(KAFKA_TOPIC="a topic"), "KAFKA_TOPIC is 'a topic'; it should be"),
    "no partitions": (_set(KAFKA_PARTITIONS="0"), "KAFKA_PARTITIONS is '0'; it should be a whole number of at least 1"),
    "no replica of a partition": (
        _set(KAFKA_REPLICATION_FACTOR="0"),
        "KAFKA_REPLICATION_FACTOR is '0'; it should be default, or a whole number from 1 to 99",
    ),
    "more replicas in sync than there are": (
        _set(KAFKA_REPLICATION_FACTOR="2", KAFKA_MIN_IN_SYNC_REPLICAS="3"),
        "KAFKA_MIN_IN_SYNC_REPLICAS is '3'; it should be default, or a whole number from 1 to KAFKA_REPLICATION_FACTOR",
    ),
    "more replicas in sync than the broker's default may be": (
        _set(KAFKA_MIN_IN_SYNC_REPLICAS="2"),
        "KAFKA_MIN_IN_SYNC_REPLICAS is '2'; it should be default, or a whole number from 1 to KAFKA_REPLICATION_FACTOR",
    ),
    "no broker at any of three addresses": (
        _three_closed_ports,
        r"Kafka at 127.0.0.1:\d+,127.0.0.1:\d+,127.0.0.1:\d+ \(KAFKA_BOOTSTRAP_SERVERS\) does not answer",
    ),
    "no Cassandra at any of three addresses": (
        _set(CASSANDRA_HOSTS="127.0.0.7,127.0.0.8,127.0.0.9"),
        r"Cassandra at 127.0.0.7,127.0.0.8,127.0.0.9:\d+ .* does not answer",
    ),
    "replicas in a data centre without a number": (
        _set(CASSANDRA_REPLICATION="dc1:3,dc2"),
        "CASSANDRA_REPLICATION is 'dc1:3,dc2'; it should be a number of replicas from 1 to 99, or one for each data",
    ),
    "a data centre twice": (
        _set(CASSANDRA_REPLICATION="dc1:3,dc1:2"),
        "CASSANDRA_REPLICATION is 'dc1:3,dc1:2'; it should be a number of replicas from 1 to 99, or one for each data",
    ),
    "a data centre without replicas": (
        _set(CASSANDRA_REPLICATION="dc1:3,dc2:3", CASSANDRA_DATACENTER="dc3"),
        "CASSANDRA_DATACENTER is 'dc3'; it should be none, or a data centre, one of those of CASSANDRA_REPLICATION",
    ),
    "a data centre that is not there": (
        _set(CASSANDRA_DATACENTER="dc9"),
        r"CASSANDRA_DATACENTER is 'dc9'; it should be one of Cassandra at 127.0.0.1:\d+: datacenter1",
    ),
    "a consistency that loses sight of ticks": (
        _set(CASSANDRA_CONSISTENCY="ONE"),
        "CASSANDRA_CONSISTENCY is 'ONE'; it should be LOCAL_QUORUM, QUORUM or ALL",
    ),
    "a host of Cassandra too few": (
        _set(CASSANDRA_HOSTS="127.0.0.1,"),
        "CASSANDRA_HOSTS is '127.0.0.1,'; it should be a host, or several",
    ),
    "no host of Cassandra": (_set(CASSANDRA_HOSTS=""), "CASSANDRA_HOSTS is ''; it should be a host, or several"),
    "a host of Cassandra that nobody knows": (
        _set(CASSANDRA_HOSTS="nowhere.invalid"),
        "Cassandra at nowhere.invalid:.*does not answer",
    ),
    "a port of Cassandra that is no number": (
        _set(CASSANDRA_PORT="native"),
        "CASSANDRA_PORT is 'native'; it should be a port from 1 to 65535",
    ),
    "no Cassandra at the port": (_closed_port("CASSANDRA_PORT"), "Cassandra at .*CASSANDRA_PORT.* does not answer"),
    "another server at Cassandra's port": (
        _port_of("CASSANDRA_PORT", "mysql_port"),
        "Cassandra at .*CASSANDRA_PORT.* does not answer",
    ),
    "a wrong password of Cassandra": (
        _set(CASSANDRA_PASSWORD=SECRET),
        "CASSANDRA_USER and CASSANDRA_PASSWORD should name a role of Cassandra",
    ),
    "a role that Cassandra does not know": (
        _set(CASSANDRA_USER="nobody"),
        "CASSANDRA_USER is 'nobody'; Cassandra at .* refuses it",
    ),
    "a keyspace that is not there": (
        _set(CASSANDRA_KEYSPACE="no_such_keyspace"),
        "CASSANDRA_KEYSPACE is 'no_such_keyspace'; it should be a keyspace at",
    ),
    "a keyspace's name that would need quotes": (
        _set(CASSANDRA_KEYSPACE="Trading-1"),
        "CASSANDRA_KEYSPACE is 'Trading-1'; it should be a lower-case name",
    ),
    "a table of Cassandra that is gone": (
        _after_cql("DROP TABLE dead_letters"),
        "Cassandra has no table 'dead_letters'; run make services, or for servers of your own python -m",
    ),
    "a column of Cassandra of another kind": (
        _after_cql("ALTER TABLE real_time_data DROP price"),
        "table 'real_time_data' of Cassandra differs from its contract in column price",
    ),
    "a host of MySQL that nobody knows": (
        _set(MYSQL_HOST="nowhere.invalid"),
        r"MySQL at nowhere.invalid:\d+ \(MYSQL_HOST, MYSQL_PORT\) does not answer",
    ),
    "a port of MySQL that is no number": (_set(MYSQL_PORT="many"), "MYSQL_PORT is 'many'; it should be a port from 1"),
    "a port of MySQL that no machine has": (
        _set(MYSQL_PORT="70000"),
        "MYSQL_PORT is '70000'; it should be a port from 1 to 65535",
    ),
    "no MySQL at the port": (_closed_port("MYSQL_PORT"), "MySQL at .*MYSQL_PORT.* does not answer"),
    "a wrong password of MySQL": (
        _set(MYSQL_PASSWORD=SECRET),
        "MYSQL_USER and MYSQL_PASSWORD should name an account of MySQL",
    ),
    "an account that MySQL does not know": (_set(MYSQL_USER="nobody"), "MYSQL_USER is 'nobody'; MySQL at .* refuses"),
    "a database that is not there": (
        _set(MYSQL_DATABASE="no_such_database"),
        "MYSQL_DATABASE is 'no_such_database'; it should be a database of MySQL",
    ),
    "a table of MySQL that is gone": (
        _after("DROP TABLE landed_batches"),
        "MySQL has no table 'landed_batches'; run 'dbt seed' and 'dbt run'",
    ),
    "a column of MySQL of another type": (
        _after("ALTER TABLE landed_batches MODIFY volume decimal(10,0)"),
        "table 'landed_batches' of MySQL differs from its contract in column volume",
    ),
    "a rule that no feed has": (
        _set(FEED_RULES="id_is_unique, prices_rise"),
        "FEED_RULES is 'prices_rise'; it should be none, or some of id_is_unique, one_tick_a_symbol_and_round, size_is",
    ),
    "a profile without a company": (_after("DELETE FROM profile"), "table 'profile' is empty; run 'dbt seed'"),
    "no exchange": (_after("DELETE FROM exchange"), "table 'exchange' is empty; run 'dbt seed'"),
    "an exchange of no time zone": (
        _after("UPDATE exchange SET time_zone = 'Asia/Jakata'"),
        "table 'exchange': time_zone is 'Asia/Jakata'; it should be a time zone of the tz database",
    ),
    "a topic other than the ledger's": (
        lambda pipeline, _folder: _landed_another_topic(pipeline, "old_topic"),
        "KAFKA_TOPIC is .*; this ledger lands 'old_topic': name that one, or give this topic a ledger of its own",
    ),
    "a topic that was recreated": (
        lambda pipeline, _folder: _landed_another_topic(pipeline, pipeline.settings.kafka_topic),
        "KAFKA_TOPIC .* was recreated",
    ),
    "Kafka's authority is no file": (
        _set(KAFKA_SECURITY="SASL_SSL", KAFKA_CA_FILE="/no/ca.pem"),
        "KAFKA_CA_FILE is '/no/ca.pem'; it should be a readable PEM file",
    ),
    "Cassandra's authority is no file": (
        _set(CASSANDRA_CA_FILE="/no/ca.pem"),
        "CASSANDRA_CA_FILE is '/no/ca.pem'; it should be none, or a readable PEM file",
    ),
    "MySQL's authority is no file": (
        _set(MYSQL_CA_FILE="/no/ca.pem"),
        "MYSQL_CA_FILE is '/no/ca.pem'; it should be none, or a readable PEM file",
    ),
    "SASL_SSL without an authority": (
        _set(KAFKA_SECURITY="SASL_SSL", KAFKA_CA_FILE="none"),
        "KAFKA_CA_FILE is 'none'; it should be a readable PEM file",
    ),
    "Kafka neither plain nor secured": (
        _set(KAFKA_SECURITY="SSL"),
        "KAFKA_SECURITY is 'SSL'; it should be PLAINTEXT or SASL_SSL",
    ),
    "a trigger that is no number": (
        _set(STREAM_TRIGGER_SECONDS="soon"),
        "STREAM_TRIGGER_SECONDS is 'soon'; it should be a number of seconds, 0 or more",
    ),
    "a trigger below zero": (_set(STREAM_TRIGGER_SECONDS="-1"), "STREAM_TRIGGER_SECONDS is '-1'; it should be"),
    "batches of no message": (
        _set(STREAM_MAX_OFFSETS_PER_TRIGGER="0"),
        "STREAM_MAX_OFFSETS_PER_TRIGGER is '0'; it should be a whole number of at least 1",
    ),
    "batches of no byte": (
        _set(STREAM_MAX_MEGABYTES_PER_BATCH="0"),
        "STREAM_MAX_MEGABYTES_PER_BATCH is '0'; it should be a number of megabytes above 0",
    ),
    "a retry time below zero": (_set(STREAM_STORE_RETRY_SECONDS="-5"), "STREAM_STORE_RETRY_SECONDS is '-5'; it should"),
    "a scratch folder below a file": (
        _scratch_in_a_file,
        "STREAM_SCRATCH_DIR is '.*'; it should be a folder that can be written: Not a directory",
    ),
    "a scratch folder that takes no files": (
        _scratch_on_a_read_only_disk,
        "STREAM_SCRATCH_DIR is '/proc/scratch'; it should be a folder that can be written",
    ),
    "an address of metrics without a port": (
        _set(STREAM_METRICS_ADDRESS="localhost"),
        "STREAM_METRICS_ADDRESS is 'localhost'; it should be none, or host:port",
    ),
    "a port of metrics that is in use": (
        lambda pipeline, _folder: {"STREAM_METRICS_ADDRESS": f"127.0.0.1:{pipeline.settings.mysql_port}"},
        r"STREAM_METRICS_ADDRESS is '127.0.0.1:\d+'; it should be none, or a free host:port .*: Address already in use",
    ),
    "a web interface at no port": (
        _set(STREAM_UI_PORT="localhost:4040"),
        "STREAM_UI_PORT is 'localhost:4040'; it should be none, or a port from 1 to 65535 for Spark's web interface",
    ),
    "checks neither on nor off": (
        _set(CHECKS_ENABLED="maybe"),
        "CHECKS_ENABLED is 'maybe'; it should be true",
    ),
    "a webhook that is no address": (
        _set(CHECKS_WEBHOOK_URL=f"ftp://{SECRET}"),
        r"CHECKS_WEBHOOK_URL is \(hidden\); it should be none, or an address that begins with http",
    ),
    "a page that refreshes without a pause": (
        _set(DASHBOARD_REFRESH_SECONDS="0"),
        "DASHBOARD_REFRESH_SECONDS is '0'; it should be a number of seconds, at least 0.5",
    ),
}


#: What is wrong in a store and not in a setting: these need stores of their own.
IN_THE_STORES = {
    "a table of Cassandra that is gone",
    "a column of Cassandra of another kind",
    "a table of MySQL that is gone",
    "a column of MySQL of another type",
    "a profile without a company",
    "no exchange",
    "an exchange of no time zone",
    "a topic other than the ledger's",
    "a topic that was recreated",
}


@pytest.mark.parametrize("case", CASES)
def test_a_bad_setting_stops_the_start_with_one_line(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    case: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    doctored, said = CASES[case]
    pipeline: Pipeline = request.getfixturevalue("pipeline" if case in IN_THE_STORES else "stores")
    mine = pipeline.environment
    for name, value in (mine | doctored(pipeline, tmp_path)).items():
        monkeypatch.setenv(name, value)
    capsys.readouterr()
    begun = time.monotonic()

    with pytest.raises(SystemExit) as ended:
        run_command(lambda: TickStream(load_settings(), once=True).check_start_up())

    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert re.search(f"^error: .*{said}", line), line
    assert SECRET not in line
    assert time.monotonic() - begun < SECONDS


def test_a_mysql_that_only_reads_stops_the_start_with_one_line(
    stores: Pipeline, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in stores.environment.items():
        monkeypatch.setenv(name, value)

    with read_only(stores.settings), pytest.raises(SystemExit) as ended:
        run_command(lambda: TickStream(load_settings(), once=True).check_start_up())

    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert re.fullmatch(
        r"error: MYSQL_HOST is '127\.0\.0\.1'; MySQL at 127\.0\.0\.1:\d+ is read-only, as a replica is: it should be"
        r" the primary's name",
        line,
    )


def test_the_command_ends_with_the_line_and_2(stores: Pipeline) -> None:
    done = subprocess.run(
        [sys.executable, "streaming/stream_ticks.py"],
        cwd=PROJECT_ROOT,
        env=stores.environment | {"CASSANDRA_PASSWORD": SECRET},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )

    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: CASSANDRA_USER is ")
    assert SECRET not in done.stdout + done.stderr
