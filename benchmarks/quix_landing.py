"""Quix Streams with the hand-written loop's sink: `python -m benchmarks.quix_landing PLACE BATCH_MESSAGES UNTIL…`.

Quix Streams reads, gives out partitions within a consumer group, and flushes the sink when it commits its offsets: at
least once. Two processes, as Spark has two tasks. UNTIL are the partitions' ends; a process stops when it has reached
those of all partitions that it was given.
"""

import sys
from typing import Any

from quixstreams import Application
from quixstreams.sinks import BatchingSink, SinkBatch

from benchmarks.sink import Sink
from tickledger.settings import Settings, load_settings

#: A process that nothing comes to any more ends after so many seconds; another one has landed its partitions.
IDLE_SECONDS = 10


class Landing(BatchingSink):
    """The sink, flushed once a checkpoint and partition."""

    def __init__(self, application: Application, sink: Sink, ends: list[int]) -> None:
        super().__init__()
        self._application, self._sink, self._ends = application, sink, ends
        self._ended: set[int] = set()

    def add(self, *arguments: Any, **named: Any) -> None:
        """Take a message; at the last one of all partitions that are ours, stop, which flushes."""
        super().add(*arguments, **named)
        if named["offset"] + 1 >= self._ends[named["partition"]]:
            self._ended.add(named["partition"])
            # Quix Streams offers no public way to ask which partitions it was given.
            ours = {one.partition for one in self._application._consumer.assignment()}
            if ours <= self._ended:
                self._application.stop()

    def write(self, batch: SinkBatch) -> None:
        """Land what came since the last checkpoint."""
        self._sink.land((batch.partition, item.offset, item.value) for item in batch)


def main(settings: Settings, place: int, batch_messages: int, *ends: int) -> None:
    """Land the topic together with the other process."""
    application = Application(
        broker_address=settings.kafka_bootstrap_servers,
        consumer_group=settings.mysql_database,
        auto_offset_reset="earliest",
        commit_every=batch_messages,
        commit_interval=3600.0,
        consumer_extra_config={"fetch.max.bytes": 50_000_000},
        loglevel="WARNING",
    )
    sink = Sink(settings, place)
    topic = application.topic(settings.kafka_topic, value_deserializer="bytes", key_deserializer="bytes")
    application.dataframe(topic).sink(Landing(application, sink, list(ends)))
    application.run(timeout=IDLE_SECONDS, collect=False)
    sink.close()


if __name__ == "__main__":
    main(load_settings(), *map(int, sys.argv[1:]))
