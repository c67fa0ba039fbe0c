"""The kinds of fault that `make faults NODES=3` tries: what of a cluster dies, freezes, restarts or takes over."""

import contextlib
import functools
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
from kafka import TopicPartition
from kafka.admin import ConfigResource, ConfigResourceType

from services.archive import submit_options, write_archive
from services.cassandra_server import CassandraServer
from services.environment import write_env_file
from services.instance import Instance
from services.kafka_server import KafkaServer
from services.mysql_server import MySQLServer
from services.process import ServerProcess
from services.server import Server, bring_up, name_of, process_of
from services.spark_cluster import MASTER, WORKER
from tests.support.pipeline import Launch
from tests.support.store_names import StoreNames
from tickledger.replicas import keyspace_replicas, topic_replicas
from tickledger.stores import fetch_rows, mysql
from tickledger.topic import kafka_admin
from tools.fault_kinds import Fault, Kind, Run, named_stores, why_no_mounts
from tools.networked_hosts import DRIVER

#: The servers that a fault is about.
Pick = Callable[[Run, int], list[Server]]
#: Longer than Kafka waits for a broker's sign of life (9 s), and our clients for an answer (12 s).
LONG_SECONDS = 25
WORKERS = (f"{WORKER}-1", f"{WORKER}-2")


def launch_of(services: Instance, *, on_spark: bool) -> Launch:
    """How a stream is started on its host, doing the work itself or on the cluster's Spark."""
    address = services.hosts.address(DRIVER)
    options = [f"--conf=spark.driver.{one}={address}" for one in ("host", "bindAddress")]
    environment = {"SPARK_LOCAL_IP": address}
    if on_spark:
        options += submit_options(services.spark_master, _archive())
        environment["SPARK_PASSWORD"] = services.spark_secret
    return Launch(services.hosts.prefix(DRIVER), options, environment)


@functools.cache
def _archive() -> Path:
    return write_archive()


def leader(run: Run, number: int) -> list[Server]:
    """The broker that leads one of the topic's partitions."""
    leaders = _leaders(run)
    return [node_of(run, KafkaServer, leaders[number % len(leaders)])]


def _leaders(run: Run) -> dict[int, int]:
    """The broker that leads each partition; -1 where nobody does."""
    with kafka_admin(run.pipeline.settings, run.pipeline.settings.kafka) as admin:
        (topic,) = admin.describe_topics([run.pipeline.settings.kafka_topic])
    return {one["partition_index"]: one["leader_id"] for one in topic["partitions"]}


def controller(run: Run, _number: int) -> list[Server]:
    """The broker that leads the controllers."""
    with kafka_admin(run.pipeline.settings, run.pipeline.settings.kafka) as admin:
        (topic,) = admin.describe_metadata_quorum()["topics"]
    return [node_of(run, KafkaServer, topic["partitions"][0]["leader_id"])]


def some(kind: type[Server], count: int) -> Pick:
    """So many of a kind, any."""

    def pick(run: Run, _number: int) -> list[Server]:
        return [node_of(run, kind, node) for node in sorted(run.random.sample((1, 2, 3), count))]

    return pick


def dies_alone(pick: Pick) -> Fault:
    """SIGKILL of one server: landing goes on without it, before it is started again."""

    def fault(run: Run, number: int) -> None:
        wait_until_whole(run)
        (server,) = pick(run, number)
        since = time.monotonic()
        kill(server)
        try:
            run.goes_on(since)
        finally:
            bring_up([server])

    return fault


def freezes_alone(pick: Pick) -> Fault:
    """SIGSTOP of one server: landing goes on without it, and again once it wakes up."""

    def fault(run: Run, number: int) -> None:
        wait_until_whole(run)
        (server,) = pick(run, number)
        process, since = psutil.Process(server.pid), time.monotonic()
        process.suspend()
        try:
            run.goes_on(since)
            # Long enough to be taken for dead, or so short that only some requests notice.
            time.sleep(run.random.choice((0, LONG_SECONDS)))
        finally:
            process.resume()
        run.wait_for_batches(1)

    return fault


def most_die(pick: Pick) -> Fault:
    """SIGKILL of two of three: nothing may land until one is back, and then all does."""

    def fault(run: Run, number: int) -> None:
        wait_until_whole(run)
        servers = pick(run, number)
        since = time.monotonic()
        for server in servers:
            kill(server)
        time.sleep(run.random.uniform(2, 15))
        bring_up(servers)
        run.recovered(since)

    return fault


def restarts_in_turn(kind: type[Server]) -> Fault:
    """A rolling restart: each server of a kind ends in order and starts again, once the others are whole."""

    def fault(run: Run, _number: int) -> None:
        for node in (1, 2, 3):
            wait_until_whole(run)
            server, since = node_of(run, kind, node), time.monotonic()
            server.stop()
            bring_up([server])
            if node < 3:
                run.wait_for_batches(1)
        run.recovered(since)

    return fault


