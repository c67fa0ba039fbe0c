"""On how many brokers and nodes the topic and the rows lie, how many the settings ask for, and who is away."""

import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from cassandra.cluster import Session
from cassandra.policies import HostDistance
from cassandra.pool import Host
from kafka import KafkaAdminClient
from kafka.admin import ConfigResource, ConfigResourceType

from tickledger.counted import counted
from tickledger.errors import ConfigurationError
from tickledger.settings import NO_DATACENTER, Settings
from tickledger.stores import CASSANDRA_ERRORS, CONNECT_SECONDS, cassandra
from tickledger.topic import UNCLEAN_ELECTION, kafka_admin, once_taken_over, topic_missing

#: The topic's setting: a message is acknowledged once so many replicas have it.
IN_SYNC = "min.insync.replicas"
#: Of :func:`wanted_replicas`, in place of a data centre's name, where the settings name none.
ANY = ""
#: Where Cassandra keeps accounts and their rights.
ACCOUNTS_KEYSPACE = "system_auth"


@dataclass(frozen=True)
class TopicReplicas:
    """How a topic is kept.

    `fewest` replicas has a partition, and as `few_in_sync` of a partition have all of its messages; `must_be_in_sync`
    are needed for a message to be acknowledged. `leaderless` partitions can be neither read nor written. `behind` are
    the brokers that are away or lack messages. `unclean`: one that lacks some may lead.
    """

    fewest: int
    few_in_sync: int
    must_be_in_sync: int
    leaderless: tuple[int, ...]
    behind: tuple[int, ...]
    unclean: bool


def topic_replicas(settings: Settings) -> TopicReplicas:
    """Ask a broker, with KAFKA_USER. Raises as :func:`tickledger.topic.describe_topic`."""
    with kafka_admin(settings, settings.kafka) as admin:
        if once_taken_over(lambda: admin.describe_topics([settings.kafka_topic]))[0]["error_code"]:
            raise topic_missing(settings)
        return once_taken_over(lambda: replicas_of_topic(admin, settings.kafka_topic))


def replicas_of_topic(admin: KafkaAdminClient, topic: str) -> TopicReplicas:
    """The same, by a client that is there, of a topic that is there. Raises KafkaError."""
    partitions = admin.describe_topics([topic])[0]["partitions"]
    asked = ConfigResource(ConfigResourceType.TOPIC, topic, configs={IN_SYNC: "", UNCLEAN_ELECTION: ""})
    configs = admin.describe_configs([asked], config_filter="all")["topic"][topic]
    behind = {one for part in partitions for one in set(part["replica_nodes"]) - set(part["isr_nodes"])}
    return TopicReplicas(
        fewest=min(len(part["replica_nodes"]) for part in partitions),
        few_in_sync=min(len(part["isr_nodes"]) for part in partitions),
        must_be_in_sync=int(configs[IN_SYNC]["value"]),
        leaderless=tuple(sorted(part["partition_index"] for part in partitions if part["leader_id"] < 0)),
        behind=tuple(sorted(behind)),
        unclean=configs[UNCLEAN_ELECTION]["value"] == "true",
    )


@dataclass(frozen=True)
class KeyspaceReplicas:
    """How the rows are kept: `nodes` by data centre, and each keyspace's replicas.

    Of the nodes of the data centre that is asked, those `away` do not answer. `keyspaces` has the settings' keyspace
    and that of the accounts. Replicas are by data centre, or under ANY where the keyspace lies in all of them alike.
    """

    nodes: dict[str, tuple[str, ...]]
    away: tuple[str, ...]
    keyspaces: dict[str, dict[str, int]]


def wanted_replicas(settings: Settings) -> dict[str, int]:
    """CASSANDRA_REPLICATION by data centre, or under ANY."""
    return {name: int(count) for name, count in re.findall(r"(?:([^:,]+):)?(\d+)", settings.cassandra_replication)}


def replication_map(replicas: Mapping[str, int]) -> str:
    """The same as CQL's WITH replication takes it."""
    if ANY in replicas:
        return f"{{'class': 'SimpleStrategy', 'replication_factor': {replicas[ANY]}}}"
    each = "".join(f", '{name}': {count}" for name, count in replicas.items())
    return f"{{'class': 'NetworkTopologyStrategy'{each}}}"


