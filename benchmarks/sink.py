"""What the hand-written loop and Bytewax do with messages: orjson, batched cassandra-driver, MySQL."""

import json
import struct
import threading
import time
from collections import defaultdict
from collections.abc import Iterable
from datetime import UTC, date, datetime
from decimal import Decimal

import orjson
from cassandra.query import BatchStatement, BatchType, BoundStatement

from tickledger.settings import Settings
from tickledger.stores import connect_cassandra, connect_mysql

TICKS_A_BATCH, IN_FLIGHT = 200, 48
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
#: A message: partition, offset and value.
Message = tuple[int, int, bytes]
_bigint, _int, _date = struct.Struct(">q").pack, struct.Struct(">i").pack, struct.Struct(">I").pack


class Sink:
    """Lands batches of messages, one process a sink, `place` its number. Trusts its input and checks nothing."""

    def __init__(self, settings: Settings, place: int) -> None:
        # The stream's account may not change a row of aggregated_data, which landing it again does.
        self._session, self._mysql = connect_cassandra(settings), connect_mysql(settings, settings.dbt_mysql)
        self._place, self._number = place, 0
        self._slots, self._failures = threading.BoundedSemaphore(IN_FLIGHT), list[Exception]()
        self._insert = self._session.prepare(
            "INSERT INTO real_time_data (ticker, created_at, id, volume, market_cap, price, sector, trade_date,"
            " kafka_partition, kafka_offset) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
        )

    def land(self, messages: Iterable[Message]) -> None:
        """Store the ticks, then their sums, and print a line of JSON: the time and the ticks. Raises what fails."""
        sums = self._write(messages)
        self._number += 1
        # Numbers that no two processes share.
        self._upsert(self._number * 10 + self._place, sums)
        print(json.dumps({"at": time.time(), "ticks": sum(ticks for ticks, _ in sums.values())}), flush=True)

    def close(self) -> None:
        """Close both connections."""
        self._session.cluster.shutdown()
        self._mysql.close()

    def _write(self, messages: Iterable[Message]) -> dict[tuple[date, str], list[int]]:
        waiting: dict[tuple[str, int], list[list[bytes]]] = defaultdict(list)
        sums: dict[tuple[date, str], list[int]] = defaultdict(lambda: [0, 0])
        for partition, offset, value in messages:
            place = _int(partition), _bigint(offset)
            for tick in orjson.loads(value):
                made = datetime.fromisoformat(tick["created_at"]).replace(tzinfo=UTC)
                day = (made - EPOCH).days
                rows = waiting[tick["ticker"], day]
                rows.append(
                    [
                        tick["ticker"].encode(), _bigint(round((made - EPOCH).total_seconds() * 1000)),
                        _bigint(tick["id"]), _bigint(tick["volume"]), _decimal(tick["market_cap"]),
                        _decimal(tick["price"]), tick["sector"].encode(), _date(day + 2**31), *place,
                    ]
                )  # fmt: skip
                one = sums[made.date(), tick["sector"]]
                one[0] += 1
                one[1] += tick["volume"]
                if len(rows) >= TICKS_A_BATCH:
                    self._send(waiting.pop((tick["ticker"], day)))
        for rows in waiting.values():
            self._send(rows)
        for _ in range(IN_FLIGHT):
            self._slots.acquire()
        self._slots = threading.BoundedSemaphore(IN_FLIGHT)
        if self._failures:
            raise self._failures[0]
        return sums

    def _send(self, rows: list[list[bytes]]) -> None:
        batch = BatchStatement(BatchType.UNLOGGED)
        for row in rows:
            bound = BoundStatement(self._insert)
            bound.values = row
            batch.add(bound)
        self._slots.acquire()
        self._session.execute_async(batch).add_callbacks(lambda _: self._slots.release(), self._failed)

    def _failed(self, error: Exception) -> None:
        self._failures.append(error)
        self._slots.release()

    def _upsert(self, batch_id: int, sums: dict[tuple[date, str], list[int]]) -> None:
        now = datetime.now(UTC).replace(tzinfo=None)
        self._mysql.cursor().executemany(
            "INSERT INTO aggregated_data (processing_id, processed_at, sector, total_volume, date, batch_id, ticks,"
            " first_created_at, last_created_at) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s)"
            " ON DUPLICATE KEY UPDATE total_volume = VALUES(total_volume), ticks = VALUES(ticks)",
            [
                (batch_id * 1000 + place, now, sector, volume, day, batch_id, ticks, now, now)
                for place, ((day, sector), (ticks, volume)) in enumerate(sorted(sums.items()))
            ],
        )
        self._mysql.commit()


def _decimal(value: float) -> bytes:
    _, digits, exponent = Decimal(repr(value)).as_tuple()
    unscaled = int("".join(map(str, digits)))
    return _int(-int(exponent)) + unscaled.to_bytes(unscaled.bit_length() // 8 + 1, "big", signed=True)