def only_the_stale_is_there(run: Run, _number: int) -> None:
    """A partition of two replicas, of which one misses what was acknowledged since, and the other one dies.

    Nobody may lead until that one is back: an unclean election would lose what it alone has.
    """
    wait_until_whole(run)
    stale, other = run.random.sample((1, 2, 3), 2)
    _replicas(run, [other, stale], in_sync="1")
    wait_until_whole(run)
    behind, leading = (node_of(run, KafkaServer, node) for node in (stale, other))
    kill(behind)
    run.wait_for_batches(3)
    since = time.monotonic()
    kill(leading)
    bring_up([behind])
    time.sleep(LONG_SECONDS)
    if stale in _leaders(run).values():
        run.problems.append(f"broker {stale} leads, which misses messages that were acknowledged")
    bring_up([leading])
    run.recovered(since)
    _replicas(run, [1, 2, 3], in_sync="2")


def _replicas(run: Run, brokers: list[int], in_sync: str) -> None:
    """Let the topic's partitions lie on these brokers."""
    settings = run.pipeline.settings
    with kafka_admin(settings, settings.kafka) as admin:
        config = {"min.insync.replicas": ("SET", in_sync)}
        admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, settings.kafka_topic, configs=config)])
        admin.alter_partition_reassignments(
            {TopicPartition(settings.kafka_topic, partition): brokers for partition in (0, 1)}
        )
        run.wait_until(lambda: not admin.list_partition_reassignments(), "end of the topic's move to other brokers")


@contextlib.contextmanager
def mysql_by_name(run: Run) -> Iterator[None]:
    """A name for MySQL's primary that the stream alone can look up, as a DNS name that moves; needs root."""
    names = StoreNames()
    names.point("mysql", run.services.settings().mysql_host)
    with named_stores(run, names):
        yield


def taken_over(*, semi_synchronous: bool) -> Fault:
    """MySQL's primary dies and its replica takes over; what was the primary returns as its replica, without its data.

    Without semi-synchronous replication the replica lacks the newest commits: the stream ends and says so, and the next
    one lands those messages again.
    """

    def fault(run: Run, number: int) -> None:
        services = run.services
        (primary,), (replica,) = (
            [one for one in services.servers() if isinstance(one, MySQLServer) and one.is_primary is leads]
            for leads in (True, False)
        )
        replica.check_serves()
        # One that was made anew a moment ago begins at the first commit there ever was.
        run.wait_until(lambda: _has_caught_up(replica, primary), "replica that has caught up")
        run.wait_for_batches(1)
        if not semi_synchronous:
            with mysql(replica.settings, replica.settings.mysql_root, database="mysql") as connection:
                connection.cursor().execute("STOP SLAVE IO_THREAD")
            run.wait_for_batches(2)
        time.sleep(run.random.uniform(0, 1))
        since = time.monotonic()
        kill(primary)
        _promote(run, replica)
        if not semi_synchronous:
            if run.stream.wait(120) != 1 or "the ledger ends at batch" not in run.stream.output:
                run.problems.append(f"the stream did not say that the ledger ends earlier: {run.last_words()}")
            run.start_stream(number + 1)
        run.recovered(since)
        shutil.rmtree(primary.data)
        services.server(primary.name).bring_up()

    return fault


def _has_caught_up(replica: Server, primary: Server) -> bool:
    """Whether a replica has, within a second, what its primary has now."""
    with mysql(primary.settings, primary.settings.mysql_root, database="mysql") as there:
        ((committed,),) = fetch_rows(there, "SELECT @@GLOBAL.gtid_binlog_pos")
    with mysql(replica.settings, replica.settings.mysql_root, database="mysql") as here:
        return fetch_rows(here, "SELECT MASTER_GTID_WAIT(%s, 1)", (committed,)) == [(0,)]


def _promote(run: Run, replica: Server) -> None:
    """What docs/clusters.md tells: MYSQL_HOST in the env file, the services started, the name moved."""
    host = replica.settings.mysql_host
    write_env_file(run.services.env_file, {}, {"MYSQL_HOST": host})
    run.services.prepare()
    run.services.server(replica.name).bring_up()
    run.pipeline.settings = run.pipeline.settings.model_copy(update={"mysql_host": host})
    assert run.names is not None
    run.names.point("mysql", host)


def worker_killed(run: Run, number: int) -> None:
    """SIGKILL of a Spark worker, likely in the middle of a job: landing goes on, on the other one."""
    wait_until_spark_is_whole(run)
    time.sleep(run.random.uniform(0, 1))
    since = time.monotonic()
    kill(spark(run, WORKERS[number % 2]))
    try:
        run.goes_on(since)
    finally:
        run.services.start_spark()


