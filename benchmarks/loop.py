"""A hand-written loop that lands a topic: confluent-kafka, orjson, batched cassandra-driver, MySQL. No Spark or ledger.

What one would write who needs no exactly once: it trusts its input, keeps its place in Kafka's consumer group, counts a
tick twice that comes twice, and checks nothing. One process a Kafka partition, as Spark has one task. Prints a line of
JSON for each batch: the time and its ticks.
"""

import json
import struct
import sys
import threading
import time
from collections import defaultdict
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import orjson
from cassandra.query import BatchStatement, BatchType, BoundStatement
from confluent_kafka import Consumer, TopicPartition

from streaming.settings import Settings, load_settings
from streaming.stores import connect_cassandra, connect_mysql

TICKS_A_BATCH, IN_FLIGHT = 200, 48
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_bigint, _int, _date = struct.Struct(">q").pack, struct.Struct(">i").pack, struct.Struct(">I").pack


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
    session, mysql = connect_cassandra(settings), connect_mysql(settings)
    insert = session.prepare(
        "INSERT INTO real_time_data (ticker, created_at, id, volume, market_cap, price, sector, trade_date,"
        " kafka_partition, kafka_offset) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
    )
    reached, number = 0, 0
    while reached < until:
        messages = consumer.consume(min(batch_messages, until - reached), timeout=1.0)
        if not messages:
            continue
        sums = _write(session, insert, messages)
        reached, number = reached + len(messages), number + 1
        _add_up(mysql, partition, number, sums)
        consumer.commit(offsets=[TopicPartition(settings.kafka_topic, partition, reached)], asynchronous=False)
        ticks = sum(count for count, _ in sums.values())
        print(json.dumps({"at": time.time(), "ticks": ticks}), flush=True)
    consumer.close()
    session.cluster.shutdown()


def _write(session: Any, insert: Any, messages: list[Any]) -> dict[tuple[Any, str], list[int]]:
    waiting: dict[tuple[str, int], list[list[bytes]]] = defaultdict(list)
    sums: dict[tuple[Any, str], list[int]] = defaultdict(lambda: [0, 0])
    slots = threading.BoundedSemaphore(IN_FLIGHT)
    failures: list[Exception] = []

    def send(rows: list[list[bytes]]) -> None:
        batch = BatchStatement(BatchType.UNLOGGED)
        for row in rows:
            bound = BoundStatement(insert)
            bound.values = row
            batch.add(bound)
        slots.acquire()
        session.execute_async(batch).add_callbacks(lambda _: slots.release(), failed)

    def failed(error: Exception) -> None:
        failures.append(error)
        slots.release()

    for message in messages:
        place = _int(message.partition()), _bigint(message.offset())
        for tick in orjson.loads(message.value()):
            made = datetime.fromisoformat(tick["created_at"]).replace(tzinfo=UTC)
            day = (made - EPOCH).days
            rows = waiting[tick["ticker"], day]
            rows.append(
                [
                    tick["ticker"].encode(), _bigint(round((made - EPOCH).total_seconds() * 1000)), _bigint(tick["id"]),
                    _bigint(tick["volume"]), _decimal(tick["market_cap"]), _decimal(tick["price"]),
                    tick["sector"].encode(), _date(day + 2**31), *place,
                ]
            )  # fmt: skip
            one = sums[made.date(), tick["sector"]]
            one[0] += 1
            one[1] += tick["volume"]
            if len(rows) >= TICKS_A_BATCH:
                send(waiting.pop((tick["ticker"], day)))
    for rows in waiting.values():
        send(rows)
    for _ in range(IN_FLIGHT):
        slots.acquire()
    if failures:
        raise failures[0]
    return sums


def _decimal(value: float) -> bytes:
    _, digits, exponent = Decimal(repr(value)).as_tuple()
    unscaled = int("".join(map(str, digits)))
    return _int(-int(exponent)) + unscaled.to_bytes(unscaled.bit_length() // 8 + 1, "big", signed=True)


def _add_up(mysql: Any, partition: int, number: int, sums: dict[tuple[Any, str], list[int]]) -> None:
    """The batch's volumes, with numbers that two processes do not share."""
    batch_id, now = number * 10 + partition, datetime.now(UTC).replace(tzinfo=None)
    cursor = mysql.cursor()
    cursor.executemany(
        "INSERT INTO aggregated_data (processing_id, processed_at, sector, total_volume, date, batch_id, ticks,"
        " first_created_at, last_created_at) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s)",
        [
            (batch_id * 1000 + place, now, sector, volume, day, batch_id, ticks, now, now)
            for place, ((day, sector), (ticks, volume)) in enumerate(sums.items())
        ],
    )
    mysql.commit()


if __name__ == "__main__":
    land(load_settings(), *map(int, sys.argv[1:]))
