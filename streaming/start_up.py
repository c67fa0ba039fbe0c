"""What must hold before the stream reads its first message: tables, and a ledger that the topic continues."""

from streaming.errors import ConfigurationError
from streaming.ledger import LedgerHead
from streaming.settings import Settings
from streaming.stores import connect_cassandra
from streaming.tick import DEAD_LETTER_COLUMNS, DEAD_LETTER_TABLE, RAW_TABLE, raw_columns
from streaming.topic import TopicFacts

NEW_LEDGER = "or give this topic a ledger of its own (another MYSQL_DATABASE and CASSANDRA_KEYSPACE)"


def check_cassandra_tables(settings: Settings) -> None:
    """Raises ConfigurationError where a table of the keyspace is missing or has other columns than tick.py."""
    session = connect_cassandra(settings)
    try:
        session.cluster.refresh_schema_metadata()
        tables = session.cluster.metadata.keyspaces[settings.cassandra_keyspace].tables
        for name, wanted in ((RAW_TABLE, raw_columns()), (DEAD_LETTER_TABLE, DEAD_LETTER_COLUMNS)):
            if name not in tables:
                raise ConfigurationError(
                    f"CASSANDRA_KEYSPACE {settings.cassandra_keyspace!r} has no table {name!r}; run 'make services'"
                )
            live = {column.name: column.cql_type for column in tables[name].columns.values()}
            if live != wanted:
                differing = ", ".join(sorted({column for column, _ in live.items() ^ wanted.items()}))
                raise ConfigurationError(f"Cassandra's table {name!r} differs from streaming/tick.py in {differing}")
    finally:
        session.cluster.shutdown()


def check_continuity(settings: Settings, head: LedgerHead, topic: TopicFacts) -> None:
    """Raises ConfigurationError, with the repair, where the topic does not go on where the ledger ends."""
    if not head.batch_id:
        return
    name = settings.kafka_topic
    if head.topic != name:
        raise ConfigurationError(
            f"KAFKA_TOPIC is {name!r}; this ledger lands {head.topic!r}: name that one {NEW_LEDGER}"
        )
    if head.topic_id != topic.topic_id:
        raise ConfigurationError(
            f"KAFKA_TOPIC {name!r} was created anew (its id is {topic.topic_id}, the ledger's {head.topic_id}):"
            f" bring the old topic back {NEW_LEDGER}"
        )
    for partition, end in sorted(head.ends.items()):
        begins, ends = topic.begins.get(partition, 0), topic.ends.get(partition, 0)
        if end < begins:
            raise ConfigurationError(
                f"KAFKA_TOPIC {name!r}, partition {partition}: retention deleted {begins - end} messages before they"
                f" were landed (offsets {end} to {begins - 1}): restore them {NEW_LEDGER}"
            )
        if end > ends:
            raise ConfigurationError(
                f"KAFKA_TOPIC {name!r}, partition {partition} ends at offset {ends}, before the ledger's {end}:"
                f" the broker lost messages; restore them {NEW_LEDGER}"
            )


def starting_offsets(head: LedgerHead, topic: TopicFacts) -> dict[str, int]:
    """Where each partition begins: the ledger's end, or the partition's first offset where the ledger has none."""
    return {str(partition): head.ends.get(partition, first) for partition, first in topic.begins.items()}