def executor_killed(run: Run, number: int) -> None:
    """SIGKILL of an executor, or of the Python below it, in turn: the worker starts another one."""
    wait_until_spark_is_whole(run)
    time.sleep(run.random.uniform(0, 1))
    (executor,) = executors(run, WORKERS[number // 2 % 2])
    victims = executor.children(recursive=True) if number % 2 else [executor]
    since = time.monotonic()
    for victim in victims:
        with contextlib.suppress(psutil.NoSuchProcess):
            victim.send_signal(signal.SIGKILL)
    run.goes_on(since)


def master_killed(run: Run, _number: int) -> None:
    """SIGKILL of Spark's master: landing goes on without it, and with the next one."""
    wait_until_spark_is_whole(run)
    since = time.monotonic()
    kill(spark(run, MASTER))
    try:
        run.goes_on(since)
    finally:
        run.services.start_spark()
    run.wait_for_batches(1)


def spark_restarts_in_turn(run: Run, _number: int) -> None:
    """A rolling restart of Spark: each worker, then the master."""
    for name in (*WORKERS, MASTER):
        wait_until_spark_is_whole(run)
        since = time.monotonic()
        spark(run, name).stop()
        run.services.start_spark()
        if name != MASTER:
            run.wait_for_batches(1)
    run.recovered(since)


def wait_until_whole(run: Run) -> None:
    """Wait until nothing of the cluster is away and a batch has landed on it."""
    settings = run.pipeline.settings
    run.wait_until(lambda: not topic_replicas(settings).behind, "topic whose replicas are all in sync")
    run.wait_until(lambda: not keyspace_replicas(settings).away, "cluster of Cassandra whose nodes are all up")
    run.wait_for_batches(1)


def wait_until_spark_is_whole(run: Run) -> None:
    """Wait until each worker has an executor of the stream, and a batch has landed on them."""
    run.wait_until(lambda: all(executors(run, name) for name in WORKERS), "executor on each of Spark's workers")
    run.wait_for_batches(1)


def executors(run: Run, worker: str) -> list[psutil.Process]:
    """The executors of a worker, of which each stream has one."""
    found = []
    for one in psutil.Process(spark(run, worker).pid).children():
        # What the worker's own start has left is a zombie.
        with contextlib.suppress(psutil.NoSuchProcess):
            if any("CoarseGrainedExecutorBackend" in part for part in one.cmdline()):
                found.append(one)
    return found


def kill(process: Server | ServerProcess) -> None:
    """SIGKILL one that runs. Raises AssertionError where it does not: that would be no fault."""
    assert process.kill(), "what should be killed did not run"


def spark(run: Run, name: str) -> ServerProcess:
    """The process of a part of Spark."""
    return process_of(run.services.folder, name)


def node_of(run: Run, kind: type[Server], node: int) -> Server:
    """A server of the cluster."""
    return run.services.server(name_of(kind, node))


CLUSTER_KINDS = [
    Kind("SIGKILL of a partition's leader", dies_alone(leader), 6),
    Kind("SIGSTOP of a partition's leader", freezes_alone(leader), 6),
    Kind("SIGKILL of the controller", dies_alone(controller), 4),
    Kind("SIGSTOP of the controller", freezes_alone(controller), 4),
    Kind("SIGKILL of two brokers", most_die(some(KafkaServer, 2)), 3),
    Kind("rolling restart of Kafka", restarts_in_turn(KafkaServer), 2),
    Kind("only a stale replica is there", only_the_stale_is_there, 2),
    Kind("SIGKILL of a Cassandra node", dies_alone(some(CassandraServer, 1)), 6),
    Kind("SIGSTOP of a Cassandra node", freezes_alone(some(CassandraServer, 1)), 6),
    Kind("SIGKILL of two Cassandra nodes", most_die(some(CassandraServer, 2)), 3),
    Kind("rolling restart of Cassandra", restarts_in_turn(CassandraServer), 2),
    Kind(
        "takeover by a replica that has all", taken_over(semi_synchronous=True), 4,
        around=mysql_by_name, why_not=why_no_mounts,
    ),
    Kind(
        "takeover by a replica that lacks commits", taken_over(semi_synchronous=False), 4,
        around=mysql_by_name, why_not=why_no_mounts,
    ),
    Kind("SIGKILL of a Spark worker", worker_killed, 6, on_spark=True),
    Kind("SIGKILL of an executor", executor_killed, 4, on_spark=True),
    Kind("SIGKILL of Spark's master", master_killed, 4, on_spark=True),
    Kind("rolling restart of Spark", spark_restarts_in_turn, 1, on_spark=True),
]  # fmt: skip
