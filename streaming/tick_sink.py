"""The Cassandra side of landing: idempotent upserts of ticks, revisions and dead letters, and a look at what is stored.

Everything here runs in Spark's Python workers. Writing a row again leaves one row.
"""

import hashlib
import threading
import time
from bisect import bisect_left
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from functools import lru_cache
from itertools import islice
from typing import Any, NamedTuple

from cassandra.cluster import NoHostAvailable, Session
from cassandra.concurrent import execute_concurrent
from cassandra.connection import ConnectionBusy
from cassandra.pool import Host
from cassandra.query import BatchStatement, BatchType, BoundStatement

from streaming.tick_columns import TickColumns
from streaming.tick_packing import BATCH_BYTES, PACKED_COLUMNS, PackedRows, pack_rows, pack_tick
from tickledger.decode import DeadLetter
from tickledger.errors import StoreUnavailable
from tickledger.revisions import Place, Revision
from tickledger.settings import Settings
from tickledger.stores import CASSANDRA_ERRORS, CASSANDRA_REQUEST_SECONDS, cassandra_error, connect_cassandra
from tickledger.tick import (
    DEAD_LETTER_BUCKET,
    DEAD_LETTER_TABLE,
    EXTRA_COLUMN,
    MOST_RAW_BYTES,
    OWN_FIELDS,
    RAW_TABLE,
    REVISION_TABLE,
    TICK_FIELDS,
    TOO_LARGE_TO_KEEP,
    FieldKind,
    Tick,
    datetime_to_ms,
    day_to_date,
    ms_to_datetime,
    revision_columns,
)

