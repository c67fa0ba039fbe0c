"""Micro-batches made by hand: frames as Spark's Kafka source gives them, landed without Kafka."""

import json
import threading
from datetime import UTC, datetime, timedelta
from typing import Any

from pyspark.sql import DataFrame, SparkSession

from commands.reconcile import reconcile
from streaming.land_batch import BatchLander
from tests.support.pipeline import Pipeline
from tickledger.ledger import LandedBatch, Ledger
from tickledger.retry_policy import RetryPolicy
from tickledger.topic import TopicFacts

NOON = datetime(2026, 3, 2, 5, 0, tzinfo=UTC)
TOPIC = TopicFacts("00000000-0000-0000-0000-000000000001", {0: 0, 1: 0}, {0: 0, 1: 0})
NEW_COMPANY = "INSERT INTO profile (ticker, company_name, sector, shares) VALUES ('NEW.JK', 'New', 'Coal', 1)"
SCHEMA = "partition int, offset long, timestamp timestamp, value binary"


class Lander:
    """Lands messages given as (partition, offset, value), as one micro-batch."""

    def __init__(
        self,
        spark: SparkSession,
        pipeline: Pipeline,
        *,
        topic: TopicFacts = TOPIC,
        retry_seconds: float = 30,
        **changed: Any,
    ) -> None:
        """`changed` are settings that differ from the pipeline's."""
        self._spark = spark
        self.pipeline = pipeline
        self.ledger = Ledger(pipeline.settings)
        # Frames made by hand come from no topic that could change.
        self._lander = BatchLander(
            pipeline.settings.model_copy(update=changed),
            self.ledger,
            topic,
            RetryPolicy(retry_seconds, threading.Event()),
            lambda: None,
        )

    def land(
        self, *messages: tuple[int, int, Any], message_at: datetime = NOON + timedelta(hours=1)
    ) -> LandedBatch | None:
        return self._lander.land(self.frame(*messages, message_at=message_at), ends_of(*messages))

    def start_of(self, partition: int) -> int:
        """Where the next batch begins in a partition."""
        return self._lander.progress.start_of(partition)

    def die(self, *messages: tuple[int, int, Any]) -> None:
        """Do all that comes before a micro-batch's commit, and no more."""
        self._lander.run(self.frame(*messages), self._lander.progress.ranges(ends_of(*messages)))

    def frame(self, *messages: tuple[int, int, Any], message_at: datetime = NOON + timedelta(hours=1)) -> DataFrame:
        rows = [
            (
                partition,
                offset,
                message_at,
                value if isinstance(value, bytes | None) else json.dumps(value).encode(),
            )
            for partition, offset, value in messages
        ]
        # One Spark partition for each Kafka partition, as the Kafka source gives them.
        frame = self._spark.createDataFrame(rows, SCHEMA)
        return frame.repartitionByRange(2, "partition").sortWithinPartitions("offset")


def ends_of(*messages: tuple[int, int, Any]) -> dict[int, int]:
    """Where messages end in each partition."""
    # In their order, of which the last one of a partition counts.
    return {partition: offset + 1 for partition, offset, _ in sorted(messages, key=lambda one: one[:2])}


def tick(number: int, **changes: Any) -> dict[str, Any]:
    made = NOON + timedelta(milliseconds=number)
    return {
        "id": number,
        "created_at": made.strftime("%Y-%m-%d %H:%M:%S.%f")[:-3],
        "volume": 100,
        "market_cap": 1000,
        "ticker": "TMAS.JK",
        "price": 10.5,
        "sector": "Logistics & Deliveries",
    } | changes


def counts(batch: LandedBatch | None) -> tuple[int, int, int, int]:
    """(read, landed, dead letters, duplicates)"""
    assert batch is not None
    return batch.ticks_read, batch.ticks_landed, batch.dead_letters, batch.duplicates


def assert_books_agree(lander: Lander) -> None:
    assert reconcile(lander.pipeline.settings).differences == []
