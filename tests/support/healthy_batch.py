"""A batch landed by hand in both stores, in every fact as the stream would land it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from tests.support.pipeline import Pipeline
from tickledger.ledger import LandedBatch, Ledger, SectorVolume, Skip, SkipKind
from tickledger.tick import DEAD_LETTER_BUCKET

NOON = datetime(2026, 3, 2, 5, 0)
#: Ticker, sector and shares as in the seed; two of them share a sector.
COMPANIES = (
    ("DWGL.JK", "Coal", 9_270_000_000),
    ("HEAL.JK", "Healthcare Providers", 15_360_000_000),
    ("MIKA.JK", "Healthcare Providers", 14_240_000_000),
)
#: Seconds from NOON of each company's ticks in batch 1: the last but one is on the day before.
SECONDS = (0, 1, 2, -86_400, 3)


@dataclass(frozen=True)
class StoredTick:
    """One row of real_time_data."""

    ticker: str
    sector: str
    created_at: datetime
    id: int
    volume: int
    price: Decimal
    market_cap: Decimal
    partition: int
    offset: int

    @property
    def key(self) -> tuple[Any, ...]:
        """The row's primary key in Cassandra."""
        return self.ticker, self.created_at.date(), self.created_at, self.id


def first_offset(batch_id: int) -> int:
    """Where a batch begins in both partitions."""
    return DEAD_LETTER_BUCKET - 150 + 100 * batch_id


def dead_offset(batch_id: int) -> int:
    """The message of a batch, in partition 0, that nobody can read."""
    return first_offset(batch_id) + 60


def land_ticks(
    pipeline: Pipeline,
    batch_id: int = 1,
    seconds: tuple[int, ...] = SECONDS,
    companies: Sequence[tuple[str, str, int]] = COMPANIES,
) -> list[StoredTick]:
    """Land a batch of ticks over two partitions and two days, one dead letter and one duplicate; return its ticks.

    Batches follow each other a minute and 100 offsets apart. Batch 1 lies across two buckets of dead letters.
    """
    start = first_offset(batch_id)
    ticks = [
        StoredTick(
            ticker=ticker,
            sector=sector,
            created_at=NOON + timedelta(seconds=second, minutes=batch_id),
            id=(100 * batch_id + number) * max(10, len(companies)) + company,
            volume=100 + number,
            price=Decimal("550.5"),
            market_cap=Decimal("550.5") * shares,
            partition=number % 2,
            offset=start + number,
        )
        for company, (ticker, sector, shares) in enumerate(companies)
        for number, second in enumerate(seconds)
    ]
    for tick in ticks:
        store_tick(pipeline, tick)
    store_dead_letter(pipeline, 0, dead_offset(batch_id))
    _commit(pipeline, batch_id, ticks, {0: (start, start + 100), 1: (start, start + 100)}, dead_letters=1)
    return ticks


def land_dead_letters(pipeline: Pipeline, batch_id: int = 1) -> None:
    """Land a batch of one message that nobody can read."""
    store_dead_letter(pipeline, 0, 5)
    _commit(pipeline, batch_id, [], {0: (5, 6)}, dead_letters=1, duplicates=0, messages=1)


def store_tick(pipeline: Pipeline, tick: StoredTick) -> None:
    """Put one row into real_time_data."""
    pipeline.cassandra.execute(
        "INSERT INTO real_time_data (ticker, trade_date, created_at, id, volume, market_cap, price, sector,"
        " kafka_partition, kafka_offset) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s)",
        (*tick.key, tick.volume, tick.market_cap, tick.price, tick.sector, tick.partition, tick.offset),
    )


def store_dead_letter(pipeline: Pipeline, partition: int, offset: int, reason: str = "not_json") -> None:
    """Put one row into dead_letters."""
    pipeline.cassandra.execute(
        "INSERT INTO dead_letters (topic, kafka_partition, offset_bucket, kafka_offset, position, raw_value, reason)"
        " VALUES (%s, %s, %s, %s, -1, %s, %s)",
        (pipeline.settings.kafka_topic, partition, offset // DEAD_LETTER_BUCKET, offset, b"{", reason),
    )


def _commit(
    pipeline: Pipeline,
    batch_id: int,
    ticks: list[StoredTick],
    ranges: dict[int, tuple[int, int]],
    *,
    dead_letters: int,
    duplicates: int = 1,
    messages: int = 20,
) -> None:
    ledger = Ledger(pipeline.settings)
    head = ledger.head()
    topic, topic_id = pipeline.settings.kafka_topic, "00000000-0000-0000-0000-000000000001"
    gone = [
        Skip(partition, end, start, start, SkipKind.BEFORE_THE_LEDGER, "deleted before the ledger began")
        for partition, (start, _) in ranges.items()
        if (end := head.ends.get(partition, 0)) < start
    ]
    if gone:
        ledger.skip(replace(head, topic=topic, topic_id=topic_id), gone)
    ledger.commit(
        LandedBatch(
            batch_id=batch_id,
            topic=topic,
            topic_id=topic_id,
            ranges=ranges,
            messages=messages,
            ticks_read=len(ticks) + dead_letters + duplicates,
            dead_letters=dead_letters,
            duplicates=duplicates,
            late_ticks=sum(tick.created_at < NOON for tick in ticks),
            sectors=_sectors(ticks),
            landed_at=NOON + timedelta(minutes=batch_id, seconds=5),
            landing_seconds=0.5,
            companies=ledger.companies(),
        )
    )


def _sectors(ticks: list[StoredTick]) -> list[SectorVolume]:
    groups: dict[tuple[Any, str], list[StoredTick]] = {}
    for tick in ticks:
        groups.setdefault((tick.created_at.date(), tick.sector), []).append(tick)
    return [
        SectorVolume(
            date=day,
            sector=sector,
            ticks=len(group),
            volume=sum(tick.volume for tick in group),
            first_created_at=min(tick.created_at for tick in group),
            last_created_at=max(tick.created_at for tick in group),
        )
        for (day, sector), group in groups.items()
    ]