#: What of a tick is not its key.
VALUE_FIELDS = tuple(field for field in TICK_FIELDS if field.name not in ("ticker", "created_at", "id"))
#: What the fields of one's own may add to a tick's row.
OWN_BYTES = sum(4 + (4 * field.maximum if field.kind == "text" else 16) for field in OWN_FIELDS)
#: Ticks in one unlogged batch. About 110 bytes per tick stay well below Cassandra's default limit of 50 KiB per batch.
TICKS_A_BATCH = max(1, min(200, 40_000 // (110 + OWN_BYTES)))
#: Companies and days in one: a request costs more than their rows, and of a batch over more partitions Cassandra warns
#: (unlogged_batch_across_partitions_warn_threshold in its cassandra.yaml).
COMPANIES_A_BATCH = 10
#: Requests a worker keeps in flight, and their bytes; one that is larger goes alone. A node with a heap of 1 GB lets
#: 25 MB of requests in at once.
IN_FLIGHT = 48
BYTES_IN_FLIGHT = 4 * 2**20
#: About what a tick's row has, and what a dead letter's has besides its raw value.
TICK_BYTES, LETTER_BYTES = 200 + OWN_BYTES, 1_000
#: The longest pause before the next try if the connection has no room.
MOST_PAUSE_SECONDS = 0.25
#: Up to this many times of a company and day are asked for one by one in a request. More are read as one slice, which
#: costs less unless there are far more rows between them: at most this many are read for each time.
TIMES_A_REQUEST = 50
ROWS_A_TIME = 8
#: Companies with few times of a day are asked for in one request.
FEW_TIMES, COMPANIES_A_REQUEST = 5, 50
#: Look-ups of a task at the same time, and those whose answers it may hold.
LOOK_UPS_IN_FLIGHT, LOOK_UPS_A_PORTION = 16, 64


class Moments(NamedTuple):
    """Times of a trading day to ask for, of some companies: milliseconds since 1970-01-01 UTC, sorted, each once."""

    tickers: list[str]
    trade_day: int
    times: list[int]


def moments_of(ticks: TickColumns) -> Moments:
    """When the ticks of one company and day were made."""
    return Moments([ticks.ticker[0]], int(ticks.trade_day[0]), sorted(set(ticks.created_ms.tolist())))


class StoredTick(NamedTuple):
    """A tick as it stands in Cassandra: its key, the message that it came with, and its values as the driver has them.

    `values` are in the order of :data:`VALUE_FIELDS`; decimals are packed, as :func:`unpack_decimal` takes them.
    """

    ticker: str
    created_ms: int
    id: int
    partition: int
    offset: int
    values: tuple[Any, ...]


class TickSink:
    """Writes one task's ticks and dead letters, with a bounded number of requests and bytes in flight.

    A failed request surfaces at the latest in :meth:`drain`: as StoreUnavailable, as ConfigurationError if Cassandra
    refuses it, or as TickledgerError if this program has made an error. Nothing is known to be stored before drain
    returns. Landing the same messages again is the retry.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self._statements = _prepare(session)
        self._waiting: dict[frozenset[Host], _Waiting] = {}
        self._in_flight = _InFlight()
        #: What the connection had no room for, and its bytes.
        self._again: deque[tuple[Any, int]] = deque()
        self._failure: Exception | None = None

    def write(self, ticks: TickColumns, partition: int) -> None:
        """Upsert ticks of one company and day from a Kafka partition, sooner or later."""
        one_row = self._one_row(ticks, partition)
        nodes = self._nodes_of(one_row)
        for rows, packed in pack_rows(self._statements.insert_tick.query_id, ticks, partition, TICKS_A_BATCH):
            if nodes in self._waiting and not self._waiting[nodes].has_room_for(rows, len(packed)):
                self._send_ticks(self._waiting.pop(nodes))
            self._waiting.setdefault(nodes, _Waiting(one_row)).add(rows, packed)

    def write_dead(self, topic: str, partition: int, offset: int, dead: DeadLetter) -> None:
        """Upsert one dead letter. Sent alone: its raw value may be as large as a message.

        Of one that is larger than Cassandra takes, the beginning is kept; its detail says how to know the whole.
        """
        dead = _kept(dead, f"{topic} {partition}/{offset}")
        key = (topic, partition, offset // DEAD_LETTER_BUCKET, offset, dead.position)
        values = (*key, dead.raw_value, dead.reason, dead.detail, datetime.now(UTC))
        self._send(self._statements.insert_dead.bind(values), len(dead.raw_value) + LETTER_BYTES)

    def write_revision(self, place: Place, revision: Revision) -> None:
        """Upsert one correction or cancellation. Sent alone: they are few."""
        values = revision_values(revision) | {
            "kind": revision.kind.value,
            "revised_at": ms_to_datetime(revision.revised_ms),
            "trade_date": day_to_date(revision.trade_day),
            "kafka_partition": place.partition,
            "kafka_offset": place.offset,
            "position": place.position,
            EXTRA_COLUMN: revision.extra,
        }
        self._send(self._statements.insert_revision.bind(values), TICK_BYTES + len(revision.extra or ""))

    def drain(self) -> None:
        """Send what waits and return when all of it is stored. Raises TickledgerError, as the class says."""
        while self._waiting:
            self._send_ticks(self._waiting.popitem()[1])
        self._in_flight.wait_for_none()
        while self._again:
            self._send_again()
            self._in_flight.wait_for_none()
        self._raise_failure()

    def stored(self, asked: Iterable[Moments]) -> Iterator[StoredTick]:
        """The stored ticks of companies, each asked for alone, at the given times; maybe others near them, or twice.

        Many times are read as one slice. If far more is stored between them than was asked for, its end is left
        alone, and the times there are asked for one by one.
        """
        left: list[Moments] = []
        for one, rows in self._look_up(_together(asked)):
            yield from rows
            if _is_slice(one) and len(rows) == ROWS_A_TIME * len(one.times):
                left.append(one._replace(times=one.times[bisect_left(one.times, rows[-1].created_ms) :]))
        for _, rows in self._look_up(_in_requests(left)):
            yield from rows

    def _look_up(self, asked: Iterator[Moments]) -> Iterator[tuple[Moments, list[StoredTick]]]:
        """Ask for each of some moments, several at a time."""
        # In portions: the driver would go on asking after an error, and fetch faster than the answers are read.
        while some := list(islice(asked, LOOK_UPS_A_PORTION)):
            queries = [(self._query(one), None) for one in some]
            try:
                found = execute_concurrent(
                    self._session, queries, concurrency=LOOK_UPS_IN_FLIGHT, results_generator=True
                )
                for one, (_, rows) in zip(some, found, strict=True):
                    yield one, list(map(_stored_tick, rows))
            except CASSANDRA_ERRORS as error:
                raise cassandra_error(error) from None

    def _query(self, one: Moments) -> BoundStatement:
        day, times = day_to_date(one.trade_day), one.times
        if _is_slice(one):
            first, last = ms_to_datetime(times[0]), ms_to_datetime(times[-1])
            return self._statements.ticks_between.bind((one.tickers[0], day, first, last, ROWS_A_TIME * len(times)))
        return self._statements.ticks_at.bind((one.tickers, day, [ms_to_datetime(ms) for ms in times]))

    def dead_positions(self, topic: str, partition: int, first: int, last: int) -> Iterator[tuple[int, int]]:
        """(offset, position) of the stored dead letters of a partition, from offset `first` to `last`."""
        for bucket in range(first // DEAD_LETTER_BUCKET, last // DEAD_LETTER_BUCKET + 1):
            bound = self._statements.dead_between.bind((topic, partition, bucket, first, last))
            yield from ((offset, position) for offset, position, _ in self._read(bound))

    def forget_tick(self, tick: Tick) -> None:
        """Delete a tick that an attempt which never reached the ledger had stored."""
        key = (tick.ticker, day_to_date(tick.trade_day), ms_to_datetime(tick.created_ms), tick.id)
        self._send(self._statements.delete_tick.bind(key), TICK_BYTES)

    def forget_revision(self, place: Place, revision: Revision) -> None:
        """Delete a correction or cancellation that an attempt which never reached the ledger had stored."""
        tick = (revision.ticker, day_to_date(revision.trade_day), ms_to_datetime(revision.created_ms), revision.id)
        values = (*tick, ms_to_datetime(revision.revised_ms), *place)
        self._send(self._statements.delete_revision.bind(values), TICK_BYTES)

    def forget_dead(self, topic: str, partition: int, offset: int, position: int) -> None:
        """Delete a dead letter that an attempt which never reached the ledger had stored."""
        key = (topic, partition, offset // DEAD_LETTER_BUCKET, offset, position)
        self._send(self._statements.delete_dead.bind(key), TICK_BYTES)

    def _one_row(self, ticks: TickColumns, partition: int) -> BoundStatement:
        bound = BoundStatement(self._statements.insert_tick)
        first = ticks.take(slice(1))
        bound.values = pack_tick(next(first.ticks()), partition, int(first.offset[0]))
        return bound

    def _nodes_of(self, one_row: BoundStatement) -> frozenset[Host]:
        """Cassandra's nodes that hold a company's day; empty if the driver does not know them."""
        hosts = self._session.cluster.metadata.get_replicas(self._session.keyspace, one_row.routing_key)
        return frozenset(hosts)

    def _send_ticks(self, waiting: "_Waiting") -> None:
        batch = BatchStatement(BatchType.UNLOGGED)
        # Tells the driver which of Cassandra's nodes hold the rows; then all of them take the place of the one.
        batch.add(waiting.one_row)
        batch._statements_and_parameters = PackedRows(
            self._statements.insert_tick.query_id, waiting.rows, b"".join(waiting.packed)
        )
        self._send(batch, max(waiting.rows * TICK_BYTES, waiting.size))

    def _send(self, statement: Any, size: int) -> None:
        self._begin(statement, size)
        self._send_again()

    def _begin(self, statement: Any, size: int) -> None:
        self._raise_failure()
        self._in_flight.begin(size)
        try:
            future = self._session.execute_async(statement)
        except CASSANDRA_ERRORS as error:
            self._in_flight.end(size)
            raise cassandra_error(error) from None
        future.add_callbacks(lambda _: self._in_flight.end(size), lambda error: self._failed(error, statement, size))

    def _send_again(self) -> None:
        """Send what the connection had no room for, once it has; if it gets none, Cassandra does not read."""
        pause, until = 0.005, time.monotonic() + CASSANDRA_REQUEST_SECONDS
        while self._again:
            if time.monotonic() > until:
                raise StoreUnavailable("Cassandra does not answer: it takes nothing more from the connection")
            # The driver forgets to give back the number of a request that found no room: few tries, not thousands.
            time.sleep(pause)
            pause = min(2 * pause, MOST_PAUSE_SECONDS)
            self._begin(*self._again.popleft())

    def _failed(self, error: Exception, statement: Any, size: int) -> None:
        if _has_no_room(error):
            self._again.append((statement, size))
        else:
            self._failure = self._failure or error
        self._in_flight.end(size)

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise cassandra_error(self._failure)

    def _read(self, bound: Any) -> Iterator[Any]:
        try:
            yield from self._session.execute(bound)
        except CASSANDRA_ERRORS as error:
            raise cassandra_error(error) from None


class _InFlight:
    """Counts the requests in flight and their bytes, and makes the next one wait for room."""

    def __init__(self) -> None:
        self._requests = self._bytes = 0
        self._changed = threading.Condition()

    def begin(self, size: int) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._has_room_for(size))
            self._requests += 1
            self._bytes += size

    def end(self, size: int) -> None:
        with self._changed:
            self._requests -= 1
            self._bytes -= size
            self._changed.notify_all()

    def wait_for_none(self) -> None:
        with self._changed:
            self._changed.wait_for(lambda: not self._requests)

    def _has_room_for(self, size: int) -> bool:
        return not self._requests or (self._requests < IN_FLIGHT and self._bytes + size <= BYTES_IN_FLIGHT)


@dataclass
class _Waiting:
    """Packed rows that the same nodes hold and that wait for more; `one_row` is any of them, as the driver knows it.

    An element of `packed` is of one company and day.
    """

    one_row: BoundStatement
    rows: int = 0
    packed: list[bytes] = field(default_factory=list)
    size: int = 0

    def has_room_for(self, rows: int, size: int) -> bool:
        some = self.rows + rows <= TICKS_A_BATCH and self.size + size <= BATCH_BYTES
        return some and len(self.packed) < COMPANIES_A_BATCH

    def add(self, rows: int, packed: bytes) -> None:
        self.rows += rows
        self.size += len(packed)
        self.packed.append(packed)


class _Statements(NamedTuple):
    insert_tick: Any
    delete_tick: Any
    ticks_at: Any
    ticks_between: Any
    insert_dead: Any
    delete_dead: Any
    dead_between: Any
    insert_revision: Any
    delete_revision: Any


@lru_cache(maxsize=4)
def _prepare(session: Session) -> _Statements:
    tick_key = "ticker = ? AND trade_date = ?"
    dead_key = "topic = ? AND kafka_partition = ? AND offset_bucket = ?"
    # The driver takes microseconds to make a decimal.
    values = ", ".join(f"decimalAsBlob({one.name})" if one.kind == "decimal" else one.name for one in VALUE_FIELDS)
    stored = f"SELECT ticker, created_at, id, kafka_partition, kafka_offset, {values} FROM {RAW_TABLE} WHERE"
    names, marks = ", ".join(PACKED_COLUMNS), ", ".join("?" * len(PACKED_COLUMNS))
    revised = revision_columns()
    dead_columns = "topic, kafka_partition, offset_bucket, kafka_offset, position, raw_value, reason, detail, dead_at"
    try:
        return _Statements(
            session.prepare(f"INSERT INTO {RAW_TABLE} ({names}) VALUES ({marks})"),
            session.prepare(f"DELETE FROM {RAW_TABLE} WHERE {tick_key} AND created_at = ? AND id = ?"),
            session.prepare(f"{stored} ticker IN ? AND trade_date = ? AND created_at IN ?"),
            session.prepare(f"{stored} {tick_key} AND created_at >= ? AND created_at <= ? LIMIT ?"),
            session.prepare(f"INSERT INTO {DEAD_LETTER_TABLE} ({dead_columns}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"),
            session.prepare(f"DELETE FROM {DEAD_LETTER_TABLE} WHERE {dead_key} AND kafka_offset = ? AND position = ?"),
            session.prepare(
                # Asked for nothing but the key, Cassandra reads whole rows into its memory, raw values and all.
                f"SELECT kafka_offset, position, reason FROM {DEAD_LETTER_TABLE}"
                f" WHERE {dead_key} AND kafka_offset >= ? AND kafka_offset <= ?"
            ),
            session.prepare(
                f"INSERT INTO {REVISION_TABLE} ({', '.join(revised)}) VALUES ({', '.join('?' * len(revised))})"
            ),
            session.prepare(
                f"DELETE FROM {REVISION_TABLE} WHERE {tick_key} AND created_at = ? AND id = ? AND revised_at = ?"
                " AND kafka_partition = ? AND kafka_offset = ? AND position = ?"
            ),
        )
    except CASSANDRA_ERRORS as error:
        raise cassandra_error(error) from None


def _stored_tick(row: Any) -> StoredTick:
    return StoredTick(row[0], datetime_to_ms(row[1]), row[2], row[3], row[4], row[5:])


def revision_values(revision: Revision) -> dict[str, Any]:
    """The tick's fields as a revision has them and Cassandra takes them; all but the key null in a cancellation."""
    key = (revision.ticker, revision.created_ms, revision.id)
    values = revision.values
    others = (None,) * (len(TICK_FIELDS) - len(key)) if values is None else (*values[:-1], *values.own)
    return {
        field.name: _as_stored(field.kind, value) for field, value in zip(TICK_FIELDS, (*key, *others), strict=True)
    }


def _as_stored(kind: FieldKind, value: Any) -> Any:
    if value is None:
        return None
    if kind == "time":
        return ms_to_datetime(value)
    # As the ticks' own: the shortest decimal that reads back as the same float.
    return Decimal(repr(value)) if type(value) is float else value


def _is_slice(one: Moments) -> bool:
    """Whether this number of times is read as one slice of the company's day."""
    return len(one.times) > TIMES_A_REQUEST


def _together(asked: Iterable[Moments]) -> Iterator[Moments]:
    """The same moments, those with few times as companies of a day in one: a request costs more than some rows."""
    waiting: dict[int, Moments] = {}
    for one in asked:
        if len(one.times) > FEW_TIMES:
            yield one
            continue
        if other := waiting.pop(one.trade_day, None):
            times = sorted({*other.times, *one.times})
            if len(other.tickers) < COMPANIES_A_REQUEST and len(times) <= TIMES_A_REQUEST:
                one = Moments(other.tickers + one.tickers, one.trade_day, times)
            else:
                yield other
        waiting[one.trade_day] = one
    yield from waiting.values()


def _in_requests(slices: Iterable[Moments]) -> Iterator[Moments]:
    """The times of slices, as many as one request may ask for."""
    for one in slices:
        for start in range(0, len(one.times), TIMES_A_REQUEST):
            yield one._replace(times=one.times[start : start + TIMES_A_REQUEST])


def _has_no_room(error: Exception) -> bool:
    """Whether the driver did not even send: bytes that the server has not read yet fill the socket."""
    return isinstance(error, NoHostAvailable) and any(isinstance(one, ConnectionBusy) for one in error.errors.values())


def _kept(dead: DeadLetter, place: str) -> DeadLetter:
    """The dead letter itself, or if it is too large for Cassandra its beginning."""
    size = len(dead.raw_value)
    if size <= MOST_RAW_BYTES:
        return dead
    return dead._replace(
        raw_value=dead.raw_value[:MOST_RAW_BYTES],
        reason=TOO_LARGE_TO_KEEP,
        detail=f"{size:,} bytes, the first {MOST_RAW_BYTES:,} of them kept; all are in Kafka at {place}, their SHA-256"
        f" is {hashlib.sha256(dead.raw_value).hexdigest()}; {dead.reason}: {dead.detail}",
    )


@lru_cache(maxsize=1)
def session_of_this_process(settings: Settings) -> Session:
    """One session for each worker process, kept from micro-batch to micro-batch."""
    return connect_cassandra(settings)
