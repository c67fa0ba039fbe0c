"""Replicas by settings: what they ask for, what set-up makes of it on one server of each, addresses that are dead."""

import contextlib
from collections.abc import Iterator

import pytest
from kafka import KafkaAdminClient

from services.cassandra_roles import create_roles_and_tables
from services.kafka_topic import create_topic
from services.server import free_port
from streaming.stream_ticks import TickStream
from tests.support.pipeline import Pipeline, cassandra_admin, read_only
from tickledger.errors import ConfigurationError, StoreReadOnly
from tickledger.ledger import Ledger, StreamLock
from tickledger.replicas import falls_short, replicas_instead, replicas_of_topic, replication_map, wanted_replicas
from tickledger.settings import PROJECT_ROOT, Settings, load_settings
from tickledger.topic import kafka_admin

EXAMPLE = load_settings(PROJECT_ROOT / ".env.example")
SIMPLE, IN_TWO = {"": 2}, {"dc1": 3, "dc2": 2}


def with_replication(text: str, datacenter: str = "none") -> Settings:
    return EXAMPLE.model_copy(update={"cassandra_replication": text, "cassandra_datacenter": datacenter})


@pytest.mark.parametrize(
    ("text", "wanted", "cql"),
    [
        ("2", SIMPLE, "{'class': 'SimpleStrategy', 'replication_factor': 2}"),
        ("dc1:3,dc2:2", IN_TWO, "{'class': 'NetworkTopologyStrategy', 'dc1': 3, 'dc2': 2}"),
    ],
)
def test_replication_is_a_number_or_one_for_each_data_centre(text: str, wanted: dict[str, int], cql: str) -> None:
    assert wanted_replicas(with_replication(text)) == wanted
    assert replication_map(wanted) == cql