def check_there_are_nodes(
    nodes: Mapping[str, tuple[str, ...]], replicas: Mapping[str, int], settings: Settings
) -> None:
    """Raise ConfigurationError where there are fewer `nodes` than CASSANDRA_REPLICATION, as `replicas`, asks for.

    Cassandra itself would take that, and then no row.
    """
    for name, count in replicas.items():
        there = sum(map(len, nodes.values())) if name == ANY else len(nodes.get(name, ()))
        if count > there:
            has = ", ".join(f"{counted(len(some), 'node')} in {centre}" for centre, some in nodes.items())
            raise ConfigurationError(
                f"CASSANDRA_REPLICATION is {settings.cassandra_replication!r}; it should ask for no more than Cassandra"
                f" at {','.join(settings.cassandra_hosts)} has: {has}"
            )


def falls_short(found: Mapping[str, int], settings: Settings) -> bool:
    """Whether a keyspace has fewer replicas than the settings ask for."""
    wanted = wanted_replicas(settings)
    if ANY in wanted:
        here = settings.cassandra_datacenter
        there = found.get(here, 0) if here != NO_DATACENTER and ANY not in found else max(found.values(), default=0)
        return there < wanted[ANY]
    # One that lies in all data centres alike does so by accident.
    return any(found.get(name, found.get(ANY, 0) if len(wanted) == 1 else 0) < count for name, count in wanted.items())


def replicas_instead(found: Mapping[str, int], settings: Settings) -> dict[str, int]:
    """What a keyspace that falls short should have: nowhere fewer than now, and by a number in no new data centre."""
    wanted, here = wanted_replicas(settings), settings.cassandra_datacenter
    if ANY in found:
        return wanted
    if ANY in wanted:
        wanted = dict.fromkeys(found if here == NO_DATACENTER else [here], wanted[ANY])
    return {**found, **{name: max(found.get(name, 0), count) for name, count in wanted.items()}}


def keyspace_replicas(settings: Settings) -> KeyspaceReplicas:
    """Ask Cassandra, and each of its nodes whether it answers, with CASSANDRA_USER. Raises TickledgerError."""
    with cassandra(settings) as session:
        asked = [one for one in session.cluster.metadata.all_hosts() if _is_asked(session, one)]
        return KeyspaceReplicas(
            nodes=nodes_by_datacenter(session),
            away=tuple(sorted(str(host.address) for host in asked if not _answers(session, host))),
            keyspaces={
                name: dict(_replicas_of(session, name)) for name in (settings.cassandra_keyspace, ACCOUNTS_KEYSPACE)
            },
        )


def nodes_by_datacenter(session: Session) -> dict[str, tuple[str, ...]]:
    """The addresses of all nodes that Cassandra knows, up or not, by data centre."""
    found: dict[str, list[str]] = {}
    for host in session.cluster.metadata.all_hosts():
        found.setdefault(str(host.datacenter), []).append(str(host.address))
    return {name: tuple(sorted(addresses)) for name, addresses in sorted(found.items())}


def _replicas_of(session: Session, keyspace: str) -> Iterator[tuple[str, int]]:
    query = "SELECT replication FROM system_schema.keyspaces WHERE keyspace_name = %s"
    found: dict[str, str] = dict(session.execute(query, (keyspace,)).one()[0])
    for name, count in found.items():
        if name == "replication_factor":
            yield ANY, int(count)
        elif name != "class":
            # Of 3/1, one is transient: it is no full replica.
            whole, _, transient = count.partition("/")
            yield name, int(whole) - int(transient or 0)


def _is_asked(session: Session, host: Host) -> bool:
    # The driver opens no connections to those of other data centres.
    return bool(session.cluster.profile_manager.distance(host) != HostDistance.IGNORED)


def _answers(session: Session, host: Host) -> bool:
    """Whether a node answers, once the driver has had the time to connect to it."""
    deadline = time.monotonic() + CONNECT_SECONDS
    while True:
        try:
            session.execute("SELECT key FROM system.local", host=host, timeout=CONNECT_SECONDS)
            return True
        except CASSANDRA_ERRORS:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.1)
