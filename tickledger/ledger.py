"""The ledger: which batches landed, with their Kafka offsets, in the same MySQL transaction as their aggregates."""

import hashlib
import json
import os
import re
import socket
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, date, datetime
from enum import StrEnum
from functools import cache
from itertools import islice
from typing import Any, NamedTuple

import mysql.connector as mysql_driver
from mysql.connector import errorcode
from mysql.connector.abstracts import MySQLConnectionAbstract
from mysql.connector.errors import IntegrityError

from tickledger import fault_points
from tickledger.contract import TableContract, contract_hash, insert_statement, load_contract
from tickledger.errors import ConfigurationError, LedgerMoved, StoreUnavailable, TickledgerError
from tickledger.exchange import DAYS_QUERY, Exchange, days_of_rows, read_exchange, same_days
from tickledger.plain_text import plain
from tickledger.revisions import Place
from tickledger.settings import Settings
from tickledger.stores import (
    IDLE_SECONDS,
    close_quietly,
    connect_mysql,
    end_if_idle,
    fetch_rows,
    mysql,
    mysql_errors,
)
from tickledger.tick import OWN_FIELDS, TickField
from tickledger.trading_days import UTC_DAYS, TradingDays
from tickledger.unknown_fields import as_kept

#: A stream that was killed a moment ago, or whose connection broke, may hold the lock for so long.
LOCK_SECONDS = 10
#: A statement of many more rows could be larger than a server takes.
ROWS_A_STATEMENT = 1000


class SkipKind(StrEnum):
    """Why the ledger goes on behind offsets that no batch has landed."""

    #: Retention had deleted them when the ledger began.
    BEFORE_THE_LEDGER = "before_the_ledger"
    #: Nothing could be read there: markers of transactions, aborted messages, messages that compaction took.
    NOTHING_TO_READ = "nothing_to_read"
    #: Lost, and somebody said so: deleted by retention, or gone with a topic, or a part of it, that the broker lost.
    GIVEN_UP = "given_up"


@dataclass(frozen=True)
class Skip:
    """Offsets [from_offset, until_offset) of a partition that the ledger goes past without a batch.

    `topic_offset` is Kafka's own number of what the ledger counts as `until_offset`: another one only in a topic that
    was recreated, or whose end was lost.
    """

    kafka_partition: int
    from_offset: int
    until_offset: int
    topic_offset: int
    kind: SkipKind
    reason: str


def range_in_words(start: int, until: int, topic_offset: int) -> str:
    """A range that was given up. How much is gone with a recreated topic, or with its end, nobody knows."""
    if until - topic_offset > start:
        return f"all from offset {start} on; Kafka's offset {topic_offset} is {until} in the ledger"
    return f"offsets {start} to {until - 1}"


@dataclass(frozen=True)
class LedgerHead:
    """Where the ledger ends: its newest batch and, per partition, the offset after the last one landed or skipped.

    `batch_id` is 0 and `topic` empty if the ledger has not begun. `newest_created_at` is the latest created_at of
    all landed ticks, UTC. `shifts` are by how much the ledger's offsets of a partition are ahead of Kafka's own.
    `not_landed` holds (partition, from, until) of all that was skipped and may have left rows in Cassandra.
    """

    batch_id: int = 0
    topic: str = ""
    topic_id: str = ""
    ends: dict[int, int] = field(default_factory=dict)
    newest_created_at: datetime | None = None
    shifts: dict[int, int] = field(default_factory=dict)
    not_landed: tuple[tuple[int, int, int], ...] = ()

    @property
    def topic_offsets(self) -> dict[int, int]:
        """Where each partition goes on, in Kafka's own offsets. One that is not here begins at 0."""
        return {partition: end - self.shifts.get(partition, 0) for partition, end in self.ends.items()}

    def has_landed(self, partition: int, offset: int) -> bool:
        """Whether what the stores hold of a message counts."""
        return has_landed(self.ends, self.not_landed, partition, offset)


def has_landed(
    ends: Mapping[int, int], not_landed: Sequence[tuple[int, int, int]], partition: int, offset: int
) -> bool:
    """Whether a message lies before a ledger's `ends`, and in none of the ranges (partition, from, until) skipped."""
    return offset < ends.get(partition, 0) and not any(
        partition == skipped and start <= offset < until for skipped, start, until in not_landed
    )


