"""Sends messages of ticks to a Kafka topic and counts what the broker acknowledged."""

import logging
import threading
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import orjson
from kafka import KafkaProducer
from kafka.errors import KafkaError, KafkaTimeoutError, MessageSizeTooLargeError

from tickledger.counted import counted
from tickledger.errors import StoreUnavailable, TickledgerError
from tickledger.secured import kafka_options
from tickledger.settings import Settings

CONNECT_MS = 10_000
#: How long a message may wait for the broker before it counts as not delivered.
DELIVERY_MS = 120_000
LINGER_MS = 20
BATCH_BYTES = 256 * 1024
#: kafka-python has no bound of its own on what waits for the broker.
MAX_WAITING_BYTES = 16 * 1024 * 1024
CLOSE_SECONDS = 10
#: How soon a full buffer notices a request to stop.
STOP_SECONDS = 0.5


class NotDelivered(TickledgerError):
    """The broker did not acknowledge every message that was sent. Exit code 1."""


@dataclass
class Totals:
    """What one run sent; the broker holds what it acknowledged. Messages, and the ticks in them."""

    messages: int = 0
    ticks: int = 0
    acknowledged_messages: int = 0
    acknowledged_ticks: int = 0

    def __str__(self) -> str:
        acknowledged = f"{self.acknowledged_ticks:,} acknowledged"
        return f"{counted(self.messages, 'message')}, {counted(self.ticks, 'tick')}, {acknowledged}"

    def as_json(self) -> bytes:
        """The four totals as a JSON object on one line."""
        return orjson.dumps(asdict(self)) + b"\n"


class Publisher:
    """An idempotent producer for one topic: a retry within this process never writes a message twice.

    Messages have no key and go to the partitions in turn, so that every partition gets the same share. Order across
    partitions does not matter: each tick carries its own created_at and id, charts order by created_at, sums commute.
    A message that the broker does not take within two minutes is lost to this run: :meth:`send` and :meth:`flush`
    raise NotDelivered from then on.
    """

    def __init__(self, settings: Settings, topic: str, stopping: threading.Event) -> None:
        """Connect. The topic must exist. Raises StoreUnavailable where no broker answers."""
        # kafka-python logs every refused connection; callers say it in one line.
        logging.getLogger("kafka").setLevel(logging.CRITICAL)
        self.totals = Totals()
        self._topic = topic
        self._stopping = stopping
        self._where = settings.kafka_bootstrap_servers
        self._failure: str | None = None
        self._waiting_bytes = 0
        self._changed = threading.Condition()
        try:
            self._producer = KafkaProducer(
                bootstrap_servers=self._where.split(","),
                bootstrap_timeout_ms=CONNECT_MS,
                allow_auto_create_topics=False,
                enable_idempotence=True,
                acks="all",
                delivery_timeout_ms=DELIVERY_MS,
                compression_type="lz4",
                linger_ms=LINGER_MS,
                batch_size=BATCH_BYTES,
                **kafka_options(settings, settings.producer_kafka),
            )
            self._partitions = sorted(self._producer.partitions_for(topic))
        except KafkaError as error:
            raise _unavailable(self._where, error) from None

    @property
    def waiting_messages(self) -> int:
        """Messages that were sent and that the broker has not acknowledged yet."""
        return self.totals.messages - self.totals.acknowledged_messages

    def send(self, ticks: Sequence[Any]) -> None:
        """Send one message, an array of these ticks. Blocks while 16 MiB wait for the broker.

        A stop asked for during such a wait leaves the message out. Raises NotDelivered once any message was not
        delivered, and where the message is larger than Kafka takes.
        """
        self.send_value(orjson.dumps(ticks), len(ticks))

    def send_value(self, value: bytes, ticks: int) -> None:
        """Send one message as it is, which holds a number of ticks; otherwise as :meth:`send`."""
        if not self._wait_for_room(len(value)):
            return
        # The partition is chosen here: with a partitioner, kafka-python asks twice whenever a message opens a batch,
        # and taking turns would then always end on the same partition.
        partition = self._partitions[self.totals.messages % len(self._partitions)]
        try:
            sending = self._producer.send(self._topic, value, partition=partition)
        except MessageSizeTooLargeError:
            raise NotDelivered(
                f"a message of {counted(ticks, 'tick')} has {len(value):,} bytes: Kafka takes 1 MiB"
            ) from None
        except KafkaError as error:
            raise NotDelivered(f"Kafka at {self._where} took no more messages: {_name(error)}") from None
        self.totals.messages += 1
        self.totals.ticks += ticks
        sending.add_callback(self._acknowledged, ticks, len(value))
        sending.add_errback(self._failed, len(value))

    def flush(self, seconds: float = DELIVERY_MS / 1000) -> None:
        """Wait until the broker has acknowledged everything. Raises NotDelivered where it has not within `seconds`."""
        try:
            self._producer.flush(timeout=seconds)
        except KafkaTimeoutError as error:
            self._failure = self._failure or _name(error)
        self._raise_failure()

    def close(self) -> None:
        """Close the connections. What :meth:`flush` has not brought to the broker by now is given up."""
        if self.waiting_messages:
            # Without this, kafka-python's close waits for these messages and raises before it has closed anything.
            self._producer._sender.force_close()
        self._producer.close(timeout=CLOSE_SECONDS)

    def _wait_for_room(self, size: int) -> bool:
        with self._changed:
            while self._waiting_bytes >= MAX_WAITING_BYTES and self._failure is None:
                if self._stopping.is_set():
                    return False
                self._changed.wait(STOP_SECONDS)
            self._raise_failure()
            self._waiting_bytes += size
        return True

    # The next two run in kafka-python's own thread, or at once in ours where the answer has come already.

    def _acknowledged(self, ticks: int, size: int, _metadata: object) -> None:
        with self._changed:
            self.totals.acknowledged_messages += 1
            self.totals.acknowledged_ticks += ticks
            self._waiting_bytes -= size
            self._changed.notify()

    def _failed(self, size: int, error: BaseException) -> None:
        with self._changed:
            self._failure = self._failure or _name(error)
            self._waiting_bytes -= size
            self._changed.notify()

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise NotDelivered(
                f"Kafka at {self._where} has not acknowledged {self.waiting_messages:,} of "
                f"{counted(self.totals.messages, 'message')}: {self._failure}"
            )


def _unavailable(where: str, error: Exception) -> StoreUnavailable:
    return StoreUnavailable(f"Kafka at {where} (KAFKA_BOOTSTRAP_SERVERS) does not answer: {_name(error)}")


def _name(error: BaseException) -> str:
    return type(error).__name__
