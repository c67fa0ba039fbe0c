"""`tickledger doctor` on a healthy set-up and on doctored ones: each fault is named, with its cure, nothing else."""

import subprocess
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from commands import doctor
from commands.doctor import Fact, examine
from services.cassandra_roles import create_roles_and_tables
from services.server import free_port
from tests.support.batches import TOPIC, Lander, tick
from tests.support.page_data import land
from tests.support.pipeline import Database, Pipeline, read_only, with_account
from tickledger.ledger import utc_now
from tickledger.settings import ENV_FILE_VARIABLE, PROJECT_ROOT, Settings, load_settings
from tickledger.topic import TopicFacts, describe_topic

pytestmark = pytest.mark.integration

LINES = [
    "versions", "Java", "settings file", "network", "scratch folder", "Kafka and topic", "topic's replicas",
    "Cassandra", "rows' replicas", "Cassandra's tables", "MySQL", "commits' replicas", "accounts", "clock", "restore",
    "contract", "profile", "exchange", "ledger", "lag", "verdicts",
]  # fmt: skip


def bad(settings: Settings) -> list[Fact]:
    return [fact for fact in examine(settings) if not fact.good]


def test_a_healthy_set_up_is_good_in_every_line(stores: Pipeline) -> None:
    facts = list(examine(stores.settings))

    assert [fact.what for fact in facts] == LINES
    assert [fact for fact in facts if not fact.good] == []


def _with(**changes: object) -> Callable[[Pipeline, Path], Settings]:
    return lambda pipeline, _folder: pipeline.settings.model_copy(update=changes)


def _account(name: str, **changes: str) -> Callable[[Pipeline, Path], Settings]:
    return lambda pipeline, _folder: with_account(pipeline.settings, name, **changes)


def _after(statement: str) -> Callable[[Pipeline, Path], Settings]:
    def doctored(pipeline: Pipeline, _folder: Path) -> Settings:
        pipeline.execute(statement)
        return pipeline.settings

    return doctored


def _scratch_is_a_file(pipeline: Pipeline, folder: Path) -> Settings:
    (folder / "taken").touch()
    return pipeline.settings.model_copy(update={"stream_scratch_dir": folder / "taken"})


def _lagging(pipeline: Pipeline, _folder: Path) -> Settings:
    pipeline.send([[tick(1)]])
    return pipeline.settings


def _failed(pipeline: Pipeline, _folder: Path) -> Settings:
    return _landed(pipeline, "failed")


def _unchecked(pipeline: Pipeline, _folder: Path) -> Settings:
    return _landed(pipeline, "unchecked")


def _landed(pipeline: Pipeline, verdict: str) -> Settings:
    land(pipeline, 1, utc_now() - timedelta(minutes=5), {"Coal": 1}, verdict)
    topic_id = describe_topic(pipeline.settings).topic_id
    pipeline.execute(f"UPDATE landed_batches SET topic = '{pipeline.settings.kafka_topic}', topic_id = '{topic_id}'")
    return pipeline.settings


def _any_time(pipeline: Pipeline, _folder: Path) -> Settings:
    pipeline.configure_topic(message_timestamp_before_max_ms=None)
    return pipeline.settings


def _configured(**configs: str) -> Callable[[Pipeline, Path], Settings]:
    def doctored(pipeline: Pipeline, _folder: Path) -> Settings:
        pipeline.configure_topic(**configs)
        return pipeline.settings

    return doctored


def _after_cql(statements: str) -> Callable[[Pipeline, Path], Settings]:
    def doctored(pipeline: Pipeline, _folder: Path) -> Settings:
        for statement in statements.split("; "):
            pipeline.alter_cassandra(statement)
        return pipeline.settings

    return doctored


