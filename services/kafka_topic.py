"""The topic: created with the replicas of the settings, or brought as near to them as is safe."""

from contextlib import suppress

from kafka import KafkaAdminClient
from kafka.admin import ConfigResource, ConfigResourceType, NewTopic
from kafka.errors import InvalidReplicationFactorError, TopicAlreadyExistsError

from tickledger.errors import ConfigurationError
from tickledger.replicas import IN_SYNC, replicas_of_topic
from tickledger.settings import Settings
from tickledger.topic import TIME_CONFIGS, TOPIC_CONFIGS, UNCLEAN_ELECTION, topics_of_any_time


def create_topic(admin: KafkaAdminClient, settings: Settings) -> None:
    """Create KAFKA_TOPIC if it is missing: KAFKA_PARTITIONS partitions, and replicas as the settings ask for.

    One that is there keeps partitions and replicas; only its own settings become ours. Raises ConfigurationError where
    Kafka has fewer brokers than KAFKA_REPLICATION_FACTOR.
    """
    topic, factor, in_sync = settings.kafka_topic, settings.kafka_replication_factor, _in_sync(settings)
    if topic in admin.list_topics():
        _configure(admin, settings)
        return
    replicas = -1 if factor == "default" else factor
    new = NewTopic(topic, settings.kafka_partitions, replicas, topic_configs=TOPIC_CONFIGS | in_sync)
    try:
        with suppress(TopicAlreadyExistsError):
            admin.create_topics([new], wait_for_metadata=True)
    except InvalidReplicationFactorError:
        brokers = len(admin.describe_cluster()["brokers"])
        raise ConfigurationError(
            f"KAFKA_REPLICATION_FACTOR is {factor}; it should be at most {brokers}, the brokers that Kafka at"
            f" {settings.kafka_bootstrap_servers} has"
        ) from None


def _in_sync(settings: Settings) -> dict[str, str]:
    wanted = settings.kafka_min_in_sync_replicas
    return {} if wanted == "default" else {IN_SYNC: str(wanted)}


def _configure(admin: KafkaAdminClient, settings: Settings) -> None:
    topic = settings.kafka_topic
    found = replicas_of_topic(admin, topic)
    changes = dict(TIME_CONFIGS) if topics_of_any_time(admin, [topic]) else {}
    if found.unclean:
        changes[UNCLEAN_ELECTION] = TOPIC_CONFIGS[UNCLEAN_ELECTION]
    # Where it has fewer replicas than that, nobody could write to it any more.
    in_sync = _in_sync(settings)
    if in_sync and found.must_be_in_sync != int(in_sync[IN_SYNC]) <= found.fewest:
        changes |= in_sync
    if changes:
        admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, configs=changes)])
