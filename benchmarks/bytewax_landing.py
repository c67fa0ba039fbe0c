"""Bytewax with the hand-written loop's sink: `python -m benchmarks.bytewax_landing PLACE BATCH_MESSAGES ADDRESSES`.

Bytewax reads and schedules: a cluster of two processes with a worker each, as Spark has two tasks; the workers share
the partitions. It keeps no place in the topic: that would need its recovery store.
"""

import sys
from collections.abc import Sequence
from typing import Any

import bytewax.operators as op
from bytewax.connectors.kafka import KafkaSource
from bytewax.dataflow import Dataflow
from bytewax.outputs import DynamicSink, StatelessSinkPartition
from bytewax.run import cli_main

from benchmarks.sink import Message, Sink
from tickledger.settings import load_settings

SETTINGS, (PLACE, BATCH_MESSAGES, ADDRESSES) = load_settings(), sys.argv[1:]


class Worker(StatelessSinkPartition[Any]):
    """The sink of a worker. What Bytewax hands over at once is small, so it waits for a batch to be full."""

    def __init__(self, place: int) -> None:
        self._sink, self._waiting = Sink(SETTINGS, place), list[Message]()

    def write_batch(self, items: Sequence[Any]) -> None:
        """Keep the messages, and land as many as a batch has."""
        for item in items:
            self._waiting.append((item.partition, item.offset, item.value))
            if len(self._waiting) >= int(BATCH_MESSAGES):
                self._sink.land(self._waiting)
                self._waiting = []

    def close(self) -> None:
        """Land the rest at the end of the topic."""
        if self._waiting:
            self._sink.land(self._waiting)
        self._sink.close()


class Landing(DynamicSink[Any]):
    """A sink a worker."""

    def build(self, _step_id: str, worker_index: int, _worker_count: int) -> Worker:
        """The sink of one worker."""
        return Worker(worker_index)


if __name__ == "__main__":
    flow = Dataflow("landing")
    servers, fetching = SETTINGS.kafka_bootstrap_servers.split(","), {"fetch.max.bytes": "50000000"}
    topic = KafkaSource(
        servers, [SETTINGS.kafka_topic], tail=False, add_config=fetching, batch_size=int(BATCH_MESSAGES)
    )
    op.output("landing", op.input("topic", flow, topic), Landing())
    cli_main(flow, process_id=int(PLACE), addresses=ADDRESSES.split(","))
