"""Three brokers, three nodes of Cassandra, a primary with its replica: started, short of some, and started again."""

import contextlib
import signal
from collections.abc import Iterator
from typing import Any

import psutil
import pytest
from cassandra.cluster import OperationTimedOut
from kafka import KafkaAdminClient
from mysql.connector.abstracts import MySQLConnectionAbstract

from commands.doctor import Fact, examine
from commands.reconcile import reconcile
from services.hosts import LOOPBACK
from services.instance import Instance
from services.kafka_server import KafkaServer
from services.mysql_accounts import create_accounts
from services.mysql_replication import follow, lead
from services.server import name_of
from tests.support.browser import wait_until
from tests.support.instances import instance_name
from tests.support.pipeline import Pipeline, StreamProcess, cassandra_admin, dbt_statements, fresh_pipeline
from tests.test_stream import ticks
from tickledger import stores
from tickledger.errors import ConfigurationError, StoreReadOnly, TickledgerError
from tickledger.settings import Settings
from tickledger.stores import cassandra, connect_mysql, fetch_rows

pytestmark = [pytest.mark.integration, pytest.mark.timeout(900)]

NAMES = ["kafka", "kafka-2", "kafka-3", "cassandra", "cassandra-2", "cassandra-3", "mysql", "mysql-2"]
#: What all of them may take of a machine that also has Spark's share.
MOST_BYTES = 10 * 2**30


@pytest.fixture(scope="module")
def cluster() -> Iterator[Instance]:
    """An instance of three nodes, deleted afterwards."""
    instance = Instance(f"{instance_name()}-cluster")
    try:
        instance.start(nodes=3)
        yield instance
    finally:
        instance.stop()
        instance.clean()


@pytest.fixture(scope="module")
def pipeline(cluster: Instance, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pipeline]:
    """A topic, keyspace and database on the cluster."""
    settings, folder = cluster.settings(), tmp_path_factory.mktemp("cluster")
    template = dbt_statements(cluster, settings, folder)
    with fresh_pipeline(cluster, settings, template, folder) as pipeline:
        yield pipeline


def bad(settings: Settings) -> list[Fact]:
    return [fact for fact in examine(settings) if not fact.good]


def leader(settings: Settings, partition: int) -> int:
    """The broker that leads a partition of the topic."""
    with contextlib.closing(KafkaAdminClient(bootstrap_servers=settings.kafka_bootstrap_servers)) as admin:
        (topic,) = admin.describe_topics([settings.kafka_topic])
    return next(int(one["leader_id"]) for one in topic["partitions"] if one["partition_index"] == partition)


def test_each_kind_has_its_nodes_and_all_fit_into_the_memory(cluster: Instance) -> None:
    settings = cluster.settings()
    assert [server.name for server in cluster.servers()] == NAMES
    assert [host.partition(":")[0] for host in settings.kafka_bootstrap_servers.split(",")] == [
        *settings.cassandra_hosts
    ]
    assert (settings.kafka_replication_factor, settings.kafka_min_in_sync_replicas) == (3, 2)
    assert settings.cassandra_replication == "3"
    for server in cluster.servers():
        server.check_serves()
    held = sum(psutil.Process(server.pid).memory_info().rss for server in cluster.servers())
    assert held < MOST_BYTES


def test_data_of_three_nodes_do_not_become_those_of_one(cluster: Instance) -> None:
    with pytest.raises(ConfigurationError, match=r"^--nodes is 1; instance \S+ has data of 3 nodes of each kind: "):
        cluster.prepare(nodes=1)
    assert len(cluster.settings().cassandra_hosts) == 3


def test_the_doctor_says_how_rows_get_the_replicas_that_they_lack(pipeline: Pipeline) -> None:
    keyspace = pipeline.settings.cassandra_keyspace
    with cassandra_admin(pipeline.settings) as admin:
        few = "{'class': 'SimpleStrategy', 'replication_factor': 1}"
        admin.execute(f"ALTER KEYSPACE {keyspace} WITH replication = {few}", timeout=60)
        try:
            (fact,) = bad(pipeline.settings)
        finally:
            three = few.replace("1", "3")
            admin.execute(f"ALTER KEYSPACE {keyspace} WITH replication = {three}", timeout=60)
    assert fact.found == f"1 in keyspace {keyspace}; CASSANDRA_REPLICATION is 3"
    assert f"WITH replication = {three}, then on each node nodetool repair" in fact.fix


def test_set_up_leaves_a_replica_alone(cluster: Instance) -> None:
    replica = cluster.server("mysql-2").settings
    with pytest.raises(StoreReadOnly, match=rf"^MYSQL_HOST is '{replica.mysql_host}'; .* read-only, as a replica is"):
        create_accounts(replica)
    cluster.server("mysql-2").check_serves()