class Company(NamedTuple):
    """What `profile` says of a ticker: its sector and its shares outstanding."""

    sector: str
    shares: int


class Corrected(NamedTuple):
    """What a batch's corrections change of a sum.

    `changed_ticks` are the ticks that they change; `ticks` and `volume` (shares) are by how much the sum changes; the
    times are the first and last created_at (UTC) of these ticks.
    """

    changed_ticks: int
    ticks: int
    volume: int
    first_created_at: datetime
    last_created_at: datetime


@dataclass(frozen=True)
class SectorVolume:
    """One row per date and sector of a batch: ticks, their volume in shares, first and last created_at (UTC).

    Where :func:`summed_by` names fields, one row per date, sector and `own` values of these. The figures are those of
    the ticks that the batch landed; the times are None if it landed none, and then it has `corrected` some.
    """

    date: date
    sector: str
    ticks: int
    volume: int
    first_created_at: datetime | None
    last_created_at: datetime | None
    own: tuple[Any, ...] = ()
    corrected: Corrected | None = None


class WaitingRevision(NamedTuple):
    """A correction or cancellation whose tick (ticker, created_at, id) has not landed: a row of `waiting_revisions`.

    `batch_id` brought it. `date` is the tick's trading day. It `expired_at` a time and is a dead letter since then.
    """

    place: Place
    ticker: str
    date: date
    created_at: datetime
    tick_id: int
    revised_at: datetime
    batch_id: int
    waits_since: datetime
    expired_at: datetime | None = None


#: What a batch goes through: it waits for the one before it (a stream's first does not), Spark's job, the ledger's
#: transaction, the check. Each has a column of `landed_batches`.
PHASES = ("waiting", "job", "commit", "check")


@dataclass(frozen=True)
class LandedBatch:
    """What a batch brings to the ledger. `ranges` maps a partition to its offsets [from, until).

    `companies` is the profile, by ticker, that its ticks were held against; the ledger keeps it for the batch's checks.
    `days` are the trading days that its ticks are of. `corrections` are the corrections and cancellations that it
    keeps, of which `waiting` wait for their tick; `found` are those that waited for a tick that it lands. Those of
    `expired` have waited for too long: they count as dead letters of their own batches from now on.
    `phases` are seconds by phase, as far as they have ended: those of :data:`PHASES`. `unknown_fields` are the names of
    fields that came with ticks and that nobody described.
    """

    batch_id: int
    topic: str
    topic_id: str
    ranges: dict[int, tuple[int, int]]
    messages: int
    ticks_read: int
    dead_letters: int
    duplicates: int
    late_ticks: int
    sectors: list[SectorVolume]
    landed_at: datetime
    landing_seconds: float
    phases: Mapping[str, float | None] = field(default_factory=dict)
    companies: Mapping[str, Company] = field(default_factory=dict)
    days: TradingDays = UTC_DAYS
    corrections: int = 0
    unknown_fields: frozenset[str] = frozenset()
    waiting: Sequence[WaitingRevision] = ()
    found: Sequence[WaitingRevision] = ()
    expired: Sequence[WaitingRevision] = ()

    @property
    def ticks_landed(self) -> int:
        """Ticks that the batch added to the stores."""
        return sum(sector.ticks for sector in self.sectors)

    @property
    def volume(self) -> int:
        """Shares traded in the landed ticks."""
        return sum(sector.volume for sector in self.sectors)

    @property
    def corrected_ticks(self) -> int:
        """By how many ticks corrections change those that hold."""
        return sum(sector.corrected.ticks for sector in self.sectors if sector.corrected)

    @property
    def corrected_volume(self) -> int:
        """By how many shares corrections change those that hold."""
        return sum(sector.corrected.volume for sector in self.sectors if sector.corrected)