DOCTORED: dict[str, tuple[Callable[[Pipeline, Path], Settings], str, str, str]] = {
    # (what was done, the line that is bad, what it says, what fixes it)
    "a topic that is not there": (_with(kafka_topic="nowhere"), "Kafka and topic", "KAFKA_TOPIC is", "make services"),
    "a topic that takes messages of any time": (
        _any_time,
        "Kafka and topic",
        "it takes messages whose time Spark cannot read; it should have message.timestamp.before.max.ms=3155760000000",
        "make services",
    ),
    "fewer replicas of the topic than are asked for": (
        _with(kafka_replication_factor=3),
        "topic's replicas",
        "1 of a partition; KAFKA_REPLICATION_FACTOR is 3",
        "kafka-reassign-partitions",
    ),
    "fewer replicas in sync than the topic needs": (
        _configured(min_insync_replicas="2"),
        "topic's replicas",
        "1 of a partition in sync; Kafka takes no message with less than 2",
        "make services",
    ),
    "a topic whose leader may lack messages": (
        _configured(unclean_leader_election_enable="true"),
        "topic's replicas",
        "unclean.leader.election.enable is true",
        "make services",
    ),
    "more replicas of the rows than there are nodes": (
        _with(cassandra_replication="datacenter1:3"),
        "rows' replicas",
        "CASSANDRA_REPLICATION is 'datacenter1:3'; it should ask for no more than Cassandra",
        "start more nodes, or correct .env",
    ),
    "replicas of the rows in a data centre that is not there": (
        _with(cassandra_replication="dc9:1"),
        "rows' replicas",
        "CASSANDRA_REPLICATION is 'dc9:1'; it should ask for no more than Cassandra",
        "correct .env",
    ),
    "a data centre that is not there": (
        _with(cassandra_datacenter="dc9"),
        "Cassandra",
        "CASSANDRA_DATACENTER is 'dc9'; it should be one of Cassandra at 127.0.0.1:",
        "correct .env",
    ),
    "no Kafka": (
        _with(kafka_bootstrap_servers=f"127.0.0.1:{free_port()}"),
        "Kafka and topic",
        "does not answer",
        "make services",
    ),
    "no Cassandra": (_with(cassandra_port=free_port()), "Cassandra", "does not answer", "make services"),
    "Cassandra's password": (
        _account("cassandra", password="wrong"),
        "Cassandra",
        "CASSANDRA_USER and CASSANDRA_PASSWORD should name a role",
        "correct .env",
    ),
    "a keyspace that is not there": (_with(cassandra_keyspace="nowhere"), "Cassandra", "CASSANDRA_KEYSPACE", "make"),
    "a table of Cassandra that is gone": (
        _after_cql("DROP TABLE dead_letters"),
        "Cassandra's tables",
        "dead_letters, table: missing",
        "make services",
    ),
    "a column of Cassandra that is gone": (
        _after_cql("ALTER TABLE dead_letters DROP detail"),
        "Cassandra's tables",
        "dead_letters, column detail: missing; it should be text",
        "make services",
    ),
    "a column of Cassandra of another type": (
        _after_cql("ALTER TABLE dead_letters DROP detail; ALTER TABLE dead_letters ADD detail blob"),
        "Cassandra's tables",
        "dead_letters, column detail: blob; it should be text",
        "give a field of your own another name",
    ),
    "no MySQL": (_with(mysql_port=free_port()), "MySQL", "does not answer", "make services"),
    "MySQL's password": (_account("mysql", password="wrong"), "MySQL", "MYSQL_USER is", "correct .env"),
    "the producer's password": (
        _account("producer_mysql", password="wrong"),
        "accounts",
        "PRODUCER_MYSQL_USER is",
        "correct .env",
    ),
    "an account that is not set": (
        _account("dbt_mysql", user=""),
        "accounts",
        "DBT_MYSQL_USER is not set",
        "make services",
    ),
    "a database that is not there": (
        _with(mysql_database="nowhere"),
        "contract",
        "MYSQL_DATABASE is",
        "dbt seed",
    ),
    "a restore that has ended half-way": (
        _after("CREATE TABLE restoring (part int PRIMARY KEY)"),
        "restore",
        "a restore has ended half-way",
        "tickledger services restore, with its backup again",
    ),
    "a table that is gone": (
        _after("DROP TABLE batch_findings"),
        "contract",
        "batch_findings, table",
        "dbt run",
    ),
    "a column of another type": (
        _after("ALTER TABLE landed_batches MODIFY volume decimal(10,0)"),
        "contract",
        "landed_batches, column volume",
        "dbt run: it adds columns, or changes nothing",
    ),
    "no company": (_after("DELETE FROM profile"), "profile", "every tick would be a dead letter", "dbt seed"),
    "no exchange": (_after("DELETE FROM exchange"), "exchange", "table 'exchange' is empty", "dbt seed"),
    "a scratch folder that is a file": (_scratch_is_a_file, "scratch folder", "should be a folder", "STREAM_SCRATCH"),
    "messages that nobody lands": (_lagging, "lag", "1 message; no batch yet", "spark-submit"),
    "a newest batch that failed": (_failed, "verdicts", "batch 1, the newest, failed", "--batch 1"),
    "batches that stay unchecked": (_unchecked, "verdicts", "1 unchecked batch, the first is 1", "--unchecked"),
}


#: These need stores of their own.
IN_THE_STORES = {
    "a table of Cassandra that is gone",
    "a column of Cassandra that is gone",
    "a restore that has ended half-way",
    "a column of Cassandra of another type",
    "a table that is gone",
    "a column of another type",
    "no company",
    "no exchange",
    "messages that nobody lands",
    "a topic that takes messages of any time",
    "fewer replicas in sync than the topic needs",
    "a topic whose leader may lack messages",
    "a newest batch that failed",
    "batches that stay unchecked",
}


@pytest.mark.parametrize("case", DOCTORED)
def test_what_is_wrong_is_named_with_what_mends_it(request: pytest.FixtureRequest, tmp_path: Path, case: str) -> None:
    doctored, what, found, fix = DOCTORED[case]
    pipeline: Pipeline = request.getfixturevalue("pipeline" if case in IN_THE_STORES else "stores")

    (fact,) = bad(doctored(pipeline, tmp_path))

    assert fact.what == what, fact
    assert found in fact.found
    assert fix in fact.fix
    assert "wrong" not in fact.found.replace("wrong_", "")