def test_ticks_land_while_some_are_away_and_the_doctor_says_who(cluster: Instance, pipeline: Pipeline) -> None:
    assert bad(pipeline.settings) == []
    stream = StreamProcess(pipeline)
    try:
        pipeline.send([ticks(pipeline, 1)], 0)
        stream.wait_for("batch 1 ·", seconds=180)
        broker = leader(pipeline.settings, 0)
        assert cluster.server(name_of(KafkaServer, broker)).kill()
        assert cluster.server("cassandra-2").kill()
        assert cluster.server("mysql-2").kill()

        for number in range(2, 6):
            pipeline.send([ticks(pipeline, number)])
        pipeline.wait_until_landed(5)
        facts = {fact.what: fact.found for fact in bad(pipeline.settings)}
        assert set(facts) == {"topic's replicas", "rows' replicas", "commits' replicas"}, facts
        assert facts["topic's replicas"] == f"2 of a partition in sync, of 3; behind or away: broker {broker}"
        assert facts["rows' replicas"] == "1 of 3 nodes without an answer: 127.0.0.2"

        # Of three nodes two are too many to be away, also for a login.
        assert cluster.server("cassandra-3").kill()
        pipeline.send([ticks(pipeline, 6)])
        stream.wait_for("waiting: Cassandra")
        cluster.start()
        pipeline.wait_until_landed(6)
        stream.process.send_signal(signal.SIGTERM)
        assert stream.wait() == 0, stream.output
    finally:
        stream.kill()
    books = reconcile(pipeline.settings)
    assert books.differences == []
    assert books.ticks_landed == 6 * len(ticks(pipeline, 1))


def test_a_node_that_hangs_keeps_one_request_waiting_and_not_each_third(
    cluster: Instance, pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stores, "CASSANDRA_REQUEST_SECONDS", 3)
    frozen = psutil.Process(cluster.server("cassandra-2").pid)
    with cassandra(pipeline.settings) as session:
        late = 0
        frozen.suspend()
        try:
            for _ in range(30):
                try:
                    session.execute("SELECT cluster_name FROM system.local")
                except OperationTimedOut:
                    late += 1
        finally:
            frozen.resume()
    # The first one waits; until the driver gives the connection up, a later one may too.
    assert 1 <= late < 5


def test_the_replica_has_what_the_primary_has_and_takes_no_rows(cluster: Instance, pipeline: Pipeline) -> None:
    replica = cluster.server("mysql-2").settings.model_copy(update={"mysql_database": pipeline.settings.mysql_database})
    query = "SELECT COUNT(*) FROM landed_batches"
    with contextlib.closing(connect_mysql(replica)) as connection:
        assert fetch_rows(connection, query) == pipeline.rows(query)
    (fact,) = bad(pipeline.settings.model_copy(update={"mysql_host": replica.mysql_host}))
    assert fact.what == "MySQL"
    assert fact.found.startswith("MYSQL_HOST is '127.0.0.2'; MySQL at 127.0.0.2:")


def received(replica: MySQLConnectionAbstract) -> str:
    """Up to where a replica has got what its primary commits, applied or not."""
    cursor: Any = replica.cursor(dictionary=True)
    cursor.execute("SHOW SLAVE STATUS")
    return str(cursor.fetchall()[0]["Gtid_IO_Pos"])


def test_a_replica_leads_only_once_it_has_applied_what_it_has_received(cluster: Instance, pipeline: Pipeline) -> None:
    replica, primary = cluster.server("mysql-2").settings, cluster.server("mysql").settings
    with contextlib.closing(connect_mysql(replica, replica.mysql_root, database="mysql")) as connection:
        for statement in ("STOP SLAVE", "CHANGE MASTER TO MASTER_DELAY = 10", "START SLAVE"):
            connection.cursor().execute(statement)
        name = pipeline.settings.mysql_database
        pipeline.execute(
            "INSERT INTO profile (ticker, company_name, sector, shares) VALUES ('LATE.JK', 'x', 'Coal', 1)"
        )
        ((committed,),) = pipeline.rows("SELECT @@GLOBAL.gtid_binlog_pos")
        wait_until(lambda: received(connection) == committed, "the replica does not get what is committed")
    with contextlib.closing(connect_mysql(replica, replica.mysql_root, database=name)) as connection:
        query = "SELECT COUNT(*) FROM profile WHERE ticker = 'LATE.JK'"
        assert fetch_rows(connection, query) == [(0,)]
        lead(replica)
        connection.rollback()
        assert fetch_rows(connection, query) == [(1,)]
    follow(replica, primary, LOOPBACK)
    pipeline.execute("DELETE FROM profile WHERE ticker = 'LATE.JK'")


def test_a_replica_that_takes_over_gets_the_batches_that_it_lacks_once_more(
    cluster: Instance, pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last test of the file: MySQL's nodes change places."""
    replica = cluster.server("mysql-2").settings
    with contextlib.closing(connect_mysql(replica, replica.mysql_root, database="mysql")) as connection:
        connection.cursor().execute("STOP SLAVE IO_THREAD")
    pipeline.send([ticks(pipeline, number) for number in (7, 8)])
    landed = StreamProcess(pipeline, once=True)
    assert landed.wait(180) == 0, landed.output
    before = reconcile(pipeline.settings)

    cluster.server("mysql").kill()
    monkeypatch.setenv("MYSQL_HOST", replica.mysql_host)
    turned = Instance(cluster.name)
    turned.server("mysql-2").bring_up()
    settings = pipeline.settings.model_copy(update={"mysql_host": replica.mysql_host})
    assert reconcile(settings).ticks_landed < before.ticks_landed
    again = StreamProcess(pipeline, once=True, environment={"MYSQL_HOST": replica.mysql_host})
    assert again.wait(180) == 0, again.output

    books = reconcile(settings)
    assert books.differences == []
    assert (books.ticks_landed, books.mysql.volume) == (before.ticks_landed, before.mysql.volume)
    # The former primary has commits that nobody else has.
    with pytest.raises(TickledgerError, match=r"^MySQL at 127\.0\.0\.1:\d+ does not follow 127\.0\.0\.2: "):
        turned.server("mysql").bring_up()
    # What is dropped after the tests is dropped there.
    cluster.server("mysql").set_up()