def utc_now() -> datetime:
    """Now in UTC, to the millisecond, without a time zone: what a datetime(3) column holds."""
    now = datetime.now(UTC).replace(tzinfo=None)
    return now.replace(microsecond=now.microsecond // 1000 * 1000)


class Ledger:
    """Reads and appends to the ledger, each time on a connection of its own."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def head(self) -> LedgerHead:
        """The ledger's end as committed now. Raises StoreUnavailable."""
        with self._transaction() as connection:
            return _read_head(connection, lock=False)

    def companies(self) -> dict[str, Company]:
        """`profile` by ticker; empty if nothing is seeded. Raises StoreUnavailable."""
        with self._transaction() as connection:
            rows = fetch_rows(connection, "SELECT ticker, sector, shares FROM profile")
        return {str(ticker): Company(str(sector), int(shares)) for ticker, sector, shares in rows}

    def sectors(self) -> dict[str, str]:
        """`profile` as ticker → sector; empty if nothing is seeded. Raises StoreUnavailable."""
        return {ticker: company.sector for ticker, company in self.companies().items()}

    def exchange(self) -> Exchange:
        """The exchange as it is seeded. Raises ConfigurationError if it is not, StoreUnavailable."""
        with self._transaction() as connection:
            return read_exchange(connection)

    def waiting(self) -> list[WaitingRevision]:
        """The corrections that wait for their tick, or have expired and still stand here. Raises StoreUnavailable."""
        query = f"SELECT {', '.join(_WAITING)} FROM waiting_revisions ORDER BY batch_id"
        with self._transaction() as connection:
            rows = fetch_rows(connection, query)
        return [WaitingRevision(Place(*map(int, row[:3])), *row[3:]) for row in rows]

    def forget_expired(self, expired: Sequence[WaitingRevision]) -> None:
        """Delete the rows of expired corrections, which lie in `dead_letters` by now. Raises StoreUnavailable."""
        with self._transaction() as connection:
            _delete_waiting(connection, expired, "expired_at IS NOT NULL")
            connection.commit()

    def unchecked(self) -> list[int]:
        """The batches that no check has seen, oldest first. Raises StoreUnavailable."""
        query = "SELECT batch_id FROM landed_batches WHERE verdict = 'unchecked' ORDER BY batch_id"
        with self._transaction() as connection:
            return [int(row[0]) for row in fetch_rows(connection, query)]

    def commit(self, batch: LandedBatch) -> None:
        """Write the batch's aggregates and its ledger rows in one transaction, if the ledger ends where it begins.

        Committing the same batch again is harmless: one whose answer to COMMIT was lost is recognised.
        Raises LedgerMoved if another stream has landed meanwhile, BatchClashes if the batch stands in its own
        way, ConfigurationError if table `exchange` has other trading days by now, StoreUnavailable if MySQL is away
        (the caller commits again).
        """
        try:
            self._commit(batch)
        except _RefusedByKey:
            # An empty ledger has no row to lock: what stands there now may be this very batch, its answer lost.
            try:
                self._commit(batch)
            except _RefusedByKey as error:
                # The ledger still ends where the batch begins, so no other stream has brought the key.
                raise BatchClashes(
                    f"batch {batch.batch_id} cannot land, and no other stream has landed it: MySQL takes two of its"
                    f" rows for one, or has kept one of that number ({error}); if two sectors of 'profile' differ by"
                    " too little, fix the seed and run 'dbt seed'"
                ) from None

    def skip(self, head: LedgerHead, skips: Sequence[Skip]) -> None:
        """Let the ledger, if it still is at `head`, go on behind offsets that no batch lands, in one transaction.

        `head` names the topic that they are of. Skipping again is harmless. Raises LedgerMoved and StoreUnavailable as
        :meth:`commit` does.
        """
        try:
            self._skip(head, skips)
        except _RefusedByKey:
            # As in commit.
            self._skip(head, skips)

    def _skip(self, head: LedgerHead, skips: Sequence[Skip]) -> None:
        with self._transaction() as connection:
            found = _read_head(connection, lock=True)
            if all(found.ends.get(skip.kafka_partition) == skip.until_offset for skip in skips):
                return
            if found.batch_id != head.batch_id:
                raise LedgerMoved(f"the ledger ends at batch {found.batch_id}, not {head.batch_id}: a batch has landed")
            skipped_at = utc_now()
            cursor = connection.cursor()
            for skip in skips:
                _guard_range(found, skip.kafka_partition, skip.from_offset)
                place = {"topic": head.topic, "topic_id": head.topic_id, "batch_id": head.batch_id}
                row = asdict(skip) | place | {"kind": skip.kind.value, "skipped_at": skipped_at}
                cursor.execute(insert_into("skipped_offsets"), row)
            cursor.close()
            connection.commit()

    def note(self, batch: LandedBatch, messages_behind: int | None) -> None:
        """Add to a landed batch's row what is known only afterwards. Noting again replaces it.

        Raises StoreUnavailable; then it may be missing for good, and nothing else.
        """
        row: dict[str, Any] = {f"{phase}_seconds": _rounded(batch.phases.get(phase)) for phase in PHASES}
        row["messages_behind"] = messages_behind
        columns = ", ".join(f"{column} = %({column})s" for column in row)
        with self._transaction() as connection:
            cursor = connection.cursor()
            cursor.execute(
                f"UPDATE landed_batches SET {columns} WHERE batch_id = %(batch_id)s", row | {"batch_id": batch.batch_id}
            )
            cursor.close()
            connection.commit()

    def _commit(self, batch: LandedBatch) -> None:
        with self._transaction() as connection:
            head = _read_head(connection, lock=True)
            if self._is_newest(connection, head, batch):
                return
            _guard(head, batch)
            _guard_days(connection, batch)
            _insert(connection, batch)
            fault_points.reached("before_commit")
            connection.commit()
        fault_points.reached("after_commit")

    @staticmethod
    def _is_newest(connection: MySQLConnectionAbstract, head: LedgerHead, batch: LandedBatch) -> bool:
        if head.batch_id != batch.batch_id:
            return False
        query = "SELECT landed_at FROM landed_batches WHERE batch_id = %s"
        ours = fetch_rows(connection, query, (batch.batch_id,))[0][0] == batch.landed_at
        return ours and all(head.ends.get(partition) == until for partition, (_, until) in batch.ranges.items())

    @contextmanager
    def _transaction(self) -> Iterator[MySQLConnectionAbstract]:
        with mysql(self._settings) as connection:
            end_if_idle(connection, IDLE_SECONDS)
            try:
                yield connection
            except IntegrityError as error:
                if error.errno == errorcode.ER_DUP_ENTRY:
                    raise _RefusedByKey(f"a key of the ledger is taken: {error.msg}") from None
                raise BatchClashes(f"MySQL refuses the batch: {error.msg}") from None


class BatchClashes(TickledgerError):
    """MySQL refuses a batch for what it holds; the ledger is where it was. Exit code 1."""


class _RefusedByKey(LedgerMoved):
    """A key of the ledger is taken: by another stream, or by this batch itself."""


_ENDS = """
SELECT kafka_partition, MAX(until_offset), MAX(shift)
  FROM (SELECT kafka_partition, MAX(until_offset) AS until_offset, 0 AS shift
          FROM landed_offsets GROUP BY kafka_partition
         UNION ALL
        SELECT kafka_partition, MAX(until_offset), MAX(until_offset - topic_offset)
          FROM skipped_offsets GROUP BY kafka_partition) AS ends
 GROUP BY kafka_partition
"""


def _read_head(connection: MySQLConnectionAbstract, *, lock: bool) -> LedgerHead:
    # The newest row's lock makes two streams take turns; the primary key refuses the second batch of one number.
    suffix = " FOR UPDATE" if lock else ""
    topics = fetch_rows(
        connection, f"SELECT batch_id, topic, topic_id FROM landed_batches ORDER BY batch_id DESC LIMIT 1{suffix}"
    )
    batch_id = int(topics[0][0]) if topics else 0
    # A skip after the newest batch may have brought the ledger to a recreated topic.
    topics += fetch_rows(
        connection,
        "SELECT batch_id, topic, topic_id FROM skipped_offsets WHERE batch_id >= %s ORDER BY skipped_at DESC LIMIT 1",
        (batch_id,),
    )
    if not topics:
        return LedgerHead()
    ends = [(int(one), int(end), int(shift)) for one, end, shift in fetch_rows(connection, _ENDS)]
    not_landed = fetch_rows(
        connection,
        "SELECT kafka_partition, from_offset, until_offset FROM skipped_offsets WHERE kind <> %s",
        (SkipKind.NOTHING_TO_READ.value,),
    )
    return LedgerHead(
        batch_id=batch_id,
        topic=topics[-1][1],
        topic_id=topics[-1][2],
        ends={partition: end for partition, end, _ in ends},
        newest_created_at=fetch_rows(connection, "SELECT MAX(last_created_at) FROM landed_batches")[0][0],
        shifts={partition: shift for partition, _, shift in ends if shift},
        not_landed=tuple((int(partition), int(start), int(until)) for partition, start, until in not_landed),
    )


def _guard(head: LedgerHead, batch: LandedBatch) -> None:
    expected = batch.batch_id - 1
    if head.batch_id != expected:
        raise LedgerMoved(
            f"the ledger ends at batch {head.batch_id}, not {expected}: another stream has landed a batch"
        )
    if head.topic and (head.topic, head.topic_id) != (batch.topic, batch.topic_id):
        raise LedgerMoved(f"the ledger lands topic {head.topic!r} ({head.topic_id}), not {batch.topic!r}")
    for partition, (start, _) in batch.ranges.items():
        _guard_range(head, partition, start)


def _guard_range(head: LedgerHead, partition: int, start: int) -> None:
    end = head.ends.get(partition, 0)
    if end != start:
        raise LedgerMoved(f"the ledger's partition {partition} ends at offset {end}; the batch begins at {start}")


def _guard_days(connection: MySQLConnectionAbstract, batch: LandedBatch) -> None:
    """A batch of days that are no longer the exchange's would be counted twice where it comes again."""
    if not same_days(days_of_rows(fetch_rows(connection, DAYS_QUERY)), batch.days):
        raise ConfigurationError(
            "table 'exchange' has other trading days than those that this stream lands by: put back the rows that it"
            " had, which a backup holds, and start the stream again"
        )


def _insert(connection: MySQLConnectionAbstract, batch: LandedBatch) -> None:
    cursor = connection.cursor()
    cursor.execute("SELECT COALESCE(MAX(processing_id), 0) FROM aggregated_data")
    last_id = int(cursor.fetchone()[0])  # type: ignore[index,arg-type]
    for number, sector in enumerate(batch.sectors, start=1):
        row = aggregate_row(batch.batch_id, batch.landed_at, sector, last_id + number)
        cursor.execute(insert_into("aggregated_data"), row)
    cursor.execute(insert_into("landed_batches"), {name: of(batch) for name, of in _OF_A_BATCH.items()})
    offsets = ((batch.batch_id, partition, *span) for partition, span in batch.ranges.items())
    _insert_rows(connection, "landed_offsets", offsets)
    version = profile_version(batch.companies)
    known = "SELECT 1 FROM profile_versions WHERE profile_version = %s LIMIT 1"
    if version and not fetch_rows(connection, known, (version,)):
        companies = ((version, ticker, *company) for ticker, company in batch.companies.items())
        _insert_rows(connection, "profile_versions", companies)
    cursor.close()
    _settle_waiting(connection, batch)


def _settle_waiting(connection: MySQLConnectionAbstract, batch: LandedBatch) -> None:
    cursor = connection.cursor()
    _insert_rows(connection, "waiting_revisions", ((*one.place, *one[1:]) for one in batch.waiting))
    if batch.found:
        _delete_waiting(connection, batch.found, "expired_at IS NULL")
    for one in batch.expired:
        cursor.execute(
            f"UPDATE waiting_revisions SET expired_at = %s WHERE {_PLACE} AND expired_at IS NULL",
            (batch.landed_at, *one.place),
        )
        cursor.execute(
            "UPDATE landed_batches SET corrections = corrections - 1, dead_letters = dead_letters + 1"
            " WHERE batch_id = %s",
            (one.batch_id,),
        )
    cursor.close()


def _insert_rows(connection: MySQLConnectionAbstract, table: str, rows: Iterable[tuple[Any, ...]]) -> None:
    """Insert rows whose values are in the order of :data:`INSERTED`, many in a statement."""
    named = (dict(zip(INSERTED[table], row, strict=True)) for row in rows)
    cursor = connection.cursor()
    while some := list(islice(named, ROWS_A_STATEMENT)):
        cursor.executemany(insert_into(table), some)
    cursor.close()


def _delete_waiting(connection: MySQLConnectionAbstract, gone: Sequence[WaitingRevision], which: str) -> None:
    cursor = connection.cursor()
    cursor.executemany(f"DELETE FROM waiting_revisions WHERE {_PLACE} AND {which}", [tuple(one.place) for one in gone])
    cursor.close()


_PLACE = "kafka_partition = %s AND kafka_offset = %s AND position = %s"


def profile_version(companies: Mapping[str, Company]) -> str | None:
    """SHA-256 of what `profile` says of each ticker, which names it in the ledger; None if it says nothing."""
    if not companies:
        return None
    return hashlib.sha256(json.dumps(sorted(companies.items())).encode()).hexdigest()


#: How each column of a batch's row follows from the batch, as it is inserted.
_OF_A_BATCH: dict[str, Callable[[LandedBatch], Any]] = {
    "batch_id": lambda batch: batch.batch_id,
    "topic": lambda batch: batch.topic,
    "topic_id": lambda batch: batch.topic_id,
    "messages": lambda batch: batch.messages,
    "ticks_read": lambda batch: batch.ticks_read,
    "ticks_landed": lambda batch: batch.ticks_landed,
    "dead_letters": lambda batch: batch.dead_letters,
    "duplicates": lambda batch: batch.duplicates,
    "late_ticks": lambda batch: batch.late_ticks,
    "volume": lambda batch: batch.volume,
    "first_created_at": lambda batch: min(filter(None, (one.first_created_at for one in batch.sectors)), default=None),
    "last_created_at": lambda batch: max(filter(None, (one.last_created_at for one in batch.sectors)), default=None),
    "landed_at": lambda batch: batch.landed_at,
    "landing_seconds": lambda batch: _rounded(batch.landing_seconds),
    "waiting_seconds": lambda batch: _rounded(batch.phases.get("waiting")),
    "job_seconds": lambda batch: _rounded(batch.phases.get("job")),
    "contract_hash": lambda _: contract_hash(),
    "profile_version": lambda batch: profile_version(batch.companies),
    "verdict": lambda _: "unchecked",
    "unknown_fields": lambda batch: as_kept(batch.unknown_fields) if batch.ticks_landed or batch.corrections else None,
    "corrections": lambda batch: batch.corrections,
    "corrected_volume": lambda batch: batch.corrected_volume,
    "corrected_ticks": lambda batch: batch.corrected_ticks,
}
_WAITING = (
    *("kafka_partition", "kafka_offset", "position", "ticker", "date", "created_at", "tick_id", "revised_at"),
    *("batch_id", "waits_since", "expired_at"),
)
#: The columns that the stream fills as it inserts a row, by table. What else a contract has must be nullable.
#: In `aggregated_data` it also fills those of :func:`summed_by`.
INSERTED = {
    "aggregated_data": (
        *("processing_id", "processed_at", "sector", "total_volume", "date", "batch_id", "ticks"),
        *("first_created_at", "last_created_at", "corrected_volume", "corrected_ticks", "changed_ticks"),
    ),
    "landed_batches": tuple(_OF_A_BATCH),
    "landed_offsets": ("batch_id", "kafka_partition", "from_offset", "until_offset"),
    "skipped_offsets": (
        *("kafka_partition", "from_offset", "until_offset", "topic_offset", "kind", "reason"),
        *("topic", "topic_id", "batch_id", "skipped_at"),
    ),
    "profile_versions": ("profile_version", "ticker", "sector", "shares"),
    "waiting_revisions": _WAITING,
}
#: Those and the ones that it fills later.
FILLED = INSERTED | {
    "landed_batches": (*_OF_A_BATCH, "commit_seconds", "check_seconds", "messages_behind", "checked_at"),
    "stream_lock": ("part", "holder", "since"),
}


@cache
def insert_into(table: str) -> str:
    """The INSERT of one row of such a table, whose values are bound by column name."""
    return insert_statement(table, _with_own(table, INSERTED[table]))


def filled() -> dict[str, tuple[str, ...]]:
    """All columns that the stream fills, by table."""
    return {table: _with_own(table, columns) for table, columns in FILLED.items()}


def _with_own(table: str, columns: tuple[str, ...]) -> tuple[str, ...]:
    return columns + summed_by() if table == "aggregated_data" else columns


@cache
def summed_by() -> tuple[str, ...]:
    """The fields of one's own by which `aggregated_data` is summed: its unique key in the dbt contract names them.

    In their own order. Raises ConfigurationError if the key names what is no such field.
    """
    contract = load_contract()["aggregated_data"]
    usual, fields = {"date", "sector", "batch_id"}, {one.name: one.kind in ("text", "whole") for one in OWN_FIELDS}
    for kind, columns in contract.unique_keys():
        if kind == "unique key" and usual.issubset(columns):
            names = [name for name in columns if name not in usual]
            if strange := [name for name in names if not fields.get(name)]:
                raise ConfigurationError(
                    f"the unique key of 'aggregated_data' names {strange[0]!r}; it should be a text or whole number of"
                    " OWN_FIELDS in tickledger/tick.py"
                )
            for field in (one for one in OWN_FIELDS if one.name in names):
                _check_key_column(field, contract)
            return tuple(name for name in fields if name in names)
    return ()


def _check_key_column(field: TickField, contract: TableContract) -> None:
    """Raise ConfigurationError where the column of a key cannot hold all that the field may be."""
    live = contract.types[field.name].lower()
    text = re.fullmatch(r"varchar\((\d+)\)", live)
    holds = int(text[1]) >= field.maximum if text else field.kind == "whole" and live == "bigint"
    if not holds:
        should_be = f"varchar({field.maximum})" if field.kind == "text" else "bigint"
        raise ConfigurationError(f"column {field.name!r} of 'aggregated_data' is {live}; it should be {should_be}")
    if field.optional and field.default is None and field.name in contract.required:
        raise ConfigurationError(f"column {field.name!r} of 'aggregated_data' is not null; the field may be null")


def sum_order(key: tuple[int, str, tuple[Any, ...]]) -> tuple[int, str, str]:
    """What sums are sorted by: day or batch, sector, and own values, of which a null has no order."""
    number, sector, own = key
    return number, sector, repr(own)


def aggregate_row(batch_id: int, processed_at: datetime, sector: SectorVolume, processing_id: int) -> dict[str, Any]:
    """One row of `aggregated_data`, by column name: what landed, and what is corrected of what had landed."""
    corrected = sector.corrected
    firsts = (sector.first_created_at, corrected and corrected.first_created_at)
    lasts = (sector.last_created_at, corrected and corrected.last_created_at)
    return {
        "processing_id": processing_id,
        "processed_at": processed_at,
        "sector": sector.sector,
        "total_volume": sector.volume + (corrected.volume if corrected else 0),
        "date": sector.date,
        "batch_id": batch_id,
        "ticks": sector.ticks + (corrected.ticks if corrected else 0),
        "first_created_at": min(filter(None, firsts)),
        "last_created_at": max(filter(None, lasts)),
        "corrected_volume": corrected and corrected.volume,
        "corrected_ticks": corrected and corrected.ticks,
        "changed_ticks": corrected and corrected.changed_ticks,
        **dict(zip(summed_by(), sector.own, strict=True)),
    }


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 3)