def test_a_list_may_have_spaces_between(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", "one:1, two:2")
    monkeypatch.setenv("CASSANDRA_HOSTS", "one, two")
    monkeypatch.setenv("CASSANDRA_REPLICATION", "dc1:3, dc2:2 ")
    settings = load_settings(PROJECT_ROOT / ".env.example")
    assert settings.kafka_bootstrap_servers == "one:1,two:2"
    assert settings.cassandra_hosts == ("one", "two")
    assert wanted_replicas(settings) == IN_TWO


@pytest.mark.parametrize(
    ("found", "text", "datacenter", "short"),
    [
        (SIMPLE, "2", "none", False),
        (SIMPLE, "3", "none", True),
        (SIMPLE, "dc1:2", "dc1", False),
        (SIMPLE, "dc1:2,dc2:2", "dc1", True),
        (IN_TWO, "3", "none", False),
        (IN_TWO, "3", "dc2", True),
        (IN_TWO, "dc1:3,dc2:2", "none", False),
        (IN_TWO, "dc1:3,dc2:3", "none", True),
        (IN_TWO, "dc1:3,dc3:1", "none", True),
    ],
)
def test_a_keyspace_falls_short_of_the_settings(found: dict[str, int], text: str, datacenter: str, short: bool) -> None:
    assert falls_short(found, with_replication(text, datacenter)) == short


@pytest.mark.parametrize(
    ("found", "text", "datacenter", "instead"),
    [
        (SIMPLE, "3", "none", {"": 3}),
        (SIMPLE, "dc1:3", "dc1", {"dc1": 3}),
        (IN_TWO, "4", "none", {"dc1": 4, "dc2": 4}),
        (IN_TWO, "3", "dc2", {"dc1": 3, "dc2": 3}),
        (IN_TWO, "4", "dc1", {"dc1": 4, "dc2": 2}),
        (IN_TWO, "dc1:2,dc2:3", "none", {"dc1": 3, "dc2": 3}),
        (IN_TWO, "dc2:3", "none", {"dc1": 3, "dc2": 3}),
    ],
)
def test_a_keyspace_stays_in_its_data_centres(
    found: dict[str, int], text: str, datacenter: str, instead: dict[str, int]
) -> None:
    assert replicas_instead(found, with_replication(text, datacenter)) == instead


@contextlib.contextmanager
def kafka(settings: Settings) -> Iterator[KafkaAdminClient]:
    with contextlib.closing(KafkaAdminClient(bootstrap_servers=settings.kafka_bootstrap_servers)) as admin:
        yield admin


@pytest.mark.integration
def test_more_replicas_than_brokers_are_one_line_and_no_topic(test_settings: Settings) -> None:
    settings = test_settings.model_copy(update={"kafka_topic": "too_many", "kafka_replication_factor": 2})
    with kafka(settings) as admin:
        with pytest.raises(
            ConfigurationError, match=r"^KAFKA_REPLICATION_FACTOR is 2; it should be at most 1, the bro"
        ):
            create_topic(admin, settings)
        assert "too_many" not in admin.list_topics()


@pytest.mark.integration
def test_a_new_topic_has_the_replicas_of_the_settings_and_no_unclean_leader(test_settings: Settings) -> None:
    changes = {"kafka_topic": "replicated", "kafka_replication_factor": 1, "kafka_min_in_sync_replicas": 1}
    with kafka(test_settings) as admin:
        create_topic(admin, test_settings.model_copy(update=changes))
        found = replicas_of_topic(admin, "replicated")
        admin.delete_topics(["replicated"])
    assert (found.fewest, found.must_be_in_sync, found.unclean, found.behind) == (1, 1, False, ())


@pytest.mark.integration
def test_set_up_takes_a_topic_that_is_there_as_near_to_the_settings_as_is_safe(pipeline: Pipeline) -> None:
    pipeline.configure_topic(unclean_leader_election_enable="true")
    asked = {"kafka_replication_factor": 3, "kafka_min_in_sync_replicas": 2}
    with kafka(pipeline.settings) as admin:
        create_topic(admin, pipeline.settings.model_copy(update=asked))
        found = replicas_of_topic(admin, pipeline.settings.kafka_topic)
    # With two that must be in sync, nobody could write to its one replica.
    assert (found.fewest, found.must_be_in_sync, found.unclean) == (1, 1, False)


@pytest.mark.integration
@pytest.mark.parametrize("replication", ["2", "datacenter1:2", "datacenter1:1,dc9:1"])
def test_more_replicas_than_nodes_are_one_line_and_no_keyspace(test_settings: Settings, replication: str) -> None:
    settings = test_settings.model_copy(update={"cassandra_keyspace": "too_many", "cassandra_replication": replication})
    said = f"^CASSANDRA_REPLICATION is '{replication}'; it should ask for no more than .* has: 1 node in datacenter1$"
    with pytest.raises(ConfigurationError, match=said):
        create_roles_and_tables(settings)
    with cassandra_admin(settings) as admin:
        assert "too_many" not in admin.cluster.metadata.keyspaces


@pytest.mark.integration
def test_a_new_keyspace_lies_in_the_data_centres_of_the_settings(test_settings: Settings) -> None:
    settings = test_settings.model_copy(
        update={"cassandra_keyspace": "by_centre", "cassandra_replication": "datacenter1:1"}
    )
    create_roles_and_tables(settings)
    with cassandra_admin(settings) as admin:
        strategy = admin.cluster.metadata.keyspaces["by_centre"].replication_strategy
        admin.execute("DROP KEYSPACE by_centre", timeout=60)
    assert (strategy.name, strategy.dc_replication_factors) == ("NetworkTopologyStrategy", {"datacenter1": 1})


@pytest.mark.integration
def test_one_dead_address_or_two_of_three_stop_no_start(stores: Pipeline) -> None:
    alive = stores.settings.kafka_bootstrap_servers
    changes = {
        "kafka_bootstrap_servers": f"127.0.0.1:{free_port()},{alive},127.0.0.1:{free_port()}",
        "cassandra_hosts": ("127.0.0.8", "127.0.0.1", "127.0.0.9"),
    }
    TickStream(stores.settings.model_copy(update=changes), once=True).check_start_up()


@pytest.mark.integration
def test_the_one_broker_of_three_that_lives_is_found_each_time(test_settings: Settings) -> None:
    addresses = f"127.0.0.1:{free_port()},{test_settings.kafka_bootstrap_servers},127.0.0.1:{free_port()}"
    settings = test_settings.model_copy(update={"kafka_bootstrap_servers": addresses})
    for _ in range(60):
        with kafka_admin(settings, settings.kafka) as admin:
            assert admin.list_topics() is not None


@pytest.mark.integration
def test_a_primary_that_becomes_a_replica_is_waited_for(stores: Pipeline) -> None:
    """StoreReadOnly is a StoreUnavailable, which a batch waits for: the name may soon lead to the new primary."""
    lock = StreamLock(stores.settings)
    with read_only(stores.settings):
        assert Ledger(stores.settings).head().batch_id == 0
        with pytest.raises(StoreReadOnly):
            lock.hold()
    lock.hold()
    lock.release()