def test_a_mysql_that_only_reads_is_told(stores: Pipeline) -> None:
    with read_only(stores.settings):
        (fact,) = bad(stores.settings)
    assert fact.what == "MySQL"
    assert "is read-only, as a replica is: it should be the primary's name" in fact.found


def test_a_column_of_cassandra_too_many_is_told_and_stops_nothing(pipeline: Pipeline) -> None:
    pipeline.alter_cassandra("ALTER TABLE real_time_data ADD unheard_of text")
    assert bad(pipeline.settings) == []
    (tables,) = [fact for fact in examine(pipeline.settings) if fact.what == "Cassandra's tables"]
    assert "real_time_data.unheard_of is not in it and stays null" in tables.found


def test_setting_up_adds_the_columns_of_cassandra_that_are_missing(pipeline: Pipeline) -> None:
    pipeline.alter_cassandra("ALTER TABLE dead_letters DROP (detail, replayed_at)")
    assert [fact.what for fact in bad(pipeline.settings)] == ["Cassandra's tables"]

    create_roles_and_tables(pipeline.settings)

    assert bad(pipeline.settings) == []


def test_a_database_that_dbt_has_not_filled_is_named(stores: Pipeline, database: Database) -> None:
    empty = {"mysql_database": database.settings.mysql_database}

    (fact,) = bad(stores.settings.model_copy(update=empty))

    assert (fact.what, "table: missing" in fact.found, "dbt run" in fact.fix) == ("contract", True, True)


def test_a_topic_that_was_created_anew_is_named(spark: SparkSession, pipeline: Pipeline) -> None:
    settings = pipeline.settings
    Lander(spark, pipeline, topic=TOPIC).land((0, 0, [tick(1)]))

    ledger = next(fact for fact in bad(settings) if fact.what == "ledger")

    assert "was recreated" in ledger.found


def test_a_stream_that_lands_between_two_questions_is_no_loss(
    spark: SparkSession, pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = Lander(spark, pipeline, topic=describe_topic(pipeline.settings))

    def describe_and_land(settings: Settings) -> TopicFacts:
        facts = describe_topic(settings)
        message = [tick(facts.ends[0])]
        pipeline.send([message], 0)
        stream.land((0, facts.ends[0], message))
        return facts

    monkeypatch.setattr(doctor, "describe_topic", describe_and_land)

    assert [fact for fact in bad(pipeline.settings) if fact.what in ("ledger", "lag")] == []
    assert stream.ledger.head().batch_id >= 2


def test_the_command_ends_with_1_and_says_how_many(pipeline: Pipeline) -> None:
    pipeline.execute("DELETE FROM profile")

    done = _doctor(pipeline.environment)

    assert done.returncode == 1, done.stderr
    assert "bad   profile" in done.stdout
    assert "\n                          cd dbt_project && dbt seed && dbt run\n" in done.stdout
    assert done.stdout.endswith("1 to fix\n")


def test_a_settings_file_that_others_may_read_is_bad(stores: Pipeline, tmp_path: Path) -> None:
    file = tmp_path / ".env"
    file.write_text(stores.env_file.read_text())
    file.chmod(0o644)
    done = _doctor(stores.environment | {ENV_FILE_VARIABLE: str(file)})
    assert f"bad   settings file       others than its owner may read {file}\n" in done.stdout
    assert f"chmod 600 {file}\n" in done.stdout
    file.chmod(0o600)
    assert "good  settings file" in _doctor(stores.environment | {ENV_FILE_VARIABLE: str(file)}).stdout


def test_secrets_of_the_page_that_others_may_read_are_bad(
    stores: Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "secrets.toml"
    file.touch()
    file.chmod(0o644)
    monkeypatch.setattr(doctor, "PAGE_SECRETS", file)
    (fact,) = bad(stores.settings)
    assert (fact.what, fact.fix) == ("page's secrets", f"chmod 600 {file}")
    file.chmod(0o600)
    assert bad(stores.settings) == []


def test_plain_text_is_told_and_no_fault() -> None:
    example = load_settings(PROJECT_ROOT / ".env.example")
    assert doctor._network(example).startswith("plain text with Kafka, Cassandra, MySQL: for a machine that only you")
    files = dict.fromkeys(("kafka_ca_file", "cassandra_ca_file", "mysql_ca_file"), "ca.pem")
    assert doctor._network(example.model_copy(update=files)).startswith("plain text with Kafka: ")
    secured = example.model_copy(update=files | {"kafka_security": "SASL_SSL"})
    assert doctor._network(secured) == "TLS with all three servers"


def test_a_setting_that_does_not_hold_is_its_only_line(stores: Pipeline) -> None:
    done = _doctor(stores.environment | {"MYSQL_PORT": "all"})

    assert done.returncode == 1
    assert done.stdout.startswith(
        "bad   settings            MYSQL_PORT is 'all'; it should be a port from 1 to 65535\n"
    )
    assert done.stdout.endswith("1 to fix\n")


def _doctor(environment: dict[str, str]) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "commands.main", "doctor"]
    return subprocess.run(
        command, cwd=PROJECT_ROOT, env=environment, capture_output=True, text=True, check=False, timeout=120
    )
