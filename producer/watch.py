"""Shows what arrives in a topic."""

import threading
from collections.abc import Generator
from typing import Any

from kafka import KafkaConsumer, TopicPartition
from kafka.errors import CorruptRecordError, KafkaError, UnsupportedCodecError

from tickledger.counted import counted
from tickledger.errors import TickledgerError
from tickledger.plain_text import plain
from tickledger.secured import kafka_options
from tickledger.settings import Settings
from tickledger.tick import ms_to_datetime
from tickledger.topic import kafka_error

POLL_MS = 500


def watch(
    settings: Settings, topic: str, *, from_beginning: bool, stopping: threading.Event
) -> Generator[str, None, None]:
    """Lines for the committed messages of an existing topic, from now on or from its beginning, until `stopping`.

    The first line says what is watched; when it comes, the places to read from are fixed. It joins no consumer
    group, so watching changes nothing. Raises StoreUnavailable where no broker answers, and TickledgerError where
    messages came that cannot be read.
    """
    try:
        consumer = KafkaConsumer(
            bootstrap_servers=settings.kafka_bootstrap_servers.split(","),
            allow_auto_create_topics=False,
            enable_auto_commit=False,
            isolation_level="read_committed",
            **kafka_options(settings, settings.kafka),
        )
    except KafkaError as error:
        raise _error(settings, topic, error) from None
    try:
        partitions = [TopicPartition(topic, number) for number in sorted(consumer.partitions_for_topic(topic) or ())]
        consumer.assign(partitions)
        (consumer.seek_to_beginning if from_beginning else consumer.seek_to_end)(*partitions)
        for partition in partitions:
            consumer.position(partition)
        yield f"watching {topic}, {counted(len(partitions), 'partition')}; Ctrl-C ends"
        while not stopping.is_set():
            for records in consumer.poll(timeout_ms=POLL_MS).values():
                yield from map(_line, records)
    except KafkaError as error:
        raise _error(settings, topic, error) from None
    finally:
        consumer.close()


def _line(record: Any) -> str:
    return f"{_moment(record.timestamp)}  {record.partition}  {record.offset}  {_value(record.value)}"


def _moment(sent_ms: int) -> str:
    """When a message says that it was sent, UTC; the bare number where no calendar has it, as one of microseconds."""
    try:
        return ms_to_datetime(sent_ms).isoformat(" ", "milliseconds")
    except OverflowError:
        return f"{sent_ms} ms"


def _value(value: bytes | None) -> str:
    return "(no value)" if value is None else plain(value)


def _error(settings: Settings, topic: str, error: KafkaError) -> TickledgerError:
    if isinstance(error, UnsupportedCodecError | CorruptRecordError):
        return TickledgerError(f"a message of {topic} cannot be read: {error} ('make setup' installs every codec)")
    return kafka_error(settings, error, settings.kafka)
