"""A hand-written loop that lands a topic: confluent-kafka, orjson, batched cassandra-driver, MySQL. No Spark or ledger.

What one would write who needs no exactly once: it trusts its input, keeps its place in Kafka's consumer group, counts a
tick twice that comes twice, and checks nothing. One process a Kafka partition, as Spark has one task. Prints a line of
JSON for each batch: the time and its ticks.
"""

import sys

from confluent_kafka import Consumer, TopicPartition

from benchmarks.sink import Sink
from tickledger.settings import Settings, load_settings


def land(settings: Settings, partition: int, until: int, batch_messages: int) -> None:
    """Land one partition up to an offset."""
    consumer = Consumer(
        {
            "bootstrap.servers": settings.kafka_bootstrap_servers,
            "group.id": settings.mysql_database,
            "enable.auto.commit": False,
            "fetch.max.bytes": 50_000_000,
        }
    )
    consumer.assign([TopicPartition(settings.kafka_topic, partition, 0)])
    sink, reached = Sink(settings, partition), 0
    while reached < until:
        messages = consumer.consume(min(batch_messages, until - reached), timeout=1.0)
        if not messages:
            continue
        sink.land((partition, message.offset() or 0, message.value() or b"[]") for message in messages)
        reached += len(messages)
        consumer.commit(offsets=[TopicPartition(settings.kafka_topic, partition, reached)], asynchronous=False)
    consumer.close()
    sink.close()


if __name__ == "__main__":
    land(load_settings(), *map(int, sys.argv[1:]))
