"""Bytewax with the hand-written loop's sink: `python -m benchmarks.bytewax_landing PLACE BATCH_MESSAGES ADDRESSES`.

Bytewax reads and schedules: a cluster of two processes with a worker each, as Spark has two tasks; the workers share
the partitions. It keeps no place in the topic: that would need its recovery store.
"""

import sys
from collections.abc import Sequence
from typing import Any

import bytewax.operators as op
from bytewax.connectors.kafka import KafkaSource, KafkaSourceMessage
from bytewax.dataflow import Dataflow
from bytewax.outputs import DynamicSink, StatelessSinkPartition
from bytewax.run import cli_main

from benchmarks.sink import Message, Sink
from tickledger.settings import Settings, load_settings


class _Worker(StatelessSinkPartition[Any]):
    """The sink of a worker. What Bytewax hands over at once is small, so it waits for a batch to be full."""

    def __init__(self, sink: Sink, batch_messages: int) -> None:
        self._sink, self._batch_messages = sink, batch_messages
        self._waiting: list[Message] = []

    def write_batch(self, items: Sequence[KafkaSourceMessage[Any, Any]]) -> None:
        """Keep the messages, and land as many as a batch has."""
        for item in items:
            assert item.partition is not None
            assert item.offset is not None
            self._waiting.append((item.partition, item.offset, item.value))
            if len(self._waiting) >= self._batch_messages:
                self._sink.land(self._waiting)
                self._waiting = []

    def close(self) -> None:
        """Land the rest at the end of the topic."""
        if self._waiting:
            self._sink.land(self._waiting)
        self._sink.close()


class Landing(DynamicSink[Any]):
    """A sink a worker."""

    def __init__(self, settings: Settings, batch_messages: int) -> None:
        self._settings, self._batch_messages = settings, batch_messages

    def build(self, _step_id: str, worker_index: int, _worker_count: int) -> _Worker:
        """The sink of one worker."""
        return _Worker(Sink(self._settings, worker_index), self._batch_messages)


def main(settings: Settings, place: int, batch_messages: int, addresses: str) -> None:
    """Land what the topic holds, together with the other process."""
    flow = Dataflow("landing")
    servers = settings.kafka_bootstrap_servers.split(",")
    fetching = {"fetch.max.bytes": "50000000"}
    source = KafkaSource(servers, [settings.kafka_topic], tail=False, add_config=fetching, batch_size=batch_messages)
    op.output("landing", op.input("topic", flow, source), Landing(settings, batch_messages))
    cli_main(flow, process_id=place, addresses=addresses.split(","))


if __name__ == "__main__":
    main(load_settings(), int(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