class StreamLock:
    """A row that a transaction of its own keeps locked: a second stream on the same database is refused early.

    The connection never reconnects by itself; the server lets the row go when it ends, however that happens, or if it
    hears nothing for :data:`IDLE_SECONDS`: nobody tells a server that a host or a network is gone. A thread lets it
    hear of this one until :meth:`release`. Only the stream's account may lock the row. The ledger's guard, not this
    lock, keeps batches apart: who is frozen for longer has lost it.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._connection: MySQLConnectionAbstract | None = None
        self._one_at_a_time = threading.Lock()
        #: What it has written of itself: (holder, since).
        self._names: list[tuple[str, datetime]] = []
        self._keeper: threading.Thread | None = None
        self._released = threading.Event()

    def hold(self) -> None:
        """Lock the row, or make sure that it is still ours.

        Raises LedgerMoved, which names who has it, if another stream has it for longer than :data:`LOCK_SECONDS`,
        StoreUnavailable if MySQL is away, or still waits for a connection of ours that was lost.
        """
        with self._one_at_a_time:
            if self._still_ours():
                return
            connection = connect_mysql(self._settings)
            try:
                with mysql_errors(self._settings):
                    end_if_idle(connection, IDLE_SECONDS)
                    self._lock(connection)
                    self._write_holder()
            except BaseException:
                close_quietly(connection)
                raise
            self._connection = connection
            if self._keeper is None:
                self._keeper = threading.Thread(target=self._keep, daemon=True)
                self._keeper.start()

    def release(self) -> None:
        """Let the row go, for good; while MySQL does not answer, that may take some 20 seconds."""
        self._released.set()
        with self._one_at_a_time:
            self._let_go()

    def _keep(self) -> None:
        while not self._released.wait(IDLE_SECONDS / 4):
            with self._one_at_a_time:
                try:
                    self._still_ours()
                except Exception:  # the next `hold` meets it again, and says so
                    self._let_go()

    def _still_ours(self) -> bool:
        if self._connection is not None:
            with suppress(StoreUnavailable), mysql_errors(self._settings):
                fetch_rows(self._connection, _LOCK_ROW)
                return True
        self._let_go()
        return False

    def _let_go(self) -> None:
        if self._connection is not None:
            close_quietly(self._connection)
            self._connection = None

    def _lock(self, connection: MySQLConnectionAbstract) -> None:
        try:
            # Only if it is missing: an insert waits for whoever has locked the row.
            if not fetch_rows(connection, "SELECT 1 FROM stream_lock WHERE part = 'lock'"):
                connection.cursor().execute(f"INSERT IGNORE INTO {_LOCK_COLUMNS} VALUES ('lock', '', UTC_TIMESTAMP(3))")
                connection.commit()
            connection.cursor().execute("SET SESSION innodb_lock_wait_timeout = %s", (LOCK_SECONDS,))
            fetch_rows(connection, _LOCK_ROW)
        except mysql_driver.Error as error:
            if error.errno == errorcode.ER_LOCK_WAIT_TIMEOUT:
                if any(row in self._names for row in fetch_rows(connection, _HOLDER)):
                    raise StoreUnavailable(
                        f"MySQL at {self._settings.mysql_host}:{self._settings.mysql_port} (MYSQL_HOST, MYSQL_PORT)"
                        " still waits for this stream's former connection"
                    ) from None
                who = lock_holder(connection)
                raise LedgerMoved(
                    f"another stream lands into {self._settings.mysql_database!r} ({who}); stop it first"
                ) from None
            raise

    def _write_holder(self) -> None:
        """Over another connection: this one's transaction stays open, and nobody would see what it writes."""
        # Known before it is written: the answer may be lost.
        name = f"process {os.getpid()} on {socket.gethostname()}"[:255], utc_now()
        self._names.append(name)
        with mysql(self._settings) as connection:
            end_if_idle(connection, IDLE_SECONDS)
            connection.cursor().execute(
                f"INSERT INTO {_LOCK_COLUMNS} VALUES ('holder', %s, %s)"
                " ON DUPLICATE KEY UPDATE holder = VALUES(holder), since = VALUES(since)",
                name,
            )
            connection.commit()


_LOCK_COLUMNS = "stream_lock (part, holder, since)"
_HOLDER = "SELECT holder, since FROM stream_lock WHERE part = 'holder'"
#: Ours alone, until the transaction ends.
_LOCK_ROW = "SELECT part FROM stream_lock WHERE part = 'lock' FOR UPDATE"


def lock_holder(connection: MySQLConnectionAbstract) -> str:
    """Who took the stream's lock last, in words. Raises mysql.connector.Error."""
    rows = fetch_rows(connection, _HOLDER)
    return f"{plain(rows[0][0])}, since {rows[0][1]:%Y-%m-%d %H:%M:%S} UTC" if rows else "which has just begun"
