"""What bounds every engine: decoding alone, and Cassandra alone, fed with rows that are ready. Prints as the loop does.

`python -m benchmarks.ceilings decode|cassandra TOPIC_PARTITION UNTIL`: one process a Kafka partition. The messages are
read, and for Cassandra decoded, before the clock starts.
"""

import json
import sys
import time
from collections.abc import Iterator

from kafka import KafkaConsumer, TopicPartition

from streaming.decode_columns import ColumnDecoder
from streaming.tick_columns import TickColumns, whole
from streaming.tick_sink import TickSink, session_of_this_process
from tickledger.ledger import Ledger
from tickledger.settings import Settings, load_settings

#: Ticks between two lines.
TICKS_A_LINE = 25_000
#: Messages that Spark hands to a worker at once, see spark-defaults.conf.
MESSAGES_AT_ONCE = 5_000


def _messages(settings: Settings, partition: int, until: int) -> Iterator[tuple[int, int, bytes]]:
    """(offset, time in milliseconds, value) of a partition's messages."""
    consumer = KafkaConsumer(bootstrap_servers=settings.kafka_bootstrap_servers, auto_offset_reset="earliest")
    place = TopicPartition(settings.kafka_topic, partition)
    consumer.assign([place])
    for message in consumer:
        yield message.offset, message.timestamp, message.value
        if message.offset + 1 >= until:
            consumer.close()
            return


def _say(ticks: int) -> None:
    print(json.dumps({"at": time.time(), "ticks": ticks}), flush=True)


def _decoded(settings: Settings, partition: int, until: int) -> TickColumns:
    offsets, times_ms, values = zip(*_messages(settings, partition, until), strict=True)
    return ColumnDecoder(Ledger(settings).sectors()).decode(whole(offsets), whole(times_ms), values).ticks


def decode(settings: Settings, partition: int, until: int) -> None:
    """Decode and judge every message, and do nothing with the ticks."""
    decoder, messages = ColumnDecoder(Ledger(settings).sectors()), list(_messages(settings, partition, until))
    _say(0)
    for start in range(0, len(messages), MESSAGES_AT_ONCE):
        offsets, times_ms, values = zip(*messages[start : start + MESSAGES_AT_ONCE], strict=True)
        _say(len(decoder.decode(whole(offsets), whole(times_ms), values).ticks))


def cassandra(settings: Settings, partition: int, until: int) -> None:
    """Write ticks that are decoded already, as the stream's workers write them."""
    ready = _decoded(settings, partition, until)
    sink = TickSink(session_of_this_process(settings))
    _say(0)
    for start in range(0, len(ready), TICKS_A_LINE):
        part = ready.take(slice(start, start + TICKS_A_LINE))
        for some in part.by_company_and_day():
            sink.write(some, partition)
        sink.drain()
        _say(len(part))


if __name__ == "__main__":
    {"decode": decode, "cassandra": cassandra}[sys.argv[1]](load_settings(), *map(int, sys.argv[2:]))
