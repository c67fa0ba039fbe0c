"""What bounds every engine: Cassandra alone, fed as the stream's workers feed it, with ticks that are decoded already.

`python -m benchmarks.cassandra_alone PARTITION UNTIL BATCH_MESSAGES`: one process a Kafka partition. All messages are
read and decoded before the clock starts. Prints a line of JSON a batch, as the loop does.
"""

import json
import sys
import time
from itertools import islice

from kafka import KafkaConsumer, TopicPartition

from streaming.decode_columns import ColumnDecoder
from streaming.tick_columns import whole
from streaming.tick_sink import TickSink, session_of_this_process
from tickledger.ledger import Ledger
from tickledger.settings import Settings, load_settings


def write(settings: Settings, partition: int, until: int, batch_messages: int) -> None:
    """Write the ticks of a partition's messages, a batch at a time."""
    consumer = KafkaConsumer(bootstrap_servers=settings.kafka_bootstrap_servers, auto_offset_reset="earliest")
    consumer.assign([TopicPartition(settings.kafka_topic, partition)])
    read = [(message.offset, message.timestamp, message.value) for message in islice(consumer, until)]
    consumer.close()
    offsets, times_ms, values = zip(*read, strict=True)
    ready = ColumnDecoder(Ledger(settings).sectors()).decode(whole(offsets), whole(times_ms), values).ticks
    sink = TickSink(session_of_this_process(settings))
    a_batch = batch_messages * len(ready) // len(values)
    print(json.dumps({"at": time.time(), "ticks": 0}), flush=True)
    for start in range(0, len(ready), a_batch):
        part = ready.take(slice(start, start + a_batch))
        for some in part.by_company_and_day():
            sink.write(some, partition)
        sink.drain()
        print(json.dumps({"at": time.time(), "ticks": len(part)}), flush=True)


if __name__ == "__main__":
    write(load_settings(), *map(int, sys.argv[1:]))
