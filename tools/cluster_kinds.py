"""The kinds of fault that `make faults NODES=3` tries: what of a cluster dies, freezes or restarts under a stream."""

import time
from collections.abc import Callable

import psutil

from services.cassandra_server import CassandraServer
from services.kafka_server import KafkaServer
from services.server import Server, bring_up, name_of
from tickledger.replicas import keyspace_replicas, topic_replicas
from tickledger.topic import kafka_admin
from tools.fault_kinds import Fault, Kind, Run

#: The servers that a fault is about.
Pick = Callable[[Run, int], list[Server]]
#: Longer than Kafka waits for a broker's sign of life (9 s), and our clients for an answer (12 s).
LONG_SECONDS = 25


def leader(run: Run, number: int) -> list[Server]:
    """The broker that leads one of the topic's partitions."""
    with kafka_admin(run.pipeline.settings, run.pipeline.settings.kafka) as admin:
        (topic,) = admin.describe_topics([run.pipeline.settings.kafka_topic])
    partitions = {one["partition_index"]: one["leader_id"] for one in topic["partitions"]}
    return [_node(run, KafkaServer, partitions[number % len(partitions)])]


def controller(run: Run, _number: int) -> list[Server]:
    """The broker that leads the controllers."""
    with kafka_admin(run.pipeline.settings, run.pipeline.settings.kafka) as admin:
        return [_node(run, KafkaServer, admin.describe_metadata_quorum()["leader_id"])]


def some(kind: type[Server], count: int) -> Pick:
    """So many of a kind, any."""

    def pick(run: Run, _number: int) -> list[Server]:
        return [_node(run, kind, node) for node in sorted(run.random.sample((1, 2, 3), count))]

    return pick


def dies_alone(pick: Pick) -> Fault:
    """SIGKILL of one server: landing goes on without it, before it is started again."""

    def fault(run: Run, number: int) -> None:
        (server,) = _ready(run, pick, number)
        since = time.monotonic()
        server.kill()
        try:
            run.recovered(since)
        finally:
            bring_up([server])

    return fault


def freezes_alone(pick: Pick) -> Fault:
    """SIGSTOP of one server: landing goes on without it, and again once it wakes up."""

    def fault(run: Run, number: int) -> None:
        (server,) = _ready(run, pick, number)
        process, since = psutil.Process(server.pid), time.monotonic()
        process.suspend()
        try:
            run.recovered(since)
            # Long enough to be taken for dead, or so short that only some requests notice.
            time.sleep(run.random.choice((0, LONG_SECONDS)))
        finally:
            process.resume()
        run.wait_for_batches(1)

    return fault


def most_die(pick: Pick) -> Fault:
    """SIGKILL of two of three: nothing may land until one is back, and then all does."""

    def fault(run: Run, number: int) -> None:
        servers = _ready(run, pick, number)
        since = time.monotonic()
        for server in servers:
            server.kill()
        time.sleep(run.random.uniform(2, 15))
        bring_up(servers)
        run.recovered(since)

    return fault


def restarts_in_turn(kind: type[Server]) -> Fault:
    """A rolling restart: each server of a kind ends in order and starts again, once the others are whole."""

    def fault(run: Run, _number: int) -> None:
        for node in (1, 2, 3):
            _wait_until_whole(run)
            server, since = _node(run, kind, node), time.monotonic()
            server.stop()
            bring_up([server])
            if node < 3:
                run.wait_for_batches(1)
        run.recovered(since)

    return fault


def _ready(run: Run, pick: Pick, number: int) -> list[Server]:
    """The servers that a fault is about, once the cluster is whole."""
    _wait_until_whole(run)
    return pick(run, number)


def _wait_until_whole(run: Run) -> None:
    """Wait until nothing of the cluster is away and a batch has landed on it."""
    settings = run.pipeline.settings
    run.wait_until(lambda: not topic_replicas(settings).behind, "topic whose replicas are all in sync")
    run.wait_until(lambda: not keyspace_replicas(settings).away, "cluster of Cassandra whose nodes are all up")
    run.wait_for_batches(1)


def _node(run: Run, kind: type[Server], node: int) -> Server:
    return run.services.server(name_of(kind, node))


CLUSTER_KINDS = [
    Kind("SIGKILL of a partition's leader", dies_alone(leader), 6),
    Kind("SIGSTOP of a partition's leader", freezes_alone(leader), 6),
    Kind("SIGKILL of the controller", dies_alone(controller), 4),
    Kind("SIGSTOP of the controller", freezes_alone(controller), 4),
    Kind("SIGKILL of two brokers", most_die(some(KafkaServer, 2)), 3),
    Kind("rolling restart of Kafka", restarts_in_turn(KafkaServer), 2),
    Kind("SIGKILL of a Cassandra node", dies_alone(some(CassandraServer, 1)), 6),
    Kind("SIGSTOP of a Cassandra node", freezes_alone(some(CassandraServer, 1)), 6),
    Kind("SIGKILL of two Cassandra nodes", most_die(some(CassandraServer, 2)), 3),
    Kind("rolling restart of Cassandra", restarts_in_turn(CassandraServer), 2),
]
